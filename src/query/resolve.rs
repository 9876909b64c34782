//! Which stored series answer for a pair: direct if there is such a series, else inverse, else a cross through USD.
//! Where several sources have one of that kind, the preferred one answers, whether or not its rate is the newest.
//!
//! The leg of a currency in a cross is its series against the dollar, else the dollar's against it, so that a cross and
//! its inverse come from the same series.

use std::sync::Arc;

use super::as_of::AsOf;
use super::{QueryError, Reader};
use crate::analysis::Legs;
use crate::domain::{Currency, Pair, SeriesKey, Source};
use crate::sources::Preferences;
use crate::store::SeriesView;

/// Most series that an error message lists.
const LISTED_SERIES_MAX: usize = 12;

/// How a rate came about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Derivation {
    /// Published for this very pair.
    Direct,
    /// One over a published rate.
    Inverse,
    /// Two published rates through the dollar.
    Cross,
}

/// Which sources a caller names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Named<'a> {
    /// None.
    Any,
    /// One, for every leg.
    All(&'a Source),
    /// That of the only leg.
    Only(&'a Source),
    /// Those of both legs of a cross.
    Each(&'a Source, &'a Source),
}

impl<'a> Named<'a> {
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
                Err(QueryError::invalid("leg_sources", format!("{} are given; a cross has two legs", more.len())))
            }
        }
    }
}

/// A series, and which way its rates are taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Leg<S> {
    pub(super) inverted: bool,
    pub(super) series: S,
}

/// The series behind an answer.
pub(super) type Route = Legs<Leg<Arc<SeriesView>>>;

/// How the rates of such legs come about.
pub(super) fn derivation<S>(legs: &Legs<Leg<S>>) -> Derivation {
    match legs {
        Legs::One(Leg { inverted: false, .. }) => Derivation::Direct,
        Legs::One(Leg { inverted: true, .. }) => Derivation::Inverse,
        Legs::Two(..) => Derivation::Cross,
    }
}

/// The currencies of a pair against the dollar, if neither of them is it.
fn against_usd(pair: Pair) -> Option<(Pair, Pair)> {
    Pair::new(pair.base(), Currency::USD).ok().zip(Pair::new(pair.quote(), Currency::USD).ok())
}

/// The published pairs that a pair is derived from, whoever publishes them; none if it is not to be derived.
pub(super) fn derived_from(keys: &[SeriesKey], pair: Pair) -> Vec<Pair> {
    let published = |pair: Pair| keys.iter().any(|key| key.pair == pair).then_some(pair);
    if let Some(inverse) = published(pair.inverse()) {
        return vec![inverse];
    }
    let leg = |pair: Pair| published(pair).or_else(|| published(pair.inverse()));
    let legs = against_usd(pair).and_then(|(base, quote)| leg(base).zip(leg(quote)));
    legs.map_or_else(Vec::new, |(base, quote)| vec![base, quote])
}

/// Finds series for a pair among `keys`.
struct Choice<'a> {
    keys: &'a [SeriesKey],
    pair: Pair,
    preferences: &'a Preferences,
}

impl Choice<'_> {
    /// The series of `wanted`, or else of its inverse. The first kind that is available decides; of several sources of
    /// that kind the preferred one has it, and without one they are too many.
    fn single(&self, wanted: Pair, source: Option<&Source>) -> Result<Option<Leg<SeriesKey>>, QueryError> {
        for (inverted, published) in [(false, wanted), (true, wanted.inverse())] {
            let of_kind = |key: &&SeriesKey| key.pair == published && source.is_none_or(|source| key.source == *source);
            let found: Vec<&SeriesKey> = self.keys.iter().filter(of_kind).collect();
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

    /// Both legs of a cross: that of base, and that of quote the other way round.
    fn cross(&self, sources: [Option<&Source>; 2]) -> Result<Legs<Leg<SeriesKey>>, QueryError> {
        let unknown = |missing_legs: Vec<Pair>| QueryError::UnknownSeries {
            pair: self.pair,
            wanted_source: sources.into_iter().flatten().next().filter(|_| sources[0] == sources[1]).cloned(),
            missing_legs,
            there_are: listing(self.keys),
        };
        let Some((base, quote)) = against_usd(self.pair) else { return Err(unknown(Vec::new())) };
        match (self.single(base, sources[0]), self.single(quote, sources[1])) {
            (Ok(Some(first)), Ok(Some(second))) => {
                Ok(Legs::Two(first, Leg { inverted: !second.inverted, series: second.series }))
            }
            // What is not there at all is said before what there is too much of.
            (first @ Ok(None), second) | (first, second @ Ok(None)) => {
                let missing = [(first, base), (second, quote)].into_iter().filter(|(leg, _)| matches!(leg, Ok(None)));
                Err(unknown(missing.map(|(_, pair)| pair).collect()))
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    fn find(&self, named: Named<'_>) -> Result<Legs<Leg<SeriesKey>>, QueryError> {
        let source = match named {
            Named::Any => None,
            Named::All(source) | Named::Only(source) => Some(source),
            Named::Each(first, second) if against_usd(self.pair).is_some() => {
                return self.cross([Some(first), Some(second)]);
            }
            Named::Each(..) => {
                let problem = format!("2 are given; {}, with the dollar in it, has one leg", self.pair);
                return Err(QueryError::invalid("leg_sources", problem));
            }
        };
        if let Some(single) = self.single(self.pair, source)? {
            return Ok(Legs::One(single));
        }
        let cross = self.cross([source; 2]);
        if matches!((named, &cross), (Named::Only(_), Ok(_))) {
            let problem = format!("1 is given; {} is a cross of two legs: name both, or give it as source", self.pair);
            return Err(QueryError::invalid("leg_sources", problem));
        }
        cross
    }
}

pub(super) fn listing(keys: &[SeriesKey]) -> String {
    if keys.is_empty() {
        return "there is none yet".to_owned();
    }
    let shown: Vec<String> = keys.iter().take(LISTED_SERIES_MAX).map(ToString::to_string).collect();
    let more = keys.len().saturating_sub(LISTED_SERIES_MAX);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("there are {}{more}", shown.join(", "))
}

fn unknown_series(pair: Pair, source: Option<&Source>, keys: &[SeriesKey]) -> QueryError {
    let (wanted_source, there_are) = (source.cloned(), listing(keys));
    QueryError::UnknownSeries { pair, wanted_source, missing_legs: Vec::new(), there_are }
}

impl Reader {
    /// The series that were there at the commit seen, of those `wanted`: a read as known earlier must not meet a later one.
    pub(super) fn known_keys(&self, as_of: &AsOf, wanted: impl Fn(&SeriesKey) -> bool) -> Vec<SeriesKey> {
        let is_known = |series: &&Arc<SeriesView>| as_of.newest || series.is_known(as_of.known());
        self.view
            .series()
            .filter(|series| wanted(series.key()))
            .filter(is_known)
            .map(|series| series.key().clone())
            .collect()
    }

    /// What `find` chooses for `pair`. Of other pairs it hears only where it finds nothing, to say what there is.
    fn choose<T>(
        &self,
        as_of: &AsOf,
        pair: Pair,
        find: impl Fn(Choice<'_>) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let concerned = [pair.base(), pair.quote(), Currency::USD];
        let of_these = |key: &SeriesKey| concerned.contains(&key.pair.base()) && concerned.contains(&key.pair.quote());
        let preferences = self.sources.preferences();
        match find(Choice { keys: &self.known_keys(as_of, of_these), pair, preferences }) {
            Err(QueryError::UnknownSeries { .. }) => {
                find(Choice { keys: &self.known_keys(as_of, |_| true), pair, preferences })
            }
            chosen => chosen,
        }
    }

    /// The series that answer for `pair`.
    pub(super) fn resolve(
        &self,
        as_of: &AsOf,
        pair: Pair,
        source: Option<&Source>,
        leg_sources: &[Source],
    ) -> Result<Route, QueryError> {
        let named = Named::new(source, leg_sources)?;
        let legs = self.choose(as_of, pair, |choice| choice.find(named))?;
        legs.try_map(|leg| Ok(Leg { inverted: leg.inverted, series: self.found(&leg.series)? }))
    }

    fn found(&self, key: &SeriesKey) -> Result<Arc<SeriesView>, QueryError> {
        self.view.find(key).map(Arc::clone).ok_or_else(|| unknown_series(key.pair, Some(&key.source), &[]))
    }

    /// The series published for `pair` itself.
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
        self.found(&chosen.series)
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

    /// What is chosen for `wanted` as "KGS/KZT", with sources as "a", or "a,b" for those of legs.
    #[track_caller]
    fn check(wanted: &str, sources: (&str, &[&str]), there: &[&str], expect: &str) {
        check_preferring(&[], wanted, sources, there, expect);
    }

    /// The same, with sources preferred in this order.
    #[track_caller]
    fn check_preferring(preferred: &[&str], wanted: &str, sources: (&str, &[&str]), there: &[&str], expect: &str) {
        let preferences = Preferences::new(preferred.iter().map(|slug| source(slug)).zip(1..)).unwrap();
        let pair = Pair::parse(wanted, &CurrencySet::central_asia()).unwrap();
        let keys = keys(there);
        let one = (!sources.0.is_empty()).then(|| source(sources.0));
        let legs: Vec<Source> = sources.1.iter().map(|slug| source(slug)).collect();
        let found = Named::new(one.as_ref(), &legs)
            .and_then(|named| Choice { keys: &keys, pair, preferences: &preferences }.find(named));
        let said = match found {
            Ok(legs) => {
                let legs_said: Vec<String> =
                    legs.iter().map(|leg| format!("{}{}", if leg.inverted { "1/" } else { "" }, leg.series)).collect();
                format!("{:?} {}", derivation(&legs), legs_said.join(" * "))
            }
            Err(error) => error.to_string(),
        };
        assert!(
            if expect.ends_with("...") { said.starts_with(expect.trim_end_matches("...")) } else { said == expect },
            "{said}"
        );
    }

    #[test]
    fn direct_goes_before_inverse_and_ambiguity_is_judged_within_it() {
        let check = |there: &[&str], expect: &str| check("KGS/USD", ("", &[]), there, expect);
        check(&["KGS/USD a"], "Direct KGS/USD from a");
        check(&["KGS/USD a", "USD/KGS b", "USD/KGS c"], "Direct KGS/USD from a");
        check(&["USD/KGS b"], "Inverse 1/USD/KGS from b");
        check(&["KGS/USD a", "KGS/USD b", "USD/KGS c"], "several sources have KGS/USD: name one of a, b as source");
        check(&["USD/KGS b", "USD/KGS c"], "several sources have KGS/USD: name one of b, c as source");
        check(&[], "there is no series of KGS/USD; there is none yet");
    }

    #[test]
    fn a_cross_comes_last_and_goes_through_the_dollar() {
        let check = |there: &[&str], expect: &str| check("KGS/KZT", ("", &[]), there, expect);
        check(&["KGS/USD a", "KZT/USD b"], "Cross KGS/USD from a * 1/KZT/USD from b");
        check(&["USD/KGS a", "KZT/USD b"], "Cross 1/USD/KGS from a * 1/KZT/USD from b");
        check(&["KGS/USD a", "USD/KZT b"], "Cross KGS/USD from a * USD/KZT from b");
        check(&["USD/KGS a", "USD/KZT b"], "Cross 1/USD/KGS from a * USD/KZT from b");
        // A published pair goes before, either way round, and a currency's own quote before the dollar's.
        check(&["KGS/KZT c", "KGS/USD a", "KZT/USD b"], "Direct KGS/KZT from c");
        check(&["KZT/KGS c", "KGS/USD a", "KZT/USD b"], "Inverse 1/KZT/KGS from c");
        check(&["KGS/USD a", "USD/KGS c", "USD/KGS d", "KZT/USD b"], "Cross KGS/USD from a * 1/KZT/USD from b");
        check(
            &["KGS/USD a", "KZT/USD b", "KZT/USD c"],
            "several sources have KZT/USD, a leg of KGS/KZT: name one of b, c for it in leg_sources, that of KGS first, or one for both as source",
        );
        check(
            &["KGS/USD a", "KGS/USD b"],
            "there is no series of KGS/KZT, nor one of KZT/USD to cross it through; there are KGS/USD from a, KGS/USD from b",
        );
        check(
            &["KGS/USD a"],
            "there is no series of KGS/KZT, nor one of KZT/USD to cross it through; there are KGS/USD from a",
        );
        check(
            &[],
            "there is no series of KGS/KZT, nor one of KGS/USD or KZT/USD to cross it through; there is none yet",
        );
    }

    #[test]
    fn sources_limit_legs_together_or_apart() {
        let there = ["KGS/KZT d", "KGS/USD a", "KGS/USD b", "KZT/USD a", "KZT/USD b", "USD/KGS c"];
        let check = |sources, expect| check("KGS/KZT", sources, &there, expect);
        check(("d", &[]), "Direct KGS/KZT from d");
        check(("a", &[]), "Cross KGS/USD from a * 1/KZT/USD from a");
        // Two sources of legs ask for a cross, though the pair is published.
        check(("", &["a", "b"]), "Cross KGS/USD from a * 1/KZT/USD from b");
        check(("", &["c", "a"]), "Cross 1/USD/KGS from c * 1/KZT/USD from a");
        check(("a", &["a", "a"]), "Cross KGS/USD from a * 1/KZT/USD from a");
        check(("", &["d"]), "Direct KGS/KZT from d");
        check(("", &["a"]), "leg_sources: 1 is given; KGS/KZT is a cross of two legs...");
        check(("a", &["a", "b"]), "leg_sources: 'b' contradicts source 'a'; give one of them");
        check(("a", &["b"]), "leg_sources: 'b' contradicts source 'a'; give one of them");
        check(("", &["a", "b", "c"]), "leg_sources: 3 are given; a cross has two legs");
        check(("c", &[]), "there is no series of KGS/KZT from c, nor one of KZT/USD to cross it through; there are...");
        check(("", &["a", "c"]), "there is no series of KGS/KZT, nor one of KZT/USD to cross it through; there are...");
    }

    #[test]
    fn the_preferred_source_answers_where_several_could() {
        let check = |preferred: &[&str], wanted: &str, expect: &str| {
            let there = ["KGS/USD a", "KGS/USD b", "USD/KGS c", "KZT/USD b", "KZT/USD c", "USD/TJS c", "USD/TJS d"];
            check_preferring(preferred, wanted, ("", &[]), &there, expect);
        };
        check(&["a"], "KGS/USD", "Direct KGS/USD from a");
        check(&["b"], "KGS/USD", "Direct KGS/USD from b");
        check(&["b", "a"], "KGS/USD", "Direct KGS/USD from b");
        check(&["c", "a"], "KGS/USD", "Direct KGS/USD from a");
        // A kind goes before a preference, and one source needs none.
        check(&["c"], "KGS/USD", "several sources have KGS/USD: name one of a, b as source");
        check(&["a"], "USD/KGS", "Direct USD/KGS from c");
        check(&["d", "c"], "TJS/USD", "Inverse 1/USD/TJS from d");
        // Each leg of a cross has its own.
        check(&["b"], "KGS/KZT", "Cross KGS/USD from b * 1/KZT/USD from b");
        check(&["c", "a"], "KGS/KZT", "Cross KGS/USD from a * 1/KZT/USD from c");
        check(&["a"], "KGS/KZT", "several sources have KZT/USD, a leg of KGS/KZT: name one of b, c for it...");
        check(&["z"], "KGS/USD", "several sources have KGS/USD: name one of a, b as source");
    }

    #[test]
    fn a_source_that_is_named_goes_before_a_preferred_one() {
        let there = ["KGS/USD a", "KGS/USD b", "KZT/USD a", "KZT/USD b"];
        let check = |wanted, sources, expect| check_preferring(&["a", "b"], wanted, sources, &there, expect);
        check("KGS/USD", ("b", &[]), "Direct KGS/USD from b");
        check("KGS/USD", ("", &["b"]), "Direct KGS/USD from b");
        check("KGS/KZT", ("b", &[]), "Cross KGS/USD from b * 1/KZT/USD from b");
        check("KGS/KZT", ("", &["b", "a"]), "Cross KGS/USD from b * 1/KZT/USD from a");
        check("KGS/USD", ("c", &[]), "there is no series of KGS/USD from c; there are...");
    }

    #[test]
    fn a_leg_source_is_the_source() {
        let check = |sources, expect| check("KGS/USD", sources, &["KGS/USD a", "KGS/USD b"], expect);
        check(("a", &[]), "Direct KGS/USD from a");
        check(("", &["b"]), "Direct KGS/USD from b");
        check(("a", &["a"]), "Direct KGS/USD from a");
        check(("a", &["b"]), "leg_sources: 'b' contradicts source 'a'; give one of them");
        check(("", &["a", "b"]), "leg_sources: 2 are given; KGS/USD, with the dollar in it, has one leg");
        check(("c", &[]), "there is no series of KGS/USD from c; there are KGS/USD from a, KGS/USD from b");
    }

    #[test]
    fn an_unknown_series_is_told_what_there_is() {
        let there: Vec<String> = (0..15).map(|number| format!("KGS/USD s{number}")).collect();
        let there = keys(&there.iter().map(String::as_str).collect::<Vec<_>>());
        let pair = Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap();
        let error = unknown_series(pair, Some(&source("nbkr")), &there).to_string();
        assert!(error.starts_with("there is no series of KGS/USD from nbkr; there are KGS/USD from s0, "), "{error}");
        assert!(error.ends_with("KGS/USD from s11 and 3 more"), "{error}");
    }
}
