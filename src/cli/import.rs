//! `import`: creates a store from a full export, or sends a file of ticks to the server.
//!
//! **Invariant**: the import of a full export creates a complete store or none. An import that is interrupted, for
//! example by a signal, leaves a directory that no server opens and that the same command overwrites.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::task::{JoinHandle, spawn_blocking};

use super::error::Problem;
use super::ingest::{Progress, import_ticks};
use super::output::{Column, write_one};
use super::text::clean;
use super::value::Value;
use super::{CliError, Outcome, Session, note, stdout};
use crate::config::StateArgs;
use crate::export::read::{
    ARCHIVE_NAME, COMMITS_NAME, FullExport, Manifest, POLLS_NAME, QUARANTINE_NAME, REVISIONS_NAME, RUNS_NAME,
    ReadError, ReadProgress, SERIES_NAME, TIMELINE_NAME,
};
use crate::proto::convert::timestamp;
use crate::store::{Commit, Restore};

const EXAMPLES: &str = "\
Examples:
  silkrate import full-export/ --db new-store
  silkrate import runs.parquet
  silkrate import history.csv --dry-run

A directory must be a full export, made with 'silkrate export --full'. It
becomes an identical store, with the same recorded times. The directory given
with --db must be absent or empty, and no server may use it. If the command is
interrupted, run it again. Give --config, --stale-limit and --moving-window the
values of the server that will use the store: with other values, the server
commits the changed states of rates at its first start.

A file must contain ticks, which the command sends to the running server, like
'silkrate ingest'. It is a CSV file of ticks, or a file of runs from
'silkrate export' in Parquet or CSV. A file of runs has only the first and the
last observation of each run; only a full export has the others. A run longer
than the collapse window therefore becomes two runs.

Every byte of a Parquet file from silkrate is verified by a checksum. A Parquet
file that another program rewrote is accepted without a checksum, if its rates
are decimals and its times are in UTC.

Each refused row is reported by its number; the other rows are stored (exit
status 3).";

/// Interval between updates of the progress bar.
const SHOW_INTERVAL: Duration = Duration::from_millis(100);

/// Arguments of `import`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ImportArgs {
    /// Directory of a full export, or Parquet or CSV file of ticks
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    /// Directory of the store to create from a full export
    #[arg(long, value_name = "DIR", env = "SILKRATE_DB", default_value = "silkrate-data")]
    db: PathBuf,
    /// Replace stored rates that differ; the old rates stay readable as revisions
    #[arg(long)]
    revise: bool,
    /// For a file of ticks: report what would be stored, without storing it
    #[arg(long)]
    dry_run: bool,
    /// The settings that decide the states of rates in the store.
    #[command(flatten)]
    states: StateArgs,
}

/// The imported commit and the manifest of the full export.
struct Imported {
    commit: Commit,
    manifest: Manifest,
}

impl Imported {
    /// Number of rows in a part of the export.
    fn rows(&self, part: &str) -> Value {
        let part = self.manifest.parts.iter().find(|other| other.name == part);
        part.map_or(Value::Absent, |part| Value::Count(part.row_count))
    }
}

const COLUMNS: &[Column<Imported>] = &[
    Column::new("sequence", "sequence", |row| Value::Count(row.commit.sequence)),
    Column::new("recorded_time", "recorded", |row| Value::time(Some(&timestamp(row.commit.recorded_time)))),
    Column::new("series_count", "series", |row| row.rows(SERIES_NAME)),
    Column::new("run_count", "runs", |row| row.rows(RUNS_NAME)),
    Column::new("observation_count", "observations", |row| row.rows(TIMELINE_NAME)),
    Column::new("revision_count", "revisions", |row| row.rows(REVISIONS_NAME)),
    Column::new("commit_count", "commits", |row| row.rows(COMMITS_NAME)),
    Column::new("poll_span_count", "poll spans", |row| row.rows(POLLS_NAME)),
    Column::new("quarantined_count", "held ticks", |row| row.rows(QUARANTINE_NAME)),
    Column::data("archive_decision_count", |row| row.rows(ARCHIVE_NAME)),
];

pub(super) async fn run(args: ImportArgs, session: &Session) -> Result<Outcome, CliError> {
    let ImportArgs { source, db, revise, dry_run, states } = args;
    if !source.is_dir() {
        return import_ticks(source, revise, dry_run, session).await;
    }
    for (given, flag) in [(revise, "--revise"), (dry_run, "--dry-run")] {
        if given {
            return Err(Problem::TicksOnly { flag }.into());
        }
    }
    let imported = import_store(&source, &db, &states).await?;
    write_one(stdout(), session.style, COLUMNS, &imported)?;
    if session.is_table() {
        note(&format!("to serve this store, run: silkrate serve --db {}", clean(&db.display().to_string())));
    }
    Ok(Outcome::Done)
}

async fn import_store(source: &Path, db: &Path, states: &StateArgs) -> Result<Imported, CliError> {
    let rules = states.rules().map_err(Problem::from)?;
    let (source, target) = (source.to_owned(), db.to_owned());
    let opened = spawn_blocking(move || {
        Restore::check_directory(&target).map_err(ReadError::from)?;
        FullExport::open(&source)
    });
    let export = Arc::new(opened.await??);
    let (bytes, rows) = (export.total_bytes(), export.total_rows());
    let progress = Arc::new(ReadProgress::default());

    let (checked, observed) = (Arc::clone(&export), Arc::clone(&progress));
    let bar = Progress::new(Some(bytes));
    let checking = spawn_blocking(move || checked.verify_checksums(&observed));
    with_progress(checking, || bar.update_checked(progress.checked_bytes())).await??;
    drop(bar);

    let (restored, observed, db) = (Arc::clone(&export), Arc::clone(&progress), db.to_owned());
    let bar = Progress::new(Some(bytes));
    let restoring = spawn_blocking(move || restored.restore(&db, rules, &observed));
    let commit =
        with_progress(restoring, || bar.update(share(bytes, progress.rows(), rows), progress.rows())).await??;
    Ok(Imported { commit, manifest: export.manifest().clone() })
}

/// Waits for a task and shows its progress meanwhile.
async fn with_progress<T>(mut task: JoinHandle<T>, mut show: impl FnMut()) -> Result<T, CliError> {
    let mut interval = tokio::time::interval(SHOW_INTERVAL);
    loop {
        tokio::select! {
            done = &mut task => return Ok(done?),
            _ = interval.tick() => show(),
        }
    }
}

/// Estimates how many of `bytes` bytes belong to `rows` of `total_rows` rows, as if all rows had the same length.
fn share(bytes: u64, rows: u64, total_rows: u64) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(rows) / u128::from(total_rows.max(1))).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_of_bytes_is_proportional_to_rows() {
        let check = |bytes, rows, total_rows, expect| assert_eq!(share(bytes, rows, total_rows), expect);
        check(1_000, 0, 10, 0);
        check(1_000, 5, 10, 500);
        check(u64::MAX, 10, 10, u64::MAX);
        check(0, 0, 0, 0);
    }
}
