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

mod error;

use std::borrow::Cow;
use std::io::{self, BufRead, Read as _};

pub use error::{TickCsvError, TickCsvHeaderError, TickCsvRowError};

use crate::domain::{Pair, Timestamp, truncate_for_display};

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

/// The header of a file: the positions of the columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TickCsvHeader {
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

/// The values of a tick, or of the first and the last tick of a run. Except for the times, the values are not
/// validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TickCsvValues<'a> {
    /// The pair, like `KGS/USD`; [respelled](Pair::respell) if the file has `kgs/usd`, `KGS-USD` or the like.
    pub pair: Cow<'a, str>,
    /// The slug of the source.
    pub source: Cow<'a, str>,
    /// Observed time. A date without a time is the start of that day in UTC.
    pub observed_time: Timestamp,
    /// Observed time of the last tick of a run, if it is later than the first.
    pub last_observed_time: Option<Timestamp>,
    /// The rate, a decimal.
    pub rate: Cow<'a, str>,
    /// The reported change; none if the file has no such column or the field is empty.
    pub reported_change_percent: Option<Cow<'a, str>>,
}

impl TickCsvValues<'_> {
    /// The observed times of the row: one, or the first and the last of a run.
    pub fn observed_times(&self) -> impl Iterator<Item = Timestamp> + use<> {
        std::iter::once(self.observed_time).chain(self.last_observed_time)
    }
}

/// The values of a line, or the error of that line.
#[derive(Debug, Clone, PartialEq)]
pub struct TickCsvRow<'a> {
    /// Line number in the file. The header is line 1.
    pub line: u64,
    /// Values as written, without spaces around them.
    pub values: Result<TickCsvValues<'a>, TickCsvRowError>,
}

/// Consecutive whole lines of a file. Parts of one file can be parsed at the same time.
#[derive(Debug)]
pub struct TickCsvPart {
    bytes: Vec<u8>,
    /// Number of lines of the file before this part.
    lines_before: u64,
}

/// Reads the rows after a header. Fails only if reading the file fails: a malformed row is an item with an error.
#[derive(Debug)]
pub struct TickCsv<R> {
    lines: Lines<R>,
    header: TickCsvHeader,
    /// The error that ended the latest part. The next part returns it.
    failure: Option<io::Error>,
}

impl<R: BufRead> TickCsv<R> {
    /// Reads the header from the first line.
    ///
    /// # Errors
    /// Returns a [`TickCsvError`] if reading fails or the header is refused.
    pub fn new(input: R) -> Result<Self, TickCsvError> {
        let mut lines = Lines { input, buffer: Vec::new(), number: 0, bytes: 0 };
        if !lines.advance()? {
            return Err(TickCsvHeaderError::Empty.into());
        }
        let header = TickCsvHeader::parse(lines.line().map_err(TickCsvHeaderError::Line)?)?;
        Ok(Self { lines, header, failure: None })
    }

    /// Returns how many bytes of the file have been read.
    pub fn bytes(&self) -> u64 {
        self.lines.bytes
    }

    /// Returns the values of the next line that is not blank, or its error; `None` at the end of the file.
    ///
    /// # Errors
    /// Returns the I/O error if reading fails.
    pub fn next_row(&mut self) -> io::Result<Option<TickCsvRow<'_>>> {
        loop {
            if !self.lines.advance()? {
                return Ok(None);
            }
            if !is_blank(&self.lines.line()) {
                break;
            }
        }
        let values = self.lines.line().and_then(|text| self.header.values(text));
        Ok(Some(TickCsvRow { line: self.lines.number, values }))
    }

    /// Reads the next whole lines; `None` at the end of the file. A part has at least `bytes_min` bytes unless the file
    /// ends, and about `bytes_max` bytes if they can be read at once. So the lines of a slow pipe do not wait for long.
    ///
    /// # Errors
    /// Returns the I/O error if reading fails. The whole lines before the error are the part before it.
    pub fn next_part(&mut self, bytes_min: usize, bytes_max: usize) -> io::Result<Option<TickCsvPart>> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let mut part = TickCsvPart { bytes: Vec::new(), lines_before: self.lines.number };
        let mut skipped = 0;
        if let Err(failure) = self.lines.read_lines([bytes_min, bytes_max], &mut part.bytes, &mut skipped) {
            part.bytes.truncate(memchr::memrchr(b'\n', &part.bytes).map_or(0, |end| end + 1));
            if part.bytes.is_empty() {
                return Err(failure);
            }
            self.failure = Some(failure);
        }
        if part.bytes.is_empty() {
            return Ok(None);
        }
        let line_ends = memchr::memchr_iter(b'\n', &part.bytes).count();
        let has_open_line = part.bytes.last() != Some(&b'\n');
        self.lines.number += line_ends as u64 + u64::from(has_open_line);
        self.lines.bytes += part.bytes.len() as u64 + skipped;
        Ok(Some(part))
    }

    /// Returns the header of the file.
    pub fn header(&self) -> &TickCsvHeader {
        &self.header
    }
}

/// Returns true if a file that begins with `head` is CSV: its first line has a column `pair`.
pub fn begins_as_tick_csv(head: &[u8]) -> bool {
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Ok(first) = std::str::from_utf8(first) else { return false };
    split(without_bom(first)).is_ok_and(|fields| fields.iter().any(|field| field == "pair"))
}

impl TickCsvHeader {
    /// Iterates over the rows of a part of a file with this header, as [`TickCsv::next_row`] returns them.
    pub fn rows_of<'p>(&'p self, part: &'p TickCsvPart) -> impl Iterator<Item = TickCsvRow<'p>> {
        let mut rest = part.bytes.as_slice();
        let next_line = move || {
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            let (line, after) = rest.split_at_checked(end).filter(|(line, _)| !line.is_empty())?;
            rest = after;
            Some(line_text(line))
        };
        let numbered = (part.lines_before + 1..).zip(std::iter::from_fn(next_line));
        numbered.filter(|(_, text)| !is_blank(text)).map(|(line, text)| {
            let values = text.and_then(|text| self.values(text));
            TickCsvRow { line, values }
        })
    }

    fn parse(line: &str) -> Result<Self, TickCsvHeaderError> {
        let names = split(without_bom(line)).map_err(TickCsvHeaderError::Line)?;
        let is_runs = names.iter().any(|name| name == FIRST_OBSERVED);
        let known: &[&str] = if is_runs { &RUN_NAMES } else { &TICK_NAMES };
        for (at, name) in names.iter().enumerate() {
            if !known.contains(&&**name) {
                return Err(TickCsvHeaderError::Unknown(truncate_for_display(name)));
            }
            if names[..at].contains(name) {
                return Err(TickCsvHeaderError::Duplicate(name.clone().into_owned()));
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

    /// Parses a line. Validates the number of fields, the text of times, and published places, because the server does
    /// not receive them. The server validates pairs, sources and decimals.
    fn values<'l>(&self, line: &'l str) -> Result<TickCsvValues<'l>, TickCsvRowError> {
        let fields = Fields::of(line)?;
        if fields.count() != self.count {
            return Err(TickCsvRowError::FieldCount { expected: self.count, found: fields.count() });
        }
        let get = |at: usize, name: &'static str| match fields.get(at) {
            Some(field) if !field.is_empty() => Ok(field),
            Some(_) | None => Err(TickCsvRowError::Missing(name)),
        };
        let time = |text: &str, column: &'static str| {
            Timestamp::parse(text).map_err(|problem| TickCsvRowError::Time { column, problem })
        };
        let (rate, mut last) = (get(self.rate, "rate")?, None);
        let observed_time = match self.observed {
            Observed::Tick(at) => time(&get(at, OBSERVED)?, OBSERVED)?,
            Observed::Run { first, last: end, places } => {
                let first = time(&get(first, FIRST_OBSERVED)?, FIRST_OBSERVED)?;
                let end = time(&get(end, LAST_OBSERVED)?, LAST_OBSERVED)?;
                if end < first {
                    return Err(TickCsvRowError::Reversed { first, last: end });
                }
                check_places(&rate, &get(places, PLACES)?)?;
                last = (end > first).then_some(end);
                first
            }
        };
        let pair = get(self.pair, "pair")?;
        Ok(TickCsvValues {
            pair: match Pair::respell(&pair) {
                Cow::Owned(respelled) => Cow::Owned(respelled),
                Cow::Borrowed(_) => pair,
            },
            source: get(self.source, "source")?,
            observed_time,
            last_observed_time: last,
            rate,
            reported_change_percent: self.reported_change_percent.and_then(|at| get(at, "").ok()),
        })
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

/// The fields of one line, without white space around them.
enum Fields<'l> {
    /// A line without quotation marks, which nearly every line is. It needs no allocation. `count` may exceed the length
    /// of `fields`; no header has so many columns.
    Plain {
        fields: [&'l str; RUN_NAMES.len()],
        count: usize,
    },
    Quoted(Vec<Cow<'l, str>>),
}

impl<'l> Fields<'l> {
    /// Splits a line.
    fn of(line: &'l str) -> Result<Self, TickCsvRowError> {
        let (mut fields, mut count, mut begin) = ([""; RUN_NAMES.len()], 0, 0);
        let mut add = |begin: usize, end: usize| {
            if let Some(field) = fields.get_mut(count) {
                *field = trim(line.get(begin..end).unwrap_or_default());
            }
            count += 1;
        };
        // A search for the next comma costs more than this loop, because fields are short.
        for (at, byte) in line.bytes().enumerate() {
            match byte {
                b',' => {
                    add(begin, at);
                    begin = at + 1;
                }
                b'"' => return split(line).map(Self::Quoted),
                _ => {}
            }
        }
        add(begin, line.len());
        Ok(Self::Plain { fields, count })
    }

    fn count(&self) -> usize {
        match self {
            Self::Plain { count, .. } => *count,
            Self::Quoted(fields) => fields.len(),
        }
    }

    fn get(&self, at: usize) -> Option<Cow<'l, str>> {
        match self {
            Self::Plain { fields, .. } => fields.get(at).copied().map(Cow::Borrowed),
            Self::Quoted(fields) => fields.get(at).cloned(),
        }
    }
}

/// Trims white space. The usual field has none, which two bytes show.
fn trim(field: &str) -> &str {
    match field.as_bytes() {
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => field,
        _ => field.trim(),
    }
}

/// Splits one line into any number of fields and trims white space around them.
fn split(line: &str) -> Result<Vec<Cow<'_, str>>, TickCsvRowError> {
    if memchr::memchr(b'"', line.as_bytes()).is_none() {
        return Ok(line.split(',').map(|field| Cow::Borrowed(field.trim())).collect());
    }
    // The CSV reader would accept an unclosed quotation mark and join the fields after it.
    if !line.matches('"').count().is_multiple_of(2) {
        return Err(TickCsvRowError::Quotes);
    }
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).trim(csv::Trim::All).flexible(true).from_reader(line.as_bytes());
    let mut record = csv::StringRecord::new();
    match reader.read_record(&mut record) {
        Ok(true) => Ok(record.iter().map(|field| Cow::Owned(field.to_owned())).collect()),
        Ok(false) | Err(_) => Err(TickCsvRowError::Quotes),
    }
}

/// The number of bytes to read of one line: the longest line, its line ending, and nothing more.
const LINE_READ_MAX: u64 = TICK_CSV_LINE_BYTES_MAX as u64 + 2;

/// Reads lines of bounded length.
#[derive(Debug)]
struct Lines<R> {
    input: R,
    /// The latest line with its line ending, or the beginning of a line that is too long.
    buffer: Vec<u8>,
    /// Number of the latest line, from 1.
    number: u64,
    /// Bytes read so far.
    bytes: u64,
}

impl<R: BufRead> Lines<R> {
    /// Reads the next line. Returns false at the end of the file.
    fn advance(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        let read = self.input.by_ref().take(LINE_READ_MAX).read_until(b'\n', &mut self.buffer)?;
        if read == 0 {
            return Ok(false);
        }
        self.number += 1;
        self.bytes += read as u64;
        if self.buffer.last() != Some(&b'\n') && read as u64 == LINE_READ_MAX {
            self.bytes += skip_line(&mut self.input)?;
        }
        Ok(true)
    }

    /// Reads from `min` to about `max` bytes, up to the end of a line. Of a line that is too long, it reads only the beginning and
    /// adds the length of the rest to `skipped`.
    fn read_lines(&mut self, [min, max]: [usize; 2], lines: &mut Vec<u8>, skipped: &mut u64) -> io::Result<()> {
        while lines.len() < min.max(1) {
            let begin = lines.len();
            lines.resize(max.max(min), 0);
            let read = match lines.get_mut(begin..).map(|free| self.input.read(free)) {
                Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {
                    lines.truncate(begin);
                    continue;
                }
                Some(read) => read,
                None => Ok(0),
            };
            lines.truncate(begin + read.as_ref().map_or(0, |read| *read));
            if read? == 0 {
                break;
            }
        }
        if lines.last().is_none_or(|last| *last == b'\n') {
            return Ok(());
        }
        let rest = self.input.by_ref().take(LINE_READ_MAX).read_until(b'\n', lines)?;
        if rest as u64 == LINE_READ_MAX && lines.last() != Some(&b'\n') {
            *skipped = skip_line(&mut self.input)?;
        }
        Ok(())
    }

    /// Returns the latest line without its line ending.
    fn line(&self) -> Result<&str, TickCsvRowError> {
        line_text(&self.buffer)
    }
}

/// Returns a line without its line ending.
fn line_text(line: &[u8]) -> Result<&str, TickCsvRowError> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > TICK_CSV_LINE_BYTES_MAX {
        return Err(TickCsvRowError::TooLong);
    }
    std::str::from_utf8(line).map_err(|_| TickCsvRowError::NotUtf8)
}

/// Returns true if a line has only white space.
fn is_blank(line: &Result<&str, TickCsvRowError>) -> bool {
    matches!(line, Ok(text) if text.trim_start().is_empty())
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
