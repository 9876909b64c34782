//! Ticks in CSV: `pair,source,observed_time,rate[,reported_change_percent]`, columns in any order.
//!
//! A file is read line by line, so that a stray quote spoils its own line and not the rest of the file, and a line's
//! number is exact whatever the line endings.
//!
//! **Invariant**: every line that is not blank is a row or a problem under its number, and memory is bounded by
//! [`TICK_CSV_LINE_BYTES_MAX`]. Only a line's shape and the form of its time are judged here; values are judged where
//! they are taken in, so that one refusal reads the same for a file and for a client.

use std::io::{self, BufRead, Read as _};

use thiserror::Error;

use crate::domain::{Timestamp, TimestampError, clip};

/// Longest line of a CSV file, its ending not counted.
pub const TICK_CSV_LINE_BYTES_MAX: usize = 4_096;

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
    #[error("observed_time: {0}")]
    Time(TimestampError),
}

/// Where the columns stand.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    pair: usize,
    source: usize,
    observed_time: usize,
    rate: usize,
    reported_change_percent: Option<usize>,
    count: usize,
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
        Ok(Self { lines, header })
    }

    /// Bytes of the file that have been read.
    pub fn bytes(&self) -> u64 {
        self.lines.bytes
    }

    /// The next row that is not blank; none at the end.
    ///
    /// # Errors
    /// Those of the input.
    pub fn next_row(&mut self) -> io::Result<Option<TickCsvRow>> {
        loop {
            let Some(text) = self.lines.next()? else { return Ok(None) };
            let tick = match text {
                Ok(text) if text.trim().is_empty() => continue,
                Ok(text) => self.header.tick(text),
                Err(problem) => Err(problem),
            };
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
        const KNOWN: [&str; 5] = ["pair", "source", "observed_time", "rate", "reported_change_percent"];
        let names = fields(without_bom(line)).map_err(TickCsvHeaderError::Line)?;
        for (at, name) in names.iter().enumerate() {
            if !KNOWN.contains(&name.as_str()) {
                return Err(TickCsvHeaderError::Unknown(clip(name)));
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
            observed_time: require("observed_time")?,
            rate: require("rate")?,
            reported_change_percent: find("reported_change_percent"),
            count: names.len(),
        })
    }

    /// Pairs, sources and decimals are for the server to judge; what cannot be sent is judged here.
    fn tick(&self, line: &str) -> Result<TickCsvValues, TickCsvRowError> {
        let fields = fields(line)?;
        if fields.len() != self.count {
            return Err(TickCsvRowError::Fields { expected: self.count, found: fields.len() });
        }
        let get = |at: usize, name: &'static str| match fields.get(at).map(String::as_str) {
            Some("") | None => Err(TickCsvRowError::Missing(name)),
            Some(field) => Ok(field.to_owned()),
        };
        let observed_time =
            Timestamp::parse(&get(self.observed_time, "observed_time")?).map_err(TickCsvRowError::Time)?;
        Ok(TickCsvValues {
            pair: get(self.pair, "pair")?,
            source: get(self.source, "source")?,
            observed_time,
            rate: get(self.rate, "rate")?,
            reported_change_percent: self
                .reported_change_percent
                .and_then(|at| fields.get(at))
                .filter(|field| !field.is_empty())
                .cloned(),
        })
    }
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
mod tests {
    use super::*;
    use crate::domain::{CurrencySet, Pair, Rate};

    const HEADER: &str = "pair,source,observed_time,rate,reported_change_percent";

    /// Each row as `line: rate` or `line: problem`.
    fn read(file: &[u8]) -> Vec<String> {
        let mut reader = match TickCsv::new(file) {
            Ok(reader) => reader,
            Err(problem) => return vec![problem.to_string()],
        };
        let mut rows = Vec::new();
        while let Some(TickCsvRow { line, tick }) = reader.next_row().unwrap() {
            let said =
                |tick: TickCsvValues| format!("{} {}", tick.rate, tick.reported_change_percent.unwrap_or_default());
            rows.push(format!("{line}: {}", tick.map_or_else(|problem| problem.to_string(), said)));
        }
        assert_eq!(reader.bytes(), file.len() as u64);
        rows
    }

    #[test]
    fn a_bad_row_is_named_by_its_line_and_spoils_no_other() {
        let check = |body: &str, expect: &[&str]| {
            assert_eq!(read(format!("{HEADER}\n{body}").as_bytes()), expect, "{body}");
            assert_eq!(
                read(format!("\u{feff}{HEADER}\r\n{}", body.replace('\n', "\r\n")).as_bytes()),
                expect,
                "{body}"
            );
        };
        let good = "KGS/USD,nbkr,2025-12-08,0.01144,-0";
        check(good, &["2: 0.01144 -0"]);
        check(&format!("{good}\n\n  \n{good}\n"), &["2: 0.01144 -0", "5: 0.01144 -0"]);
        check("KGS/USD,nbkr,2025-12-08T06:00:00+06:00,0.01144,", &["2: 0.01144 "]);
        check(&format!("a,b\n{good}"), &["2: 2 fields where the header has 5", "3: 0.01144 -0"]);
        check(
            &format!("\"KGS/USD,nbkr,2025-12-08,1,\n{good}"),
            &["2: the quotes do not fit; a row stands on one line", "3: 0.01144 -0"],
        );
        check("\"KGS/USD\", nbkr ,2025-12-08,\"0.01144\",\"-0\"", &["2: 0.01144 -0"]);
        check(",nbkr,2025-12-08,1,", &["2: pair is empty"]);
        check("KGS/USD,nbkr,,1,", &["2: observed_time is empty"]);
        check("KGS/USD,nbkr,2025-12-08,,", &["2: rate is empty"]);
        check("KGS/USD,nbkr,2025-13-01,1,", &["2: observed_time: date '2025-13-01' is not in the calendar"]);
        // What a rate may be is the server's to say.
        check("kgs,NBKR,2025-12-08,1e3,x", &["2: 1e3 x"]);
        // A row means the same whenever it is read: nothing in it counts from now.
        assert!(read(format!("{HEADER}\nKGS/USD,nbkr,-7d,1,").as_bytes())[0].contains("is not RFC 3339"));
    }

    #[test]
    fn the_sample_is_read_whole() {
        let mut reader = TickCsv::new(include_str!("../../data/history-sample.csv").as_bytes()).unwrap();
        let mut rows = Vec::new();
        while let Some(row) = reader.next_row().unwrap() {
            rows.push(row.tick.unwrap());
        }
        assert_eq!(rows.len(), 120);
        let served = CurrencySet::central_asia();
        for row in &rows {
            assert!(Pair::parse(&row.pair, &served).is_ok() && Rate::parse(&row.rate).is_ok(), "{row:?}");
            assert_eq!((row.source.as_str(), &row.reported_change_percent), ("cbu", &None));
        }
        // The devaluation, in sums a dollar.
        let dollar = rows.iter().filter(|row| row.pair == "USD/UZS").map(|row| row.rate.as_str());
        assert!(dollar.collect::<Vec<_>>().windows(2).any(|rates| rates == ["4210.35", "8100"]));
    }

    #[test]
    fn lines_that_are_no_text() {
        let mut file = format!("{HEADER}\n").into_bytes();
        file.extend(b"KGS/USD,\xff,2025-12-08,1,\n");
        file.extend(vec![b'x'; 1_000_000]);
        file.extend(b"\nKGS/USD,nbkr,2025-12-08,1,\n");
        file.extend(vec![b'y'; TICK_CSV_LINE_BYTES_MAX + 1]);
        let too_long = format!("the line is over {TICK_CSV_LINE_BYTES_MAX} bytes long");
        let expect = ["2: the line is not UTF-8", &format!("3: {too_long}"), "4: 1 ", &format!("5: {too_long}")];
        assert_eq!(read(&file), expect);
    }

    #[test]
    fn headers() {
        let check = |header: &str, expect: &str| assert!(read(header.as_bytes())[0].contains(expect), "{header}");
        check("", "the file is empty");
        check("pair,source,rate", "no column 'observed_time'; the columns are pair");
        check("pair,source,observed_time,rate,pair", "column 'pair' twice");
        check("pair,source,observed_time,rate,reported_change", "column 'reported_change' is not known");
        check("rate,pair,observed_time,source\n1,KGS/USD,2025-12-08,nbkr", "2: 1 ");
    }

    #[test]
    fn csv_is_known_by_its_header() {
        let check = |head: &[u8], expect| assert_eq!(begins_as_tick_csv(head), expect);
        check(HEADER.as_bytes(), true);
        check("\u{feff}source,\"pair\"\r\nx".as_bytes(), true);
        check("• KZT/USD = 0.00196 -0%\npair,source".as_bytes(), false);
        check(b"\xff\xfe,pair", false);
        check(b"", false);
    }
}
