//! Tables of the National Bank of Kazakhstan, `nbk`. Home currency: the tenge.
//!
//! - The bank does not state a publication time. silkrate expects the table at 15:30 or later. The tables of Sunday and
//!   Monday repeat the rates of Saturday. The zone is Almaty: UTC+6 until the end of February 2024, and UTC+5 since
//!   then.
//! - `get_rates.cfm` has the table of a day. The response to a request without a valid date is a JSON object with
//!   status 200. The parser refuses this object with [`super::BankError::NotThisFormat`].
//! - `rates_all.xml` has the newest table as RSS, in which each entry has its own date. Old copies have two-digit
//!   years.
//! - Rates have two decimal places, with trailing zeros dropped (`179.5`, `3`). `quant` is the nominal. `change` is the
//!   difference from the previous table, for the nominal, with its sign and trailing zeros.

use chrono::NaiveDate;

use super::layout::{DateLocation, Layout, Location};
use super::table::DateFormat;
use super::{Format, Path, Profile, time_of_day};
use crate::analysis::Zone;

const LAYOUT: Layout = Layout {
    root: "rates",
    containers: &[],
    entry: "item",
    code: Location::Child("title"),
    nominal: "quant",
    rate: "description",
    difference: Some("change"),
    valid_for: None,
    date: DateLocation::Root(Location::Child("date")),
};

pub(super) const BY_DATE: Profile = Profile {
    source: "nbk",
    home: "KZT",
    zone: Zone::ALMATY,
    base_url: "https://nationalbank.kz",
    path: Path::ByDate(path),
    publication_time: time_of_day(15, 30),
    minimum_places: 2,
    decimal_mark: '.',
    date_format: DateFormat::DayFirst,
    format: Format::Xml(LAYOUT),
};

pub(super) const NEWEST: Profile = Profile {
    path: Path::Newest("rss/rates_all.xml"),
    date_format: DateFormat::DayFirstShort,
    format: Format::Xml(Layout {
        root: "rss",
        containers: &["channel"],
        date: DateLocation::Entry("pubDate"),
        ..LAYOUT
    }),
    ..BY_DATE
};

fn path(date: NaiveDate) -> String {
    format!("rss/get_rates.cfm?fdate={}", date.format("%d.%m.%Y"))
}
