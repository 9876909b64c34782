//! The tables of official rates that five central banks publish.
//!
//! | feed | in | asked | a date | digits |
//! |---|---|---|---|---|
//! | NBKR daily, weekly | XML, windows-1251 | for the newest | of the table | decimal comma, four places always |
//! | NBK by date | XML, UTF-8 | for a day | of the table | trailing zeros dropped, of two places |
//! | NBK newest | RSS, UTF-8 | for the newest | of each entry | as above |
//! | NBT | XML, UTF-8 | for a day | of the table | four places always |
//! | CBU | JSON | for a day | of each entry | two places always |
//! | CBT | XML, UTF-8 | for a day | of the table | trailing zeros dropped, of four places |
//!
//! A table prices foreign currencies in the bank's own, some of them for 10, 100 or more units. A quote is for one
//! unit: 100 UZS = 0.0780 TJS is `UZS/TJS` 0.000780, the same digits with the point moved. Where a bank drops trailing
//! zeros they are put back first, so that 0.29 for 1,000 UZS, of four places, is 0.0002900.
//!
//! The date of a table is the day that its rates are *for*, by the calendar of the bank. The observed time of a quote
//! is the first instant of that day in the bank's zone. It is not the time of publication, which no table says and
//! which often is the afternoon before, and so it may lie ahead when it is read; nor is it the start of the day in
//! UTC, five or six hours later, when the rate has been in force all night. Two fetches of a table are one instant.
//!
//! **Invariant**: pure functions of a request and a body; nothing here fetches, waits or asks what time it is. No body
//! panics, and none costs more than time and memory linear in its length, which is limited. What cannot be read whole
//! gives nothing.

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
use table::DateForm;

pub use error::{BankError, BankQuoteError, RefusedBankQuote};
pub use table::{BankQuote, BankTable};

/// A table that a bank publishes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BankFeed {
    /// National Bank of the Kyrgyz Republic: five currencies, each working day.
    NbkrDaily,
    /// The same bank: forty others, each week.
    NbkrWeekly,
    /// National Bank of Kazakhstan, the table of a day.
    NbkByDate,
    /// The same bank: the newest table.
    NbkNewest,
    /// National Bank of Tajikistan.
    Nbt,
    /// Central Bank of the Republic of Uzbekistan.
    Cbu,
    /// Central Bank of Turkmenistan.
    Cbt,
}

/// What a feed is like.
struct Profile {
    /// Slug of the bank.
    source: &'static str,
    /// The currency that the table prices others in.
    home: &'static str,
    zone: Zone,
    /// Without a slash at its end.
    base_url: &'static str,
    path: Path,
    publication_time: NaiveTime,
    minimum_places: u8,
    /// Before the places of a rate.
    mark: char,
    dates: DateForm,
    format: Format,
}

/// What follows the base of a URL.
enum Path {
    /// The same every day.
    Newest(&'static str),
    /// Of a day.
    ByDate(fn(NaiveDate) -> String),
}

enum Format {
    Xml(Layout),
    Json,
}

/// A time of day in whole minutes, for a constant.
const fn clock(hour: u32, minute: u32) -> NaiveTime {
    match NaiveTime::from_hms_opt(hour, minute, 0) {
        Some(time) => time,
        None => panic!("no time of day"),
    }
}

impl BankFeed {
    /// All of them.
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

    /// The slug of the bank as a source, unless configured otherwise. Two tables of one bank are one source: they
    /// have no currency in common, or the same rates.
    pub const fn source_name(self) -> &'static str {
        self.profile().source
    }

    /// The bank's own currency, in which the table prices others.
    pub const fn home(self) -> &'static str {
        self.profile().home
    }

    /// Where the bank's server is, unless configured otherwise: scheme and host, without a slash at the end.
    pub const fn base_url(self) -> &'static str {
        self.profile().base_url
    }

    /// Whose days the dates of the table are.
    pub const fn zone(self) -> Zone {
        self.profile().zone
    }

    /// The time of day in the bank's zone from which the next table is worth looking for. Each bank's module says
    /// whether it is known or merely tried; a table may come at any hour.
    pub const fn publication_time(self) -> NaiveTime {
        self.profile().publication_time
    }

    /// The places that the bank measures to where it drops trailing zeros, before the point is moved for a nominal;
    /// 0 where it sends all.
    pub const fn minimum_places(self) -> u8 {
        self.profile().minimum_places
    }

    /// Whether it can be asked for a past day. The others answer with their newest table alone.
    pub const fn is_by_date(self) -> bool {
        matches!(self.profile().path, Path::ByDate(_))
    }
}

/// A table that is asked for, of a day or the newest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BankRequest {
    feed: BankFeed,
    date: NaiveDate,
}

/// What is taken from a table.
#[derive(Clone, Copy, Debug)]
pub struct BankRules<'a> {
    /// Quotes of these currencies; the bank's own must be among them.
    pub served: &'a CurrencySet,
    /// Places to pad rates to, before the point is moved for a nominal; none for
    /// [the bank's own](BankFeed::minimum_places).
    pub minimum_places: Option<u8>,
}

impl BankRequest {
    /// Asks a feed for the rates of `date`, a day of the bank's calendar. Of a feed that is not
    /// [by date](BankFeed::is_by_date) it asks for the newest table, whatever the day.
    pub const fn new(feed: BankFeed, date: NaiveDate) -> Self {
        Self { feed, date }
    }

    /// Which table.
    pub const fn feed(self) -> BankFeed {
        self.feed
    }

    /// The day asked for, which the answer's must equal; none of a feed that has only its newest table.
    pub const fn date(self) -> Option<NaiveDate> {
        if self.feed.is_by_date() { Some(self.date) } else { None }
    }

    /// The longest body that [`Self::read`] takes, in bytes.
    pub const fn body_bytes_max(self) -> usize {
        body::BODY_BYTES_MAX
    }

    /// What to fetch, at `base_url` in place of [the bank's own](BankFeed::base_url): scheme, host and whatever
    /// stands before the bank's path, with or without a slash at the end.
    pub fn url(self, base_url: &str) -> String {
        let path = match self.feed.profile().path {
            Path::Newest(path) => path.to_owned(),
            Path::ByDate(path) => path(self.date),
        };
        format!("{}/{path}", base_url.trim_end_matches('/'))
    }

    /// Reads the answer: its body, of any content type and without what a transfer says of its encoding.
    ///
    /// # Errors
    /// Any [`BankError`], and then nothing of the body is to be taken in. Single bad entries are in
    /// [`BankTable::refused`] instead.
    pub fn read(self, body: &[u8], rules: &BankRules<'_>) -> Result<BankTable, BankError> {
        let text = body::decode(body)?;
        let raw = match &self.feed.profile().format {
            Format::Xml(layout) => layout.read(&text)?,
            Format::Json => json::read(&text)?,
        };
        table::judge(&raw, self, rules)
    }
}
