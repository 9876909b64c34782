//! The command line: arguments, client commands and output.
//!
//! `serve`, `verify`, `restore` and the `import` of a full export work on a store directly. Every other command is a gRPC client.
//! Answers go to standard output. Notes, progress and errors go to standard error, so that a pipe receives only the
//! answer.
//!
//! **Invariant**: the exit status is 0 (done), 1 (failed), 2 (wrong usage), 3 (some input was refused or is held), 130
//! (SIGINT) or 143 (SIGTERM). Control characters in text from a server are escaped before the text is printed.

mod atomic_write;
mod backfill;
mod backup;
mod candles;
mod change;
mod changes;
mod client;
mod compare;
mod convert;
mod credentials;
mod error;
mod eta;
mod export;
mod flags;
mod gaps;
mod health;
mod history;
mod import;
mod ingest;
mod latest;
mod legs;
mod output;
mod pages;
mod quarantine;
mod rate;
mod restore;
mod revisions;
mod run_csv;
mod runs;
mod series;
mod shell;
mod source;
mod sources;
mod text;
mod time_argument;
mod token;
mod value;
mod verify;
mod watch;

use std::io::{self, BufWriter, Stdout, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use self::client::Client;
use self::credentials::CredentialArgs;
use self::error::{CliError, Outcome};
use self::flags::FlagNames;
use self::output::{Format, Style};
use self::time_argument::TimeArgument;
use crate::clock::{Clock as _, SystemClock};
use crate::config::ServeArgs;
use crate::domain::{Pair, PairError, parse_duration};
use crate::proto::convert::timestamp;
use crate::server;

/// The version of the package, and the commit that it was built from.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("SILKRATE_COMMIT"), ")");

/// The exit status of a process that a signal ended is this number plus the signal number, as in shells.
const SIGNAL_STATUS_BASE: i32 = 128;

const EXIT_STATUS_HELP: &str = "\
Times:
  RFC 3339 (2025-12-08T09:30:00Z), a date (2025-12-08), now, or a time before
  now: -90m -12h -7d -2w -1mo -1y. Times are printed in UTC. A date is a day in
  the time zone of the source. The commands without --time-zone, and --known-time,
  take its start in UTC.

Exit status:
  0 done   1 failed   2 wrong usage   3 some input was refused or is held";

/// Exchange-rate time series for five Central Asian currencies.
#[derive(Debug, Parser)]
#[command(name = "silkrate", version = VERSION, about, after_help = EXIT_STATUS_HELP, max_term_width = 100)]
pub struct Cli {
    /// Options that every command has.
    #[command(flatten)]
    pub common: CommonArgs,
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command has: the server, the output format and the timeout.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server and output")]
pub struct CommonArgs {
    /// Server address: https://host:port, http://host:port, or host:port for http
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SILKRATE_ENDPOINT",
        default_value = "http://127.0.0.1:50051"
    )]
    endpoint: String,
    /// What identifies the command to the server, and the server to the command.
    #[command(flatten)]
    credentials: CredentialArgs,
    /// Output format: table for people; json or csv for programs
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
    /// Same as --output json
    #[arg(long, global = true, conflicts_with = "output")]
    json: bool,
    /// Longest wait for a response, from 1s to 1d
    #[arg(long, global = true, value_name = "DURATION", default_value = "30s",
          value_parser = |text: &str| parse_duration(text, Duration::from_secs(1), Duration::from_hours(24)))]
    timeout: Duration,
}

/// The commands of `silkrate`. The doc comments are their help texts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    Serve(Box<ServeArgs>),
    /// Send ticker pages or CSV files of ticks to the server
    Ingest(ingest::IngestArgs),
    /// Fetch a bank's tables of past days and send them to the server
    Backfill(backfill::BackfillArgs),
    /// Show the latest rate of every series, and whether it still moves
    Latest(latest::LatestArgs),
    /// Show the latest rates and update them as they change
    Watch(watch::WatchArgs),
    /// Show the rate of a pair at a time, published or derived
    Rate(rate::RateArgs),
    /// Convert an amount from one currency into another
    Convert(convert::ConvertArgs),
    /// List the rate history of a pair
    History(history::HistoryArgs),
    /// Show the percent change between two times, with its bounds
    Change(change::ChangeArgs),
    /// List percent changes by day, week, month or year, with their bounds
    Changes(changes::ChangesArgs),
    /// Compare two sources of a pair day by day, and show where they differ
    Compare(compare::CompareArgs),
    /// List candles (open, high, low, close) by minute, hour, day, week or month
    Candles(candles::CandlesArgs),
    /// List the series in the store
    Series(series::SeriesArgs),
    /// List the sources: settings, where each setting comes from, feed health and series
    Sources(sources::SourcesArgs),
    /// Archive or unarchive a source
    Source(source::SourceArgs),
    /// List the runs that later ticks replaced
    Revisions(revisions::RevisionsArgs),
    /// List gaps in the observations of series, with their reasons
    Gaps(gaps::GapsArgs),
    /// List, release or discard held ticks, which are too far from the rate in force
    Quarantine(quarantine::QuarantineArgs),
    /// Export a snapshot as Parquet, Arrow or CSV
    Export(export::ExportArgs),
    /// Create a store from a full export, or send the ticks of a Parquet or CSV file to the server
    Import(import::ImportArgs),
    /// Back up the store of the running server, or list or verify backups
    Backup(backup::BackupArgs),
    /// Create a store from a backup
    Restore(restore::RestoreArgs),
    /// Create, list or revoke the tokens of a server, in its file
    Token(token::TokenArgs),
    /// Show whether the server serves
    Health(health::HealthArgs),
    /// Check every block of a store while no server has it open
    Verify(verify::VerifyArgs),
    /// Print the completions for a shell
    #[command(
        after_help = "Examples:\n  silkrate completions bash >~/.local/share/bash-completion/completions/silkrate"
    )]
    Completions(shell::CompletionsArgs),
    /// Write the manual pages to a directory
    #[command(after_help = "Examples:\n  silkrate man ~/.local/share/man/man1")]
    Man(shell::ManArgs),
}

/// Parses the arguments, runs the command and returns the exit status.
///
/// This function is in the library so that the binary, which only calls it, compiles quickly.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => {
            eprintln!("error: cannot start the runtime threads: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command and returns its exit status.
async fn run(cli: Cli) -> ExitCode {
    // The server handles signals itself, so that calls in progress can end before the process ends.
    if !matches!(cli.command, Command::Serve(_)) {
        exit_when_interrupted();
    }
    let session = Session::new(&cli.common);
    let names = flags::names_of(&cli.command);
    let result = match cli.command {
        Command::Serve(args) => return server::serve(*args).await,
        Command::Ingest(args) => ingest::run(args, &session).await,
        Command::Backfill(args) => backfill::run(args, &session).await,
        Command::Latest(args) => latest::run(args, &session).await,
        Command::Watch(args) => watch::run(args, &session).await,
        Command::Rate(args) => rate::run(args, &session).await,
        Command::Convert(args) => convert::run(args, &session).await,
        Command::History(args) => history::run(args, &session).await,
        Command::Change(args) => change::run(args, &session).await,
        Command::Changes(args) => changes::run(args, &session).await,
        Command::Compare(args) => compare::run(args, &session).await,
        Command::Candles(args) => candles::run(args, &session).await,
        Command::Series(args) => series::run(args, &session).await,
        Command::Source(args) => source::run(args, &session).await,
        Command::Sources(args) => sources::run(args, &session).await,
        Command::Revisions(args) => revisions::run(args, &session).await,
        Command::Gaps(args) => gaps::run(args, &session).await,
        Command::Quarantine(args) => quarantine::run(args, &session).await,
        Command::Export(args) => export::run(args, &session).await,
        Command::Import(args) => import::run(args, &session).await,
        Command::Backup(args) => backup::run(args, &session).await,
        Command::Restore(args) => restore::run(args, &session).await,
        Command::Token(args) => token::run(args, &session),
        Command::Health(args) => health::run(args, &session).await,
        Command::Verify(args) => verify::run(args, &session).await,
        Command::Completions(args) => shell::completions(&args),
        Command::Man(args) => shell::man(&args),
    };
    finish(result, names)
}

/// Prints the error of a failed command, with the names of its arguments, and returns the exit status.
fn finish(result: Result<Outcome, CliError>, names: FlagNames) -> ExitCode {
    match result {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            if !error.is_closed_pipe() {
                note(&format!("error: {}", error.message(names)));
            }
            error.exit_code()
        }
    }
}

/// Returns the exit status of a command that the user interrupted with Ctrl-C.
fn interrupted_status() -> i32 {
    SIGNAL_STATUS_BASE + SignalKind::interrupt().as_raw_value()
}

/// On SIGINT and SIGTERM, removes unfinished files, restores the terminal and ends the process. This works even while
/// the process blocks on a terminal or on standard input.
fn exit_when_interrupted() {
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        // Without a handler the signal still ends the process, but unfinished files remain.
        let Ok(mut signals) = signal(kind) else { continue };
        tokio::spawn(async move {
            if signals.recv().await.is_some() {
                atomic_write::remove_unfinished();
                watch::restore_terminal();
                std::process::exit(SIGNAL_STATUS_BASE + kind.as_raw_value());
            }
        });
    }
}

/// Writes a line to standard error for the user. Ignores write errors, such as a closed pipe.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// State that all commands share: server address, timeout, output style and start time.
#[derive(Debug)]
struct Session {
    endpoint: String,
    credentials: CredentialArgs,
    timeout: Duration,
    style: Style,
}

impl Session {
    fn new(common: &CommonArgs) -> Self {
        Self {
            endpoint: common.endpoint.clone(),
            credentials: common.credentials.clone(),
            timeout: common.timeout,
            style: Style::for_stdout(if common.json { Format::Json } else { common.output }, SystemClock.now()),
        }
    }

    async fn connect(&self) -> Result<Client, CliError> {
        Client::connect(&self.endpoint, &self.credentials, self.timeout).await
    }

    /// Converts a time argument to a protobuf timestamp. Relative times count from the start of the command.
    fn time(&self, time: Option<TimeArgument>) -> Result<Option<prost_types::Timestamp>, CliError> {
        Ok(time.map(|time| time.resolve(self.style.now)).transpose()?.map(timestamp))
    }

    /// Converts a time argument to a time, or to a date that the server takes in a time zone.
    fn time_or_date(&self, time: Option<TimeArgument>) -> Result<(Option<prost_types::Timestamp>, String), CliError> {
        Ok(match time {
            Some(TimeArgument::Day(date)) => (None, date.to_string()),
            other => (self.time(other)?, String::new()),
        })
    }

    fn is_table(&self) -> bool {
        self.style.format == Format::Table
    }
}

fn stdout() -> BufWriter<Stdout> {
    BufWriter::new(io::stdout())
}

/// Arguments that select a pair and a source.
#[derive(Debug, Args)]
struct PairArgs {
    /// Pair as BASE/QUOTE, like KGS/USD: the rate is in USD for one KGS
    #[arg(value_parser = parse_pair)]
    pair: String,
    #[command(flatten)]
    choice: SourceArgs,
}

/// Arguments that select the source that answers for a pair.
#[derive(Debug, Args)]
struct SourceArgs {
    /// Source of the rate; default: the source that the choice rule selects
    #[arg(long, value_name = "SLUG", default_value = "", hide_default_value = true)]
    source: String,
    /// Fail if no source is named and several can answer; the error lists them
    #[arg(long)]
    strict: bool,
}

/// Parses the spelling of a pair; the server knows which currencies it serves.
///
/// # Errors
/// Returns a [`PairError`] if the text is not two currencies.
fn parse_pair(text: &str) -> Result<String, PairError> {
    Pair::parse_iso(&Pair::respell(text)).map(|pair| pair.to_string())
}

/// Arguments that select the sources of a cross rate through the US dollar.
#[derive(Debug, Args)]
struct LegArgs {
    /// Source of one leg of a cross rate; give the option twice: first for the first currency, then for the second
    #[arg(long = "leg-source", alias = "leg-sources", value_name = "SLUG", value_delimiter = ',')]
    leg_sources: Vec<String>,
}

/// The time zone of days and longer periods.
#[derive(Debug, Args)]
struct ZoneArgs {
    /// Time zone of dates and of the days in the answer, like Asia/Bishkek; default the zone of the source
    #[arg(long = "time-zone", alias = "zone", value_name = "ZONE", default_value = "", hide_default_value = true)]
    zone: String,
}

/// The argument of an as-of read, which uses only what was known at the given time.
#[derive(Debug, Args)]
struct KnownArgs {
    /// Use only what was recorded at or before this time, without later corrections
    #[arg(long = "known-time", alias = "known", value_name = "TIME", allow_hyphen_values = true)]
    known: Option<TimeArgument>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn argument_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn command_lines_are_accepted_or_refused_with_reason() {
        let check = |line: &str, expect: Result<(), &str>| match (Cli::try_parse_from(line.split(' ')), expect) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{line}: {error}"),
            (parsed, _) => panic!("{line}: {parsed:?}"),
        };
        check("silkrate latest KGS/USD TMT/USD --source timesca", Ok(()));
        check("silkrate watch KGS/USD --source timesca --heartbeat 5s --output json", Ok(()));
        check("silkrate watch --heartbeat 181s", Err("outside 1s to 3m"));
        check("silkrate --output json latest", Ok(()));
        check("silkrate latest --output xml", Err("possible values: table, json, csv"));
        check("silkrate rate KGS/USD --at -7d --max-age 2d --known-time 2025-12-08", Ok(()));
        check("silkrate rate", Err("<PAIR>"));
        check("silkrate rate KGS/USD --at yesterday", Err("invalid time 'yesterday': use"));
        check("silkrate rate KGS/USD --max-age 1mo", Err("no fixed length"));
        check("silkrate history KGS/USD --from -1mo --to now --limit 5 --desc --baseline", Ok(()));
        check("silkrate history KGS/USD --from=-1mo", Ok(()));
        check("silkrate history KGS/USD --limit 0", Err("0 is not in"));
        check("silkrate change KGS/USD --from -7d", Ok(()));
        check("silkrate change KGS/USD --over 1mo", Ok(()));
        check("silkrate change KGS/USD --over 7d --to 2025-12-08", Ok(()));
        check("silkrate change KGS/USD", Err("--from"));
        check("silkrate change KGS/USD --from -7d --over 7d", Err("cannot be used with"));
        check("silkrate change KGS/USD --over 7d --decimal-places 13", Err("13 is not in"));
        check("silkrate convert 99.90 USD/KGS --at -7d --max-age 2d", Ok(()));
        check("silkrate convert 99.90", Err("<PAIR>"));
        check("silkrate changes KGS/USD --period ytd --time-zone Asia/Bishkek --decimal-places 2 --limit 3", Ok(()));
        check("silkrate changes KGS/USD --period decade", Err("possible values: day, week, month, year, ytd"));
        check("silkrate compare --pair KGS/USD --sources timesca,nbkr --days 90 --time-zone Asia/Bishkek", Ok(()));
        check("silkrate compare --pair KGS/USD --sources a --sources b --from -1mo --to now", Ok(()));
        check("silkrate compare --pair KGS/USD", Err("--sources <SLUG,SLUG>"));
        check("silkrate compare --pair KGS/USD --sources a,b --days 7 --from -7d", Err("cannot be used with"));
        check("silkrate candles KGS/KZT --interval 4h --leg-source a --leg-source b --fill --observations", Ok(()));
        check("silkrate candles KGS/USD --interval 2h", Err("possible values: 1m, 5m, 15m, 1h, 4h, 1d, 1w, 1mo"));
        check("silkrate ingest", Err("<FILE>"));
        check("silkrate ingest -", Ok(()));
        check("silkrate ingest a.txt b.csv --time -1d --source timesca --revise --dry-run --format page", Ok(()));
        check("silkrate backfill --source cbu --from 2017-01-01 --to 2017-12-31 --pace 500ms --again", Ok(()));
        check("silkrate backfill --source cbu", Err("--from <DATE>"));
        check("silkrate backfill --source ecb --from 2017-01-01", Err("'ecb' cannot be followed"));
        check("silkrate backfill --source cbu --from 2017-02-30", Err("not a calendar day"));
        check("silkrate backfill --source cbu --from 2017-01-01 --pace 1ms", Err("outside 100ms to 1h"));
        check(
            "silkrate export runs.parquet --pair KGS/USD,KZT/USD --from -1y --to now --known-time now --force",
            Ok(()),
        );
        check("silkrate export daily.csv --shape daily --format csv", Ok(()));
        check("silkrate export days.csv --shape candles --interval 1d --time-zone Asia/Bishkek --fill", Ok(()));
        check("silkrate export days.csv --shape candles", Err("--interval <LENGTH>"));
        check("silkrate export store --full --interval 1d", Err("cannot be used with"));
        check("silkrate export store --full", Ok(()));
        check("silkrate export tree --partition pair,month", Ok(()));
        check("silkrate export", Err("<TARGET>"));
        check("silkrate export store --full --pair KGS/USD", Err("cannot be used with"));
        check("silkrate export store --full --format csv", Err("cannot be used with"));
        check("silkrate export tree --partition pair --format csv", Err("cannot be used with"));
        check("silkrate export tree --partition week", Err("possible values: pair, source, month"));
        check("silkrate quarantine list --pair USD/UZS --state all --from -7d --known-time now --limit 5", Ok(()));
        check("silkrate quarantine list --state open", Err("possible values: held, released, discarded, all"));
        check("silkrate quarantine release 1 2 --revise", Ok(()));
        check("silkrate quarantine release", Err("<ID>"));
        check("silkrate quarantine release 1 --all", Err("cannot be used with"));
        check("silkrate quarantine discard --all --source timesca --note slip", Ok(()));
        check("silkrate quarantine discard 1 --pair KGS/USD", Err("cannot be used with"));
        check("silkrate import", Err("<SOURCE>"));
        check("silkrate import full --db db", Ok(()));
        check("silkrate import runs.parquet --revise --dry-run", Ok(()));
        check("silkrate gaps", Ok(()));
        check("silkrate gaps TMT/USD --source timesca --from -7d --to now --min 2h --limit 5", Ok(()));
        check("silkrate gaps --min 1mo", Err("no fixed length"));
        for line in [
            "rate KGS/USD --time -7d",
            "convert 1 KGS/USD --time now",
            "history KGS/USD --start-time -7d --end-time now --include-baseline --descending --page-size 3",
            "change KGS/USD --window 7d --end-time now",
            "changes KGS/USD --period DAY_ON_DAY --start-time -7d",
            "changes KGS/USD --period Year-To-Date",
            "compare KGS/USD --sources a,b --last-days 7 --descending",
            "gaps --minimum-length 2h --start-time -7d",
            "candles KGS/KZT --leg-sources a,b --fill-empty",
            "latest KGS/USD,UZS/USD --sources a,b",
            "quarantine list KGS/USD UZS/USD --state HELD --start-time -7d",
            "quarantine discard 1 --note -1+2",
            "source archive x --note -1",
            "export runs.csv KGS/USD,KZT/USD UZS/USD --sources a,b --start-time -1y",
        ] {
            check(&format!("silkrate {line}"), Ok(()));
        }
        check("silkrate quarantine release --all KGS/USD", Err("give --all --pair PAIR"));
        check("silkrate latest --timeout 0s", Err("outside 1s to 1d"));
        check("silkrate latest --timeout 10", Err("a count and a unit, like 90s"));
        check("silkrate sources timesca nbkr --output csv", Ok(()));
        check("silkrate serve --config silkrate.toml", Ok(()));
        check("silkrate token create --tokens t --role ingest --name a --expires 90d --sources a,b --revise", Ok(()));
        check("silkrate token create --tokens t --role owner --name a", Err("possible values: read, ingest, admin"));
        check("silkrate token create --role read --name a", Err("--tokens <FILE>"));
        check("silkrate token list --tokens t --output json", Ok(()));
        check("silkrate token revoke a --tokens t", Ok(()));
        check("silkrate latest --endpoint https://a:1 --tls-ca a --tls-cert b --tls-key c --token-file d", Ok(()));
        check("silkrate latest --tls-cert b", Err("--tls-key <FILE>"));
        check("silkrate", Err("Usage"));
    }
}
