//! Published values as the log and the records of held ticks have them.
//!
//! **Invariant**: a value that was stored comes back with the digits it was published with, or not at all.

use serde::{Deserialize, Serialize};

use super::block::{pack_change, unpack_change};
use crate::domain::{PublishedValue, Rate};

/// A published value: mantissa, places, and the reported change packed.
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

    /// The value again; `None` if it makes no sense.
    pub(crate) fn value(&self) -> Option<PublishedValue> {
        Some(PublishedValue {
            rate: Rate::from_parts(self.mantissa, u32::from(self.places)).ok()?,
            reported_change: unpack_change(self.change).ok()?,
        })
    }
}
