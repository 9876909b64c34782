//! Selection of the stored series that answer for a pair: a direct series if one exists, else an inverse, else a cross
//! through USD. If several sources have a series of that kind, the preferred source answers, even if the rate of
//! another source is newer.
//!
//! The leg of a currency in a cross is the series of that currency against USD, else the series of USD against that
//! currency.
//!
//! **Invariant**: a cross and its inverse come from the same series.

use std::sync::Arc;

use super::as_of::AsOf;
use super::{QueryError, Reader};
use crate::analysis::Legs;
use crate::domain::{Currency, Pair, SeriesKey, Source};
use crate::sources::Preferences;
use crate::store::SeriesView;

/// Maximum number of series that an error message lists.
const LISTED_SERIES_MAX: usize = 12;

/// How a rate is derived from published rates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Derivation {
    /// The rate is published for the requested pair.
    Direct,
    /// The rate is one divided by a published rate.
    Inverse,
    /// The rate is the product of two legs through USD. Each leg is a published rate, or one divided by a published
    /// rate.
    Cross,
}

/// The sources that a request names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NamedSources<'a> {
    /// The request names no source.
    Any,
    /// The request names one source for every leg.
    All(&'a Source),
    /// The request names the source of a single leg.
    Only(&'a Source),
    /// The request names the sources of both legs of a cross.
    Each(&'a Source, &'a Source),
}

impl<'a> NamedSources<'a> {
    fn new(source: Option<&'a Source>, leg_sources: &'a [Source]) -> Result<Self, QueryError> {
        if let Some((source, leg)) =
            source.and_then(|source| leg_sources.iter().find(|leg| *leg != source).map(|leg| (source, leg)))
        {
            let problem = format!("'{leg}' contradicts source '{source}'; give one of them");
            return Err(QueryError::invalid("leg_sources", problem));
        }
        match (source, leg_sources) {
            (None, []) => Ok(Self::Any),
            (Some(source), []) => Ok(Self::All(source)),
            (_, [only]) => Ok(Self::Only(only)),
            (_, [first, second]) => Ok(Self::Each(first, second)),
            (_, more) => {
                let problem = format!("{} sources are given; a cross has two legs", more.len());
                Err(QueryError::invalid("leg_sources", problem))
            }
        }
    }
}

/// A series and whether its rates are inverted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Leg<S> {
    pub(super) inverted: bool,
    pub(super) series: S,
}

/// The series that an answer is derived from.
pub(super) type Route = Legs<Leg<Arc<SeriesView>>>;

/// Returns how rates are derived from `legs`.
pub(super) fn derivation<S>(legs: &Legs<Leg<S>>) -> Derivation {
    match legs {
        Legs::One(Leg { inverted: false, .. }) => Derivation::Direct,
        Legs::One(Leg { inverted: true, .. }) => Derivation::Inverse,
        Legs::Two(..) => Derivation::Cross,
    }
}

/// Returns both currencies of a pair against USD, or `None` if one of them is USD.
fn against_usd(pair: Pair) -> Option<(Pair, Pair)> {
    Pair::new(pair.base(), Currency::USD).ok().zip(Pair::new(pair.quote(), Currency::USD).ok())
}

/// Returns the published pairs that a pair is derived from, of any source. The list is empty if the pair cannot be
/// derived.
pub(super) fn derived_from(keys: &[SeriesKey], pair: Pair) -> Vec<Pair> {
    let published = |pair: Pair| keys.iter().any(|key| key.pair == pair).then_some(pair);
    if let Some(inverse) = published(pair.inverse()) {
        return vec![inverse];
    }
    let leg = |pair: Pair| published(pair).or_else(|| published(pair.inverse()));
    let legs = against_usd(pair).and_then(|(base, quote)| leg(base).zip(leg(quote)));
    legs.map_or_else(Vec::new, |(base, quote)| vec![base, quote])
}

/// The choice of series for a pair among `keys`.
struct Choice<'a> {
    keys: &'a [SeriesKey],
    pair: Pair,
    preferences: &'a Preferences,
}

impl Choice<'_> {
    /// Returns the series of `wanted`, or else of its inverse. The first of the two kinds that exists decides. If
    /// several sources have that kind, the preferred source is chosen.
    ///
    /// # Errors
    /// Returns `Ambiguous` if several sources have the kind and none of them is preferred.
    fn single(&self, wanted: Pair, source: Option<&Source>) -> Result<Option<Leg<SeriesKey>>, QueryError> {
        for (inverted, published) in [(false, wanted), (true, wanted.inverse())] {
            let is_of_kind =
                |key: &&SeriesKey| key.pair == published && source.is_none_or(|source| key.source == *source);
            let found: Vec<&SeriesKey> = self.keys.iter().filter(is_of_kind).collect();
            match found.as_slice() {
                [] => {}
                [one] => return Ok(Some(Leg { inverted, series: (*one).clone() })),
                several => {
                    if let Some(preferred) = self.preferences.choose(several, |key| &key.source) {
                        return Ok(Some(Leg { inverted, series: (*preferred).clone() }));
                    }
                    let sources: Vec<&str> = several.iter().map(|key| key.source.as_str()).collect();
                    let leg_of = (wanted != self.pair).then_some(self.pair);
                    return Err(QueryError::Ambiguous { pair: wanted, leg_of, sources: sources.join(", ") });
                }
            }
        }
        Ok(None)
    }

    /// Returns both legs of a cross: the leg of the base currency and the inverted leg of the quote currency.
    fn cross(&self, sources: [Option<&Source>; 2]) -> Result<Legs<Leg<SeriesKey>>, QueryError> {
        let unknown = |missing_legs: Vec<Pair>| QueryError::UnknownSeries {
            pair: self.pair,
            wanted_source: sources.into_iter().flatten().next().filter(|_| sources[0] == sources[1]).cloned(),
            missing_legs,
            available: list_available(self.keys),
        };
        let Some((base, quote)) = against_usd(self.pair) else { return Err(unknown(Vec::new())) };
        match (self.single(base, sources[0]), self.single(quote, sources[1])) {
            (Ok(Some(first)), Ok(Some(second))) => {
                Ok(Legs::Two(first, Leg { inverted: !second.inverted, series: second.series }))
            }
            // A missing leg is reported before an ambiguous leg.
            (first @ Ok(None), second) | (first, second @ Ok(None)) => {
                let missing = [(first, base), (second, quote)].into_iter().filter(|(leg, _)| matches!(leg, Ok(None)));
                Err(unknown(missing.map(|(_, pair)| pair).collect()))
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    fn find(&self, named: NamedSources<'_>) -> Result<Legs<Leg<SeriesKey>>, QueryError> {
        let source = match named {
            NamedSources::Any => None,
            NamedSources::All(source) | NamedSources::Only(source) => Some(source),
            NamedSources::Each(first, second) if against_usd(self.pair).is_some() => {
                return self.cross([Some(first), Some(second)]);
            }
            NamedSources::Each(..) => {
                let problem = format!("2 sources are given; {} contains USD and has one leg", self.pair);
                return Err(QueryError::invalid("leg_sources", problem));
            }
        };
        if let Some(single) = self.single(self.pair, source)? {
            return Ok(Legs::One(single));
        }
        let cross = self.cross([source; 2]);
        if matches!((named, &cross), (NamedSources::Only(_), Ok(_))) {
            let problem = format!(
                "1 source is given; {} is a cross of two legs: name two leg_sources, or name one source for both legs \
                 as source",
                self.pair
            );
            return Err(QueryError::invalid("leg_sources", problem));
        }
        cross
    }
}

/// Lists the available series for an error message.
pub(super) fn list_available(keys: &[SeriesKey]) -> String {
    if keys.is_empty() {
        return "no series exists yet".to_owned();
    }
    let shown: Vec<String> = keys.iter().take(LISTED_SERIES_MAX).map(ToString::to_string).collect();
    let more = keys.len().saturating_sub(LISTED_SERIES_MAX);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("available: {}{more}", shown.join(", "))
}

fn unknown_series(pair: Pair, source: Option<&Source>, keys: &[SeriesKey]) -> QueryError {
    let (wanted_source, available) = (source.cloned(), list_available(keys));
    QueryError::UnknownSeries { pair, wanted_source, missing_legs: Vec::new(), available }
}

impl Reader {
    /// Returns the keys of the series for which `wanted` returns true and which exist at the commit of `as_of`. A read
    /// as known earlier must not see a series that was created later.
    pub(super) fn known_keys(&self, as_of: &AsOf, wanted: impl Fn(&SeriesKey) -> bool) -> Vec<SeriesKey> {
        let is_known = |series: &&Arc<SeriesView>| as_of.newest || series.is_known(as_of.known());
        self.view
            .series()
            .filter(|series| wanted(series.key()))
            .filter(is_known)
            .map(|series| series.key().clone())
            .collect()
    }

    /// Runs `find` over the series between USD and the currencies of `pair`. If `find` returns `UnknownSeries`, runs it
    /// again over all series, so that the error lists every available series.
    fn choose<T>(
        &self,
        as_of: &AsOf,
        pair: Pair,
        find: impl Fn(Choice<'_>) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let currencies = [pair.base(), pair.quote(), Currency::USD];
        let is_related =
            |key: &SeriesKey| currencies.contains(&key.pair.base()) && currencies.contains(&key.pair.quote());
        let preferences = self.sources.preferences();
        match find(Choice { keys: &self.known_keys(as_of, is_related), pair, preferences }) {
            Err(QueryError::UnknownSeries { .. }) => {
                find(Choice { keys: &self.known_keys(as_of, |_| true), pair, preferences })
            }
            chosen => chosen,
        }
    }

    /// Returns the series that answer for `pair`.
    ///
    /// # Errors
    /// `UnknownSeries` if no series and no cross has the pair; `Ambiguous` if several sources have the pair or a leg
    /// and none is preferred; `InvalidArgument` if `leg_sources` does not fit `source` or the number of legs.
    pub(super) fn resolve(
        &self,
        as_of: &AsOf,
        pair: Pair,
        source: Option<&Source>,
        leg_sources: &[Source],
    ) -> Result<Route, QueryError> {
        let named = NamedSources::new(source, leg_sources)?;
        let legs = self.choose(as_of, pair, |choice| choice.find(named))?;
        legs.try_map(|leg| Ok(Leg { inverted: leg.inverted, series: self.find_series(&leg.series)? }))
    }

    fn find_series(&self, key: &SeriesKey) -> Result<Arc<SeriesView>, QueryError> {
        self.view.find(key).map(Arc::clone).ok_or_else(|| unknown_series(key.pair, Some(&key.source), &[]))
    }

    /// Returns the series published for `pair` itself.
    ///
    /// # Errors
    /// `UnknownSeries` if no series has the pair or its inverse; `OnlyInverse` if only the inverse is published;
    /// `Ambiguous` if several sources have it and none is preferred.
    pub(super) fn resolve_published(
        &self,
        as_of: &AsOf,
        pair: Pair,
        source: Option<&Source>,
    ) -> Result<Arc<SeriesView>, QueryError> {
        let chosen = self.choose(as_of, pair, |choice| {
            choice.single(pair, source)?.ok_or_else(|| unknown_series(pair, source, choice.keys))
        })?;
        if chosen.inverted {
            return Err(QueryError::OnlyInverse { pair, published: chosen.series });
        }
        self.find_series(&chosen.series)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CurrencySet;

    fn source(slug: &str) -> Source {
        Source::parse(slug).unwrap()
    }

    fn keys(texts: &[&str]) -> Vec<SeriesKey> {
        let key = |text: &&str| {
            let (pair_text, slug) = text.split_once(' ').unwrap();
            let pair = Pair::parse(pair_text, &CurrencySet::central_asia()).unwrap();
            SeriesKey { pair, source: source(slug) }
        };
        texts.iter().map(key).collect()
    }

    /// Checks the choice for a pair such as "KGS/KZT". `sources` is the requested `source`, or "" for none, and the
    /// requested `leg_sources`. An `expect` that ends in "..." is a prefix.
    #[track_caller]
    fn check(wanted: &str, sources: (&str, &[&str]), existing: &[&str], expect: &str) {
        check_preferring(&[], wanted, sources, existing, expect);
    }

    /// Like `check`, with `preferred` sources in order of preference.
    #[track_caller]
    fn check_preferring(preferred: &[&str], wanted: &str, sources: (&str, &[&str]), existing: &[&str], expect: &str) {
        let preferences = Preferences::new(preferred.iter().map(|slug| source(slug)).zip(1..)).unwrap();
        let pair = Pair::parse(wanted, &CurrencySet::central_asia()).unwrap();
        let keys = keys(existing);
        let one = (!sources.0.is_empty()).then(|| source(sources.0));
        let legs: Vec<Source> = sources.1.iter().map(|slug| source(slug)).collect();
        let found = NamedSources::new(one.as_ref(), &legs)
            .and_then(|named| Choice { keys: &keys, pair, preferences: &preferences }.find(named));
        let text = match found {
            Ok(legs) => {
                let leg_texts: Vec<String> =
                    legs.iter().map(|leg| format!("{}{}", if leg.inverted { "1/" } else { "" }, leg.series)).collect();
                format!("{:?} {}", derivation(&legs), leg_texts.join(" * "))
            }
            Err(error) => error.to_string(),
        };
        assert!(
            if expect.ends_with("...") { text.starts_with(expect.trim_end_matches("...")) } else { text == expect },
            "{text}"
        );
    }

    #[test]
    fn direct_precedes_inverse_and_ambiguity_is_checked_per_kind() {
        let check = |existing: &[&str], expect: &str| check("KGS/USD", ("", &[]), existing, expect);
        check(&["KGS/USD a"], "Direct KGS/USD from a");
        check(&["KGS/USD a", "USD/KGS b", "USD/KGS c"], "Direct KGS/USD from a");
        check(&["USD/KGS b"], "Inverse 1/USD/KGS from b");
        check(&["KGS/USD a", "KGS/USD b", "USD/KGS c"], "several sources have KGS/USD: name one of a, b as source");
        check(&["USD/KGS b", "USD/KGS c"], "several sources have KGS/USD: name one of b, c as source");
        check(&[], "there is no series of KGS/USD; no series exists yet");
    }

    #[test]
    fn cross_through_usd_is_the_last_choice() {
        let check = |existing: &[&str], expect: &str| check("KGS/KZT", ("", &[]), existing, expect);
        check(&["KGS/USD a", "KZT/USD b"], "Cross KGS/USD from a * 1/KZT/USD from b");
        check(&["USD/KGS a", "KZT/USD b"], "Cross 1/USD/KGS from a * 1/KZT/USD from b");
        check(&["KGS/USD a", "USD/KZT b"], "Cross KGS/USD from a * USD/KZT from b");
        check(&["USD/KGS a", "USD/KZT b"], "Cross 1/USD/KGS from a * USD/KZT from b");
        // A published pair or its inverse precedes a cross. In a leg, C/USD precedes USD/C.
        check(&["KGS/KZT c", "KGS/USD a", "KZT/USD b"], "Direct KGS/KZT from c");
        check(&["KZT/KGS c", "KGS/USD a", "KZT/USD b"], "Inverse 1/KZT/KGS from c");
        check(&["KGS/USD a", "USD/KGS c", "USD/KGS d", "KZT/USD b"], "Cross KGS/USD from a * 1/KZT/USD from b");
        check(
            &["KGS/USD a", "KZT/USD b", "KZT/USD c"],
            "several sources have KZT/USD, a leg of KGS/KZT: name one of b, c for it in leg_sources (the source of the \
             KGS leg first), or name one source for both legs as source",
        );
        check(
            &["KGS/USD a", "KGS/USD b"],
            "there is no series of KGS/KZT and no series of KZT/USD for a cross rate; \
             available: KGS/USD from a, KGS/USD from b",
        );
        check(
            &["KGS/USD a"],
            "there is no series of KGS/KZT and no series of KZT/USD for a cross rate; available: KGS/USD from a",
        );
        check(
            &[],
            "there is no series of KGS/KZT and no series of KGS/USD or KZT/USD for a cross rate; no series exists yet",
        );
    }

    #[test]
    fn source_limits_both_legs_and_leg_sources_limit_each() {
        let existing = ["KGS/KZT d", "KGS/USD a", "KGS/USD b", "KZT/USD a", "KZT/USD b", "USD/KGS c"];
        let check = |sources, expect| check("KGS/KZT", sources, &existing, expect);
        check(("d", &[]), "Direct KGS/KZT from d");
        check(("a", &[]), "Cross KGS/USD from a * 1/KZT/USD from a");
        // Two leg sources request a cross even if the pair is published.
        check(("", &["a", "b"]), "Cross KGS/USD from a * 1/KZT/USD from b");
        check(("", &["c", "a"]), "Cross 1/USD/KGS from c * 1/KZT/USD from a");
        check(("a", &["a", "a"]), "Cross KGS/USD from a * 1/KZT/USD from a");
        check(("", &["d"]), "Direct KGS/KZT from d");
        check(("", &["a"]), "leg_sources: 1 source is given; KGS/KZT is a cross of two legs...");
        check(("a", &["a", "b"]), "leg_sources: 'b' contradicts source 'a'; give one of them");
        check(("a", &["b"]), "leg_sources: 'b' contradicts source 'a'; give one of them");
        check(("", &["a", "b", "c"]), "leg_sources: 3 sources are given; a cross has two legs");
        check(
            ("c", &[]),
            "there is no series of KGS/KZT from c and no series of KZT/USD for a cross rate; available: ...",
        );
        check(
            ("", &["a", "c"]),
            "there is no series of KGS/KZT and no series of KZT/USD for a cross rate; available: ...",
        );
    }

    #[test]
    fn preferred_source_answers_if_several_sources_have_the_pair() {
        let check = |preferred: &[&str], wanted: &str, expect: &str| {
            let existing = ["KGS/USD a", "KGS/USD b", "USD/KGS c", "KZT/USD b", "KZT/USD c", "USD/TJS c", "USD/TJS d"];
            check_preferring(preferred, wanted, ("", &[]), &existing, expect);
        };
        check(&["a"], "KGS/USD", "Direct KGS/USD from a");
        check(&["b"], "KGS/USD", "Direct KGS/USD from b");
        check(&["b", "a"], "KGS/USD", "Direct KGS/USD from b");
        check(&["c", "a"], "KGS/USD", "Direct KGS/USD from a");
        // The kind precedes the preference, and a single source needs no preference.
        check(&["c"], "KGS/USD", "several sources have KGS/USD: name one of a, b as source");
        check(&["a"], "USD/KGS", "Direct USD/KGS from c");
        check(&["d", "c"], "TJS/USD", "Inverse 1/USD/TJS from d");
        // Each leg of a cross is chosen by preference on its own.
        check(&["b"], "KGS/KZT", "Cross KGS/USD from b * 1/KZT/USD from b");
        check(&["c", "a"], "KGS/KZT", "Cross KGS/USD from a * 1/KZT/USD from c");
        check(&["a"], "KGS/KZT", "several sources have KZT/USD, a leg of KGS/KZT: name one of b, c for it...");
        check(&["z"], "KGS/USD", "several sources have KGS/USD: name one of a, b as source");
    }

    #[test]
    fn named_source_precedes_preferred_source() {
        let existing = ["KGS/USD a", "KGS/USD b", "KZT/USD a", "KZT/USD b"];
        let check = |wanted, sources, expect| check_preferring(&["a", "b"], wanted, sources, &existing, expect);
        check("KGS/USD", ("b", &[]), "Direct KGS/USD from b");
        check("KGS/USD", ("", &["b"]), "Direct KGS/USD from b");
        check("KGS/KZT", ("b", &[]), "Cross KGS/USD from b * 1/KZT/USD from b");
        check("KGS/KZT", ("", &["b", "a"]), "Cross KGS/USD from b * 1/KZT/USD from a");
        check("KGS/USD", ("c", &[]), "there is no series of KGS/USD from c; available: ...");
    }

    #[test]
    fn one_leg_source_equals_source() {
        let check = |sources, expect| check("KGS/USD", sources, &["KGS/USD a", "KGS/USD b"], expect);
        check(("a", &[]), "Direct KGS/USD from a");
        check(("", &["b"]), "Direct KGS/USD from b");
        check(("a", &["a"]), "Direct KGS/USD from a");
        check(("a", &["b"]), "leg_sources: 'b' contradicts source 'a'; give one of them");
        check(("", &["a", "b"]), "leg_sources: 2 sources are given; KGS/USD contains USD and has one leg");
        check(("c", &[]), "there is no series of KGS/USD from c; available: KGS/USD from a, KGS/USD from b");
    }

    #[test]
    fn unknown_series_error_lists_available_series() {
        let existing: Vec<String> = (0..15).map(|number| format!("KGS/USD s{number}")).collect();
        let existing = keys(&existing.iter().map(String::as_str).collect::<Vec<_>>());
        let pair = Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap();
        let error = unknown_series(pair, Some(&source("nbkr")), &existing).to_string();
        assert!(error.starts_with("there is no series of KGS/USD from nbkr; available: KGS/USD from s0, "), "{error}");
        assert!(error.ends_with("KGS/USD from s11 and 3 more"), "{error}");
    }
}
