//! Table of the Central Bank of Turkmenistan, `cbt`. Home currency: the manat, pegged at 3.5 to the dollar.
//!
//! - The bank does not state a publication time. silkrate expects the table at 09:00 in Ashgabat (UTC+5 all year) or
//!   later. The server is often unreachable, and answers 404 on Sundays.
//! - `rate_tmt` is the price of `multiplier` units in manats. It has four decimal places, with trailing zeros dropped
//!   (`3.5`, `0.29`).
//! - The parser ignores `rate_usd`, the market rate against the dollar. By market convention this rate is dollars per
//!   unit for some currencies and units per dollar for others. The entry does not state which of the two it is. The
//!   parser also ignores `checksum`, because its function is not documented.

use chrono::NaiveDate;

use super::layout::{DateLocation, Layout, Location};
use super::table::DateFormat;
use super::{Format, Path, Profile, time_of_day};
use crate::analysis::Zone;

pub(super) const PROFILE: Profile = Profile {
    source: "cbt",
    home: "TMT",
    zone: Zone::ASHGABAT,
    base_url: "https://cbt.tm",
    path: Path::ByDate(path),
    publication_time: time_of_day(9, 0),
    minimum_places: 4,
    decimal_mark: '.',
    date_format: DateFormat::DayFirst,
    format: Format::Xml(Layout {
        root: "cbt_currency_rate",
        containers: &[],
        entry: "rate",
        code: Location::Attribute("code"),
        nominal: "multiplier",
        rate: "rate_tmt",
        difference: None,
        valid_for: None,
        date: DateLocation::Root(Location::Child("date")),
    }),
};

fn path(date: NaiveDate) -> String {
    format!("kurs/{}", date.format("%Y/%d%m%Y.xml"))
}
