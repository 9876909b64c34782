//! Archived sources: all decisions to archive or unarchive a source.
//!
//! **Invariants**: a decision is never changed or removed; of one source, each decision is later than the one before and
//! reverses it; the first decision archives the source.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Store;
use super::digest::Digest;
use super::error::StoreError;
use super::keys;
use crate::domain::{ArchiveDecision, Note, Source, Timestamp};

/// Maximum number of decisions about all sources.
const DECISIONS_MAX: u64 = 10_000;

/// Why a decision to archive or unarchive a source was refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ArchiveRefusal {
    /// The source has no series.
    #[error("no series has the source '{wanted}'; sources with series: {}", list(available))]
    UnknownSource {
        /// The source of the request.
        wanted: Source,
        /// The sources that have series, sorted.
        available: Vec<Source>,
    },
    /// The store already has the maximum number of decisions.
    #[error("this store already has {DECISIONS_MAX} decisions to archive or unarchive sources, which is the limit")]
    TooManyDecisions,
}

/// Lists sources for an error message.
fn list(sources: &[Source]) -> String {
    const SHOWN_MAX: usize = 12;
    let shown: Vec<&str> = sources.iter().take(SHOWN_MAX).map(Source::as_str).collect();
    match sources.len().saturating_sub(SHOWN_MAX) {
        _ if sources.is_empty() => "none yet".to_owned(),
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The decisions about each source, oldest first. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ArchivedSources(Arc<BTreeMap<Source, Vec<ArchiveDecision>>>);

impl ArchivedSources {
    /// Returns true if the source was archived as known at `known_time`.
    pub fn is_archived(&self, source: &Source, known_time: Timestamp) -> bool {
        self.decision_at(source, known_time).is_some_and(|decision| decision.is_archived)
    }

    /// Returns the last decision about a source as known at `known_time`.
    pub fn decision_at(&self, source: &Source, known_time: Timestamp) -> Option<&ArchiveDecision> {
        let decisions = self.0.get(source)?;
        let known = decisions.partition_point(|decision| decision.recorded_time <= known_time);
        decisions.get(known.checked_sub(1)?)
    }

    /// Iterates over all decisions, sorted by source, then by time.
    pub fn decisions(&self) -> impl Iterator<Item = &ArchiveDecision> {
        self.0.values().flatten()
    }

    /// Adds a decision. Returns false, and adds nothing, if the decision cannot follow the earlier decisions about its
    /// source.
    pub(super) fn add(&mut self, decision: ArchiveDecision) -> bool {
        let last = self.0.get(&decision.source).and_then(|decisions| decisions.last());
        let follows = last.map_or(decision.is_archived, |last| {
            last.is_archived != decision.is_archived && last.recorded_time < decision.recorded_time
        });
        if follows {
            Arc::make_mut(&mut self.0).entry(decision.source.clone()).or_default().push(decision);
        }
        follows
    }
}

/// A decision in a log entry.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ArchiveChange {
    source: String,
    is_archived: bool,
    note: Option<String>,
}

impl ArchiveChange {
    pub(super) fn new(decision: &ArchiveDecision) -> Self {
        Self {
            source: decision.source.to_string(),
            is_archived: decision.is_archived,
            note: decision.note.as_ref().map(|note| note.as_str().to_owned()),
        }
    }

    /// Decodes the decision; `None` if a field is invalid.
    pub(super) fn decision(&self, recorded_time: Timestamp) -> Option<ArchiveDecision> {
        Some(ArchiveDecision {
            source: Source::parse(&self.source).ok()?,
            is_archived: self.is_archived,
            recorded_time,
            note: self.note.as_deref().map(Note::parse).transpose().ok()?,
        })
    }
}

/// The stored form of a decision.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ArchiveRecord {
    recorded_us: i64,
    change: ArchiveChange,
}

/// A sled key and its value.
pub(super) type ArchiveEntry = ([u8; 9], Vec<u8>);

/// The decisions of a store, and which of them are in sled.
#[derive(Default)]
pub(super) struct Archive {
    sources: ArchivedSources,
    /// Number of decisions in sled. They are numbered from 0 in the order of their commits.
    stored_count: u64,
    /// The decisions that the next checkpoint writes.
    unstored: Vec<ArchiveDecision>,
}

impl Archive {
    /// Returns the decisions for a view.
    pub(super) fn sources(&self) -> &ArchivedSources {
        &self.sources
    }

    /// Adds a decision. Returns false, and adds nothing, if the decision cannot follow the earlier decisions about its
    /// source.
    pub(super) fn add(&mut self, decision: ArchiveDecision) -> bool {
        let follows = self.sources.add(decision.clone());
        if follows {
            self.unstored.push(decision);
        }
        follows
    }

    /// Adds a stored decision. Decisions must be added in the order of their keys. `None` if the record is invalid or
    /// out of order.
    pub(super) fn load(&mut self, key: &[u8], record: &ArchiveRecord) -> Option<()> {
        let decision = record.change.decision(Timestamp::from_micros(record.recorded_us))?;
        let is_next = keys::u64_at(key, 1)? == self.stored_count;
        self.stored_count += 1;
        (is_next && self.sources.add(decision)).then_some(())
    }

    /// Returns the records that a checkpoint must write, and adds them to the digest of all records.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a decision cannot be encoded.
    pub(super) fn changes(&mut self, digest: &mut Digest) -> Result<Vec<ArchiveEntry>, StoreError> {
        let mut changes = Vec::with_capacity(self.unstored.len());
        for decision in self.unstored.drain(..) {
            let key = keys::archive(self.stored_count);
            let record =
                ArchiveRecord { recorded_us: decision.recorded_time.micros(), change: ArchiveChange::new(&decision) };
            let (value, crc) = keys::encode_checksummed(&key, &record)?;
            digest.add(crc);
            self.stored_count += 1;
            changes.push((key, value));
        }
        Ok(changes)
    }

    /// Returns the number of decisions.
    pub(super) fn count(&self) -> u64 {
        self.stored_count + self.unstored.len() as u64
    }

    /// Returns true if the store has the maximum number of decisions.
    pub(super) fn is_full(&self) -> bool {
        self.count() >= DECISIONS_MAX
    }
}

impl Store {
    /// Returns the ids of the series of the sources in `changes`.
    pub(super) fn series_of(&self, changes: &[ArchiveChange]) -> Vec<u32> {
        if changes.is_empty() {
            return Vec::new();
        }
        let is_changed = |source: &Source| changes.iter().any(|change| change.source == source.as_str());
        self.series.iter().filter(|series| is_changed(&series.key.source)).map(|series| series.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(source: &str, is_archived: bool, recorded_us: i64) -> ArchiveDecision {
        let source = Source::parse(source).unwrap();
        let note = is_archived.then(|| Note::parse("a misspelled name").unwrap());
        ArchiveDecision { source, is_archived, recorded_time: Timestamp::from_micros(recorded_us), note }
    }

    #[test]
    fn decisions_about_a_source_alternate() {
        let mut archive = Archive::default();
        assert!(!archive.add(decision("a", false, 1)), "the first decision must archive the source");
        assert!(archive.add(decision("a", true, 2)));
        assert!(!archive.add(decision("a", true, 3)));
        assert!(!archive.add(decision("a", false, 2)), "a decision must be later than the one before");
        assert!(archive.add(decision("a", false, 5)));
        assert!(archive.add(decision("b", true, 5)));
        let a = Source::parse("a").unwrap();
        let is_archived = |known_us| archive.sources().is_archived(&a, Timestamp::from_micros(known_us));
        assert_eq!([1, 2, 4, 5, 9].map(is_archived), [false, true, true, false, false]);
    }

    #[test]
    fn stored_decisions_are_loaded_in_order() {
        let mut archive = Archive::default();
        for decision in [decision("a", true, 2), decision("b", true, 3), decision("a", false, 5)] {
            assert!(archive.add(decision));
        }
        let records: Vec<ArchiveEntry> = archive.changes(&mut Digest::default()).unwrap();
        assert_eq!(archive.changes(&mut Digest::default()).unwrap(), []);
        let load = |entries: &[ArchiveEntry]| {
            let mut loaded = Archive::default();
            for (key, value) in entries {
                let (payload, _) = keys::verify_checksum(key, value).unwrap();
                loaded.load(key, &postcard::from_bytes(payload).unwrap())?;
            }
            Some(loaded.sources().clone())
        };
        assert_eq!(load(&records).as_ref(), Some(archive.sources()));
        assert_eq!(load(&records[1..]), None, "decision 0 is missing");
        assert_eq!(load(&[records[0].clone(), records[2].clone()]), None, "decision 1 is missing");
    }
}
