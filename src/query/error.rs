//! The errors of read queries.

use thiserror::Error;

use crate::domain::{Pair, SeriesKey, Source, Timestamp, format_duration};
use crate::store::StoreError;

/// Why a query failed.
#[derive(Debug, Clone, Error)]
pub enum QueryError {
    /// No series has the pair or its inverse, and at least one leg of its cross through USD is missing. If the request
    /// names a source, the series of other sources are ignored.
    #[error(
        "there is no series of {pair}{}{}; {available}",
        from_source(wanted_source.as_ref()), missing_legs_text(missing_legs)
    )]
    UnknownSeries {
        /// The requested pair.
        pair: Pair,
        /// The requested source, if the request names one.
        wanted_source: Option<Source>,
        /// The legs of the cross through USD that no series has.
        missing_legs: Vec<Pair>,
        /// A text that lists the available series.
        available: String,
    },
    /// The source has no series.
    #[error("there is no series from {wanted}; {available}")]
    UnknownSource {
        /// The requested source.
        wanted: Source,
        /// A text that lists the available series.
        available: String,
    },
    /// The requested pair is not published, but its inverse is. Derived pairs have no history, revisions or gaps.
    #[error("{pair} is not published but derived, and has no history of its own; ask for {published}")]
    OnlyInverse {
        /// The requested pair.
        pair: Pair,
        /// The published series of the inverse pair.
        published: SeriesKey,
    },
    /// The requested pair is not published and can only be derived. Derived pairs are not exported.
    #[error(
        "{pair} is not published but derived, and derived pairs are not exported; export {from} and compute \
         the rates of {pair}"
    )]
    NotExported {
        /// The requested pair.
        pair: Pair,
        /// The pairs that the requested pair is derived from.
        from: String,
    },
    /// The requested time is before the first quote.
    #[error("no quote of {series} at or before {time}; {}", first_quote(*first))]
    NoQuoteYet {
        /// The series that was read.
        series: SeriesKey,
        /// The requested time.
        time: Timestamp,
        /// The observed time of the first quote of the series.
        first: Option<Timestamp>,
    },
    /// The requested `known_time` is before the first commit.
    #[error("nothing was known at {known_time}; use a known_time at or after the first commit")]
    NothingKnownYet {
        /// The requested `known_time`.
        known_time: Timestamp,
    },
    /// The rate in force is older than the requested `max_age`.
    #[error(
        "{series} was last confirmed {} before {time}, which is longer than the max_age of {}; \
         omit max_age to get the old rate",
        age_beyond(*age_us, *max_age_us), format_duration(*max_age_us)
    )]
    Stale {
        /// The series that was read.
        series: SeriesKey,
        /// The requested time.
        time: Timestamp,
        /// Microseconds from the last observation to the requested time.
        age_us: i64,
        /// The requested limit, microseconds.
        max_age_us: i64,
    },
    /// Several candidates can answer for the pair, the request names no source, and the server is strict.
    #[error("several series can answer for {pair}: {candidates}; name a source, or two leg_sources for a cross")]
    Ambiguous {
        /// The requested pair.
        pair: Pair,
        /// The candidates, separated by commas.
        candidates: String,
    },
    /// A request field has an invalid value.
    #[error("{field}: {problem}")]
    InvalidArgument {
        /// Path of the field in the request.
        field: String,
        /// What is wrong with the value, and which values are valid.
        problem: String,
    },
    /// The client disconnected, or its deadline passed.
    #[error("the read was cancelled: the client disconnected or its deadline passed")]
    Cancelled,
    /// Reading the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl QueryError {
    /// Creates an `InvalidArgument` error.
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::InvalidArgument { field: field.into(), problem: problem.into() }
    }
}

fn from_source(source: Option<&Source>) -> String {
    source.map_or(String::new(), |source| format!(" from {source}"))
}

fn missing_legs_text(missing_legs: &[Pair]) -> String {
    let legs: Vec<String> = missing_legs.iter().map(ToString::to_string).collect();
    if legs.is_empty() { String::new() } else { format!(" and no series of {} for a cross rate", legs.join(" or ")) }
}

fn first_quote(first: Option<Timestamp>) -> String {
    first.map_or("the series has no quote yet".to_owned(), |first| format!("its first quote is at {first}"))
}

/// Formats an age that is longer than `limit_us`: rounded down to the largest unit that still shows this.
fn age_beyond(age_us: i64, limit_us: i64) -> String {
    const UNITS_US: [i64; 4] = [Timestamp::DAY_US, Timestamp::HOUR_US, 60 * Timestamp::SECOND_US, Timestamp::SECOND_US];
    let rounded = UNITS_US.iter().map(|unit_us| age_us - age_us % unit_us);
    format_duration(rounded.into_iter().find(|rounded_us| *rounded_us > limit_us).unwrap_or(age_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_rounded_to_the_largest_unit_that_exceeds_the_limit() {
        const S: i64 = Timestamp::SECOND_US;
        let check = |age_us: i64, limit_us: i64, expect: &str| assert_eq!(age_beyond(age_us, limit_us), expect);
        check(199 * Timestamp::DAY_US + 3_601 * S + 7, 2 * Timestamp::DAY_US, "199d");
        check(7_201 * S, 7_200 * S, "7201s");
        check(5 * 3_600 * S + 61 * S, 3_600 * S, "5h");
        check(90 * S + 5, 60 * S, "90s");
        check(60 * S + 1, 60 * S, "60000001us");
    }
}
