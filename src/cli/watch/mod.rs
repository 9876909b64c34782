//! The `watch` command: the latest rates as they change, as a screen on a terminal and as lines in a pipe.
//!
//! **Invariant**: an unchanged rate, a dead feed and a lost connection look different. A restart of the server loses no
//! change.

mod connection;
mod frame;
mod reader;
mod screen;
mod state;
mod trend;

use std::io::{IsTerminal as _, Write};
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc::{self, Receiver};

use self::connection::{WatchEvent, WatchParameters, follow};
use self::reader::reader_closed;
use super::output::{Format, LineWriter};
use super::text::clean;
use super::value::Value;
use super::{CliError, Outcome, Session, latest, note, parse_pair, stdout};
use crate::domain::{duration_us, format_rounded_duration, parse_duration};
use crate::proto::v1::{LatestRate, Run, WatchKind, WatchLatestRatesResponse};

pub(super) use screen::restore_terminal;

/// The maximum number of events between the connection and the output.
const QUEUED_EVENTS_MAX: usize = 64;

const EXAMPLES: &str = "\
Examples:
  silkrate watch
  silkrate watch KGS/USD UZS/USD --source timesca
  silkrate watch --output json | jq -r .rate

On a terminal, the table is updated in place. 'silkrate latest --help' explains
the states MOVING, FLAT, PEGGED and STALE. If the connection is lost, the command
reconnects, and states are unknown until then. q quits; the arrow keys scroll.
Set NO_COLOR to disable colours.

In a pipe, each rate at the start and each change is a line; with --output json
the line is an object. Changes that happen while the connection is lost are
written after the reconnect. Notes about the connection, and about pairs and
sources without a rate, go to standard error.";

/// Arguments of `watch`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct WatchArgs {
    /// Watch only these pairs, like KGS/USD; default all
    #[arg(value_name = "PAIR", value_delimiter = ',', value_parser = parse_pair)]
    pairs: Vec<String>,
    /// Watch only rates of this source; repeat the option for several sources
    #[arg(long = "source", alias = "sources", value_name = "SLUG", value_delimiter = ',')]
    sources: Vec<String>,
    /// Also show rates of archived sources in a table
    #[arg(long)]
    archived: bool,
    /// Heartbeat interval while nothing changes, from 1s to 3m; a heartbeat 5s late means a lost connection
    #[arg(long, value_name = "DURATION", default_value = "10s",
          value_parser = |text: &str| parse_duration(text, Duration::from_secs(1), Duration::from_mins(3)))]
    heartbeat: Duration,
}

pub(super) async fn run(args: WatchArgs, session: &Session) -> Result<Outcome, CliError> {
    // JSON and CSV show archived sources with a flag.
    let shows_archived = args.archived || !args.sources.is_empty() || !session.is_table();
    let on_screen = session.is_table() && std::io::stdout().is_terminal();
    let parameters = WatchParameters {
        pairs: args.pairs,
        sources: args.sources,
        heartbeat: args.heartbeat,
        with_history: on_screen,
    };
    let requested = RequestedNames { pairs: parameters.pairs.clone(), sources: parameters.sources.clone() };
    let (sender, events) = mpsc::channel(QUEUED_EVENTS_MAX);
    let show = async {
        if on_screen {
            screen::show(events, shows_archived, with_colour()).await
        } else {
            write_lines(events, stdout(), session.style.format, shows_archived, requested).await
        }
    };
    tokio::select! {
        // Queued events are shown before an error ends the command.
        biased;
        shown = show => shown?,
        followed = follow(session, parameters, sender) => followed?,
        () = reader_closed(), if !on_screen => {}
    }
    Ok(Outcome::Done)
}

/// The pairs and sources of the command line.
struct RequestedNames {
    pairs: Vec<String>,
    sources: Vec<String>,
}

impl RequestedNames {
    /// Returns the names that no rate of a message has: `of KGS/TMT`, `from nosuch`.
    fn missing_in(&self, message: &WatchLatestRatesResponse) -> Vec<String> {
        let has = |is_of: &dyn Fn(&Run) -> bool| message.rates.iter().filter_map(|rate| rate.run.as_ref()).any(is_of);
        let pairs = self.pairs.iter().filter(|pair| !has(&|run| run.pair == **pair)).map(|pair| format!("of {pair}"));
        let sources = self.sources.iter().filter(|source| !has(&|run| run.source == **source));
        pairs.chain(sources.map(|source| format!("from {source}"))).collect()
    }
}

/// Returns false if `NO_COLOR` is set and not empty, as <https://no-color.org> defines.
fn with_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The columns before those of the rate.
const LEAD: [&str; 3] = ["server_time", "sequence", "kind"];

/// Writes a line for each rate of each message, and notes on the connection to standard error.
async fn write_lines(
    mut events: Receiver<WatchEvent>,
    out: impl Write,
    format: Format,
    shows_archived: bool,
    requested: RequestedNames,
) -> Result<(), CliError> {
    let mut lines = LineWriter::new(out, format, &LEAD, latest::COLUMNS)?;
    let (mut is_lost, mut requested) = (false, Some(requested));
    while let Some(event) = events.recv().await {
        match event {
            WatchEvent::Message(message) => {
                if std::mem::take(&mut is_lost) {
                    note(&format!("reconnected at sequence {}", message.sequence));
                }
                // The first message has all watched series.
                for missing in requested.take().iter().flat_map(|requested| requested.missing_in(&message)) {
                    note(&format!("no series {} yet; waiting for its first rate", clean(&missing)));
                }
                write_message(&mut lines, &message, shows_archived)?;
            }
            WatchEvent::Lost { problem, retry_in } => {
                is_lost = true;
                let wait = format_rounded_duration(duration_us(retry_in));
                note(&format!("connection lost: {problem}; retrying in {wait}"));
            }
            WatchEvent::History(..) => {}
        }
    }
    Ok(())
}

fn write_message(
    lines: &mut LineWriter<impl Write, LatestRate>,
    message: &WatchLatestRatesResponse,
    shows_archived: bool,
) -> Result<(), CliError> {
    let kind = match message.kind() {
        WatchKind::Snapshot => "SNAPSHOT",
        WatchKind::Changes => "CHANGES",
        WatchKind::Heartbeat | WatchKind::Unspecified => return Ok(()),
    };
    let lead = [Value::time(message.server_time.as_ref()), Value::Count(message.sequence), Value::text(kind)];
    for rate in message.rates.iter().filter(|rate| shows_archived || !rate.archived) {
        lines.row(&lead, rate)?;
    }
    Ok(lines.flush()?)
}
