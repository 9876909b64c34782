//! Publishers over TLS: which certificates the command and the server trust, and the error for all others.
//!
//! The command uses a root certificate of this test instead of those of the system.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use silkrate::domain::Timestamp;
use silkrate::follow::FollowedSource;
use silkrate::proto::v1;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::publisher::{Publisher, Reply};
use crate::support::TestServer;

/// Creates a certificate authority.
fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Returns a TLS acceptor with a certificate for `name`, valid until the start of a year.
fn acceptor(signed_by: &CertifiedIssuer<'_, KeyPair>, name: &str, valid_until: i32) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_after = date_time_ymd(valid_until, 1, 1);
    let certificate = params.signed_by(&key, signed_by).unwrap();
    // Only the first installation in a process succeeds. All tests install the same provider.
    let _ = ring::default_provider().install_default();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into());
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

fn cbu(path: &str) -> Reply {
    if path.contains("2026-04-01") { Reply::recorded("cbu/json-all-2026-04-01.json") } else { Reply::ABSENT }
}

/// Runs a backfill of one day. Returns its exit status and its standard error.
async fn backfill(server: &TestServer, roots: &TempDir, bank: &Publisher) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    command
        .args(["backfill", "--source", "cbu", "--from", "2026-04-01", "--to", "2026-04-01", "--feed-url"])
        .arg(format!("cbu={}", bank.base_url))
        .env("SILKRATE_ENDPOINT", server.addr.to_string())
        .env("SSL_CERT_FILE", roots.path().join("roots.pem"))
        .env_remove("SSL_CERT_DIR")
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn backfill_refuses_publisher_with_invalid_certificate() {
    let server = TestServer::start(&[]).await;
    server.clock.set(Timestamp::parse("2026-05-30").unwrap());
    let (known, unknown) = (authority("known"), authority("unknown"));
    let roots = tempfile::tempdir().unwrap();
    std::fs::write(roots.path().join("roots.pem"), known.pem()).unwrap();
    for (certificate, problem) in [
        (acceptor(&unknown, "localhost", 4_000), "has an unknown issuer"),
        (acceptor(&known, "localhost", 2_020), "has expired"),
        (acceptor(&known, "example.org", 4_000), "for another name"),
    ] {
        let bank = Publisher::start_tls(certificate, cbu).await;
        let (code, stderr) = backfill(&server, &roots, &bank).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("2026-04-01: cannot trust localhost: ") && stderr.contains(problem), "{stderr}");
        assert!(stderr.contains("root certificates"), "{stderr}");
        assert_eq!(bank.requests(), Vec::<String>::new(), "a request was sent");
    }
    // A valid certificate is trusted.
    let bank = Publisher::start_tls(acceptor(&known, "localhost", 4_000), cbu).await;
    let (code, stderr) = backfill(&server, &roots, &bank).await;
    assert_eq!((code, bank.requests().len()), (Some(0), 1), "{stderr}");
}

#[tokio::test]
async fn followers_refuse_publisher_with_invalid_certificate() {
    let publisher = Publisher::start_tls(acceptor(&authority("unknown"), "localhost", 4_000), cbu).await;
    let names = FollowedSource::ALL.map(FollowedSource::name);
    let urls = names.map(|name| format!("{name}={}", publisher.base_url)).join(",");
    let server = TestServer::start(&["--follow", &names.join(","), "--feed-url", &urls]).await;
    let mut health = Vec::new();
    for _ in 0..200 {
        let response = server.rates().list_sources(v1::ListSourcesRequest::default()).await.unwrap().into_inner();
        health = response.sources.iter().map(|source| (source.source.clone(), source.last_poll_health())).collect();
        if health.iter().all(|(_, health)| *health != v1::FeedHealth::Unspecified) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(health.len(), names.len(), "{health:?}");
    assert!(health.iter().all(|(_, health)| *health == v1::FeedHealth::Unreachable), "{health:?}");
    assert_eq!(publisher.requests(), Vec::<String>::new(), "a request was sent");
    server.stop().await;
}
