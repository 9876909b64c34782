//! The search for the series that answer for one pair.
//!
//! **Invariant**: a request that names no source gets the same series as by the rule of [`choose`], whether or not the
//! facts of a single candidate are found.

use std::sync::Arc;

use super::{Leg, NamedSources, Route, against_usd, list_available};
use crate::analysis::Legs;
use crate::domain::{Pair, ScanOrder, Source, Timestamp};
use crate::query::as_of::AsOf;
use crate::query::choice::{Facts, choose};
use crate::query::need::{Need, Times};
use crate::query::{QueryError, Reader};
use crate::store::SeriesView;

/// The search for the series of one pair.
pub(super) struct Search<'a> {
    pub(super) reader: &'a Reader,
    pub(super) as_of: &'a AsOf,
    pub(super) pair: Pair,
    pub(super) need: &'a Need,
    /// Whether several candidates are an error.
    pub(super) is_strict: bool,
}

pub(super) type SeriesLeg = Leg<Arc<SeriesView>>;

impl Search<'_> {
    /// The series of a published pair that exist at the commit, sorted by source.
    pub(super) fn series<'s>(
        &'s self,
        pair: Pair,
        source: Option<&'s Source>,
    ) -> impl Iterator<Item = Arc<SeriesView>> + 's {
        let mut series = self.reader.view.series_of(pair);
        if let Some(source) = source {
            let from = |series: &'s [Arc<SeriesView>]| series.partition_point(|series| series.key().source < *source);
            let of_source = series.get(from(series)..).unwrap_or_default();
            series = of_source.get(..1).filter(|found| found[0].key().source == *source).unwrap_or_default();
        }
        let is_known = move |series: &&Arc<SeriesView>| self.as_of.newest || series.is_known(self.as_of.known());
        series.iter().filter(is_known).map(Arc::clone)
    }

    fn times(&self, leg: &SeriesLeg) -> Times {
        self.need.times(self.reader.sources.of(&leg.series.key().source).zone.value)
    }

    /// Returns the facts about a leg at the time of the choice, or `None` if no rate is in force then.
    pub(super) fn facts(&self, leg: &SeriesLeg) -> Result<Option<Facts>, QueryError> {
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
    ///
    /// Unless `wants_facts` is set, the facts of a single candidate are not read: it is picked whatever they are.
    pub(super) fn pick<T>(
        &self,
        mut candidates: Vec<T>,
        wants_facts: bool,
        facts: impl Fn(&T) -> Result<Option<Facts>, QueryError>,
    ) -> Result<Option<(T, Option<Facts>)>, QueryError>
    where
        T: Legged,
    {
        if candidates.len() == 1 && !wants_facts {
            return Ok(candidates.pop().map(|only| (only, None)));
        }
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

    /// Returns the leg that answers for `wanted` without a cross, and its facts if `wants_facts` is set.
    pub(super) fn single(
        &self,
        wanted: Pair,
        source: Option<&Source>,
        wants_facts: bool,
    ) -> Result<Option<(SeriesLeg, Option<Facts>)>, QueryError> {
        let direct = self.series(wanted, source).map(|series| Leg { inverted: false, series });
        let inverse = self.series(wanted.inverse(), source).map(|series| Leg { inverted: true, series });
        self.pick(direct.chain(inverse).collect(), wants_facts, |leg| self.facts(leg))
    }

    /// Returns the cross through USD, and its facts if `wants_facts` is set, or the pairs of the missing legs.
    #[expect(clippy::type_complexity, reason = "a route with its facts, or what is missing")]
    fn cross(
        &self,
        sources: [Option<&Source>; 2],
        wants_facts: bool,
    ) -> Result<Result<(Route, Option<Facts>), Vec<Pair>>, QueryError> {
        let Some((base, quote)) = against_usd(self.pair) else { return Ok(Err(Vec::new())) };
        let legs = match (self.single(base, sources[0], wants_facts), self.single(quote, sources[1], wants_facts)) {
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
                let facts = if times[0] == times[1] || !wants_facts {
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

    pub(super) fn find(&self, named: NamedSources<'_>) -> Result<Route, QueryError> {
        let source = match named {
            NamedSources::Any => None,
            NamedSources::All(source) | NamedSources::Only(source) => Some(source),
            NamedSources::Each(first, second) if against_usd(self.pair).is_some() => {
                let same = Some(first).filter(|_| first == second);
                let cross = self.cross([Some(first), Some(second)], false)?;
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
        let cross = self.cross([source; 2], !candidates.is_empty())?;
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
        let picked = self.pick(candidates, false, |route| match route {
            Legs::One(leg) => self.facts(leg),
            Legs::Two(..) => Ok(cross_facts.clone()),
        })?;
        picked.map(|(route, _)| route).ok_or_else(|| self.unknown(source, Vec::new()))
    }
}

/// A candidate of one or two legs.
pub(super) trait Legged {
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
