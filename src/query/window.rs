//! Windows: spans of time before a moment, UTC.

use super::QueryError;
use crate::domain::{Span, Timestamp};

/// Where a change begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeStart {
    /// At a moment.
    Time(Timestamp),
    /// So long before its end.
    Before(Span),
}

/// The moment at which `window` begins that ends at `end`.
///
/// # Errors
/// `InvalidArgument` for an empty window, and for one that begins before the year 1.
pub(super) fn window_start(window: Span, end: Timestamp) -> Result<Timestamp, QueryError> {
    if window.count() == 0 {
        return Err(QueryError::invalid("window.count", "is 0; a window has at least one unit"));
    }
    let problem = || QueryError::invalid("window.count", format!("{} reaches back before the year 1", window.count()));
    window.before(end).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SpanUnit;

    #[test]
    fn a_window_has_a_unit_and_begins_in_the_calendar() {
        let end = Timestamp::parse_rfc3339("2025-12-08T12:00:00Z").unwrap();
        let start = |count, unit| window_start(Span::new(count, unit), end).map_err(|error| error.to_string());
        assert_eq!(start(1, SpanUnit::Day), Ok(Timestamp::parse_rfc3339("2025-12-07T12:00:00Z").unwrap()));
        assert!(start(0, SpanUnit::Day).unwrap_err().contains("is 0; a window has at least one unit"));
        assert!(start(3_000, SpanUnit::Year).unwrap_err().contains("3000 reaches back before the year 1"));
    }
}
