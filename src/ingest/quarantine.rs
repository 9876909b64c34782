//! Quarantine rules of sources, decisions about held ticks, and log lines for newly held ticks.
//!
//! **Invariant**: a source that has its own setting uses this setting; every other source uses the common setting
//! (`others`). A setting is a ratio threshold, or no threshold.

use std::collections::BTreeMap;

use super::ConflictPolicy;
use super::apply::{conflict_text, explain_upsert, too_scattered_text};
use crate::domain::{HeldTick, Note, RatioThreshold, SeriesKey, Source, Timestamp, Verdict};
use crate::store::{Decided, DecisionRefusal, Quarantine, UpsertError};

/// Maximum number of series with newly held ticks that the log names for one commit. The log counts the others.
const LOGGED_HELD_MAX: usize = 20;

/// Ratio thresholds of sources. A tick is held if its rate and the rate in force at its observed time differ by the
/// threshold or more. Without a threshold no tick is held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuarantineRules {
    others: Option<RatioThreshold>,
    by_source: BTreeMap<Source, Option<RatioThreshold>>,
}

impl QuarantineRules {
    /// Makes rules. `others` applies to sources that `by_source` does not have.
    pub fn new(others: Option<RatioThreshold>, by_source: BTreeMap<Source, Option<RatioThreshold>>) -> Self {
        Self { others, by_source }
    }

    /// Returns the ratio threshold of a source.
    pub fn threshold_of(&self, source: &Source) -> Option<RatioThreshold> {
        self.by_source.get(source).copied().unwrap_or(self.others)
    }
}

impl Default for QuarantineRules {
    /// Returns the default threshold, five, for every source.
    fn default() -> Self {
        Self::new(Some(RatioThreshold::DEFAULT), BTreeMap::new())
    }
}

/// A request to decide about held ticks, in one commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecisionRequest {
    /// Ids of the held ticks, each once.
    pub ids: Vec<u64>,
    /// The decision: release or discard.
    pub verdict: Verdict,
    /// The reason for the decision.
    pub note: Option<Note>,
    /// Policy for released ticks if another value is stored at their instant.
    pub conflict_policy: ConflictPolicy,
}

/// The response to a [`DecisionRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecisionReport {
    /// Sequence of the decisions' commit, or of the newest commit if nothing changed.
    pub sequence: u64,
    /// Recorded time of that commit.
    pub recorded_time: Timestamp,
    /// Result for each id, in the order of the request. The text of a refused decision has the reason and the remedy;
    /// other texts are empty.
    pub decided: Vec<(Decided, String)>,
}

/// Returns why a decision was refused, with the remedy; empty if the decision was not refused.
pub(super) fn explain_decision(id: u64, decided: &Decided, quarantine: &Quarantine) -> String {
    let Decided::Refused(refusal) = decided else { return String::new() };
    match (refusal, quarantine.get(id)) {
        (DecisionRefusal::Upsert(UpsertError::Conflict(stored)), Some(tick)) => {
            let conflict = conflict_text(&tick.series, tick.observed_time, stored, tick.value);
            format!("{conflict}; discard the tick, or use the conflict policy revise")
        }
        (DecisionRefusal::Upsert(UpsertError::TooScattered), Some(tick)) => {
            let (series, time) = (&tick.series, tick.observed_time);
            format!(
                "{series} at {time}: {}; release fewer ticks at a time, in order of observed time",
                too_scattered_text()
            )
        }
        (DecisionRefusal::Upsert(error), Some(tick)) => {
            explain_upsert(&tick.series, tick.observed_time, tick.value, error).message
        }
        (DecisionRefusal::DecidedOtherwise(Verdict::Released), _) => {
            format!(
                "tick {id} was already released, which cannot be undone; send the correct value with the conflict policy revise, then release the new tick if it is held"
            )
        }
        (DecisionRefusal::DecidedOtherwise(Verdict::Discarded), _) => format!(
            "tick {id} was already discarded, which cannot be undone; set --quarantine-factor of its source to none and send the tick again"
        ),
        (DecisionRefusal::UnknownId | DecisionRefusal::Upsert(_), _) => {
            format!("no held tick has id {id}; list the held ticks")
        }
    }
}

/// Returns log lines for the ticks that a commit put into quarantine: the ticks with ids greater than `before`. Each
/// series that had no held tick before the commit has one line. Other series have no line, because a faulty source
/// gives held ticks at every poll.
pub(super) fn held_lines(quarantine: &Quarantine, before: u64) -> Vec<String> {
    let mut newly_held: BTreeMap<&SeriesKey, (&HeldTick, usize)> = BTreeMap::new();
    for tick in quarantine.after(before) {
        newly_held.entry(&tick.series).or_insert((tick, 0)).1 += 1;
    }
    let held: BTreeMap<&SeriesKey, usize> = quarantine.held_by_series().collect();
    newly_held.retain(|series, (_, count)| held.get(series).is_none_or(|held| held <= count));
    let line = |(series, (tick, count)): (&&SeriesKey, &(&HeldTick, usize))| {
        let HeldTick { id, observed_time, value, rate_in_force, .. } = tick;
        let more = if *count > 1 { format!(" ({} more in this commit)", count - 1) } else { String::new() };
        format!(
            "{series}: tick {id} at {observed_time} is held, because its rate {} is too far from the rate in force {rate_in_force}{more}; release or discard the tick",
            value.rate
        )
    };
    let mut lines: Vec<String> = newly_held.iter().take(LOGGED_HELD_MAX).map(line).collect();
    if newly_held.len() > LOGGED_HELD_MAX {
        lines.push(format!("ticks of {} more series are held", newly_held.len() - LOGGED_HELD_MAX));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CurrencySet, Pair, PublishedValue, Rate};
    use crate::store::{Store, StoreOptions};

    /// Opens a store and stores one tick for each series.
    fn store(directory: &tempfile::TempDir, series: &[SeriesKey]) -> Store {
        let mut store = Store::open(StoreOptions::of_test(directory.path()), Timestamp::from_micros(0)).unwrap();
        let ticks: Vec<_> = series.iter().map(|key| (key, 0, "0.01144")).collect();
        assert_eq!(admit(&mut store, &ticks), [""; 0]);
        store
    }

    /// Commits ticks, given by series, second and rate. Returns the log lines.
    fn admit(store: &mut Store, ticks: &[(&SeriesKey, i64, &str)]) -> Vec<String> {
        let before = store.quarantine().last_id();
        let mut transaction = store.begin(Timestamp::from_micros(0));
        for (key, second, rate) in ticks {
            let series = transaction.series(key).unwrap();
            let value = PublishedValue { rate: Rate::parse(rate).unwrap(), reported_change: None };
            let time = Timestamp::from_micros(second * Timestamp::SECOND_US);
            transaction.admit(series, time, value, false, Some(RatioThreshold::DEFAULT)).unwrap();
        }
        transaction.commit().unwrap();
        held_lines(store.quarantine(), before)
    }

    fn key(source: &str) -> SeriesKey {
        let pair = Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap();
        SeriesKey { pair, source: Source::parse(source).unwrap() }
    }

    #[test]
    fn series_is_logged_once_until_its_held_ticks_are_decided() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (key("a"), key("b"));
        let mut store = store(&directory, &[one.clone(), other.clone()]);
        let first = "KGS/USD from a: tick 1 at 1970-01-01T00:00:01Z is held, because its rate 1.144 is too far \
                     from the rate in force 0.01144 (1 more in this commit); release or discard the tick";
        assert_eq!(admit(&mut store, &[(&one, 1, "1.144"), (&one, 2, "1.144")]), [first]);
        assert_eq!(admit(&mut store, &[(&one, 3, "1.145"), (&other, 3, "0.01145")]), [""; 0]);
        let lines = admit(&mut store, &[(&one, 4, "1.144"), (&other, 4, "11.44")]);
        assert!(lines.len() == 1 && lines[0].starts_with("KGS/USD from b: tick 5 "), "{lines:?}");
        let mut transaction = store.begin(Timestamp::from_micros(0));
        transaction.decide(&[1, 2, 3, 4], Verdict::Discarded, None, false);
        transaction.commit().unwrap();
        let lines = admit(&mut store, &[(&one, 5, "1.144")]);
        assert!(lines.len() == 1 && lines[0].starts_with("KGS/USD from a: tick 6 "), "{lines:?}");
    }

    #[test]
    fn series_beyond_the_log_limit_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let keys: Vec<SeriesKey> = (0..LOGGED_HELD_MAX + 3).map(|number| key(&format!("s{number}"))).collect();
        let mut store = store(&directory, &keys);
        let ticks: Vec<_> = keys.iter().map(|key| (key, 1, "1.144")).collect();
        let lines = admit(&mut store, &ticks);
        assert_eq!(
            (lines.len(), lines.last().map(String::as_str)),
            (LOGGED_HELD_MAX + 1, Some("ticks of 3 more series are held"))
        );
    }

    #[test]
    fn source_without_own_setting_uses_common_threshold() {
        let source = |slug| Source::parse(slug).unwrap();
        let two = RatioThreshold::parse("2").unwrap();
        let by_source = BTreeMap::from([(source("cbu"), None), (source("nbk"), Some(two))]);
        let rules = QuarantineRules::new(Some(RatioThreshold::DEFAULT), by_source);
        for (slug, expect) in [("cbu", None), ("nbk", Some(two)), ("timesca", Some(RatioThreshold::DEFAULT))] {
            assert_eq!(rules.threshold_of(&source(slug)), expect, "{slug}");
        }
    }
}
