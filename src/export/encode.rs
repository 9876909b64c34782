//! Encodes the rows of one part in a file format.
//!
//! **Invariant**: memory is bounded by two row groups of Parquet, one record batch of Arrow or one line of CSV.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use polars::prelude::PolarsError;
use thiserror::Error;

use super::chunk_writer::ChunkWriter;
use super::csv_lines::CsvLine;
use super::format::Format;
use super::frame::FrameBuilder;
use super::ipc::IpcStream;
use super::names::Names;
use super::parquet_file::{ParquetFile, ParquetFileError, ROW_GROUP_ROWS_MAX};
use super::row::Row;
use super::schema::Part;

/// Maximum number of rows in an Arrow record batch: about 2 MiB of columns.
const BATCH_ROWS_MAX: usize = 16 * 1024;

/// Why the rows of a part could not be encoded or written.
#[derive(Debug, Error)]
pub(super) enum EncodeError {
    #[error(transparent)]
    Polars(#[from] PolarsError),
    #[error(transparent)]
    Parquet(#[from] ParquetFileError),
    #[error(transparent)]
    Csv(#[from] csv::Error),
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// The encoder of a format and its row buffer.
enum Writer<'p, 'a> {
    Parquet { file: Box<ParquetFile<&'p mut ChunkWriter<'a>>>, rows: FrameBuilder },
    Arrow { stream: Box<IpcStream<&'p mut ChunkWriter<'a>>>, rows: FrameBuilder },
    Csv { file: Box<csv::Writer<&'p mut ChunkWriter<'a>>>, line: CsvLine<'p> },
}

/// Encodes the rows of one part.
pub(super) struct Encoder<'p, 'a> {
    names: &'p Names,
    row_counter: Arc<AtomicU64>,
    writer: Writer<'p, 'a>,
}

impl<'p, 'a> Encoder<'p, 'a> {
    /// Begins a part and writes its header. CSV omits `metadata`.
    ///
    /// # Errors
    /// Any [`EncodeError`], including write errors of `writer`.
    pub(super) fn new(
        part: Part,
        format: Format,
        metadata: &[(String, String)],
        names: &'p Names,
        writer: &'p mut ChunkWriter<'a>,
    ) -> Result<Self, EncodeError> {
        let row_counter = writer.row_counter();
        let columns = part.columns();
        let writer = match format {
            Format::Parquet => Writer::Parquet {
                file: Box::new(ParquetFile::new(writer, columns.to_vec(), metadata)?),
                rows: FrameBuilder::new(columns, ROW_GROUP_ROWS_MAX),
            },
            Format::ArrowStream => Writer::Arrow {
                stream: Box::new(IpcStream::new(writer, columns, metadata)?),
                rows: FrameBuilder::new(columns, BATCH_ROWS_MAX),
            },
            Format::Csv => {
                let mut file = csv::Writer::from_writer(writer);
                file.write_record(columns.iter().map(|column| column.name))?;
                Writer::Csv { file: Box::new(file), line: CsvLine::new(columns, names) }
            }
        };
        Ok(Self { names, row_counter, writer })
    }

    /// Adds a row, and writes a row group or batch when it is full.
    ///
    /// # Errors
    /// Any [`EncodeError`], including write errors of the chunk writer.
    pub(super) fn write(&mut self, row: &impl Row) -> Result<(), EncodeError> {
        match &mut self.writer {
            Writer::Parquet { rows, .. } | Writer::Arrow { rows, .. } => {
                row.write(rows);
                rows.end_row();
                if rows.is_full() {
                    self.flush()?;
                }
            }
            Writer::Csv { file, line } => {
                row.write(line);
                self.row_counter.fetch_add(1, Ordering::Relaxed);
                line.end_row(file)?;
            }
        }
        Ok(())
    }

    /// Writes the buffered rows as a row group or batch.
    fn flush(&mut self) -> Result<(), EncodeError> {
        match &mut self.writer {
            Writer::Parquet { file, rows } if rows.rows() > 0 => {
                self.row_counter.fetch_add(rows.rows() as u64, Ordering::Relaxed);
                file.write_behind(rows.take(self.names)?)?;
            }
            Writer::Arrow { stream, rows } if rows.rows() > 0 => {
                self.row_counter.fetch_add(rows.rows() as u64, Ordering::Relaxed);
                stream.write(&rows.take(self.names)?)?;
            }
            Writer::Parquet { .. } | Writer::Arrow { .. } | Writer::Csv { .. } => {}
        }
        Ok(())
    }

    /// Writes the buffered rows and the end of the file.
    ///
    /// # Errors
    /// Any [`EncodeError`], including write errors of the chunk writer.
    pub(super) fn finish(mut self) -> Result<(), EncodeError> {
        self.flush()?;
        match self.writer {
            Writer::Parquet { file, .. } => {
                file.end()?;
            }
            Writer::Arrow { stream, .. } => stream.end()?,
            Writer::Csv { mut file, .. } => file.flush()?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use polars_arrow::datatypes::{ArrowDataType, ArrowSchema};
    use polars_parquet::read::read_metadata;
    use polars_parquet::read::schema::infer_schema;

    use super::*;
    use crate::analysis::{Bucket, Candle, CandlePoint, RoundedRate, Zone};
    use crate::domain::{
        ArchiveDecision, CurrencySet, Health, HeldTick, Pair, PollSpan, PublishedValue, Rate, Revision, Run, SeriesKey,
        Source, Timestamp,
    };
    use crate::export::ipc::IpcDecoder;
    use crate::export::row::{
        ArchiveRow, CandleCells, DayRow, HeldRow, InstantRow, PollRow, RevisionRow, RunRow, SeriesRow,
    };
    use crate::export::schema::{Kind, arrow_schema};
    use crate::proto::v1::ExportSnapshotResponse;
    use crate::proto::v1::export_snapshot_response::Message;
    use crate::query::CandleRow;
    use crate::store::Commit;

    const TIME: Timestamp = Timestamp::from_micros(1_765_152_000_000_000);

    fn key() -> SeriesKey {
        let pair = Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap();
        SeriesKey { pair, source: Source::parse("timesca").unwrap() }
    }

    /// Writes one row of a part.
    fn write_row(part: Part, encoder: &mut Encoder<'_, '_>) -> Result<(), EncodeError> {
        let value = PublishedValue { rate: Rate::parse("0.01144").unwrap(), reported_change: None };
        let series = encoder.names.of_series(0);
        let run = Run::single(TIME, value, TIME);
        match part {
            Part::Runs => encoder.write(&RunRow { series, run: &run }),
            Part::Daily => encoder.write(&DayRow { series, day: 20_430, in_force: &run, complete: true }),
            Part::Candles => {
                let point = CandlePoint { time: TIME, rate: RoundedRate::published(value.rate) };
                let candle = Candle {
                    bucket: Bucket { start: TIME, end: TIME.saturating_add_us(1) },
                    open: point,
                    high: point,
                    low: point,
                    close: point,
                    average: point.rate.value(),
                    move_count: 0,
                    filled: false,
                    places: Some(5),
                };
                let (observation_count, bounds) = (None, None);
                let row = CandleRow { candle, observation_count, complete: true, bounds, leg_age_difference_us: 0 };
                encoder.write(&CandleCells { series, row: &row, day: 20_430 })
            }
            Part::Series => encoder.write(&SeriesRow { series, collapse_window_us: 1 }),
            Part::Timeline => encoder.write(&InstantRow { series, observed_time: TIME }),
            Part::Revisions => {
                encoder.write(&RevisionRow { series, revision: &Revision { run, superseded_time: TIME } })
            }
            Part::Commits => encoder.write(&Commit { sequence: 1, recorded_time: TIME }),
            Part::Polls => {
                let (first_poll_time, last_poll_time, covered_until) = (TIME, TIME, TIME);
                let health = Health::Silent;
                let span = PollSpan { first_poll_time, last_poll_time, covered_until, poll_count: 1, health };
                encoder.write(&PollRow { name: series.source, span: &span })
            }
            Part::Quarantine => {
                let tick = HeldTick {
                    id: 1,
                    series: Arc::new(key()),
                    observed_time: TIME,
                    value,
                    rate_in_force: value.rate,
                    held_time: TIME,
                    decision: None,
                };
                encoder.write(&HeldRow { series, tick: &tick })
            }
            Part::Archive => {
                let decision =
                    ArchiveDecision { source: key().source, is_archived: true, recorded_time: TIME, note: None };
                encoder.write(&ArchiveRow { name: series.source, decision: &decision })
            }
        }
    }

    /// The bytes of a part with `rows` equal rows.
    fn encoded(part: Part, format: Format, rows: usize) -> Vec<u8> {
        let names = Names::new(std::iter::once((&key(), Zone::UTC)), std::iter::empty()).unwrap();
        let mut bytes = Vec::new();
        let mut send = |response: ExportSnapshotResponse| {
            if let Some(Message::Chunk(chunk)) = response.message {
                bytes.extend_from_slice(&chunk.data);
            }
            Ok(())
        };
        let mut writer = ChunkWriter::new(&mut send, part.file_name(format));
        let mut encoder = Encoder::new(part, format, &[], &names, &mut writer).unwrap();
        for _ in 0..rows {
            write_row(part, &mut encoder).unwrap();
        }
        encoder.finish().unwrap();
        assert_eq!(writer.end(), Ok(rows as u64));
        bytes
    }

    /// Names and types of the columns. Text types are unified, because the reader uses another text type than the
    /// writer.
    fn types(schema: &ArrowSchema) -> Vec<(String, ArrowDataType)> {
        let plain = |data_type: &ArrowDataType| {
            if matches!(data_type, ArrowDataType::Dictionary(..)) {
                Kind::Name.arrow_type()
            } else if *data_type == ArrowDataType::Utf8View {
                Kind::Text.arrow_type()
            } else {
                data_type.clone()
            }
        };
        schema.iter_values().map(|field| (field.name.to_string(), plain(field.dtype()))).collect()
    }

    #[test]
    fn every_part_has_the_columns_of_its_schema_in_every_format() {
        for part in Part::ALL {
            let names: Vec<&str> = part.columns().iter().map(|column| column.name).collect();
            for rows in [0, 1, 3] {
                let csv = String::from_utf8(encoded(part, Format::Csv, rows)).unwrap();
                let lines: Vec<&str> = csv.lines().collect();
                assert_eq!((lines.len(), lines[0]), (1 + rows, names.join(",").as_str()));
                assert!(lines.iter().all(|line| line.split(',').count() == names.len()), "{csv}");

                let parquet = encoded(part, Format::Parquet, rows);
                let metadata = read_metadata(&mut Cursor::new(&parquet)).unwrap();
                assert_eq!(metadata.num_rows, rows, "{part:?}");
                assert_eq!(types(&infer_schema(&metadata).unwrap()), types(&arrow_schema(part.columns())), "{part:?}");

                let (mut decoder, mut found) = (IpcDecoder::default(), 0);
                let count = |_: &IpcDecoder, batch: crate::export::ipc::Batch| {
                    found += batch.height();
                    Ok::<_, crate::export::IpcError>(())
                };
                decoder.push(&encoded(part, Format::ArrowStream, rows), count).unwrap();
                decoder.finish().unwrap();
                assert_eq!(found, rows, "{part:?}");
                assert_eq!(decoder.metadata().unwrap().schema, arrow_schema(part.columns()), "{part:?}");
            }
        }
    }

    #[test]
    fn parquet_starts_a_new_row_group_after_the_maximum_row_count() {
        let parquet = encoded(Part::Commits, Format::Parquet, ROW_GROUP_ROWS_MAX + 1);
        let metadata = read_metadata(&mut Cursor::new(&parquet)).unwrap();
        let groups: Vec<usize> =
            metadata.row_groups.iter().map(polars_parquet::read::RowGroupMetadata::num_rows).collect();
        assert_eq!(groups, [ROW_GROUP_ROWS_MAX, 1]);
    }
}
