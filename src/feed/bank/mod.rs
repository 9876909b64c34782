//! Parsers of the tables of official rates that five central banks publish.
//!
//! | feed | format | day of the table | where the date is | decimal places |
//! |---|---|---|---|---|
//! | NBKR daily, weekly | XML, windows-1251 | the newest day | the table | four, after a decimal comma |
//! | NBK by date | XML, UTF-8 | a requested day | the table | two, trailing zeros dropped |
//! | NBK newest | RSS, UTF-8 | the newest day | each entry | two, trailing zeros dropped |
//! | NBT | XML, UTF-8 | a requested day | the table | four |
//! | CBU | JSON | a requested day | each entry | two |
//! | CBT | XML, UTF-8 | a requested day | the table | four, trailing zeros dropped |
//!
//! A table gives prices of foreign currencies in the home currency of the bank. A price is for 1, 10, 100 or more units
//! of the foreign currency; this number of units is the nominal. A quote is for one unit: 100 UZS = 0.0780 TJS becomes
//! `UZS/TJS` 0.000780, with the same digits and the point moved. If a bank drops trailing zeros, the parser restores
//! them first: 0.29 for 1,000 UZS becomes 0.2900, so the quote is 0.0002900.
//!
//! The date of a table is the day for which its rates apply, in the calendar of the bank. The observed time of a quote
//! is the first instant of that day in the bank's zone, and may therefore be in the future when the table is read. No
//! table states its time of publication, which is often in the afternoon of the previous day, so this time cannot be
//! used. The start of the day in UTC cannot be used either: it is five or six hours too late, because the rate applies
//! from midnight on in the zone of the bank. Two fetches of one table give the same observed times.
//!
//! **Invariant**: every parser is a pure function of a request and a body, without network access, waiting or a clock.
//! No body causes a panic. Time and memory are linear in the length of the body, which is limited. A table that is not
//! complete gives no quotes.

mod body;
mod cbt;
mod cbu;
mod error;
mod json;
mod layout;
mod nbk;
mod nbkr;
mod nbt;
mod table;
mod xml;

#[cfg(test)]
mod tests;

use chrono::{NaiveDate, NaiveTime};

use crate::analysis::Zone;
use crate::domain::CurrencySet;
use layout::Layout;
use table::DateFormat;

pub use error::{BankError, BankQuoteError, RefusedBankQuote};
pub use table::{BankQuote, BankTable};

/// A kind of table that a bank publishes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BankFeed {
    /// National Bank of the Kyrgyz Republic: table of five currencies, each working day.
    NbkrDaily,
    /// National Bank of the Kyrgyz Republic: table of forty other currencies, each week.
    NbkrWeekly,
    /// National Bank of Kazakhstan: table of a requested day.
    NbkByDate,
    /// National Bank of Kazakhstan: newest table.
    NbkNewest,
    /// National Bank of Tajikistan: table of a requested day.
    Nbt,
    /// Central Bank of the Republic of Uzbekistan: table of a requested day.
    Cbu,
    /// Central Bank of Turkmenistan: table of a requested day.
    Cbt,
}

/// The properties of a feed.
struct Profile {
    /// Slug of the bank.
    source: &'static str,
    /// Currency in which the table gives prices.
    home: &'static str,
    zone: Zone,
    /// Scheme and host, without a slash at the end.
    base_url: &'static str,
    path: Path,
    publication_time: NaiveTime,
    minimum_places: u8,
    /// Separates the integer digits of a rate from its decimal places.
    decimal_mark: char,
    date_format: DateFormat,
    format: Format,
}

/// The part of a URL after its base.
enum Path {
    /// One path, which always gives the newest table.
    Newest(&'static str),
    /// A function that returns the path of the table of a day.
    ByDate(fn(NaiveDate) -> String),
}

enum Format {
    Xml(Layout),
    Json,
}

/// Makes a time of day in whole minutes, for use in constants.
const fn time_of_day(hour: u32, minute: u32) -> NaiveTime {
    match NaiveTime::from_hms_opt(hour, minute, 0) {
        Some(time) => time,
        None => panic!("invalid time of day"),
    }
}

impl BankFeed {
    /// Every feed.
    pub const ALL: [Self; 7] =
        [Self::NbkrDaily, Self::NbkrWeekly, Self::NbkByDate, Self::NbkNewest, Self::Nbt, Self::Cbu, Self::Cbt];

    const fn profile(self) -> &'static Profile {
        match self {
            Self::NbkrDaily => &nbkr::DAILY,
            Self::NbkrWeekly => &nbkr::WEEKLY,
            Self::NbkByDate => &nbk::BY_DATE,
            Self::NbkNewest => &nbk::NEWEST,
            Self::Nbt => &nbt::PROFILE,
            Self::Cbu => &cbu::PROFILE,
            Self::Cbt => &cbt::PROFILE,
        }
    }

    /// The default source slug of the bank. Two tables of one bank belong to one source, because they have either no
    /// currency in common or the same rates.
    pub const fn source_name(self) -> &'static str {
        self.profile().source
    }

    /// The bank's home currency, in which the table gives prices.
    pub const fn home(self) -> &'static str {
        self.profile().home
    }

    /// The default base URL of the bank: scheme and host, without a slash at the end.
    pub const fn base_url(self) -> &'static str {
        self.profile().base_url
    }

    /// The time zone of the dates in the table.
    pub const fn zone(self) -> Zone {
        self.profile().zone
    }

    /// The earliest time of day, in the bank's zone, at which the next table is expected. The module of each bank
    /// states whether the bank documents this time or silkrate chose it. A table may be published at any hour.
    pub const fn publication_time(self) -> NaiveTime {
        self.profile().publication_time
    }

    /// The number of decimal places to which the bank's rates are padded, before the point is moved for a nominal. 0 if
    /// the bank sends all trailing zeros.
    pub const fn minimum_places(self) -> u8 {
        self.profile().minimum_places
    }

    /// The currencies of a table that the bank publishes once a week; empty for other tables.
    pub const fn weekly_currencies(self) -> &'static [&'static str] {
        match self {
            Self::NbkrWeekly => &nbkr::WEEKLY_CURRENCIES,
            Self::NbkrDaily | Self::NbkByDate | Self::NbkNewest | Self::Nbt | Self::Cbu | Self::Cbt => &[],
        }
    }

    /// Returns true if the feed has tables of past days. Other feeds have only their newest table.
    pub const fn is_by_date(self) -> bool {
        matches!(self.profile().path, Path::ByDate(_))
    }
}

/// A request for the table of a day, or for the newest table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BankRequest {
    feed: BankFeed,
    date: NaiveDate,
}

/// Settings for parsing a table.
#[derive(Clone, Copy, Debug)]
pub struct BankRules<'a> {
    /// The served currencies. The table gives quotes only for these currencies, and no quotes if the bank's home
    /// currency is not served.
    pub served: &'a CurrencySet,
    /// Decimal places to which rates are padded before the point is moved for a nominal. `None` means [the default of
    /// the bank](BankFeed::minimum_places).
    pub minimum_places: Option<u8>,
}

impl BankRequest {
    /// Makes a request for the rates of `date`, a day in the bank's calendar. If the feed has only its newest table
    /// (see [`BankFeed::is_by_date`]), the request is for the newest table and ignores `date`.
    pub const fn new(feed: BankFeed, date: NaiveDate) -> Self {
        Self { feed, date }
    }

    /// The feed to which the table belongs.
    pub const fn feed(self) -> BankFeed {
        self.feed
    }

    /// The requested day; `None` if the feed has only its newest table. The date of the table must equal this day.
    pub const fn date(self) -> Option<NaiveDate> {
        if self.feed.is_by_date() { Some(self.date) } else { None }
    }

    /// The longest body that [`Self::read`] accepts, in bytes.
    pub const fn body_bytes_max(self) -> usize {
        body::BODY_BYTES_MAX
    }

    /// Returns the URL of the table under `base_url`, which replaces [the default of the bank](BankFeed::base_url).
    /// `base_url` has a scheme, a host and an optional path prefix, with or without a slash at the end.
    pub fn url(self, base_url: &str) -> String {
        let path = match self.feed.profile().path {
            Path::Newest(path) => path.to_owned(),
            Path::ByDate(path) => path(self.date),
        };
        format!("{}/{path}", base_url.trim_end_matches('/'))
    }

    /// Parses the body of the response. The content type and the character encoding of the HTTP headers are not used;
    /// transfer and content codings must be removed from the body.
    ///
    /// # Errors
    /// Returns a [`BankError`] if the whole table is refused. Single invalid entries are in [`BankTable::refused`]
    /// instead.
    pub fn read(self, body: &[u8], rules: &BankRules<'_>) -> Result<BankTable, BankError> {
        let text = body::decode(body)?;
        let raw = match &self.feed.profile().format {
            Format::Xml(layout) => layout.read(&text)?,
            Format::Json => json::read(&text)?,
        };
        table::validate(&raw, self, rules)
    }
}
