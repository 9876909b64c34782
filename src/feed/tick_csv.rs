//! Ticks in CSV: `pair,source,observed_time,rate[,reported_change_percent]`, columns in any order.
//!
//! **Invariant**: every line that is not blank is a row or an error that names it, and one bad line
//! costs no other; the memory a line takes is bounded. Only its shape and its time's form are judged here; values are judged where
//! they are taken in, so that one refusal reads the same for a file and for a client.

use std::io::{self, BufRead, Read};

use chrono::{NaiveDate, NaiveTime};
use csv::{ReaderBuilder, StringRecord, Terminator, Trim};
use thiserror::Error;

use crate::domain::{Timestamp, TimestampError, clip};

/// One record, its values unjudged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TickRow {
    /// From 1, blank lines counted; the header is usually line 1.
    pub line: u64,
    /// As written, spaces around it left out; so are the other fields.
    pub pair: String,
    /// As written.
    pub source: String,
    /// UTC; a bare date is that day's start.
    pub observed_time: Timestamp,
    /// As written.
    pub rate: String,
    /// As written; none if there is no such column or the field is empty.
    pub reported_change_percent: Option<String>,
}

/// Why CSV cannot be read, or a record of it.
#[derive(Debug, Error)]
pub enum TickCsvError {
    /// Not even a header.
    #[error("the CSV is empty; its first line names the columns, like 'pair,source,observed_time,rate'")]
    Empty,
    /// A column that means nothing here.
    #[error(
        "line {line}: column '{name}' is unknown; known are pair, source, observed_time, rate and reported_change_percent"
    )]
    UnknownColumn {
        /// The header's.
        line: u64,
        /// As written, clipped.
        name: String,
    },
    /// A column named twice.
    #[error("line {line}: column '{name}' is named twice")]
    DuplicateColumn {
        /// The header's.
        line: u64,
        /// Which.
        name: &'static str,
    },
    /// A column that must be there.
    #[error("line {line}: the header has no column '{name}'")]
    MissingColumn {
        /// The header's.
        line: u64,
        /// Which.
        name: &'static str,
    },
    /// More or fewer fields than columns.
    #[error("line {line}: the record has {found} fields, but the header names {expected} columns")]
    FieldCount {
        /// Of the record.
        line: u64,
        /// Fields.
        found: usize,
        /// Columns.
        expected: usize,
    },
    /// A time that is neither RFC 3339 nor a date.
    #[error("line {line}: observed_time: {problem}, or as a date like 2025-12-08")]
    Time {
        /// Of the record.
        line: u64,
        /// What is wrong.
        problem: TimestampError,
    },
    /// Another encoding.
    #[error("line {line}: the record is not UTF-8; convert the file")]
    NotUtf8 {
        /// Of the record.
        line: u64,
    },
    /// A line over the limit.
    #[error("line {line}: the record has more than {max_bytes} bytes")]
    RecordTooLong {
        /// Of the record.
        line: u64,
        /// Allowed.
        max_bytes: usize,
    },
    /// The input failed. Nothing after it is read.
    #[error("line {line}: the input cannot be read: {problem}")]
    Io {
        /// Of the record that was being read.
        line: u64,
        /// What the system says.
        #[source]
        problem: io::Error,
    },
}

/// Every column there can be; the last one may be missing.
const COLUMN_NAMES: [&str; 5] = ["pair", "source", "observed_time", "rate", "reported_change_percent"];
const REQUIRED_COLUMNS: usize = 4;

/// Where each of [`COLUMN_NAMES`] stands in a record.
type Columns = [Option<usize>; COLUMN_NAMES.len()];

/// The records of a CSV, read as they are asked for; one line each, since no field has line ends.
pub struct TickCsv<R> {
    input: R,
    parser: ReaderBuilder,
    columns: Columns,
    column_count: usize,
    /// The line under way, from 1.
    line: u64,
    /// Its bytes.
    bytes: Vec<u8>,
    /// Its fields.
    record: StringRecord,
    is_over: bool,
}

impl<R: BufRead> TickCsv<R> {
    /// Longest record, its line end included.
    pub const RECORD_BYTES_MAX: usize = 4 * 1024;

    /// Reads the header. A byte order mark before it, CRLF and blank lines are no matter.
    ///
    /// # Errors
    /// Any [`TickCsvError`] but those of single records.
    pub fn new(input: R) -> Result<Self, TickCsvError> {
        let mut parser = ReaderBuilder::new();
        parser.has_headers(false).flexible(true).trim(Trim::All);
        // Line ends are gone by then; a stray CR is part of its field and shows in the error.
        parser.terminator(Terminator::Any(b'\n')).buffer_capacity(Self::RECORD_BYTES_MAX);
        let mut csv = Self {
            input,
            parser,
            columns: [None; COLUMN_NAMES.len()],
            column_count: 0,
            line: 0,
            bytes: Vec::new(),
            record: StringRecord::new(),
            is_over: false,
        };
        if !csv.read_record()? {
            return Err(TickCsvError::Empty);
        }
        csv.columns = columns_of(&csv.record, csv.line)?;
        csv.column_count = csv.record.len();
        Ok(csv)
    }

    /// Reads the next line that is not blank into `record`; false at the end.
    fn read_record(&mut self) -> Result<bool, TickCsvError> {
        while self.read_line()? {
            let line = self.line;
            let text = str::from_utf8(&self.bytes).map_err(|_| TickCsvError::NotUtf8 { line })?;
            let text = if line == 1 { text.trim_start_matches('\u{feff}') } else { text };
            if text.trim().is_empty() {
                continue;
            }
            let text = text.strip_suffix('\n').unwrap_or(text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            let mut parser = self.parser.from_reader(text.as_bytes());
            let problem = parser.read_record(&mut self.record).err();
            return problem.map_or(Ok(true), |problem| Err(TickCsvError::Io { line, problem: problem.into() }));
        }
        Ok(false)
    }

    /// Reads a line into `bytes`, its end included; false at the end. Of one over the limit, the
    /// rest is stepped over, so that the next one can be read.
    fn read_line(&mut self) -> Result<bool, TickCsvError> {
        let max_bytes = Self::RECORD_BYTES_MAX;
        self.line += 1;
        let line = self.line;
        self.bytes.clear();
        let read = Read::by_ref(&mut self.input).take(max_bytes as u64 + 1).read_until(b'\n', &mut self.bytes);
        read.map_err(|problem| TickCsvError::Io { line, problem })?;
        if self.bytes.len() <= max_bytes {
            return Ok(!self.bytes.is_empty());
        }
        if !self.bytes.ends_with(b"\n") {
            self.input.skip_until(b'\n').map_err(|problem| TickCsvError::Io { line, problem })?;
        }
        Err(TickCsvError::RecordTooLong { line, max_bytes })
    }

    fn read_row(&mut self) -> Result<Option<TickRow>, TickCsvError> {
        if !self.read_record()? {
            return Ok(None);
        }
        let line = self.line;
        if self.record.len() != self.column_count {
            return Err(TickCsvError::FieldCount { line, found: self.record.len(), expected: self.column_count });
        }
        let [pair, source, time, rate, change] =
            self.columns.map(|column| column.and_then(|column| self.record.get(column)).unwrap_or_default());
        Ok(Some(TickRow {
            line,
            pair: pair.to_owned(),
            source: source.to_owned(),
            observed_time: parse_time(time).map_err(|problem| TickCsvError::Time { line, problem })?,
            rate: rate.to_owned(),
            reported_change_percent: (!change.is_empty()).then(|| change.to_owned()),
        }))
    }
}

impl<R: BufRead> Iterator for TickCsv<R> {
    type Item = Result<TickRow, TickCsvError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let row = self.read_row().transpose();
        self.is_over = matches!(row, None | Some(Err(TickCsvError::Io { .. })));
        row
    }
}

fn columns_of(header: &StringRecord, line: u64) -> Result<Columns, TickCsvError> {
    let mut columns = [None; COLUMN_NAMES.len()];
    for (index, name) in header.iter().enumerate() {
        let Some(known) = COLUMN_NAMES.iter().position(|known| *known == name) else {
            return Err(TickCsvError::UnknownColumn { line, name: clip(name) });
        };
        if columns[known].replace(index).is_some() {
            return Err(TickCsvError::DuplicateColumn { line, name: COLUMN_NAMES[known] });
        }
    }
    match columns.iter().take(REQUIRED_COLUMNS).position(Option::is_none) {
        Some(missing) => Err(TickCsvError::MissingColumn { line, name: COLUMN_NAMES[missing] }),
        None => Ok(columns),
    }
}

/// RFC 3339, or a date for its start, UTC.
fn parse_time(text: &str) -> Result<Timestamp, TimestampError> {
    // chrono would also take `2025-1-2` and `+2025-01-02`.
    let is_date = text.len() == "2025-12-08".len() && text.starts_with(|c: char| c.is_ascii_digit());
    match NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        Ok(date) if is_date => Ok(date.and_time(NaiveTime::MIN).and_utc().into()),
        _ => Timestamp::parse_rfc3339(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{CurrencySet, Pair, Rate};

    const HEADER: &str = "pair,source,observed_time,rate,reported_change_percent\n";

    /// Rows as `line pair source time rate change`, errors as they print.
    fn read(text: &[u8]) -> Vec<String> {
        match TickCsv::new(text) {
            Err(error) => vec![error.to_string()],
            Ok(rows) => rows
                .map(|row| {
                    row.map_or_else(
                        |error| error.to_string(),
                        |row| {
                            let change = row.reported_change_percent.as_deref().unwrap_or("none");
                            let (pair, source) = (row.pair, row.source);
                            format!("{} {pair} {source} {} {} {change}", row.line, row.observed_time, row.rate)
                        },
                    )
                })
                .collect(),
        }
    }

    #[test]
    fn columns_go_by_name() {
        let check = |text: &str, expect: &[&str]| assert_eq!(read(text.as_bytes()), expect, "{text}");
        let row = "2 KGS/USD timesca 2025-12-08T00:00:00Z 0.01144 -0";
        check(&format!("{HEADER}KGS/USD,timesca,2025-12-08T00:00:00Z,0.01144,-0"), &[row]);
        check(&format!("\u{feff}{HEADER}KGS/USD,timesca,2025-12-08T05:00:00+05:00,0.01144,-0\r\n"), &[row]);
        check(
            "rate,reported_change_percent,pair,observed_time,source\n0.01144,-0,KGS/USD,2025-12-08,timesca\n",
            &[row],
        );
        check(
            " pair , source,observed_time,rate\r\n KGS/USD,cbu, 2025-12-08 ,1\r\n",
            &["2 KGS/USD cbu 2025-12-08T00:00:00Z 1 none"],
        );
        check(&format!("{HEADER}\"KGS/USD\",cbu,2025-12-08,1,\n"), &["2 KGS/USD cbu 2025-12-08T00:00:00Z 1 none"]);
        check(HEADER, &[]);
    }

    #[test]
    fn the_sample_is_read_whole() {
        let rows: Vec<_> = TickCsv::new(include_str!("../../data/history-sample.csv").as_bytes()).unwrap().collect();
        let rows: Vec<TickRow> = rows.into_iter().map(Result::unwrap).collect();
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
    fn values_are_left_to_others() {
        let rows = read(format!("{HEADER}kgs,NO SOURCE,1970-01-01,-1e3,x\n,,2025-12-08,,\n").as_bytes());
        assert_eq!(rows, ["2 kgs NO SOURCE 1970-01-01T00:00:00Z -1e3 x", "3   2025-12-08T00:00:00Z  none"]);
    }

    #[test]
    fn a_bad_record_is_named_by_its_line_and_the_next_one_is_read() {
        let check = |bad: &[u8], expect: &str| {
            let good = b"KGS/USD,cbu,2025-12-08,1,\n";
            let rows = read(&[HEADER.as_bytes(), good, b"\n\n", bad, b"\n", good].concat());
            let [first, error, last] = rows.as_slice() else { panic!("{rows:?}") };
            assert!(first.starts_with("2 ") && last.starts_with("6 "), "{rows:?}");
            assert!(error.starts_with("line 5: ") && error.contains(expect), "{error}");
        };
        check(b"KGS/USD,cbu,2025-12-08", "has 3 fields, but the header names 5 columns");
        check(b"KGS/USD,cbu,2025-12-08,1,0,0", "has 6 fields");
        check(b"KGS/USD\rcbu", "has 1 fields");
        check(b"KGS/USD,cbu,08.12.2025,1,0", "observed_time: time '08.12.2025' is not RFC 3339");
        check(b"KGS/USD,cbu,2025-02-31,1,0", "observed_time");
        check(b"KGS/USD,cbu,2025-1-2,1,0", "observed_time");
        check(b"KGS/USD,cbu,,1,0", "observed_time: time '' is not RFC 3339");
        check(b"KGS/USD,cbu,2025-12-08T00:00:00.0000001Z,1,0", "finer than a microsecond");
        check(b"KGS/USD,\xff,2025-12-08,1,0", "not UTF-8");
    }

    #[test]
    fn bad_headers() {
        let check = |text: &str, expect: &str| {
            let answer = read(text.as_bytes());
            assert!(answer.len() == 1 && answer[0].contains(expect), "{text}: {answer:?}");
        };
        check("", "the CSV is empty");
        check("\n\r\n  \n", "the CSV is empty");
        check("pair,source,observed_time,rate\rKGS/USD,cbu,2025-12-08,1\r", "is unknown");
        check("pair,source,observed_time,rate,volume\n", "line 1: column 'volume' is unknown");
        check("Pair,source,observed_time,rate\n", "column 'Pair' is unknown");
        check("pair,source,observed_time,rate,pair\n", "column 'pair' is named twice");
        check("pair,source,observed_time\n", "no column 'rate'");
        check("KGS/USD,cbu,2025-12-08,1\n", "column 'KGS/USD' is unknown");
    }

    #[test]
    fn a_line_has_a_limit_and_costs_no_other() {
        let max = TickCsv::<&[u8]>::RECORD_BYTES_MAX;
        let good = "KGS/USD,cbu,2025-12-08,1,\n";
        let check = |bad: &str, expect: &str| {
            let rows = read(format!("{HEADER}{good}{bad}\n{}", good.repeat(1_000)).as_bytes());
            assert_eq!(rows.len(), 1_002, "{}", rows[1]);
            assert!(rows[1].starts_with("line 3: ") && rows[1].contains(expect), "{}", rows[1]);
        };
        check(&"x".repeat(max - 1), "has 1 fields");
        check(&"x".repeat(max), "more than 4096 bytes");
        check(&"x".repeat(100 * max), "more than 4096 bytes");
        // Fields have no line ends, so an open quotation mark ends with its line.
        check("\"KGS/USD,cbu,2025-12-08,1,", "has 1 fields");
    }

    #[test]
    fn a_failing_input_ends_the_rows() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let rows: Vec<_> = TickCsv::new(HEADER.as_bytes().chain(io::BufReader::new(Broken))).unwrap().collect();
        assert!(matches!(rows.as_slice(), [Err(TickCsvError::Io { line: 2, .. })]), "{rows:?}");
    }
}
