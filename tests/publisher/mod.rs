//! A publisher's server: it answers each path as a test says, tells what is not modified, and remembers who asked.

#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a helper of tests that cannot go on fails the test")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What a path is answered with.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A body, or `304` to who has it already.
    Body(Vec<u8>),
    /// A status such as `404 Not Found`, with header lines, each with its end.
    Status(&'static str, &'static str),
    /// Half of a body.
    Cut(Vec<u8>),
    /// Headers, and then nothing.
    Hang,
}

impl Reply {
    pub(crate) const ABSENT: Self = Self::Status("404 Not Found", "");

    /// A body that a bank sent, from `tests/data/feeds`.
    pub(crate) fn recorded(name: &str) -> Self {
        Self::Body(recorded(name))
    }
}

pub(crate) fn recorded(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/feeds").join(name)).unwrap()
}

/// A server on a port of its own; it ends with the test's runtime.
pub(crate) struct Publisher {
    pub(crate) base_url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Publisher {
    /// Answers each path with its query as `answer` says.
    pub(crate) async fn start(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, answer).await
    }

    /// The same over TLS, as `localhost`.
    pub(crate) async fn start_tls(
        acceptor: TlsAcceptor,
        answer: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(Some(acceptor), answer).await
    }

    async fn start_with(acceptor: Option<TlsAcceptor>, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let base_url = match &acceptor {
            None => format!("http://{address}"),
            Some(_) => format!("https://localhost:{}", address.port()),
        };
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), Arc::clone(&asked));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, answer, log) = (acceptor.clone(), Arc::clone(&answer), Arc::clone(&log));
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, &*answer, &log).await,
                        // Who does not trust it goes away.
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, &*answer, &log).await;
                            }
                        }
                    }
                });
            }
        });
        Self { base_url, asked }
    }

    /// Paths asked for so far, in order; those that were answered with `304` begin with it.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &(impl Fn(&str) -> Reply + ?Sized),
    log: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let reply = answer(&path);
    let (written, told) = match &reply {
        Reply::Body(body) => {
            let tag = format!("\"{}\"", crc(body));
            if head.to_ascii_lowercase().contains(&format!("if-none-match: {tag}")) {
                (b"HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_vec(), format!("304 {path}"))
            } else {
                (with_body(&format!("ETag: {tag}\r\n"), body, body.len()), path)
            }
        }
        Reply::Cut(body) => (with_body("", &body[..body.len() / 2], body.len()), path),
        Reply::Status(status, headers) => {
            (format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: 0\r\n\r\n").into_bytes(), path)
        }
        Reply::Hang => (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_vec(), path),
    };
    log.lock().unwrap().push(told);
    // Who asked may be gone.
    let _ = stream.write_all(&written).await;
    let _ = stream.flush().await;
    if matches!(reply, Reply::Hang) {
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
}

fn with_body(headers: &str, body: &[u8], length: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Enough to tell bodies apart.
fn crc(body: &[u8]) -> u32 {
    body.iter().fold(17, |sum, byte| sum.rotate_left(5).wrapping_mul(31) ^ u32::from(*byte))
}
