//! Windows: calendar spans, in UTC, that end at a given time.

use super::{Moment, QueryError};
use crate::domain::{Span, Timestamp};

/// The start of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeStart {
    /// The change starts at this time.
    Time(Moment),
    /// The start of the change is its end minus this span.
    Before(Span),
}

/// Returns the start of `window`, which ends at `end`.
///
/// # Errors
/// Returns `InvalidArgument` if the window is empty or starts before the year 1.
pub(super) fn window_start(window: Span, end: Timestamp) -> Result<Timestamp, QueryError> {
    if window.count() == 0 {
        return Err(QueryError::invalid("window.count", "is 0; a window has at least one unit"));
    }
    let problem = || {
        let problem = format!("{} units reach back before the year 1; use a shorter window", window.count());
        QueryError::invalid("window.count", problem)
    };
    window.before(end).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SpanUnit;

    #[test]
    fn window_is_not_empty_and_does_not_start_before_year_1() {
        let end = Timestamp::parse_rfc3339("2025-12-08T12:00:00Z").unwrap();
        let start = |count, unit| window_start(Span::new(count, unit), end).map_err(|error| error.to_string());
        assert_eq!(start(1, SpanUnit::Day), Ok(Timestamp::parse_rfc3339("2025-12-07T12:00:00Z").unwrap()));
        assert!(start(0, SpanUnit::Day).unwrap_err().contains("is 0; a window has at least one unit"));
        assert!(start(3_000, SpanUnit::Year).unwrap_err().contains("3000 units reach back before the year 1"));
    }
}
