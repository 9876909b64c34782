//! Table of the National Bank of Tajikistan, `nbt`. Home currency: the somoni.
//!
//! - The bank does not state a publication time. silkrate expects the table at noon in Dushanbe (UTC+5 all year) or
//!   later. The tables of the weekend repeat the rates of Friday.
//! - For a day without a table the bank answers with today's table. The date of the root element is the only sign of
//!   this. The parser compares the date, and returns [`super::BankError::OtherDate`].
//! - Values have a decimal point and four decimal places, with trailing zeros. Nominals are 1 to 1,000; the nominal of
//!   UZS is 100.

use chrono::NaiveDate;

use super::layout::{DateLocation, Layout, Location};
use super::table::DateFormat;
use super::{Format, Path, Profile, time_of_day};
use crate::analysis::Zone;

pub(super) const PROFILE: Profile = Profile {
    source: "nbt",
    home: "TJS",
    zone: Zone::DUSHANBE,
    base_url: "https://www.nbt.tj",
    path: Path::ByDate(path),
    publication_time: time_of_day(12, 0),
    minimum_places: 0,
    decimal_mark: '.',
    date_format: DateFormat::YearFirst,
    format: Format::Xml(Layout {
        root: "ValCurs",
        containers: &[],
        entry: "Valute",
        code: Location::Child("CharCode"),
        nominal: "Nominal",
        rate: "Value",
        difference: None,
        valid_for: None,
        date: DateLocation::Root(Location::Attribute("Date")),
    }),
};

fn path(date: NaiveDate) -> String {
    format!("en/kurs/export_xml.php?date={}&export=xmlout", date.format("%Y-%m-%d"))
}
