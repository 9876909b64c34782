//! `quarantine`: lists, releases and discards the ticks that the server held because their rates are too far from the
//! rate in force.
//!
//! **Invariant**: a decision names tick ids. With a filter, the command first lists the matching ticks and then sends
//! their ids, so the server never decides by a filter.

mod decide;
mod list;

pub(super) use list::state;

use clap::{Args, Subcommand};

use super::client::Client;
use super::time_argument::TimeArgument;
use super::{CliError, Outcome, Session, parse_pair};
use crate::proto::v1::{ListQuarantineRequest, ListQuarantineResponse};

/// Maximum number of ticks per page.
const PAGE_HELD_MAX: u64 = 5_000;

const EXAMPLES: &str = "\
Examples:
  silkrate quarantine list
  silkrate quarantine list USD/UZS --state all --output json
  silkrate quarantine release 17 18 --note 'redenomination, checked with the bank'
  silkrate quarantine discard --all --source timesca

A tick is held, and excluded from all other reads, if its rate is at least five
times the rate in force at its observed time, or at most a fifth of that rate.
The threshold is a setting of the server. A released tick is stored as if it had
just arrived. A discarded tick is not stored if it is
sent again, unless the quarantine of its source is off.
Released and discarded ticks stay in the list.";

/// Arguments of `quarantine`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct QuarantineArgs {
    #[command(subcommand)]
    command: QuarantineCommand,
}

impl QuarantineArgs {
    /// Returns true if pairs are given by the option `--pair`.
    pub(super) fn has_pair_option(&self) -> bool {
        let filter = match &self.command {
            QuarantineCommand::List(args) => args.filter(),
            QuarantineCommand::Release(args) => args.filter(),
            QuarantineCommand::Discard(args) => args.filter(),
        };
        !filter.pairs.is_empty()
    }
}

#[derive(Debug, Subcommand)]
enum QuarantineCommand {
    /// List held ticks, or decided ticks with --state
    List(list::ListArgs),
    /// Store held ticks, whatever their rates
    Release(decide::ReleaseArgs),
    /// Discard held ticks permanently
    Discard(decide::DiscardArgs),
}

/// The filter for held ticks.
#[derive(Clone, Debug, Default, Args)]
struct FilterArgs {
    /// Only ticks of this pair, like KGS/USD; may be repeated
    #[arg(long = "pair", alias = "pairs", value_name = "PAIR", value_delimiter = ',', value_parser = parse_pair)]
    pairs: Vec<String>,
    /// Only ticks from this source; may be repeated
    #[arg(long = "source", alias = "sources", value_name = "SLUG", value_delimiter = ',')]
    sources: Vec<String>,
    /// Only ticks observed at this time or later
    #[arg(long, alias = "start-time", value_name = "TIME", allow_hyphen_values = true)]
    from: Option<TimeArgument>,
    /// Only ticks observed before this time
    #[arg(long, alias = "end-time", value_name = "TIME", allow_hyphen_values = true)]
    to: Option<TimeArgument>,
}

impl FilterArgs {
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
