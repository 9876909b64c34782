//! Parsers of published quotes: the ticker page, the tables of five central banks, and CSV files.
//!
//! **Invariant**: every parser is a pure function of bytes. No parser reads a clock, so a page without a date is an
//! error and never gets the current time. No parser guesses: a quote that is not complete and valid is refused, and the
//! error names it.

mod bank;
mod html_text;
#[cfg(test)]
mod mutation;
mod quote_scan;
mod tick_csv;
mod ticker_page;

pub use bank::{BankError, BankFeed, BankQuote, BankQuoteError, BankRequest, BankRules, BankTable, RefusedBankQuote};
pub use tick_csv::{
    TICK_CSV_LINE_BYTES_MAX, TickCsv, TickCsvError, TickCsvHeader, TickCsvHeaderError, TickCsvPart, TickCsvRow,
    TickCsvRowError, TickCsvValues, begins_as_tick_csv,
};
pub use ticker_page::{PageError, QuoteError, RefusedQuote, TickerPage};
