//! Turns a snapshot into the message stream of an export.
//!
//! **Invariant**: a complete stream is the manifest, then every part of the manifest in that order, then the end
//! message. After a failure the stream has no end message.

use std::sync::Arc;

use thiserror::Error;

use super::chunk_writer::{ChunkWriter, ReceiverGone, SendMessage, response};
use super::encode::{EncodeError, Encoder};
use super::names::{Names, SeriesNames};
use super::request::{ExportRequest, Shape};
use super::row::{CandleCells, DayRow, HeldRow, InstantRow, PollRow, RevisionRow, Row, RunRow, SeriesRow};
use super::schema::{Part, SCHEMA_VERSION};
use crate::domain::{Run, Timestamp};
use crate::proto::convert::timestamp;
use crate::proto::v1;
use crate::proto::v1::export_snapshot_response::Message;
use crate::query::{QueryError, Snapshot};
use crate::store::{SeriesView, StoreError};

/// Why an export failed.
#[derive(Debug, Clone, Error)]
pub enum ExportError {
    /// The store could not be read, or the call was cancelled.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The rows could not be encoded in the requested format.
    #[error("cannot write {part}: {problem}")]
    Encode {
        /// Name of the part.
        part: String,
        /// Message of the format's library.
        problem: String,
    },
    /// The receiver of the messages has disconnected.
    #[error("the client no longer reads the export")]
    ReceiverGone,
}

impl From<StoreError> for ExportError {
    fn from(error: StoreError) -> Self {
        Self::Query(error.into())
    }
}

impl From<ReceiverGone> for ExportError {
    fn from(ReceiverGone: ReceiverGone) -> Self {
        Self::ReceiverGone
    }
}

/// Why a part failed.
enum PartError {
    Read(QueryError),
    Encode(EncodeError),
}

impl<E: Into<QueryError>> From<E> for PartError {
    fn from(error: E) -> Self {
        Self::Read(error.into())
    }
}

/// Passes the messages of an export of `snapshot` to `send`, one by one. Blocks the thread.
///
/// # Errors
/// Any [`ExportError`]; then the messages sent so far are an incomplete export.
pub fn produce(
    snapshot: &Snapshot,
    request: &ExportRequest,
    send: &mut (dyn FnMut(v1::ExportSnapshotResponse) -> Result<(), ReceiverGone> + Send),
) -> Result<(), ExportError> {
    send(response(Message::Manifest(manifest(snapshot, request)?)))?;
    let polls: Vec<_> = snapshot.view.all_polls().collect();
    let names = Names::new(snapshot.series.iter().map(|series| series.key()), polls.iter().map(|polls| polls.source()))
        .map_err(|problem| ExportError::Encode { part: "names".to_owned(), problem: problem.to_string() })?;
    let (mut row_count, mut part_count) = (0, 0);
    for part in request.parts() {
        row_count += write_part(snapshot, request, *part, &names, &mut *send)?;
        part_count += 1;
    }
    Ok(send(response(Message::End(v1::ExportEnd { row_count, part_count })))?)
}

fn manifest(snapshot: &Snapshot, request: &ExportRequest) -> Result<v1::ExportManifest, ExportError> {
    Ok(v1::ExportManifest {
        schema_version: SCHEMA_VERSION,
        sequence: snapshot.commit.sequence,
        recorded_time: Some(timestamp(snapshot.commit.recorded_time)),
        product_version: env!("CARGO_PKG_VERSION").to_owned(),
        request: Some(request.echo()),
        parts: request.part_names(),
        expected_row_count: Some(expected_row_count(snapshot, request)?),
        last_ingest_time: snapshot.view.latest_quotes.last_ingest_time.map(timestamp),
    })
}

/// Estimates the number of rows without reading them. The number is exact for runs without a time range or known time,
/// for days, and for a full export.
fn expected_row_count(snapshot: &Snapshot, request: &ExportRequest) -> Result<u64, ExportError> {
    if !request.full {
        return match request.shape {
            Shape::Runs => Ok(snapshot.run_count()?),
            Shape::Daily => day_count(snapshot),
            Shape::Candles => Ok(snapshot.approximate_candle_count()?),
        };
    }
    let mut count = snapshot.run_count()? + snapshot.series.len() as u64 + snapshot.commit.sequence;
    count += snapshot.held_ticks().count() as u64;
    for series in &snapshot.series {
        let totals = series.totals(snapshot.commit.recorded_time)?;
        count += totals.map_or(0, |totals| totals.observation_count + totals.revision_count);
    }
    for polls in snapshot.view.all_polls() {
        count += polls.spans().count() as u64;
    }
    Ok(count)
}

/// Counts the days of each series in the range, without the days before the first observation of the series.
fn day_count(snapshot: &Snapshot) -> Result<u64, ExportError> {
    let Some(days) = Days::of(snapshot) else { return Ok(0) };
    let mut count = 0;
    for series in &snapshot.series {
        if let Some(totals) = series.totals(snapshot.commit.recorded_time)? {
            let first = days.first.max(Days::day_of(totals.first_observed_time));
            count += u64::try_from(days.last + 1 - first).unwrap_or(0);
        }
    }
    Ok(count)
}

fn write_part(
    snapshot: &Snapshot,
    request: &ExportRequest,
    part: Part,
    names: &Names,
    send: &mut SendMessage<'_>,
) -> Result<u64, ExportError> {
    let name = part.file_name(request.format);
    let mut send = |message| send(message);
    let mut writer = ChunkWriter::new(&mut send, name.clone());
    let written = Encoder::new(part, request.format, &request.metadata(snapshot.commit), names, &mut writer)
        .map_err(PartError::Encode)
        .and_then(|encoder| {
            let mut writer = PartWriter { snapshot, names, encoder };
            writer.write_all(part)?;
            writer.encoder.finish().map_err(PartError::Encode)
        });
    match written {
        Ok(()) => Ok(writer.end()?),
        Err(PartError::Encode(_)) if writer.is_receiver_gone() => Err(ExportError::ReceiverGone),
        Err(PartError::Encode(problem)) => Err(ExportError::Encode { part: name, problem: problem.to_string() }),
        Err(PartError::Read(error)) => Err(error.into()),
    }
}

/// Reads the rows of a part and encodes them.
struct PartWriter<'s, 'p, 'a> {
    snapshot: &'s Snapshot,
    names: &'s Names,
    encoder: Encoder<'p, 'a>,
}

impl PartWriter<'_, '_, '_> {
    fn write_all(&mut self, part: Part) -> Result<(), PartError> {
        let snapshot = self.snapshot;
        match part {
            Part::Commits => {
                for piece in snapshot.until_cancelled(snapshot.view.commits()) {
                    for commit in piece? {
                        self.write(&commit)?;
                    }
                }
            }
            Part::Polls => self.write_polls()?,
            Part::Quarantine => {
                for (number, tick) in snapshot.held_ticks() {
                    self.write(&HeldRow { series: self.names.of_series(number), tick: &tick })?;
                }
            }
            Part::Runs | Part::Daily | Part::Candles | Part::Series | Part::Timeline | Part::Revisions => {
                for (number, series) in snapshot.series.iter().enumerate() {
                    self.write_series(part, self.names.of_series(number), series)?;
                }
            }
        }
        Ok(())
    }

    fn write_polls(&mut self) -> Result<(), PartError> {
        let mut polls: Vec<_> = self.snapshot.view.all_polls().collect();
        polls.sort_unstable_by(|one, other| one.source().cmp(other.source()));
        for record in polls {
            let name = self.names.source(record.source());
            for span in record.spans() {
                self.write(&PollRow { name, span })?;
            }
        }
        Ok(())
    }

    /// Writes the rows of one series.
    fn write_series(&mut self, part: Part, names: SeriesNames, series: &Arc<SeriesView>) -> Result<(), PartError> {
        let snapshot = self.snapshot;
        match part {
            Part::Runs => {
                let range = snapshot.range();
                for piece in snapshot.runs(series, range.start(), range.end())? {
                    for run in &piece? {
                        self.write(&RunRow { series: names, run })?;
                    }
                }
            }
            Part::Daily => self.write_days(names, series)?,
            Part::Candles => {
                for candle in snapshot.candles(series)? {
                    self.write(&CandleCells { series: names, row: &candle? })?;
                }
            }
            Part::Series => {
                self.write(&SeriesRow { series: names, collapse_window_us: series.collapse_window_us() })?;
            }
            Part::Timeline => {
                for piece in snapshot.until_cancelled(series.instants(Timestamp::MIN, END_OF_TIME)) {
                    for observed_time in piece? {
                        self.write(&InstantRow { series: names, observed_time })?;
                    }
                }
            }
            Part::Revisions => {
                let known = snapshot.commit.recorded_time;
                for piece in snapshot.until_cancelled(series.revisions(Timestamp::MIN, END_OF_TIME, known)) {
                    for revision in &piece? {
                        self.write(&RevisionRow { series: names, revision })?;
                    }
                }
            }
            // These parts are not grouped by series; `write_all` writes them.
            Part::Commits | Part::Polls | Part::Quarantine => {}
        }
        Ok(())
    }

    /// Writes one row for each day that begins in the range. Days before the first observation, and days that begin
    /// after the recorded time of the commit, have no row.
    fn write_days(&mut self, names: SeriesNames, series: &Arc<SeriesView>) -> Result<(), PartError> {
        let Some(days) = Days::of(self.snapshot) else { return Ok(()) };
        let mut in_force = self.snapshot.run_before(series, days.start())?;
        let mut next_day = days.first;
        for piece in self.snapshot.runs(series, days.start(), days.end())? {
            for run in piece? {
                let day = Days::day_of(run.first_observed_time);
                self.push_days(names, next_day..day, in_force.as_ref(), days)?;
                next_day = next_day.max(day);
                in_force = Some(run);
            }
        }
        self.push_days(names, next_day..days.last + 1, in_force.as_ref(), days)
    }

    fn push_days(
        &mut self,
        series: SeriesNames,
        days: std::ops::Range<i64>,
        in_force: Option<&Run>,
        all: Days,
    ) -> Result<(), PartError> {
        let Some(in_force) = in_force else { return Ok(()) };
        // Every day of a valid timestamp fits 32 bits.
        for day in days.filter_map(|day| i32::try_from(day).ok()) {
            self.write(&DayRow { series, day, in_force, complete: all.is_complete(day.into()) })?;
        }
        Ok(())
    }

    fn write(&mut self, row: &impl Row) -> Result<(), PartError> {
        self.encoder.write(row).map_err(PartError::Encode)
    }
}

/// A time after every instant.
const END_OF_TIME: Timestamp = Timestamp::from_micros(i64::MAX);

/// The days of a daily export, as day numbers since 1970-01-01, UTC. Both ends are inclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Days {
    first: i64,
    last: i64,
    recorded_time: Timestamp,
}

impl Days {
    fn of(snapshot: &Snapshot) -> Option<Self> {
        Self::between(snapshot.range().start(), snapshot.range().end(), snapshot.commit.recorded_time)
    }

    /// Returns the days that begin in `[start, end)` and not after `recorded_time`; `None` if there are none.
    fn between(start: Timestamp, end: Timestamp, recorded_time: Timestamp) -> Option<Self> {
        let first = Self::day_of(start.saturating_add_us(Timestamp::DAY_US - 1));
        let last = Self::day_of(end.saturating_add_us(-1)).min(Self::day_of(recorded_time));
        (first <= last).then_some(Self { first, last, recorded_time })
    }

    fn day_of(time: Timestamp) -> i64 {
        time.micros().div_euclid(Timestamp::DAY_US)
    }

    /// Returns true if a day had ended at the recorded time of the commit.
    fn is_complete(self, day: i64) -> bool {
        Timestamp::from_micros((day + 1).saturating_mul(Timestamp::DAY_US)) <= self.recorded_time
    }

    fn start(self) -> Timestamp {
        Timestamp::from_micros(self.first.saturating_mul(Timestamp::DAY_US))
    }

    /// The end of the last day, or 1 us after the recorded time of the commit if that is earlier. No run that begins at
    /// or after this time is in force at the end of any day.
    fn end(self) -> Timestamp {
        let midnight = Timestamp::from_micros((self.last + 1).saturating_mul(Timestamp::DAY_US));
        midnight.min(self.recorded_time.saturating_add_us(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn day_is_complete_after_its_end() {
        let check = |recorded: &str, expect: [bool; 3]| {
            let at = |text: &str| Timestamp::parse_rfc3339(text).unwrap();
            let days = Days::between(at("1970-01-01T00:00:00Z"), at("1970-02-01T00:00:00Z"), at(recorded)).unwrap();
            assert_eq!([0, 1, 2].map(|day| days.is_complete(day)), expect, "{recorded}");
        };
        check("1970-01-02T23:59:59.999999Z", [true, false, false]);
        check("1970-01-03T00:00:00Z", [true, true, false]);
    }

    #[test]
    fn days_begin_in_range_and_end_at_recorded_time() {
        let at = |text: &str| Timestamp::parse_rfc3339(text).unwrap();
        let check = |start: &str, end: &str, recorded: &str, expect: Option<(i64, i64, &str)>| {
            let days = Days::between(at(start), at(end), at(recorded));
            assert_eq!(days.map(|days| (days.first, days.last, days.end())), expect.map(|(a, b, c)| (a, b, at(c))));
        };
        let (first, second, third) = ("1970-01-02T00:00:00Z", "1970-01-03T00:00:00Z", "1970-01-04T00:00:00Z");
        check(first, third, "1980-01-01T00:00:00Z", Some((1, 2, third)));
        check(first, third, third, Some((1, 2, third)));
        // The last day ends just after the recorded time.
        check(first, third, "1970-01-03T12:00:00Z", Some((1, 2, "1970-01-03T12:00:00.000001Z")));
        check(first, third, "1970-01-02T23:59:59Z", Some((1, 1, "1970-01-02T23:59:59.000001Z")));
        check(first, third, "1970-01-01T12:00:00Z", None);
        // A day that begins before the range is excluded; a day that ends after the range is included.
        check("1970-01-02T00:00:00.000001Z", third, third, Some((2, 2, third)));
        check(first, "1970-01-03T00:00:00.000001Z", third, Some((1, 2, third)));
        check(second, second, third, None);
    }
}
