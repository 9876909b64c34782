//! Ticks in CSV: `pair,source,observed_time,rate[,reported_change_percent]`, columns in any order.
//!
//! A file of runs as an export writes it is read too: a row of it gives two ticks, the first and the last of the run, or
//! one where these are the same. What was between them is not in it.
//!
//! A file is read line by line, so that a stray quote spoils its own line and not the rest of the file, and a line's
//! number is exact whatever the line endings.
//!
//! **Invariant**: every line that is not blank is a row or a problem under its number, and memory is bounded by
//! [`TICK_CSV_LINE_BYTES_MAX`]. Only a line's shape and the form of its time are judged here; values are judged where
//! they are taken in, so that one refusal reads the same for a file and for a client.

use std::io::{self, BufRead, Read as _};

use thiserror::Error;

use crate::domain::{Timestamp, TimestampError, truncate_for_display};

/// Longest line of a CSV file, its ending not counted.
pub const TICK_CSV_LINE_BYTES_MAX: usize = 4_096;

/// Columns of ticks.
const TICK_NAMES: [&str; 5] = ["pair", "source", OBSERVED, "rate", "reported_change_percent"];
/// Columns of runs, as an export writes them.
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

/// Why a header cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TickCsvHeaderError {
    /// No line at all.
    #[error("the file is empty")]
    Empty,
    /// A column that must be there.
    #[error("line 1: the header has no column '{0}'; the columns are {COLUMNS}")]
    Missing(&'static str),
    /// A column twice.
    #[error("line 1: the header has column '{0}' twice")]
    Twice(String),
    /// A column that means nothing here: leaving it out in silence could lose what was meant.
    #[error("line 1: column '{0}' is not known; the columns are {COLUMNS}")]
    Unknown(String),
    /// A line that cannot be a header.
    #[error("line 1: {0}")]
    Line(TickCsvRowError),
}

/// Why a row is no tick.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TickCsvRowError {
    /// Longer than any row is.
    #[error("the line is over {TICK_CSV_LINE_BYTES_MAX} bytes long")]
    TooLong,
    /// Not text.
    #[error("the line is not UTF-8")]
    NotUtf8,
    /// A quote that never closes, or the like.
    #[error("the quotes do not fit; a row stands on one line")]
    Quotes,
    /// Too few or too many fields.
    #[error("{found} fields where the header has {expected}")]
    Fields {
        /// Columns of the header.
        expected: usize,
        /// Of this line.
        found: usize,
    },
    /// Nothing in a required field.
    #[error("{0} is empty")]
    Missing(&'static str),
    /// A time that is none.
    #[error("{column}: {problem}")]
    Time {
        /// Which.
        column: &'static str,
        /// What is wrong with it.
        problem: TimestampError,
    },
    /// A run that ends before it begins.
    #[error("last_observed_time {last} is before first_observed_time {first}")]
    Reversed {
        /// First observed time.
        first: Timestamp,
        /// Last observed time.
        last: Timestamp,
    },
    /// A rate that lost or won zeros on its way through another program.
    #[error("rate '{rate}' has not the {places} places that published_places says; keep the column as text")]
    Places {
        /// As written.
        rate: String,
        /// As written.
        places: String,
    },
}

/// Where the columns stand.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    pair: usize,
    source: usize,
    observed: Observed,
    rate: usize,
    reported_change_percent: Option<usize>,
    count: usize,
}

/// Which columns say when.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Observed {
    /// Of a tick.
    Once(usize),
    /// Of a run; and where its published places stand.
    Run { first: usize, last: usize, places: usize },
}

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TickCsvValues {
    /// Like `KGS/USD`, unjudged as are the other texts.
    pub pair: String,
    /// A slug.
    pub source: String,
    /// UTC; a bare date is that day's start.
    pub observed_time: Timestamp,
    /// A decimal.
    pub rate: String,
    /// None if there is no such column or its field is empty.
    pub reported_change_percent: Option<String>,
}

/// A line that gave a tick, or why it did not.
#[derive(Debug, Clone, PartialEq)]
pub struct TickCsvRow {
    /// From 1, which is the header's.
    pub line: u64,
    /// Values as written, spaces around them left out.
    pub tick: Result<TickCsvValues, TickCsvRowError>,
}

/// Reads rows behind a header. Fails as its file does; a malformed row is an item, not a failure.
#[derive(Debug)]
pub struct TickCsv<R> {
    lines: Lines<R>,
    header: Header,
    /// The last tick of the run whose first was the latest item.
    last: Option<TickCsvValues>,
}

/// Why there are no rows.
#[derive(Debug, Error)]
pub enum TickCsvError {
    /// The input failed.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// The first line names no usable columns.
    #[error(transparent)]
    Header(#[from] TickCsvHeaderError),
}

impl<R: BufRead> TickCsv<R> {
    /// Reads the header, the first line.
    ///
    /// # Errors
    /// Any [`TickCsvError`].
    pub fn new(input: R) -> Result<Self, TickCsvError> {
        let mut lines = Lines { input, buffer: Vec::new(), number: 0, bytes: 0 };
        let Some(first) = lines.next()? else { return Err(TickCsvHeaderError::Empty.into()) };
        let header = Header::parse(first.map_err(TickCsvHeaderError::Line)?)?;
        Ok(Self { lines, header, last: None })
    }

    /// Bytes of the file that have been read.
    pub fn bytes(&self) -> u64 {
        self.lines.bytes
    }

    /// The next tick of a row that is not blank; none at the end.
    ///
    /// # Errors
    /// Those of the input.
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

/// Whether a file that begins with `head` is CSV: its first line names a column `pair`.
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
                return Err(TickCsvHeaderError::Twice(name.clone()));
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
                Observed::Once(require(OBSERVED)?)
            },
            rate: require("rate")?,
            reported_change_percent: find("reported_change_percent"),
            count: names.len(),
        })
    }

    /// Pairs, sources and decimals are for the server to judge; what cannot be sent is judged here.
    fn ticks(&self, line: &str) -> Result<(TickCsvValues, Option<TickCsvValues>), TickCsvRowError> {
        let fields = fields(line)?;
        if fields.len() != self.count {
            return Err(TickCsvRowError::Fields { expected: self.count, found: fields.len() });
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
            Observed::Once(at) => time(at, OBSERVED)?,
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
        let tick = TickCsvValues {
            pair: get(self.pair, "pair")?,
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

/// A spreadsheet takes `0.28490` for `0.2849`, which is another rate.
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

/// The fields of one line, blanks around them trimmed.
fn fields(line: &str) -> Result<Vec<String>, TickCsvRowError> {
    // Nearly every line; the reader below costs an allocation of its own.
    if !line.contains('"') {
        return Ok(line.split(',').map(|field| field.trim().to_owned()).collect());
    }
    // A quote that never closes would swallow the line's end in silence.
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

/// Lines of bounded length.
#[derive(Debug)]
struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    number: u64,
    bytes: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line without its ending; none at the end of the file.
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

/// Reads past the end of the line, however far it is, and says how far it was.
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
