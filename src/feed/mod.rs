//! What publishers print, read into ticks: the ticker page, the tables of central banks, and the CSV that people keep.
//!
//! **Invariant**: pure functions of bytes. Nothing here reads a clock, so a page without a date is
//! an error and never "now"; nothing is guessed, so a quote that cannot be read whole is named.

mod bank;
mod html_text;
#[cfg(test)]
mod mutation;
mod quote_scan;
mod tick_csv;
mod ticker_page;

pub use bank::{BankError, BankFeed, BankQuote, BankQuoteError, BankRequest, BankRules, BankTable, RefusedBankQuote};
pub use tick_csv::{
    TICK_CSV_LINE_BYTES_MAX, TickCsv, TickCsvError, TickCsvHeaderError, TickCsvRow, TickCsvRowError, TickCsvValues,
    begins_as_tick_csv,
};
pub use ticker_page::{PageError, QuoteError, RefusedQuote, TickerPage};
