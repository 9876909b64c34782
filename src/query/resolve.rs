//! Which stored series answers for a pair: direct if there is such a series, else inverse.

use std::sync::Arc;

use super::pin::Pin;
use super::{QueryError, Reader};
use crate::domain::{Pair, SeriesKey, Source, Timestamp};
use crate::store::{SeriesView, StoreError};

/// Most series that an error message lists.
const LISTED_SERIES_MAX: usize = 12;

/// How a rate came about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Derivation {
    /// Published for this very pair.
    Direct,
    /// One over a published rate.
    Inverse,
}

/// The series behind an answer.
pub(super) struct Leg {
    pub(super) derivation: Derivation,
    pub(super) series: Arc<SeriesView>,
}

/// The one source that a caller names, in `source` or as the only leg's.
pub(super) fn named_source(source: Option<&Source>, leg_sources: &[Source]) -> Result<Option<Source>, QueryError> {
    match (source, leg_sources) {
        (source, []) => Ok(source.cloned()),
        (None, [leg]) => Ok(Some(leg.clone())),
        (Some(source), [leg]) if source == leg => Ok(Some(leg.clone())),
        (Some(source), [leg]) => {
            Err(QueryError::invalid("leg_sources", format!("'{leg}' contradicts source '{source}'; give one of them")))
        }
        (_, more) => Err(QueryError::invalid(
            "leg_sources",
            format!("{} are given; a direct or inverse rate has one leg", more.len()),
        )),
    }
}

/// The first kind that is available decides, and several sources of that kind are too many.
fn choose<'a>(
    pair: Pair,
    source: Option<&Source>,
    direct: &'a [SeriesKey],
    inverse: &'a [SeriesKey],
    there_are: impl FnOnce() -> String,
) -> Result<(Derivation, &'a SeriesKey), QueryError> {
    let (derivation, candidates) =
        if direct.is_empty() { (Derivation::Inverse, inverse) } else { (Derivation::Direct, direct) };
    match candidates {
        [] => Err(QueryError::UnknownSeries { pair, wanted_source: source.cloned(), there_are: there_are() }),
        [one] => Ok((derivation, one)),
        several => {
            let sources: Vec<&str> = several.iter().map(|key| key.source.as_str()).collect();
            Err(QueryError::Ambiguous { pair, sources: sources.join(", ") })
        }
    }
}

fn listing(keys: &[SeriesKey]) -> String {
    if keys.is_empty() {
        return "there is none yet".to_owned();
    }
    let shown: Vec<String> = keys.iter().take(LISTED_SERIES_MAX).map(ToString::to_string).collect();
    let more = keys.len().saturating_sub(LISTED_SERIES_MAX);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("there are {}{more}", shown.join(", "))
}

impl Reader {
    /// Whether a series was there at the commit seen: a read by known time must not meet a later one.
    fn is_known(series: &SeriesView, pin: &Pin) -> Result<bool, StoreError> {
        Ok(pin.newest || series.run_at(Timestamp::MAX, pin.known())?.is_some())
    }

    fn known_keys(&self, pin: &Pin, wanted: impl Fn(&SeriesKey) -> bool) -> Result<Vec<SeriesKey>, StoreError> {
        let mut keys = Vec::new();
        for series in self.view.series().filter(|series| wanted(series.key())) {
            if Self::is_known(series, pin)? {
                keys.push(series.key().clone());
            }
        }
        Ok(keys)
    }

    /// The series that answers for `pair`.
    pub(super) fn resolve(&self, pin: &Pin, pair: Pair, source: Option<&Source>) -> Result<Leg, QueryError> {
        let candidates = |pair: Pair| {
            self.known_keys(pin, |key| key.pair == pair && source.is_none_or(|source| key.source == *source))
        };
        let (direct, inverse) = (candidates(pair)?, candidates(pair.inverse())?);
        let all = if direct.is_empty() && inverse.is_empty() { self.known_keys(pin, |_| true)? } else { Vec::new() };
        let there_are = || listing(&all);
        let (derivation, key) = choose(pair, source, &direct, &inverse, there_are)?;
        match self.view.find(key) {
            Some(series) => Ok(Leg { derivation, series: Arc::clone(series) }),
            None => Err(QueryError::UnknownSeries { pair, wanted_source: source.cloned(), there_are: there_are() }),
        }
    }

    /// The series published for `pair` itself.
    pub(super) fn resolve_published(
        &self,
        pin: &Pin,
        pair: Pair,
        source: Option<&Source>,
    ) -> Result<Arc<SeriesView>, QueryError> {
        let leg = self.resolve(pin, pair, source)?;
        match leg.derivation {
            Derivation::Direct => Ok(leg.series),
            Derivation::Inverse => Err(QueryError::OnlyInverse { pair, published: leg.series.key().clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CurrencySet;

    fn pair() -> Pair {
        Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap()
    }

    fn source(slug: &str) -> Source {
        Source::parse(slug).unwrap()
    }

    fn keys(pair: Pair, slugs: &[&str]) -> Vec<SeriesKey> {
        slugs.iter().map(|slug| SeriesKey { pair, source: source(slug) }).collect()
    }

    #[test]
    fn direct_goes_before_inverse_and_ambiguity_is_judged_within_it() {
        let check = |direct: &[&str], inverse: &[&str], expect: &str| {
            let (direct, inverse) = (keys(pair(), direct), keys(pair().inverse(), inverse));
            let said = match choose(pair(), None, &direct, &inverse, || listing(&[])) {
                Ok((derivation, key)) => format!("{derivation:?} {key}"),
                Err(error) => error.to_string(),
            };
            assert_eq!(said, expect);
        };
        check(&["a"], &[], "Direct KGS/USD from a");
        check(&["a"], &["b", "c"], "Direct KGS/USD from a");
        check(&[], &["b"], "Inverse USD/KGS from b");
        check(&["a", "b"], &["c"], "several sources have KGS/USD: name one of a, b as source");
        check(&[], &["b", "c"], "several sources have KGS/USD: name one of b, c as source");
        check(&[], &[], "there is no series of KGS/USD; there is none yet");
    }

    #[test]
    fn an_unknown_series_is_told_what_there_is() {
        let slugs: Vec<String> = (0..15).map(|number| format!("s{number}")).collect();
        let there = keys(pair(), &slugs.iter().map(String::as_str).collect::<Vec<_>>());
        let error = choose(pair(), Some(&source("nbkr")), &[], &[], || listing(&there)).unwrap_err().to_string();
        assert!(error.starts_with("there is no series of KGS/USD from nbkr; there are KGS/USD from s0, "), "{error}");
        assert!(error.ends_with("KGS/USD from s11 and 3 more"), "{error}");
    }

    #[test]
    fn a_leg_source_is_the_source() {
        let check = |source_slug: Option<&str>, legs: &[&str], expect: Result<Option<&str>, &str>| {
            let legs: Vec<Source> = legs.iter().map(|slug| source(slug)).collect();
            match (named_source(source_slug.map(source).as_ref(), &legs), expect) {
                (Ok(found), Ok(expect)) => assert_eq!(found.as_ref().map(Source::as_str), expect),
                (Err(error), Err(expect)) => assert!(error.to_string().contains(expect), "{error}"),
                (found, _) => panic!("{found:?}"),
            }
        };
        check(None, &[], Ok(None));
        check(Some("a"), &[], Ok(Some("a")));
        check(None, &["b"], Ok(Some("b")));
        check(Some("a"), &["a"], Ok(Some("a")));
        check(Some("a"), &["b"], Err("'b' contradicts source 'a'"));
        check(None, &["a", "b"], Err("leg_sources: 2 are given"));
    }
}
