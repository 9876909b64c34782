//! The connections of plain HTTP: their limits, timeouts and shutdown.
//!
//! **Invariants**: at most [`Limits::slots`] connections are open, in total and from one address, plus
//! [`OVERFLOW_SLOTS_MAX`] short connections. Beyond a limit, an idle connection gives way to the new one; if no connection
//! is idle, the new one becomes a short connection. On a short connection, the server answers a health check, and sends 503 for any other request. Any
//! further connection is closed before the server reads a byte from it. A client that sends the head of a request too
//! slowly, or leaves its response unread for too long, is disconnected. At shutdown, a connection ends after the
//! response in progress.

use std::time::Duration;

use axum::{Extension, Router};
use rustix::process::{Resource, getrlimit};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::connection::{self, Kind, Limits};
use super::security::OverflowSlot;
use crate::access::Peer;
use crate::api::{Caller, CallerSlots};
use crate::incoming::{ConnectionSlots, Incoming, SlotLimits};
use crate::tls::Acceptor;

/// Maximum number of open connections. The actual limit is at most a quarter of the files that the process may have
/// open: the other files are for gRPC and the store.
const CONNECTIONS_MAX: usize = 8_192;
/// Number of overflow slots: connections beyond the limit, for one request each.
const OVERFLOW_SLOTS_MAX: usize = 16;
/// Timeout of a connection in an overflow slot for its request and for its response. It is short, so that slots are
/// freed soon.
const OVERFLOW_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum time from the start of a connection, or from the previous response, to the end of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum time that a client may leave a response unread.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(20);
impl Limits {
    /// Returns the limits of the server. `address_max` is the configured number of connections from one address.
    pub fn new(address_max: Option<usize>) -> Self {
        let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
        let connections_max = files.map_or(CONNECTIONS_MAX, |files| CONNECTIONS_MAX.min(files / 4));
        let slots = SlotLimits::new(connections_max, address_max);
        Self { slots, head_timeout: HEAD_TIMEOUT, unread_timeout: UNREAD_TIMEOUT }
    }
}

/// Returns the settings of regular connections, then those of overflow connections.
fn kinds(router: Router, limits: Limits) -> [Kind; 2] {
    let brief = Limits {
        head_timeout: limits.head_timeout.min(OVERFLOW_TIMEOUT),
        unread_timeout: limits.unread_timeout.min(OVERFLOW_TIMEOUT),
        ..limits
    };
    let overflow = router.clone().layer(Extension(OverflowSlot));
    [Kind { router, limits, keep_alive: true }, Kind { router: overflow, limits: brief, keep_alive: false }]
}

/// Serves `router` on `listener`, whose connections `acceptor` wraps, until `draining` is cancelled and every response
/// in progress is sent. Dropping the future earlier closes all connections.
pub async fn serve(
    listener: TcpListener,
    acceptor: Acceptor,
    router: Router,
    limits: Limits,
    draining: CancellationToken,
) {
    let [regular, overflow] = kinds(router, limits);
    let slots = ConnectionSlots::new("plain HTTP", limits.slots);
    let overflow_slots = CallerSlots::new(OVERFLOW_SLOTS_MAX);
    let mut incoming = Incoming::new(listener);
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            Some(accepted) = incoming.next() => accepted,
            () = draining.cancelled() => break,
            Some(_) = connections.join_next() => continue,
        };
        let client = Peer { address: Some(peer.ip()), ..Peer::default() };
        if let Some(slot) = slots.take(peer.ip()) {
            let stream = acceptor.accept(stream);
            let connection = connection::serve(stream, client, regular.clone(), Some(slot.calls()), draining.clone());
            connections.spawn(async move {
                tokio::select! {
                    () = connection => {}
                    () = slot.close_token().cancelled() => {}
                }
            });
        } else if let Some(overflow_slot) = overflow_slots.take(Some(Caller::at(peer.ip()))) {
            let stream = acceptor.accept(stream);
            let connection = connection::serve(stream, client, overflow.clone(), None, draining.clone());
            connections.spawn(async move {
                connection.await;
                drop(overflow_slot);
            });
        } else {
            tracing::debug!(%peer, "connection closed: all slots and the overflow slots are in use");
        }
    }
    drop(incoming);
    while connections.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Instant;

    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::time::sleep;

    use super::*;
    use crate::http::security::{Origins, secure};

    const SOON: Duration = Duration::from_millis(100);
    const LATE: Duration = Duration::from_mins(1);

    async fn start(limits: Limits) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let draining = CancellationToken::new();
        let large = get(async || "x".repeat(64 << 20));
        let slow = get(async || {
            sleep(Duration::from_millis(300)).await;
            "done"
        });
        let health = get(async || "alive");
        let router = Router::new().route("/", get(async || "here")).route("/large", large).route("/slow", slow);
        let router = router.route("/healthz", health).layer(from_fn_with_state(Origins::default(), secure));
        (address, draining.clone(), tokio::spawn(serve(listener, Acceptor::default(), router, limits, draining)))
    }

    async fn rest(stream: &mut TcpStream) -> String {
        let mut rest = Vec::new();
        // A reset connection counts as closed.
        let _ = stream.read_to_end(&mut rest).await;
        String::from_utf8(rest).unwrap()
    }

    #[tokio::test]
    async fn slow_request_head_times_out() {
        let limits =
            Limits { slots: SlotLimits { total_max: 8, address_max: 8 }, head_timeout: SOON, unread_timeout: LATE };
        let (address, _drain, _serving) = start(limits).await;
        for begun in ["", "GET / HT", "GET / HTTP/1.1\r\nhost: a\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let since = Instant::now();
            stream.write_all(begun.as_bytes()).await.unwrap();
            let answer = rest(&mut stream).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
            assert!(since.elapsed() < LATE / 2);
        }
        // Sending a byte now and then does not extend the timeout.
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut sent = 0;
        for byte in "GET / HTTP/1.1\r\nhost: a-long-one\r\n\r\n".bytes() {
            sleep(SOON / 10).await;
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            sent += 1;
        }
        assert!(!rest(&mut stream).await.contains("here"), "the server waited for {sent} bytes");
    }

    #[tokio::test]
    async fn unread_response_times_out() {
        let limits =
            Limits { slots: SlotLimits { total_max: 1, address_max: 1 }, head_timeout: LATE, unread_timeout: SOON };
        let (address, _drain, _serving) = start(limits).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        // The first byte shows that the response has begun: before, the connection would give way at once.
        assert!(client.read_u8().await.is_ok());
        // The connection slot becomes free although the client has not read the rest.
        for attempt in 0.. {
            let mut other = TcpStream::connect(address).await.unwrap();
            let _ = other.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
            if rest(&mut other).await.contains("here") {
                assert!(attempt > 0, "the only slot was in use at first");
                break;
            }
            assert!(attempt < 300, "the slot never became free");
            sleep(SOON).await;
        }
        drop(client);
    }

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await;
        rest(&mut stream).await
    }

    #[tokio::test]
    async fn connection_beyond_limit_gets_503_except_for_health_checks() {
        let limits =
            Limits { slots: SlotLimits { total_max: 2, address_max: 2 }, head_timeout: LATE, unread_timeout: LATE };
        let (address, _drain, _serving) = start(limits).await;
        let mut open = Vec::new();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            assert!(stream.read_u8().await.is_ok());
            open.push(stream);
        }
        // Each connection is closed after its response, so that an overflow slot is always free for the next.
        for _ in 0..OVERFLOW_SLOTS_MAX {
            let refused = ask(address, "/").await;
            assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
            for header in ["retry-after: 1\r\n", "connection: close\r\n"] {
                assert!(refused.contains(header), "{refused}");
            }
            assert!(ask(address, "/healthz").await.ends_with("alive"));
        }
        // A connection beyond the overflow slots of its address is closed without a response.
        let mut idle = Vec::new();
        for _ in 0..OVERFLOW_SLOTS_MAX * 3 / 4 {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        assert_eq!(ask(address, "/healthz").await, "");
        // Idle connections do not hold overflow slots for long.
        for stream in &mut idle {
            assert!(!rest(stream).await.contains("alive"));
        }
        assert!(ask(address, "/healthz").await.ends_with("alive"));
    }

    #[tokio::test]
    async fn idle_connections_give_way_and_a_connection_with_a_request_does_not() {
        let limits =
            Limits { slots: SlotLimits { total_max: 8, address_max: 4 }, head_timeout: LATE, unread_timeout: LATE };
        let (address, _drain, _serving) = start(limits).await;
        let mut reading = TcpStream::connect(address).await.unwrap();
        reading.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        assert!(reading.read_u8().await.is_ok());
        // Far more idle connections than the listener has slots. Each gives way to a later one.
        let mut idle = Vec::new();
        for _ in 0..100 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'H');
            idle.push(stream);
        }
        for path in ["/", "/healthz"] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = rest(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        assert!(rest(&mut idle[0]).await.ends_with("here"), "the oldest idle connection is closed");
        let large = rest(&mut reading).await;
        assert!(large.len() >= 64 << 20, "the response in progress has {} bytes", large.len());
    }

    #[tokio::test]
    async fn draining_waits_for_response_in_progress_but_not_for_idle_connection() {
        let limits =
            Limits { slots: SlotLimits { total_max: 8, address_max: 8 }, head_timeout: LATE, unread_timeout: LATE };
        let (address, drain, serving) = start(limits).await;
        let _idle = TcpStream::connect(address).await.unwrap();
        let mut asking = TcpStream::connect(address).await.unwrap();
        asking.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        sleep(SOON).await;
        drain.cancel();
        assert!(rest(&mut asking).await.ends_with("done"));
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
