//! Access over real sockets: tokens, TLS, certificates, the start of unprotected servers, the audit log and the login.

mod audit;
mod certificates;
mod login;
mod program;
mod tls;
mod tokens;

pub(crate) use certificates::Authority;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use silkrate::access::tokens::{Secret, TokenRecord, encode};
use silkrate::access::{Grants, Role};
use silkrate::domain::{Source, Timestamp};
use tempfile::TempDir;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::support::NOW;

/// Far longer than the interval at which a server reads files again.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// A file of tokens.
pub(crate) struct Tokens {
    pub(super) dir: TempDir,
    records: Vec<TokenRecord>,
}

impl Tokens {
    pub(super) fn new() -> Self {
        let tokens = Self { dir: tempfile::tempdir().unwrap(), records: Vec::new() };
        tokens.save();
        tokens
    }

    /// A file with a token for each role; the names are those of the roles.
    pub(crate) fn of_roles() -> (Self, [String; 3]) {
        let mut tokens = Self::new();
        let secrets = Role::ALL.map(|role| tokens.add(role.name(), grants(role), None));
        (tokens, secrets)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("tokens.json")
    }

    /// Adds a token and returns its secret.
    pub(super) fn add(&mut self, name: &str, grants: Grants, expires: Option<Timestamp>) -> String {
        let secret = Secret::generate().unwrap();
        self.records.push(TokenRecord::new(name, grants, secret.sha256(), NOW, expires).unwrap());
        self.save();
        secret.expose().to_owned()
    }

    pub(super) fn revoke(&mut self, name: &str) {
        self.records.retain(|record| record.name() != name);
        self.save();
    }

    fn save(&self) {
        std::fs::write(self.path(), encode(&self.records).unwrap()).unwrap();
    }
}

pub(super) fn grants(role: Role) -> Grants {
    Grants { role, sources: None, revise: false }
}

pub(super) fn bound_to(source: &str) -> Grants {
    Grants { sources: Some([Source::parse(source).unwrap()].into()), ..grants(Role::Ingest) }
}

/// Adds a token to each call.
#[derive(Clone)]
pub(super) struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    pub(super) fn new(secret: &str) -> Self {
        Self(format!("Bearer {secret}").parse().unwrap())
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Waits until `check` returns true; the condition is checked often, so that a test takes no longer than needed.
pub(super) async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !check().await {
        assert!(begun.elapsed() < TIMEOUT, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
