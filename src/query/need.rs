//! What a request needs from the series that answer it: a time, or a start and an end, in the days of the source.

use chrono::NaiveDate;

use super::{ChangeStart, Moment, MomentRange};
use crate::analysis::Zone;
use crate::domain::{Span, Timestamp};

/// What a request needs from the series that answer it. Days are days in the time zone of the request, or else of the
/// source of a candidate. The day of a cross without a time zone ends when the first day of its legs ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Need {
    /// The time of the choice: the requested time, or the end of a range or a change, inclusive.
    end: Edge,
    /// The start of a range or a change, if the request has one.
    start: Option<Edge>,
    /// The time zone of the request.
    zone: Option<Zone>,
    /// The current time of the read. No day ends later.
    now: Timestamp,
    /// Whether a change over less than a day needs an observation between its ends.
    is_change: bool,
    /// The longest accepted time since the last observation, microseconds.
    max_age_us: Option<i64>,
}

/// An instant that may depend on a time zone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Edge {
    At(Timestamp),
    /// The last instant of a day, or now.
    DayEnd(NaiveDate),
    /// The first instant of a day.
    DayStart(NaiveDate),
    /// The instant before a day.
    BeforeDay(NaiveDate),
    /// The end less a span of time.
    BeforeEnd(Span),
}

impl Need {
    const fn new(end: Edge, now: Timestamp) -> Self {
        Self { end, start: None, zone: None, now, is_change: false, max_age_us: None }
    }

    /// A request for the rate in force at an instant.
    pub(super) const fn at(time: Timestamp) -> Self {
        Self::new(Edge::At(time), time)
    }

    /// A request for the rate in force at `time`, read at `now`; `None` means now.
    pub(super) fn rate(time: Option<Moment>, zone: Option<Zone>, now: Timestamp) -> Self {
        let end = match time {
            None => Edge::At(now),
            Some(Moment::At(time)) => Edge::At(time),
            Some(Moment::Day(date)) => Edge::DayEnd(date),
        };
        Self { zone, ..Self::new(end, now) }
    }

    /// Adds a limit of the time since the last observation, microseconds.
    pub(super) const fn with_max_age(self, max_age_us: Option<i64>) -> Self {
        Self { max_age_us, ..self }
    }

    /// A request for a change, read at `now`.
    pub(super) fn change(start: ChangeStart, end: Option<Moment>, zone: Option<Zone>, now: Timestamp) -> Self {
        let edge = |moment| match moment {
            Moment::At(time) => Edge::At(time),
            Moment::Day(date) => Edge::DayStart(date),
        };
        let start = match start {
            ChangeStart::Time(start) => edge(start),
            ChangeStart::Before(span) => Edge::BeforeEnd(span),
        };
        Self { start: Some(start), zone, is_change: true, ..Self::new(end.map_or(Edge::At(now), edge), now) }
    }

    /// A request for a half-open range, read at `now`.
    pub(super) fn range(range: MomentRange, zone: Option<Zone>, now: Timestamp) -> Self {
        let end = match range.end {
            None => Edge::At(now),
            Some(Moment::At(end)) => Edge::At(end.saturating_add_us(-1).min(now)),
            Some(Moment::Day(date)) => Edge::BeforeDay(date),
        };
        let start = range.start.map(|start| match start {
            Moment::At(start) => Edge::At(start),
            Moment::Day(date) => Edge::DayStart(date),
        });
        Self { start, zone, ..Self::new(end, now) }
    }

    /// Whether the request is for a change.
    pub(super) const fn is_change(&self) -> bool {
        self.is_change
    }

    /// The longest accepted time since the last observation, microseconds.
    pub(super) const fn max_age_us(&self) -> Option<i64> {
        self.max_age_us
    }

    /// The current time of the read.
    pub(super) const fn now(&self) -> Timestamp {
        self.now
    }

    fn instant(&self, edge: Edge, source_zone: Zone) -> Timestamp {
        let zone = self.zone.unwrap_or(source_zone);
        match edge {
            Edge::At(time) => time,
            Edge::DayEnd(date) => Moment::Day(date).last(zone, self.now),
            Edge::DayStart(date) => zone.day_start(date),
            Edge::BeforeDay(date) => zone.day_start(date).saturating_add_us(-1).min(self.now),
            Edge::BeforeEnd(span) => {
                let end = self.instant(self.end, source_zone);
                span.before(end).unwrap_or(Timestamp::MIN)
            }
        }
    }

    /// Returns start and end for a source with the days of `zone`.
    pub(super) fn times(&self, zone: Zone) -> Times {
        let end = self.instant(self.end, zone);
        let start = self.start.map(|start| self.instant(start, zone));
        Times { start: start.filter(|start| self.is_change || *start <= end), end }
    }
}

/// The instants of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Times {
    /// The start of a range or a change.
    pub(super) start: Option<Timestamp>,
    /// The time of the choice, inclusive.
    pub(super) end: Timestamp,
}

impl Times {
    /// Returns the times of a cross: each is the earlier one of the legs.
    pub(super) fn earlier(self, other: Self) -> Self {
        Self { start: self.start.zip(other.start).map(|(one, other)| one.min(other)), end: self.end.min(other.end) }
    }
}
