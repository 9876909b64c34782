//! `quarantine list`: lists held and decided ticks.

use clap::{Args, ValueEnum};

use super::{FilterArgs, PAGE_HELD_MAX, page};
use crate::cli::output::Column;
use crate::cli::pages::{OrderArgs, Page, list as list_rows, note_rest};
use crate::cli::runs::REPORTED_TITLE;
use crate::cli::series::report_unknown_of_filter;
use crate::cli::value::Value;
use crate::cli::{CliError, KnownArgs, Outcome, Session};
use crate::proto::v1::{ListQuarantineRequest, QuarantineState, QuarantinedTick};

/// Arguments of `quarantine list`.
#[derive(Debug, Args)]
#[command(after_help = super::EXAMPLES)]
pub(super) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Show only ticks in this state, or all
    #[arg(long, value_enum, value_name = "STATE", default_value_t = StateFilter::Held)]
    state: StateFilter,
    /// Maximum number of rows; default 50 in a table, unlimited in json and csv
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    order: OrderArgs,
    #[command(flatten)]
    known: KnownArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum StateFilter {
    Held,
    Released,
    Discarded,
    All,
}

impl StateFilter {
    fn states(self) -> Vec<i32> {
        let states: &[QuarantineState] = match self {
            Self::Held => &[QuarantineState::Held],
            Self::Released => &[QuarantineState::Released],
            Self::Discarded => &[QuarantineState::Discarded],
            Self::All => &[QuarantineState::Held, QuarantineState::Released, QuarantineState::Discarded],
        };
        states.iter().map(|state| (*state).into()).collect()
    }
}

const COLUMNS: &[Column<QuarantinedTick>] = &[
    Column::new("id", "id", |row| Value::Count(row.id)),
    Column::new("pair", "pair", |row| Value::text(&row.pair)),
    Column::new("source", "source", |row| Value::text(&row.source)),
    Column::new("observed_time", "observed", |row| Value::time(row.observed_time.as_ref())),
    Column::new("rate", "rate", |row| Value::decimal(&row.rate)),
    Column::new("rate_in_force", "in force", |row| Value::decimal(&row.rate_in_force)),
    Column::new("reported_change_percent", REPORTED_TITLE, |row| {
        Value::decimal_or_absent(row.reported_change_percent.as_ref())
    }),
    Column::new("held_time", "held", |row| Value::time(row.held_time.as_ref())),
    Column::new("state", "state", |row| state(row.state())),
    Column::new("decided_time", "decided", |row| Value::time(row.decided_time.as_ref())),
    Column::new("note", "note", |row| row.note.as_ref().map_or(Value::Absent, |note| Value::text(note))),
];

/// Titles of the columns that only decided ticks fill.
const DECIDED_TITLES: [&str; 2] = ["decided", "note"];

pub(in crate::cli) fn state(state: QuarantineState) -> Value {
    Value::name(state.as_str_name(), "QUARANTINE_STATE_")
}

pub(super) async fn run(args: ListArgs, session: &Session) -> Result<Outcome, CliError> {
    let selection = args.order.selection(session, args.limit, args.filter.from.is_some());
    let request = ListQuarantineRequest {
        descending: selection.descending,
        states: args.state.states(),
        known_time: session.time(args.known.known)?,
        ..args.filter.request(session)?
    };
    let client = session.connect().await?;
    let only_held = session.is_table() && args.state == StateFilter::Held;
    let hidden: &[&str] = if only_held { &DECIDED_TITLES } else { &[] };
    let fetch = async |page_size, page_token| {
        let page = page(&client, ListQuarantineRequest { page_size, page_token, ..request.clone() }).await?;
        Ok(Page::new(page.ticks, page.next_page_token))
    };
    let listed = list_rows(session, COLUMNS, hidden, selection, PAGE_HELD_MAX, fetch).await?;
    let empty_note = if args.state == StateFilter::Held { "no held ticks" } else { "no matching ticks" };
    note_rest(session, (&listed, selection), args.limit, "ticks", empty_note);
    report_unknown_of_filter(&client, &request.pairs, &request.sources).await
}
