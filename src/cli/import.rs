//! `import`: a full export into a new store, or a file of ticks to the server.
//!
//! **Invariant**: a full export makes a whole store or none. Broken off, by a signal too, it leaves a directory that
//! no server opens and that the same command begins over.

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
use crate::config::default_state_rules;
use crate::export::read::{
    COMMITS_NAME, FullExport, Manifest, POLLS_NAME, QUARANTINE_NAME, REVISIONS_NAME, RUNS_NAME, ReadError,
    ReadProgress, SERIES_NAME, TIMELINE_NAME,
};
use crate::proto::convert::timestamp;
use crate::store::{Commit, Restore};

const EXAMPLES: &str = "\
Examples:
  silkrate import full-export/ --db new-store
  silkrate import runs.parquet
  silkrate import history.csv --dry-run

A directory is a full export, made with 'silkrate export --full'. It becomes
a store like the one it came from, recorded times included; --db must hold
nothing, and no server must run on it. Broken off, run it again.

A file is ticks for the running server, as with ingest: CSV of ticks, or runs
as 'silkrate export' writes them, Parquet or CSV. Of a run, these have the first and the last
observation; those between are in a full export only, and a run longer than
the collapse window comes apart. Parquet that another program wrote anew is
read too, with its decimals, times in UTC and texts as they come; but of what
silkrate wrote every byte is checked first, and such a file has no checksum.
What is refused is named by its row, and
the rest goes in (exit status 3).";

/// How often progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// Arguments of `import`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ImportArgs {
    /// Directory of a full export, or a Parquet or CSV file of ticks
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    /// Directory of the store that a full export becomes
    #[arg(long, value_name = "DIR", env = "SILKRATE_DB", default_value = "silkrate-data")]
    db: PathBuf,
    /// Replace what is stored where ticks differ; it stays readable as a revision
    #[arg(long)]
    revise: bool,
    /// Say what would happen to ticks, and store nothing
    #[arg(long)]
    dry_run: bool,
}

/// What became a store.
struct Imported {
    commit: Commit,
    manifest: Manifest,
}

impl Imported {
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
];

pub(super) async fn run(args: ImportArgs, session: &Session) -> Result<Outcome, CliError> {
    let ImportArgs { source, db, revise, dry_run } = args;
    if !source.is_dir() {
        return import_ticks(source, revise, dry_run, session).await;
    }
    for (given, flag) in [(revise, "--revise"), (dry_run, "--dry-run")] {
        if given {
            return Err(Problem::TicksOnly { flag }.into());
        }
    }
    let imported = import_store(&source, &db).await?;
    write_one(stdout(), session.style, COLUMNS, &imported)?;
    if session.is_table() {
        note(&format!("start it with: silkrate serve --db {}", clean(&db.display().to_string())));
    }
    Ok(Outcome::Done)
}

async fn import_store(source: &Path, db: &Path) -> Result<Imported, CliError> {
    let (source, target) = (source.to_owned(), db.to_owned());
    let opened = spawn_blocking(move || {
        Restore::check_directory(&target).map_err(ReadError::from)?;
        FullExport::open(&source)
    });
    let export = Arc::new(opened.await??);
    let (bytes, rows) = (export.total_bytes(), export.total_rows());
    let progress = Arc::new(ReadProgress::default());

    let (sums, seen) = (Arc::clone(&export), Arc::clone(&progress));
    let bar = Progress::new(Some(bytes));
    let checking = spawn_blocking(move || sums.check_sums(&seen));
    watched(checking, || bar.update_checked(progress.checked_bytes())).await??;
    drop(bar);

    let (whole, seen, db) = (Arc::clone(&export), Arc::clone(&progress), db.to_owned());
    let bar = Progress::new(Some(bytes));
    let restoring = spawn_blocking(move || whole.restore(&db, default_state_rules(), &seen));
    let commit = watched(restoring, || bar.update(share(bytes, progress.rows(), rows), progress.rows())).await??;
    Ok(Imported { commit, manifest: export.manifest().clone() })
}

/// Waits for a task and shows how far it is.
async fn watched<T>(mut task: JoinHandle<T>, mut show: impl FnMut()) -> Result<T, CliError> {
    let mut moments = tokio::time::interval(SHOW_EVERY);
    loop {
        tokio::select! {
            done = &mut task => return Ok(done?),
            _ = moments.tick() => show(),
        }
    }
}

/// The bytes that so many of the rows take, all rows taken as equally long.
fn share(bytes: u64, rows: u64, of_rows: u64) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(rows) / u128::from(of_rows.max(1))).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_bytes_goes_by_rows() {
        let check = |bytes, rows, of_rows, expect| assert_eq!(share(bytes, rows, of_rows), expect);
        check(1_000, 0, 10, 0);
        check(1_000, 5, 10, 500);
        check(u64::MAX, 10, 10, u64::MAX);
        check(0, 0, 0, 0);
    }
}
