//! Publishers over TLS: whom the command and the server trust, and what is said of the others.
//!
//! The root certificates of the system are replaced for the command by one that is made here.

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

/// Who signs certificates.
fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What a server shows: a certificate for `name`, valid up to the start of a year.
fn acceptor(signed_by: &CertifiedIssuer<'_, KeyPair>, name: &str, valid_until: i32) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_after = date_time_ymd(valid_until, 1, 1);
    let certificate = params.signed_by(&key, signed_by).unwrap();
    // The first of the process stays, and is the same.
    let _ = ring::default_provider().install_default();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into());
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

fn cbu(path: &str) -> Reply {
    if path.contains("2026-04-01") { Reply::recorded("cbu/json-all-2026-04-01.json") } else { Reply::ABSENT }
}

/// Exit status and words of a backfill of one day.
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
async fn a_bank_that_cannot_show_who_it_is_gives_nothing() {
    let server = TestServer::start(&[]).await;
    server.clock.set(Timestamp::parse("2026-05-30").unwrap());
    let (known, unknown) = (authority("known"), authority("unknown"));
    let roots = tempfile::tempdir().unwrap();
    std::fs::write(roots.path().join("roots.pem"), known.pem()).unwrap();
    for (certificate, problem) in [
        (acceptor(&unknown, "localhost", 4_000), "of no issuer known here"),
        (acceptor(&known, "localhost", 2_020), "has expired"),
        (acceptor(&known, "example.org", 4_000), "for another name"),
    ] {
        let bank = Publisher::start_tls(certificate, cbu).await;
        let (code, said) = backfill(&server, &roots, &bank).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("2026-04-01: cannot trust localhost: ") && said.contains(problem), "{said}");
        assert!(said.contains("root certificates"), "{said}");
        assert_eq!(bank.asked(), Vec::<String>::new(), "asked nevertheless");
    }
    // Who shows a good one is trusted, and asked.
    let bank = Publisher::start_tls(acceptor(&known, "localhost", 4_000), cbu).await;
    let (code, said) = backfill(&server, &roots, &bank).await;
    assert_eq!((code, bank.asked().len()), (Some(0), 1), "{said}");
}

#[tokio::test]
async fn no_follower_trusts_a_publisher_that_cannot_show_who_it_is() {
    let publisher = Publisher::start_tls(acceptor(&authority("unknown"), "localhost", 4_000), cbu).await;
    let names = FollowedSource::ALL.map(FollowedSource::name);
    let urls = names.map(|name| format!("{name}={}", publisher.base_url)).join(",");
    let server = TestServer::start(&["--follow", &names.join(","), "--feed-url", &urls]).await;
    let mut health = Vec::new();
    for _ in 0..200 {
        let answer = server.rates().list_sources(v1::ListSourcesRequest::default()).await.unwrap().into_inner();
        health = answer.sources.iter().map(|source| (source.source.clone(), source.last_poll_health())).collect();
        if health.iter().all(|(_, health)| *health != v1::FeedHealth::Unspecified) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(health.len(), names.len(), "{health:?}");
    assert!(health.iter().all(|(_, health)| *health == v1::FeedHealth::Unreachable), "{health:?}");
    assert_eq!(publisher.asked(), Vec::<String>::new(), "asked nevertheless");
    server.stop().await;
}
