//! Why a bank's answer gives no table, or an entry of its table no quote.
//!
//! **Invariant**: every error names what was found, clipped, and what to do about it. What concerns one entry is
//! never an error of the table.

use chrono::NaiveDate;
use thiserror::Error;

use crate::domain::{CurrencyError, Pair, PairError, RateError};

/// Why a body is no table that can be taken in. Nothing of it goes in.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum BankError {
    /// Nothing but blanks.
    #[error("the body is empty; ask again later")]
    Empty,
    /// Over the limit, whatever is in it.
    #[error("the body has {found_bytes} bytes; at most {max_bytes} are read, so check the URL")]
    TooLarge {
        /// As sent.
        found_bytes: usize,
        /// Allowed.
        max_bytes: usize,
    },
    /// A page for people, such as the error page of a server that says 200.
    #[error("the bank answered with a web page, '{0}'; ask again later, and check the URL if it stays")]
    WebPage(String),
    /// The beginning is not of the bank's format at all.
    #[error("the bank answered with '{found}', and {expected} was expected; check the URL and the date asked for")]
    NotThisFormat {
        /// What was expected, with its article.
        expected: &'static str,
        /// How the body begins.
        found: String,
    },
    /// The declared encoding has a name that means nothing.
    #[error("the declared encoding '{0}' is not known")]
    UnknownEncoding(String),
    /// Bytes that are not of the declared encoding, or a cut within a character.
    #[error("the body is not in {encoding} as it declares; fetch it again, and report it to the bank if it stays")]
    NotInEncoding {
        /// Declared, or by default.
        encoding: &'static str,
    },
    /// The end is missing. What came before it is not taken in: a number may be cut in two.
    #[error("the body ends within {within}; fetch it again")]
    Truncated {
        /// What is open at the end.
        within: String,
    },
    /// Broken XML or JSON.
    #[error("the body is broken at byte {offset} of its text: {problem}")]
    Malformed {
        /// In the text as UTF-8, from 0.
        offset: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A document type, of which entities could come. They are never expanded.
    #[error("the body declares a document type, which no bank's table needs; check the URL")]
    DocumentType,
    /// More of something than any table has.
    #[error("the body has over {max} {what}; check the URL")]
    TooMuch {
        /// In the plural.
        what: &'static str,
        /// Allowed.
        max: usize,
    },
    /// Well-formed, and of something else.
    #[error("the root is <{found}>, and <{expected}> was expected; check the URL")]
    WrongRoot {
        /// Of this bank's table.
        expected: &'static str,
        /// As sent.
        found: String,
    },
    /// The table says no date, or two.
    #[error("the table has no date, or more than one, in {0}; report it to the bank")]
    NoDate(&'static str),
    /// A date that is none, or of another form than this bank's.
    #[error("the table's date '{0}' is not a date as this bank writes it")]
    BadDate(String),
    /// The table of another day than the one asked for, as banks send in place of one that they lack: a backfill
    /// passes over the day.
    #[error("the table is for {found}, and {asked} was asked for: the bank has none for that day")]
    OtherDate {
        /// In the request.
        asked: NaiveDate,
        /// In the table.
        found: NaiveDate,
    },
    /// A table without a single entry.
    #[error("the table has no entries; the bank may have none for this day")]
    NoEntries,
}

/// Why an entry of a table gave no quote. The others go in.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum BankQuoteError {
    /// A field that every entry has.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field that cannot be read as one text.
    #[error("{0} is there twice, or is not a plain text")]
    NotText(&'static str),
    /// Not three upper-case letters: the bank may have changed how it names currencies.
    #[error(transparent)]
    Currency(#[from] CurrencyError),
    /// The bank's own currency in itself.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// Only a power of ten is a shift of the point; any other would have to be divided by, and rounded.
    #[error("nominal '{0}' is none of 1, 10, 100 and so on to 1,000,000,000")]
    Nominal(String),
    /// A comma where this bank writes a point, or the reverse.
    #[error("rate '{text}' is not written with '{mark}' before its places, as this bank's are")]
    Mark {
        /// As sent.
        text: String,
        /// The bank's.
        mark: char,
    },
    /// Not a positive decimal, or one with too many digits, as it is or for one unit.
    #[error(transparent)]
    Rate(#[from] RateError),
    /// The entry's own date is none.
    #[error("date '{0}' is not a date as this bank writes it")]
    BadDate(String),
    /// The entry's own date is not the one asked for, and that of others is.
    #[error("its date is {found}, and {asked} was asked for")]
    OtherDate {
        /// In the request.
        asked: NaiveDate,
        /// In the entry.
        found: NaiveDate,
    },
    /// The currency is there twice, and the two disagree.
    #[error("the table has {pair} more than once, and not as one: {first}, {second}")]
    Ambiguous {
        /// The pair.
        pair: Pair,
        /// The first entry's rate, or what is wrong with it.
        first: String,
        /// The one that differs.
        second: String,
    },
}

/// An entry that gave no quote.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{code}: {reason}")]
pub struct RefusedBankQuote {
    /// Its currency, as written; empty if it names none.
    pub code: String,
    /// Why.
    pub reason: BankQuoteError,
}
