//! `ingest`: ticker pages, CSV files and runs in Parquet to the server.
//!
//! **Invariant**: files are independent. One that fails is reported and the next is tried, unless the server itself is
//! what failed; what went in stays in, and sending it again changes nothing.

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
use self::source::{CsvRows, ParquetRows};
use self::upload::{Policy, upload};
use super::client::Client;
use super::error::Problem;
use super::output::{Format, Sheet};
use super::text::{clean, plural};
use super::time_argument::TimeArgument;
use super::{CliError, Outcome, Session, note, stdout};
use crate::export::read::PARQUET_MAGIC;
use crate::feed::{TICK_CSV_LINE_BYTES_MAX, begins_as_tick_csv};
use crate::proto::v1::{ConflictPolicy, IngestPageRequest};

/// Whose pages are read unless `--source` says otherwise.
const PAGE_SOURCE_DEFAULT: &str = "timesca";
/// Stands for standard input among files.
const STANDARD_INPUT: &str = "-";
/// What a report calls a file of runs.
const PARQUET: &str = "parquet";
/// Largest page that the server takes.
const PAGE_MIB_MAX: u64 = 4;

const EXAMPLES: &str = "\
Examples:
  silkrate ingest data/2025-12-08.txt
  silkrate ingest page.html --time 2025-12-08T09:30:00Z
  silkrate ingest history.csv --dry-run
  curl -s https://example.org/ticker | silkrate ingest - --time now

A CSV file needs a header; its columns are, in any order:
  pair,source,observed_time,rate[,reported_change_percent]
  KGS/USD,nbkr,2025-12-08T09:30:00Z,0.01144,-0

What is refused is named by its line, and the rest goes in (exit status 3).
Sending a file again changes nothing.";

/// Arguments of `ingest`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct IngestArgs {
    /// Ticker pages (text or HTML), CSV files, or runs in Parquet; - reads standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Who published the page [default: timesca]
    #[arg(long, value_name = "SLUG")]
    source: Option<String>,
    /// When the page showed its quotes; the date on the page if left out
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    time: Option<TimeArgument>,
    /// Replace what is stored where it differs; it stays readable as a revision
    #[arg(long)]
    revise: bool,
    /// Say what would happen, and store nothing
    #[arg(long)]
    dry_run: bool,
    /// What the files are; auto knows CSV by its name or by a header that names pair, Parquet by its first bytes
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = FileFormat::Auto)]
    format: FileFormat,
}

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum FileFormat {
    Auto,
    Page,
    Csv,
    Parquet,
}

/// The arguments as the wire has them.
struct Options {
    source: Option<String>,
    observed_time: Option<prost_types::Timestamp>,
    policy: Policy,
    format: FileFormat,
    /// Whether a file that is nothing else is a page.
    takes_pages: bool,
}

pub(super) async fn run(args: IngestArgs, session: &Session) -> Result<Outcome, CliError> {
    let conflict = if args.revise { ConflictPolicy::Revise } else { ConflictPolicy::Refuse };
    let options = Options {
        source: args.source,
        observed_time: session.time(args.time)?,
        policy: Policy { conflict, validate_only: args.dry_run },
        format: args.format,
        takes_pages: true,
    };
    send(args.files, &options, session).await
}

/// Sends one file of ticks, CSV or runs in Parquet, as `ingest` does.
pub(super) async fn import_ticks(
    path: PathBuf,
    revise: bool,
    dry_run: bool,
    session: &Session,
) -> Result<Outcome, CliError> {
    let conflict = if revise { ConflictPolicy::Revise } else { ConflictPolicy::Refuse };
    let policy = Policy { conflict, validate_only: dry_run };
    let options = Options { source: None, observed_time: None, policy, format: FileFormat::Auto, takes_pages: false };
    send(vec![path], &options, session).await
}

async fn send(files: Vec<PathBuf>, options: &Options, session: &Session) -> Result<Outcome, CliError> {
    let client = session.connect().await?;
    let (mut reports, mut outcome, mut stopped) = (Vec::new(), Outcome::Done, None);
    for path in files {
        let mut report = FileReport { file: path.display().to_string(), ..FileReport::default() };
        let result = ingest_file(&client, &path, options, &mut report).await;
        if report.not_in_count() > 0 {
            outcome = outcome.max(Outcome::PartlyRefused);
        }
        if let Err(error) = &result {
            outcome = Outcome::Failed;
            say_how_far(&report);
            if !error.stops_all() {
                note(&format!("error: {error}"));
            }
            if error.is_about_observed_time() {
                note("  --time TIME gives it");
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
    // The data is in: that nobody reads the summary changes nothing about the outcome.
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
        FileFormat::Auto if !options.takes_pages || begins_as_tick_csv(&head) || has_csv_name(path) => FileFormat::Csv,
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
            upload(client, move || CsvRows::open(&owned, input), options.policy, report, &progress()).await
        }
        FileFormat::Parquet if path == Path::new(STANDARD_INPUT) => Err(Problem::ParquetPipe.into()),
        FileFormat::Parquet => {
            report.format = PARQUET;
            upload(client, move || ParquetRows::open(&owned), options.policy, report, &progress()).await
        }
    };
    result.map_err(|problem| {
        if problem.names_its_input() {
            problem
        } else {
            Problem::File { path: path.to_owned(), problem: Box::new(problem) }.into()
        }
    })
}

/// The file or standard input, and how long it is where that is known.
fn open(path: &Path) -> io::Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path == Path::new(STANDARD_INPUT) {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

/// By its name a file is CSV even if its header is not ours: then that is what is wrong with it.
fn has_csv_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
}

/// The first line with its ending, or as much of it as a CSV header could have.
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

/// After a failure: what is in need not be feared for.
fn say_how_far(report: &FileReport) {
    if report.row_count() > 0 {
        let (file, rows) = (clean(&report.file), plural(report.row_count(), "row"));
        note(&format!("{file}: {rows} answered before this; sending the file again changes nothing for them"));
    }
}

/// What was read of pages, the summary, and for people the first refusals.
fn print(reports: &[FileReport], session: &Session, dry_run: bool) -> io::Result<()> {
    if session.is_table() {
        for report in reports {
            print_page(report, session)?;
        }
    }
    let mut sheet = Sheet::new(stdout(), session.style, report::COLUMNS)?;
    for report in reports {
        sheet.row(report)?;
    }
    sheet.finish()?;
    if session.style.format != Format::Json {
        reports.iter().flat_map(FileReport::refusal_lines).for_each(|line| note(&line));
        if reports.iter().any(FileReport::has_page_conflict) {
            note("--time TIME gives the observed_time of a page");
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
    writeln!(out, "{file}: read {quotes} in {cycles}, {ticks}")?;
    let mut sheet = Sheet::new(&mut out, session.style, TICK_COLUMNS)?;
    for tick in &report.ticks {
        sheet.row(tick)?;
    }
    sheet.finish()?;
    out.write_all(b"\n")
}
