//! The National Bank of the Kyrgyz Republic, `nbkr`: the som.
//!
//! - Rates are set about 15:30 in Bishkek (UTC+6 all year) and are for the next day of the calendar. The file is
//!   dated anew every day: Sunday's repeats Saturday's rates.
//! - The daily table has five currencies, of those served by default USD and KZT. The weekly has forty others, TJS,
//!   TMT and UZS among them, each valid for seven days (`ValidFor`) from the table's date, which is its only quote.
//! - windows-1251 is declared, and all is ASCII. Values have a decimal comma and four places, trailing zeros kept.
//! - There is no table of a past day at these addresses.

use super::layout::{DatePlace, Layout, Place};
use super::table::DateForm;
use super::{Format, Path, Profile, clock};
use crate::analysis::Zone;

pub(super) const DAILY: Profile = Profile {
    source: "nbkr",
    home: "KGS",
    zone: Zone::BISHKEK,
    base_url: "https://www.nbkr.kg",
    path: Path::Newest("XML/daily.xml"),
    publication_time: clock(15, 30),
    minimum_places: 0,
    mark: ',',
    dates: DateForm::DayFirst,
    format: Format::Xml(Layout {
        root: "CurrencyRates",
        holders: &[],
        entry: "Currency",
        code: Place::Attribute("ISOCode"),
        nominal: "Nominal",
        rate: "Value",
        difference: None,
        date: DatePlace::Root(Place::Attribute("Date")),
    }),
};

pub(super) const WEEKLY: Profile = Profile { path: Path::Newest("XML/weekly.xml"), ..DAILY };
