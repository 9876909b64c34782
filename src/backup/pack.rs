//! Packs: objects with the blocks of a range of ids.
//!
//! Format: the magic `silkpak1`, then of each block, by id: the id (u64 LE), the length (u32 LE), and the columns of the
//! block, concatenated in order. The manifest has the checksum of the whole pack. The records have those of the columns.
//!
//! **Invariant**: the ids of a pack strictly increase.

use super::manifest::{ObjectRef, PackRef};
use super::names::{self, StoreId};

const MAGIC: &[u8; 8] = b"silkpak1";
/// A pack ends with the block that makes it this large.
pub(super) const PACK_BYTES: usize = 8 << 20;
/// A pack is small below this size.
const SMALL_BYTES: u64 = PACK_BYTES as u64 / 2;
/// Largest number of small packs that a backup names again. Beyond it, the blocks of all small packs are sent again, in
/// large packs.
const SMALL_PACKS_MAX: usize = 64;

/// A pack that is being filled.
#[derive(Default)]
pub(super) struct PackBuilder {
    bytes: Vec<u8>,
    first: Option<u64>,
    last: u64,
    block_bytes: u64,
}

impl PackBuilder {
    /// Adds a block. Its id must be above those before it.
    pub(super) fn push(&mut self, id: u64, columns: &[u8]) {
        if self.first.is_none() {
            self.bytes.extend_from_slice(MAGIC);
            self.first = Some(id);
        }
        self.last = id;
        self.block_bytes += columns.len() as u64;
        self.bytes.extend_from_slice(&id.to_le_bytes());
        self.bytes.extend_from_slice(&u32::try_from(columns.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend_from_slice(columns);
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= PACK_BYTES
    }

    /// Id of the last block; `None` if the pack is empty.
    pub(super) fn last(&self) -> Option<u64> {
        self.first.map(|_| self.last)
    }

    /// Ends the pack, if it has a block. Returns its description and its bytes.
    pub(super) fn take(&mut self, store: StoreId) -> Option<(PackRef, Vec<u8>)> {
        let Self { bytes, first, last, block_bytes } = std::mem::take(self);
        let (first_block, end_block) = (first?, last + 1);
        let object = ObjectRef::new(&bytes, |sha256| names::pack(first_block, end_block, store, sha256));
        Some((PackRef { object, first_block, end_block, live_bytes: block_bytes }, bytes))
    }
}

/// Iterates over the blocks of a pack: id and columns. An item is `None` if the pack is not valid from there on.
pub(super) fn blocks(pack: &[u8]) -> impl Iterator<Item = Option<(u64, &[u8])>> {
    let mut rest = pack.strip_prefix(MAGIC.as_slice());
    std::iter::from_fn(move || {
        if rest.is_some_and(<[u8]>::is_empty) {
            return None;
        }
        let next = rest.and_then(|bytes| {
            let (id, bytes) = bytes.split_first_chunk::<8>()?;
            let (length, bytes) = bytes.split_first_chunk::<4>()?;
            let (columns, after) = bytes.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            Some((u64::from_le_bytes(*id), columns, after))
        });
        // After an invalid item there are no more items.
        rest = Some(next.map_or(&[], |(_, _, after)| after));
        Some(next.map(|(id, columns, _)| (id, columns)))
    })
}

/// Chooses the packs of an earlier backup that the next backup names again: not those of which less than half is still
/// used, and no small ones if there are too many of them.
pub(super) fn kept_packs(packs: &[PackRef]) -> Vec<PackRef> {
    let is_used = |pack: &&PackRef| pack.live_bytes.saturating_mul(2) >= pack.object.bytes;
    let is_small = |pack: &PackRef| pack.object.bytes < SMALL_BYTES;
    let used: Vec<&PackRef> = packs.iter().filter(is_used).collect();
    let too_many = used.iter().filter(|pack| is_small(pack)).count() > SMALL_PACKS_MAX;
    used.into_iter().filter(|pack| !too_many || !is_small(pack)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::tests::pack;

    #[test]
    fn blocks_of_a_pack_are_read_back_and_a_cut_pack_is_refused() {
        let mut builder = PackBuilder::default();
        assert!(builder.take(StoreId(1)).is_none());
        builder.push(3, b"columns of three");
        builder.push(9, b"");
        let (described, bytes) = builder.take(StoreId(1)).unwrap();
        assert_eq!((described.first_block, described.end_block, described.live_bytes), (3, 10, 16));
        let read: Option<Vec<_>> = blocks(&bytes).collect();
        assert_eq!(read.unwrap(), [(3, b"columns of three".as_slice()), (9, b"")]);
        let ends = [8, 8 + 12 + 16, bytes.len()];
        for cut in 0..bytes.len() {
            let is_whole = blocks(&bytes[..cut]).all(|block| block.is_some());
            assert_eq!(is_whole, ends.contains(&cut), "cut at {cut}");
        }
    }

    #[test]
    fn packs_are_kept_unless_mostly_unused_or_too_many_are_small() {
        let (large, small) = (SMALL_BYTES, SMALL_BYTES - 1);
        let kept = |packs: &[PackRef]| kept_packs(packs).iter().map(|pack| pack.first_block).collect::<Vec<_>>();
        let half_used = [pack(1, 2, large, large / 2 - 1), pack(2, 3, large, large / 2), pack(3, 4, small, 0)];
        assert_eq!(kept(&half_used), [2]);
        let small_packs = |count: u64| {
            let small_pack = |at| pack(at, at + 1, small, small);
            [vec![pack(1, 2, large, large)], (2..2 + count).map(small_pack).collect()].concat()
        };
        assert_eq!(kept(&small_packs(64)).len(), 65);
        assert_eq!(kept(&small_packs(65)), [1]);
    }
}
