//! The results of polls, by source. With them, a reader can distinguish a gap in the data from a source that published
//! nothing.
//!
//! A poll span is a sequence of polls with the same health and no uncovered time between them. The record of a source
//! is a list of chunks of poll spans. All chunks except the last are full and never change. So a commit copies at most
//! one chunk, and a checkpoint usually writes one key for a source.
//!
//! **Invariants**: a record is a pure function of the sequence of polls; the spans of a source are sorted and do not
//! overlap; the stored value of a chunk has at most 7,500 bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::digest::Digest;
use super::error::StoreError;
use super::keys;
use crate::domain::{Health, Poll, PollSpan, Source, Timestamp};

/// Maximum number of spans in a chunk. A span takes at most 41 bytes.
const CHUNK_SPANS_MAX: usize = 128;
/// Maximum number of chunks for a source. Beyond it, the oldest chunk is dropped, and the time of that chunk counts as
/// not polled. If the health of a source changes every minute, the first chunk is dropped after 45 days; with a few
/// changes a day, after decades.
const SOURCE_CHUNKS_MAX: usize = 512;
/// Maximum number of sources with poll records.
const POLLED_SOURCES_MAX: usize = 64;

/// Why a poll was not recorded.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PollRefused {
    /// The store already has poll records of the maximum number of sources.
    #[error("the polls of {0} are not recorded: this store already has polls of {POLLED_SOURCES_MAX} other sources")]
    TooManySources(Source),
}

/// The results of polls of one source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PollRecord {
    source: Source,
    /// No chunk is empty; all chunks except the last have [`CHUNK_SPANS_MAX`] spans.
    chunks: VecDeque<Arc<Vec<PollSpan>>>,
    /// The number of the first chunk that was not dropped.
    first_chunk: u32,
}

impl PollRecord {
    fn new(source: Source, first_chunk: u32) -> Self {
        Self { source, chunks: VecDeque::new(), first_chunk }
    }

    /// Returns the source that was polled.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Iterates over all spans, oldest first.
    pub fn spans(&self) -> impl Iterator<Item = &PollSpan> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Returns the newest span.
    pub fn newest(&self) -> Option<&PollSpan> {
        self.chunks.back().and_then(|chunk| chunk.last())
    }

    /// Iterates over the spans that end after `time`, oldest first.
    pub fn spans_after(&self, time: Timestamp) -> impl Iterator<Item = &PollSpan> {
        let ended = move |span: &PollSpan| span.covered_until <= time;
        let first = self.chunks.partition_point(|chunk| chunk.last().is_some_and(ended));
        self.chunks.iter().skip(first).flat_map(|chunk| chunk.iter()).skip_while(move |span| ended(span))
    }

    /// Adds the next poll. Returns the number of the first chunk that changed.
    fn record(&mut self, poll: &Poll) -> u32 {
        let last = self.chunks.back_mut();
        let next = match last.and_then(|chunk| Arc::make_mut(chunk).last_mut()) {
            None => Some(PollSpan::single(poll)),
            Some(span) => span.admit(poll),
        };
        // Even if the poll begins a new chunk, the last chunk may change: the new span can shorten the span before it.
        let changed = self.last_chunk();
        if let Some(span) = next {
            self.push(span);
        }
        changed
    }

    fn push(&mut self, span: PollSpan) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK_SPANS_MAX => Arc::make_mut(chunk).push(span),
            Some(_) | None => self.chunks.push_back(Arc::new(vec![span])),
        }
        if self.chunks.len() > SOURCE_CHUNKS_MAX {
            self.chunks.pop_front();
            self.first_chunk += 1;
        }
    }

    /// Returns the number of the last chunk; for an empty record, the number that the first chunk will have.
    fn last_chunk(&self) -> u32 {
        let after_first = u32::try_from(self.chunks.len().saturating_sub(1)).unwrap_or(u32::MAX);
        self.first_chunk.saturating_add(after_first)
    }

    fn chunk(&self, number: u32) -> Option<&Arc<Vec<PollSpan>>> {
        self.chunks.get(usize::try_from(number.checked_sub(self.first_chunk)?).ok()?)
    }
}

/// A sled key and its new value; `None` if the key is removed.
pub(super) type ChunkChange = ([u8; 9], Option<Vec<u8>>);

/// The record of one source, and the state of its chunks in sled.
struct SourcePolls {
    record: Arc<PollRecord>,
    /// Checksums of the chunks in sled, by chunk number.
    stored: BTreeMap<u32, u32>,
    /// The first chunk that differs from its stored value; `None` if no chunk differs.
    changed_from: Option<u32>,
}

/// The poll records of all sources, in the order of their first polls.
#[derive(Default)]
pub(super) struct Polls(Vec<SourcePolls>);

impl Polls {
    /// Returns the records for a view.
    pub(super) fn records(&self) -> Vec<Arc<PollRecord>> {
        self.0.iter().map(|polls| Arc::clone(&polls.record)).collect()
    }

    /// Adds the next poll of its source.
    ///
    /// # Errors
    /// [`PollRefused::TooManySources`] if the source is new and the maximum number of sources is reached.
    pub(super) fn record(&mut self, poll: &Poll) -> Result<(), PollRefused> {
        let polls = self.source_mut(&poll.source)?;
        let changed = Arc::make_mut(&mut polls.record).record(poll);
        polls.changed_from = Some(polls.changed_from.map_or(changed, |from| from.min(changed)));
        Ok(())
    }

    /// Adds the next span of a source from an import. Returns false, and adds nothing, if the span cannot follow the
    /// span before it.
    ///
    /// # Errors
    /// [`PollRefused::TooManySources`] if the source is new and the maximum number of sources is reached.
    pub(super) fn restore(&mut self, source: &Source, span: PollSpan) -> Result<bool, PollRefused> {
        let polls = self.source_mut(source)?;
        let record = Arc::make_mut(&mut polls.record);
        let follows = span.is_valid_after(record.chunks.back().and_then(|chunk| chunk.last()));
        if follows {
            record.push(span);
            polls.changed_from = Some(0);
        }
        Ok(follows)
    }

    /// Returns the polls of a source. Adds the source if it is new.
    fn source_mut(&mut self, source: &Source) -> Result<&mut SourcePolls, PollRefused> {
        let at = match self.0.iter().position(|polls| polls.record.source == *source) {
            Some(at) => at,
            None if self.0.len() >= POLLED_SOURCES_MAX => return Err(PollRefused::TooManySources(source.clone())),
            None => {
                self.add_source(source.clone(), 0);
                self.0.len() - 1
            }
        };
        Ok(&mut self.0[at])
    }

    fn add_source(&mut self, source: Source, first_chunk: u32) {
        let record = Arc::new(PollRecord::new(source, first_chunk));
        self.0.push(SourcePolls { record, stored: BTreeMap::new(), changed_from: None });
    }

    /// Adds a stored chunk. Chunks must be added in the order of their keys. `None` if the chunk is invalid or out of
    /// order.
    pub(super) fn load(&mut self, key: &[u8], chunk: &ChunkRecord, crc: u32) -> Option<()> {
        let (source_number, number) = key.get(1..)?.split_at_checked(4)?;
        let source_number = u32::from_be_bytes(source_number.try_into().ok()?);
        let number = u32::from_be_bytes(number.try_into().ok()?);
        let source = Source::parse(&chunk.source).ok()?;
        let at = usize::try_from(source_number).ok()?;
        if at == self.0.len() && self.0.iter().all(|polls| polls.record.source != source) {
            self.add_source(source.clone(), number);
        }
        let polls = self.0.get_mut(at).filter(|polls| polls.record.source == source)?;
        let record = Arc::make_mut(&mut polls.record);
        let is_next = number == record.first_chunk.checked_add(u32::try_from(record.chunks.len()).ok()?)?;
        let follows_full = record.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK_SPANS_MAX);
        if !is_next || !follows_full {
            return None;
        }
        let mut before = record.chunks.back().and_then(|chunk| chunk.last()).copied();
        let mut spans = Vec::with_capacity(chunk.spans.len().min(CHUNK_SPANS_MAX));
        for span in &chunk.spans {
            let span = span.span()?;
            if !span.is_valid_after(before.as_ref()) {
                return None;
            }
            before = Some(span);
            spans.push(span);
        }
        if !(1..=CHUNK_SPANS_MAX).contains(&spans.len()) {
            return None;
        }
        record.chunks.push_back(Arc::new(spans));
        polls.stored.insert(number, crc);
        Some(())
    }

    /// Returns the changes since the last checkpoint, and updates the digest of all records.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a chunk cannot be encoded.
    pub(super) fn changes(&mut self, digest: &mut Digest) -> Result<Vec<ChunkChange>, StoreError> {
        let mut changes = Vec::new();
        for (source_number, polls) in (0_u32..).zip(&mut self.0) {
            let Some(changed_from) = polls.changed_from.take() else { continue };
            let first_chunk = polls.record.first_chunk;
            while let Some(oldest) = polls.stored.first_entry().filter(|entry| *entry.key() < first_chunk) {
                changes.push((keys::polls(source_number, *oldest.key()), None));
                digest.remove(oldest.remove());
            }
            for number in changed_from.max(first_chunk)..=polls.record.last_chunk() {
                let Some(spans) = polls.record.chunk(number) else { continue };
                let key = keys::polls(source_number, number);
                let (value, crc) = keys::encode_checksummed(&key, &ChunkRecord::new(&polls.record.source, spans))?;
                if let Some(old) = polls.stored.insert(number, crc) {
                    digest.remove(old);
                }
                digest.add(crc);
                changes.push((key, Some(value)));
            }
        }
        Ok(changes)
    }
}

/// A poll in a log entry. Times are in microseconds since 1970, UTC.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct LogPoll {
    source: String,
    time_us: i64,
    covered_us: i64,
    health: u8,
}

impl LogPoll {
    pub(super) fn new(poll: &Poll) -> Self {
        Self {
            source: poll.source.to_string(),
            time_us: poll.time.micros(),
            covered_us: poll.covered_until.micros(),
            health: health_number(poll.health),
        }
    }

    /// Decodes the poll; `None` if a field is invalid.
    pub(super) fn poll(&self) -> Option<Poll> {
        Some(Poll {
            source: Source::parse(&self.source).ok()?,
            time: Timestamp::from_micros(self.time_us),
            covered_until: Timestamp::from_micros(self.covered_us),
            health: health_of(self.health)?,
        })
    }
}

/// The stored form of a chunk: consecutive spans of a source.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ChunkRecord {
    source: String,
    spans: Vec<SpanRecord>,
}

/// The stored form of a span. The first time is in microseconds since 1970. Each later time is in microseconds after
/// the time before it.
#[derive(Debug, Serialize, Deserialize)]
struct SpanRecord {
    first_us: i64,
    last_after_us: u64,
    covered_after_us: u64,
    count: u64,
    health: u8,
}

impl ChunkRecord {
    fn new(source: &Source, spans: &[PollSpan]) -> Self {
        let after = |time: Timestamp, before: Timestamp| time.micros().wrapping_sub(before.micros()).cast_unsigned();
        let record = |span: &PollSpan| SpanRecord {
            first_us: span.first_poll_time.micros(),
            last_after_us: after(span.last_poll_time, span.first_poll_time),
            covered_after_us: after(span.covered_until, span.last_poll_time),
            count: span.poll_count,
            health: health_number(span.health),
        };
        Self { source: source.to_string(), spans: spans.iter().map(record).collect() }
    }
}

impl SpanRecord {
    fn span(&self) -> Option<PollSpan> {
        let last_us = self.first_us.checked_add_unsigned(self.last_after_us)?;
        Some(PollSpan {
            first_poll_time: Timestamp::from_micros(self.first_us),
            last_poll_time: Timestamp::from_micros(last_us),
            covered_until: Timestamp::from_micros(last_us.checked_add_unsigned(self.covered_after_us)?),
            poll_count: self.count,
            health: health_of(self.health)?,
        })
    }
}

const fn health_number(health: Health) -> u8 {
    match health {
        Health::Ok => 1,
        Health::Silent => 2,
        Health::Refused => 3,
        Health::Unreachable => 4,
    }
}

fn health_of(number: u8) -> Option<Health> {
    Health::ALL.into_iter().find(|health| health_number(*health) == number)
}
