//! Rows of a file as batches for the server: a batch of columns for each series, and a batch of messages for the rest.
//!
//! **Invariant**: the server gives the same results for these batches as for one batch of messages with the rows in file
//! order. Rows of one series keep their order.

use std::collections::HashMap;

use crate::columns::{TICK_COLUMN_ROWS_MAX, encode_tick_columns_of};
use crate::domain::{PublishedValue, Rate, ReportedChange, Timestamp};
use crate::feed::TickCsvRowError;
use crate::proto::convert::timestamp;
use crate::proto::v1::stream_ticks_request::Batch as Content;
use crate::proto::v1::{Tick, TickBatch};

/// Maximum number of ticks in a batch of messages.
const MESSAGES_MAX: usize = 5_000;
/// A series with fewer rows is sent as messages, because many small batches cost more than messages.
const COLUMN_ROWS_MIN: usize = 64;
/// Number of series that are compared before a series is looked up.
const COMPARED_SERIES: usize = 8;

/// Rows that are sent in one request.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The ticks; `None` if no row of the batch could be parsed.
    pub(super) content: Option<Content>,
    /// The line of each tick.
    pub(super) lines: Vec<u64>,
    /// Line and error of each row that could not be parsed.
    pub(super) malformed: Vec<(u64, TickCsvRowError)>,
    /// Bytes of the file up to the end of this batch.
    pub(super) end_bytes: u64,
}

/// The rows of one series.
struct SeriesRows {
    pair: String,
    source: String,
    ticks: Vec<(Timestamp, PublishedValue)>,
    lines: Vec<u64>,
}

/// Collects rows and makes batches of them.
#[derive(Default)]
pub(super) struct BatchBuilder {
    series: Vec<SeriesRows>,
    /// Index of each series in `series`, by source and pair.
    indices: HashMap<String, HashMap<String, usize>>,
    /// Index of the series of the last row.
    last: usize,
    /// Ticks with a rate or a reported change that only the server's error explains.
    invalid: Vec<Tick>,
    invalid_lines: Vec<u64>,
    malformed: Vec<(u64, TickCsvRowError)>,
    rows: usize,
}

impl BatchBuilder {
    /// The number of rows so far.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a tick whose rate and reported change are text.
    pub(super) fn push_text(
        &mut self,
        line: u64,
        (pair, source): (&str, &str),
        observed_time: Timestamp,
        (rate, reported_change): (&str, Option<&str>),
    ) {
        let value = Rate::parse(rate).ok().zip(reported_change.map(ReportedChange::parse).transpose().ok());
        if let Some((rate, reported_change)) = value {
            self.push(line, (pair, source), observed_time, PublishedValue { rate, reported_change });
            return;
        }
        self.rows += 1;
        self.invalid_lines.push(line);
        self.invalid.push(Tick {
            pair: pair.to_owned(),
            source: source.to_owned(),
            observed_time: Some(timestamp(observed_time)),
            rate: rate.to_owned(),
            reported_change_percent: reported_change.map(str::to_owned),
        });
    }

    /// Adds a tick.
    pub(super) fn push(
        &mut self,
        line: u64,
        (pair, source): (&str, &str),
        observed_time: Timestamp,
        value: PublishedValue,
    ) {
        self.rows += 1;
        let at = self.index_of(pair, source);
        self.last = at;
        if let Some(rows) = self.series.get_mut(at) {
            rows.ticks.push((observed_time, value));
            rows.lines.push(line);
        }
    }

    /// Adds a row that could not be parsed.
    pub(super) fn push_malformed(&mut self, line: u64, problem: TickCsvRowError) {
        self.rows += 1;
        self.malformed.push((line, problem));
    }

    /// Returns the index of a series. Files often have the rows of a series one after the other, or several series in
    /// turn, so the series from that of the last row on are compared first.
    fn index_of(&mut self, pair: &str, source: &str) -> usize {
        let count = self.series.len();
        let is_wanted =
            |at: &usize| self.series.get(*at).is_some_and(|rows| rows.pair == pair && rows.source == source);
        let near = (0..COMPARED_SERIES.min(count)).map(|step| (self.last + step) % count);
        if let Some(at) = near.into_iter().find(is_wanted) {
            return at;
        }
        if let Some(at) = self.indices.get(source).and_then(|pairs| pairs.get(pair)) {
            return *at;
        }
        self.indices.entry(source.to_owned()).or_default().insert(pair.to_owned(), count);
        let (pair, source) = (pair.to_owned(), source.to_owned());
        self.series.push(SeriesRows { pair, source, ticks: Vec::new(), lines: Vec::new() });
        count
    }

    /// Returns the batches. All rows are before the byte `end_bytes` of the file; the batches before the last one end
    /// at `begin_bytes`.
    pub(super) fn finish(mut self, begin_bytes: u64, end_bytes: u64) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut messages: Vec<(u64, Tick)> = self.invalid_lines.into_iter().zip(self.invalid).collect();
        for rows in &mut self.series {
            let columns = if rows.ticks.len() < COLUMN_ROWS_MIN { None } else { columns(rows) };
            match columns {
                Some(columns) => batches.extend(columns),
                None => messages.extend(rows.messages()),
            }
        }
        // Ticks of one series stay in order, because all of them are messages then.
        messages.sort_by_key(|(line, _)| *line);
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let (lines, ticks) = messages.by_ref().take(MESSAGES_MAX).unzip();
            batches.push(Batch { content: Some(Content::Ticks(TickBatch { ticks })), lines, ..Batch::default() });
        }
        if batches.is_empty() && !self.malformed.is_empty() {
            batches.push(Batch::default());
        }
        for batch in &mut batches {
            batch.end_bytes = begin_bytes;
        }
        if let Some(last) = batches.last_mut() {
            last.end_bytes = end_bytes;
            last.malformed = self.malformed;
        }
        batches
    }
}

impl SeriesRows {
    fn messages(&self) -> impl Iterator<Item = (u64, Tick)> + '_ {
        self.lines.iter().zip(&self.ticks).map(|(line, (time, value))| {
            let tick = Tick {
                pair: self.pair.clone(),
                source: self.source.clone(),
                observed_time: Some(timestamp(*time)),
                rate: value.rate.to_string(),
                reported_change_percent: value.reported_change.map(|change| change.to_string()),
            };
            (*line, tick)
        })
    }
}

/// Returns batches of columns. Returns `None` if the rates or the changes of the series differ in their number of places:
/// such rows go into one batch only as messages, and the server compares rows of the same instant only within a batch.
fn columns(rows: &mut SeriesRows) -> Option<Vec<Batch>> {
    let parts = rows.ticks.chunks(TICK_COLUMN_ROWS_MAX).zip(rows.lines.chunks(TICK_COLUMN_ROWS_MAX));
    let batch = |(ticks, lines): (&[_], &[u64])| {
        let columns = encode_tick_columns_of(&rows.pair, &rows.source, ticks).ok()?;
        Some(Batch { content: Some(Content::Columns(columns)), lines: lines.to_vec(), ..Batch::default() })
    };
    parts.map(batch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(second: u32) -> Timestamp {
        Timestamp::from_micros(i64::from(second) * Timestamp::SECOND_US)
    }

    /// Describes batches as "columns KGS/USD nbkr: lines" and "messages: lines".
    fn described(builder: BatchBuilder) -> Vec<String> {
        let text = |batch: &Batch| {
            let what = match &batch.content {
                Some(Content::Columns(columns)) => format!("columns {} {}", columns.pair, columns.source),
                Some(Content::Ticks(_)) => "messages".to_owned(),
                None => "nothing".to_owned(),
            };
            let (first, last) = (batch.lines.first(), batch.lines.last());
            format!("{what}: {} from {first:?} to {last:?}, to byte {}", batch.lines.len(), batch.end_bytes)
        };
        builder.finish(10, 90).iter().map(text).collect()
    }

    #[test]
    fn series_with_many_rows_are_columns_and_the_rest_is_messages_in_file_order() {
        let mut builder = BatchBuilder::default();
        for row in 0..200_u32 {
            let line = u64::from(row) + 2;
            let (pair, rate) = match row % 4 {
                0 => ("KGS/USD", "0.01144"),
                1 => ("KZT/USD", "0.00196"),
                // The places of this series differ.
                2 => ("TJS/USD", if row < 100 { "0.108" } else { "0.1089" }),
                _ => ("UZS/USD", "much"),
            };
            builder.push_text(line, (pair, "nbkr"), time(row), (rate, Some("-0")));
            builder.push_text(line, (pair, "nbkr"), time(row), (rate, None));
        }
        builder.push_text(999, ("TMT/USD", "nbkr"), time(0), ("0.28490", None));
        builder.push_malformed(1_000, TickCsvRowError::Quotes);
        assert_eq!(builder.rows(), 402);
        let expect = [
            "columns KGS/USD nbkr: 100 from Some(2) to Some(198), to byte 10",
            "columns KZT/USD nbkr: 100 from Some(3) to Some(199), to byte 10",
            "messages: 201 from Some(4) to Some(999), to byte 90",
        ];
        assert_eq!(described(builder), expect);
    }

    #[test]
    fn many_series_keep_their_rows_apart() {
        let mut builder = BatchBuilder::default();
        for row in 0..6_400_u32 {
            // In no order that the search of the nearest series finds.
            let series = row * 37 % 100;
            builder.push(
                u64::from(row),
                ("KGS/USD", &format!("s{series}")),
                time(row),
                PublishedValue { rate: Rate::parse("0.01144").unwrap(), reported_change: None },
            );
        }
        let batches = builder.finish(0, 1);
        assert_eq!(batches.len(), 100);
        for batch in batches {
            let Some(Content::Columns(columns)) = &batch.content else { panic!("columns") };
            let series: u64 = columns.source[1..].parse().unwrap();
            assert!(batch.lines.len() == 64 && batch.lines.iter().all(|line| line * 37 % 100 == series));
        }
    }

    #[test]
    fn malformed_rows_alone_are_a_batch_without_content() {
        let mut builder = BatchBuilder::default();
        builder.push_malformed(7, TickCsvRowError::NotUtf8);
        assert_eq!(described(builder), ["nothing: 0 from None to None, to byte 90"]);
        assert_eq!(described(BatchBuilder::default()), Vec::<String>::new());
    }
}
