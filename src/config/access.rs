//! The settings of access: tokens, public reads, and the address on which a server may listen without them.
//!
//! **Invariant**: a server that other machines can reach has TLS and knows its clients, unless `--insecure` is given.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::ConfigError;
use super::value::{HttpListen, parse_switch};
use crate::access::tokens::TokenFile;
use crate::access::{AccessSettings, Grants};
use crate::tls::{Tls, TlsFiles};

/// The flags of access. The doc comments are their help texts.
#[derive(Clone, Debug, clap::Args)]
pub struct AccessArgs {
    /// File of the tokens that clients may use. The file has hashes and no secrets; 'silkrate token' changes it, and the
    /// server reads it again within 2 seconds. With this file, every call needs a token or a client certificate
    /// [default: none]
    #[arg(long, value_name = "FILE", env = "SILKRATE_TOKENS")]
    pub tokens: Option<PathBuf>,

    /// PEM file of the server's certificate, followed by the certificates of intermediate authorities. With it, both
    /// listeners speak only TLS 1.2 and 1.3. The server reads this file, --tls-key and --tls-client-ca again within 4
    /// seconds of a change [default: no TLS]
    #[arg(long, value_name = "FILE", env = "SILKRATE_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file of the private key of --tls-cert
    #[arg(long, value_name = "FILE", env = "SILKRATE_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// PEM file of the authorities that sign client certificates. The tables `certificates` of the configuration file
    /// state what each subject may do [default: no client certificates]
    #[arg(long, value_name = "FILE", env = "SILKRATE_TLS_CLIENT_CA", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,

    /// File to which the server appends a line of JSON for each change: who, what, from where, and the sequence. A file
    /// that was renamed is replaced by a new one [default: none]
    #[arg(long, value_name = "FILE", env = "SILKRATE_AUDIT_LOG")]
    pub audit_log: Option<PathBuf>,

    /// Allow reads without a token. Changes need a token or a client certificate
    #[arg(long, env = "SILKRATE_PUBLIC_READ", value_parser = parse_switch)]
    pub public_read: bool,

    /// Start on an address that other machines can reach although TLS or tokens are missing. Each start logs what is
    /// missing
    #[arg(long, env = "SILKRATE_INSECURE", value_parser = parse_switch)]
    pub insecure: bool,
}

/// What a server lacks on an address that other machines can reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Protection {
    pub(super) has_tls: bool,
    /// Whether the server tells clients apart, or allows reads only.
    pub(super) has_clients: bool,
}

const NO_TLS: &str = "there is no TLS, so rates and tokens cross the network in plain text";
const NO_CLIENTS: &str = "there are no tokens, so whoever reaches the port may change every rate";
const NO_EFFECT: &str = "nothing is missing, and the flag can be removed";

impl AccessArgs {
    /// Reads the file of tokens. `certificates` are the tables of the configuration file.
    pub(super) fn settings(&self, certificates: BTreeMap<String, Grants>) -> Result<AccessSettings, ConfigError> {
        match (&self.tls_client_ca, certificates.is_empty()) {
            (None, false) => return Err(ConfigError::CertificatesWithoutAuthority),
            (Some(path), true) => return Err(ConfigError::AuthorityWithoutCertificates(path.clone())),
            (None, true) | (Some(_), false) => {}
        }
        let tokens = self.tokens.as_deref().map(TokenFile::read).transpose()?;
        Ok(AccessSettings { tokens, certificates, public_read: self.public_read, ..AccessSettings::default() })
    }

    /// Reads the files of TLS.
    pub(super) fn tls(&self) -> Result<Option<Tls>, ConfigError> {
        // The parser has checked that both files or none are given.
        let (Some(certificate), Some(key)) = (self.tls_cert.clone(), self.tls_key.clone()) else { return Ok(None) };
        Ok(Some(Tls::read(TlsFiles { certificate, key, client_ca: self.tls_client_ca.clone() })?))
    }

    /// Checks that a server that other machines can reach is protected. Returns the risks to log at start.
    pub(super) fn check(
        &self,
        listen: SocketAddr,
        http_listen: HttpListen,
        protection: Protection,
    ) -> Result<Vec<&'static str>, ConfigError> {
        let http = match http_listen {
            HttpListen::Off => None,
            HttpListen::At(address) => Some(("--http-listen", address)),
        };
        let reachable = [Some(("--listen", listen)), http].into_iter().flatten();
        let exposed = reachable.into_iter().find(|(_, address)| !address.ip().to_canonical().is_loopback());
        let Protection { has_tls, has_clients } = protection;
        let (missing, remedy) = match (has_tls, has_clients) {
            (true, true) => ("", ""),
            (false, true) => ("TLS", "--tls-cert and --tls-key"),
            (true, false) => ("tokens", "--tokens ('silkrate token create' writes the file)"),
            (false, false) => {
                ("TLS and tokens", "--tls-cert, --tls-key and --tokens ('silkrate token create' writes the file)")
            }
        };
        match exposed {
            Some((flag, address)) if !missing.is_empty() && !self.insecure => {
                Err(ConfigError::Insecure { flag, address, missing, remedy })
            }
            Some(_) if self.insecure && !missing.is_empty() => Ok([(has_tls, NO_TLS), (has_clients, NO_CLIENTS)]
                .into_iter()
                .filter(|(has, _)| !has)
                .map(|(_, risk)| risk)
                .collect()),
            _ if self.insecure => Ok(vec![NO_EFFECT]),
            _ => Ok(Vec::new()),
        }
    }
}
