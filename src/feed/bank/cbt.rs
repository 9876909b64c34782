//! The Central Bank of Turkmenistan, `cbt`: the manat, pegged at 3.5 to the dollar.
//!
//! - When a table comes is not stated; that it is looked for from 09:00 in Ashgabat (UTC+5 all year) is our choice.
//!   The server is often out of reach, and answers 404 on Sundays.
//! - `rate_tmt` is the price of `multiplier` units in manats, of four places, trailing zeros dropped (`3.5`, `0.29`).
//! - `rate_usd` is not read: it is the market's rate to the dollar, now one way round and now the other by the custom
//!   of each currency, which the entry does not say. `checksum` is of a function that is not stated.

use chrono::NaiveDate;

use super::layout::{DatePlace, Layout, Place};
use super::table::DateForm;
use super::{Format, Path, Profile, clock};
use crate::analysis::Zone;

pub(super) const PROFILE: Profile = Profile {
    source: "cbt",
    home: "TMT",
    zone: Zone::ASHGABAT,
    base_url: "https://cbt.tm",
    path: Path::ByDate(path),
    publication_time: clock(9, 0),
    minimum_places: 4,
    mark: '.',
    dates: DateForm::DayFirst,
    format: Format::Xml(Layout {
        root: "cbt_currency_rate",
        holders: &[],
        entry: "rate",
        code: Place::Attribute("code"),
        nominal: "multiplier",
        rate: "rate_tmt",
        difference: None,
        date: DatePlace::Root(Place::Child("date")),
    }),
};

fn path(date: NaiveDate) -> String {
    format!("kurs/{}", date.format("%Y/%d%m%Y.xml"))
}
