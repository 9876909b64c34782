//! A publisher's server: it answers each path as a test says, tells what is not modified, and remembers who asked.

#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a helper of tests that cannot go on fails the test")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinHandle, JoinSet};
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
    /// The beginning of a body that is said to be larger than any that is read.
    Long(Vec<u8>),
    /// To another place.
    Redirect(String),
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

type Answer = dyn Fn(&str) -> Reply + Send + Sync;

/// A server on a port of its own; it ends with the test's runtime.
pub(crate) struct Publisher {
    pub(crate) base_url: String,
    address: SocketAddr,
    /// Bound and never listening: it keeps the port for as long as the server is shut.
    _port: TcpSocket,
    acceptor: Option<TlsAcceptor>,
    answer: Arc<Answer>,
    asked: Arc<Mutex<Vec<String>>>,
    /// Of the server while it is open.
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl Publisher {
    /// Answers each path with its query as `answer` says.
    pub(crate) async fn start(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, Arc::new(answer)).await
    }

    /// The same over TLS, as `localhost`.
    pub(crate) async fn start_tls(
        acceptor: TlsAcceptor,
        answer: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(Some(acceptor), Arc::new(answer)).await
    }

    async fn start_with(acceptor: Option<TlsAcceptor>, answer: Arc<Answer>) -> Self {
        let port = bound("127.0.0.1:0".parse().unwrap());
        let address = port.local_addr().unwrap();
        let base_url = match &acceptor {
            None => format!("http://{address}"),
            Some(_) => format!("https://localhost:{}", address.port()),
        };
        let publisher =
            Self { base_url, address, _port: port, acceptor, answer, asked: Arc::default(), serving: Mutex::default() };
        publisher.set_open(true).await;
        publisher
    }

    /// Whether it listens; one that does not refuses connections, and has dropped those that stood.
    pub(crate) async fn set_open(&self, open: bool) {
        let serving = self.serving.lock().unwrap().take();
        let serving = match (serving, open) {
            (None, true) => {
                let listener = bound(self.address).listen(64).unwrap();
                let (acceptor, answer, asked) =
                    (self.acceptor.clone(), Arc::clone(&self.answer), Arc::clone(&self.asked));
                Some(tokio::spawn(accept(listener, acceptor, answer, asked)))
            }
            (Some(serving), false) => {
                serving.abort();
                // It was told to end.
                let _ = serving.await;
                None
            }
            (unchanged, _) => unchanged,
        };
        *self.serving.lock().unwrap() = serving;
    }

    /// Paths asked for so far, in order; those that were answered with `304` begin with it.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

async fn accept(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    answer: Arc<Answer>,
    log: Arc<Mutex<Vec<String>>>,
) {
    // Dropped with the server, and its connections with it.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, answer, log) = (acceptor.clone(), Arc::clone(&answer), Arc::clone(&log));
        connections.spawn(async move {
            match acceptor {
                None => serve(BufReader::new(stream), &*answer, &log).await,
                // Who does not trust it goes away.
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(BufReader::new(stream), &*answer, &log).await;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One question after the other, until it is hung up by either side.
async fn serve(mut stream: BufReader<impl AsyncRead + AsyncWrite + Unpin>, answer: &Answer, log: &Mutex<Vec<String>>) {
    let mut head = String::new();
    while stream.read_line(&mut head).await.unwrap_or(0) > 0 {
        if head.ends_with("\r\n\r\n") {
            if !reply_to(&head, stream.get_mut(), answer, log).await {
                return;
            }
            head.clear();
        }
    }
}

/// Whether the next question may follow.
async fn reply_to(
    head: &str,
    stream: &mut (impl AsyncWrite + Unpin),
    answer: &Answer,
    log: &Mutex<Vec<String>>,
) -> bool {
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let reply = answer(&path);
    let empty =
        |status: &str, headers: &str| format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\n\r\n").into_bytes();
    let (written, told) = match &reply {
        Reply::Body(body) => {
            let tag = format!("\"{}\"", crc(body));
            if head.to_ascii_lowercase().contains(&format!("if-none-match: {tag}")) {
                (b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec(), format!("304 {path}"))
            } else {
                (with_body(&format!("ETag: {tag}\r\n"), body, body.len()), path)
            }
        }
        Reply::Cut(body) => (with_body("", &body[..body.len() / 2], body.len()), path),
        Reply::Long(body) => (with_body("", body, 64 * 1024 * 1024), path),
        Reply::Status(status, headers) => (empty(status, headers), path),
        Reply::Redirect(to) => (empty("302 Found", &format!("Location: {to}\r\n")), path),
        Reply::Hang => (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n".to_vec(), path),
    };
    log.lock().unwrap().push(told);
    // Who asked may be gone.
    let is_written = stream.write_all(&written).await.is_ok() && stream.flush().await.is_ok();
    if matches!(reply, Reply::Hang) {
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
    is_written && matches!(reply, Reply::Body(_) | Reply::Status(..) | Reply::Redirect(_))
}

fn with_body(headers: &str, body: &[u8], length: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Enough to tell bodies apart.
fn crc(body: &[u8]) -> u32 {
    body.iter().fold(17, |sum, byte| sum.rotate_left(5).wrapping_mul(31) ^ u32::from(*byte))
}
