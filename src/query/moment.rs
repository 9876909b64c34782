//! Times of a request: instants, and days in the time zone of the source that answers.

use chrono::NaiveDate;

use super::{QueryError, Range};
use crate::analysis::Zone;
use crate::domain::Timestamp;

/// A time of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// An instant.
    At(Timestamp),
    /// A day in the time zone of the request, or else of the source that answers.
    Day(NaiveDate),
}

impl Moment {
    /// Returns the first instant of a day, or the instant.
    pub fn start(self, zone: Zone) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Day(date) => zone.day_start(date),
        }
    }

    /// Returns the last instant of a day, or `now` if the day is today, or the instant.
    pub fn last(self, zone: Zone, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Day(date) => {
                let last = zone.day_end(date).saturating_add_us(-1);
                // A later day is read like any other time after now: its rate is the one known to come into force, or
                // as old as it will be then.
                if zone.day_start(date) <= now { last.min(now) } else { last }
            }
        }
    }
}

/// A half-open range of a request. A day as an end is the first instant of that day, exclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MomentRange {
    /// The start, inclusive; `None` for no limit.
    pub start: Option<Moment>,
    /// The end, exclusive; `None` for no limit.
    pub end: Option<Moment>,
}

impl MomentRange {
    /// Returns the range in a time zone.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the range ends before it starts.
    pub fn in_zone(self, zone: Zone) -> Result<Range, QueryError> {
        Range::new(self.start.map(|start| start.start(zone)), self.end.map(|end| end.start(zone)))
    }
}

impl From<Range> for MomentRange {
    fn from(range: Range) -> Self {
        Self { start: Some(Moment::At(range.start())), end: Some(Moment::At(range.end())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn day_is_a_day_of_the_zone() {
        let at = |text: &str| Timestamp::parse(text).unwrap();
        let day = Moment::Day(NaiveDate::from_ymd_opt(2026, 11, 26).unwrap());
        let late = at("2027-01-01");
        assert_eq!(day.start(Zone::TASHKENT), at("2026-11-25T19:00:00Z"));
        assert_eq!(day.last(Zone::TASHKENT, late), at("2026-11-26T18:59:59.999999Z"));
        assert_eq!(day.last(Zone::UTC, late), at("2026-11-26T23:59:59.999999Z"));
        // Today ends now.
        assert_eq!(day.last(Zone::TASHKENT, at("2026-11-26T10:00:00Z")), at("2026-11-26T10:00:00Z"));
        // A day after today is not today.
        assert_eq!(day.last(Zone::TASHKENT, at("2026-11-25T18:59:59Z")), at("2026-11-26T18:59:59.999999Z"));
        let instant = Moment::At(late);
        assert_eq!((instant.start(Zone::TASHKENT), instant.last(Zone::TASHKENT, at("2026-11-26"))), (late, late));
        let range = MomentRange { start: Some(day), end: Some(day) }.in_zone(Zone::TASHKENT).unwrap();
        assert_eq!((range.start(), range.end()), (at("2026-11-25T19:00:00Z"), at("2026-11-25T19:00:00Z")));
    }
}
