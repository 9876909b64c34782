//! What polls of sources found, so that a gap can be told from a silence.
//!
//! A record is a list of chunks of poll spans; all but the last chunk are full and never change, so that a commit copies
//! one chunk at most, and a checkpoint writes one key a source.
//!
//! **Invariants**: a record is a pure function of the polls in their order; the spans of a source are in order and do not
//! overlap; no chunk makes a value over 7,500 bytes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::digest::Digest;
use super::error::StoreError;
use super::keys;
use crate::domain::{Health, Poll, PollSpan, Source, Timestamp};

/// Spans of a chunk: 41 bytes each at most.
const CHUNK_SPANS_MAX: usize = 128;
/// Chunks of a source. Beyond it the oldest chunk goes, and what lies before the next counts as not asked: at a change of
/// health every minute that is after 45 days, at a few a day after decades.
const SOURCE_CHUNKS_MAX: usize = 512;
/// Sources whose polls are kept.
const POLLED_SOURCES_MAX: usize = 64;

/// Why a poll is not kept.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PollRefused {
    /// One source too many.
    #[error("the polls of {0} are not kept: this store has those of {POLLED_SOURCES_MAX} other sources already")]
    TooManySources(Source),
}

/// What polls of one source found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PollRecord {
    source: Source,
    /// None empty; all but the last of [`CHUNK_SPANS_MAX`] spans.
    chunks: VecDeque<Arc<Vec<PollSpan>>>,
    /// The number of the first chunk kept.
    first_chunk: u32,
}

impl PollRecord {
    fn new(source: Source, first_chunk: u32) -> Self {
        Self { source, chunks: VecDeque::new(), first_chunk }
    }

    /// Whose.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// All spans, in order.
    pub fn spans(&self) -> impl Iterator<Item = &PollSpan> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The newest span.
    pub fn newest(&self) -> Option<&PollSpan> {
        self.chunks.back().and_then(|chunk| chunk.last())
    }

    /// The spans that end after `time`, in order.
    pub fn spans_after(&self, time: Timestamp) -> impl Iterator<Item = &PollSpan> {
        let ended = move |span: &PollSpan| span.covered_until <= time;
        let first = self.chunks.partition_point(|chunk| chunk.last().is_some_and(ended));
        self.chunks.iter().skip(first).flat_map(|chunk| chunk.iter()).skip_while(move |span| ended(span))
    }

    /// Takes in the next poll. Says from which chunk on the record is another.
    fn record(&mut self, poll: &Poll) -> u32 {
        let last = self.chunks.back_mut();
        let next = match last.and_then(|chunk| Arc::make_mut(chunk).last_mut()) {
            None => Some(PollSpan::single(poll)),
            Some(span) => span.admit(poll),
        };
        // The span that another follows may have been cut short.
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

    /// The number of the last chunk; of an empty record that of the first to come.
    fn last_chunk(&self) -> u32 {
        let after_first = u32::try_from(self.chunks.len().saturating_sub(1)).unwrap_or(u32::MAX);
        self.first_chunk.saturating_add(after_first)
    }

    fn chunk(&self, number: u32) -> Option<&Arc<Vec<PollSpan>>> {
        self.chunks.get(usize::try_from(number.checked_sub(self.first_chunk)?).ok()?)
    }
}

/// A key, and the value that it is to have; none where it goes.
pub(super) type ChunkChange = ([u8; 9], Option<Vec<u8>>);

/// The record of one source, and what of it is stored.
struct Kept {
    record: Arc<PollRecord>,
    /// Checksums of the chunks in sled, by number.
    stored: BTreeMap<u32, u32>,
    /// The first chunk that is another than the one stored.
    changed_from: Option<u32>,
}

/// The records of all sources, in the order of their first polls.
#[derive(Default)]
pub(super) struct Polls(Vec<Kept>);

impl Polls {
    /// As readers see them.
    pub(super) fn records(&self) -> Vec<Arc<PollRecord>> {
        self.0.iter().map(|kept| Arc::clone(&kept.record)).collect()
    }

    /// Takes in the next poll of its source.
    pub(super) fn record(&mut self, poll: &Poll) -> Result<(), PollRefused> {
        let kept = self.of(&poll.source)?;
        let changed = Arc::make_mut(&mut kept.record).record(poll);
        kept.changed_from = Some(kept.changed_from.map_or(changed, |from| from.min(changed)));
        Ok(())
    }

    /// Takes in the next span of a source as it was once; says whether it may follow the one before.
    pub(super) fn restore(&mut self, source: &Source, span: PollSpan) -> Result<bool, PollRefused> {
        let kept = self.of(source)?;
        let record = Arc::make_mut(&mut kept.record);
        let follows = span.is_sound_after(record.chunks.back().and_then(|chunk| chunk.last()));
        if follows {
            record.push(span);
            kept.changed_from = Some(0);
        }
        Ok(follows)
    }

    /// The record of a source, begun if it is not there.
    fn of(&mut self, source: &Source) -> Result<&mut Kept, PollRefused> {
        let at = match self.0.iter().position(|kept| kept.record.source == *source) {
            Some(at) => at,
            None if self.0.len() >= POLLED_SOURCES_MAX => return Err(PollRefused::TooManySources(source.clone())),
            None => {
                self.begin(source.clone(), 0);
                self.0.len() - 1
            }
        };
        Ok(&mut self.0[at])
    }

    fn begin(&mut self, source: Source, first_chunk: u32) {
        let record = Arc::new(PollRecord::new(source, first_chunk));
        self.0.push(Kept { record, stored: BTreeMap::new(), changed_from: None });
    }

    /// Takes in a chunk as it was stored, all of them in the order of their keys; `None` if it makes no sense there.
    pub(super) fn load(&mut self, key: &[u8], chunk: &ChunkRecord, crc: u32) -> Option<()> {
        let (source_number, number) = key.get(1..)?.split_at_checked(4)?;
        let source_number = u32::from_be_bytes(source_number.try_into().ok()?);
        let number = u32::from_be_bytes(number.try_into().ok()?);
        let source = Source::parse(&chunk.source).ok()?;
        let at = usize::try_from(source_number).ok()?;
        if at == self.0.len() && self.0.iter().all(|kept| kept.record.source != source) {
            self.begin(source.clone(), number);
        }
        let kept = self.0.get_mut(at).filter(|kept| kept.record.source == source)?;
        let record = Arc::make_mut(&mut kept.record);
        let is_next = number == record.first_chunk.checked_add(u32::try_from(record.chunks.len()).ok()?)?;
        let follows_full = record.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK_SPANS_MAX);
        if !is_next || !follows_full {
            return None;
        }
        let mut before = record.chunks.back().and_then(|chunk| chunk.last()).copied();
        let mut spans = Vec::with_capacity(chunk.spans.len().min(CHUNK_SPANS_MAX));
        for span in &chunk.spans {
            let span = span.span()?;
            if !span.is_sound_after(before.as_ref()) {
                return None;
            }
            before = Some(span);
            spans.push(span);
        }
        if !(1..=CHUNK_SPANS_MAX).contains(&spans.len()) {
            return None;
        }
        record.chunks.push_back(Arc::new(spans));
        kept.stored.insert(number, crc);
        Some(())
    }

    /// What has changed since the last checkpoint: keys with their values, none where one goes.
    pub(super) fn changes(&mut self, digest: &mut Digest) -> Result<Vec<ChunkChange>, StoreError> {
        let mut changes = Vec::new();
        for (source_number, kept) in (0_u32..).zip(&mut self.0) {
            let Some(changed_from) = kept.changed_from.take() else { continue };
            let first_chunk = kept.record.first_chunk;
            while let Some(oldest) = kept.stored.first_entry().filter(|entry| *entry.key() < first_chunk) {
                changes.push((keys::polls(source_number, *oldest.key()), None));
                digest.remove(oldest.remove());
            }
            for number in changed_from.max(first_chunk)..=kept.record.last_chunk() {
                let Some(spans) = kept.record.chunk(number) else { continue };
                let key = keys::polls(source_number, number);
                let (value, crc) = keys::seal_record(&key, &ChunkRecord::new(&kept.record.source, spans))?;
                if let Some(old) = kept.stored.insert(number, crc) {
                    digest.remove(old);
                }
                digest.add(crc);
                changes.push((key, Some(value)));
            }
        }
        Ok(changes)
    }
}

/// A poll in the log.
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

    /// The poll again; `None` if it makes no sense.
    pub(super) fn poll(&self) -> Option<Poll> {
        Some(Poll {
            source: Source::parse(&self.source).ok()?,
            time: Timestamp::from_micros(self.time_us),
            covered_until: Timestamp::from_micros(self.covered_us),
            health: health_of(self.health)?,
        })
    }
}

/// Some consecutive spans of a source, as they are stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ChunkRecord {
    source: String,
    spans: Vec<SpanRecord>,
}

/// Times are microseconds, those after the first counted from the one before.
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
