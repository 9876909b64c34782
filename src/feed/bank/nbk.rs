//! The National Bank of Kazakhstan, `nbk`: the tenge.
//!
//! - When a table comes is not stated; that it is looked for from 15:30 is our choice. Sunday and Monday repeat
//!   Saturday. The zone is Almaty's, UTC+6 until the end of February 2024 and UTC+5 since.
//! - `get_rates.cfm` answers for a day. Without a date, or with one that it cannot read, it answers with an object in
//!   JSON and status 200, which is [`super::BankError::NotThisFormat`].
//! - `rates_all.xml` is the newest table as RSS, each entry with a date of its own. Old copies have years of two digits.
//! - Rates have two places and lose their trailing zeros (`179.5`, `3`). `quant` is the nominal. `change` is the
//!   difference from the table before, for the nominal, sign and zeros kept.

use chrono::NaiveDate;

use super::layout::{DatePlace, Layout, Place};
use super::table::DateForm;
use super::{Format, Path, Profile, clock};
use crate::analysis::Zone;

const LAYOUT: Layout = Layout {
    root: "rates",
    holders: &[],
    entry: "item",
    code: Place::Child("title"),
    nominal: "quant",
    rate: "description",
    difference: Some("change"),
    date: DatePlace::Root(Place::Child("date")),
};

pub(super) const BY_DATE: Profile = Profile {
    source: "nbk",
    home: "KZT",
    zone: Zone::ALMATY,
    base_url: "https://nationalbank.kz",
    path: Path::ByDate(path),
    publication_time: clock(15, 30),
    minimum_places: 2,
    mark: '.',
    dates: DateForm::DayFirst,
    format: Format::Xml(LAYOUT),
};

pub(super) const NEWEST: Profile = Profile {
    path: Path::Newest("rss/rates_all.xml"),
    dates: DateForm::DayFirstShort,
    format: Format::Xml(Layout { root: "rss", holders: &["channel"], date: DatePlace::Entry("pubDate"), ..LAYOUT }),
    ..BY_DATE
};

fn path(date: NaiveDate) -> String {
    format!("rss/get_rates.cfm?fdate={}", date.format("%d.%m.%Y"))
}
