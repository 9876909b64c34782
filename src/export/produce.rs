//! Turns a snapshot into the message stream of an export.
//!
//! **Invariant**: a complete stream is the manifest, then every part of the manifest in that order, then the end
//! message. After a failure the stream has no end message.

use std::sync::Arc;

use chrono::NaiveDate;
use thiserror::Error;

use super::chunk_writer::{ChunkWriter, ReceiverGone, SendMessage, response};
use super::encode::{EncodeError, Encoder};
use super::names::{Names, SeriesNames};
use super::request::{ExportRequest, Shape};
use super::row::{ArchiveRow, CandleCells, DayRow, HeldRow, InstantRow, PollRow, RevisionRow, Row, RunRow, SeriesRow};
use super::schema::{Part, SCHEMA_VERSION};
use crate::analysis::{Bucket, CandlePlan, Zone};
use crate::domain::{Run, ScanOrder, Timestamp};
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
    let series = snapshot.series.iter().map(|series| (series.key(), snapshot.bucket_zone(series).unwrap_or(Zone::UTC)));
    let names = Names::new(series, polls.iter().map(|polls| polls.source()))
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
    count += (snapshot.held_ticks().count() + snapshot.archive_decisions().count()) as u64;
    for series in &snapshot.series {
        let totals = series.totals(snapshot.commit.recorded_time)?;
        count += totals.map_or(0, |totals| totals.observation_count + totals.revision_count);
    }
    for polls in snapshot.view.all_polls() {
        count += polls.spans().count() as u64;
    }
    Ok(count)
}

/// Counts the days of each series in the range, without the days before the first observation of the series. Exact
/// except for a day that is shorter than 24 hours.
fn day_count(snapshot: &Snapshot) -> Result<u64, ExportError> {
    let mut count = 0;
    for series in &snapshot.series {
        if let Some(plan) = snapshot.bucket_plan(series)? {
            count += plan.buckets.count_between(plan.first, plan.end);
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
            Part::Archive => {
                for decision in snapshot.archive_decisions() {
                    self.write(&ArchiveRow { name: self.names.source(&decision.source), decision })?;
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
                let range = snapshot.range(series)?;
                for piece in snapshot.runs(series, range.start(), range.end())? {
                    for run in &piece? {
                        self.write(&RunRow { series: names, run })?;
                    }
                }
            }
            Part::Daily => self.write_days(names, series)?,
            Part::Candles => {
                let zone = snapshot.bucket_zone(series).unwrap_or(Zone::UTC);
                for candle in snapshot.candles(series)? {
                    let row = candle?;
                    let day = day_of(zone, row.candle.bucket.start);
                    self.write(&CandleCells { series: names, row: &row, day })?;
                }
            }
            Part::Series => {
                self.write(&SeriesRow { series: names, collapse_window_us: series.collapse_window_us() })?;
            }
            Part::Timeline => {
                for piece in
                    snapshot.until_cancelled(series.instants(Timestamp::MIN, END_OF_TIME, ScanOrder::Ascending))
                {
                    for observed_time in piece? {
                        self.write(&InstantRow { series: names, observed_time })?;
                    }
                }
            }
            Part::Revisions => {
                let known = snapshot.commit.recorded_time;
                for piece in
                    snapshot.until_cancelled(series.revisions(Timestamp::MIN, END_OF_TIME, known, ScanOrder::Ascending))
                {
                    for revision in &piece? {
                        self.write(&RevisionRow { series: names, revision })?;
                    }
                }
            }
            // These parts are not grouped by series; `write_all` writes them.
            Part::Commits | Part::Polls | Part::Quarantine | Part::Archive => {}
        }
        Ok(())
    }

    /// Writes one row for each day that begins in the range. Days before the first observation, and days that begin
    /// after the recorded time of the commit, have no row.
    fn write_days(&mut self, names: SeriesNames, series: &Arc<SeriesView>) -> Result<(), PartError> {
        let snapshot = self.snapshot;
        let Some(CandlePlan { buckets, first, end, .. }) = snapshot.bucket_plan(series)? else { return Ok(()) };
        let recorded_time = snapshot.commit.recorded_time;
        let mut day = buckets.at(first);
        // No run that begins later is in force at the end of any day.
        let last = buckets.at(end.saturating_add_us(-1)).end.min(recorded_time.saturating_add_us(1));
        let mut in_force = snapshot.run_before(series, day.start)?;
        let mut write_day = |day: Bucket, in_force: Option<&Run>| {
            let Some(in_force) = in_force else { return Ok(()) };
            let (local, complete) = (day_of(buckets.zone, day.start), day.end <= recorded_time);
            self.write(&DayRow { series: names, day: local, in_force, complete })
        };
        for piece in snapshot.runs(series, day.start, last)? {
            for run in piece? {
                while day.end <= run.first_observed_time {
                    write_day(day, in_force.as_ref())?;
                    day = buckets.at(day.end);
                }
                in_force = Some(run);
            }
        }
        while day.start < end {
            write_day(day, in_force.as_ref())?;
            day = buckets.at(day.end);
        }
        Ok(())
    }

    fn write(&mut self, row: &impl Row) -> Result<(), PartError> {
        self.encoder.write(row).map_err(PartError::Encode)
    }
}

/// A time after every instant.
const END_OF_TIME: Timestamp = Timestamp::from_micros(i64::MAX);

/// Returns the local date on which a bucket begins, in days since 1970-01-01.
fn day_of(zone: Zone, start: Timestamp) -> i32 {
    let since_1970 = zone.local(start).date().signed_duration_since(NaiveDate::default()).num_days();
    // Every day of a valid timestamp fits 32 bits.
    i32::try_from(since_1970).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_of_a_bucket_is_local() {
        let at = |text: &str| Timestamp::parse_rfc3339(text).unwrap();
        assert_eq!(day_of(Zone::UTC, at("1970-01-01T00:00:00Z")), 0);
        assert_eq!(day_of(Zone::TASHKENT, at("2026-11-25T19:00:00Z")), day_of(Zone::UTC, at("2026-11-26T00:00:00Z")));
        assert_eq!(day_of(Zone::UTC, at("1969-12-31T23:59:59Z")), -1);
    }
}
