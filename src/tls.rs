//! TLS of both listeners: certificates, their reload, client certificates, and the handshake.
//!
//! TLS 1.2 and 1.3 are supported. By ALPN, a client chooses HTTP/2 or HTTP/1.1.
//!
//! **Invariants**: files that cannot be used change nothing: the earlier certificate stays in force. A reload closes no
//! connection. A session is not resumed after a reload, so a client certificate is verified against the newest
//! authorities.

mod stream;
mod subject;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::metrics::AccessMetrics;

pub use stream::{Handshaken, Stream};
pub use subject::peer_subject;

/// Size of a file of certificates or of a key.
const PEM_BYTES_MAX: usize = 1 << 20;
/// The protocols that a client may choose, the preferred first.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];
/// HTTP/2 in ALPN.
const HTTP2: &[u8] = b"h2";

/// The files of TLS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The certificate of the server, followed by those of intermediate authorities.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The authorities that sign client certificates.
    pub client_ca: Option<PathBuf>,
}

/// Why files of TLS cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{flag} {}: cannot be read: {problem}; name a readable PEM file", path.display())]
    Read {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        problem: String,
    },
    /// A file has no valid PEM of the right kind.
    #[error("{flag} {}: {problem}; name a PEM file with {expected}", path.display())]
    Content {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with the content.
        problem: String,
        /// What the file must contain.
        expected: &'static str,
    },
    /// The certificate and the key do not belong together, or TLS does not support them.
    #[error("--tls-cert {} and --tls-key {} cannot be used together: {problem}; name the key of the certificate", certificate.display(), key.display())]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// The bytes of the files.
#[derive(PartialEq, Eq)]
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// The settings of TLS that are in force.
struct Loaded {
    config: Arc<ServerConfig>,
    /// The end of the validity of the certificate, in seconds since 1970.
    not_after_s: i64,
}

/// The result of the last read of the files, so that a change is noticed once.
struct Seen {
    content: Result<Content, TlsError>,
    /// Whether the last read found a new content that cannot be used. A certificate and its key are replaced one after
    /// the other, so the error is reported only if the next read finds the same content.
    is_suspect: bool,
}

/// Accepts the connections of a listener, with or without TLS. Cheap to clone.
#[derive(Clone, Default)]
pub struct Acceptor {
    tls: Option<Tls>,
    metrics: AccessMetrics,
}

impl Acceptor {
    /// Creates an acceptor. Failed handshakes are counted in `metrics`.
    pub fn new(tls: Option<Tls>, metrics: AccessMetrics) -> Self {
        Self { tls, metrics }
    }

    /// Wraps an accepted connection.
    pub fn accept(&self, stream: TcpStream) -> Stream {
        Stream::new(stream, self.tls.as_ref(), &self.metrics)
    }
}

/// TLS with the certificate in force. Cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    files: TlsFiles,
    loaded: ArcSwap<Loaded>,
    seen: Mutex<Seen>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] if a file cannot be read or used.
    pub fn read(files: TlsFiles) -> Result<Self, TlsError> {
        let content = read_all(&files)?;
        let loaded = ArcSwap::from_pointee(load(&files, &content)?);
        let seen = Mutex::new(Seen { content: Ok(content), is_suspect: false });
        Ok(Self(Arc::new(Inner { files, loaded, seen })))
    }

    /// Reads the files again. If their content changed and can be used, it applies to all later handshakes. Otherwise
    /// the earlier content stays in force, and the error is logged once. Blocks the thread.
    pub fn reload(&self, metrics: &AccessMetrics) {
        let Inner { files, loaded, seen } = &*self.0;
        let content = read_all(files);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.content == content && !seen.is_suspect {
            return;
        }
        let is_repeated = seen.content == content;
        match content.as_ref().map_err(Clone::clone).and_then(|content| load(files, content)) {
            Ok(new) => {
                loaded.store(Arc::new(new));
                metrics.count_reload("tls", true);
                metrics.set_certificate_expiry(self.not_after_s());
                tracing::info!("read the changed certificate in {}", files.certificate.display());
                seen.is_suspect = false;
            }
            Err(error) if is_repeated => {
                metrics.count_reload("tls", false);
                tracing::error!("the changed files of TLS are not used, and the earlier ones stay in force: {error}");
                seen.is_suspect = false;
            }
            Err(_) => seen.is_suspect = true,
        }
        seen.content = content;
    }

    /// Returns the end of the validity of the certificate, in seconds since 1970.
    pub fn not_after_s(&self) -> i64 {
        self.0.loaded.load().not_after_s
    }

    /// Begins the handshake of a connection, with the certificate that is in force now.
    fn accept(&self, stream: TcpStream) -> Accept<TcpStream> {
        TlsAcceptor::from(Arc::clone(&self.0.loaded.load().config)).accept(stream)
    }
}

fn read_all(files: &TlsFiles) -> Result<Content, TlsError> {
    let client_ca = files.client_ca.as_deref().map(|path| read("--tls-client-ca", path));
    Ok(Content {
        certificate: read("--tls-cert", &files.certificate)?,
        key: read("--tls-key", &files.key)?,
        client_ca: client_ca.transpose()?,
    })
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |problem: io::Error| TlsError::Read { flag, path: path.to_owned(), problem: problem.to_string() };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(PEM_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() > PEM_BYTES_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

fn certificates(flag: &'static str, path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |problem: String| TlsError::Content { flag, path: path.to_owned(), problem, expected: "certificates" };
    let found = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| failed(error.to_string()))?;
    if found.is_empty() { Err(failed("it has no certificate".to_owned())) } else { Ok(found) }
}

fn load(files: &TlsFiles, content: &Content) -> Result<Loaded, TlsError> {
    let chain = certificates("--tls-cert", &files.certificate, &content.certificate)?;
    let not_after_s = chain.first().and_then(|first| subject::not_after_s(first)).unwrap_or(0);
    // The message of an error never contains bytes of the key.
    let key = PrivateKeyDer::from_pem_slice(&content.key).map_err(|error| TlsError::Content {
        flag: "--tls-key",
        path: files.key.clone(),
        problem: error.to_string(),
        expected: "a private key",
    })?;
    let pair_error = |error: rustls::Error| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        problem: error.to_string(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(pair_error)?
        .with_client_cert_verifier(client_verifier(files, content)?)
        .with_single_cert(chain, key)
        .map_err(pair_error)?;
    if files.client_ca.is_some() {
        // A resumed session skips the verification of the client certificate, which may have expired since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Loaded { config: Arc::new(config), not_after_s })
}

/// Returns the verifier of client certificates. A client without a certificate may connect: it may have a token, and
/// health checks need no credentials. A certificate that no authority signed ends the handshake.
fn client_verifier(files: &TlsFiles, content: &Content) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let (Some(path), Some(bytes)) = (&files.client_ca, &content.client_ca) else { return Ok(Arc::new(NoClientAuth)) };
    let failed = |problem: String| TlsError::Content {
        flag: "--tls-client-ca",
        path: path.clone(),
        problem,
        expected: "certificates of authorities",
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("--tls-client-ca", path, bytes)? {
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .map_err(|error| failed(error.to_string()))
}
