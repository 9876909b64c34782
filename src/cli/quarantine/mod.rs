//! `quarantine`: ticks that the server held because their rates lay too far from those in force.
//!
//! **Invariant**: what is decided was listed or named before; nothing is decided by a filter that the server reads.

mod decide;
mod list;

pub(super) use list::state;

use clap::{Args, Subcommand};

use super::client::Client;
use super::time_argument::TimeArgument;
use super::{CliError, Outcome, Session};
use crate::proto::v1::{ListQuarantineRequest, ListQuarantineResponse};

/// Ticks asked for at a time.
const PAGE_HELD_MAX: u64 = 5_000;

const EXAMPLES: &str = "\
Examples:
  silkrate quarantine list
  silkrate quarantine list --pair USD/UZS --state all --output json
  silkrate quarantine release 17 18 --note 'redenomination, checked with the bank'
  silkrate quarantine discard --all --source timesca

A tick is held, not stored and not shown, when its rate is five times the rate
in force at its own place in time or more, or a fifth of it or less (the factor
is a setting of the server). Released, it goes in as if it had come just now;
discarded, it stays out, also when it comes again. Either way it stays listed.";

/// Arguments of `quarantine`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct QuarantineArgs {
    #[command(subcommand)]
    command: QuarantineCommand,
}

#[derive(Debug, Subcommand)]
enum QuarantineCommand {
    /// List ticks that are held, or what was decided of them
    List(list::ListArgs),
    /// Let held ticks in, whatever their rates
    Release(decide::ReleaseArgs),
    /// Keep held ticks out for good
    Discard(decide::DiscardArgs),
}

/// Which held ticks.
#[derive(Clone, Debug, Default, Args)]
struct WhichArgs {
    /// Only of this pair, like KGS/USD; may be repeated
    #[arg(long = "pair", value_name = "PAIR")]
    pairs: Vec<String>,
    /// Only what this source published; may be repeated
    #[arg(long = "source", value_name = "SLUG")]
    sources: Vec<String>,
    /// Observed at this time or later
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArgument>,
    /// Observed before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<TimeArgument>,
}

impl WhichArgs {
    fn request(self, session: &Session) -> Result<ListQuarantineRequest, CliError> {
        Ok(ListQuarantineRequest {
            pairs: self.pairs,
            sources: self.sources,
            start_time: session.time(self.from)?,
            end_time: session.time(self.to)?,
            ..ListQuarantineRequest::default()
        })
    }
}

pub(super) async fn run(args: QuarantineArgs, session: &Session) -> Result<Outcome, CliError> {
    match args.command {
        QuarantineCommand::List(args) => list::run(args, session).await,
        QuarantineCommand::Release(args) => decide::release(args, session).await,
        QuarantineCommand::Discard(args) => decide::discard(args, session).await,
    }
}

async fn page(client: &Client, request: ListQuarantineRequest) -> Result<ListQuarantineResponse, CliError> {
    client.answer(client.ingest().list_quarantine(client.request(request))).await
}
