//! `restore`: creates a store from a backup.
//!
//! **Invariant**: the command creates a complete store or none. A restore that is interrupted leaves a directory that no
//! server opens and that the same command overwrites.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use clap::Args;

use super::backup::{ChoiceArgs, parse_location};
use super::ingest::Progress;
use super::output::{Column, write_one};
use super::text::clean;
use super::value::Value;
use super::{CliError, Outcome, Session, note, stdout};
use crate::backup::{At, Destination, Location, Restored, restore};
use crate::proto::convert::timestamp;

const EXAMPLES: &str = "\
Examples:
  silkrate restore s3://rates/silkrate --db /var/lib/silkrate
  silkrate restore /mnt/backup/silkrate --db restored --at 2026-11-26T12:00:00Z
  silkrate restore /mnt/backup/silkrate --db restored --at 48213

The store answers as the original did at the restored commit: the newest one, or
with --at the one with that sequence, or the newest one at that time. Every
checksum is compared, and the restored store is compared with the backup before
it can be opened. The directory given with --db must be absent or empty. No
server is needed. If the command is interrupted, run it again.";

/// Arguments of `restore`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RestoreArgs {
    /// Directory, or `s3://bucket/prefix`, with backups
    #[arg(value_name = "FROM", value_parser = parse_location)]
    from: Location,
    /// Directory of the store to create
    #[arg(long, value_name = "DIR")]
    db: PathBuf,
    #[command(flatten)]
    choice: ChoiceArgs,
}

pub(super) async fn run(args: RestoreArgs, session: &Session) -> Result<Outcome, CliError> {
    let destination = Destination::open(args.from)?;
    let at = args.choice.at(session)?.unwrap_or(At::Newest);
    let bar = Mutex::new(None::<Progress>);
    let mut progress = |done: u64, total: u64| {
        let mut bar = bar.lock().unwrap_or_else(PoisonError::into_inner);
        bar.get_or_insert_with(|| Progress::new(Some(total))).update_bytes(done);
    };
    let restored = restore(&destination, at, args.choice.store_id(), &args.db, &mut progress).await?;
    drop(bar);
    write_one(stdout(), session.style, COLUMNS, &restored)?;
    if session.is_table() {
        note(&format!("to serve this store, run: silkrate serve --db {}", clean(&args.db.display().to_string())));
    }
    Ok(Outcome::Done)
}

const COLUMNS: &[Column<Restored>] = &[
    Column::new("sequence", "sequence", |row| Value::Count(row.commit.sequence)),
    Column::new("recorded_time", "recorded", |row| Value::time(Some(&timestamp(row.commit.recorded_time)))),
    Column::new("backup_sequence", "from backup", |row| Value::Count(row.manifest.sequence)),
    Column::new("replayed_count", "replayed commits", |row| Value::Count(row.replayed_count)),
    Column::new("series_count", "series", |row| Value::Count(row.manifest.series_count)),
    Column::new("block_count", "blocks", |row| Value::Count(row.manifest.block_count)),
    Column::data("content_sha256", |row| Value::text(&row.manifest.content_sha256)),
];
