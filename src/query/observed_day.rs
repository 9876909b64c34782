//! The rate of the last day with an observation, for services that publish one rate per day.

use chrono::NaiveDate;

use super::{Moment, QueryError, RateAnswer, RateRequest, Reader};
use crate::analysis::Zone;
use crate::domain::{Pair, Source, Timestamp};

/// A day with an observation, and the rate of that day.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObservedDay {
    /// The day, in the time zone of the source. For a cross, the later day of its legs.
    pub date: NaiveDate,
    /// The last day on which the rate counts as fresh: the stale limit of the source after `date`, in whole days.
    pub fresh_until: NaiveDate,
    /// The rate at the end of the day, or now.
    pub rate: RateAnswer,
}

impl Reader {
    /// Returns the rate of the last day at or before `date` on which the chosen source has an observation; `None` as
    /// `date` means now. A cross counts on a day only if both legs are fresh on it. The series are chosen at the end of
    /// that day, so that a request for that day returns the same answer. Returns `None` if there is no such day.
    ///
    /// # Errors
    /// The errors of [`Reader::rate`], except for a rate that does not exist yet.
    pub fn observed_day(
        &self,
        pair: Pair,
        source: Option<&Source>,
        date: Option<NaiveDate>,
    ) -> Result<Option<ObservedDay>, QueryError> {
        let mut date = date;
        loop {
            let request = RateRequest {
                pair,
                source: source.cloned(),
                leg_sources: Vec::new(),
                time: date.map(Moment::Day),
                zone: None,
                max_age_us: None,
                known_time: None,
            };
            let rate = match self.rate(&request) {
                Ok(answer) => answer.body,
                Err(QueryError::NoQuoteYet { .. } | QueryError::NothingKnownYet { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let Some((observed, fresh_until)) = self.days_of(&rate)? else { return Ok(None) };
            // Each step goes to an earlier day, so the loop ends. While a leg is stale, the cross has no rate that counts.
            let last = observed.min(fresh_until);
            if date.is_some_and(|date| last >= date) {
                return Ok(Some(ObservedDay { date: observed, fresh_until, rate }));
            }
            date = Some(last);
        }
    }

    /// Returns the rate at the end of `date` in `zone`, from the sources of the given legs; `None` if a leg is stale on
    /// that day.
    ///
    /// # Errors
    /// The errors of [`Reader::rate`].
    pub fn rate_of_day(
        &self,
        pair: Pair,
        leg_sources: Vec<Source>,
        zone: Zone,
        date: NaiveDate,
    ) -> Result<Option<RateAnswer>, QueryError> {
        let time = Some(Moment::Day(date));
        let request =
            RateRequest { pair, source: None, leg_sources, time, zone: Some(zone), max_age_us: None, known_time: None };
        let rate = self.rate(&request)?.body;
        let days = self.days_of(&rate)?;
        Ok(days.is_some_and(|(_, fresh_until)| fresh_until >= date).then_some(rate))
    }

    /// Returns the day of the last observation of a rate and the last day on which it is fresh. A cross is observed when
    /// either leg is, and is fresh while both are.
    fn days_of(&self, rate: &RateAnswer) -> Result<Option<(NaiveDate, NaiveDate)>, QueryError> {
        let mut days: Option<(NaiveDate, NaiveDate)> = None;
        for (series, _) in &rate.legs {
            let Some(view) = self.view.find(series) else { continue };
            let Some(instant) = view.instant_at(rate.time)? else { return Ok(None) };
            let zone: Zone = self.zone_of_source(&series.source, None);
            let observed = zone.local(instant).date();
            let limit_us = self.rules.stale_limit_us(series).max(0);
            let limit_days = limit_us / Timestamp::DAY_US + i64::from(limit_us % Timestamp::DAY_US > 0);
            let limit_days = chrono::Days::new(limit_days.unsigned_abs());
            let fresh_until = observed.checked_add_days(limit_days).unwrap_or(NaiveDate::MAX);
            days =
                Some(days.map_or((observed, fresh_until), |(one, other)| (one.max(observed), other.min(fresh_until))));
        }
        Ok(days)
    }
}
