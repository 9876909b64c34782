//! `quarantine list`: lists held and decided ticks.

use clap::{Args, ValueEnum};

use super::{FilterArgs, PAGE_HELD_MAX, page};
use crate::cli::output::Column;
use crate::cli::pages::{OrderArgs, Page, is_narrow, list as list_rows, note_rest};
use crate::cli::runs::REPORTED_TITLE;
use crate::cli::series::report_unknown_of_filter;
use crate::cli::value::Value;
use crate::cli::{CliError, KnownArgs, Outcome, Session, parse_pair};
use crate::proto::v1::{ListQuarantineRequest, QuarantineState, QuarantinedTick};

/// Arguments of `quarantine list`.
#[derive(Debug, Args)]
#[command(after_help = super::EXAMPLES)]
pub(super) struct ListArgs {
    /// Show only ticks of these pairs, like KGS/USD; default all
    #[arg(value_name = "PAIR", id = "named_pairs", value_delimiter = ',', value_parser = parse_pair)]
    pairs: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Show only ticks in this state, or all
    #[arg(long, alias = "states", ignore_case = true, value_enum, value_name = "STATE", default_value_t = StateFilter::Held)]
    state: StateFilter,
    /// Maximum number of rows; default 50 in a table, unlimited in json and csv
    #[arg(long, alias = "page-size", value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    order: OrderArgs,
    #[command(flatten)]
    known: KnownArgs,
}

impl ListArgs {
    /// Returns the filter of the options.
    pub(super) const fn filter(&self) -> &FilterArgs {
        &self.filter
    }
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

const HELD_TITLE: &str = "held";
const STATE_TITLE: &str = "state";

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
    Column::new("held_time", HELD_TITLE, |row| Value::time(row.held_time.as_ref())),
    Column::new("state", STATE_TITLE, |row| state(row.state())),
    Column::new("decided_time", "decided", |row| Value::time(row.decided_time.as_ref())),
    Column::new("note", "note", |row| row.note.as_ref().map_or(Value::Absent, |note| Value::text(note))),
];

/// Titles of the columns that only decided ticks fill.
const DECIDED_TITLES: [&str; 2] = ["decided", "note"];

pub(in crate::cli) fn state(state: QuarantineState) -> Value {
    Value::name(state.as_str_name(), "QUARANTINE_STATE_")
}

pub(super) async fn run(mut args: ListArgs, session: &Session) -> Result<Outcome, CliError> {
    args.filter.pairs.extend(args.pairs);
    let selection = args.order.selection(session, args.limit, args.filter.from.is_some());
    let request = ListQuarantineRequest {
        descending: selection.descending,
        states: args.state.states(),
        known_time: session.time(args.known.known)?,
        ..args.filter.request(session)?
    };
    let client = session.connect().await?;
    let only_held = session.is_table() && args.state == StateFilter::Held;
    let mut hidden = if only_held { DECIDED_TITLES.to_vec() } else { Vec::new() };
    if is_narrow(session) {
        hidden.extend(if only_held { &[REPORTED_TITLE, STATE_TITLE] } else { &[REPORTED_TITLE, HELD_TITLE] });
    }
    let fetch = async |page_size, page_token| {
        let page = page(&client, ListQuarantineRequest { page_size, page_token, ..request.clone() }).await?;
        Ok(Page::new(page.ticks, page.next_page_token))
    };
    let listed = list_rows(session, COLUMNS, &hidden, selection, PAGE_HELD_MAX, fetch).await?;
    let outcome = report_unknown_of_filter(&client, &request.pairs, &request.sources).await?;
    if outcome == Outcome::Done || listed.rows > 0 {
        let empty_note = if args.state == StateFilter::Held { "no held ticks" } else { "no matching ticks" };
        note_rest(session, (&listed, selection), args.limit, "ticks", empty_note);
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::table;

    #[test]
    fn narrow_table_of_held_ticks_has_a_line_of_titles() {
        let time = Some(prost_types::Timestamp { seconds: 1_763_769_600, nanos: 0 });
        let tick = QuarantinedTick {
            id: 12_345,
            pair: "USD/UZS".to_owned(),
            source: "times-of-central-asia".to_owned(),
            observed_time: time,
            rate: "120.01".to_owned(),
            rate_in_force: "12000.50".to_owned(),
            held_time: time,
            ..QuarantinedTick::default()
        };
        let shown = table(COLUMNS, &["decided", "note", REPORTED_TITLE, STATE_TITLE], 80, &[tick]);
        assert!(shown.starts_with("   id  pair     source                 observed"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    }
}
