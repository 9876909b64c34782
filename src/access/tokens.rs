//! Tokens: secrets, the file that lists them by their SHA-256, and the table that finds the token of a secret.
//!
//! The file is JSON: `{"version":1,"tokens":[{"name":..,"role":..,"sha256":..,...}]}`. The command `silkrate token`
//! writes it, and a server reads it again when its content changes.
//!
//! **Invariants**: the file has no secret, and no secret can be computed from it, because a secret has 256 random bits.
//! A file is accepted as a whole or refused as a whole. Hashes are compared in constant time.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

use super::{Grants, Identity, Refusal, Role, Who};
use crate::domain::{Source, Timestamp, truncate_for_display};

/// Number of tokens in a file. Each call compares its secret with all of them.
pub const TOKENS_MAX: usize = 1_000;
/// Size of a file of tokens.
pub const TOKEN_FILE_BYTES_MAX: usize = 1 << 20;
/// Length of the name of a token.
pub const TOKEN_NAME_CHARS_MAX: usize = 64;
/// Length of a secret, with its prefix. A longer text is no secret of this server.
pub const SECRET_CHARS_MAX: usize = 128;
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;
/// The beginning of every secret, by which people and scanners recognise it.
const SECRET_PREFIX: &str = "silkrate_";
/// The version of the format.
const VERSION: u32 = 1;
/// Permission bit of files that every user may write.
const WRITABLE_BY_OTHERS: u32 = 0o002;

/// The text of a token. `Debug` does not show it.
#[derive(Clone)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Creates a secret of 256 random bits.
    ///
    /// # Errors
    /// The error of the random generator of the operating system.
    pub fn generate() -> io::Result<Self> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::from)?;
        Ok(Self(format!("{SECRET_PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))))
    }

    /// Reads a secret from a file or a variable, without the white space around it; `None` if the text cannot be a
    /// secret.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_valid =
            !text.is_empty() && text.len() <= SECRET_CHARS_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_valid.then(|| Self(text.to_owned()))
    }

    /// Returns the text, to be sent or shown once.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns the SHA-256 of the text.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

/// Why a name, or a combination of role, sources and `revise`, is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The name is not valid.
    #[error("'{}' is not a name of a token; use 1 to {TOKEN_NAME_CHARS_MAX} letters, digits and . _ - @", truncate_for_display(.0))]
    Name(String),
    /// Sources or `revise` for a role other than `ingest`.
    #[error("the role '{0}' has no sources and no revise; both belong to the role 'ingest'")]
    NotIngest(Role),
    /// An empty list of sources.
    #[error("the list of sources is empty; name at least one source, or leave the list out for any source")]
    NoSource,
}

/// One token of the file, without its secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRecord {
    name: String,
    grants: Grants,
    sha256: [u8; 32],
    created_time: Timestamp,
    expires_time: Option<Timestamp>,
}

impl TokenRecord {
    /// Creates a record for a new token.
    ///
    /// # Errors
    /// [`RecordError`] if the name or the grants are not valid.
    pub fn new(
        name: &str,
        grants: Grants,
        sha256: [u8; 32],
        created_time: Timestamp,
        expires_time: Option<Timestamp>,
    ) -> Result<Self, RecordError> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
        if name.is_empty() || name.len() > TOKEN_NAME_CHARS_MAX || !name.bytes().all(is_valid) {
            return Err(RecordError::Name(name.to_owned()));
        }
        check_grants(&grants)?;
        Ok(Self { name: name.to_owned(), grants, sha256, created_time, expires_time })
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what the token grants.
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// Returns when the token was created.
    pub fn created_time(&self) -> Timestamp {
        self.created_time
    }

    /// Returns the time from which on the token is refused; `None` if it never expires.
    pub fn expires_time(&self) -> Option<Timestamp> {
        self.expires_time
    }

    /// Returns true if the token is refused at `now` because of its age.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_time.is_some_and(|expires| expires <= now)
    }
}

/// Checks that only the role `ingest` has sources or `revise`.
///
/// # Errors
/// `NotIngest` or `NoSource`.
pub fn check_grants(grants: &Grants) -> Result<(), RecordError> {
    if grants.role != Role::Ingest && (grants.sources.is_some() || grants.revise) {
        return Err(RecordError::NotIngest(grants.role));
    }
    if grants.sources.as_ref().is_some_and(BTreeSet::is_empty) {
        return Err(RecordError::NoSource);
    }
    Ok(())
}

/// Why a file of tokens cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("cannot read the tokens in {}: {problem}; create the file with 'silkrate token create --tokens {}'", path.display(), path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        problem: String,
    },
    /// Every user of the machine may write the file.
    #[error("{} may be written by every user of this machine, who could add tokens; run 'chmod 600 {}'", path.display(), path.display())]
    Writable {
        /// The path of the file.
        path: PathBuf,
    },
    /// The file is too large.
    #[error("{} has more than {TOKEN_FILE_BYTES_MAX} bytes, the limit of a file of tokens; give --tokens the right file", path.display())]
    TooLong {
        /// The path of the file.
        path: PathBuf,
    },
    /// The content is not a list of tokens.
    #[error("{} is not a valid file of tokens: {problem}; restore the file, or change it with 'silkrate token'", path.display())]
    Content {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong. It never shows a value of the file.
        problem: String,
    },
}

/// The JSON of a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    tokens: Vec<Entry>,
}

/// The JSON of a token.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    role: Role,
    /// 64 hexadecimal digits.
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sources: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    revise: bool,
    created_time: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_time: Option<String>,
}

/// A file of tokens, as it was last read.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: PathBuf,
    records: Vec<TokenRecord>,
    /// The result of the last read, valid or not, so that a change is noticed once.
    seen: Result<Vec<u8>, TokenFileError>,
}

impl TokenFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`TokenFileError`] if the file cannot be read or is not valid.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let bytes = read_bytes(path)?;
        let records = parse(path, &bytes)?;
        Ok(Self { path: path.to_owned(), records, seen: Ok(bytes) })
    }

    /// Reads the file again. Returns true if its tokens were replaced.
    ///
    /// # Errors
    /// [`TokenFileError`] if the file changed and cannot be used. The tokens stay as they were, and the same error is
    /// returned once.
    pub fn reload(&mut self) -> Result<bool, TokenFileError> {
        let seen = read_bytes(&self.path);
        if seen == self.seen {
            return Ok(false);
        }
        self.seen = seen;
        let bytes = self.seen.as_ref().map_err(Clone::clone)?;
        self.records = parse(&self.path, bytes)?;
        Ok(true)
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the tokens, in the order of the file.
    pub fn records(&self) -> &[TokenRecord] {
        &self.records
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, TokenFileError> {
    let failed = |problem: io::Error| TokenFileError::Read { path: path.to_owned(), problem: problem.to_string() };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.permissions().mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(TokenFileError::Writable { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(TOKEN_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > TOKEN_FILE_BYTES_MAX {
        return Err(TokenFileError::TooLong { path: path.to_owned() });
    }
    Ok(bytes)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<TokenRecord>, TokenFileError> {
    let invalid = |problem: String| TokenFileError::Content { path: path.to_owned(), problem };
    let document: Document = serde_json::from_slice(bytes).map_err(|error| {
        // The message of serde may quote a value. A file that was given by mistake may contain a secret.
        let (line, column) = (error.line(), error.column());
        invalid(format!("line {line}, column {column} has no valid JSON, or an unknown or missing field"))
    })?;
    if document.version != VERSION {
        return Err(invalid(format!("its version is {}, and this program reads version {VERSION}", document.version)));
    }
    if document.tokens.len() > TOKENS_MAX {
        return Err(invalid(format!("it has {} tokens, and the limit is {TOKENS_MAX}", document.tokens.len())));
    }
    let mut names = BTreeSet::new();
    let mut records = Vec::with_capacity(document.tokens.len());
    for (at, entry) in document.tokens.into_iter().enumerate() {
        let record = record(entry).map_err(|problem| invalid(format!("token {}: {problem}", at + 1)))?;
        if !names.insert(record.name.clone()) {
            return Err(invalid(format!("the name '{}' is used twice", record.name)));
        }
        records.push(record);
    }
    Ok(records)
}

fn record(entry: Entry) -> Result<TokenRecord, String> {
    let time = |text: &str| Timestamp::parse_rfc3339(text).map_err(|_| "a time is not in RFC 3339".to_owned());
    let sources = entry
        .sources
        .map(|sources| sources.iter().map(|source| Source::parse(source).map_err(|error| error.to_string())).collect());
    let grants = Grants { role: entry.role, sources: sources.transpose()?, revise: entry.revise };
    let sha256 = HEXLOWER_PERMISSIVE.decode(entry.sha256.as_bytes()).ok().and_then(|hash| hash.try_into().ok());
    let sha256 = sha256.ok_or_else(|| "sha256 is not 64 hexadecimal digits".to_owned())?;
    let expires_time = entry.expires_time.as_deref().map(time).transpose()?;
    TokenRecord::new(&entry.name, grants, sha256, time(&entry.created_time)?, expires_time)
        .map_err(|error| error.to_string())
}

/// Returns the content of a file with these tokens.
///
/// # Errors
/// The error of the JSON encoder, which does not occur for these types.
pub fn encode(records: &[TokenRecord]) -> Result<Vec<u8>, serde_json::Error> {
    let entry = |record: &TokenRecord| Entry {
        name: record.name.clone(),
        role: record.grants.role,
        sha256: HEXLOWER.encode(&record.sha256),
        sources: record.grants.sources.as_ref().map(|sources| sources.iter().map(Source::to_string).collect()),
        revise: record.grants.revise,
        created_time: record.created_time.to_string(),
        expires_time: record.expires_time.map(|time| time.to_string()),
    };
    let document = Document { version: VERSION, tokens: records.iter().map(entry).collect() };
    let mut bytes = serde_json::to_vec_pretty(&document)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// The tokens in force, each with its identity.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<(TokenRecord, Arc<Identity>)>);

impl Table {
    /// Creates the table of `records`. A token that `old` has unchanged keeps its identity.
    pub(super) fn new(records: &[TokenRecord], old: &Self) -> Self {
        let identity = |record: &TokenRecord| {
            let kept = old.0.iter().find(|(other, identity)| other == record && !identity.ended.is_cancelled());
            let new = || Identity::new(Who::Token(record.name.clone()), Some(record.grants.clone()));
            (record.clone(), kept.map_or_else(new, |(_, identity)| Arc::clone(identity)))
        };
        Self(records.iter().map(identity).collect())
    }

    /// Returns the identity of a secret. The time of the search does not depend on the secret.
    pub(super) fn find(&self, secret: &str, now: Timestamp) -> Result<Arc<Identity>, Refusal> {
        if secret.len() > SECRET_CHARS_MAX {
            return Err(Refusal::UnknownToken);
        }
        let hash: [u8; 32] = Sha256::digest(secret).into();
        let mut found = None;
        for entry in &self.0 {
            if bool::from(entry.0.sha256.ct_eq(&hash)) {
                found = Some(entry);
            }
        }
        let (record, identity) = found.ok_or(Refusal::UnknownToken)?;
        if record.is_expired(now) {
            return Err(Refusal::Expired { name: record.name.clone() });
        }
        Ok(Arc::clone(identity))
    }

    /// Ends the calls of tokens that have expired at `now`.
    pub(super) fn end_expired(&self, now: Timestamp) {
        self.0.iter().filter(|(record, _)| record.is_expired(now)).for_each(|(_, identity)| identity.ended.cancel());
    }

    /// Ends the calls of identities that `new` does not have.
    pub(super) fn end_missing(&self, new: &Self) {
        let is_missing = |identity: &Arc<Identity>| !new.0.iter().any(|(_, other)| Arc::ptr_eq(other, identity));
        self.0.iter().filter(|(_, identity)| is_missing(identity)).for_each(|(_, identity)| identity.ended.cancel());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(day: i64) -> Timestamp {
        Timestamp::from_micros(1_765_195_200_000_000 + day * Timestamp::DAY_US)
    }

    fn new_record(name: &str, grants: Grants, secret: &Secret, expires: Option<Timestamp>) -> TokenRecord {
        TokenRecord::new(name, grants, secret.sha256(), time(0), expires).unwrap()
    }

    #[test]
    fn secret_has_256_random_bits_and_is_not_shown() {
        let [one, other] = [Secret::generate().unwrap(), Secret::generate().unwrap()];
        assert_ne!(one.expose(), other.expose());
        let random = one.expose().strip_prefix(SECRET_PREFIX).unwrap();
        assert_eq!(BASE64URL_NOPAD.decode(random.as_bytes()).unwrap().len(), SECRET_BYTES);
        assert_eq!(format!("{one:?}"), "Secret(..)");
        let parsed = Secret::parse(&format!(" {}\n", one.expose())).unwrap();
        assert_eq!(parsed.sha256(), one.sha256());
        for bad in ["", " ", "a b", "ü", &"x".repeat(129)] {
            assert!(Secret::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn file_keeps_every_field_and_no_secret() {
        let secret = Secret::generate().unwrap();
        let sources = Some([Source::parse("nbkr").unwrap()].into());
        let ingest = Grants { role: Role::Ingest, sources, revise: true };
        let records = [
            new_record("feeder", ingest, &secret, Some(time(90))),
            new_record("root", Grants { revise: false, ..Grants::ALL }, &Secret::generate().unwrap(), None),
        ];
        let bytes = encode(&records).unwrap();
        assert_eq!(parse(Path::new("tokens"), &bytes).unwrap(), records);
        assert!(!String::from_utf8(bytes).unwrap().contains(secret.expose()));
    }

    #[test]
    fn invalid_file_is_refused_without_its_values() {
        let hash = "a".repeat(64);
        let token = |fields: &str| {
            format!(
                r#"{{"version":1,"tokens":[{{"name":"a","role":"read","sha256":"{hash}","created_time":"2025-12-08T00:00:00Z"{fields}}}]}}"#
            )
        };
        let check = |text: &str, expect: Result<(), &str>| match (parse(Path::new("t"), text.as_bytes()), expect) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(part)) => {
                let shown = error.to_string();
                assert!(shown.contains(part) && !shown.contains("hunter2"), "{text}: {shown}");
            }
            (found, _) => panic!("{text}: {found:?}"),
        };
        check(&token(""), Ok(()));
        check(r#"{"version":1,"tokens":[]}"#, Ok(()));
        check("", Err("line 1"));
        check("hunter2", Err("no valid JSON"));
        check(&token(r#","password":"hunter2""#), Err("line 1"));
        check(r#"{"version":2,"tokens":[]}"#, Err("its version is 2"));
        check(&token(r#","sources":["nbkr"]"#), Err("token 1: the role 'read' has no sources"));
        check(&token(r#","revise":true"#), Err("the role 'read' has no sources and no revise"));
        check(&token(r#","expires_time":"hunter2""#), Err("a time is not in RFC 3339"));
        check(&token("").replace(&hash, "hunter2"), Err("sha256 is not 64 hexadecimal digits"));
        check(&token("").replace(r#""name":"a""#, r#""name":"a b""#), Err("is not a name of a token"));
        check(
            &token("").replace(r#""role":"read""#, r#""role":"ingest","sources":[]"#),
            Err("the list of sources is empty"),
        );
        let entry = token("");
        let entry = entry.split_once('[').unwrap().1.strip_suffix("]}").unwrap();
        check(&format!(r#"{{"version":1,"tokens":[{entry},{entry}]}}"#), Err("the name 'a' is used twice"));
    }

    #[test]
    fn table_finds_token_by_secret_until_it_expires_or_is_missing() {
        let [secret, other] = [Secret::generate().unwrap(), Secret::generate().unwrap()];
        let read = Grants { role: Role::Read, sources: None, revise: false };
        let records = [new_record("a", read.clone(), &secret, Some(time(1))), new_record("b", read, &other, None)];
        let table = Table::new(&records, &Table::default());
        let found = table.find(secret.expose(), time(0)).unwrap();
        assert_eq!(found.who().name(), "a");
        assert_eq!(table.find("silkrate_x", time(0)).unwrap_err(), Refusal::UnknownToken);
        assert_eq!(table.find(&"x".repeat(200), time(0)).unwrap_err(), Refusal::UnknownToken);
        assert_eq!(table.find(secret.expose(), time(1)).unwrap_err(), Refusal::Expired { name: "a".to_owned() });
        let kept = table.find(other.expose(), time(1)).unwrap();
        let newer = Table::new(&records[1..], &table);
        table.end_missing(&newer);
        assert!(found.ended.is_cancelled() && !kept.ended.is_cancelled());
        assert!(
            Arc::ptr_eq(&kept, &newer.find(other.expose(), time(1)).unwrap()),
            "an unchanged token keeps its calls"
        );
    }
}
