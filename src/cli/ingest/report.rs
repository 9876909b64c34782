//! The report of a file, for people and for programs.

use crate::cli::flags::with_flag_phrases;
use crate::cli::output::{Column, record};
use crate::cli::quarantine::state;
use crate::cli::runs;
use crate::cli::text::{clean, describe_held};
use crate::cli::value::Value;
use crate::proto::v1::{HeldTick, IngestSummary, QuarantineState, Refusal, RefusalReason, Tick};

/// Maximum number of refusals in the text output; the others are only counted.
pub(super) const REFUSALS_SHOWN_MAX: usize = 20;
/// Maximum number of refusals, and of held ticks, kept for JSON output, so that a large file of invalid rows does not
/// exhaust memory.
pub(super) const REFUSALS_KEPT_MAX: usize = 100_000;

/// A tick or row that was not stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refused {
    /// Line number in a CSV file or row number in a Parquet file, from 1.
    pub(super) line: Option<u64>,
    /// Index of the pair on its page, from 0.
    pub(super) index: Option<u64>,
    /// Name of the proto enum value without its prefix, or `MALFORMED_ROW`.
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) stored_rate: Option<String>,
    pub(super) stored_reported_change_percent: Option<String>,
}

/// A tick that the server holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Held {
    /// See [`Refused::line`].
    line: Option<u64>,
    /// See [`Refused::index`].
    index: Option<u64>,
    /// Id for release and discard; `None` in a dry run.
    id: Option<u64>,
    state: QuarantineState,
    rate_in_force: String,
}

/// Counts and details of a file so far.
#[derive(Clone, Debug, Default)]
pub(super) struct FileReport {
    pub(super) file: String,
    pub(super) format: &'static str,
    pub(super) new_run_count: u64,
    pub(super) collapsed_count: u64,
    pub(super) known_count: u64,
    pub(super) revised_count: u64,
    pub(super) refused_count: u64,
    pub(super) quarantined_count: u64,
    /// Held ticks that an operator had discarded earlier.
    pub(super) discarded_count: u64,
    /// Rows that could not be parsed and were not sent.
    pub(super) malformed_count: u64,
    pub(super) late_count: u64,
    pub(super) sequence: u64,
    pub(super) recorded_time: Option<prost_types::Timestamp>,
    /// Number of quotes on a page; `None` for other files.
    pub(super) quote_count: Option<u32>,
    /// Number of cycles on a page; `None` for other files.
    pub(super) cycle_count: Option<u32>,
    pub(super) ticks: Vec<Tick>,
    pub(super) refusals: Vec<Refused>,
    pub(super) held: Vec<Held>,
    /// Bytes of the file up to the last row that the server has processed.
    pub(super) answered_bytes: u64,
}

impl FileReport {
    /// Adds the counts of one response.
    pub(super) fn add(
        &mut self,
        summary: &IngestSummary,
        sequence: u64,
        recorded_time: Option<prost_types::Timestamp>,
    ) {
        self.new_run_count += u64::from(summary.new_run_count);
        self.collapsed_count += u64::from(summary.collapsed_count);
        self.known_count += u64::from(summary.known_count);
        self.revised_count += u64::from(summary.revised_count);
        self.refused_count += u64::from(summary.refused_count);
        self.quarantined_count += u64::from(summary.quarantined_count);
        self.late_count += u64::from(summary.late_count);
        self.sequence = sequence;
        self.recorded_time = recorded_time;
    }

    /// Adds a refusal, up to [`REFUSALS_KEPT_MAX`] refusals.
    pub(super) fn refuse(&mut self, refused: Refused) {
        if self.refusals.len() < REFUSALS_KEPT_MAX {
            self.refusals.push(refused);
        }
    }

    /// Adds a held or discarded tick, up to [`REFUSALS_KEPT_MAX`] ticks.
    pub(super) fn hold(&mut self, held: Held) {
        self.discarded_count += u64::from(held.state == QuarantineState::Discarded);
        if self.held.len() < REFUSALS_KEPT_MAX {
            self.held.push(held);
        }
    }

    /// Rows that the server has processed, plus malformed rows.
    pub(super) fn row_count(&self) -> u64 {
        self.new_run_count
            + self.collapsed_count
            + self.known_count
            + self.revised_count
            + self.refused_count
            + self.quarantined_count
            + self.malformed_count
    }

    /// Rows that were refused or malformed.
    fn refused_or_malformed_count(&self) -> u64 {
        self.refused_count + self.malformed_count
    }

    /// Rows that reads do not return: refused, malformed or held.
    pub(super) fn not_served_count(&self) -> u64 {
        self.refused_or_malformed_count() + self.quarantined_count
    }

    /// Returns true if quotes of a page conflict with stored ticks at the same time. This happens, for example, if two
    /// pages have the same date.
    pub(super) fn has_page_conflict(&self) -> bool {
        self.quote_count.is_some()
            && self.refusals.iter().any(|refused| refused.reason == reason(RefusalReason::Conflict))
    }

    /// The notes below the summary: the first refusals, the number of the others, and the held ticks.
    pub(super) fn refusal_lines(&self) -> Vec<String> {
        let shown = self.refusals.iter().take(REFUSALS_SHOWN_MAX);
        let unit = if self.format == super::PARQUET { "row" } else { "line" };
        let mut lines: Vec<String> =
            shown.map(|refused| format!("{}: {}", self.file, refused.describe(unit))).collect();
        let more = self.refused_or_malformed_count().saturating_sub(lines.len() as u64);
        if more > 0 {
            lines.push(format!("{}: {more} more refused; --output json lists them", self.file));
        }
        if let Some(held) = describe_held(self.quarantined_count, self.discarded_count) {
            lines.push(format!("{}: {held}", self.file));
        }
        lines
    }
}

impl Refused {
    /// Creates the record of a tick that the server refused. `line` is the line of the tick; `None` for a page.
    pub(super) fn from_server(refusal: Refusal, line: Option<u64>) -> Self {
        Self {
            line,
            index: line.is_none().then(|| u64::from(refusal.index)),
            reason: reason(refusal.reason()).to_owned(),
            message: refusal.message,
            stored_rate: refusal.stored_rate,
            stored_reported_change_percent: refusal.stored_reported_change_percent,
        }
    }

    /// A row that could not be parsed.
    pub(super) fn malformed(line: u64, message: String) -> Self {
        Self {
            line: Some(line),
            index: None,
            reason: "MALFORMED_ROW".to_owned(),
            message,
            stored_rate: None,
            stored_reported_change_percent: None,
        }
    }

    /// Describes the refusal in one line. `unit` is "line" or "row".
    fn describe(&self, unit: &str) -> String {
        let position = self.line.map(|line| format!("{unit} {line}: ")).unwrap_or_default();
        // The server limits the number of refusals with a message.
        let message = with_flag_phrases(&self.message);
        let message = if message.is_empty() { message } else { format!(": {}", clean(&message)) };
        format!("{position}refused ({}){message}", self.reason)
    }
}

impl Held {
    /// Creates the record of a tick that the server holds. `line` is the line of the tick; `None` for a page.
    pub(super) fn from_server(held: HeldTick, line: Option<u64>) -> Self {
        let index = line.is_none().then(|| u64::from(held.index));
        Self { line, index, id: held.id, state: held.state(), rate_in_force: held.rate_in_force }
    }
}

fn reason(reason: RefusalReason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("REFUSAL_REASON_").unwrap_or(name)
}

/// The columns of the summary, which has one row per file.
pub(super) const COLUMNS: &[Column<FileReport>] = &[
    Column::new("file", "file", |row| Value::text(&row.file)),
    Column::data("format", |row| Value::text(row.format)),
    Column::new("new_run_count", "new runs", |row| Value::Count(row.new_run_count)),
    Column::new("collapsed_count", "collapsed", |row| Value::Count(row.collapsed_count)),
    Column::new("known_count", "known", |row| Value::Count(row.known_count)),
    Column::new("revised_count", "revised", |row| Value::Count(row.revised_count)),
    Column::new("refused_count", "refused", |row| Value::Count(row.refused_count)),
    Column::new("quarantined_count", "held", |row| Value::Count(row.quarantined_count)),
    Column::new("malformed_count", "malformed", |row| Value::Count(row.malformed_count)),
    Column::new("late_count", "late", |row| Value::Count(row.late_count)),
    Column::new("sequence", "sequence", |row| Value::Count(row.sequence)),
    Column::data("recorded_time", |row| Value::time(row.recorded_time.as_ref())),
    Column::data("quote_count", |row| count(row.quote_count)),
    Column::data("cycle_count", |row| count(row.cycle_count)),
    Column::json("ticks", |row| Value::List(row.ticks.iter().map(|tick| record(TICK_COLUMNS, tick)).collect())),
    Column::json("refusals", |row| Value::List(row.refusals.iter().map(|one| record(REFUSAL_COLUMNS, one)).collect())),
    Column::json("held_ticks", |row| Value::List(row.held.iter().map(|one| record(HELD_COLUMNS, one)).collect())),
];

/// The title and the count of a column that is rarely used.
type RareColumn = (&'static str, fn(&FileReport) -> u64);

/// Returns the titles of rarely used columns that are zero in all rows, which a terminal need not show.
pub(super) fn empty_columns(reports: &[FileReport]) -> impl Iterator<Item = &'static str> + '_ {
    const RARE: [RareColumn; 5] = [
        ("known", |row| row.known_count),
        ("revised", |row| row.revised_count),
        ("held", |row| row.quarantined_count),
        ("malformed", |row| row.malformed_count),
        ("late", |row| row.late_count),
    ];
    let is_empty = |count: fn(&FileReport) -> u64| reports.iter().all(|report| count(report) == 0);
    RARE.into_iter().filter(move |(_, count)| is_empty(*count)).map(|(title, _)| title)
}

/// The columns of the ticks of a page.
pub(super) const TICK_COLUMNS: &[Column<Tick>] = &[
    Column::new("pair", "pair", |tick| Value::text(&tick.pair)),
    Column::new("source", "source", |tick| Value::text(&tick.source)),
    Column::new("observed_time", "observed", |tick| Value::time(tick.observed_time.as_ref())),
    Column::new("rate", "rate", |tick| Value::decimal(&tick.rate)),
    Column::new("reported_change_percent", runs::REPORTED_TITLE, |tick| {
        Value::decimal_or_absent(tick.reported_change_percent.as_ref())
    }),
];

const REFUSAL_COLUMNS: &[Column<Refused>] = &[
    Column::data("line", |one| one.line.map_or(Value::Absent, Value::Count)),
    Column::data("index", |one| one.index.map_or(Value::Absent, Value::Count)),
    Column::data("reason", |one| Value::text(&one.reason)),
    Column::data("message", |one| Value::text(&one.message)),
    Column::data("stored_rate", |one| Value::decimal_or_absent(one.stored_rate.as_ref())),
    Column::data("stored_reported_change_percent", |one| {
        Value::decimal_or_absent(one.stored_reported_change_percent.as_ref())
    }),
];

const HELD_COLUMNS: &[Column<Held>] = &[
    Column::data("line", |one| one.line.map_or(Value::Absent, Value::Count)),
    Column::data("index", |one| one.index.map_or(Value::Absent, Value::Count)),
    Column::data("id", |one| one.id.map_or(Value::Absent, Value::Count)),
    Column::data("state", |one| state(one.state)),
    Column::data("rate_in_force", |one| Value::decimal(&one.rate_in_force)),
];

fn count(count: Option<u32>) -> Value {
    count.map_or(Value::Absent, |count| Value::Count(count.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_lines_are_limited_and_the_rest_is_counted() {
        let mut report = FileReport { file: "a.csv".to_owned(), refused_count: 2_000, ..FileReport::default() };
        for line in 0..1_000 {
            let refusal = Refusal { message: "rate '0\u{1b}' is zero".to_owned(), ..Refusal::default() };
            report.refuse(Refused::from_server(refusal, Some(line + 2)));
        }
        let lines = report.refusal_lines();
        assert_eq!(lines.len(), REFUSALS_SHOWN_MAX + 1);
        assert_eq!(lines[0], "a.csv: line 2: refused (UNSPECIFIED): rate '0\\u{1b}' is zero");
        assert_eq!(lines[REFUSALS_SHOWN_MAX], "a.csv: 1980 more refused; --output json lists them");
    }

    #[test]
    fn refusal_without_a_message_shows_line_and_reason() {
        let check = |message: &str, expect: &str| {
            let refusal = Refusal {
                reason: RefusalReason::InvalidRate.into(),
                message: message.to_owned(),
                ..Refusal::default()
            };
            assert_eq!(Refused::from_server(refusal, Some(7)).describe("line"), expect);
        };
        check("rate '0' is zero", "line 7: refused (INVALID_RATE): rate '0' is zero");
        check("", "line 7: refused (INVALID_RATE)");
    }

    #[test]
    fn kept_refusals_are_limited_but_counts_are_complete() {
        let mut report = FileReport::default();
        let refused = Refused::from_server(Refusal::default(), None);
        for _ in 0..=REFUSALS_KEPT_MAX {
            report.malformed_count += 1;
            report.refuse(refused.clone());
        }
        assert_eq!(report.refusals.len(), REFUSALS_KEPT_MAX);
        assert_eq!(report.not_served_count(), REFUSALS_KEPT_MAX as u64 + 1);
    }
}
