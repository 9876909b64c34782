//! Windows: a count and a unit of the calendar before a moment, UTC.

use chrono::Months;

use super::QueryError;
use crate::domain::Timestamp;

/// What a window counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowUnit {
    /// Of 60 seconds.
    Minute,
    /// Of 60 minutes.
    Hour,
    /// Of 24 hours: days of UTC have no others.
    Day,
    /// Of seven days.
    Week,
    /// Of the calendar.
    Month,
    /// Of twelve months.
    Year,
}

/// A distance before a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// At least one.
    pub count: u32,
    /// Of these.
    pub unit: WindowUnit,
}

/// Where a change begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeStart {
    /// At a moment.
    Time(Timestamp),
    /// So long before its end.
    Before(Window),
}

impl Window {
    /// The moment that lies so far before `end`. Months are counted back by the calendar and clamp: 31 March minus one
    /// is the end of February.
    ///
    /// # Errors
    /// `InvalidArgument` for a count of zero, and where the calendar ends.
    pub fn before(self, end: Timestamp) -> Result<Timestamp, QueryError> {
        if self.count == 0 {
            return Err(QueryError::invalid("window.count", "is 0; a window has at least one unit"));
        }
        let units = |unit_us: i64| i64::from(self.count).checked_mul(unit_us);
        let micros_before = |length_us: Option<i64>| end.micros().checked_sub(length_us?).map(Timestamp::from_micros);
        let months_before =
            |months: Option<u32>| end.to_chrono().checked_sub_months(Months::new(months?)).map(Timestamp::from);
        let start = match self.unit {
            WindowUnit::Minute => micros_before(units(60 * Timestamp::SECOND_US)),
            WindowUnit::Hour => micros_before(units(Timestamp::HOUR_US)),
            WindowUnit::Day => micros_before(units(Timestamp::DAY_US)),
            WindowUnit::Week => micros_before(units(7 * Timestamp::DAY_US)),
            WindowUnit::Month => months_before(Some(self.count)),
            WindowUnit::Year => months_before(self.count.checked_mul(12)),
        };
        start.filter(|start| *start >= Timestamp::MIN).ok_or_else(|| {
            QueryError::invalid("window.count", format!("{} reaches back before the year 1", self.count))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_count_back_by_the_calendar() {
        use WindowUnit::{Day, Hour, Minute, Month, Week, Year};
        let check = |end: &str, count: u32, unit: WindowUnit, expect: Option<&str>| {
            let end = Timestamp::parse_rfc3339(end).unwrap();
            let start = Window { count, unit }.before(end).ok().map(|start| start.to_string());
            assert_eq!(start.as_deref(), expect, "{count} {unit:?} before {end}");
        };
        let noon = "2025-12-08T12:00:00.000001Z";
        check(noon, 5, Minute, Some("2025-12-08T11:55:00.000001Z"));
        check(noon, 13, Hour, Some("2025-12-07T23:00:00.000001Z"));
        check(noon, 1, Day, Some("2025-12-07T12:00:00.000001Z"));
        check(noon, 2, Week, Some("2025-11-24T12:00:00.000001Z"));
        check(noon, 1, Month, Some("2025-11-08T12:00:00.000001Z"));
        check(noon, 12, Month, Some("2024-12-08T12:00:00.000001Z"));
        check(noon, 1, Year, Some("2024-12-08T12:00:00.000001Z"));
        // The end of February, in a common year and in a leap year.
        check("2025-03-31T00:00:00Z", 1, Month, Some("2025-02-28T00:00:00Z"));
        check("2024-03-31T00:00:00Z", 1, Month, Some("2024-02-29T00:00:00Z"));
        check("2024-02-29T00:00:00Z", 1, Year, Some("2023-02-28T00:00:00Z"));
        check(noon, 0, Day, None);
        check(noon, 3_000, Year, None);
        for unit in [Minute, Hour, Day, Week, Month, Year] {
            // Eight thousand years of minutes are before the year 1, and none of these overflows.
            check(noon, u32::MAX, unit, None);
        }
    }
}
