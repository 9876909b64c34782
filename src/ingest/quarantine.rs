//! Which ticks are held instead of stored, and decisions about those that are.
//!
//! **Invariant**: a source has one rule, its own or that of all others.

use std::collections::BTreeMap;

use super::ConflictPolicy;
use super::apply::{explain_upsert, known_as, too_scattered};
use crate::domain::{Factor, Note, Source, Timestamp, Verdict};
use crate::store::{Decided, DecisionRefusal, Quarantine, UpsertError};

/// How far a rate may lie from the rate in force at its own place in time, by source: those as many times apart or more
/// are held. None holds nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuarantineRules {
    others: Option<Factor>,
    by_source: BTreeMap<Source, Option<Factor>>,
}

impl QuarantineRules {
    /// `others` is for sources that `by_source` does not name.
    pub fn new(others: Option<Factor>, by_source: BTreeMap<Source, Option<Factor>>) -> Self {
        Self { others, by_source }
    }

    /// Of one source.
    pub fn factor_of(&self, source: &Source) -> Option<Factor> {
        self.by_source.get(source).copied().unwrap_or(self.others)
    }
}

impl Default for QuarantineRules {
    /// Five, for every source.
    fn default() -> Self {
        Self::new(Some(Factor::DEFAULT), BTreeMap::new())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_its_own_rule_or_that_of_all_others() {
        let source = |slug| Source::parse(slug).unwrap();
        let two = Factor::parse("2").unwrap();
        let by_source = BTreeMap::from([(source("cbu"), None), (source("nbk"), Some(two))]);
        let rules = QuarantineRules::new(Some(Factor::DEFAULT), by_source);
        for (slug, expect) in [("cbu", None), ("nbk", Some(two)), ("timesca", Some(Factor::DEFAULT))] {
            assert_eq!(rules.factor_of(&source(slug)), expect, "{slug}");
        }
    }
}
