//! Encoding of published values in the log and in the records of held ticks.
//!
//! **Invariant**: decoding gives the value with exactly its published digits, or fails.

use serde::{Deserialize, Serialize};

use super::block::{pack_change, unpack_change};
use crate::domain::{PublishedValue, Rate};

/// An encoded published value: mantissa and places of the rate, and the packed reported change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ValueRecord {
    mantissa: u128,
    places: u8,
    change: u64,
}

impl ValueRecord {
    pub(crate) fn new(value: &PublishedValue) -> Self {
        Self {
            mantissa: value.rate.mantissa(),
            places: value.rate.places(),
            change: pack_change(value.reported_change),
        }
    }

    /// Decodes the value. Returns `None` if it is invalid.
    pub(crate) fn value(&self) -> Option<PublishedValue> {
        Some(PublishedValue {
            rate: Rate::from_parts(self.mantissa, u32::from(self.places)).ok()?,
            reported_change: unpack_change(self.change).ok()?,
        })
    }
}
