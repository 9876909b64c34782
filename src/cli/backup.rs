//! `backup`: copies the store of a running server to a directory or a bucket, and lists and verifies backups.
//!
//! **Invariant**: after a failure or a signal, the destination has the backups that it had before.

use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::time::sleep;
use tonic::Request;

use super::client::Client;
use super::error::{ErrorKind, Problem};
use super::ingest::Progress;
use super::output::{Column, RowWriter, write_one};
use super::text::clean;
use super::time_argument::TimeArgument;
use super::value::Value;
use super::{CliError, Outcome, Session, note, stdout};
use crate::backoff::Backoff;
use crate::backup::{
    At, BackupError, Catalog, Destination, Keep, KeepError, Location, LocationError, Manifest, Piece, Pruned, StoreId,
    Verified, Writer, Written, messages, prune, verify,
};
use crate::clock::{Clock as _, SystemClock};
use crate::proto::convert::timestamp;

/// Largest number of consecutive streams that break before a block is written.
const IDLE_STREAMS_MAX: u32 = 4;
/// The wait before a stream is continued.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(5) };

const EXAMPLES: &str = "\
Examples:
  silkrate backup /mnt/backup/silkrate
  silkrate backup s3://rates/silkrate --keep 24h,30d,12mo
  silkrate backup list s3://rates/silkrate
  silkrate backup verify /mnt/backup/silkrate

A backup is one commit of the store. The server goes on meanwhile. The first
backup has all blocks; later ones in the same place have only the new blocks and
use the earlier ones. If the command is interrupted, run it again.

A bucket needs AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and for
another store than AWS AWS_ENDPOINT_URL; AWS_ALLOW_HTTP=true allows one without
TLS.

--keep deletes backups: of each of the last 24 hours that have one it keeps the
newest, likewise of each of the last 30 days and 12 months (h, d, w, mo, y; UTC).
Without it nothing is deleted. A directory with the name of a subcommand is
written as ./list.";

/// Arguments of `backup`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct BackupArgs {
    #[command(subcommand)]
    command: Option<BackupCommand>,
    /// Directory, or `s3://bucket/prefix`; it is created if it does not exist
    #[arg(value_name = "TO", required = true, value_parser = parse_location)]
    to: Option<Location>,
    /// Delete backups that this rule does not keep, such as 24h,30d,12mo
    #[arg(long, value_name = "RULE", value_parser = parse_keep)]
    keep: Option<Keep>,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// List backups
    List(ListArgs),
    /// Read all objects of backups, and check all that a restore checks
    Verify(VerifyArgs),
}

/// Arguments of `backup list`.
#[derive(Debug, Args)]
struct ListArgs {
    /// Directory, or `s3://bucket/prefix`
    #[arg(value_name = "FROM", value_parser = parse_location)]
    from: Location,
}

/// Arguments of `backup verify`.
#[derive(Debug, Args)]
struct VerifyArgs {
    /// Directory, or `s3://bucket/prefix`
    #[arg(value_name = "FROM", value_parser = parse_location)]
    from: Location,
    #[command(flatten)]
    choice: ChoiceArgs,
}

/// The choice of a backup.
#[derive(Debug, Args)]
pub(super) struct ChoiceArgs {
    /// Sequence of the commit, or time: then the newest commit at that time
    #[arg(long, value_name = "SEQUENCE|TIME", allow_hyphen_values = true)]
    at: Option<AtArgument>,
    /// Id of the store, as shown by silkrate backup list; default the store that was backed up last
    #[arg(long, value_name = "ID")]
    store_id: Option<StoreId>,
}

/// A sequence or a time.
#[derive(Clone, Copy, Debug)]
enum AtArgument {
    Sequence(u64),
    Time(TimeArgument),
}

impl std::str::FromStr for AtArgument {
    type Err = super::time_argument::TimeArgumentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(sequence) => Ok(Self::Sequence(sequence)),
            Err(_) => text.parse().map(Self::Time),
        }
    }
}

impl ChoiceArgs {
    pub(super) fn at(&self, session: &Session) -> Result<Option<At>, CliError> {
        Ok(match self.at {
            None => None,
            Some(AtArgument::Sequence(sequence)) => Some(At::Sequence(sequence)),
            Some(AtArgument::Time(time)) => Some(At::Time(time.resolve(session.style.now)?)),
        })
    }

    pub(super) fn store_id(&self) -> Option<StoreId> {
        self.store_id
    }
}

pub(super) fn parse_location(text: &str) -> Result<Location, LocationError> {
    Location::parse(text)
}

fn parse_keep(text: &str) -> Result<Keep, KeepError> {
    text.parse()
}

impl From<BackupError> for CliError {
    fn from(problem: BackupError) -> Self {
        let kind = match &problem {
            BackupError::NoBackup(_) | BackupError::NotCovered { .. } => ErrorKind::NotFound,
            BackupError::Object { .. } | BackupError::Bucket { .. } => ErrorKind::Io,
            BackupError::Rebuild(_) => ErrorKind::Refused,
            BackupError::Missing { .. }
            | BackupError::Damaged { .. }
            | BackupError::NewerFormat { .. }
            | BackupError::Removed { .. }
            | BackupError::Pieces(_)
            | BackupError::Records(_)
            | BackupError::Store(_)
            | BackupError::Point(_)
            | BackupError::Task(_) => ErrorKind::Internal,
        };
        Self::new(kind, problem)
    }
}

pub(super) async fn run(args: BackupArgs, session: &Session) -> Result<Outcome, CliError> {
    match (args.command, args.to) {
        (Some(BackupCommand::List(args)), _) => list(args, session).await,
        (Some(BackupCommand::Verify(args)), _) => check(args, session).await,
        (None, Some(to)) => create(to, args.keep, session).await,
        // clap requires one of both.
        (None, None) => Err(Problem::Protocol("no destination").into()),
    }
}

async fn create(to: Location, keep: Option<Keep>, session: &Session) -> Result<Outcome, CliError> {
    let destination = Destination::open(to)?;
    let client = session.connect().await?;
    let mut writer = Writer::begin(destination.clone(), session.style.now).await?;
    let mut idle_streams = 0;
    // The server ends a stream that is not read for 20 s, for example because the destination is slow.
    while let Err(error) = receive(&client, &mut writer).await {
        idle_streams = if writer.resume().await? { 0 } else { idle_streams + 1 };
        if error.is_permanent() || idle_streams == IDLE_STREAMS_MAX {
            return Err(error);
        }
        note(&format!("the stream of the backup broke and is continued: {error}"));
        sleep(BACKOFF.wait_after(idle_streams)).await;
    }
    let written = writer.finish().await?;
    let pruned = match &keep {
        Some(keep) => prune(&destination, keep, SystemClock.now()).await?,
        None => Pruned::default(),
    };
    let target = destination.location().to_string();
    write_one(stdout(), session.style, CREATED, &Created { target, written, pruned })?;
    Ok(Outcome::Done)
}

/// Receives a stream of pieces up to its end.
async fn receive(client: &Client, writer: &mut Writer) -> Result<(), CliError> {
    let request = messages::request(&writer.bases());
    // No deadline for the whole stream, because a store may be large; the timeout applies to each message.
    let mut stream = client.answer(client.backups().stream_backup(Request::new(request))).await?;
    let mut bar: Option<Progress> = None;
    let mut received = 0;
    while let Some(message) = client.with_timeout(stream.message()).await? {
        let piece = Piece::try_from(message)?;
        match &piece {
            Piece::Header(header) => bar = Some(Progress::new(Some(header.block_bytes))),
            Piece::Blocks(blocks) => received += blocks.iter().map(|block| block.columns.len() as u64).sum::<u64>(),
            Piece::Records(_) | Piece::End(_) => {}
        }
        if let Some(bar) = &bar {
            bar.update_bytes(received);
        }
        writer.accept(piece).await?;
    }
    Ok(())
}

struct Created {
    target: String,
    written: Written,
    pruned: Pruned,
}

const CREATED: &[Column<Created>] = &[
    Column::new("target", "target", |row| Value::text(&row.target)),
    Column::new("sequence", "sequence", |row| Value::Count(row.written.manifest.sequence)),
    Column::new("recorded_time", "recorded", |row| Value::time(Some(&timestamp(row.written.manifest.recorded_time)))),
    Column::new("base_sequence", "base", |row| row.written.manifest.base_sequence.map_or(Value::Absent, Value::Count)),
    Column::new("sent_block_count", "new blocks", |row| Value::Count(row.written.sent_blocks)),
    Column::new("sent_byte_count", "new bytes", |row| Value::Count(row.written.manifest.sent_bytes)),
    Column::new("block_count", "blocks", |row| Value::Count(row.written.manifest.block_count)),
    Column::new("deleted_backup_count", "deleted backups", |row| Value::Count(row.pruned.backup_count)),
    Column::new("deleted_object_count", "deleted objects", |row| Value::Count(row.pruned.object_count)),
];

async fn list(args: ListArgs, session: &Session) -> Result<Outcome, CliError> {
    let destination = Destination::open(args.from)?;
    let catalog = Catalog::read(&destination).await?;
    for error in catalog.unreadable() {
        note(&format!("warning: {}", clean(&error.to_string())));
    }
    if catalog.backups().is_empty() {
        return Err(BackupError::NoBackup(destination.location().to_string()).into());
    }
    let mut writer = RowWriter::new(stdout(), session.style, LISTED)?;
    for manifest in catalog.backups() {
        writer.row(manifest)?;
    }
    writer.finish()?;
    Ok(Outcome::Done)
}

const LISTED: &[Column<Manifest>] = &[
    Column::new("taken_time", "taken", |row| Value::time(Some(&timestamp(row.taken_time)))),
    Column::new("sequence", "sequence", |row| Value::Count(row.sequence)),
    Column::new("recorded_time", "recorded", |row| Value::time(Some(&timestamp(row.recorded_time)))),
    Column::new("store_id", "store id", |row| Value::text(&row.store_id.to_string())),
    Column::new("base_sequence", "base", |row| row.base_sequence.map_or(Value::Absent, Value::Count)),
    Column::new("block_count", "blocks", |row| Value::Count(row.block_count)),
    Column::new("object_count", "objects", |row| Value::Count(row.object_count())),
    Column::new("byte_count", "bytes", |row| Value::Count(row.total_bytes())),
    Column::new("sent_byte_count", "new bytes", |row| Value::Count(row.sent_bytes)),
    Column::data("content_sha256", |row| Value::text(&row.content_sha256)),
];

async fn check(args: VerifyArgs, session: &Session) -> Result<Outcome, CliError> {
    let destination = Destination::open(args.from)?;
    let bar = std::sync::Mutex::new(None::<Progress>);
    let mut progress = |done: u64, total: u64| {
        let mut bar = bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        bar.get_or_insert_with(|| Progress::new(Some(total))).update_bytes(done);
    };
    let verified = verify(&destination, args.choice.at(session)?, args.choice.store_id(), &mut progress).await?;
    drop(bar);
    write_one(stdout(), session.style, VERIFIED, &verified)?;
    if session.is_table() {
        for problem in &verified.problems {
            note(&format!("problem: {}", clean(&problem.to_string())));
        }
    }
    Ok(if verified.problems.is_empty() { Outcome::Done } else { Outcome::Failed })
}

const VERIFIED: &[Column<Verified>] = &[
    Column::new("backup_count", "backups", |row| Value::Count(row.backup_count)),
    Column::new("object_count", "objects", |row| Value::Count(row.object_count)),
    Column::new("byte_count", "bytes", |row| Value::Count(row.byte_count)),
    Column::new("block_count", "blocks", |row| Value::Count(row.block_count)),
    Column::table("problems", |row| Value::Count(row.problems.len() as u64)),
    Column::data("problems", |row| {
        Value::List(row.problems.iter().map(|problem| Value::text(&problem.to_string())).collect())
    }),
];
