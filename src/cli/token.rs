//! `token create`, `token list` and `token revoke`: change the file of tokens of a server.
//!
//! **Invariant**: the secret of a token is printed once and stored nowhere. The file is replaced atomically, only its
//! owner may read it, and concurrent commands wait for each other.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use super::atomic_write::{AtomicWrite, parent};
use super::error::Problem;
use super::output::{Column, Format, write_one};
use super::pages::write_all;
use super::value::Value;
use super::{CliError, Outcome, Session, note, stdout};
use crate::access::tokens::{Secret, TOKENS_MAX, TokenFile, TokenFileError, TokenRecord, encode};
use crate::access::{Grants, Role};
use crate::domain::{Source, Timestamp, duration_us, parse_duration};
use crate::proto::convert::timestamp;

const EXAMPLES: &str = "\
Examples:
  silkrate token create --tokens tokens.json --role ingest --name feeder --sources timesca --expires 90d
  silkrate token list --tokens tokens.json
  silkrate token revoke feeder --tokens tokens.json

The file has the SHA-256 of each token, and a server with the same --tokens reads
it again within 2 seconds. A token is printed once: store it where the client
reads it, with --token-file or in the variable SILKRATE_TOKEN.

  read    all reads, watches, exports, metrics and the page
  ingest  also storing ticks, of --sources or of any source
  admin   also releasing and discarding held ticks, and archiving sources";

/// The permissions of the file: only its owner reads and writes it.
const FILE_MODE: u32 = 0o600;
/// The longest time until a token expires: ten years.
const EXPIRES_MAX: Duration = Duration::from_hours(3_660 * 24);

/// Arguments of `token`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Create a token, and print it once
    Create(CreateArgs),
    /// List the tokens, without their secrets
    List(FileArgs),
    /// Revoke a token: calls with it are refused, and its open streams end
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
struct FileArgs {
    /// File of the tokens, the same as of 'silkrate serve --tokens'
    #[arg(long, value_name = "FILE", env = "SILKRATE_TOKENS")]
    tokens: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct CreateArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Name of the token: letters, digits and . _ - @; lists and the audit log show it
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What the token allows; each role includes the roles before it
    #[arg(long, value_name = "ROLE", value_parser = clap::builder::PossibleValuesParser::new(Role::ALL.map(Role::name)))]
    role: String,
    /// Time until the token expires, from 1m to 3660d; default never
    #[arg(long, value_name = "DURATION",
          value_parser = |text: &str| parse_duration(text, Duration::from_mins(1), EXPIRES_MAX))]
    expires: Option<Duration>,
    /// Sources whose ticks an ingest token may send; default any source
    #[arg(long = "sources", alias = "source", value_name = "SLUG", value_delimiter = ',', value_parser = Source::parse)]
    sources: Vec<Source>,
    /// Allow an ingest token to replace stored rates (ingest --revise)
    #[arg(long)]
    revise: bool,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// Name of the token
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    file: FileArgs,
}

/// A token in the output. The secret is there only after its creation.
struct Row {
    record: TokenRecord,
    secret: Option<Secret>,
    now: Timestamp,
}

fn sources(row: &Row) -> String {
    let Grants { role, sources, .. } = row.record.grants();
    match (role, sources) {
        (Role::Read, _) => String::new(),
        (_, None) => "any".to_owned(),
        (_, Some(sources)) => sources.iter().map(Source::as_str).collect::<Vec<_>>().join(","),
    }
}

fn may_revise(row: &Row) -> bool {
    let grants = row.record.grants();
    grants.revise || matches!(grants.role, Role::Admin)
}

macro_rules! columns {
    ($($first:expr),*) => {
        &[
            $($first,)*
            Column::new("name", "name", |row: &Row| Value::text(row.record.name())),
            Column::new("role", "role", |row| Value::text(row.record.grants().role.name())),
            Column::new("sources", "sources", |row| Value::text(&sources(row))),
            Column::new("revise", "revise", |row| Value::Flag(may_revise(row))),
            Column::new("created_time", "created", |row| Value::time(Some(&timestamp(row.record.created_time())))),
            Column::new("expires_time", "expires", |row| {
                Value::time(row.record.expires_time().map(timestamp).as_ref())
            }),
            Column::new("expired", "expired", |row| Value::Flag(row.record.is_expired(row.now))),
        ]
    };
}

const COLUMNS: &[Column<Row>] = columns!();
const CREATED_COLUMNS: &[Column<Row>] =
    columns!(Column::data("token", |row: &Row| Value::text(row.secret.as_ref().map_or("", Secret::expose))));

/// Runs the command. It needs no server.
pub(super) fn run(args: TokenArgs, session: &Session) -> Result<Outcome, CliError> {
    match args.command {
        TokenCommand::Create(args) => create(args, session),
        TokenCommand::List(args) => list(&args.tokens, session),
        TokenCommand::Revoke(args) => revoke(&args),
    }
}

fn create(args: CreateArgs, session: &Session) -> Result<Outcome, CliError> {
    let path = args.file.tokens;
    let refuse = |problem: String| Problem::Tokens { path: path.clone(), problem };
    let now = session.style.now;
    let role = Role::parse(&args.role).ok_or_else(|| refuse("unknown role".to_owned()))?;
    let sources: Option<BTreeSet<Source>> = (!args.sources.is_empty()).then(|| args.sources.into_iter().collect());
    let grants = Grants { role, sources, revise: args.revise };
    let secret = Secret::generate().map_err(|error| refuse(format!("no random numbers: {error}")))?;
    let expires_time = args.expires.map(|time| now.saturating_add_us(duration_us(time)));
    let record = TokenRecord::new(&args.name, grants, secret.sha256(), now, expires_time)
        .map_err(|error| refuse(error.to_string()))?;
    change(&path, |records| {
        if records.iter().any(|other| other.name() == record.name()) {
            return Err(format!("a token named '{}' exists; revoke it first, or choose another name", record.name()));
        }
        if records.len() >= TOKENS_MAX {
            return Err(format!("it has {TOKENS_MAX} tokens, which is the limit; revoke one first"));
        }
        records.push(record.clone());
        Ok(())
    })?;
    let text = secret.expose().to_owned();
    let row = Row { record, secret: Some(secret), now };
    if session.style.format == Format::Table {
        writeln!(stdout(), "{text}")?;
        note(&format!("created the token '{}'; it is not shown again", row.record.name()));
    } else {
        write_one(stdout(), session.style, CREATED_COLUMNS, &row)?;
    }
    Ok(Outcome::Done)
}

fn list(path: &Path, session: &Session) -> Result<Outcome, CliError> {
    let file = TokenFile::read(path).map_err(|error| refused(path, &error))?;
    let now = session.style.now;
    let rows: Vec<Row> =
        file.records().iter().map(|record| Row { record: record.clone(), secret: None, now }).collect();
    write_all(session, COLUMNS, &rows)?;
    if session.is_table() && rows.is_empty() {
        note("no tokens");
    }
    Ok(Outcome::Done)
}

fn revoke(args: &RevokeArgs) -> Result<Outcome, CliError> {
    change(&args.file.tokens, |records| {
        let before = records.len();
        records.retain(|record| record.name() != args.name);
        if records.len() == before {
            let names: Vec<&str> = records.iter().map(TokenRecord::name).collect();
            return Err(format!(
                "no token is named '{}'; the names are: {}",
                args.name.escape_debug(),
                names.join(", ")
            ));
        }
        Ok(())
    })?;
    note(&format!("revoked the token '{}'; servers with this file refuse it within 2 seconds", args.name));
    Ok(Outcome::Done)
}

fn refused(path: &Path, error: &TokenFileError) -> Problem {
    Problem::Tokens { path: path.to_owned(), problem: error.to_string() }
}

/// Replaces the content of the file by the changed tokens. A file that does not exist has no tokens. Other commands
/// wait until this one is done.
fn change(path: &Path, edit: impl FnOnce(&mut Vec<TokenRecord>) -> Result<(), String>) -> Result<(), Problem> {
    let failed = |error: io::Error| Problem::Tokens { path: path.to_owned(), problem: error.to_string() };
    // A symbolic link stays, and the file behind it is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    // The lock of the directory, because the file itself is replaced.
    let directory = File::open(parent(&target)).map_err(failed)?;
    directory.lock().map_err(failed)?;
    let owner = fs::metadata(&target).ok();
    let mut records = match &owner {
        Some(_) => TokenFile::read(&target).map_err(|error| refused(path, &error))?.records().to_vec(),
        None => Vec::new(),
    };
    edit(&mut records).map_err(|problem| Problem::Tokens { path: path.to_owned(), problem })?;
    let bytes = encode(&records).map_err(|error| failed(error.into()))?;
    let (unfinished, mut file) = AtomicWrite::file_with_mode(&target, FILE_MODE).map_err(failed)?;
    file.write_all(&bytes).map_err(failed)?;
    if let Some(owner) = owner {
        // Root changes the file of the server, and the server must still be able to read it.
        fchown(&file, Some(owner.uid()), Some(owner.gid())).map_err(failed)?;
    }
    file.sync_all().map_err(failed)?;
    unfinished.finish(&target).map_err(failed)
}
