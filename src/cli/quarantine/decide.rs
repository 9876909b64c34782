//! `quarantine release` and `quarantine discard`: release or discard ticks by id, or all held ticks that match a
//! filter.

use clap::Args;

use super::{FilterArgs, PAGE_HELD_MAX, page};
use crate::cli::client::Client;
use crate::cli::flags::with_flag_phrases;
use crate::cli::output::{Column, RowWriter};
use crate::cli::series::report_unknown_of_filter;
use crate::cli::text::clean;
use crate::cli::value::Value;
use crate::cli::{CliError, Outcome, Session, note, stdout};
use crate::proto::v1::{
    ConflictPolicy, DiscardQuarantineRequest, ListQuarantineRequest, QuarantineDecision, QuarantineOutcome,
    QuarantineRefusal, ReleaseQuarantineRequest,
};

/// Maximum number of ticks per request, which is the limit of the server.
const DECISION_IDS_MAX: usize = 1_000;

/// The ticks to release or discard, and the note of the decision.
#[derive(Debug, Args)]
struct DecisionArgs {
    /// Ids of held ticks, as in the list
    #[arg(value_name = "ID", value_parser = parse_id, required_unless_present = "all", conflicts_with_all = ["all", "pairs", "sources", "from", "to"])]
    ids: Vec<u64>,
    /// Apply the decision to all held ticks that match --pair, --source, --from and --to
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// Reason for the decision: one line, shown in the list
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, default_value = "", hide_default_value = true)]
    note: String,
}

/// Parses the id of a held tick.
///
/// # Errors
/// Returns a message that names `--pair` if the text is not a number.
fn parse_id(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| {
        "not an id, which is a number in the list; to select ticks of a pair, give --all --pair PAIR".to_owned()
    })
}

/// Arguments of `quarantine release`.
#[derive(Debug, Args)]
#[command(after_help = super::EXAMPLES)]
pub(super) struct ReleaseArgs {
    #[command(flatten)]
    decision: DecisionArgs,
    /// Replace stored rates that differ; the old rates stay readable as revisions
    #[arg(long)]
    revise: bool,
}

/// Arguments of `quarantine discard`.
#[derive(Debug, Args)]
#[command(after_help = super::EXAMPLES)]
pub(super) struct DiscardArgs {
    #[command(flatten)]
    decision: DecisionArgs,
}

impl ReleaseArgs {
    /// Returns the filter of the options.
    pub(super) const fn filter(&self) -> &FilterArgs {
        &self.decision.filter
    }
}

impl DiscardArgs {
    /// Returns the filter of the options.
    pub(super) const fn filter(&self) -> &FilterArgs {
        &self.decision.filter
    }
}

const COLUMNS: &[Column<QuarantineDecision>] = &[
    Column::new("id", "id", |row| Value::Count(row.id)),
    Column::new("outcome", "outcome", |row| outcome(row.outcome())),
    Column::data("reason", |row| reason(row.reason())),
    Column::data("message", |row| Value::text(&row.message)),
    Column::data("stored_rate", |row| Value::decimal_or_absent(row.stored_rate.as_ref())),
    Column::data("stored_reported_change_percent", |row| {
        Value::decimal_or_absent(row.stored_reported_change_percent.as_ref())
    }),
];

fn outcome(outcome: QuarantineOutcome) -> Value {
    Value::name(outcome.as_str_name(), "QUARANTINE_OUTCOME_")
}

fn reason(reason: QuarantineRefusal) -> Value {
    Value::name(reason.as_str_name(), "QUARANTINE_REFUSAL_")
}

pub(super) async fn release(args: ReleaseArgs, session: &Session) -> Result<Outcome, CliError> {
    let policy = if args.revise { ConflictPolicy::Revise } else { ConflictPolicy::Refuse };
    decide(args.decision, session, async |client, ids, note| {
        let request = ReleaseQuarantineRequest { ids, note, conflict_policy: policy.into() };
        Ok(client.answer(client.ingest().release_quarantine(client.request(request))).await?.decisions)
    })
    .await
}

pub(super) async fn discard(args: DiscardArgs, session: &Session) -> Result<Outcome, CliError> {
    decide(args.decision, session, async |client, ids, note| {
        let request = DiscardQuarantineRequest { ids, note };
        Ok(client.answer(client.ingest().discard_quarantine(client.request(request))).await?.decisions)
    })
    .await
}

/// Sends the decision about the ticks in several requests. If a request fails, the earlier decisions stay; repeating
/// the command does not change them.
async fn decide(
    args: DecisionArgs,
    session: &Session,
    send: impl AsyncFn(&Client, Vec<u64>, String) -> Result<Vec<QuarantineDecision>, CliError>,
) -> Result<Outcome, CliError> {
    let client = session.connect().await?;
    let filter = args.filter.request(session)?;
    let mut done = report_unknown_of_filter(&client, &filter.pairs, &filter.sources).await?;
    let ids = if args.all { held_ids(&client, filter).await? } else { args.ids };
    if ids.is_empty() && session.is_table() && done == Outcome::Done {
        note("no held ticks");
    }
    let mut writer = RowWriter::new(stdout(), session.style, COLUMNS)?;
    for chunk in ids.chunks(DECISION_IDS_MAX) {
        let decisions = match send(&client, chunk.to_vec(), args.note.clone()).await {
            Ok(decisions) => decisions,
            Err(error) => {
                writer.abandon()?;
                return Err(error);
            }
        };
        for decision in &decisions {
            writer.row(decision)?;
            if decision.outcome() == QuarantineOutcome::Refused {
                done = done.max(Outcome::PartlyRefused);
                if session.is_table() {
                    let message = with_flag_phrases(&decision.message);
                    note(&format!("{}: {}", decision.id, clean(&message)));
                }
            }
        }
    }
    writer.finish()?;
    Ok(done)
}

/// Returns the ids of all held ticks that match the request, sorted by observed time, which is the order of release.
async fn held_ids(client: &Client, request: ListQuarantineRequest) -> Result<Vec<u64>, CliError> {
    let page_size = i32::try_from(PAGE_HELD_MAX).unwrap_or(i32::MAX);
    let mut request = ListQuarantineRequest { page_size, ..request };
    let mut found = Vec::new();
    loop {
        let page = page(client, request.clone()).await?;
        found.extend(page.ticks.iter().map(|tick| {
            let time = tick.observed_time.as_ref().map(|time| (time.seconds, time.nanos));
            (time, tick.id)
        }));
        if page.next_page_token.is_empty() {
            found.sort_unstable();
            return Ok(found.into_iter().map(|(_, id)| id).collect());
        }
        request.page_token = page.next_page_token;
    }
}
