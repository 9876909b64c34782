//! `quarantine release` and `quarantine discard`: ticks by their ids, or all that are listed.

use clap::Args;

use super::{PAGE_HELD_MAX, WhichArgs, page};
use crate::cli::client::Client;
use crate::cli::output::{Column, Sheet};
use crate::cli::value::Value;
use crate::cli::{CliError, Outcome, Session, note, stdout};
use crate::proto::v1::{
    ConflictPolicy, DiscardQuarantineRequest, ListQuarantineRequest, QuarantineDecision, QuarantineOutcome,
    QuarantineRefusal, ReleaseQuarantineRequest,
};

/// Ticks decided at a time: as many as the server takes.
const DECISION_IDS_MAX: usize = 1_000;

/// Which ticks to decide, and why.
#[derive(Debug, Args)]
struct DecisionArgs {
    /// Ids, as listed
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with_all = ["all", "pairs", "sources", "from", "to"])]
    ids: Vec<u64>,
    /// All that are held, or of them those of --pair, --source, --from and --to
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    which: WhichArgs,
    /// Why: one line that is listed with the decision
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
}

/// Arguments of `quarantine release`.
#[derive(Debug, Args)]
#[command(after_help = super::EXAMPLES)]
pub(super) struct ReleaseArgs {
    #[command(flatten)]
    decision: DecisionArgs,
    /// Replace what is stored where it differs; it stays readable as a revision
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

/// Decides what the arguments name, piece by piece. What was decided stays so when a later piece fails; doing it again
/// changes nothing.
async fn decide(
    args: DecisionArgs,
    session: &Session,
    send: impl AsyncFn(&Client, Vec<u64>, String) -> Result<Vec<QuarantineDecision>, CliError>,
) -> Result<Outcome, CliError> {
    let client = session.connect().await?;
    let ids = if args.all { held(&client, args.which.request(session)?).await? } else { args.ids };
    if ids.is_empty() && session.is_table() {
        note("nothing is held");
    }
    let mut sheet = Sheet::new(stdout(), session.style, COLUMNS)?;
    let mut done = Outcome::Done;
    for piece in ids.chunks(DECISION_IDS_MAX) {
        let decisions = match send(&client, piece.to_vec(), args.note.clone()).await {
            Ok(decisions) => decisions,
            Err(error) => {
                sheet.abandon()?;
                return Err(error);
            }
        };
        for decision in &decisions {
            sheet.row(decision)?;
            if decision.outcome() == QuarantineOutcome::Refused {
                done = done.max(Outcome::PartlyRefused);
                if session.is_table() {
                    note(&format!("{}: {}", decision.id, crate::cli::text::clean(&decision.message)));
                }
            }
        }
    }
    sheet.finish()?;
    Ok(done)
}

/// The ids of all ticks held now that the request asks for, in the order in which they are to go in.
async fn held(client: &Client, request: ListQuarantineRequest) -> Result<Vec<u64>, CliError> {
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
