//! Access: who a client is, what it may do, and why a call is refused.
//!
//! A client is known by a token ([`tokens`]) or by the subject of its TLS certificate. [`needs`] states what each call
//! needs. The protocols ask [`Access::authorize`] before a call reaches its handler, and handlers of changes ask the
//! [`Principal`] for permission by source.
//!
//! **Invariants**: a secret is kept only as its SHA-256, and no error, log line or metric contains a secret. A call that
//! [`needs`] does not list is refused. A refusal says what is needed.

mod call_rate;
pub mod needs;
mod refusal;
pub mod tokens;

pub use refusal::Refusal;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use http::Extensions;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::callers::network;
use crate::clock::Clock;
use crate::domain::Source;
use crate::metrics::AccessMetrics;
use call_rate::{AddressRates, CallRate, ClientRate};
use needs::Need;
use tokens::{Table, TokenFile, TokenFileError};

/// What a client may do. A role includes the roles before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// All reads: rates, watches, exports, metrics and the page.
    Read,
    /// Reads, and storing ticks.
    Ingest,
    /// Everything: also decisions about held ticks, and archiving of sources.
    Admin,
}

impl Role {
    /// All roles, the weakest first.
    pub const ALL: [Self; 3] = [Self::Read, Self::Ingest, Self::Admin];

    /// Returns the name, as in flags and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Ingest => "ingest",
            Self::Admin => "admin",
        }
    }

    /// Parses the name of a role.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a token or a certificate grants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grants {
    /// The role.
    pub role: Role,
    /// The sources whose ticks the client may send; `None` for any source. Only the role `ingest` has a list.
    pub sources: Option<BTreeSet<Source>>,
    /// Whether the client may replace stored rates (conflict policy `REVISE`). The role `admin` always may.
    pub revise: bool,
}

impl Grants {
    /// Grants everything.
    pub const ALL: Self = Self { role: Role::Admin, sources: None, revise: true };
}

/// The name by which the server knows a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Who {
    /// The client sent neither a token nor a certificate.
    Anonymous,
    /// The name of a token.
    Token(String),
    /// The subject of a client certificate, in the form of RFC 4514.
    Certificate(String),
}

impl Who {
    /// Returns the kind, as in the audit log.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Token(_) => "token",
            Self::Certificate(_) => "certificate",
        }
    }

    /// Returns the name of the token, the subject of the certificate, or `anonymous`.
    pub fn name(&self) -> &str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Token(name) | Self::Certificate(name) => name,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("a client without token and certificate"),
            Self::Token(name) => write!(f, "the token '{name}'"),
            Self::Certificate(subject) => write!(f, "the certificate '{subject}'"),
        }
    }
}

/// A client with what it may do.
#[derive(Debug)]
pub struct Identity {
    who: Who,
    /// `None`: the client may make only calls that need nothing.
    grants: Option<Grants>,
    /// The calls of this identity. Without credentials, calls are counted by address instead.
    calls: ClientRate,
    /// Cancelled when the token of this identity is revoked or changed, or expires.
    ended: CancellationToken,
}

impl Identity {
    fn new(who: Who, grants: Option<Grants>) -> Arc<Self> {
        Arc::new(Self { who, grants, calls: ClientRate::default(), ended: CancellationToken::new() })
    }

    /// Returns the name by which the server knows the client.
    pub fn who(&self) -> &Who {
        &self.who
    }

    /// Returns what ends with the token of this identity; `None` if the identity cannot end while the server runs.
    pub fn ended(&self) -> Option<&CancellationToken> {
        matches!(self.who, Who::Token(_)).then_some(&self.ended)
    }

    fn check_role(&self, role: Role) -> Result<(), Refusal> {
        let has = self.grants.as_ref().map(|grants| grants.role);
        if has >= Some(role) {
            return Ok(());
        }
        Err(match &self.who {
            Who::Anonymous => Refusal::Missing { role },
            who @ (Who::Token(_) | Who::Certificate(_)) => Refusal::Role { who: who.to_string(), has, role },
        })
    }
}

/// An authorised client and its address. Handlers find it in the extensions of a request.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The client.
    pub identity: Arc<Identity>,
    /// The address that the connection came from; `None` if it is unknown.
    pub address: Option<IpAddr>,
}

impl Principal {
    /// Returns the principal from the extensions of a request.
    ///
    /// # Errors
    /// `Missing` if no layer authorised the request.
    pub fn of(extensions: &Extensions) -> Result<Self, Refusal> {
        extensions.get::<Self>().cloned().ok_or(Refusal::Missing { role: Role::Admin })
    }

    /// Returns the client by which limits count: the token, the certificate, or without either the network of the
    /// address. Returns `None` if nothing is known.
    pub fn caller(&self) -> Option<Arc<str>> {
        match self.identity.who() {
            Who::Anonymous => self.address.map(|address| of_address(address).into()),
            who @ (Who::Token(_) | Who::Certificate(_)) => Some(who.to_string().into()),
        }
    }

    /// Checks that the credentials are still in force.
    ///
    /// # Errors
    /// `Ended` if they have been revoked or changed, or have expired.
    pub fn check_ended(&self) -> Result<(), Refusal> {
        let is_over = self.identity.ended().is_some_and(CancellationToken::is_cancelled);
        if is_over { Err(Refusal::Ended) } else { Ok(()) }
    }

    /// Checks that the client may send ticks of `sources`.
    ///
    /// # Errors
    /// `Source` with the first source that the client may not send.
    pub fn check_sources<'a>(&self, sources: impl IntoIterator<Item = &'a Source>) -> Result<(), Refusal> {
        self.identity.check_role(Role::Ingest)?;
        let Some(allowed) = self.identity.grants.as_ref().and_then(|grants| grants.sources.as_ref()) else {
            return Ok(());
        };
        match sources.into_iter().find(|source| !allowed.contains(source)) {
            None => Ok(()),
            Some(source) => Err(Refusal::Source {
                who: self.identity.who.to_string(),
                refused: source.to_string(),
                allowed: allowed.iter().map(Source::as_str).collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// Checks that the client may replace stored rates.
    ///
    /// # Errors
    /// `Revise` if it may not.
    pub fn check_revise(&self) -> Result<(), Refusal> {
        let may = |grants: &Grants| grants.revise || grants.role == Role::Admin;
        if self.identity.grants.as_ref().is_some_and(may) {
            return Ok(());
        }
        Err(Refusal::Revise { who: self.identity.who.to_string() })
    }
}

/// Names a client without credentials.
fn of_address(address: IpAddr) -> String {
    format!("the address {}", network(address))
}

/// The connection of a client.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The address that the connection came from.
    pub address: Option<IpAddr>,
    /// The subject of the verified client certificate, in the form of RFC 4514.
    pub subject: Option<Arc<str>>,
    /// Whether the connection is encrypted by TLS.
    pub is_tls: bool,
}

/// The credentials in the headers of a request.
#[derive(Clone, Copy)]
pub enum Presented<'a> {
    /// None.
    Nothing,
    /// A header that has another form than `Bearer TOKEN`.
    Malformed,
    /// The text of a token.
    Secret(&'a str),
}

impl<'a> Presented<'a> {
    /// Reads the value of the header `authorization`.
    pub fn from_header(value: Option<&'a [u8]>) -> Self {
        let Some(value) = value else { return Self::Nothing };
        let text = std::str::from_utf8(value).ok().and_then(|text| text.split_once(' '));
        match text {
            Some((scheme, secret)) if scheme.eq_ignore_ascii_case("bearer") => Self::Secret(secret.trim()),
            _ => Self::Malformed,
        }
    }
}

/// The settings of access.
#[derive(Clone, Debug, Default)]
pub struct AccessSettings {
    /// The file of tokens, already read.
    pub tokens: Option<TokenFile>,
    /// What the subjects of client certificates grant. Subjects have the form of RFC 4514.
    pub certificates: BTreeMap<String, Grants>,
    /// Whether reads need no credentials.
    pub public_read: bool,
    /// Maximum number of calls of one client in a second; `None` for no limit.
    pub client_calls_max: Option<u32>,
}

impl AccessSettings {
    /// Returns true if not every client may do everything.
    pub fn is_protected(&self) -> bool {
        self.tokens.is_some() || !self.certificates.is_empty() || self.public_read
    }
}

/// The access control of a server. Cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    clock: Arc<dyn Clock>,
    /// The file of tokens as of the last reload.
    file: Mutex<Option<TokenFile>>,
    table: ArcSwap<Table>,
    certificates: BTreeMap<String, Arc<Identity>>,
    anonymous: Arc<Identity>,
    is_open: bool,
    /// Calls with invalid credentials.
    failures: AddressRates,
    /// The limit of calls of one client, and the calls of clients without credentials.
    calls: Option<(u32, CallRate, AddressRates)>,
    metrics: AccessMetrics,
}

impl Access {
    /// Creates the access control. Without tokens, certificates and public reads, every client may do everything.
    pub fn new(settings: AccessSettings, clock: Arc<dyn Clock>, metrics: AccessMetrics) -> Self {
        let is_open = !settings.is_protected();
        let AccessSettings { tokens, certificates, public_read, client_calls_max } = settings;
        let read = Grants { role: Role::Read, sources: None, revise: false };
        let of_anonymous = if is_open { Some(Grants::ALL) } else { public_read.then_some(read) };
        let identity = |(subject, grants): (String, Grants)| {
            let identity = Identity::new(Who::Certificate(subject.clone()), Some(grants));
            (subject, identity)
        };
        let table = tokens.as_ref().map(|file| Table::new(file.records(), &Table::default())).unwrap_or_default();
        Self(Arc::new(Inner {
            clock,
            table: ArcSwap::from_pointee(table),
            file: Mutex::new(tokens),
            certificates: certificates.into_iter().map(identity).collect(),
            anonymous: Identity::new(Who::Anonymous, of_anonymous),
            is_open,
            failures: AddressRates::new(CallRate::FAILURES),
            calls: client_calls_max.map(|calls_max| {
                let rate = CallRate::per_second(calls_max);
                (calls_max, rate, AddressRates::new(rate))
            }),
            metrics,
        }))
    }

    /// Returns true if every client may do everything.
    pub fn is_open(&self) -> bool {
        self.0.is_open
    }

    /// Returns the principal of a call that needs `need`, for the client at `peer` with the credentials `presented`.
    ///
    /// # Errors
    /// The [`Refusal`] of the call, which is counted.
    pub fn authorize(&self, need: Option<Need>, peer: &Peer, presented: Presented<'_>) -> Result<Principal, Refusal> {
        let principal = |identity| Principal { identity, address: peer.address };
        let found = match need {
            None => Err(Refusal::Unlisted),
            Some(Need::Nothing) => return Ok(principal(Arc::clone(&self.0.anonymous))),
            Some(Need::Role(_)) if self.0.is_open => Ok(Arc::clone(&self.0.anonymous)),
            Some(Need::Role(role)) => self.identify(peer, presented).and_then(|identity| {
                identity.check_role(role)?;
                Ok(identity)
            }),
        };
        let counted = found.map_err(|refusal| self.limit(peer, refusal)).map(principal);
        counted.and_then(|principal| self.check_calls(principal)).map_err(|refusal| self.count(refusal))
    }

    /// Counts a refusal and returns it.
    pub fn count(&self, refusal: Refusal) -> Refusal {
        self.0.metrics.count_refusal(refusal.reason());
        refusal
    }

    /// Returns the identity of a client. A token takes precedence over a certificate.
    fn identify(&self, peer: &Peer, presented: Presented<'_>) -> Result<Arc<Identity>, Refusal> {
        match (presented, &peer.subject) {
            (Presented::Secret(secret), _) => self.0.table.load().find(secret, self.0.clock.now()),
            (Presented::Malformed, _) => Err(Refusal::Malformed),
            (Presented::Nothing, Some(subject)) => match self.0.certificates.get(&**subject) {
                Some(identity) => Ok(Arc::clone(identity)),
                None => Err(Refusal::UnknownSubject { subject: subject.to_string() }),
            },
            (Presented::Nothing, None) => Ok(Arc::clone(&self.0.anonymous)),
        }
    }

    /// Counts a call of an authorised client.
    fn check_calls(&self, principal: Principal) -> Result<Principal, Refusal> {
        let Some((calls_max, rate, of_addresses)) = &self.0.calls else { return Ok(principal) };
        let now = self.0.clock.now();
        let (who, address) = (principal.identity.who(), principal.address);
        let counted = match who {
            Who::Anonymous => of_addresses.record(address, now),
            Who::Token(_) | Who::Certificate(_) => principal.identity.calls.record(*rate, now),
        };
        let Err(retry_after) = counted else { return Ok(principal) };
        let who = principal.caller().map_or_else(|| who.to_string(), |caller| caller.to_string());
        Err(Refusal::TooManyCalls { who, calls_max: *calls_max, retry_after })
    }

    /// Returns `TooManyFailures` instead of `refusal` if too many invalid credentials came from the address.
    fn limit(&self, peer: &Peer, refusal: Refusal) -> Refusal {
        if !refusal.is_failed_attempt() {
            return refusal;
        }
        match self.0.failures.record(peer.address, self.0.clock.now()) {
            Ok(()) => refusal,
            Err(retry_after) => Refusal::TooManyFailures { retry_after },
        }
    }

    /// Reads the file of tokens again if it changed, and ends the calls of tokens that are revoked, changed or expired.
    /// An unreadable or invalid file changes nothing: the earlier tokens stay in force, and the error is logged once.
    /// Blocks the thread.
    pub fn reload(&self) {
        let now = self.0.clock.now();
        self.0.table.load().end_expired(now);
        let mut file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = file.as_mut() else { return };
        match file.reload() {
            Ok(false) => {}
            Ok(true) => {
                let old = self.0.table.load_full();
                let new = Arc::new(Table::new(file.records(), &old));
                self.0.table.store(Arc::clone(&new));
                old.end_missing(&new);
                self.0.metrics.count_reload("tokens", true);
                tracing::info!("read {} tokens from {}", file.records().len(), file.path().display());
            }
            Err(error) => self.log_reload_error(&error),
        }
    }

    fn log_reload_error(&self, error: &TokenFileError) {
        self.0.metrics.count_reload("tokens", false);
        tracing::error!("the changed tokens are not used, and the earlier tokens stay in force: {error}");
    }
}

#[cfg(test)]
mod tests;
