//! Why a question has no answer.

use thiserror::Error;

use crate::domain::{Pair, SeriesKey, Source, Timestamp};
use crate::store::StoreError;

/// Why a read was not answered.
#[derive(Debug, Clone, Error)]
pub enum QueryError {
    /// Neither the pair nor its inverse is there, nor both legs of a cross, from this source or from any.
    #[error("there is no series of {pair}{}{}; {there_are}", from(wanted_source.as_ref()), nor(missing_legs))]
    UnknownSeries {
        /// As asked for.
        pair: Pair,
        /// As asked for.
        wanted_source: Option<Source>,
        /// Those of its legs through the dollar that are not there either.
        missing_legs: Vec<Pair>,
        /// What there is, for the caller to choose from.
        there_are: String,
    },
    /// Nothing was published by this source.
    #[error("there is no series from {wanted}; {there_are}")]
    UnknownSource {
        /// As asked for.
        wanted: Source,
        /// What there is, for the caller to choose from.
        there_are: String,
    },
    /// History and revisions are those of published series, and only the inverse is published.
    #[error("{pair} is not published but derived, and has no history of its own; ask for {published}")]
    OnlyInverse {
        /// As asked for.
        pair: Pair,
        /// What is published.
        published: SeriesKey,
    },
    /// Exports are of published series, and this pair is answered for from those of others.
    #[error("{pair} is not published but derived, and derived pairs are not exported; export {from} and compute it")]
    NotExported {
        /// As asked for.
        pair: Pair,
        /// The pairs that it is derived from.
        from: String,
    },
    /// The moment asked for comes before the first quote.
    #[error("no quote of {series} at or before {time}; {}", first_is(*first))]
    NoQuoteYet {
        /// The series that was read.
        series: SeriesKey,
        /// The moment.
        time: Timestamp,
        /// Its first quote.
        first: Option<Timestamp>,
    },
    /// The knowledge asked for comes before the first commit.
    #[error("nothing was known at {known_time}; known_time may be any time from the first commit on")]
    NothingKnownYet {
        /// As asked for.
        known_time: Timestamp,
    },
    /// The rate in force was confirmed too long ago for the caller.
    #[error(
        "{series} was last confirmed {} s before {time}, longer than max_age of {} s; ask without max_age for the old rate",
        seconds(*age_us), seconds(*max_age_us)
    )]
    Stale {
        /// The series that was read.
        series: SeriesKey,
        /// The moment asked for.
        time: Timestamp,
        /// Microseconds from its last observation to that moment.
        age_us: i64,
        /// As asked for, microseconds.
        max_age_us: i64,
    },
    /// Several sources have the pair, and none was named.
    #[error("several sources have {pair}{}", choices(*leg_of, sources))]
    Ambiguous {
        /// As asked for, or a leg of it.
        pair: Pair,
        /// The cross asked for, where `pair` is a leg of it.
        leg_of: Option<Pair>,
        /// Their names.
        sources: String,
    },
    /// A field that cannot be.
    #[error("{field}: {problem}")]
    InvalidArgument {
        /// Path of the field in the request.
        field: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The caller went away.
    #[error("the caller stopped waiting")]
    Stopped,
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl QueryError {
    /// A field that cannot be.
    pub fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::InvalidArgument { field: field.into(), problem: problem.into() }
    }
}

fn from(source: Option<&Source>) -> String {
    source.map_or(String::new(), |source| format!(" from {source}"))
}

fn nor(missing_legs: &[Pair]) -> String {
    let legs: Vec<String> = missing_legs.iter().map(ToString::to_string).collect();
    if legs.is_empty() { String::new() } else { format!(", nor one of {} to cross it through", legs.join(" or ")) }
}

fn choices(leg_of: Option<Pair>, sources: &str) -> String {
    match leg_of {
        None => format!(": name one of {sources} as source"),
        Some(cross) => format!(
            ", a leg of {cross}: name one of {sources} for it in leg_sources, that of {} first, or one for both as source",
            cross.base()
        ),
    }
}

fn first_is(first: Option<Timestamp>) -> String {
    first.map_or("it has none yet".to_owned(), |first| format!("its first is of {first}"))
}

/// Seconds of a count of microseconds, without zeros that say nothing.
fn seconds(micros: i64) -> String {
    let text = format!("{}.{:06}", micros / Timestamp::SECOND_US, micros % Timestamp::SECOND_US);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_written_short() {
        let check = |micros: i64, expect: &str| assert_eq!(seconds(micros), expect);
        check(0, "0");
        check(1, "0.000001");
        check(3_600_000_000, "3600");
        check(10_500_000, "10.5");
    }
}
