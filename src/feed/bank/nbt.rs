//! The National Bank of Tajikistan, `nbt`: the somoni.
//!
//! - When a table comes is not stated; that it is looked for from noon in Dushanbe (UTC+5 all year) is our choice.
//!   The weekend repeats Friday.
//! - For a day that it lacks the bank answers with today's table, and only the root's date tells:
//!   [`super::BankError::OtherDate`].
//! - Values have a decimal point and four places, trailing zeros kept. Nominals are 1 to 1,000, 100 for UZS.

use chrono::NaiveDate;

use super::layout::{DatePlace, Layout, Place};
use super::table::DateForm;
use super::{Format, Path, Profile, clock};
use crate::analysis::Zone;

pub(super) const PROFILE: Profile = Profile {
    source: "nbt",
    home: "TJS",
    zone: Zone::DUSHANBE,
    base_url: "https://www.nbt.tj",
    path: Path::ByDate(path),
    publication_time: clock(12, 0),
    minimum_places: 0,
    mark: '.',
    dates: DateForm::YearFirst,
    format: Format::Xml(Layout {
        root: "ValCurs",
        holders: &[],
        entry: "Valute",
        code: Place::Child("CharCode"),
        nominal: "Nominal",
        rate: "Value",
        difference: None,
        date: DatePlace::Root(Place::Attribute("Date")),
    }),
};

fn path(date: NaiveDate) -> String {
    format!("en/kurs/export_xml.php?date={}&export=xmlout", date.format("%Y-%m-%d"))
}
