//! Which ticks are held instead of stored, and decisions about those that are.
//!
//! **Invariant**: a source has one rule, its own or that of all others.

use std::collections::BTreeMap;

use super::ConflictPolicy;
use super::apply::{explain_upsert, known_as, too_scattered};
use crate::domain::{HeldTick, Note, RatioThreshold, SeriesKey, Source, Timestamp, Verdict};
use crate::store::{Decided, DecisionRefusal, Quarantine, UpsertError};

/// Series of which a commit began to hold ticks that the log names; it says how many there were.
const LOGGED_HELD_MAX: usize = 20;

/// How far a rate may lie from the rate in force at its own place in time, by source: those as many times apart or more
/// are held. None holds nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuarantineRules {
    others: Option<RatioThreshold>,
    by_source: BTreeMap<Source, Option<RatioThreshold>>,
}

impl QuarantineRules {
    /// `others` is for sources that `by_source` does not name.
    pub fn new(others: Option<RatioThreshold>, by_source: BTreeMap<Source, Option<RatioThreshold>>) -> Self {
        Self { others, by_source }
    }

    /// Of one source.
    pub fn factor_of(&self, source: &Source) -> Option<RatioThreshold> {
        self.by_source.get(source).copied().unwrap_or(self.others)
    }
}

impl Default for QuarantineRules {
    /// Five, for every source.
    fn default() -> Self {
        Self::new(Some(RatioThreshold::DEFAULT), BTreeMap::new())
    }
}

/// What is to be decided of held ticks, in one commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecisionRequest {
    /// Of held ticks, each once.
    pub ids: Vec<u64>,
    /// Which way.
    pub verdict: Verdict,
    /// Why.
    pub note: Option<Note>,
    /// For released ticks whose instants are known with other values.
    pub conflict_policy: ConflictPolicy,
}

/// The answer to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DecisionReport {
    /// Of the commit, or of the newest one where nothing changed.
    pub sequence: u64,
    /// Of that commit.
    pub recorded_time: Timestamp,
    /// What became of each, in the order of the request, and of those refused why and what to do.
    pub decided: Vec<(Decided, String)>,
}

/// Why a held tick was not decided, and what to do; empty if it was.
pub(super) fn explain(id: u64, decided: &Decided, quarantine: &Quarantine) -> String {
    let Decided::Refused(refusal) = decided else { return String::new() };
    match (refusal, quarantine.get(id)) {
        (DecisionRefusal::Upsert(UpsertError::Conflict(stored)), Some(tick)) => {
            let known = known_as(&tick.series, tick.observed_time, stored, tick.value);
            format!("{known}; discard it, or ask to revise")
        }
        (DecisionRefusal::Upsert(UpsertError::TooScattered), Some(tick)) => {
            let (series, time) = (&tick.series, tick.observed_time);
            format!("{series} at {time}: {}; release fewer at a time, in order of time", too_scattered())
        }
        (DecisionRefusal::Upsert(error), Some(tick)) => {
            explain_upsert(&tick.series, tick.observed_time, tick.value, error).message
        }
        (DecisionRefusal::DecidedOtherwise(Verdict::Released), _) => {
            format!(
                "tick {id} was released before, which lasts; send its true value, asking to revise, and release that one likewise if it is held"
            )
        }
        (DecisionRefusal::DecidedOtherwise(Verdict::Discarded), _) => format!(
            "tick {id} was discarded before, which lasts; set --quarantine-factor of its source to none and send it again"
        ),
        (DecisionRefusal::UnknownId | DecisionRefusal::Upsert(_), _) => {
            format!("id {id} is of no held tick; list those there are")
        }
    }
}

/// What the log says of ticks that a commit began to hold, those with greater ids than `before`: a line for each series
/// of which none was held until then. A source that has slipped slips at every poll, and its first tick says it all.
pub(super) fn held_lines(quarantine: &Quarantine, before: u64) -> Vec<String> {
    let mut begun: BTreeMap<&SeriesKey, (&HeldTick, usize)> = BTreeMap::new();
    for tick in quarantine.after(before) {
        begun.entry(&tick.series).or_insert((tick, 0)).1 += 1;
    }
    let held: BTreeMap<&SeriesKey, usize> = quarantine.held_by_series().collect();
    begun.retain(|series, (_, count)| held.get(series).is_none_or(|held| held <= count));
    let line = |(series, (tick, count)): (&&SeriesKey, &(&HeldTick, usize))| {
        let HeldTick { id, observed_time, value, rate_in_force, .. } = tick;
        let more = if *count > 1 { format!(", and {} more of it", count - 1) } else { String::new() };
        format!(
            "{series} is held from tick {id} at {observed_time} on, which is {}, too far from the {rate_in_force} in force{more}; release or discard",
            value.rate
        )
    };
    let mut lines: Vec<String> = begun.iter().take(LOGGED_HELD_MAX).map(line).collect();
    if begun.len() > LOGGED_HELD_MAX {
        lines.push(format!("ticks of {} more series are held", begun.len() - LOGGED_HELD_MAX));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CurrencySet, Pair, PublishedValue, Rate};
    use crate::store::{Store, StoreOptions};

    /// A store whose series, so many of them, each have one rate.
    fn store(directory: &tempfile::TempDir, series: &[SeriesKey]) -> Store {
        let mut store = Store::open(StoreOptions::of_test(directory.path()), Timestamp::from_micros(0)).unwrap();
        let ticks: Vec<_> = series.iter().map(|key| (key, 0, "0.01144")).collect();
        assert_eq!(admit(&mut store, &ticks), [""; 0]);
        store
    }

    /// One commit of ticks by series and second, and what the log says of it.
    fn admit(store: &mut Store, ticks: &[(&SeriesKey, i64, &str)]) -> Vec<String> {
        let before = store.quarantine().count() as u64;
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
    fn a_series_is_told_of_once_until_its_ticks_are_decided() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (key("a"), key("b"));
        let mut store = store(&directory, &[one.clone(), other.clone()]);
        let first = "KGS/USD from a is held from tick 1 at 1970-01-01T00:00:01Z on, which is 1.144, too far from the \
                     0.01144 in force, and 1 more of it; release or discard";
        assert_eq!(admit(&mut store, &[(&one, 1, "1.144"), (&one, 2, "1.144")]), [first]);
        assert_eq!(admit(&mut store, &[(&one, 3, "1.145"), (&other, 3, "0.01145")]), [""; 0]);
        let said = admit(&mut store, &[(&one, 4, "1.144"), (&other, 4, "11.44")]);
        assert!(said.len() == 1 && said[0].starts_with("KGS/USD from b is held from tick 5 "), "{said:?}");
        let mut transaction = store.begin(Timestamp::from_micros(0));
        transaction.decide(&[1, 2, 3, 4], Verdict::Discarded, None, false);
        transaction.commit().unwrap();
        let said = admit(&mut store, &[(&one, 5, "1.144")]);
        assert!(said.len() == 1 && said[0].starts_with("KGS/USD from a is held from tick 6 "), "{said:?}");
    }

    #[test]
    fn many_series_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let keys: Vec<SeriesKey> = (0..LOGGED_HELD_MAX + 3).map(|number| key(&format!("s{number}"))).collect();
        let mut store = store(&directory, &keys);
        let slips: Vec<_> = keys.iter().map(|key| (key, 1, "1.144")).collect();
        let said = admit(&mut store, &slips);
        assert_eq!(
            (said.len(), said.last().map(String::as_str)),
            (LOGGED_HELD_MAX + 1, Some("ticks of 3 more series are held"))
        );
    }

    #[test]
    fn a_source_has_its_own_rule_or_that_of_all_others() {
        let source = |slug| Source::parse(slug).unwrap();
        let two = RatioThreshold::parse("2").unwrap();
        let by_source = BTreeMap::from([(source("cbu"), None), (source("nbk"), Some(two))]);
        let rules = QuarantineRules::new(Some(RatioThreshold::DEFAULT), by_source);
        for (slug, expect) in [("cbu", None), ("nbk", Some(two)), ("timesca", Some(RatioThreshold::DEFAULT))] {
            assert_eq!(rules.factor_of(&source(slug)), expect, "{slug}");
        }
    }
}
