//! Table of the Central Bank of the Republic of Uzbekistan, `cbu`. Home currency: the sum.
//!
//! - The bank announces the rates of a day on the day before. silkrate expects them at 15:00 in Tashkent (UTC+5 all
//!   year) or later. In 2017 the bank published one table a week, for Tuesday, so most days of that year have no table.
//! - A table is a JSON array, and each entry has its own `Date`. `Nominal`, `Rate` and `Diff` are strings.
//! - Rates have two decimal places, with trailing zeros. `Diff` is the difference from the previous table, for the
//!   nominal, without a plus sign and without trailing zeros (`-16.5`).
//! - Published rates can be wrong: TMT was 4037.68 on 2026-04-01 and 3469.17 on the next day.

use chrono::NaiveDate;

use super::table::DateFormat;
use super::{Format, Path, Profile, time_of_day};
use crate::analysis::Zone;

pub(super) const PROFILE: Profile = Profile {
    source: "cbu",
    home: "UZS",
    zone: Zone::TASHKENT,
    base_url: "https://cbu.uz",
    path: Path::ByDate(path),
    publication_time: time_of_day(15, 0),
    minimum_places: 0,
    decimal_mark: '.',
    date_format: DateFormat::DayFirst,
    format: Format::Json,
};

fn path(date: NaiveDate) -> String {
    format!("en/arkhiv-kursov-valyut/json/all/{}/", date.format("%Y-%m-%d"))
}
