//! The credentials of the client commands: the token, and the certificates of TLS.
//!
//! **Invariant**: no flag takes a secret as its value, since other users of a machine see the arguments of processes. No
//! message contains a token.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use thiserror::Error;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use tonic::{Request, Status};

use crate::access::tokens::Secret;

/// The variable with the token.
const TOKEN_VARIABLE: &str = "SILKRATE_TOKEN";

/// The flags of credentials. `serve` has flags of the same names for its own certificate.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct CredentialArgs {
    /// File with the token to send, as 'silkrate token create' prints it; default the variable `SILKRATE_TOKEN`
    #[arg(long, global = true, value_name = "FILE", env = "SILKRATE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the certificate authority that signed the certificate of the server; default the authorities that the
    /// system trusts
    #[arg(long, global = true, value_name = "FILE", env = "SILKRATE_TLS_CA")]
    tls_ca: Option<PathBuf>,
    /// PEM file of the certificate to show to the server, for mutual TLS
    #[arg(long, global = true, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file of the private key of --tls-cert
    #[arg(long, global = true, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Send the token without TLS to another machine, if the network protects it
    #[arg(long, global = true, env = "SILKRATE_ALLOW_PLAINTEXT_TOKEN",
          value_parser = clap::builder::BoolishValueParser::new())]
    allow_plaintext_token: bool,
}

/// Why credentials cannot be used.
#[derive(Debug, Error)]
pub(super) enum CredentialError {
    /// A file cannot be read.
    #[error("{flag} {}: cannot be read: {problem}; name a readable file", path.display())]
    Read {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The I/O error.
        problem: io::Error,
    },
    /// The text is not a token.
    #[error("{0} has no token; write the line into it that 'silkrate token create' printed")]
    NoToken(String),
    /// The files of TLS are not valid.
    #[error("the files of --tls-ca, --tls-cert and --tls-key cannot be used: {0}; name PEM files")]
    Tls(String),
    /// A flag of TLS without TLS.
    #[error("{0} is given, and the endpoint has no TLS; use an endpoint like https://rates.example.org:50051")]
    PlainText(&'static str),
    /// A token without TLS.
    #[error(
        "the token would cross the network to {0} in plain text; use an endpoint like https://rates.example.org:50051, \
         or --allow-plaintext-token if the network protects it"
    )]
    PlainToken(String),
}

impl CredentialArgs {
    /// Returns the token to send: of `--token-file`, else of `SILKRATE_TOKEN`.
    pub(super) fn bearer(&self) -> Result<Bearer, CredentialError> {
        let (place, text) = match &self.token_file {
            Some(path) => (format!("--token-file {}", path.display()), read("--token-file", path)?),
            None => match std::env::var_os(TOKEN_VARIABLE) {
                Some(text) => (TOKEN_VARIABLE.to_owned(), text.to_string_lossy().into_owned().into_bytes()),
                None => return Ok(Bearer(None)),
            },
        };
        let secret = std::str::from_utf8(&text).ok().and_then(Secret::parse);
        let value = secret.and_then(|secret| MetadataValue::try_from(format!("Bearer {}", secret.expose())).ok());
        let mut value = value.ok_or(CredentialError::NoToken(place))?;
        value.set_sensitive(true);
        Ok(Bearer(Some(value)))
    }

    /// Returns the settings of TLS.
    pub(super) fn tls(&self) -> Result<ClientTlsConfig, CredentialError> {
        let mut tls = match &self.tls_ca {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("--tls-ca", path)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            tls = tls.identity(Identity::from_pem(read("--tls-cert", certificate)?, read("--tls-key", key)?));
        }
        Ok(tls)
    }

    /// Checks that a connection without TLS needs none: no flag of TLS is given, and no token leaves the machine.
    pub(super) fn check_plain_text(&self, endpoint: &str, bearer: &Bearer) -> Result<(), CredentialError> {
        // `--tls-ca` has a variable, which applies to all endpoints.
        if self.tls_cert.is_some() {
            return Err(CredentialError::PlainText("--tls-cert"));
        }
        if bearer.0.is_some() && !self.allow_plaintext_token && !is_loopback(endpoint) {
            return Err(CredentialError::PlainToken(endpoint.to_owned()));
        }
        Ok(())
    }
}

/// Returns true if `endpoint`, as `http://host:port`, is on this machine.
fn is_loopback(endpoint: &str) -> bool {
    let host =
        endpoint.split_once("://").and_then(|(_, address)| address.rsplit_once(':')).map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, CredentialError> {
    fs::read(path).map_err(|problem| CredentialError::Read { flag, path: path.to_owned(), problem })
}

/// Adds the header `authorization` with the token, if there is one. `Debug` does not show it.
#[derive(Clone, Debug)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_without_tls_stays_on_this_machine() {
        let mut bearer = Bearer(Some("Bearer abc".parse().unwrap()));
        if let Some(value) = &mut bearer.0 {
            value.set_sensitive(true);
        }
        assert!(!format!("{bearer:?}").contains("abc"), "{bearer:?}");
        let check = |endpoint: &str, bearer: &Bearer, expect: bool| {
            let checked = CredentialArgs::default().check_plain_text(endpoint, bearer);
            assert_eq!(checked.is_ok(), expect, "{endpoint}: {checked:?}");
        };
        for local in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"] {
            check(local, &bearer, true);
        }
        for other in ["http://192.0.2.1:1", "http://localhost.example.org:1", "http://[2001:db8::1]:1"] {
            check(other, &bearer, false);
            check(other, &Bearer(None), true);
        }
    }
}
