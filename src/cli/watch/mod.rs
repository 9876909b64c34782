//! `watch`: the latest rates as they change, in place on a terminal, line by line in a pipe.
//!
//! **Invariant**: whether a rate stands still, its feed is dead or the connection is lost can be told apart at a glance;
//! a restart of the server loses nothing.

mod connection;
mod frame;
mod screen;
mod state;
mod trend;

use std::io::{IsTerminal as _, Write};
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc::{self, Receiver};

use self::connection::{News, Question, follow};
use super::output::{Format, LineSheet};
use super::text::length;
use super::value::Value;
use super::{CliError, Outcome, Session, latest, note, stdout};
use crate::domain::{duration_us, parse_length};
use crate::proto::v1::{LatestRate, WatchKind, WatchLatestRatesResponse};

pub(super) use screen::give_back;

/// News on their way to who shows them.
const NEWS_WAITING_MAX: usize = 64;

const EXAMPLES: &str = "\
Examples:
  silkrate watch
  silkrate watch KGS/USD UZS/USD --source timesca
  silkrate watch --output json | jq -r .rate

On a terminal: MOVING moved lately, FLAT stands still, PEGGED has for half a
year, STALE was not confirmed in time: its feed may be dead. While the
connection is lost, states are unknown and it is tried again; what changed
meanwhile comes after it. q quits. Colours stay away where NO_COLOR is set.

In a pipe: a line for each rate at the start and for each change, an object a
line with --output json. Notes on the connection go to standard error.";

/// Arguments of `watch`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct WatchArgs {
    /// Only these pairs, like KGS/USD
    #[arg(value_name = "PAIR")]
    pairs: Vec<String>,
    /// Only what these sources published
    #[arg(long = "source", value_name = "SLUG")]
    sources: Vec<String>,
    /// How often the server says that it is there when nothing changes; silence for longer is a lost connection; 1s to 3m
    #[arg(long, value_name = "DURATION", default_value = "10s",
          value_parser = |text: &str| parse_length(text, Duration::from_secs(1), Duration::from_mins(3)))]
    heartbeat: Duration,
}

pub(super) async fn run(args: WatchArgs, session: &Session) -> Result<Outcome, CliError> {
    let on_screen = session.is_table() && std::io::stdout().is_terminal();
    let question =
        Question { pairs: args.pairs, sources: args.sources, heartbeat: args.heartbeat, histories: on_screen };
    let (sender, news) = mpsc::channel(NEWS_WAITING_MAX);
    let show = async {
        if on_screen {
            screen::show(news, with_colour()).await
        } else {
            write_lines(news, stdout(), session.style.format).await
        }
    };
    tokio::select! {
        // What is at hand is shown before an end is told of.
        biased;
        shown = show => shown?,
        followed = follow(session, question, sender) => followed?,
    }
    Ok(Outcome::Done)
}

/// As <https://no-color.org> has it.
fn with_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Cells before those of the rate.
const LEAD: [&str; 3] = ["server_time", "sequence", "kind"];

/// Writes a line for each rate that a message holds.
async fn write_lines(mut news: Receiver<News>, out: impl Write, format: Format) -> Result<(), CliError> {
    let mut lines = LineSheet::new(out, format, &LEAD, latest::COLUMNS)?;
    let mut is_lost = false;
    while let Some(one) = news.recv().await {
        match one {
            News::Message(message) => {
                if std::mem::take(&mut is_lost) {
                    note(&format!("connected again, at sequence {}", message.sequence));
                }
                write_message(&mut lines, &message)?;
            }
            News::Lost { problem, retry_in } => {
                is_lost = true;
                let wait = length(duration_us(retry_in));
                note(&format!("connection lost: {problem}; trying again in {wait}"));
            }
            News::History(..) => {}
        }
    }
    Ok(())
}

fn write_message(
    lines: &mut LineSheet<impl Write, LatestRate>,
    message: &WatchLatestRatesResponse,
) -> Result<(), CliError> {
    let kind = match message.kind() {
        WatchKind::Snapshot => "SNAPSHOT",
        WatchKind::Changes => "CHANGES",
        WatchKind::Heartbeat | WatchKind::Unspecified => return Ok(()),
    };
    let lead = [Value::time(message.server_time.as_ref()), Value::Count(message.sequence), Value::text(kind)];
    for rate in &message.rates {
        lines.row(&lead, rate)?;
    }
    Ok(lines.flush()?)
}
