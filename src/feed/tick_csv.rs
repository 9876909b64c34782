//! Reader of ticks in CSV: `pair,source,observed_time,rate[,reported_change_percent]`, columns in any order.
//!
//! The reader also accepts a file of runs that an export wrote. A row of such a file gives two ticks, the first and the
//! last of the run, or one tick if both are the same instant. The file does not have the observations between them.
//!
//! The reader parses each line separately. An unmatched quotation mark therefore affects only its own line, and line
//! numbers are exact for every kind of line ending.
//!
//! **Invariant**: a line that is not blank gives either ticks or an error with its line number. Memory is bounded by
//! [`TICK_CSV_LINE_BYTES_MAX`]. The reader validates only the form of a line and of its time. Ingest validates the
//! other values, so that an error has the same text for a file and for a client.

use std::borrow::Cow;
use std::io::{self, BufRead, Read as _};

use thiserror::Error;

use crate::domain::{Pair, Timestamp, TimestampError, truncate_for_display};

/// Longest line of a CSV file, in bytes, without its line ending.
pub const TICK_CSV_LINE_BYTES_MAX: usize = 4_096;

/// Columns of a file of ticks.
const TICK_NAMES: [&str; 5] = ["pair", "source", OBSERVED, "rate", "reported_change_percent"];
/// Columns of a file of runs, as an export writes them.
const RUN_NAMES: [&str; 12] = [
    "pair",
    "source",
    FIRST_OBSERVED,
    LAST_OBSERVED,
    "recorded_time",
    "rate",
    "rate_double",
    PLACES,
    "reported_change_percent",
    "reported_change_places",
    "reported_change_negative",
    "observation_count",
];
const OBSERVED: &str = "observed_time";
const FIRST_OBSERVED: &str = "first_observed_time";
const LAST_OBSERVED: &str = "last_observed_time";
const PLACES: &str = "published_places";
const COLUMNS: &str = "pair, source, observed_time, rate and, if wanted, reported_change_percent";

/// Why the header is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TickCsvHeaderError {
    /// The file has no lines.
    #[error("the file is empty")]
    Empty,
    /// A required column is missing.
    #[error("line 1: the header has no column '{0}'; the columns are {COLUMNS}")]
    Missing(&'static str),
    /// A column appears twice.
    #[error("line 1: the header has column '{0}' twice")]
    Duplicate(String),
    /// A column is unknown. Ignoring it could lose data that the author meant to send.
    #[error("line 1: column '{0}' is not known; the columns are {COLUMNS}")]
    Unknown(String),
    /// The first line cannot be parsed as CSV.
    #[error("line 1: {0}")]
    Line(TickCsvRowError),
}

/// Why a row gives no tick.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TickCsvRowError {
    /// The line is longer than the limit.
    #[error("the line is longer than {TICK_CSV_LINE_BYTES_MAX} bytes")]
    TooLong,
    /// The line is not UTF-8.
    #[error("the line is not UTF-8")]
    NotUtf8,
    /// The quotation marks are not valid CSV, for example because one is not closed.
    #[error("the quotation marks do not match; write each row on one line")]
    Quotes,
    /// The row has too few or too many fields.
    #[error("the header has {expected} fields, this row has {found}")]
    FieldCount {
        /// Fields of the header.
        expected: usize,
        /// Fields of this row.
        found: usize,
    },
    /// A required field is empty.
    #[error("{0} is empty")]
    Missing(&'static str),
    /// The time is invalid.
    #[error("{column}: {problem}")]
    Time {
        /// Column of the time.
        column: &'static str,
        /// Why the time is invalid.
        problem: TimestampError,
    },
    /// The run ends before it begins.
    #[error("last_observed_time {last} is before first_observed_time {first}")]
    Reversed {
        /// First observed time.
        first: Timestamp,
        /// Last observed time.
        last: Timestamp,
    },
    /// Another program removed or added zeros at the end of the rate.
    #[error("rate '{rate}' does not have {places} decimal places (published_places); keep the column rate as text")]
    Places {
        /// The rate as written.
        rate: String,
        /// The value of `published_places` as written.
        places: String,
    },
}

/// Positions of the columns.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    pair: usize,
    source: usize,
    observed: Observed,
    rate: usize,
    reported_change_percent: Option<usize>,
    count: usize,
}

/// Positions of the time columns.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Observed {
    /// The observed time of a tick.
    Tick(usize),
    /// The first and last observed time of a run, and its published places.
    Run { first: usize, last: usize, places: usize },
}

/// The values of a tick. Except for the time, the values are not validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TickCsvValues {
    /// The pair, like `KGS/USD`; [respelled](Pair::respell) if the file has `kgs/usd`, `KGS-USD` or the like.
    pub pair: String,
    /// The slug of the source.
    pub source: String,
    /// Observed time. A date without a time is the start of that day in UTC.
    pub observed_time: Timestamp,
    /// The rate, a decimal.
    pub rate: String,
    /// The reported change; none if the file has no such column or the field is empty.
    pub reported_change_percent: Option<String>,
}

/// A tick of a line, or the error of that line.
#[derive(Debug, Clone, PartialEq)]
pub struct TickCsvRow {
    /// Line number in the file. The header is line 1.
    pub line: u64,
    /// Values as written, without spaces around them.
    pub tick: Result<TickCsvValues, TickCsvRowError>,
}

/// Reads the rows after a header. Fails only if reading the file fails: a malformed row is an item with an error.
#[derive(Debug)]
pub struct TickCsv<R> {
    lines: Lines<R>,
    header: Header,
    /// The last tick of a run, if the previous call returned the first tick of that run. The next call returns this
    /// tick.
    last: Option<TickCsvValues>,
}

/// Why a file gives no rows.
#[derive(Debug, Error)]
pub enum TickCsvError {
    /// Reading the file failed.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// The header is refused.
    #[error(transparent)]
    Header(#[from] TickCsvHeaderError),
}

impl<R: BufRead> TickCsv<R> {
    /// Reads the header from the first line.
    ///
    /// # Errors
    /// Returns a [`TickCsvError`] if reading fails or the header is refused.
    pub fn new(input: R) -> Result<Self, TickCsvError> {
        let mut lines = Lines { input, buffer: Vec::new(), number: 0, bytes: 0 };
        let Some(first) = lines.next()? else { return Err(TickCsvHeaderError::Empty.into()) };
        let header = Header::parse(first.map_err(TickCsvHeaderError::Line)?)?;
        Ok(Self { lines, header, last: None })
    }

    /// Returns how many bytes of the file have been read.
    pub fn bytes(&self) -> u64 {
        self.lines.bytes
    }

    /// Returns the next tick, or the error of the next line that is not blank; `None` at the end of the file.
    ///
    /// # Errors
    /// Returns the I/O error if reading fails.
    pub fn next_row(&mut self) -> io::Result<Option<TickCsvRow>> {
        if let Some(last) = self.last.take() {
            return Ok(Some(TickCsvRow { line: self.lines.number, tick: Ok(last) }));
        }
        loop {
            let Some(text) = self.lines.next()? else { return Ok(None) };
            let tick = match text {
                Ok(text) if text.trim().is_empty() => continue,
                Ok(text) => self.header.ticks(text),
                Err(problem) => Err(problem),
            };
            let tick = tick.map(|(first, last)| {
                self.last = last;
                first
            });
            return Ok(Some(TickCsvRow { line: self.lines.number, tick }));
        }
    }
}

/// Returns true if a file that begins with `head` is CSV: its first line has a column `pair`.
pub fn begins_as_tick_csv(head: &[u8]) -> bool {
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Ok(first) = std::str::from_utf8(first) else { return false };
    fields(without_bom(first)).is_ok_and(|fields| fields.iter().any(|field| field == "pair"))
}

impl Header {
    fn parse(line: &str) -> Result<Self, TickCsvHeaderError> {
        let names = fields(without_bom(line)).map_err(TickCsvHeaderError::Line)?;
        let is_runs = names.iter().any(|name| name == FIRST_OBSERVED);
        let known: &[&str] = if is_runs { &RUN_NAMES } else { &TICK_NAMES };
        for (at, name) in names.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(TickCsvHeaderError::Unknown(truncate_for_display(name)));
            }
            if names[..at].contains(name) {
                return Err(TickCsvHeaderError::Duplicate(name.clone()));
            }
        }
        let find = |name: &str| names.iter().position(|found| found == name);
        let require = |name: &'static str| find(name).ok_or(TickCsvHeaderError::Missing(name));
        Ok(Self {
            pair: require("pair")?,
            source: require("source")?,
            observed: if is_runs {
                Observed::Run {
                    first: require(FIRST_OBSERVED)?,
                    last: require(LAST_OBSERVED)?,
                    places: require(PLACES)?,
                }
            } else {
                Observed::Tick(require(OBSERVED)?)
            },
            rate: require("rate")?,
            reported_change_percent: find("reported_change_percent"),
            count: names.len(),
        })
    }

    /// Parses a line to one tick, or to the first and last tick of a run. Validates the number of fields, the text of
    /// times, and published places, because the server does not receive them. The server validates pairs, sources and
    /// decimals.
    fn ticks(&self, line: &str) -> Result<(TickCsvValues, Option<TickCsvValues>), TickCsvRowError> {
        let fields = fields(line)?;
        if fields.len() != self.count {
            return Err(TickCsvRowError::FieldCount { expected: self.count, found: fields.len() });
        }
        let get = |at: usize, name: &'static str| match fields.get(at).map(String::as_str) {
            Some("") | None => Err(TickCsvRowError::Missing(name)),
            Some(field) => Ok(field.to_owned()),
        };
        let time = |at: usize, column: &'static str| {
            Timestamp::parse(&get(at, column)?).map_err(|problem| TickCsvRowError::Time { column, problem })
        };
        let (rate, mut last) = (get(self.rate, "rate")?, None);
        let observed_time = match self.observed {
            Observed::Tick(at) => time(at, OBSERVED)?,
            Observed::Run { first, last: end, places } => {
                let (first, end) = (time(first, FIRST_OBSERVED)?, time(end, LAST_OBSERVED)?);
                if end < first {
                    return Err(TickCsvRowError::Reversed { first, last: end });
                }
                check_places(&rate, &get(places, PLACES)?)?;
                last = (end > first).then_some(end);
                first
            }
        };
        let pair = get(self.pair, "pair")?;
        let tick = TickCsvValues {
            pair: match Pair::respell(&pair) {
                Cow::Owned(respelled) => respelled,
                Cow::Borrowed(_) => pair,
            },
            source: get(self.source, "source")?,
            observed_time,
            rate,
            reported_change_percent: self
                .reported_change_percent
                .and_then(|at| fields.get(at))
                .filter(|field| !field.is_empty())
                .cloned(),
        };
        let last = last.map(|observed_time| TickCsvValues { observed_time, ..tick.clone() });
        Ok((tick, last))
    }
}

/// Compares the places of a rate with `published_places`. A spreadsheet changes `0.28490` to `0.2849`, which is another
/// rate.
fn check_places(rate: &str, places: &str) -> Result<(), TickCsvRowError> {
    let written = rate.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    if places != written.to_string() {
        return Err(TickCsvRowError::Places { rate: truncate_for_display(rate), places: truncate_for_display(places) });
    }
    Ok(())
}

fn without_bom(line: &str) -> &str {
    line.strip_prefix('\u{feff}').unwrap_or(line)
}

/// Splits one line into fields and trims white space around them.
fn fields(line: &str) -> Result<Vec<String>, TickCsvRowError> {
    // Fast path for nearly every line: the CSV reader below costs an additional allocation.
    if !line.contains('"') {
        return Ok(line.split(',').map(|field| field.trim().to_owned()).collect());
    }
    // The CSV reader would accept an unclosed quotation mark and join the fields after it.
    if !line.matches('"').count().is_multiple_of(2) {
        return Err(TickCsvRowError::Quotes);
    }
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).trim(csv::Trim::All).flexible(true).from_reader(line.as_bytes());
    let mut record = csv::StringRecord::new();
    match reader.read_record(&mut record) {
        Ok(true) => Ok(record.iter().map(str::to_owned).collect()),
        Ok(false) | Err(_) => Err(TickCsvRowError::Quotes),
    }
}

/// Reads lines of bounded length.
#[derive(Debug)]
struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    /// Number of the latest line, from 1.
    number: u64,
    /// Bytes read so far.
    bytes: u64,
}

impl<R: BufRead> Lines<R> {
    /// Returns the next line without its line ending; `None` at the end of the file.
    fn next(&mut self) -> io::Result<Option<Result<&str, TickCsvRowError>>> {
        const LIMIT_BYTES: u64 = TICK_CSV_LINE_BYTES_MAX as u64 + 2;
        self.buffer.clear();
        let read = self.input.by_ref().take(LIMIT_BYTES).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        self.bytes += read as u64;
        if self.buffer.last() != Some(&b'\n') && read as u64 == LIMIT_BYTES {
            self.bytes += skip_line(&mut self.input)?;
            return Ok(Some(Err(TickCsvRowError::TooLong)));
        }
        let line = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > TICK_CSV_LINE_BYTES_MAX {
            return Ok(Some(Err(TickCsvRowError::TooLong)));
        }
        Ok(Some(std::str::from_utf8(line).map_err(|_| TickCsvRowError::NotUtf8)))
    }
}

/// Skips the rest of a line, including its line ending. Returns the number of skipped bytes.
fn skip_line(input: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let available = input.fill_buf()?;
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(available.len(), |end| end + 1);
        let done = end.is_some() || available.is_empty();
        input.consume(taken);
        skipped += taken as u64;
        if done {
            return Ok(skipped);
        }
    }
}

#[cfg(test)]
mod tests;
