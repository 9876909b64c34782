//! Tables of the National Bank of the Kyrgyz Republic, `nbkr`. Home currency: the som.
//!
//! - The bank sets rates at about 15:30 in Bishkek (UTC+6 all year), for the next calendar day. The file gets a new
//!   date every day: Sunday's file repeats Saturday's rates.
//! - The daily table has five currencies. Two of them are served by default: USD and KZT. The weekly table has forty
//!   others. Three of them are served by default: TJS, TMT and UZS. A weekly rate is valid for seven days (`ValidFor`)
//!   from the date of the table, but gives only one quote, at that date.
//! - The weekly rates are published on Saturdays, or on the next working day. Their built-in stale limit of nine days is
//!   the validity and two days.
//! - The file declares windows-1251 and has only ASCII characters. Values have a decimal comma and four decimal places,
//!   with trailing zeros.
//! - These URLs have no tables of past days.

use super::layout::{DateLocation, Layout, Location};
use super::table::DateFormat;
use super::{Format, Path, Profile, time_of_day};
use crate::analysis::Zone;

pub(super) const DAILY: Profile = Profile {
    source: "nbkr",
    home: "KGS",
    zone: Zone::BISHKEK,
    base_url: "https://www.nbkr.kg",
    path: Path::Newest("XML/daily.xml"),
    publication_time: time_of_day(15, 30),
    minimum_places: 0,
    decimal_mark: ',',
    date_format: DateFormat::DayFirst,
    format: Format::Xml(Layout {
        root: "CurrencyRates",
        containers: &[],
        entry: "Currency",
        code: Location::Attribute("ISOCode"),
        nominal: "Nominal",
        rate: "Value",
        difference: None,
        valid_for: Some("ValidFor"),
        date: DateLocation::Root(Location::Attribute("Date")),
    }),
};

/// The currencies of the weekly table.
pub(super) const WEEKLY_CURRENCIES: [&str; 40] = [
    "AED", "AFN", "AMD", "AUD", "AZN", "BRL", "BYN", "BYR", "CAD", "CHF", "CZK", "DKK", "GBP", "GEL", "HKD", "HUF",
    "IDR", "INR", "IRR", "JPY", "KRW", "KWD", "MDL", "MNT", "MYR", "NOK", "NZD", "OMR", "PKR", "PLN", "SAR", "SEK",
    "SGD", "TJS", "TMT", "TRY", "TWD", "UAH", "UZS", "XDR",
];

pub(super) const WEEKLY: Profile = Profile { path: Path::Newest("XML/weekly.xml"), ..DAILY };
