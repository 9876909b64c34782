//! A checksum over the small records of a store, kept while they come and go.
//!
//! **Invariant**: one that is missing, or foreign, shows.

use serde::{Deserialize, Serialize};

/// A checksum over a set of records, kept while they come and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Digest {
    count: u64,
    xor: u32,
}

impl Digest {
    pub(crate) fn add(&mut self, crc: u32) {
        self.count += 1;
        self.xor ^= crc;
    }

    pub(crate) fn remove(&mut self, crc: u32) {
        self.count = self.count.wrapping_sub(1);
        self.xor ^= crc;
    }
}
