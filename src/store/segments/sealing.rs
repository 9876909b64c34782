//! Sealing of mutable segments: their items are encoded as blocks, and the segments become immutable.
//!
//! **Invariant**: sealing changes neither the items nor their order.

use std::sync::Arc;

use super::{Segment, Segments};
use crate::domain::Timestamp;
use crate::store::block::{BlockMeta, Item};

/// What [`Segments::seal`] has sealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sealed {
    /// Number of segments; at least one.
    pub(crate) segment_count: usize,
    /// Key of the last item.
    pub(crate) last_key: Timestamp,
}

impl<T: Item> Segments<T> {
    fn has_mutable_segments(&self) -> bool {
        !self.head.is_empty() || self.mutable_segment_count() > 0
    }

    /// Replaces each sequence of neighbouring mutable segments by the blocks that `encode` makes of its items.
    pub(crate) fn make_immutable<E>(
        &mut self,
        mut encode: impl FnMut(&[T]) -> Result<Vec<Arc<BlockMeta>>, E>,
    ) -> Result<(), E> {
        if !self.has_mutable_segments() {
            return Ok(());
        }
        let mut blocks = Vec::with_capacity(self.segment_count());
        let mut pending: Vec<T> = Vec::new();
        for segment in self.segments() {
            match segment {
                Segment::Mutable(items) => pending.extend_from_slice(&items),
                Segment::Immutable(meta) => {
                    encode_evenly(&mut pending, &mut encode, |meta| blocks.push(meta))?;
                    blocks.push(meta);
                }
            }
        }
        // If no block follows, fill every block except the last: a full block is not rewritten when the head grows.
        for piece in pending.chunks(T::BLOCK_ITEMS_MAX) {
            blocks.extend(encode(piece)?);
        }
        *self = Self::of_blocks(blocks);
        Ok(())
    }

    /// Replaces at most `segments_max` mutable segments outside the head, which begin after the key `after`, by the
    /// blocks that `encode` makes of their items. Neighbouring segments are divided evenly. Returns `None` if there are
    /// no such segments.
    pub(crate) fn seal<E>(
        &mut self,
        after: Timestamp,
        segments_max: usize,
        mut encode: impl FnMut(&[T]) -> Result<Vec<Arc<BlockMeta>>, E>,
    ) -> Result<Option<Sealed>, E> {
        let first = match after {
            Timestamp::MIN => 0,
            after => self.body.partition_point(|segment| segment.first_key() <= after),
        };
        let is_mutable = |segment: &Segment<T>| matches!(segment, Segment::Mutable(_));
        if !self.body.iter().skip(first).any(is_mutable) {
            return Ok(None);
        }
        let mut body = Vec::with_capacity(self.body.len());
        let mut pending: Vec<T> = Vec::new();
        let mut sealed = Sealed { segment_count: 0, last_key: after };
        for (at, segment) in self.body.iter().enumerate() {
            match segment {
                Segment::Mutable(items) if at >= first && sealed.segment_count < segments_max => {
                    pending.extend_from_slice(items);
                    sealed.segment_count += 1;
                    sealed.last_key = items.last().map_or(sealed.last_key, T::key);
                }
                Segment::Mutable(_) | Segment::Immutable(_) => {
                    encode_evenly(&mut pending, &mut encode, |meta| body.push(Segment::Immutable(meta)))?;
                    body.push(segment.clone());
                }
            }
        }
        encode_evenly(&mut pending, &mut encode, |meta| body.push(Segment::Immutable(meta)))?;
        self.body = Arc::new(body);
        Ok(Some(sealed))
    }
}

/// Encodes the items as blocks of about equal size, and removes them from the list: the next late tick would split a
/// full block into two small ones.
fn encode_evenly<T: Item, E>(
    items: &mut Vec<T>,
    encode: &mut impl FnMut(&[T]) -> Result<Vec<Arc<BlockMeta>>, E>,
    mut add: impl FnMut(Arc<BlockMeta>),
) -> Result<(), E> {
    let pieces = items.len().div_ceil(T::BLOCK_ITEMS_MAX).max(1);
    for piece in items.chunks(items.len().div_ceil(pieces).max(1)) {
        encode(piece)?.into_iter().for_each(&mut add);
    }
    items.clear();
    Ok(())
}
