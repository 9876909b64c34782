//! TLS of both listeners: protocols, reload, client certificates, slow handshakes, and the client of the command.

use std::os::unix::fs::symlink;
use std::time::Duration;

use silkrate::access::Role;
use silkrate::proto::v1;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;
use silkrate::proto::v1::rate_service_client::RateServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Channel;

use super::certificates::{Authority, Pair, replace};
use super::{Bearer, TIMEOUT, Tokens, eventually, grants};
use crate::cli::command::{assert_contains, silkrate};
use crate::support::{TestServer, tick};

async fn start(flags: &[String]) -> TestServer {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    TestServer::start(&flags).await
}

fn series() -> v1::ListSeriesRequest {
    v1::ListSeriesRequest::default()
}

/// Sends a request of HTTP/1.1 over TLS and returns the response.
async fn get(authority: &Authority, server: &TestServer, head: &str) -> String {
    let mut stream = authority.open(server.http_addr, &["http/1.1"], None).await.unwrap();
    stream.write_all(format!("{head}\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

/// Sends requests over one HTTP/2 connection. Returns the status and the body of each.
async fn get_http2(authority: &Authority, server: &TestServer, paths: &[&str]) -> Vec<(u16, String)> {
    let stream = authority.open(server.http_addr, &["h2", "http/1.1"], None).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "a browser that offers both gets HTTP/2");
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let driving = tokio::spawn(connection);
    let mut answers = Vec::new();
    for path in paths {
        let request = http::Request::builder().uri(format!("https://localhost{path}")).body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        let answer = timeout(TIMEOUT, answer).await.unwrap().unwrap();
        let (status, mut body) = (answer.status().as_u16(), answer.into_body());
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            text.extend(data);
        }
        answers.push((status, String::from_utf8(text).unwrap()));
    }
    driving.abort();
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn both_listeners_speak_tls_with_http2_and_http1() {
    let authority = Authority::new();
    let server = start(&authority.flags()).await;
    let channel = authority.connect(server.addr, None).await.unwrap();
    let mut ingest = IngestServiceClient::new(channel.clone());
    let ticks = vec![tick("KGS/USD", -60, "0.01144")];
    ingest.ingest_ticks(v1::IngestTicksRequest { ticks, ..Default::default() }).await.unwrap();
    let found = RateServiceClient::new(channel).list_series(series()).await.unwrap().into_inner().series;
    assert_eq!(found.len(), 1);
    // Plain HTTP.
    let text = get(&authority, &server, "GET /v1/latest HTTP/1.1").await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("0.01144"), "{text}");
    let answers = get_http2(&authority, &server, &["/v1/latest", "/healthz", "/", "/nothing"]).await;
    assert_eq!(answers.iter().map(|(status, _)| *status).collect::<Vec<_>>(), [200, 200, 200, 404], "{answers:?}");
    assert!(answers[0].1.contains("0.01144") && answers[2].1.contains("<table"), "{answers:?}");
    // gRPC-Web, as a browser sends it: HTTP/1.1 and HTTP/2 on the gRPC port.
    let mut stream = authority.open(server.addr, &["http/1.1"], None).await.unwrap();
    let origin = format!("https://127.0.0.1:{}", server.http_addr.port());
    let head = format!(
        "POST /silkrate.v1.RateService/ListSeries HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/grpc-web+proto\r\n\
         origin: {origin}\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[0; 5]).await.unwrap();
    let mut answer = Vec::new();
    timeout(TIMEOUT, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("KGS/USD"), "{answer}");
    assert!(answer.contains(&format!("access-control-allow-origin: {origin}")), "{answer}");
    let stream = authority.open(server.addr, &["h2", "http/1.1"], None).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn client_without_tls_and_silent_client_are_disconnected() {
    let authority = Authority::new();
    let server = start(&authority.flags()).await;
    for address in [server.addr, server.http_addr] {
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(TIMEOUT, plain.read_to_end(&mut answer)).await.expect("the connection ends");
        assert!(!String::from_utf8_lossy(&answer).contains("ok"), "{answer:?}");
        // A connection on which the handshake never begins.
        let mut silent = TcpStream::connect(address).await.unwrap();
        let closed = timeout(TIMEOUT, silent.read(&mut [0; 1])).await.expect("the server closes the connection");
        assert_eq!(closed.unwrap_or(0), 0);
    }
    let metrics = get(&authority, &server, "GET /metrics HTTP/1.1").await;
    assert!(metrics.contains("silkrate_access_refusals_total{reason=\"tls_handshake\"} 2"), "{metrics}");
    let expiry = metrics.lines().find(|line| line.starts_with("silkrate_tls_certificate_expiry_timestamp_seconds"));
    assert!(expiry.is_some_and(|line| !line.ends_with(" 0")), "{expiry:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_handshakes_count_against_the_limit_of_connections_and_give_way() {
    let authority = Authority::new();
    let server = start(&[authority.flags(), vec!["--max-connections".to_owned(), "2".to_owned()]].concat()).await;
    let mut silent = [TcpStream::connect(server.addr).await.unwrap(), TcpStream::connect(server.addr).await.unwrap()];
    let client = authority.connect(server.addr, None).await.unwrap();
    let closed = timeout(Duration::from_secs(5), silent[0].read(&mut [0; 1])).await.expect("closed at once");
    assert_eq!(closed.unwrap_or(0), 0);
    drop(client);
}

/// Returns the certificate that a server shows.
async fn shown(authority: &Authority, server: &TestServer) -> Vec<u8> {
    let stream = authority.open(server.addr, &["h2"], None).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_certificate_is_used_and_open_streams_go_on() {
    let authority = Authority::new();
    let server = start(&authority.flags()).await;
    let channel = authority.connect(server.addr, None).await.unwrap();
    let mut rates = RateServiceClient::new(channel.clone());
    let mut watch = rates.watch_latest_rates(v1::WatchLatestRatesRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    let mut before = shown(&authority, &server).await;
    // Written in place; by rename, one file after the other; by a symbolic link, as Kubernetes does.
    for way in 0..3 {
        let new = authority.server();
        match way {
            0 => authority.write(&new),
            1 => {
                replace(&authority.path("cert.pem"), &new.certificate);
                tokio::time::sleep(Duration::from_millis(100)).await;
                replace(&authority.path("key.pem"), &new.key);
            }
            _ => {
                let data = authority.path("data");
                std::fs::create_dir(&data).unwrap();
                std::fs::write(data.join("cert.pem"), &new.certificate).unwrap();
                std::fs::write(data.join("key.pem"), &new.key).unwrap();
                for name in ["cert.pem", "key.pem"] {
                    let link = authority.path("link");
                    symlink(data.join(name), &link).unwrap();
                    std::fs::rename(link, authority.path(name)).unwrap();
                }
            }
        }
        eventually("a new certificate", async || shown(&authority, &server).await != before).await;
        before = shown(&authority, &server).await;
    }
    // A broken pair changes nothing, and is counted.
    replace(&authority.path("key.pem"), &authority.server().key);
    eventually("a failed reload", async || {
        get(&authority, &server, "GET /metrics HTTP/1.1")
            .await
            .contains("silkrate_reloads_total{file=\"tls\",outcome=\"failed\"} 1")
    })
    .await;
    assert_eq!(shown(&authority, &server).await, before);
    // The stream from before all reloads still gets changes.
    let ticks = vec![tick("KGS/USD", -60, "0.01144")];
    let request = v1::IngestTicksRequest { ticks, ..Default::default() };
    let sequence = IngestServiceClient::new(channel).ingest_ticks(request).await.unwrap().into_inner().sequence;
    let changed = timeout(TIMEOUT, async {
        loop {
            let message = watch.message().await.unwrap().expect("the stream goes on");
            if message.sequence == sequence {
                return message;
            }
        }
    });
    assert_eq!(changed.await.unwrap().rates.len(), 1);
}

async fn start_mutual(authority: &Authority, flags: &[String]) -> TestServer {
    let config = authority.path("silkrate.toml");
    let table = "[certificates.\"CN=reader\"]\nrole = \"read\"\n[certificates.\"CN=feeder\"]\nrole = \"ingest\"\nsources = [\"nbkr\"]\n\
                 [certificates.\"CN=root\"]\nrole = \"admin\"\n";
    std::fs::write(&config, table).unwrap();
    let path = |name: &str| authority.path(name).display().to_string();
    let own = ["--tls-client-ca".to_owned(), path("ca.pem"), "--config".to_owned(), path("silkrate.toml")];
    start(&[authority.flags(), own.to_vec(), flags.to_vec()].concat()).await
}

async fn list(channel: &Channel) -> Option<Code> {
    RateServiceClient::new(channel.clone()).list_series(series()).await.err().map(|status| status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn subject_of_client_certificate_decides_the_role() {
    let authority = Authority::new();
    let mut tokens = Tokens::new();
    let token = tokens.add("reader", grants(Role::Read), None);
    let server = start_mutual(&authority, &["--tokens".to_owned(), tokens.path().display().to_string()]).await;
    let connect = async |client: Option<&Pair>| authority.connect(server.addr, client).await.unwrap();
    let reader = connect(Some(&authority.client("reader"))).await;
    let feeder = connect(Some(&authority.client("feeder"))).await;
    let root = connect(Some(&authority.client("root"))).await;
    let stranger = connect(Some(&authority.client("stranger"))).await;
    let nobody = connect(None).await;
    for channel in [&reader, &feeder, &root] {
        assert_eq!(list(channel).await, None);
    }
    assert_eq!(list(&nobody).await, Some(Code::Unauthenticated));
    let status = RateServiceClient::new(stranger.clone()).list_series(series()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("the certificate 'CN=stranger' has no role"), "{status:?}");
    let archive = async |channel: &Channel| {
        let request = v1::ArchiveSourceRequest { source: "nbkr".to_owned(), note: String::new() };
        IngestServiceClient::new(channel.clone()).archive_source(request).await.unwrap_err().code()
    };
    assert_eq!(archive(&reader).await, Code::PermissionDenied);
    assert_eq!(archive(&feeder).await, Code::PermissionDenied);
    assert_eq!(archive(&root).await, Code::NotFound, "no such source, but allowed");
    let request = v1::IngestTicksRequest { ticks: vec![tick("KGS/USD", -60, "0.01144")], ..Default::default() };
    let status = IngestServiceClient::new(feeder).ingest_ticks(request).await.unwrap_err();
    assert!(
        status.message().contains("the certificate 'CN=feeder' may send ticks of nbkr, and not of timesca"),
        "{status:?}"
    );
    // A token without a certificate, and with a certificate that has no role.
    for channel in [nobody, stranger] {
        let mut client = RateServiceClient::with_interceptor(channel, Bearer::new(&token));
        client.list_series(series()).await.unwrap();
    }
    // A certificate of another authority ends the handshake.
    let foreign = Authority::new().client("root");
    let Ok(mut stream) = authority.open(server.addr, &["h2"], Some(&foreign)).await else { return };
    // With TLS 1.3 the client learns of the refusal when it reads.
    assert!(timeout(TIMEOUT, stream.read(&mut [0; 1])).await.unwrap().map_or(true, |count| count == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_is_known_over_plain_http_with_both_protocols() {
    let authority = Authority::new();
    let server = start_mutual(&authority, &[]).await;
    let reader = authority.client("reader");
    let mut stream = authority.open(server.http_addr, &["http/1.1"], Some(&reader)).await.unwrap();
    stream.write_all(b"GET /v1/series HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let stream = authority.open(server.http_addr, &["h2"], Some(&reader)).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::builder().uri("https://localhost/v1/series").body(()).unwrap();
    assert_eq!(client.send_request(request, true).unwrap().0.await.unwrap().status(), 200);
    // HTTP/2 needs no header to announce a body; the body is refused all the same.
    let request = http::Request::builder().method("GET").uri("https://localhost/v1/series").body(()).unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    body.send_data("x".into(), true).unwrap();
    assert_eq!(answer.await.unwrap().status(), 413);
    assert!(get(&authority, &server, "GET /v1/series HTTP/1.1").await.starts_with("HTTP/1.1 401"));
    assert!(get(&authority, &server, "GET /healthz HTTP/1.1").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread")]
async fn command_connects_with_authority_and_certificate() {
    let authority = Authority::new();
    let server = start_mutual(&authority, &[]).await;
    let Pair { certificate, key } = authority.client("reader");
    std::fs::write(authority.path("client.pem"), certificate).unwrap();
    std::fs::write(authority.path("client.key"), key).unwrap();
    let command = async |flags: String| {
        let mut command = silkrate(&format!("series --endpoint https://localhost:{} {flags}", server.addr.port()));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        crate::cli::command::Ran::from(output)
    };
    let ca = format!("--tls-ca {}", authority.path("ca.pem").display());
    let pair = format!(
        "--tls-cert {} --tls-key {}",
        authority.path("client.pem").display(),
        authority.path("client.key").display()
    );
    let ran = command(format!("{ca} {pair}")).await;
    assert_eq!((ran.code, ran.stderr.trim()), (Some(0), "no matching series"));
    let ran = command(ca).await;
    assert_contains("no certificate", &ran.stderr, &["not authenticated", "or a client certificate"]);
    let ran = command(String::new()).await;
    assert_contains("unknown authority", &ran.stderr, &["cannot reach", "UnknownIssuer"]);
    let ran = command("--tls-ca /nonexistent".to_owned()).await;
    assert_eq!(ran.code, Some(2));
    assert_contains("no file", &ran.stderr, &["--tls-ca /nonexistent: cannot be read"]);
}

#[test]
fn unusable_files_are_refused_at_start() {
    let authority = Authority::new();
    let check = |flags: Vec<String>, parts: &[&str]| {
        let mut command = silkrate("serve --listen 127.0.0.1:0 --http-listen none --db");
        command.arg(authority.path("db")).args(&flags);
        let ran = crate::cli::command::Ran::from(command.output().unwrap());
        assert_eq!(ran.code, Some(2), "{flags:?}: {}", ran.stderr);
        assert_contains("start", &ran.stderr, parts);
    };
    let flags = authority.flags();
    check(flags[..2].to_vec(), &["--tls-key <FILE>"]);
    let mut missing = flags.clone();
    missing[3] = "/nonexistent".to_owned();
    check(missing, &["--tls-key /nonexistent: cannot be read"]);
    let mut swapped = flags.clone();
    swapped.swap(1, 3);
    check(swapped, &["it has no certificate", "name a PEM file with certificates"]);
    std::fs::write(authority.path("other.pem"), authority.server().key).unwrap();
    let mut other = flags.clone();
    other[3] = authority.path("other.pem").display().to_string();
    check(other, &["cannot be used together", "name the key of the certificate"]);
    let ca = ["--tls-client-ca".to_owned(), authority.path("ca.pem").display().to_string()];
    check([flags, ca.to_vec()].concat(), &["no certificate has a role", "[certificates.\"CN=feeder\"]"]);
}

/// HTTP/2 has no full connection that would show that a client does not read: each response has a window of its own.
#[tokio::test(flavor = "multi_thread")]
async fn idle_http2_connection_and_unread_response_are_ended() {
    let authority = Authority::new();
    let server = start(&authority.flags()).await;
    let page = &get_http2(&authority, &server, &["/"]).await[0].1;
    let script = page.split('"').find(|part| part.starts_with("/assets/") && part.contains(".js")).unwrap();
    let connect = async || {
        let stream = authority.open(server.http_addr, &["h2"], None).await.unwrap();
        h2::client::handshake(stream).await.unwrap()
    };
    let (_idle_client, idle) = connect().await;
    let (mut client, unread) = connect().await;
    let (idle, unread) = (tokio::spawn(idle), tokio::spawn(unread));
    // More bytes than the windows of the client take, and none is read.
    let mut answers = Vec::new();
    for _ in 0..8 {
        let request = http::Request::builder().uri(format!("https://localhost{script}")).body(()).unwrap();
        let answer = client.send_request(request, true).unwrap().0;
        answers.push(timeout(TIMEOUT, answer).await.unwrap().unwrap());
    }
    for connection in [idle, unread] {
        let _ = timeout(2 * TIMEOUT, connection).await.expect("the server ends the connection").unwrap();
    }
    drop(answers);
}
