//! `source archive` and `source unarchive`: hides a source from default answers, and shows it again.

use clap::{Args, Subcommand};

use super::output::{Column, write_one};
use super::text::clean;
use super::value::Value;
use super::{CliError, Outcome, Session, note, stdout};
use crate::proto::v1::{ArchiveSourceRequest, UnarchiveSourceRequest};

const EXAMPLES: &str = "\
Examples:
  silkrate source archive tymesca --note 'a misspelled name'
  silkrate source unarchive tymesca

An archived source does not answer requests that name no source, unless no other
source has the pair. It stays readable by name, for example with --source. It
raises no alert, and lists show it last or hide it. The decision is a commit:
reads with an earlier --known-time time ignore it. 'silkrate sources' shows which
sources are archived.";

/// Arguments of `source`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SourceArgs {
    #[command(subcommand)]
    command: SourceCommand,
}

#[derive(Debug, Subcommand)]
enum SourceCommand {
    /// Archive a source: it no longer answers requests that name no source
    Archive(ArchiveArgs),
    /// Reverse the archiving of a source
    Unarchive(ArchiveArgs),
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct ArchiveArgs {
    /// The source, like timesca
    #[arg(value_name = "SLUG")]
    source: String,
    /// Reason for the decision: one line, shown by 'silkrate sources --output json'
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, default_value = "", hide_default_value = true)]
    note: String,
}

/// The result of a decision.
struct Row {
    source: String,
    archived: bool,
    changed: bool,
    sequence: u64,
    recorded_time: Option<prost_types::Timestamp>,
}

const COLUMNS: &[Column<Row>] = &[
    Column::new("source", "source", |row| Value::text(&row.source)),
    Column::new("archived", "archived", |row| Value::Flag(row.archived)),
    Column::data("changed", |row| Value::Flag(row.changed)),
    Column::new("sequence", "sequence", |row| Value::Count(row.sequence)),
    Column::new("recorded_time", "recorded", |row| Value::time(row.recorded_time.as_ref())),
];

pub(super) async fn run(args: SourceArgs, session: &Session) -> Result<Outcome, CliError> {
    let client = session.connect().await?;
    let (ArchiveArgs { source, note: reason }, archived) = match args.command {
        SourceCommand::Archive(args) => (args, true),
        SourceCommand::Unarchive(args) => (args, false),
    };
    let of_note = if reason.is_empty() { "" } else { "; the note was not stored" };
    let (changed, sequence, recorded_time) = if archived {
        let request = client.request(ArchiveSourceRequest { source: source.clone(), note: reason });
        let response = client.answer(client.ingest().archive_source(request)).await?;
        (response.changed, response.sequence, response.recorded_time)
    } else {
        let request = client.request(UnarchiveSourceRequest { source: source.clone(), note: reason });
        let response = client.answer(client.ingest().unarchive_source(request)).await?;
        (response.changed, response.sequence, response.recorded_time)
    };
    let row = Row { source, archived, changed, sequence, recorded_time };
    write_one(stdout(), session.style, COLUMNS, &row)?;
    if !row.changed {
        let state = if row.archived { "already" } else { "not" };
        note(&format!("nothing changed: the source {} was {state} archived{of_note}", clean(&row.source)));
    }
    Ok(Outcome::Done)
}
