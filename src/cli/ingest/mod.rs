//! `ingest`: sends ticker pages, CSV files and Parquet files of runs to the server.
//!
//! **Invariant**: files are independent. A file that fails is reported, and the command continues with the next file,
//! unless the server itself failed. Stored ticks stay stored, and sending them again changes nothing.

mod batches;
mod progress;
mod report;
mod source;
mod upload;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

pub(super) use self::progress::Progress;
use self::report::{FileReport, Held, Refused, TICK_COLUMNS};
use self::source::{CsvBatches, ParquetBatches};
use self::upload::{Policy, upload};
use super::client::Client;
use super::error::Problem;
use super::output::{Format, RowWriter};
use super::text::{clean, plural};
use super::time_argument::TimeArgument;
use super::{CliError, Outcome, Session, note, stdout};
use crate::export::read::PARQUET_MAGIC;
use crate::feed::{TICK_CSV_LINE_BYTES_MAX, begins_as_tick_csv};
use crate::proto::v1::{ConflictPolicy, IngestPageRequest};

/// Default source of a page.
const PAGE_SOURCE_DEFAULT: &str = "timesca";
/// File argument that means standard input.
const STANDARD_INPUT: &str = "-";
/// Format name of a file of runs in reports.
const PARQUET: &str = "parquet";
/// Maximum size of a page that the server accepts, in MiB.
const PAGE_MIB_MAX: u64 = 4;

const EXAMPLES: &str = "\
Examples:
  silkrate ingest data/times-of-central-asia-2025-12-08.txt
  silkrate ingest page.html --time 2025-12-08T09:30:00Z
  silkrate ingest history.csv --dry-run
  curl -s https://example.org/ticker | silkrate ingest - --time now

A CSV file needs a header; its columns are, in any order:
  pair,source,observed_time,rate[,reported_change_percent]
  KGS/USD,nbkr,2025-12-08T09:30:00Z,0.01144,-0

Each refused row is reported by its line number; the other rows are stored
(exit status 3). Sending a file again changes nothing.";

/// Arguments of `ingest`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct IngestArgs {
    /// Ticker pages (text or HTML), CSV files, or runs in Parquet; - reads standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Source that published the page [default: timesca]
    #[arg(long, value_name = "SLUG")]
    source: Option<String>,
    /// Observed time of the page; default the date on the page
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    time: Option<TimeArgument>,
    /// Replace stored rates that differ; the old rates stay readable as revisions
    #[arg(long)]
    revise: bool,
    /// Report what would be stored, without storing it
    #[arg(long)]
    dry_run: bool,
    /// Format of the files; auto detects Parquet by the first bytes, and CSV by the file name or a column named pair
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = FileFormat::Auto)]
    format: FileFormat,
}

/// The format of the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum FileFormat {
    Auto,
    Page,
    Csv,
    Parquet,
}

/// The arguments, converted for requests.
struct Options {
    source: Option<String>,
    observed_time: Option<prost_types::Timestamp>,
    policy: Policy,
    format: FileFormat,
    /// True if a file of unknown format is read as a ticker page; false if such a file is read as CSV.
    allows_pages: bool,
}

pub(super) async fn run(args: IngestArgs, session: &Session) -> Result<Outcome, CliError> {
    let conflict = if args.revise { ConflictPolicy::Revise } else { ConflictPolicy::Refuse };
    let options = Options {
        source: args.source,
        observed_time: session.time(args.time)?,
        policy: Policy { conflict, validate_only: args.dry_run },
        format: args.format,
        allows_pages: true,
    };
    send(args.files, &options, session).await
}

/// Sends one file of ticks, CSV or Parquet, for `import`.
pub(super) async fn import_ticks(
    path: PathBuf,
    revise: bool,
    dry_run: bool,
    session: &Session,
) -> Result<Outcome, CliError> {
    let conflict = if revise { ConflictPolicy::Revise } else { ConflictPolicy::Refuse };
    let policy = Policy { conflict, validate_only: dry_run };
    let options = Options { source: None, observed_time: None, policy, format: FileFormat::Auto, allows_pages: false };
    send(vec![path], &options, session).await
}

async fn send(files: Vec<PathBuf>, options: &Options, session: &Session) -> Result<Outcome, CliError> {
    let client = session.connect().await?;
    let (mut reports, mut outcome, mut stopped) = (Vec::new(), Outcome::Done, None);
    for path in files {
        let mut report = FileReport { file: path.display().to_string(), ..FileReport::default() };
        let result = ingest_file(&client, &path, options, &mut report).await;
        if report.not_served_count() > 0 {
            outcome = outcome.max(Outcome::PartlyRefused);
        }
        if let Err(error) = &result {
            outcome = Outcome::Failed;
            note_progress(&report);
            if !error.stops_all() {
                note(&format!("error: {error}"));
            }
            if error.is_about_observed_time() {
                note("  set the observed time with --time TIME");
            }
        }
        if result.is_ok() || report.row_count() > 0 {
            reports.push(report);
        }
        stopped = result.err().filter(CliError::stops_all);
        if stopped.is_some() {
            break;
        }
    }
    // The data is stored, so a closed pipe for the summary does not change the outcome.
    match print(&reports, session, options.policy.validate_only) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    stopped.map_or(Ok(outcome), Err)
}

async fn ingest_file(client: &Client, path: &Path, options: &Options, report: &mut FileReport) -> Result<(), CliError> {
    let unreadable = |problem| CliError::from(Problem::Read { path: path.to_owned(), problem });
    let (input, total_bytes) = open(path).map_err(unreadable)?;
    let mut input = BufReader::new(input);
    let head = first_line(&mut input).map_err(unreadable)?;
    let format = match options.format {
        FileFormat::Auto if head.starts_with(PARQUET_MAGIC) => FileFormat::Parquet,
        FileFormat::Auto if !options.allows_pages || begins_as_tick_csv(&head) || has_csv_name(path) => FileFormat::Csv,
        FileFormat::Auto | FileFormat::Page => FileFormat::Page,
        FileFormat::Csv => FileFormat::Csv,
        FileFormat::Parquet => FileFormat::Parquet,
    };
    if format != FileFormat::Page {
        refuse_page_options(path, options)?;
    }
    let input = Cursor::new(head).chain(input);
    let progress = || Progress::new(total_bytes);
    let owned = path.to_owned();
    let result = match format {
        FileFormat::Auto | FileFormat::Page => {
            report.format = "page";
            send_page(client, path, input, options, report).await
        }
        FileFormat::Csv => {
            report.format = "csv";
            upload(client, move || CsvBatches::open(&owned, input), options.policy, report, &progress()).await
        }
        FileFormat::Parquet if path == Path::new(STANDARD_INPUT) => Err(Problem::ParquetPipe.into()),
        FileFormat::Parquet => {
            report.format = PARQUET;
            upload(client, move || ParquetBatches::open(&owned), options.policy, report, &progress()).await
        }
    };
    result.map_err(|problem| {
        if problem.names_input_file() {
            problem
        } else {
            Problem::File { path: path.to_owned(), problem: Box::new(problem) }.into()
        }
    })
}

/// Opens the file or standard input. Returns its length if it is known.
fn open(path: &Path) -> io::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path == Path::new(STANDARD_INPUT) {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

/// Returns true if the file name ends in .csv. Such a file is read as CSV, so that a wrong header is reported.
fn has_csv_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
}

/// Reads the first line with its line end, up to the maximum length of a CSV line.
fn first_line(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    input.take(TICK_CSV_LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    Ok(line)
}

fn refuse_page_options(path: &Path, options: &Options) -> Result<(), CliError> {
    let flag = match options {
        Options { source: Some(_), .. } => "--source",
        Options { observed_time: Some(_), .. } => "--time",
        Options { .. } => return Ok(()),
    };
    Err(Problem::PageOnly { path: path.to_owned(), flag }.into())
}

async fn send_page(
    client: &Client,
    path: &Path,
    input: impl Read,
    options: &Options,
    report: &mut FileReport,
) -> Result<(), CliError> {
    const LIMIT_BYTES: u64 = PAGE_MIB_MAX * 1024 * 1024;
    let mut content = Vec::new();
    let read = input.take(LIMIT_BYTES + 1).read_to_end(&mut content);
    let read = read.map_err(|problem| Problem::Read { path: path.to_owned(), problem })?;
    if read as u64 > LIMIT_BYTES {
        return Err(Problem::PageTooLarge { path: path.to_owned(), limit_mib: PAGE_MIB_MAX }.into());
    }
    let request = IngestPageRequest {
        source: options.source.clone().unwrap_or_else(|| PAGE_SOURCE_DEFAULT.to_owned()),
        content: content.into(),
        observed_time: options.observed_time,
        conflict_policy: options.policy.conflict.into(),
        validate_only: options.policy.validate_only,
    };
    let answer = client.answer(client.ingest().ingest_page(client.request(request))).await?;
    report.add(&answer.summary.unwrap_or_default(), answer.sequence, answer.recorded_time);
    report.quote_count = Some(answer.quote_count);
    report.cycle_count = Some(answer.cycle_count);
    report.ticks = answer.ticks;
    for refusal in answer.refusals {
        report.refuse(Refused::from_server(refusal, None));
    }
    for held in answer.held_ticks {
        report.hold(Held::from_server(held, None));
    }
    Ok(())
}

/// After a failure, reports how many rows the server has already processed.
fn note_progress(report: &FileReport) {
    if report.row_count() > 0 {
        let (file, rows) = (clean(&report.file), plural(report.row_count(), "row"));
        note(&format!("{file}: {rows} processed before this error; sending the file again does not change these rows"));
    }
}

/// Prints the summary. Before it, the table format prints the quotes of pages. After it, the table and CSV formats
/// print the first refusals.
fn print(reports: &[FileReport], session: &Session, dry_run: bool) -> io::Result<()> {
    // The ticks of one page are shown; of several files, only the summary, which is one table.
    if let ([report], true) = (reports, session.is_table()) {
        print_page(report, session)?;
    }
    let mut writer = RowWriter::new(stdout(), session.style, report::COLUMNS)?;
    if session.is_table() && session.style.width.is_some() {
        report::empty_columns(reports).for_each(|title| writer.hide(title));
    }
    for report in reports {
        writer.row(report)?;
    }
    writer.finish()?;
    if session.style.format != Format::Json {
        reports.iter().flat_map(FileReport::refusal_lines).for_each(|line| note(&line));
        if reports.iter().any(FileReport::has_page_conflict) {
            note("to give a page another observed time, use --time TIME");
        }
    }
    if dry_run && session.is_table() {
        note("dry run: nothing was stored");
    }
    Ok(())
}

fn print_page(report: &FileReport, session: &Session) -> io::Result<()> {
    let (Some(quotes), Some(cycles)) = (report.quote_count, report.cycle_count) else { return Ok(()) };
    let mut out = stdout();
    let (quotes, cycles) = (plural(quotes.into(), "quote"), plural(cycles.into(), "cycle"));
    let (file, ticks) = (clean(&report.file), plural(report.ticks.len() as u64, "tick"));
    writeln!(out, "{file}: read {quotes} in {cycles}: {ticks}")?;
    let mut writer = RowWriter::new(&mut out, session.style, TICK_COLUMNS)?;
    for tick in &report.ticks {
        writer.row(tick)?;
    }
    writer.finish()?;
    out.write_all(b"\n")
}
