//! The listener of plain HTTP, over real sockets.

#![allow(clippy::unwrap_used, reason = "a helper of tests that cannot go on fails the test")]

mod support;

use support::TestServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What comes back until the server closes the connection.
async fn say(server: &TestServer, request: &str) -> String {
    let mut stream = TcpStream::connect(server.http_addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_server_speaks_plain_http_until_it_is_stopped() {
    let server = TestServer::start(&[]).await;
    let answer = say(&server, "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");

    // One that waits for nothing does not hold the end up.
    let idle = TcpStream::connect(server.http_addr).await.unwrap();
    let address = server.http_addr;
    server.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
    drop(idle);
}
