//! `export`: writes a snapshot of the store to files for analysis tools.
//!
//! **Invariant**: a file or directory at the target is complete: its checksums and row counts are verified. After a
//! failure the target is absent or unchanged.

mod error;
mod ownership;
mod progress;
mod target;

use std::ffi::OsStr;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use tonic::{Request, Streaming};

pub(super) use self::error::ExportError;
use self::progress::Progress;
use self::target::{Kind, Target, Writing};
use super::candles::candle_length;
use super::client::Client;
use super::error::Problem;
use super::output::{Column, RowWriter};
use super::time_argument::TimeArgument;
use super::value::Value;
use super::{CliError, Outcome, Session, ZoneArgs, parse_pair, stdout};
use crate::domain::Interval;
use crate::export::{Checker, Format, PartitionKey, Step};
use crate::proto::v1::{
    CandleInterval, ExportFormat, ExportManifest, ExportShape, ExportSnapshotRequest, ExportSnapshotResponse,
};

const EXAMPLES: &str = "\
Examples:
  silkrate export runs.parquet
  silkrate export kgs.csv KGS/USD --from 2025-01-01 --to 2026-01-01
  silkrate export daily.parquet --shape daily
  silkrate export days.csv --shape daily --source cbu --from 2026-11-01
  silkrate export weeks.csv --shape candles --interval 1w --time-zone Asia/Bishkek
  silkrate export rates --partition pair,month
  silkrate export backup --full
  silkrate export - --format csv | gzip > runs.csv.gz

An export is a snapshot of one commit. The summary shows the recorded time of
that commit; give it as --known-time to repeat the export. The target appears under
its name only after the whole export is verified. An export to standard output
(target -) is complete only if the exit status is 0.

--partition writes a Hive-partitioned dataset such as
rates/pair=KGS%2FUSD/month=2025-12/part-0.parquet, which DuckDB
(SELECT * FROM 'rates/**/*.parquet'), polars, pyarrow and Spark read as one
table. Months are in UTC; months of days and candles are in their time zone.

--force replaces a directory only if everything in it belongs to an export.";

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportArgs {
    /// File to write, or directory with --full or --partition; - writes to standard output
    #[arg(value_name = "TARGET")]
    target: PathBuf,
    /// Export only these pairs, like KGS/USD; default all
    #[arg(value_name = "PAIR", value_delimiter = ',', value_parser = parse_pair)]
    pairs: Vec<String>,
    /// File format; default the extension of the target (.parquet, .arrows, .csv), or Parquet without an extension
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<FileFormat>,
    /// Export one row per run, per day, or per candle
    #[arg(long, value_enum, value_name = "SHAPE", default_value_t = RowShape::Runs)]
    shape: RowShape,
    /// Length of a candle bucket, required for candles; weeks begin on Monday
    #[arg(long, value_name = "LENGTH", value_parser = candle_length(), required_if_eq("shape", "candles"))]
    interval: Option<Interval>,
    #[command(flatten)]
    zone: ZoneArgs,
    /// Also export buckets without observations, with the previous close
    #[arg(long, alias = "fill-empty")]
    fill: bool,
    /// Same as PAIR; repeat the option for several pairs, or separate them with commas
    #[arg(long = "pair", alias = "pairs", id = "pair_option", value_name = "PAIR", value_delimiter = ',', value_parser = parse_pair)]
    pair_options: Vec<String>,
    /// Export only this source; repeat the option for several sources, or separate them with commas
    #[arg(long, alias = "sources", value_name = "SLUG", value_delimiter = ',')]
    source: Vec<String>,
    /// Export only runs, days or buckets that begin at this time or later; a run begins when it is first observed
    #[arg(long, alias = "start-time", value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArgument>,
    /// Export only runs, days or buckets that begin before this time
    #[arg(long, alias = "end-time", value_name = "TIME", allow_hyphen_values = true)]
    to: Option<TimeArgument>,
    /// Export only what was recorded at or before this time, without later corrections
    #[arg(long = "known-time", alias = "known", value_name = "TIME", allow_hyphen_values = true)]
    known: Option<TimeArgument>,
    /// Export the whole store, so that silkrate import can create an identical store
    #[arg(long, conflicts_with_all = ["format", "shape", "interval", "zone", "fill", "pairs", "pair_option", "source", "from", "to", "known", "partition"])]
    full: bool,
    /// Write a directory of Parquet files, partitioned by these keys as in Hive
    #[arg(long, value_enum, value_name = "KEYS", value_delimiter = ',', conflicts_with = "format")]
    partition: Vec<PartitionBy>,
    /// Replace an existing target
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum FileFormat {
    Parquet,
    Arrow,
    Csv,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum RowShape {
    Runs,
    Daily,
    Candles,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum PartitionBy {
    Pair,
    Source,
    Month,
}

impl ExportArgs {
    /// Returns true if pairs are given by the option `--pair`.
    pub(super) fn has_pair_option(&self) -> bool {
        !self.pair_options.is_empty()
    }

    fn kind(&self) -> Result<Kind, ExportError> {
        let is_stdout = self.target == Path::new("-");
        if self.full || !self.partition.is_empty() {
            if is_stdout {
                return Err(ExportError::NotForStdout(
                    "--full and --partition write a directory; name a directory instead of -",
                ));
            }
            let extension = self.target.extension().filter(|_| !self.full).map(OsStr::to_ascii_lowercase);
            if extension.is_some_and(|extension| ["csv", "arrow", "arrows"].iter().any(|file| extension == *file)) {
                return Err(ExportError::DirectoryEnding { path: self.target.clone() });
            }
            let mut keys: Vec<PartitionKey> = Vec::new();
            for key in &self.partition {
                let key = match key {
                    PartitionBy::Pair => PartitionKey::Pair,
                    PartitionBy::Source => PartitionKey::Source,
                    PartitionBy::Month => PartitionKey::Month,
                };
                if !keys.contains(&key) {
                    keys.push(key);
                }
            }
            return Ok(if self.full { Kind::Full } else { Kind::Partitioned(keys) });
        }
        let format = self.file_format()?;
        if !is_stdout {
            return Ok(Kind::File(format));
        }
        if format != Format::Csv && io::stdout().is_terminal() {
            return Err(ExportError::NotForStdout(
                "Parquet and Arrow cannot be written to a terminal; name a file, or give --format csv",
            ));
        }
        Ok(Kind::Stdout(format))
    }

    /// Returns the format from `--format` or from the extension of the target; Parquet without an extension.
    fn file_format(&self) -> Result<Format, ExportError> {
        match self.format {
            Some(FileFormat::Arrow) => return Ok(Format::ArrowStream),
            Some(FileFormat::Csv) => return Ok(Format::Csv),
            Some(FileFormat::Parquet) => return Ok(Format::Parquet),
            None => {}
        }
        let Some(ending) = self.target.extension() else { return Ok(Format::Parquet) };
        match ending.to_ascii_lowercase().to_str() {
            Some("parquet" | "pq") => Ok(Format::Parquet),
            Some("arrow" | "arrows") => Ok(Format::ArrowStream),
            Some("csv") => Ok(Format::Csv),
            Some(_) | None => Err(ExportError::Ending { path: self.target.clone() }),
        }
    }

    /// Refuses an option that applies only to candles if the shape is not candles.
    fn check_shape(&self) -> Result<(), ExportError> {
        let given = [("--interval", self.interval.is_some()), ("--fill", self.fill)];
        match given.iter().find(|(_, given)| *given && self.shape != RowShape::Candles) {
            Some((flag, _)) => Err(ExportError::CandlesOnly { flag }),
            None => Ok(()),
        }
    }

    fn request(self, kind: &Kind, session: &Session) -> Result<ExportSnapshotRequest, CliError> {
        let format = match kind {
            // The client decodes the Arrow stream and writes the Parquet files.
            Kind::Partitioned(_) | Kind::File(Format::ArrowStream) | Kind::Stdout(Format::ArrowStream) => {
                ExportFormat::ArrowStream
            }
            Kind::Full | Kind::File(Format::Parquet) | Kind::Stdout(Format::Parquet) => ExportFormat::Parquet,
            Kind::File(Format::Csv) | Kind::Stdout(Format::Csv) => ExportFormat::Csv,
        };
        let shape = match self.shape {
            RowShape::Runs => ExportShape::Runs,
            RowShape::Daily => ExportShape::Daily,
            RowShape::Candles => ExportShape::Candles,
        };
        let (start_time, start_date) = session.time_or_date(self.from)?;
        let (end_time, end_date) = session.time_or_date(self.to)?;
        Ok(ExportSnapshotRequest {
            format: format.into(),
            shape: shape.into(),
            pairs: [self.pairs, self.pair_options].concat(),
            sources: self.source,
            start_time,
            end_time,
            start_date,
            end_date,
            known_time: session.time(self.known)?,
            full: self.full,
            interval: self.interval.map_or(CandleInterval::Unspecified, CandleInterval::from).into(),
            time_zone: self.zone.zone,
            fill_empty: self.fill,
        })
    }
}

pub(super) async fn run(args: ExportArgs, session: &Session) -> Result<Outcome, CliError> {
    args.check_shape()?;
    let target = Target { path: args.target.clone(), kind: args.kind()?, force: args.force };
    target.check()?;
    let request = args.request(&target.kind, session)?;
    let client = session.connect().await?;
    let (path, to_stdout) = (target.path.clone(), matches!(target.kind, Kind::Stdout(_)));
    // No deadline for the whole stream, because a store may be large; the timeout applies to each message.
    let mut stream = client.answer(client.snapshots().export_snapshot(Request::new(request))).await?;
    let written = receive(&client, &mut stream, target).await?;
    if !to_stdout {
        match print(&Summary { path: path.display().to_string(), written }, session) {
            // The files are complete, so a closed pipe for the summary is not an error.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(Outcome::Done)
}

/// Receives the export, verifies it, and moves it to its target.
async fn receive(
    client: &Client,
    stream: &mut Streaming<ExportSnapshotResponse>,
    target: Target,
) -> Result<Written, CliError> {
    let mut checker = Checker::default();
    let mut begun: Option<(ExportManifest, Progress, Writing)> = None;
    let mut target = Some(target);
    let mut parts_ended = 0;
    while let Some(message) = client.with_timeout(stream.message()).await? {
        let step = checker.accept(message).map_err(ExportError::from)?;
        match (step, &mut begun, target.take()) {
            (Step::Manifest(manifest), None, Some(target)) => {
                let progress = Progress::new(manifest.expected_row_count);
                let writing = target.begin()?;
                begun = Some((*manifest, progress, writing));
            }
            (Step::Data(bytes, rows), Some((manifest, progress, writing)), _) => {
                progress.add(bytes.len(), rows);
                let name = manifest.parts.get(parts_ended).map_or("", String::as_str);
                writing.write(name, &bytes)?;
            }
            (Step::PartEnd(part), Some((_, progress, writing)), _) => {
                progress.end_part(part.row_count);
                writing.end_part(&part)?;
                parts_ended += 1;
            }
            (Step::End, Some(_), _) => {}
            // The checker refuses messages before the manifest and a second manifest.
            _ => return Err(Problem::Protocol("the messages of the export are out of order").into()),
        }
    }
    let parts = checker.finish().map_err(ExportError::from)?;
    let Some((manifest, _progress, writing)) = begun else {
        return Err(Problem::Protocol("the export has no manifest").into());
    };
    let byte_count = writing.finish(&manifest, &parts)?;
    let row_count = parts.iter().map(|part| part.row_count).sum();
    Ok(Written { manifest, row_count, byte_count })
}

/// A completed export.
struct Written {
    manifest: ExportManifest,
    row_count: u64,
    /// Bytes on disk, without the manifest of a full export.
    byte_count: u64,
}

/// The summary of a completed export: the target and what was written.
struct Summary {
    path: String,
    written: Written,
}

const COLUMNS: &[Column<Summary>] = &[
    Column::new("target", "target", |summary| Value::text(&summary.path)),
    Column::new("row_count", "rows", |summary| Value::Count(summary.written.row_count)),
    Column::new("byte_count", "bytes", |summary| Value::Count(summary.written.byte_count)),
    Column::new("sequence", "sequence", |summary| Value::Count(summary.written.manifest.sequence)),
    Column::new("recorded_time", "recorded", |summary| Value::time(summary.written.manifest.recorded_time.as_ref())),
];

fn print(summary: &Summary, session: &Session) -> io::Result<()> {
    let mut writer = RowWriter::new(stdout(), session.style, COLUMNS)?;
    writer.row(summary)?;
    writer.finish()
}
