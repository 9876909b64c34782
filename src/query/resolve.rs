//! Selection of the stored series that answer for a pair.
//!
//! Candidates are the direct series of each source, the inverse of each, and one cross through USD. Each leg of the cross is
//! chosen by the same rule among the series of its currency against USD, and of USD against its currency. One request makes one
//! choice: both ends of a change and all rows of a list come from it.
//!
//! **Invariant**: a pair and its inverse come from the same series.

use std::sync::Arc;

use super::as_of::AsOf;
use super::choice::{Facts, choose};
use super::need::{Need, Times};
use super::{QueryError, Reader};
use crate::analysis::{Legs, Zone};
use crate::domain::{Currency, Pair, ScanOrder, SeriesKey, Source, Timestamp};
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

/// A published series that answers a request for a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnsweringLeg {
    /// The series.
    pub series: SeriesKey,
    /// Whether its rate was stale at the end of the requested range, or now if that is earlier.
    pub is_stale: bool,
    /// Whether its source is archived, as known at the commit that was read.
    pub is_archived: bool,
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

    /// Returns the series that answer for `pair`: those of the sources that the request names, else those that the rule
    /// of [`choose`] picks at the time of `need`.
    ///
    /// # Errors
    /// `UnknownSeries` if no series and no cross has the pair; `Ambiguous` if the sources are strict and several
    /// candidates exist; `InvalidArgument` if `leg_sources` does not fit `source` or the number of legs; `Store` if
    /// reading fails.
    pub(super) fn resolve(
        &self,
        as_of: &AsOf,
        pair: Pair,
        source: Option<&Source>,
        leg_sources: &[Source],
        need: &Need,
    ) -> Result<Route, QueryError> {
        let named = NamedSources::new(source, leg_sources)?;
        let is_strict = self.is_strict && named == NamedSources::Any;
        Search { reader: self, as_of, pair, need, is_strict }.find(named)
    }

    /// Returns the published series that the rule picks for `pair` or its inverse, without crosses. Several candidates are
    /// no error, even if the sources are strict.
    ///
    /// # Errors
    /// `Store` if reading fails.
    pub fn published_choice(&self, pair: Pair) -> Result<Option<SeriesKey>, QueryError> {
        let as_of = self.as_of(None)?;
        let need = Need::at(as_of.now);
        let search = Search { reader: self, as_of: &as_of, pair, need: &need, is_strict: false };
        Ok(search.single(pair, None)?.map(|(leg, _)| leg.series.key().clone()))
    }

    /// Returns the instants of `need` for the series that were chosen.
    pub(super) fn times(&self, route: &Route, need: &Need) -> Times {
        let mut times = route.iter().map(|leg| need.times(self.zone_of(leg)));
        let first = times.next().unwrap_or(Times { start: None, end: need.now() });
        times.fold(first, Times::earlier)
    }

    /// Returns the time zone of the days of an answer: `requested`, or else the zone of the source. For a cross, the zone
    /// of the leg whose day ends first.
    pub(super) fn zone(&self, route: &Route, requested: Option<Zone>, now: Timestamp) -> Zone {
        let day_end = |zone: &Zone| zone.day_end(Zone::UTC.local(now).date());
        requested.or_else(|| route.iter().map(|leg| self.zone_of(leg)).min_by_key(day_end)).unwrap_or(Zone::UTC)
    }

    /// Returns true if the source is archived, as known at the commit of `as_of`.
    pub(super) fn is_archived(&self, as_of: &AsOf, source: &Source) -> bool {
        self.view.archived().is_archived(source, as_of.known())
    }

    /// Describes the series that answer for a range.
    ///
    /// # Errors
    /// `Store` if reading fails.
    pub(super) fn answering_legs(
        &self,
        as_of: &AsOf,
        route: &Route,
        need: &Need,
    ) -> Result<Vec<AnsweringLeg>, QueryError> {
        let time = self.times(route, need).end;
        route.iter().map(|leg| self.answering_leg(as_of, &leg.series, time)).collect()
    }

    /// Describes a series that answers, at the time of the choice.
    ///
    /// # Errors
    /// `Store` if reading fails.
    pub(super) fn answering_leg(
        &self,
        as_of: &AsOf,
        series: &SeriesView,
        time: Timestamp,
    ) -> Result<AnsweringLeg, QueryError> {
        let run = series.run_at(time, as_of.known())?;
        let key = series.key();
        Ok(AnsweringLeg {
            is_stale: run.is_some_and(|run| time >= self.rules.stale_time(key, &run)),
            is_archived: self.is_archived(as_of, &key.source),
            series: key.clone(),
        })
    }

    fn zone_of(&self, leg: &SeriesLeg) -> Zone {
        self.zone_of_source(&leg.series.key().source, None)
    }

    /// Returns the series published for `pair` itself that answers.
    ///
    /// # Errors
    /// `UnknownSeries` if no series has the pair or its inverse; `OnlyInverse` if only the inverse is published;
    /// `Ambiguous` if the sources are strict and several have the pair; `Store` if reading fails.
    pub(super) fn resolve_published(
        &self,
        as_of: &AsOf,
        pair: Pair,
        source: Option<&Source>,
        need: &Need,
    ) -> Result<Arc<SeriesView>, QueryError> {
        let search = Search { reader: self, as_of, pair, need, is_strict: self.is_strict && source.is_none() };
        let direct = search.series(pair, source).map(|series| Leg { inverted: false, series }).collect();
        if let Some((leg, _)) = search.pick(direct, |leg| search.facts(leg))? {
            return Ok(leg.series);
        }
        if let Some(inverse) = search.series(pair.inverse(), source).next() {
            return Err(QueryError::OnlyInverse { pair, published: inverse.key().clone() });
        }
        Err(unknown_series(pair, source, &self.known_keys(as_of, |_| true)))
    }
}

/// The search for the series of one pair.
struct Search<'a> {
    reader: &'a Reader,
    as_of: &'a AsOf,
    pair: Pair,
    need: &'a Need,
    /// Whether several candidates are an error.
    is_strict: bool,
}

type SeriesLeg = Leg<Arc<SeriesView>>;

impl Search<'_> {
    /// The series of a published pair that exist at the commit, sorted by source.
    fn series<'s>(&'s self, pair: Pair, source: Option<&'s Source>) -> impl Iterator<Item = Arc<SeriesView>> + 's {
        let wanted = move |series: &&Arc<SeriesView>| {
            let key = series.key();
            key.pair == pair && source.is_none_or(|source| key.source == *source)
        };
        let is_known = move |series: &&Arc<SeriesView>| self.as_of.newest || series.is_known(self.as_of.known());
        self.reader.view.series().filter(wanted).filter(is_known).map(Arc::clone)
    }

    fn times(&self, leg: &SeriesLeg) -> Times {
        self.need.times(self.reader.sources.of(&leg.series.key().source).zone.value)
    }

    /// Returns the facts about a leg at the time of the choice, or `None` if no rate is in force then.
    fn facts(&self, leg: &SeriesLeg) -> Result<Option<Facts>, QueryError> {
        self.facts_at(leg, self.times(leg))
    }

    fn facts_at(&self, leg: &SeriesLeg, Times { start, end }: Times) -> Result<Option<Facts>, QueryError> {
        let (series, known) = (&leg.series, self.as_of.known());
        let Some(run) = series.run_at(end, known)? else { return Ok(None) };
        let source = &series.key().source;
        // An observation after the requested time does not count.
        let observed_time = run.last_observed_time.min(end);
        let begins_before = |time: Timestamp| -> Result<bool, QueryError> {
            let first = || series.first_observed_time(known);
            Ok(run.first_observed_time <= time || first()?.is_some_and(|first| first <= time))
        };
        let is_observed_inside = |start: Timestamp| -> Result<bool, QueryError> {
            if run.first_observed_time >= start || run.last_observed_time <= end {
                return Ok(observed_time >= start);
            }
            match series.instants(start, end.saturating_add_us(1), ScanOrder::Ascending).next() {
                Some(piece) => Ok(!piece?.is_empty()),
                None => Ok(false),
            }
        };
        Ok(Some(Facts {
            is_archived: self.reader.is_archived(self.as_of, source),
            observed_time,
            is_within_max_age: self.need.max_age_us().is_none_or(|max| end.micros_since(observed_time) <= max),
            is_stale: end >= self.reader.rules.stale_time(series.key(), &run),
            has_start: start.map_or(Ok(true), begins_before)?,
            is_observed_inside: match start
                .filter(|start| self.need.is_change() && end.micros_since(*start) < Timestamp::DAY_US)
            {
                Some(start) => is_observed_inside(start)?,
                None => true,
            },
            preference: self.reader.sources.preferences().rank(source).unwrap_or(u32::MAX),
            is_configured: self.reader.sources.is_configured(source),
            significant_digits: run.value.rate.significant_digits(),
            stale_limit_us: self.reader.rules.stale_limit_us(series.key()),
            leg_count: 1,
            sources: vec![source.to_string()],
            is_inverse: leg.inverted,
        }))
    }

    /// Picks one of `candidates` by the rule of [`choose`]. If none has a rate in force at the time of the choice, picks
    /// the one with the earliest first observation: its error or its empty list tells when the first rate is.
    fn pick<T>(
        &self,
        candidates: Vec<T>,
        facts: impl Fn(&T) -> Result<Option<Facts>, QueryError>,
    ) -> Result<Option<(T, Option<Facts>)>, QueryError>
    where
        T: Legged,
    {
        let mut with_rate = Vec::new();
        let mut without_rate = Vec::new();
        for candidate in candidates {
            match facts(&candidate)? {
                Some(facts) => with_rate.push((candidate, facts)),
                None => without_rate.push(candidate),
            }
        }
        let all_facts: Vec<Facts> = with_rate.iter().map(|(_, facts)| facts.clone()).collect();
        if let Some(at) = choose(&all_facts) {
            // Archived sources are candidates only if all are archived.
            let is_archived = all_facts[at].is_archived;
            let equals = with_rate.iter().filter(|(_, facts)| facts.is_archived == is_archived);
            let candidates: Vec<String> = equals.map(|(candidate, _)| candidate.describe()).collect();
            if self.is_strict && candidates.len() > 1 {
                return Err(QueryError::Ambiguous { pair: self.pair, candidates: candidates.join(", ") });
            }
            let (candidate, facts) = with_rate.swap_remove(at);
            return Ok(Some((candidate, Some(facts))));
        }
        let mut earliest: Option<(Timestamp, T)> = None;
        for candidate in without_rate {
            let first = candidate.first_observed_time(self.as_of.known())?.unwrap_or(Timestamp::MAX);
            if earliest.as_ref().is_none_or(|(time, _)| first < *time) {
                earliest = Some((first, candidate));
            }
        }
        Ok(earliest.map(|(_, candidate)| (candidate, None)))
    }

    /// Returns the leg that answers for `wanted` without a cross.
    fn single(&self, wanted: Pair, source: Option<&Source>) -> Result<Option<(SeriesLeg, Option<Facts>)>, QueryError> {
        let direct = self.series(wanted, source).map(|series| Leg { inverted: false, series });
        let inverse = self.series(wanted.inverse(), source).map(|series| Leg { inverted: true, series });
        self.pick(direct.chain(inverse).collect(), |leg| self.facts(leg))
    }

    /// Returns the cross through USD and its facts, or the pairs of the missing legs.
    #[expect(clippy::type_complexity, reason = "a route with its facts, or what is missing")]
    fn cross(&self, sources: [Option<&Source>; 2]) -> Result<Result<(Route, Option<Facts>), Vec<Pair>>, QueryError> {
        let Some((base, quote)) = against_usd(self.pair) else { return Ok(Err(Vec::new())) };
        let legs = match (self.single(base, sources[0]), self.single(quote, sources[1])) {
            // The error lists the candidates of both legs, so that the caller can name both sources at once.
            (
                Err(QueryError::Ambiguous { pair, candidates }),
                Err(QueryError::Ambiguous { candidates: of_second, .. }),
            ) => return Err(QueryError::Ambiguous { pair, candidates: format!("{candidates}; {of_second}") }),
            (first, second) => (first?, second?),
        };
        match legs {
            (Some((first, first_facts)), Some((second, second_facts))) => {
                let times = [&first, &second].map(|leg| self.times(leg));
                let facts = if times[0] == times[1] {
                    first_facts.zip(second_facts)
                } else {
                    let times = times[0].earlier(times[1]);
                    self.facts_at(&first, times)?.zip(self.facts_at(&second, times)?)
                };
                let facts = facts.map(|(first, second)| Facts::cross(&first, &second));
                let second = Leg { inverted: !second.inverted, series: second.series };
                Ok(Ok((Legs::Two(first, second), facts)))
            }
            (first, second) => {
                let missing = [(first.is_none(), base), (second.is_none(), quote)].into_iter();
                Ok(Err(missing.filter(|(is_missing, _)| *is_missing).map(|(_, pair)| pair).collect()))
            }
        }
    }

    fn unknown(&self, source: Option<&Source>, missing_legs: Vec<Pair>) -> QueryError {
        QueryError::UnknownSeries {
            pair: self.pair,
            wanted_source: source.cloned(),
            missing_legs,
            available: list_available(&self.reader.known_keys(self.as_of, |_| true)),
        }
    }

    fn find(&self, named: NamedSources<'_>) -> Result<Route, QueryError> {
        let source = match named {
            NamedSources::Any => None,
            NamedSources::All(source) | NamedSources::Only(source) => Some(source),
            NamedSources::Each(first, second) if against_usd(self.pair).is_some() => {
                let same = Some(first).filter(|_| first == second);
                let cross = self.cross([Some(first), Some(second)])?;
                return cross.map(|(route, _)| route).map_err(|missing| self.unknown(same, missing));
            }
            NamedSources::Each(..) => {
                let problem = format!("2 sources are given; {} contains USD and has one leg", self.pair);
                return Err(QueryError::invalid("leg_sources", problem));
            }
        };
        let direct = self.series(self.pair, source).map(|series| Leg { inverted: false, series });
        let inverse = self.series(self.pair.inverse(), source).map(|series| Leg { inverted: true, series });
        let mut candidates: Vec<Route> = direct.chain(inverse).map(Legs::One).collect();
        let cross = self.cross([source; 2])?;
        let mut cross_facts = None;
        match cross {
            Ok((route, facts)) => {
                if candidates.is_empty() && matches!(named, NamedSources::Only(_)) {
                    let problem = format!(
                        "1 source is given; {} is a cross of two legs: name two leg_sources, or name one source for \
                         both legs as source",
                        self.pair
                    );
                    return Err(QueryError::invalid("leg_sources", problem));
                }
                if !matches!(named, NamedSources::Only(_)) {
                    candidates.push(route);
                    cross_facts = facts;
                }
            }
            Err(missing) if candidates.is_empty() => return Err(self.unknown(source, missing)),
            Err(_) => {}
        }
        let picked = self.pick(candidates, |route| match route {
            Legs::One(leg) => self.facts(leg),
            Legs::Two(..) => Ok(cross_facts.clone()),
        })?;
        picked.map(|(route, _)| route).ok_or_else(|| self.unknown(source, Vec::new()))
    }
}

/// A candidate of one or two legs.
trait Legged {
    /// When every leg has its first rate, as known at `known`.
    fn first_observed_time(&self, known: Timestamp) -> Result<Option<Timestamp>, QueryError>;

    /// Describes the candidate for an error message: `KGS/USD from nbkr`.
    fn describe(&self) -> String;
}

impl Legged for SeriesLeg {
    fn first_observed_time(&self, known: Timestamp) -> Result<Option<Timestamp>, QueryError> {
        Ok(self.series.first_observed_time(known)?)
    }

    fn describe(&self) -> String {
        self.series.key().to_string()
    }
}

impl Legged for Route {
    fn first_observed_time(&self, known: Timestamp) -> Result<Option<Timestamp>, QueryError> {
        let mut latest = None;
        for leg in self.iter() {
            let Some(first) = Legged::first_observed_time(leg, known)? else { return Ok(None) };
            latest = latest.max(Some(first));
        }
        Ok(latest)
    }

    fn describe(&self) -> String {
        self.iter().map(Legged::describe).collect::<Vec<_>>().join(" with ")
    }
}

#[cfg(test)]
mod tests;
