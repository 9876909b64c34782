//! The items of one kind (runs, instants or revisions) of one series, sorted by key and divided into segments.
//!
//! An immutable segment is a block on disk. A mutable segment is decoded in memory: it is a chunk of the head, which
//! holds new items, or a block that a late tick changed. `Segments` has value semantics: a clone copies a few reference
//! counts and never changes afterwards. The writer changes its own copy, and readers hold clones.
//!
//! **Invariant**: no segment is empty; items are sorted within a segment and across segments; keys are distinct, except
//! that several revisions may have one key.

mod sealing;

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use super::block::{BlockError, BlockFault, BlockMeta, Item};
use super::reader::BlockReader;
use crate::domain::Timestamp;

/// Consecutive items of one series and one kind, in a block or decoded.
#[derive(Clone, Debug)]
pub(crate) enum Segment<T> {
    /// Items of a block, not decoded.
    Immutable(Arc<BlockMeta>),
    /// Decoded items. They may not be in a block on disk yet.
    Mutable(Arc<Vec<T>>),
}

impl<T: Item> Segment<T> {
    fn first_key(&self) -> Timestamp {
        match self {
            Self::Immutable(meta) => meta.first_key(),
            Self::Mutable(items) => items.first().map_or(Timestamp::MAX, T::key),
        }
    }

    pub(crate) fn item_count(&self) -> usize {
        match self {
            Self::Immutable(meta) => meta.item_count as usize,
            Self::Mutable(items) => items.len(),
        }
    }
}

/// Loads block items through a small cache of recently decoded blocks.
pub(crate) struct Loader<'a, T> {
    reader: &'a BlockReader,
    recent: &'a RecentBlocks<T>,
}

/// A cache of recently decoded blocks: block ids and items, most recently decoded last.
pub(crate) struct RecentBlocks<T>(RefCell<Vec<(u64, Arc<Vec<T>>)>>);

impl<T> Default for RecentBlocks<T> {
    fn default() -> Self {
        Self(RefCell::new(Vec::new()))
    }
}

impl<'a, T: Item> Loader<'a, T> {
    const RECENT_BLOCKS_MAX: usize = 8;

    pub(crate) fn new(reader: &'a BlockReader, recent: &'a RecentBlocks<T>) -> Self {
        Self { reader, recent }
    }

    fn load(&self, meta: &BlockMeta) -> Result<Arc<Vec<T>>, BlockError> {
        let mut recent = self.recent.0.borrow_mut();
        if let Some((_, items)) = recent.iter().rev().find(|(id, _)| *id == meta.id) {
            return Ok(Arc::clone(items));
        }
        let items = Arc::new(self.reader.read::<T>(meta)?);
        if recent.len() == Self::RECENT_BLOCKS_MAX {
            recent.remove(0);
        }
        recent.push((meta.id, Arc::clone(&items)));
        Ok(items)
    }

    /// Loads the items of a block that a mutable segment replaces, and removes them from the cache.
    fn take(&self, meta: &BlockMeta) -> Result<Arc<Vec<T>>, BlockError> {
        let items = self.load(meta)?;
        self.recent.0.borrow_mut().retain(|(id, _)| *id != meta.id);
        Ok(items)
    }
}

/// Blocks that mutable segments replaced in memory. The next checkpoint removes them from the index.
#[derive(Clone, Debug)]
pub(crate) struct ReplacedBlocks {
    pub(crate) blocks: Vec<Arc<BlockMeta>>,
    /// How many more blocks may be replaced.
    pub(crate) remaining: usize,
}

impl Default for ReplacedBlocks {
    /// No blocks replaced yet, and no limit.
    fn default() -> Self {
        Self { blocks: Vec::new(), remaining: usize::MAX }
    }
}

/// The items of one kind of one series, sorted by key.
#[derive(Clone, Debug)]
pub(crate) struct Segments<T> {
    /// Immutable segments, and mutable segments that replaced blocks.
    body: Arc<Vec<Segment<T>>>,
    /// The head: chunks of items added since the last checkpoint. A chunk that a reader holds is copied when it grows.
    head: Vec<Arc<Vec<T>>>,
}

impl<T> Default for Segments<T> {
    fn default() -> Self {
        Self { body: Arc::new(Vec::new()), head: Vec::new() }
    }
}

impl<T: Item> Segments<T> {
    /// Makes immutable segments of blocks. The blocks must be sorted by key.
    pub(crate) fn of_blocks(blocks: Vec<Arc<BlockMeta>>) -> Self {
        Self { body: Arc::new(blocks.into_iter().map(Segment::Immutable).collect()), head: Vec::new() }
    }

    /// Makes mutable segments of items that are not in a block yet. The items must be sorted by key.
    pub(crate) fn of_items(items: &[T]) -> Self {
        let mutable = |chunk: &[T]| Segment::Mutable(Arc::new(chunk.to_vec()));
        Self { body: Arc::new(items.chunks(T::BLOCK_ITEMS_MAX).map(mutable).collect()), head: Vec::new() }
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.body.len() + self.head.len()
    }

    /// Iterates over all segments, sorted by key.
    pub(crate) fn segments(&self) -> impl DoubleEndedIterator<Item = Segment<T>> + '_ {
        self.body.iter().cloned().chain(self.head.iter().map(|items| Segment::Mutable(Arc::clone(items))))
    }

    pub(crate) fn segment(&self, at: usize) -> Option<Segment<T>> {
        match self.body.get(at) {
            Some(segment) => Some(segment.clone()),
            None => self.head.get(at - self.body.len()).map(|items| Segment::Mutable(Arc::clone(items))),
        }
    }

    pub(crate) fn segment_item_count(&self, at: usize) -> usize {
        match self.body.get(at) {
            Some(segment) => segment.item_count(),
            None => self.head.get(at - self.body.len()).map_or(0, |items| items.len()),
        }
    }

    /// Counts the segments that begin at or before `key`. The last of these segments is the one that `key` belongs to.
    pub(crate) fn count_segments_up_to(&self, key: Timestamp) -> usize {
        // The head is searched before the blocks because most ticks are newer than every block.
        if self.head.first().and_then(|items| items.first()).is_some_and(|item| item.key() <= key) {
            let chunks = self.head.partition_point(|items| items.first().is_some_and(|item| item.key() <= key));
            return self.body.len() + chunks;
        }
        self.body.partition_point(|segment| segment.first_key() <= key)
    }

    /// Returns the segments that have items with keys in `[start, end)`. A block is excluded if its index entry shows
    /// that it ends before `start`, so that reads of the range after a damaged block succeed.
    pub(crate) fn segments_between(&self, start: Timestamp, end: Timestamp) -> Range<usize> {
        if start >= end {
            return 0..0;
        }
        let first = self.count_segments_up_to(start.saturating_add_us(-1)).saturating_sub(1);
        let ends_before = matches!(self.segment(first), Some(Segment::Immutable(meta)) if meta.last_key() < start);
        first + usize::from(ends_before)..self.count_segments_up_to(end.saturating_add_us(-1))
    }

    /// Estimates how many items have keys in `[start, end)`, without reading a block. The estimate assumes that
    /// the keys of a block are spread evenly between its first and its last key.
    pub(crate) fn estimated_count(&self, start: Timestamp, end: Timestamp) -> u64 {
        let count = |at| match self.segment(at) {
            None => 0,
            Some(Segment::Mutable(items)) => {
                let before = |key: Timestamp| items.partition_point(|item| item.key() < key);
                before(end).saturating_sub(before(start)) as u64
            }
            Some(Segment::Immutable(meta)) => {
                let (first, last) = (meta.first_key(), meta.last_key());
                let (from, to) = (start.max(first), end.min(last.saturating_add_us(1)));
                let part = |of: Timestamp, since: Timestamp| u128::from(of.micros_since(since).max(0).unsigned_abs());
                let all = part(last.saturating_add_us(1), first).max(1);
                u64::try_from(u128::from(meta.item_count) * part(to, from) / all).unwrap_or(u64::MAX)
            }
        };
        self.segments_between(start, end).map(count).sum()
    }

    /// Counts the items in the head.
    pub(crate) fn head_item_count(&self) -> usize {
        self.head.iter().map(|items| items.len()).sum()
    }

    /// Counts the mutable segments outside the head.
    pub(crate) fn mutable_segment_count(&self) -> usize {
        self.body.iter().filter(|segment| matches!(segment, Segment::Mutable(_))).count()
    }

    /// Loads the items of a segment. Returns no items if there is no such segment.
    pub(crate) fn load_segment(&self, at: usize, loader: &Loader<'_, T>) -> Result<Arc<Vec<T>>, BlockError> {
        match self.segment(at) {
            None => Ok(Arc::default()),
            Some(Segment::Mutable(items)) => Ok(items),
            Some(Segment::Immutable(meta)) => loader.load(&meta),
        }
    }

    /// Returns the last item with a key at or before `key`.
    pub(crate) fn at_or_before(&self, key: Timestamp, loader: &Loader<'_, T>) -> Result<Option<T>, BlockError> {
        let Some(at) = self.count_segments_up_to(key).checked_sub(1) else { return Ok(None) };
        let items = self.load_segment(at, loader)?;
        let count = items.partition_point(|item| item.key() <= key);
        Ok(count.checked_sub(1).and_then(|last| items.get(last).cloned()))
    }

    /// Returns the first item with a key after `key`.
    pub(crate) fn after(&self, key: Timestamp, loader: &Loader<'_, T>) -> Result<Option<T>, BlockError> {
        let next = self.count_segments_up_to(key);
        if let Some(at) = next.checked_sub(1) {
            let items = self.load_segment(at, loader)?;
            if let Some(item) = items.get(items.partition_point(|item| item.key() <= key)) {
                return Ok(Some(item.clone()));
            }
        }
        Ok(self.load_segment(next, loader)?.first().cloned())
    }

    /// Returns the last item with a key before `key`.
    pub(crate) fn before(&self, key: Timestamp, loader: &Loader<'_, T>) -> Result<Option<T>, BlockError> {
        self.at_or_before(key.saturating_add_us(-1), loader)
    }

    /// Counts the items with a key before `key`.
    pub(crate) fn rank(&self, key: Timestamp, loader: &Loader<'_, T>) -> Result<u64, BlockError> {
        let Some(at) = self.count_segments_up_to(key.saturating_add_us(-1)).checked_sub(1) else { return Ok(0) };
        let items = self.load_segment(at, loader)?;
        let before: usize = (0..at).map(|segment| self.segment_item_count(segment)).sum();
        Ok((before + items.partition_point(|item| item.key() < key)) as u64)
    }

    /// Counts the items with a key in `[from, to)`. Reads only the segments at both ends of the range.
    pub(crate) fn count_between(
        &self,
        from: Timestamp,
        to: Timestamp,
        loader: &Loader<'_, T>,
    ) -> Result<u64, BlockError> {
        let segment_of = |key: Timestamp| self.count_segments_up_to(key.saturating_add_us(-1)).saturating_sub(1);
        let within =
            |at: usize, key: Timestamp| Ok(self.load_segment(at, loader)?.partition_point(|item| item.key() < key));
        let (first, last) = (segment_of(from), segment_of(to));
        let between: usize = (first..last).map(|segment| self.segment_item_count(segment)).sum();
        Ok((between + within(last, to)?).saturating_sub(within(first, from)?) as u64)
    }

    /// Returns true if an item has this key.
    pub(crate) fn contains(&self, key: Timestamp, loader: &Loader<'_, T>) -> Result<bool, BlockError> {
        Ok(self.at_or_before(key, loader)?.is_some_and(|item| item.key() == key))
    }

    /// Makes the segment that `key` belongs to mutable, so that later changes to it cannot fail. The block of the
    /// segment is added to `replaced`.
    pub(crate) fn make_mutable_at(
        &mut self,
        key: Timestamp,
        loader: &Loader<'_, T>,
        replaced: &mut ReplacedBlocks,
    ) -> Result<(), BlockError> {
        match self.count_segments_up_to(key).checked_sub(1) {
            Some(at) => self.make_mutable(at, loader, replaced),
            None => Ok(()),
        }
    }

    fn make_mutable(
        &mut self,
        at: usize,
        loader: &Loader<'_, T>,
        replaced: &mut ReplacedBlocks,
    ) -> Result<(), BlockError> {
        let Some(Segment::Immutable(meta)) = self.body.get(at).cloned() else { return Ok(()) };
        let Some(remaining) = replaced.remaining.checked_sub(1) else {
            let problem = "the commit already changes the maximum number of old blocks".to_owned();
            return Err(BlockError { fault: BlockFault::LimitReached, ..meta.damaged(T::KIND, problem) });
        };
        let items = loader.take(&meta)?;
        Arc::make_mut(&mut self.body)[at] = Segment::Mutable(items);
        replaced.remaining = remaining;
        replaced.blocks.push(meta);
        Ok(())
    }

    /// Finds the position for a new item, and makes the segment at that position mutable. The caller ensures that no
    /// item has this key.
    pub(crate) fn prepare_insert(
        &mut self,
        key: Timestamp,
        loader: &Loader<'_, T>,
        replaced: &mut ReplacedBlocks,
    ) -> Result<InsertPosition, BlockError> {
        let position = self.insert_position(key, loader)?;
        if let InsertPosition::InSegment(at) = position {
            self.make_mutable(at, loader, replaced)?;
        }
        Ok(position)
    }

    /// Finds the position for a new item: in the segment that its key belongs to. If that segment is full and all its
    /// items come before the new item, the position is in the next segment. If the next segment is full or does not
    /// exist, the position is in a new segment directly after the segment of the key.
    fn insert_position(&self, key: Timestamp, loader: &Loader<'_, T>) -> Result<InsertPosition, BlockError> {
        let next = self.count_segments_up_to(key);
        let has_room = |at: usize| at < self.segment_count() && self.segment_item_count(at) < T::BLOCK_ITEMS_MAX;
        let Some(at) = next.checked_sub(1) else {
            return Ok(if has_room(0) { InsertPosition::InSegment(0) } else { InsertPosition::NewSegment(0) });
        };
        if has_room(at) {
            return Ok(InsertPosition::InSegment(at));
        }
        let at_end = self.load_segment(at, loader)?.last().is_some_and(|last| last.key() <= key);
        Ok(match at_end {
            false => InsertPosition::InSegment(at),
            true if has_room(next) => InsertPosition::InSegment(next),
            true => InsertPosition::NewSegment(next),
        })
    }

    /// Inserts an item at the position that [`Self::prepare_insert`] found. The segments must not have changed since.
    pub(crate) fn insert(&mut self, position: InsertPosition, item: T) {
        match position {
            InsertPosition::NewSegment(at) => self.insert_segment(at, vec![item]),
            InsertPosition::InSegment(at) => {
                let key = item.key();
                let Some(items) = self.mutable_items(at) else {
                    debug_assert!(false, "the segment of an inserted item is immutable");
                    return;
                };
                let index = items.partition_point(|other| other.key() <= key);
                items.insert(index, item);
                self.split_if_too_long(at);
            }
        }
    }

    /// Replaces the item with this key by other items. The new keys must lie between the neighbouring keys. The segment
    /// of the item must be mutable.
    pub(crate) fn replace(&mut self, key: Timestamp, with: impl IntoIterator<Item = T>) {
        let Some((at, found)) = self.find_mutable(key) else {
            debug_assert!(false, "no mutable segment has the item to replace");
            return;
        };
        if let Some(items) = self.mutable_items(at) {
            items.splice(found..=found, with);
        }
        self.split_if_too_long(at);
    }

    fn find_mutable(&mut self, key: Timestamp) -> Option<(usize, usize)> {
        let at = self.count_segments_up_to(key).checked_sub(1)?;
        let found = self.mutable_items(at)?.binary_search_by_key(&key, T::key).ok()?;
        Some((at, found))
    }

    fn split_if_too_long(&mut self, at: usize) {
        if let Some(items) = self.mutable_items(at)
            && items.len() > T::BLOCK_ITEMS_MAX
        {
            let right = items.split_off(items.len() / 2);
            self.insert_segment(at + 1, right);
        }
    }

    /// Removes the item with this key. The segment of the item must be mutable.
    pub(crate) fn remove(&mut self, key: Timestamp) -> Option<T> {
        let (at, found) = self.find_mutable(key)?;
        let items = self.mutable_items(at)?;
        let item = items.remove(found);
        if items.is_empty() {
            match at.checked_sub(self.body.len()) {
                None => drop(Arc::make_mut(&mut self.body).remove(at)),
                Some(chunk) => drop(self.head.remove(chunk)),
            }
        }
        Some(item)
    }

    /// Returns a mutable reference to the item with this key. The caller must not change the key. The segment of the
    /// item must be mutable.
    pub(crate) fn get_mut(&mut self, key: Timestamp) -> Option<&mut T> {
        let (at, found) = self.find_mutable(key)?;
        self.mutable_items(at)?.get_mut(found)
    }

    /// Returns a mutable reference to the last item, if it is in the head. The caller must not change the key.
    pub(crate) fn head_last_mut(&mut self) -> Option<&mut T> {
        self.head.last_mut().and_then(|items| Arc::make_mut(items).last_mut())
    }

    fn mutable_items(&mut self, at: usize) -> Option<&mut Vec<T>> {
        match at.checked_sub(self.body.len()) {
            Some(chunk) => self.head.get_mut(chunk).map(Arc::make_mut),
            None => match Arc::make_mut(&mut self.body).get_mut(at) {
                Some(Segment::Mutable(items)) => Some(Arc::make_mut(items)),
                Some(Segment::Immutable(_)) | None => None,
            },
        }
    }

    fn insert_segment(&mut self, at: usize, items: Vec<T>) {
        let items = Arc::new(items);
        match at.checked_sub(self.body.len()) {
            None => Arc::make_mut(&mut self.body).insert(at, Segment::Mutable(items)),
            Some(chunk) => self.head.insert(chunk, items),
        }
    }

    /// Moves the items of the last block into the head, if the head is empty. The last item can then be changed.
    pub(crate) fn move_last_block_to_head(
        &mut self,
        loader: &Loader<'_, T>,
        replaced: &mut ReplacedBlocks,
    ) -> Result<(), BlockError> {
        if !self.head.is_empty() {
            return Ok(());
        }
        let Some(last) = self.body.len().checked_sub(1) else { return Ok(()) };
        self.make_mutable(last, loader, replaced)?;
        if let Some(Segment::Mutable(items)) = Arc::make_mut(&mut self.body).pop() {
            self.head = items.chunks(T::CHUNK_ITEMS_MAX).map(|chunk| Arc::new(chunk.to_vec())).collect();
        }
        Ok(())
    }

    /// Returns true if the head is empty and the last block has room, so that new items can be added to that block.
    pub(crate) fn last_block_has_room(&self) -> bool {
        self.head.is_empty() && self.body.last().is_some_and(|segment| segment.item_count() < T::BLOCK_ITEMS_MAX)
    }

    /// Adds an item to the end of the head.
    pub(crate) fn push(&mut self, item: T) {
        match self.head.last_mut() {
            Some(items) if items.len() < T::CHUNK_ITEMS_MAX => Arc::make_mut(items).push(item),
            // Of thousands of series, most get few items before the next checkpoint.
            _ => self.head.push(Arc::new(vec![item])),
        }
    }
}

/// The position for a new item.
#[derive(Clone, Copy, Debug)]
pub(crate) enum InsertPosition {
    /// In the segment with this number, which is mutable.
    InSegment(usize),
    /// In a new segment, which gets this number.
    NewSegment(usize),
}
