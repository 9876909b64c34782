//! Errors of a CSV file of ticks.

use std::io;

use thiserror::Error;

use super::{COLUMNS, TICK_CSV_LINE_BYTES_MAX};
use crate::domain::{Timestamp, TimestampError};

/// Why the header is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TickCsvHeaderError {
    /// The file has no lines.
    #[error("the file is empty")]
    Empty,
    /// A required column is missing.
    #[error("line 1: the header has no column '{0}'; the columns are {COLUMNS}")]
    Missing(&'static str),
    /// A column appears twice.
    #[error("line 1: the header has column '{0}' twice")]
    Duplicate(String),
    /// A column is unknown. Ignoring it could lose data that the author meant to send.
    #[error("line 1: column '{0}' is not known; the columns are {COLUMNS}")]
    Unknown(String),
    /// The first line cannot be parsed as CSV.
    #[error("line 1: {0}")]
    Line(TickCsvRowError),
}

/// Why a row gives no tick.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TickCsvRowError {
    /// The line is longer than the limit.
    #[error("the line is longer than {TICK_CSV_LINE_BYTES_MAX} bytes")]
    TooLong,
    /// The line is not UTF-8.
    #[error("the line is not UTF-8")]
    NotUtf8,
    /// The quotation marks are not valid CSV, for example because one is not closed.
    #[error("the quotation marks do not match; write each row on one line")]
    Quotes,
    /// The row has too few or too many fields.
    #[error("the header has {expected} fields, this row has {found}")]
    FieldCount {
        /// Fields of the header.
        expected: usize,
        /// Fields of this row.
        found: usize,
    },
    /// A required field is empty.
    #[error("{0} is empty")]
    Missing(&'static str),
    /// The time is invalid.
    #[error("{column}: {problem}")]
    Time {
        /// Column of the time.
        column: &'static str,
        /// Why the time is invalid.
        problem: TimestampError,
    },
    /// The run ends before it begins.
    #[error("last_observed_time {last} is before first_observed_time {first}")]
    Reversed {
        /// First observed time.
        first: Timestamp,
        /// Last observed time.
        last: Timestamp,
    },
    /// Another program removed or added zeros at the end of the rate.
    #[error("rate '{rate}' does not have {places} decimal places (published_places); keep the column rate as text")]
    Places {
        /// The rate as written.
        rate: String,
        /// The value of `published_places` as written.
        places: String,
    },
}

/// Why a file gives no rows.
#[derive(Debug, Error)]
pub enum TickCsvError {
    /// Reading the file failed.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// The header is refused.
    #[error(transparent)]
    Header(#[from] TickCsvHeaderError),
}
