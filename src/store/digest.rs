//! Digest of the small records of a store, updated whenever a record is added or removed.
//!
//! **Invariant**: a missing or an unexpected record changes the digest.

use serde::{Deserialize, Serialize};

/// The number of records in a set and the xor of their checksums.
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
