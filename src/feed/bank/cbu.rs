//! The Central Bank of the Republic of Uzbekistan, `cbu`: the sum.
//!
//! - The rate of a day is announced the day before; that it is looked for from 15:00 in Tashkent (UTC+5 all year) is
//!   our choice. In 2017 there was one table a week, of Tuesdays, so that most days have none of their own.
//! - A table is an array in JSON, and each entry has its own `Date`. `Nominal`, `Rate` and `Diff` are strings.
//! - Rates have two places, trailing zeros kept. `Diff` is the difference from the table before, for the nominal,
//!   without a plus sign and without trailing zeros (`-16.5`).
//! - What is published is not always right: TMT at 4037.68 on 2026-04-01 was 3469.17 the next day.

use chrono::NaiveDate;

use super::table::DateForm;
use super::{Format, Path, Profile, clock};
use crate::analysis::Zone;

pub(super) const PROFILE: Profile = Profile {
    source: "cbu",
    home: "UZS",
    zone: Zone::TASHKENT,
    base_url: "https://cbu.uz",
    path: Path::ByDate(path),
    publication_time: clock(15, 0),
    minimum_places: 0,
    mark: '.',
    dates: DateForm::DayFirst,
    format: Format::Json,
};

fn path(date: NaiveDate) -> String {
    format!("en/arkhiv-kursov-valyut/json/all/{}/", date.format("%Y-%m-%d"))
}
