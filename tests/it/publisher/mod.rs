//! A local server of a publisher: it replies to each path as a test defines, answers conditional requests, and records
//! all requests.

#![allow(dead_code, reason = "each test binary needs only a part")]
#![allow(clippy::unwrap_used, reason = "a failed helper must fail the test")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// The reply to a path.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A body, or `304` to a client that already has it.
    Body(Vec<u8>),
    /// A status such as `404 Not Found`, and header lines, each with its line end.
    Status(&'static str, &'static str),
    /// Half of a body.
    Cut(Vec<u8>),
    /// The beginning of a body with a declared length above the size limit.
    Long(Vec<u8>),
    /// A redirect to this URL.
    Redirect(String),
    /// Headers without a body; the connection stays open.
    Hang,
}

impl Reply {
    pub(crate) const ABSENT: Self = Self::Status("404 Not Found", "");

    /// A recorded body of a bank, from `tests/data/feeds`.
    pub(crate) fn recorded(name: &str) -> Self {
        Self::Body(recorded(name))
    }
}

pub(crate) fn recorded(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/feeds").join(name)).unwrap()
}

type ReplyFn = dyn Fn(&str) -> Reply + Send + Sync;

/// A server on its own port; it ends with the runtime of the test.
pub(crate) struct Publisher {
    pub(crate) base_url: String,
    address: SocketAddr,
    /// Bound, but never listening: reserves the port while the server is closed.
    _port: TcpSocket,
    acceptor: Option<TlsAcceptor>,
    reply_fn: Arc<ReplyFn>,
    requests: Arc<Mutex<Vec<String>>>,
    /// The running server, if it is open.
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl Publisher {
    /// Starts a publisher that replies to each path, including its query, with the result of `reply_fn`.
    pub(crate) async fn start(reply_fn: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, Arc::new(reply_fn)).await
    }

    /// Starts a publisher over TLS, as `localhost`.
    pub(crate) async fn start_tls(
        acceptor: TlsAcceptor,
        reply_fn: impl Fn(&str) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(Some(acceptor), Arc::new(reply_fn)).await
    }

    async fn start_with(acceptor: Option<TlsAcceptor>, reply_fn: Arc<ReplyFn>) -> Self {
        let port = bound("127.0.0.1:0".parse().unwrap());
        let address = port.local_addr().unwrap();
        let base_url = match &acceptor {
            None => format!("http://{address}"),
            Some(_) => format!("https://localhost:{}", address.port()),
        };
        let publisher = Self {
            base_url,
            address,
            _port: port,
            acceptor,
            reply_fn,
            requests: Arc::default(),
            serving: Mutex::default(),
        };
        publisher.set_open(true).await;
        publisher
    }

    /// Opens or closes the server. A closed server refuses connections and has dropped the existing ones.
    pub(crate) async fn set_open(&self, open: bool) {
        let serving = self.serving.lock().unwrap().take();
        let serving = match (serving, open) {
            (None, true) => {
                let listener = bound(self.address).listen(64).unwrap();
                let (acceptor, reply_fn, requests) =
                    (self.acceptor.clone(), Arc::clone(&self.reply_fn), Arc::clone(&self.requests));
                Some(tokio::spawn(accept(listener, acceptor, reply_fn, requests)))
            }
            (Some(serving), false) => {
                serving.abort();
                // The task was aborted.
                let _ = serving.await;
                None
            }
            (unchanged, _) => unchanged,
        };
        *self.serving.lock().unwrap() = serving;
    }

    /// Returns the requested paths in order; those with a `304` reply begin with `304`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
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
    reply_fn: Arc<ReplyFn>,
    log: Arc<Mutex<Vec<String>>>,
) {
    // Dropping the set closes all connections.
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, reply_fn, log) = (acceptor.clone(), Arc::clone(&reply_fn), Arc::clone(&log));
        connections.spawn(async move {
            match acceptor {
                None => serve(BufReader::new(stream), &*reply_fn, &log).await,
                // The handshake fails if the client does not trust the certificate.
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(BufReader::new(stream), &*reply_fn, &log).await;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one request after the other until either side closes the connection.
async fn serve(
    mut stream: BufReader<impl AsyncRead + AsyncWrite + Unpin>,
    reply_fn: &ReplyFn,
    log: &Mutex<Vec<String>>,
) {
    let mut head = String::new();
    while stream.read_line(&mut head).await.unwrap_or(0) > 0 {
        if head.ends_with("\r\n\r\n") {
            if !reply_to(&head, stream.get_mut(), reply_fn, log).await {
                return;
            }
            head.clear();
        }
    }
}

/// Replies to a request. Returns true if another request may follow.
async fn reply_to(
    head: &str,
    stream: &mut (impl AsyncWrite + Unpin),
    reply_fn: &ReplyFn,
    log: &Mutex<Vec<String>>,
) -> bool {
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let reply = reply_fn(&path);
    let empty =
        |status: &str, headers: &str| format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\n\r\n").into_bytes();
    let (written, logged) = match &reply {
        Reply::Body(body) => {
            let tag = format!("\"{}\"", checksum(body));
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
    log.lock().unwrap().push(logged);
    // The client may have closed the connection.
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

/// A checksum that distinguishes bodies.
fn checksum(body: &[u8]) -> u32 {
    body.iter().fold(17, |sum, byte| sum.rotate_left(5).wrapping_mul(31) ^ u32::from(*byte))
}
