//! The rate in force at a time, and the change between two times.

use std::sync::Arc;

use chrono::NaiveDate;

use super::as_of::AsOf;
use super::need::{Need, Times};
use super::resolve::{Derivation, Leg, Route, derivation};
use super::window::window_start;
use super::{Answer, ChangeStart, Moment, QueryError, Reader};
use crate::analysis::{Derived, LegRate, Legs, PercentChange, Zone};
use crate::domain::{Pair, Run, SeriesKey, Source, Timestamp};
use crate::latest_quotes::RateState;
use crate::store::SeriesView;

/// A request for the rate in force at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RateRequest {
    /// The pair, in the requested direction.
    pub pair: Pair,
    /// The source of every leg. `None` means the source that the choice rule selects.
    pub source: Option<Source>,
    /// The source of each leg, in order of the legs. Empty means `source` for every leg.
    pub leg_sources: Vec<Source>,
    /// The time of the rate: an instant, or a day whose rate is the one in force at its end. `None` means now.
    pub time: Option<Moment>,
    /// The time zone of a day. `None` means the zone of the source.
    pub zone: Option<Zone>,
    /// The maximum time since the last observation, microseconds, inclusive.
    pub max_age_us: Option<i64>,
    /// Read the data as known at this time. `None` means the newest commit.
    pub known_time: Option<Timestamp>,
}

/// The rate in force at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RateAnswer {
    /// The rate and its bounds.
    pub rate: Derived,
    /// How the rate is derived from published rates.
    pub derivation: Derivation,
    /// The published runs that the rate is derived from, one for each leg.
    pub legs: Vec<(SeriesKey, Run)>,
    /// Microseconds from the last observation to `time`; zero inside the run. For a cross, the age of the older leg.
    pub age_us: i64,
    /// How much older the older leg of a cross is than the other leg, microseconds. Zero for one leg.
    pub leg_age_difference_us: i64,
    /// The state of the rate. `None` unless the rate is read as of now and from the newest commit.
    pub state: Option<RateState>,
    /// Whether a leg was stale at `time`.
    pub is_stale: bool,
    /// Whether the source of a leg is archived.
    pub is_archived: bool,
    /// The time of the rate.
    pub time: Timestamp,
    /// The requested day and its time zone, if the request is for a day.
    pub day: Option<(NaiveDate, Zone)>,
}

/// A request for the change between two times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeRequest {
    /// The pair, in the requested direction.
    pub pair: Pair,
    /// The source of every leg. `None` means the source that the choice rule selects.
    pub source: Option<Source>,
    /// The source of each leg, in order of the legs. Empty means `source` for every leg.
    pub leg_sources: Vec<Source>,
    /// The start of the change.
    pub start: ChangeStart,
    /// The end of the change: an instant, or the first instant of a day. `None` means now.
    pub end_time: Option<Moment>,
    /// The time zone of days. `None` means the zone of the source.
    pub zone: Option<Zone>,
    /// Read the data as known at this time. `None` means the newest commit.
    pub known_time: Option<Timestamp>,
}

/// The change between two times.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The rate in force at the start; `None` before the first quote.
    pub start: Option<RateAnswer>,
    /// The rate in force at the end; `None` before the first quote.
    pub end: Option<RateAnswer>,
    /// The change in percent; `None` if one of the rates is missing.
    pub percent: Option<PercentChange>,
}

/// Returns the microseconds from the last observation of `run` to `time`; zero inside the run.
fn age_us(run: &Run, time: Timestamp) -> i64 {
    time.micros_since(run.last_observed_time).max(0)
}

/// Returns the state of a rate that is derived from legs in these states.
fn derived_state(legs: &[RateState]) -> RateState {
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

/// Returns the run of `leg` in force at `time`.
///
/// # Errors
/// `NoQuoteYet` if `time` is before the first quote; `Store` if reading the store fails.
fn run_at(as_of: &AsOf, leg: &Leg<Arc<SeriesView>>, time: Timestamp) -> Result<Run, QueryError> {
    if let Some(run) = leg.series.run_at(time, as_of.known())? {
        return Ok(run);
    }
    let first = leg.series.first_observed_time(as_of.known())?;
    Err(QueryError::NoQuoteYet { series: leg.series.key().clone(), time, first })
}

impl Change {
    /// Computes the change from `start` to `end`.
    pub(super) fn between(start: Option<RateAnswer>, end: Option<RateAnswer>) -> Self {
        let percent = match (&start, &end) {
            (Some(start), Some(end)) => Some(PercentChange::between(&start.rate, &end.rate)),
            _ => None,
        };
        Self { start, end, percent }
    }
}

impl Reader {
    /// Returns the rate in force at a time.
    ///
    /// # Errors
    /// `UnknownSeries` or `Ambiguous` if no series can be chosen; `NoQuoteYet` if the time is before the first quote of
    /// a leg; `NothingKnownYet` if `known_time` is before the first commit; `Stale` if a leg is older than
    /// `max_age_us`; `InvalidArgument` if fields contradict each other; `Store` if reading the store fails.
    pub fn rate(&self, request: &RateRequest) -> Result<Answer<RateAnswer>, QueryError> {
        let as_of = self.as_of(request.known_time)?;
        if request.max_age_us.is_some() && !as_of.newest {
            return Err(QueryError::invalid(
                "max_age",
                "cannot be combined with an earlier known_time; leave one of them out",
            ));
        }
        let need = Need::rate(request.time, request.zone, as_of.now).with_max_age(request.max_age_us);
        let route = self.resolve(&as_of, request.pair, request.source.as_ref(), &request.leg_sources, &need)?;
        let time = self.times(&route, &need).end;
        let mut answer = self.rate_at(&as_of, &route, time)?;
        if let Some(Moment::Day(date)) = request.time {
            answer.day = Some((date, self.zone(&route, request.zone, time)));
        }
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

    /// Returns the change between two times.
    ///
    /// # Errors
    /// The errors of [`Reader::rate`] except `NoQuoteYet` and `Stale`; `InvalidArgument` also if the end is before the
    /// start.
    pub fn change(&self, request: &ChangeRequest) -> Result<Answer<Change>, QueryError> {
        let as_of = self.as_of(request.known_time)?;
        if let ChangeStart::Before(window) = request.start {
            window_start(window, as_of.now)?;
        }
        let need = Need::change(request.start, request.end_time, request.zone, as_of.now);
        let route = self.resolve(&as_of, request.pair, request.source.as_ref(), &request.leg_sources, &need)?;
        let (start_time, end_time) = start_and_end(self.times(&route, &need))?;
        let start = self.rate_if_quoted(&as_of, &route, start_time)?;
        let end = self.rate_if_quoted(&as_of, &route, end_time)?;
        Ok(Answer { commit: as_of.commit, body: Change::between(start, end) })
    }

    /// Returns the rate in force at `time`, or `None` before the first quote.
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
            is_stale: runs.iter().any(|(leg, run)| time >= self.rules.stale_time(leg.series.key(), run)),
            is_archived: route.iter().any(|leg| self.is_archived(as_of, &leg.series.key().source)),
            legs: runs.iter().map(|(leg, run)| (leg.series.key().clone(), run.clone())).collect(),
            state,
            time,
            day: None,
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
        Ok(Some(derived_state(&states)))
    }

    /// Returns the current state of a series, or `None` if no rate is in force now. `run` must be the run in force now.
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

/// Returns the start and the end of a change.
///
/// # Errors
/// Returns `InvalidArgument` if the end is before the start.
fn start_and_end(times: Times) -> Result<(Timestamp, Timestamp), QueryError> {
    let Times { start, end } = times;
    let start = start.unwrap_or(end);
    if end < start {
        return Err(QueryError::invalid("end_time", format!("{end} is before start_time {start}; swap them")));
    }
    Ok((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{PublishedValue, Rate, Span, SpanUnit};

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn age_is_zero_inside_the_run_and_grows_after_it() {
        let value = PublishedValue { rate: Rate::parse("5").unwrap(), reported_change: None };
        let run = Run { last_observed_time: at(20), ..Run::single(at(10), value, at(99)) };
        let check = |time: i64, expect: i64| assert_eq!(age_us(&run, at(time)), expect);
        check(10, 0);
        check(20, 0);
        check(21, 1);
        check(1_020, 1_000);
    }

    #[test]
    fn state_of_a_derived_rate_follows_from_its_legs() {
        use RateState::{Flat, Moving, Pegged, Stale};
        let check = |legs: &[RateState], expect: RateState| {
            assert_eq!(derived_state(legs), expect, "{legs:?}");
            assert_eq!(derived_state(&legs.iter().rev().copied().collect::<Vec<_>>()), expect);
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
    fn change_starts_at_a_time_or_a_span_before_its_end() {
        let day_us = Timestamp::DAY_US;
        let now = at(20 * day_us);
        let hours = |count| ChangeStart::Before(Span::new(count, SpanUnit::Hour));
        let time = |micros| ChangeStart::Time(Moment::At(at(micros)));
        let check = |start: ChangeStart, end: Option<i64>, expect: Option<(i64, i64)>| {
            let need = Need::change(start, end.map(|end| Moment::At(at(end))), None, now);
            let found = start_and_end(need.times(Zone::UTC)).ok();
            assert_eq!(found.map(|(start, end)| (start.micros(), end.micros())), expect);
        };
        check(time(5), Some(7), Some((5, 7)));
        check(time(5), Some(5), Some((5, 5)));
        check(time(5), Some(4), None);
        check(time(5), None, Some((5, 20 * day_us)));
        check(hours(1), None, Some((20 * day_us - Timestamp::HOUR_US, 20 * day_us)));
        check(hours(2), Some(Timestamp::HOUR_US), Some((-Timestamp::HOUR_US, Timestamp::HOUR_US)));
    }

    #[test]
    fn change_between_days_goes_from_first_instant_to_first_instant() {
        let date = |day| NaiveDate::from_ymd_opt(2026, 11, day).unwrap();
        let start = ChangeStart::Time(Moment::Day(date(26)));
        let now = Timestamp::parse("2026-12-01").unwrap();
        let need = Need::change(start, Some(Moment::Day(date(27))), None, now);
        let (start, end) = start_and_end(need.times(Zone::TASHKENT)).unwrap();
        assert_eq!([start.to_string(), end.to_string()], ["2026-11-25T19:00:00Z", "2026-11-26T19:00:00Z"]);
    }
}
