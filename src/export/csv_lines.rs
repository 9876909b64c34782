//! Writes rows as lines of CSV.
//!
//! **Invariant**: a rate and a reported change are written with the digits that were published, including trailing
//! zeros, which a decimal column with a fixed scale cannot keep.

use std::fmt;
use std::fmt::Write as _;
use std::io;

use chrono::{Datelike as _, NaiveDate};

use super::names::Names;
use super::row::Cells;
use super::schema::Column;
use crate::domain::{ReportedChange, Timestamp};

/// Collects the cells of one row.
pub(super) struct CsvLine<'n> {
    columns: &'static [Column],
    names: &'n Names,
    record: csv::StringRecord,
    /// Reused buffer for the text of a cell.
    text: String,
}

impl<'n> CsvLine<'n> {
    pub(super) fn new(columns: &'static [Column], names: &'n Names) -> Self {
        Self { columns, names, record: csv::StringRecord::new(), text: String::new() }
    }

    /// Writes the collected row and clears it.
    pub(super) fn end_row<W: io::Write>(&mut self, out: &mut csv::Writer<W>) -> Result<(), csv::Error> {
        debug_assert_eq!(self.record.len(), self.columns.len(), "a row must have one cell for each column");
        out.write_record(&self.record)?;
        self.record.clear();
        Ok(())
    }

    fn push(&mut self, value: &impl fmt::Display) {
        self.text.clear();
        // Writing to a string does not fail.
        let _ = write!(self.text, "{value}");
        self.record.push_field(&self.text);
    }

    fn push_option(&mut self, value: Option<impl fmt::Display>) {
        match value {
            Some(value) => self.push(&value),
            None => self.record.push_field(""),
        }
    }
}

impl Cells for CsvLine<'_> {
    fn name(&mut self, number: u32) {
        let column = &self.columns[self.record.len()];
        self.record.push_field(self.names.list(column).text(number));
    }

    fn text(&mut self, text: Option<&str>) {
        self.record.push_field(text.unwrap_or_default());
    }

    fn time(&mut self, time: Option<Timestamp>) {
        self.push_option(time);
    }

    fn date(&mut self, day: i32) {
        self.push(&date(day));
    }

    fn decimal(&mut self, _: u128, _: u8, text: &impl fmt::Display) {
        self.push(text);
    }

    fn change(&mut self, change: Option<ReportedChange>) {
        self.push_option(change);
    }

    fn double(&mut self, double: f64) {
        self.push(&double);
    }

    fn places(&mut self, places: Option<u8>) {
        self.push_option(places);
    }

    fn count(&mut self, count: u64) {
        self.push(&count);
    }

    fn micros(&mut self, micros: i64) {
        self.push(&micros);
    }

    fn flag(&mut self, flag: Option<bool>) {
        self.push_option(flag);
    }
}

fn date(day: i32) -> NaiveDate {
    let days_of_common_era = day.saturating_add(NaiveDate::default().num_days_from_ce());
    NaiveDate::from_num_days_from_ce_opt(days_of_common_era).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn day_numbers_convert_to_dates_before_and_after_1970() {
        let check = |day: i32, expect: &str| assert_eq!(date(day).to_string(), expect);
        check(0, "1970-01-01");
        check(-1, "1969-12-31");
        check(20_430, "2025-12-08");
    }
}
