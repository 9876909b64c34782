//! The report of a backfill, for people and for programs.

use std::io;

use chrono::NaiveDate;

use crate::cli::output::{Column, Format, RowWriter, record};
use crate::cli::text::{clean, describe_held};
use crate::cli::value::Value;
use crate::cli::{Session, note, stdout};
use crate::proto::v1::{IngestSummary, IngestTicksResponse, QuarantineState};

/// Maximum number of remarks, and of days with another day's table, in the text output. The counts are complete.
pub(super) const REFUSALS_SHOWN_MAX: usize = 20;

/// A day for which the bank returned the table of another day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OtherDate {
    /// The requested day.
    pub(super) asked: NaiveDate,
    /// The day of the returned table.
    pub(super) found: NaiveDate,
}

/// Counts of the days and ticks so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    source: &'static str,
    from: NaiveDate,
    to: NaiveDate,
    /// Days that the server already had and that were not fetched.
    pub(super) known_day_count: u64,
    /// Number of tables read.
    pub(super) table_count: u64,
    /// Days for which the bank has no table.
    pub(super) absent_day_count: u64,
    /// Days whose table cannot be parsed.
    pub(super) unreadable_day_count: u64,
    pub(super) other_dates: Vec<OtherDate>,
    new_run_count: u64,
    collapsed_count: u64,
    known_count: u64,
    revised_count: u64,
    /// Ticks that the server refused, and table entries that cannot be parsed.
    pub(super) refused_count: u64,
    quarantined_count: u64,
    /// Held ticks that an operator had discarded earlier.
    discarded_count: u64,
    sequence: u64,
    /// The first refusals and parse errors.
    remarks: Vec<String>,
}

impl Report {
    pub(super) fn new(source: &'static str, from: NaiveDate, to: NaiveDate) -> Self {
        Self { source, from, to, ..Self::default() }
    }

    /// Adds the server's response for a day.
    pub(super) fn add(&mut self, day: NaiveDate, answer: &IngestTicksResponse) {
        let summary = answer.summary.unwrap_or_default();
        let IngestSummary {
            new_run_count,
            collapsed_count,
            known_count,
            revised_count,
            refused_count,
            quarantined_count,
            ..
        } = summary;
        self.new_run_count += u64::from(new_run_count);
        self.collapsed_count += u64::from(collapsed_count);
        self.known_count += u64::from(known_count);
        self.revised_count += u64::from(revised_count);
        self.refused_count += u64::from(refused_count);
        self.quarantined_count += u64::from(quarantined_count);
        let discarded = answer.held_ticks.iter().filter(|held| held.state() == QuarantineState::Discarded);
        self.discarded_count += discarded.count() as u64;
        self.sequence = answer.sequence;
        for refusal in &answer.refusals {
            self.remark(format!("{day}: {}", clean(&refusal.message)));
        }
    }

    /// Adds a remark, up to [`REFUSALS_SHOWN_MAX`] remarks.
    pub(super) fn remark(&mut self, remark: String) {
        if self.remarks.len() < REFUSALS_SHOWN_MAX {
            self.remarks.push(remark);
        }
    }

    /// Returns true if every received table could be read, and no rate was refused or held.
    pub(super) fn is_clean(&self) -> bool {
        self.refused_count + self.quarantined_count + self.unreadable_day_count == 0
    }

    /// Returns true if no day was known and the bank returned no table at all.
    fn has_no_tables(&self) -> bool {
        self.known_day_count + self.table_count + self.unreadable_day_count == 0 && self.other_dates.is_empty()
    }

    /// The notes below the summary.
    fn lines(&self) -> Vec<String> {
        let mut lines = self.remarks.clone();
        let unshown = self.refused_count + self.unreadable_day_count;
        let unshown = unshown.saturating_sub(u64::try_from(lines.len()).unwrap_or(u64::MAX));
        if unshown > 0 {
            lines.push(format!("{unshown} more refused rates or unreadable tables"));
        }
        if self.absent_day_count > 0 && self.has_no_tables() {
            lines.push(
                "the bank has no table for any of these days; if that is wrong, check the URL of the bank".to_owned(),
            );
        }
        lines.extend(describe_held(self.quarantined_count, self.discarded_count));
        let shown = self.other_dates.iter().take(REFUSALS_SHOWN_MAX);
        lines.extend(shown.map(|day| format!("{}: skipped: the bank returned the table of {}", day.asked, day.found)));
        let unshown = self.other_dates.len().saturating_sub(REFUSALS_SHOWN_MAX);
        if unshown > 0 {
            lines.push(format!("{unshown} more days with the table of another day; --output json lists them"));
        }
        lines
    }
}

const COLUMNS: &[Column<Report>] = &[
    Column::new("source", "source", |row| Value::text(row.source)),
    Column::new("from", "from", |row| Value::text(&row.from.to_string())),
    Column::new("to", "to", |row| Value::text(&row.to.to_string())),
    Column::new("known_day_count", "known days", |row| Value::Count(row.known_day_count)),
    Column::new("table_count", "tables", |row| Value::Count(row.table_count)),
    Column::new("absent_day_count", "absent", |row| Value::Count(row.absent_day_count)),
    Column::new("other_date_count", "other date", |row| {
        Value::Count(u64::try_from(row.other_dates.len()).unwrap_or(u64::MAX))
    }),
    Column::new("unreadable_day_count", "unreadable", |row| Value::Count(row.unreadable_day_count)),
    Column::new("new_run_count", "new runs", |row| Value::Count(row.new_run_count)),
    Column::new("collapsed_count", "collapsed", |row| Value::Count(row.collapsed_count)),
    Column::new("known_count", "known", |row| Value::Count(row.known_count)),
    Column::new("revised_count", "revised", |row| Value::Count(row.revised_count)),
    Column::new("refused_count", "refused", |row| Value::Count(row.refused_count)),
    Column::new("quarantined_count", "held", |row| Value::Count(row.quarantined_count)),
    Column::data("sequence", |row| Value::Count(row.sequence)),
    Column::json("other_dates", |row| {
        Value::List(row.other_dates.iter().map(|day| record(OTHER_DATE_COLUMNS, day)).collect())
    }),
    Column::json("remarks", |row| Value::List(row.remarks.iter().map(|remark| Value::text(remark)).collect())),
];

const OTHER_DATE_COLUMNS: &[Column<OtherDate>] = &[
    Column::data("asked", |day| Value::text(&day.asked.to_string())),
    Column::data("found", |day| Value::text(&day.found.to_string())),
];

/// Prints the summary, and notes below it unless the format is JSON.
pub(super) fn print(report: &Report, session: &Session, dry_run: bool) -> io::Result<()> {
    let mut writer = RowWriter::new(stdout(), session.style, COLUMNS)?;
    writer.row(report)?;
    writer.finish()?;
    if session.style.format != Format::Json {
        report.lines().iter().for_each(|line| note(line));
    }
    if dry_run && session.is_table() {
        note("dry run: nothing was stored");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_limited_and_the_rest_is_counted() {
        let day = NaiveDate::from_ymd_opt(2026, 5, 18).unwrap();
        let mut report = Report::new("cbu", day, day);
        assert!(report.is_clean() && report.lines().is_empty());
        // Days without a table are not noted, unless no day has a table.
        report.absent_day_count = 7;
        assert_eq!(
            report.lines(),
            ["the bank has no table for any of these days; if that is wrong, check the URL of the bank"]
        );
        report.table_count = 1;
        assert!(report.is_clean() && report.lines().is_empty());
        report.other_dates = vec![OtherDate { asked: day, found: day.pred_opt().unwrap() }; REFUSALS_SHOWN_MAX + 2];
        assert!(report.is_clean());
        for number in 0..REFUSALS_SHOWN_MAX + 3 {
            report.refused_count += 1;
            report.remark(format!("remark {number}"));
        }
        assert!(!report.is_clean());
        let lines = report.lines();
        assert_eq!(lines.len(), 2 * REFUSALS_SHOWN_MAX + 2);
        assert_eq!(lines[REFUSALS_SHOWN_MAX], "3 more refused rates or unreadable tables");
        assert_eq!(lines[REFUSALS_SHOWN_MAX + 1], "2026-05-18: skipped: the bank returned the table of 2026-05-17");
        assert!(lines.last().unwrap().starts_with("2 more days"));
    }
}
