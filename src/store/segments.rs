//! A segments: the ordered items of one kind of one series, old ones in blocks, changed and new ones
//! decoded in memory.
//!
//! A segments is a value: cloning it costs a few counters, and a clone never changes. The writer
//! changes its own and readers hold clones.
//!
//! **Invariant**: segments are in order and never empty, items within and across them too; keys are
//! distinct unless the kind says otherwise.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use super::block::{BlockError, BlockFault, BlockMeta, Item};
use super::reader::BlockReader;
use crate::domain::Timestamp;

/// Some consecutive items.
#[derive(Clone, Debug)]
pub(crate) enum Segment<T> {
    /// In a block.
    Immutable(Arc<BlockMeta>),
    /// Decoded, perhaps changed since.
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

/// Loads the items of blocks for somebody who comes back to the same ones.
pub(crate) struct Loader<'a, T> {
    reader: &'a BlockReader,
    recent: &'a RecentBlocks<T>,
}

/// The blocks that the writer decoded last, newest at the end.
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

    /// The items of a block that is about to be changed, remembered no longer.
    fn take(&self, meta: &BlockMeta) -> Result<Arc<Vec<T>>, BlockError> {
        let items = self.load(meta)?;
        self.recent.0.borrow_mut().retain(|(id, _)| *id != meta.id);
        Ok(items)
    }
}

/// Blocks whose items were taken into memory to be changed, and how many more may be.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    pub(crate) blocks: Vec<Arc<BlockMeta>>,
    pub(crate) room: usize,
}

impl Default for Opened {
    /// None, and as many as there are.
    fn default() -> Self {
        Self { blocks: Vec::new(), room: usize::MAX }
    }
}

/// The ordered items of one kind of one series.
#[derive(Clone, Debug)]
pub(crate) struct Segments<T> {
    /// Blocks, and those among them that late ticks opened.
    body: Arc<Vec<Segment<T>>>,
    /// The head: chunks of what came since the last checkpoint, each copied when it grows while a
    /// reader holds it.
    tail: Vec<Arc<Vec<T>>>,
}

impl<T> Default for Segments<T> {
    fn default() -> Self {
        Self { body: Arc::new(Vec::new()), tail: Vec::new() }
    }
}

impl<T: Item> Segments<T> {
    /// Of blocks in order.
    pub(crate) fn of_blocks(blocks: Vec<Arc<BlockMeta>>) -> Self {
        Self { body: Arc::new(blocks.into_iter().map(Segment::Immutable).collect()), tail: Vec::new() }
    }

    /// Of items in order, none of them in a block yet.
    pub(crate) fn of_items(items: &[T]) -> Self {
        let open = |chunk: &[T]| Segment::Mutable(Arc::new(chunk.to_vec()));
        Self { body: Arc::new(items.chunks(T::BLOCK_ITEMS_MAX).map(open).collect()), tail: Vec::new() }
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.body.len() + self.tail.len()
    }

    /// All segments in order.
    pub(crate) fn segments(&self) -> impl DoubleEndedIterator<Item = Segment<T>> + '_ {
        self.body.iter().cloned().chain(self.tail.iter().map(|items| Segment::Mutable(Arc::clone(items))))
    }

    pub(crate) fn segment(&self, at: usize) -> Option<Segment<T>> {
        match self.body.get(at) {
            Some(segment) => Some(segment.clone()),
            None => self.tail.get(at - self.body.len()).map(|items| Segment::Mutable(Arc::clone(items))),
        }
    }

    pub(crate) fn segment_item_count(&self, at: usize) -> usize {
        match self.body.get(at) {
            Some(segment) => segment.item_count(),
            None => self.tail.get(at - self.body.len()).map_or(0, |items| items.len()),
        }
    }

    /// How many segments begin at or before `key`: the last of them is where it belongs.
    pub(crate) fn segments_from(&self, key: Timestamp) -> usize {
        // The head first: most ticks are newer than every block.
        if self.tail.first().and_then(|items| items.first()).is_some_and(|item| item.key() <= key) {
            let begun = self.tail.partition_point(|items| items.first().is_some_and(|item| item.key() <= key));
            return self.body.len() + begun;
        }
        self.body.partition_point(|segment| segment.first_key() <= key)
    }

    /// The segments with items whose keys are in `[start, end)`. A block is left out if its index entry
    /// says that it has none: a damaged one is no concern of those who ask for what follows it.
    pub(crate) fn segments_between(&self, start: Timestamp, end: Timestamp) -> Range<usize> {
        if start >= end {
            return 0..0;
        }
        let first = self.segments_from(start.saturating_add_us(-1)).saturating_sub(1);
        let ends_before = matches!(self.segment(first), Some(Segment::Immutable(meta)) if meta.last_key() < start);
        first + usize::from(ends_before)..self.segments_from(end.saturating_add_us(-1))
    }

    /// About how many items have keys in `[start, end)`, without reading a block: those of a block count as spread evenly
    /// between its first and its last one.
    pub(crate) fn count_about(&self, start: Timestamp, end: Timestamp) -> u64 {
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

    /// Items that no block holds as they are now: in the head, and in opened blocks.
    pub(crate) fn head_item_count(&self) -> usize {
        self.tail.iter().map(|items| items.len()).sum()
    }

    pub(crate) fn has_mutable_segments(&self) -> bool {
        !self.tail.is_empty() || self.body.iter().any(|segment| matches!(segment, Segment::Mutable(_)))
    }

    pub(crate) fn opened_block_count(&self) -> usize {
        self.body.iter().filter(|segment| matches!(segment, Segment::Mutable(_))).count()
    }

    /// The items of a segment, none if there is no such segment.
    pub(crate) fn load_segment(&self, at: usize, loader: &Loader<'_, T>) -> Result<Arc<Vec<T>>, BlockError> {
        match self.segment(at) {
            None => Ok(Arc::default()),
            Some(Segment::Mutable(items)) => Ok(items),
            Some(Segment::Immutable(meta)) => loader.load(&meta),
        }
    }

    /// The last item whose key is at or before `key`.
    pub(crate) fn at_or_before(&self, key: Timestamp, loader: &Loader<'_, T>) -> Result<Option<T>, BlockError> {
        let Some(at) = self.segments_from(key).checked_sub(1) else { return Ok(None) };
        let items = self.load_segment(at, loader)?;
        let begun = items.partition_point(|item| item.key() <= key);
        Ok(begun.checked_sub(1).and_then(|last| items.get(last).cloned()))
    }

    /// The first item whose key is after `key`.
    pub(crate) fn after(&self, key: Timestamp, loader: &Loader<'_, T>) -> Result<Option<T>, BlockError> {
        let begun = self.segments_from(key);
        if let Some(at) = begun.checked_sub(1) {
            let items = self.load_segment(at, loader)?;
            if let Some(item) = items.get(items.partition_point(|item| item.key() <= key)) {
                return Ok(Some(item.clone()));
            }
        }
        Ok(self.load_segment(begun, loader)?.first().cloned())
    }

    /// The last item whose key is before `key`.
    pub(crate) fn before(&self, key: Timestamp, loader: &Loader<'_, T>) -> Result<Option<T>, BlockError> {
        self.at_or_before(key.saturating_add_us(-1), loader)
    }

    /// How many items have a key before `key`.
    pub(crate) fn rank(&self, key: Timestamp, loader: &Loader<'_, T>) -> Result<u64, BlockError> {
        let Some(at) = self.segments_from(key.saturating_add_us(-1)).checked_sub(1) else { return Ok(0) };
        let items = self.load_segment(at, loader)?;
        let before: usize = (0..at).map(|segment| self.segment_item_count(segment)).sum();
        Ok((before + items.partition_point(|item| item.key() < key)) as u64)
    }

    /// How many items have a key in `[from, to)`: like the difference of two ranks, but reading
    /// only the segments at the ends.
    pub(crate) fn count_between(
        &self,
        from: Timestamp,
        to: Timestamp,
        loader: &Loader<'_, T>,
    ) -> Result<u64, BlockError> {
        let segment_of = |key: Timestamp| self.segments_from(key.saturating_add_us(-1)).saturating_sub(1);
        let within =
            |at: usize, key: Timestamp| Ok(self.load_segment(at, loader)?.partition_point(|item| item.key() < key));
        let (first, last) = (segment_of(from), segment_of(to));
        let between: usize = (first..last).map(|segment| self.segment_item_count(segment)).sum();
        Ok((between + within(last, to)?).saturating_sub(within(first, from)?) as u64)
    }

    /// Whether an item has this key.
    pub(crate) fn contains(&self, key: Timestamp, loader: &Loader<'_, T>) -> Result<bool, BlockError> {
        Ok(self.at_or_before(key, loader)?.is_some_and(|item| item.key() == key))
    }

    /// Decodes the segment that `key` belongs to, so that the changes after this cannot fail; its block
    /// goes to `opened`.
    pub(crate) fn mutable_segment_of(
        &mut self,
        key: Timestamp,
        loader: &Loader<'_, T>,
        opened: &mut Opened,
    ) -> Result<(), BlockError> {
        match self.segments_from(key).checked_sub(1) {
            Some(at) => self.open(at, loader, opened),
            None => Ok(()),
        }
    }

    fn open(&mut self, at: usize, loader: &Loader<'_, T>, opened: &mut Opened) -> Result<(), BlockError> {
        let Some(Segment::Immutable(meta)) = self.body.get(at).cloned() else { return Ok(()) };
        let Some(room) = opened.room.checked_sub(1) else {
            let problem = "the commit has opened as many blocks as it may".to_owned();
            return Err(BlockError { fault: BlockFault::NoRoom, ..meta.damaged(T::KIND, problem) });
        };
        let items = loader.take(&meta)?;
        Arc::make_mut(&mut self.body)[at] = Segment::Mutable(items);
        opened.room = room;
        opened.blocks.push(meta);
        Ok(())
    }

    /// Finds and opens the place where an item with this key, not there yet, is to go.
    pub(crate) fn open_place(
        &mut self,
        key: Timestamp,
        loader: &Loader<'_, T>,
        opened: &mut Opened,
    ) -> Result<Place, BlockError> {
        let place = self.place(key, loader)?;
        if let Place::Into(at) = place {
            self.open(at, loader, opened)?;
        }
        Ok(place)
    }

    /// Where an item goes: into the segment it belongs to; at the end of a full one rather to the front
    /// of the next, or between the two.
    fn place(&self, key: Timestamp, loader: &Loader<'_, T>) -> Result<Place, BlockError> {
        let begun = self.segments_from(key);
        let has_room = |at: usize| at < self.segment_count() && self.segment_item_count(at) < T::BLOCK_ITEMS_MAX;
        let Some(at) = begun.checked_sub(1) else {
            return Ok(if has_room(0) { Place::Into(0) } else { Place::Between(0) });
        };
        if has_room(at) {
            return Ok(Place::Into(at));
        }
        let at_end = self.load_segment(at, loader)?.last().is_some_and(|last| last.key() <= key);
        Ok(match at_end {
            false => Place::Into(at),
            true if has_room(begun) => Place::Into(begun),
            true => Place::Between(begun),
        })
    }

    /// Puts an item in the place that [`Self::open_place`] found, nothing having changed since.
    pub(crate) fn insert(&mut self, place: Place, item: T) {
        match place {
            Place::Between(at) => self.insert_segment(at, vec![item]),
            Place::Into(at) => {
                let key = item.key();
                let Some(items) = self.open_items_mut(at) else {
                    debug_assert!(false, "the place of an insert was not opened");
                    return;
                };
                let begun = items.partition_point(|other| other.key() <= key);
                items.insert(begun, item);
                self.split_if_over(at);
            }
        }
    }

    /// Puts other items in the place of the one with this key, whose segment was opened; they lie
    /// between its neighbours.
    pub(crate) fn replace(&mut self, key: Timestamp, with: impl IntoIterator<Item = T>) {
        let Some((at, found)) = self.find_open(key) else {
            debug_assert!(false, "the place of a replacement was not opened");
            return;
        };
        if let Some(items) = self.open_items_mut(at) {
            items.splice(found..=found, with);
        }
        self.split_if_over(at);
    }

    fn find_open(&mut self, key: Timestamp) -> Option<(usize, usize)> {
        let at = self.segments_from(key).checked_sub(1)?;
        let found = self.open_items_mut(at)?.binary_search_by_key(&key, T::key).ok()?;
        Some((at, found))
    }

    fn split_if_over(&mut self, at: usize) {
        if let Some(items) = self.open_items_mut(at)
            && items.len() > T::BLOCK_ITEMS_MAX
        {
            let right = items.split_off(items.len() / 2);
            self.insert_segment(at + 1, right);
        }
    }

    /// Takes out the item with this key, whose segment was opened.
    pub(crate) fn remove(&mut self, key: Timestamp) -> Option<T> {
        let (at, found) = self.find_open(key)?;
        let items = self.open_items_mut(at)?;
        let item = items.remove(found);
        if items.is_empty() {
            match at.checked_sub(self.body.len()) {
                None => drop(Arc::make_mut(&mut self.body).remove(at)),
                Some(chunk) => drop(self.tail.remove(chunk)),
            }
        }
        Some(item)
    }

    /// The item with this key, whose segment was opened, to be changed in all but its key.
    pub(crate) fn get_mut(&mut self, key: Timestamp) -> Option<&mut T> {
        let (at, found) = self.find_open(key)?;
        self.open_items_mut(at)?.get_mut(found)
    }

    /// The last item, if it is in the head, to be changed in all but its key.
    pub(crate) fn head_last_mut(&mut self) -> Option<&mut T> {
        self.tail.last_mut().and_then(|items| Arc::make_mut(items).last_mut())
    }

    fn open_items_mut(&mut self, at: usize) -> Option<&mut Vec<T>> {
        match at.checked_sub(self.body.len()) {
            Some(chunk) => self.tail.get_mut(chunk).map(Arc::make_mut),
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
            Some(chunk) => self.tail.insert(chunk, items),
        }
    }

    /// Takes the last block into the head, if it has room, so that items can be added to it and the
    /// last one changed.
    pub(crate) fn open_tail(&mut self, loader: &Loader<'_, T>, opened: &mut Opened) -> Result<(), BlockError> {
        if !self.tail.is_empty() {
            return Ok(());
        }
        let Some(last) = self.body.len().checked_sub(1) else { return Ok(()) };
        self.open(last, loader, opened)?;
        if let Some(Segment::Mutable(items)) = Arc::make_mut(&mut self.body).pop() {
            self.tail = items.chunks(T::CHUNK_ITEMS_MAX).map(|chunk| Arc::new(chunk.to_vec())).collect();
        }
        Ok(())
    }

    /// Whether the last block has room, so that adding goes on in it.
    pub(crate) fn last_block_has_room(&self) -> bool {
        self.tail.is_empty() && self.body.last().is_some_and(|segment| segment.item_count() < T::BLOCK_ITEMS_MAX)
    }

    /// Adds an item after all others, to the head.
    pub(crate) fn push(&mut self, item: T) {
        match self.tail.last_mut() {
            Some(items) if items.len() < T::CHUNK_ITEMS_MAX => Arc::make_mut(items).push(item),
            _ => {
                let mut items = Vec::with_capacity(T::CHUNK_ITEMS_MAX);
                items.push(item);
                self.tail.push(Arc::new(items));
            }
        }
    }

    /// Replaces every stretch of open segments by the blocks that `seal` makes of its items.
    pub(crate) fn seal<E>(&mut self, mut seal: impl FnMut(&[T]) -> Result<Vec<Arc<BlockMeta>>, E>) -> Result<(), E> {
        if !self.has_mutable_segments() {
            return Ok(());
        }
        let mut sealed = Vec::with_capacity(self.segment_count());
        let mut open: Vec<T> = Vec::new();
        for segment in self.segments() {
            match segment {
                Segment::Mutable(items) => open.extend_from_slice(&items),
                Segment::Immutable(meta) => {
                    // Amid blocks, evenly: a full piece would be split again by the next late tick
                    // and leave crumbs.
                    let pieces = open.len().div_ceil(T::BLOCK_ITEMS_MAX).max(1);
                    for piece in open.chunks(open.len().div_ceil(pieces).max(1)) {
                        sealed.extend(seal(piece)?);
                    }
                    open.clear();
                    sealed.push(meta);
                }
            }
        }
        // At the end, full blocks first: one once full is not written again as the head grows.
        for piece in open.chunks(T::BLOCK_ITEMS_MAX) {
            sealed.extend(seal(piece)?);
        }
        *self = Self::of_blocks(sealed);
        Ok(())
    }
}

/// Where an item is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// Into this segment, which is open by then.
    Into(usize),
    /// Into a segment of its own, before the one with this number.
    Between(usize),
}
