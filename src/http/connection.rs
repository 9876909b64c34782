//! One connection of plain HTTP: TLS, HTTP/1.1 or HTTP/2, timeouts and shutdown.
//!
//! HTTP/2 is served only over TLS, if the client chooses it by ALPN, as browsers do.
//!
//! **Invariants**: a handshake, the head of a request and an unread response are limited in time, with both protocols. At
//! shutdown, the connection ends after the responses in progress.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::responses::Responses;
use crate::access::Peer;
use crate::tls::Stream;

/// Maximum size of a request's head: the smallest limit that hyper accepts.
const HEAD_BYTES_MAX: usize = 8_192;
/// Maximum size of the headers of an HTTP/2 request, names and values with 32 bytes for each.
const HEADER_LIST_BYTES_MAX: u32 = 16_384;
/// Maximum number of headers of a request.
const HEADERS_MAX: usize = 64;
/// Maximum number of concurrent requests of an HTTP/2 connection. Further requests wait.
const STREAMS_MAX: u32 = 64;
/// Interval of HTTP/2 pings, and the time to answer one. They detect a client that is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Number of checks for idle connections and unread responses within their time limit.
const CHECKS: u32 = 4;

/// The limits of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Maximum number of open connections, without overflow slots.
    pub connections_max: usize,
    /// Maximum time from the start of a connection, or from the previous response, to the end of a request's head.
    pub head_timeout: Duration,
    /// Maximum time that a client may leave a response unread.
    pub unread_timeout: Duration,
}

/// Serves `router` on a connection until it ends. A connection without `keep_alive` serves one request.
pub(super) async fn serve(
    mut stream: Stream,
    mut peer: Peer,
    router: Router,
    limits: Limits,
    keep_alive: bool,
    draining: CancellationToken,
) {
    match timeout(limits.head_timeout, stream.handshake()).await {
        Ok(Ok(())) => {}
        // The stream has logged the error.
        Ok(Err(_)) => return,
        Err(_) => return tracing::debug!("connection closed: no TLS handshake in time"),
    }
    let handshaken = stream.handshaken();
    peer.is_tls = handshaken.is_some();
    let handshaken = handshaken.unwrap_or_default();
    peer.subject = handshaken.subject;
    if handshaken.is_http2 {
        serve_http2(stream, peer, router, limits, keep_alive, draining).await;
    } else {
        serve_http1(stream, peer, router, limits, keep_alive, draining).await;
    }
}

async fn serve_http1(
    stream: Stream,
    peer: Peer,
    router: Router,
    limits: Limits,
    keep_alive: bool,
    draining: CancellationToken,
) {
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.unread_timeout));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(keep_alive)
            .header_read_timeout(limits.head_timeout)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(service))
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection of plain HTTP failed");
    }
}

async fn serve_http2(
    stream: Stream,
    peer: Peer,
    router: Router,
    limits: Limits,
    keep_alive: bool,
    draining: CancellationToken,
) {
    let responses = Responses::default();
    let begun = responses.clone();
    let service = tower::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let response = begun.begin();
        let answer = router.clone().oneshot(request);
        async move { answer.await.map(|answer: Response<Body>| answer.map(|body| response.body(body))) }
    });
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.unread_timeout));
    let mut connection = pin!(
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(service))
    );
    let mut checks = interval(limits.head_timeout.min(limits.unread_timeout) / CHECKS);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_ending = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = draining.cancelled(), if !is_ending => {
                connection.as_mut().graceful_shutdown();
                is_ending = true;
            }
            _ = checks.tick() => {
                if responses.is_unread_for(limits.unread_timeout) {
                    return tracing::debug!("connection closed: a response was not read in time");
                }
                // Without keep-alive, the connection is beyond the limit and must end soon, busy or not.
                if !keep_alive && responses.age() >= limits.head_timeout {
                    return;
                }
                if responses.is_idle_for(limits.head_timeout) {
                    if is_ending {
                        return;
                    }
                    connection.as_mut().graceful_shutdown();
                    is_ending = true;
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP/2 connection of plain HTTP failed");
    }
}
