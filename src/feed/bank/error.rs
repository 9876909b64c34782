//! Errors of a bank's table, and of single entries of a table.
//!
//! **Invariant**: an error about a text quotes the text, truncated for display. The whole table is never refused for an
//! error of one entry.

use chrono::NaiveDate;
use thiserror::Error;

use crate::domain::{CurrencyError, Pair, PairError, RateError};

/// Why a whole table is refused. No quote of the table is stored.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum BankError {
    /// The body is empty, or has only white space.
    #[error("the body is empty; try again later")]
    Empty,
    /// The body is longer than the limit.
    #[error("the body has {found_bytes} bytes; at most {max_bytes} are read, so check the URL")]
    TooLarge {
        /// Length of the body, in bytes.
        found_bytes: usize,
        /// Largest length allowed, in bytes.
        max_bytes: usize,
    },
    /// The body is a web page, such as an error page with status 200.
    #[error("the bank answered with a web page, '{0}'; try again later, and check the URL if the error repeats")]
    WebPage(String),
    /// The body does not begin like the bank's format.
    #[error("the bank answered with '{found}' instead of {expected}; check the URL and the requested date")]
    NotThisFormat {
        /// The expected format, with `a` or `an` before it.
        expected: &'static str,
        /// The beginning of the body.
        found: String,
    },
    /// The XML declaration names an unknown encoding.
    #[error("the declared encoding '{0}' is not known")]
    UnknownEncoding(String),
    /// The body has invalid bytes in its encoding, or ends inside a character.
    #[error(
        "the body is not valid {encoding}, its declared or default encoding; \
         fetch it again, and report the error to the bank if it repeats"
    )]
    NotInEncoding {
        /// The declared encoding, or else UTF-8.
        encoding: &'static str,
    },
    /// The end of the body is missing. The parser does not use the part that arrived, because the last number in this
    /// part may be incomplete.
    #[error("the body ends within {within}; fetch it again")]
    Truncated {
        /// The part that is incomplete.
        within: String,
    },
    /// The body is not well-formed XML or JSON.
    #[error("the body is malformed at byte {offset} of its text: {problem}")]
    Malformed {
        /// Byte offset in the decoded text, as UTF-8, from 0.
        offset: usize,
        /// What is malformed at the offset.
        problem: String,
    },
    /// The body declares a document type, which can define entities. The parser never expands them.
    #[error("the body declares a document type, which no bank's table needs; check the URL")]
    DocumentType,
    /// The body exceeds a limit that no bank's table reaches.
    #[error("the body has more than {max} {what}; check the URL")]
    TooMuch {
        /// What was counted: a noun in the plural, such as `entries`.
        what: &'static str,
        /// Largest number allowed.
        max: usize,
    },
    /// The body is well-formed XML, but not the bank's table.
    #[error("the root element is <{found}> instead of <{expected}>; check the URL")]
    WrongRoot {
        /// Name of the root element of the bank's table.
        expected: &'static str,
        /// Name of the root element in the body.
        found: String,
    },
    /// The table has no date, or more than one date.
    #[error(
        "field '{0}' of the table is empty, missing or repeated, so the date is unknown; report the table to the bank"
    )]
    NoDate(&'static str),
    /// The table's date does not exist, or does not have the format of this bank.
    #[error("the table's date '{0}' is not valid in the date format of this bank")]
    BadDate(String),
    /// The table is for a day other than the requested day. Banks send such a table if they have no table for the
    /// requested day. A backfill skips the day.
    #[error("the table is for {found} instead of {asked}: the bank has no table for the requested day")]
    OtherDate {
        /// The requested date.
        asked: NaiveDate,
        /// The date of the table.
        found: NaiveDate,
    },
    /// The table has no entries.
    #[error("the table has no entries; the bank may have no rates for this day")]
    NoEntries,
}

/// Why an entry of a table gives no quote. Other entries of the table are not affected.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum BankQuoteError {
    /// A required field is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field appears more than once, or contains something other than text.
    #[error("{0} appears more than once, or is not plain text")]
    NotText(&'static str),
    /// The currency code is not three upper-case letters. The bank may have changed its codes.
    #[error(transparent)]
    Currency(#[from] CurrencyError),
    /// The entry is for the bank's home currency itself.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// The nominal is not a power of ten. For a power of ten the parser moves the decimal point; any other nominal
    /// would require a division and rounding.
    #[error("nominal '{0}' is not one of 1, 10, 100 and so on up to 1,000,000,000")]
    Nominal(String),
    /// The rate has a comma although this bank uses a decimal point, or the reverse.
    #[error("rate '{text}' is not written with the decimal mark '{decimal_mark}' that this bank uses")]
    DecimalMark {
        /// The rate as sent.
        text: String,
        /// The bank's decimal mark.
        decimal_mark: char,
    },
    /// The rate is not a positive decimal, or has too many digits as sent or after conversion to one unit.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// The entry's own date is not valid in the date format of this bank.
    #[error("date '{0}' is not valid in the date format of this bank")]
    BadDate(String),
    /// The entry's own date is not the requested date, but at least one other entry has the requested date.
    #[error("its date is {found} instead of the requested {asked}")]
    OtherDate {
        /// The requested date.
        asked: NaiveDate,
        /// The date of the entry.
        found: NaiveDate,
    },
    /// The table has several entries for the currency, and their quotes differ.
    #[error("the table has different entries for {pair}: {first}, {second}")]
    Ambiguous {
        /// The pair with different entries.
        pair: Pair,
        /// Rate and date of the first entry, or its error.
        first: String,
        /// Rate and date of the first entry that differs from `first`, or its error.
        second: String,
    },
}

/// An entry that gave no quote.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{code}: {reason}")]
pub struct RefusedBankQuote {
    /// Currency code as written; empty if the entry has none.
    pub code: String,
    /// Why the entry gives no quote.
    pub reason: BankQuoteError,
}
