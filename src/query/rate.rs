//! The rate in force at a moment, and the change between two.

use std::sync::Arc;

use super::as_of::AsOf;
use super::resolve::{Derivation, Leg, Route, derivation};
use super::window::window_start;
use super::{Answer, ChangeStart, QueryError, Reader};
use crate::analysis::{Derived, LegRate, Legs, PercentChange};
use crate::domain::{Pair, Run, SeriesKey, Source, Timestamp};
use crate::latest_quotes::RateState;
use crate::store::SeriesView;

/// Asks for the rate in force at a moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RateRequest {
    /// In which direction.
    pub pair: Pair,
    /// From whom; none where a single source has the pair, or one is preferred.
    pub source: Option<Source>,
    /// From whom each leg is, in order, where they are to differ.
    pub leg_sources: Vec<Source>,
    /// As of; now if none.
    pub time: Option<Timestamp>,
    /// Longest time since the last observation, microseconds, inclusive.
    pub max_age_us: Option<i64>,
    /// As known at.
    pub known_time: Option<Timestamp>,
}

/// The rate in force at a moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RateAnswer {
    /// What it says and what the true rate lies between.
    pub rate: Derived,
    /// How it came about.
    pub derivation: Derivation,
    /// The published runs behind it.
    pub legs: Vec<(SeriesKey, Run)>,
    /// From the last observation to the moment, microseconds; zero inside the run. Of a cross, that of the older leg.
    pub age_us: i64,
    /// How much older that leg is than the other one, microseconds.
    pub leg_age_difference_us: i64,
    /// What the series is doing; none unless read as of now and as known at the newest commit.
    pub state: Option<RateState>,
    /// The moment.
    pub time: Timestamp,
}

/// Asks for the change between two moments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeRequest {
    /// In which direction.
    pub pair: Pair,
    /// From whom; none where a single source has the pair, or one is preferred.
    pub source: Option<Source>,
    /// From whom each leg is, in order, where they are to differ.
    pub leg_sources: Vec<Source>,
    /// Where it begins.
    pub start: ChangeStart,
    /// Where it ends; now if none.
    pub end_time: Option<Timestamp>,
    /// As known at.
    pub known_time: Option<Timestamp>,
}

/// The change between two moments; an end that comes before the first quote is absent, and the change with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The rate in force at its start.
    pub start: Option<RateAnswer>,
    /// The rate in force at its end.
    pub end: Option<RateAnswer>,
    /// In percent, if both ends are there.
    pub percent: Option<PercentChange>,
}

/// How long before `time` the run was last confirmed; zero inside it.
fn age_us(run: &Run, time: Timestamp) -> i64 {
    time.micros_since(run.last_observed_time).max(0)
}

/// The state of what comes from series in these states.
fn state_of_all(legs: &[RateState]) -> RateState {
    if legs.contains(&RateState::Stale) {
        RateState::Stale
    } else if legs.contains(&RateState::Moving) {
        RateState::Moving
    } else if legs.iter().all(|state| *state == RateState::Pegged) {
        RateState::Pegged
    } else {
        RateState::Flat
    }
}

/// The run of a leg in force at `time`.
fn run_at(as_of: &AsOf, leg: &Leg<Arc<SeriesView>>, time: Timestamp) -> Result<Run, QueryError> {
    if let Some(run) = leg.series.run_at(time, as_of.known())? {
        return Ok(run);
    }
    let first = leg.series.first_observed_time(as_of.known())?;
    Err(QueryError::NoQuoteYet { series: leg.series.key().clone(), time, first })
}

impl Change {
    /// From `start` to `end`.
    pub(super) fn between(start: Option<RateAnswer>, end: Option<RateAnswer>) -> Self {
        let percent = match (&start, &end) {
            (Some(start), Some(end)) => Some(PercentChange::between(&start.rate, &end.rate)),
            _ => None,
        };
        Self { start, end, percent }
    }
}

impl Reader {
    /// The rate in force at a moment.
    ///
    /// # Errors
    /// No such series, no quote yet, one older than `max_age_us`, fields that contradict each other, or the store's.
    pub fn rate(&self, request: &RateRequest) -> Result<Answer<RateAnswer>, QueryError> {
        let as_of = self.as_of(request.known_time)?;
        if request.max_age_us.is_some() && !as_of.newest {
            return Err(QueryError::invalid(
                "max_age",
                "cannot be asked for together with an earlier known_time; leave one of them out",
            ));
        }
        let route = self.resolve(&as_of, request.pair, request.source.as_ref(), &request.leg_sources)?;
        let time = request.time.unwrap_or(as_of.now);
        let answer = self.rate_at(&as_of, &route, time)?;
        if let Some(max_age_us) = request.max_age_us {
            for (series, run) in &answer.legs {
                let (series, age_us) = (series.clone(), age_us(run, time));
                if age_us > max_age_us {
                    return Err(QueryError::Stale { series, time, age_us, max_age_us });
                }
            }
        }
        Ok(Answer { commit: as_of.commit, body: answer })
    }

    /// The change between two moments.
    ///
    /// # Errors
    /// As [`Reader::rate`], but for a quote that is not there yet.
    pub fn change(&self, request: &ChangeRequest) -> Result<Answer<Change>, QueryError> {
        let as_of = self.as_of(request.known_time)?;
        let (start_time, end_time) = ends(request, as_of.now)?;
        let route = self.resolve(&as_of, request.pair, request.source.as_ref(), &request.leg_sources)?;
        let start = self.rate_if_quoted(&as_of, &route, start_time)?;
        let end = self.rate_if_quoted(&as_of, &route, end_time)?;
        Ok(Answer { commit: as_of.commit, body: Change::between(start, end) })
    }

    /// The rate in force at `time`, if there was one.
    pub(super) fn rate_if_quoted(
        &self,
        as_of: &AsOf,
        route: &Route,
        time: Timestamp,
    ) -> Result<Option<RateAnswer>, QueryError> {
        match self.rate_at(as_of, route, time) {
            Ok(answer) => Ok(Some(answer)),
            Err(QueryError::NoQuoteYet { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn rate_at(&self, as_of: &AsOf, route: &Route, time: Timestamp) -> Result<RateAnswer, QueryError> {
        let runs = route.try_map(|leg| run_at(as_of, leg, time).map(|run| (leg, run)))?;
        let state = if as_of.newest && time == as_of.now { self.state_of_legs(as_of, &runs)? } else { None };
        let ages = || runs.iter().map(|(_, run)| age_us(run, time));
        let (oldest, youngest) = (ages().max().unwrap_or_default(), ages().min().unwrap_or_default());
        Ok(RateAnswer {
            rate: runs.map(|(leg, run)| LegRate { rate: run.value.rate, inverted: leg.inverted }).derived(),
            derivation: derivation(route),
            age_us: oldest,
            leg_age_difference_us: oldest - youngest,
            legs: runs.iter().map(|(leg, run)| (leg.series.key().clone(), run.clone())).collect(),
            state,
            time,
        })
    }

    fn state_of_legs(
        &self,
        as_of: &AsOf,
        runs: &Legs<(&Leg<Arc<SeriesView>>, Run)>,
    ) -> Result<Option<RateState>, QueryError> {
        let mut states = Vec::new();
        for (leg, run) in runs.iter() {
            let Some(state) = self.state(&leg.series, run, as_of)? else { return Ok(None) };
            states.push(state);
        }
        Ok(Some(state_of_all(&states)))
    }

    /// The state of a series whose rate in force now is that of `run`.
    pub(super) fn state(
        &self,
        series: &Arc<SeriesView>,
        run: &Run,
        as_of: &AsOf,
    ) -> Result<Option<RateState>, QueryError> {
        let Some((since, before)) = series.rate_since(as_of.now, as_of.known())? else { return Ok(None) };
        let moved = before.map(|_| since);
        Ok(Some(self.rules.state(series.key(), run, moved, since, as_of.now)))
    }
}

/// Both moments of a change, it being `now`.
fn ends(request: &ChangeRequest, now: Timestamp) -> Result<(Timestamp, Timestamp), QueryError> {
    let end = request.end_time.unwrap_or(now);
    let start = match request.start {
        ChangeStart::Time(start) => start,
        ChangeStart::Before(window) => window_start(window, end)?,
    };
    if end < start {
        return Err(QueryError::invalid("end_time", format!("{end} is before start_time {start}; swap them")));
    }
    Ok((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CurrencySet, PublishedValue, Rate, Span, SpanUnit};

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn a_run_is_fresh_inside_and_ages_after() {
        let value = PublishedValue { rate: Rate::parse("5").unwrap(), reported_change: None };
        let run = Run { last_observed_time: at(20), ..Run::single(at(10), value, at(99)) };
        let check = |time: i64, expect: i64| assert_eq!(age_us(&run, at(time)), expect);
        check(10, 0);
        check(20, 0);
        check(21, 1);
        check(1_020, 1_000);
    }

    #[test]
    fn a_derived_rate_is_in_the_state_of_its_legs() {
        use RateState::{Flat, Moving, Pegged, Stale};
        let check = |legs: &[RateState], expect: RateState| {
            assert_eq!(state_of_all(legs), expect, "{legs:?}");
            assert_eq!(state_of_all(&legs.iter().rev().copied().collect::<Vec<_>>()), expect);
        };
        for state in [Stale, Moving, Pegged, Flat] {
            check(&[state], state);
            check(&[state, state], state);
            check(&[state, Stale], Stale);
        }
        check(&[Moving, Pegged], Moving);
        check(&[Moving, Flat], Moving);
        check(&[Pegged, Flat], Flat);
    }

    #[test]
    fn the_ends_of_a_change() {
        let hour = |count| ChangeStart::Before(Span::new(count, SpanUnit::Hour));
        let check = |start: ChangeStart, end: Option<i64>, expect: Option<(i64, i64)>| {
            let request = ChangeRequest {
                pair: Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap(),
                source: None,
                leg_sources: Vec::new(),
                start,
                end_time: end.map(at),
                known_time: None,
            };
            let found = ends(&request, at(Timestamp::DAY_US)).ok();
            assert_eq!(found.map(|(start, end)| (start.micros(), end.micros())), expect);
        };
        let (hour_us, day_us) = (Timestamp::HOUR_US, Timestamp::DAY_US);
        check(ChangeStart::Time(at(5)), Some(7), Some((5, 7)));
        check(ChangeStart::Time(at(5)), Some(5), Some((5, 5)));
        check(ChangeStart::Time(at(5)), Some(4), None);
        check(ChangeStart::Time(at(5)), None, Some((5, day_us)));
        check(hour(1), None, Some((day_us - hour_us, day_us)));
        check(hour(2), Some(hour_us), Some((-hour_us, hour_us)));
        check(hour(0), None, None);
    }
}
