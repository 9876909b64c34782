//! One connection of plain HTTP: TLS, HTTP/1.1 or HTTP/2, timeouts and shutdown.
//!
//! HTTP/2 is served only over TLS, if the client chooses it by ALPN, as browsers do.
//!
//! **Invariants**: a handshake, the head of a request and an unread response are limited in time, with both protocols. At
//! shutdown, the connection ends after the responses in progress.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::counted::CountedBody;
use super::responses::Responses;
use crate::access::Peer;
use crate::api::Caller;
use crate::incoming::{Calls, SlotLimits};
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
    /// Maximum number of open connections, in total and from one address, without overflow slots.
    pub slots: SlotLimits,
    /// Maximum time from the start of a connection, or from the previous response, to the end of a request's head.
    pub head_timeout: Duration,
    /// Maximum time that a client may leave a response unread.
    pub unread_timeout: Duration,
}

/// The settings of connections of one kind, regular or overflow.
#[derive(Clone)]
pub(super) struct Kind {
    pub(super) router: Router,
    pub(super) limits: Limits,
    /// Whether a connection may send more than one request.
    pub(super) keep_alive: bool,
}

/// What answers the requests of one connection.
#[derive(Clone)]
struct Answers {
    router: Router,
    peer: Peer,
    /// Counts the requests in progress; `None` without a slot.
    calls: Option<Calls>,
}

impl Answers {
    async fn answer(self, mut request: Request<Incoming>) -> Result<Response, Infallible> {
        let call = self.calls.as_ref().map(Calls::begin);
        let caller = self.peer.address.map(Caller::at);
        request.extensions_mut().insert(self.peer);
        let response = Caller::scope(caller, self.router.oneshot(request)).await?;
        Ok(match call {
            Some(call) => response.map(|inner| CountedBody::body(inner, call)),
            None => response,
        })
    }
}

/// Serves a connection until it ends. `calls` counts its requests in progress.
pub(super) async fn serve(
    mut stream: Stream,
    mut peer: Peer,
    kind: Kind,
    calls: Option<Calls>,
    draining: CancellationToken,
) {
    let Kind { router, limits, keep_alive } = kind;
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
    let answers = Answers { router, peer, calls };
    if handshaken.is_http2 {
        serve_http2(stream, answers, limits, keep_alive, draining).await;
    } else {
        serve_http1(stream, answers, limits, keep_alive, draining).await;
    }
}

async fn serve_http1(stream: Stream, answers: Answers, limits: Limits, keep_alive: bool, draining: CancellationToken) {
    let service = service_fn(move |request| answers.clone().answer(request));
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.unread_timeout));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(keep_alive)
            .header_read_timeout(limits.head_timeout)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(Box::pin(stream)), service)
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

async fn serve_http2(stream: Stream, answers: Answers, limits: Limits, keep_alive: bool, draining: CancellationToken) {
    let responses = Responses::default();
    let begun = responses.clone();
    let service = service_fn(move |request| {
        let (response, answer) = (begun.begin(), answers.clone().answer(request));
        async move { answer.await.map(|answer| answer.map(|body| response.body(body))) }
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
            .serve_connection(TokioIo::new(Box::pin(stream)), service)
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
