//! What became of the days of a bank, for people and for programs.

use std::io;

use chrono::NaiveDate;

use crate::cli::output::{Column, Format, Sheet, record};
use crate::cli::text::{clean, held_in_words};
use crate::cli::value::Value;
use crate::cli::{Session, note, stdout};
use crate::proto::v1::{IngestSummary, IngestTicksResponse, QuarantineState};

/// Remarks, and days with another day's table, that are shown to people; all are counted.
pub(super) const REFUSALS_SHOWN_MAX: usize = 20;

/// A day for which the bank answered with another day's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OtherDate {
    pub(super) asked: NaiveDate,
    pub(super) found: NaiveDate,
}

/// What became of the days so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    source: &'static str,
    from: NaiveDate,
    to: NaiveDate,
    /// Days that the server had, and that were not fetched.
    pub(super) known_day_count: u64,
    /// Tables read.
    pub(super) table_count: u64,
    pub(super) absent_day_count: u64,
    pub(super) unreadable_day_count: u64,
    pub(super) other_dates: Vec<OtherDate>,
    new_run_count: u64,
    collapsed_count: u64,
    known_count: u64,
    revised_count: u64,
    /// By the server, and entries of tables that could not be read.
    pub(super) refused_count: u64,
    quarantined_count: u64,
    /// Of them, discarded before.
    discarded_count: u64,
    sequence: u64,
    /// The first of what was refused or could not be read.
    remarks: Vec<String>,
}

impl Report {
    pub(super) fn new(source: &'static str, from: NaiveDate, to: NaiveDate) -> Self {
        Self { source, from, to, ..Self::default() }
    }

    /// Adds what the server said of a day.
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

    /// Keeps a remark while there is room; the counts are complete either way.
    pub(super) fn remark(&mut self, remark: String) {
        if self.remarks.len() < REFUSALS_SHOWN_MAX {
            self.remarks.push(remark);
        }
    }

    /// Whether all that the bank had of those days went in.
    pub(super) fn is_clean(&self) -> bool {
        self.refused_count + self.quarantined_count + self.unreadable_day_count == 0
    }

    /// Whether no day was known, and none had a table of any kind.
    fn had_nothing(&self) -> bool {
        self.known_day_count + self.table_count + self.unreadable_day_count == 0 && self.other_dates.is_empty()
    }

    /// Lines for people.
    fn lines(&self) -> Vec<String> {
        let mut lines = self.remarks.clone();
        let unshown = self.refused_count + self.unreadable_day_count;
        let unshown = unshown.saturating_sub(u64::try_from(lines.len()).unwrap_or(u64::MAX));
        if unshown > 0 {
            lines.push(format!("{unshown} more refused or not readable"));
        }
        if self.absent_day_count > 0 && self.had_nothing() {
            lines.push("the bank had no table for any of these days; if that cannot be, check its URL".to_owned());
        }
        lines.extend(held_in_words(self.quarantined_count, self.discarded_count));
        let shown = self.other_dates.iter().take(REFUSALS_SHOWN_MAX);
        lines.extend(shown.map(|day| format!("{}: passed over, answered with the table of {}", day.asked, day.found)));
        let unshown = self.other_dates.len().saturating_sub(REFUSALS_SHOWN_MAX);
        if unshown > 0 {
            lines.push(format!("{unshown} more days answered with another day's table; --output json lists them"));
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

/// The summary, and for people what is to be looked at.
pub(super) fn print(report: &Report, session: &Session, dry_run: bool) -> io::Result<()> {
    let mut sheet = Sheet::new(stdout(), session.style, COLUMNS)?;
    sheet.row(report)?;
    sheet.finish()?;
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
    fn people_see_the_first_of_everything_and_a_count_of_the_rest() {
        let day = NaiveDate::from_ymd_opt(2026, 5, 18).unwrap();
        let mut report = Report::new("cbu", day, day);
        assert!(report.is_clean() && report.lines().is_empty());
        // Days without a table are nothing to look at, unless there is nothing else.
        report.absent_day_count = 7;
        assert_eq!(report.lines(), ["the bank had no table for any of these days; if that cannot be, check its URL"]);
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
        assert_eq!(lines[REFUSALS_SHOWN_MAX], "3 more refused or not readable");
        assert_eq!(lines[REFUSALS_SHOWN_MAX + 1], "2026-05-18: passed over, answered with the table of 2026-05-17");
        assert!(lines.last().unwrap().starts_with("2 more days"));
    }
}
