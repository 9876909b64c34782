//! Limits on response bytes that clients have not read yet, and on the time that a response may stay unread.
//!
//! HTTP/2 lets a client open hundreds of calls and read none of their responses. The bytes of a response are encoded
//! immediately, and counted until the connection takes them. There is a count for each connection, a count for each
//! client address, and a count for all connections together. A connection is closed if one of its responses stays
//! unread for too long.
//!
//! **Invariant**: the unsent bytes are at most [`TOTAL_BYTES_MAX`] in total, [`CALLER_BYTES_MAX`] for one address and
//! [`CONNECTION_BYTES_MAX`] for one connection. Exception: a response of any size may be unsent if its connection has
//! no other unsent response. The unsent responses to one address hold at most three quarters of
//! the read permits; beyond that, a read releases its permit when its bytes are encoded.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use pin_project_lite::pin_project;
use prost::bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use crate::access::Peer;
use crate::api::{Caller, CallerScope, CallerSlot, CallerSlots, ReadPermit, ServiceError, ServiceLimits};
use crate::incoming::{CallInProgress, Calls, Slot};
use crate::tls::Handshaken;

/// The paths of the health service of gRPC.
const HEALTH_SERVICE: &str = "/grpc.health.v1.Health/";
/// Maximum number of unsent response bytes of one connection.
const CONNECTION_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Maximum number of unsent response bytes of all connections from one address.
const CALLER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Maximum number of unsent response bytes of all connections.
const TOTAL_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Maximum number of bytes that are handed to a connection at a time. A response of at most this size does not hold its
/// read permit.
const PIECE_BYTES_MAX: usize = 32 * 1024;
/// Maximum time that a response may stay unread before its connection is closed.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(20);
/// Interval at which connections are checked for unread responses.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The send buffers of all connections.
#[derive(Debug)]
pub(super) struct SendBuffers {
    bytes: AtomicUsize,
    connections: Mutex<Vec<Weak<SendBuffer>>>,
    /// Unsent bytes by address.
    callers: Mutex<HashMap<Caller, Weak<AtomicUsize>>>,
    /// Slots for read permits that responses hold until they are sent.
    permit_slots: CallerSlots,
}

impl Default for SendBuffers {
    fn default() -> Self {
        Self::new(&ServiceLimits::DEFAULT)
    }
}

impl SendBuffers {
    /// Creates the buffers of a server with these limits.
    pub(super) fn new(limits: &ServiceLimits) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            connections: Mutex::default(),
            callers: Mutex::default(),
            permit_slots: CallerSlots::new(limits.reads_max),
        }
    }
}

/// The send buffer of one connection.
#[derive(Debug)]
pub(super) struct SendBuffer {
    all: Arc<SendBuffers>,
    /// The client's address; none if it is unknown.
    address: Option<IpAddr>,
    /// By whom the connection is counted; none if the address is unknown.
    caller: Option<Caller>,
    /// The result of the TLS handshake; empty without TLS.
    pub(super) handshaken: OnceLock<Handshaken>,
    /// Unsent bytes of all connections from this address.
    caller_bytes: Arc<AtomicUsize>,
    bytes: AtomicUsize,
    next_response: AtomicU64,
    /// Response numbers of unread responses, each with the time at which the response was handed to the connection.
    unread: Mutex<HashMap<u64, Instant>>,
    /// Counts the calls in progress; none in tests.
    calls: Option<Calls>,
    /// Cancelled when a response has been unread for too long, or when the connection gives way to another. Then the
    /// connection is closed.
    pub(super) close_token: CancellationToken,
}

impl SendBuffers {
    /// Creates the send buffer of a connection from an address.
    pub(super) fn connection(self: &Arc<Self>, address: Option<IpAddr>, slot: Option<&Slot>) -> Arc<SendBuffer> {
        let caller = address.map(Caller::at);
        let connection = Arc::new(SendBuffer {
            all: Arc::clone(self),
            address,
            caller,
            handshaken: OnceLock::new(),
            caller_bytes: caller.map(|caller| self.caller_bytes(caller)).unwrap_or_default(),
            bytes: AtomicUsize::new(0),
            next_response: AtomicU64::new(0),
            unread: Mutex::default(),
            calls: slot.map(Slot::calls),
            close_token: slot.map(Slot::close_token).cloned().unwrap_or_default(),
        });
        lock(&self.connections).push(Arc::downgrade(&connection));
        connection
    }

    fn caller_bytes(&self, caller: Caller) -> Arc<AtomicUsize> {
        let mut callers = lock(&self.callers);
        if let Some(bytes) = callers.get(&caller).and_then(Weak::upgrade) {
            return bytes;
        }
        let bytes = Arc::default();
        callers.insert(caller, Arc::downgrade(&bytes));
        bytes
    }

    /// Closes connections on which a response is unread for too long. Runs until the future is dropped.
    pub(super) async fn end_stuck_connections(self: Arc<Self>) {
        let mut checks = interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            checks.tick().await;
            self.cancel_stuck(Instant::now(), UNREAD_TIME_MAX);
        }
    }

    /// Closes the connections with a response that is unread for at least `unread_max`. Removes closed connections from
    /// the list.
    fn cancel_stuck(&self, now: Instant, unread_max: Duration) {
        lock(&self.connections).retain(|connection| {
            let Some(connection) = connection.upgrade() else { return false };
            let is_stuck = lock(&connection.unread).values().any(|since| now.duration_since(*since) >= unread_max);
            if is_stuck {
                connection.close_token.cancel();
            }
            !is_stuck
        });
        lock(&self.callers).retain(|_, bytes| bytes.strong_count() > 0);
    }
}

/// The send buffer of a connection. Tonic adds it to the extensions of each request on the connection.
#[derive(Clone, Debug)]
pub(super) struct ConnectionBuffer(pub(super) Arc<SendBuffer>);

impl ConnectionBuffer {
    /// Returns the client of the connection.
    pub(super) fn peer(&self) -> Peer {
        let handshaken = self.0.handshaken.get();
        Peer {
            address: self.0.address,
            subject: handshaken.and_then(|handshaken| handshaken.subject.clone()),
            is_tls: handshaken.is_some(),
        }
    }
}

/// Locks `mutex` even if it is poisoned: each critical section is a single update, so that a panic leaves valid data.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that are counted as unsent until they are released or the charge is dropped.
#[derive(Debug)]
struct Charge {
    connection: Arc<SendBuffer>,
    bytes: usize,
}

impl Charge {
    /// Counts `bytes`; none if a limit would be exceeded.
    fn take(connection: &Arc<SendBuffer>, bytes: usize) -> Option<Self> {
        // Count first, then check: two concurrent charges must see each other. Dropping the charge undoes the count.
        let charge = Self { connection: Arc::clone(connection), bytes };
        let own = connection.bytes.fetch_add(bytes, Ordering::Relaxed);
        let of_caller = connection.caller_bytes.fetch_add(bytes, Ordering::Relaxed);
        let total = connection.all.bytes.fetch_add(bytes, Ordering::Relaxed);
        let has_room = own + bytes <= CONNECTION_BYTES_MAX || own == 0;
        let caller_has_room = of_caller + bytes <= CALLER_BYTES_MAX.max(bytes);
        (has_room && caller_has_room && total + bytes <= TOTAL_BYTES_MAX.max(bytes)).then_some(charge)
    }

    fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.connection.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.connection.caller_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.connection.all.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.release(self.bytes);
    }
}

/// The unread time of one response, recorded in the send buffer of its connection.
#[derive(Debug)]
struct UnreadTimer {
    connection: Arc<SendBuffer>,
    number: u64,
}

impl UnreadTimer {
    fn new(connection: Arc<SendBuffer>) -> Self {
        let number = connection.next_response.fetch_add(1, Ordering::Relaxed);
        let timer = Self { connection, number };
        timer.start();
        timer
    }

    /// Starts the timer. The timer runs until the connection asks for more bytes.
    fn start(&self) {
        lock(&self.connection.unread).insert(self.number, Instant::now());
    }

    /// Stops the timer, because the connection asks for more bytes.
    fn stop(&self) {
        lock(&self.connection.unread).remove(&self.number);
    }
}

impl Drop for UnreadTimer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A layer that counts the response bytes of the services inside it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SendBufferLayer;

impl<S> Layer<S> for SendBufferLayer {
    type Service = SendBufferService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SendBufferService { inner }
    }
}

/// See [`SendBufferLayer`].
#[derive(Clone, Debug)]
pub(super) struct SendBufferService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for SendBufferService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = SendBufferFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let buffer = request.extensions().get::<ConnectionBuffer>();
        let connection = buffer.map(|ConnectionBuffer(connection)| Arc::clone(connection));
        // Anyone may watch the health, so such a call must not keep a connection from giving way.
        let is_health = request.uri().path().starts_with(HEALTH_SERVICE);
        let calls = connection.as_ref().and_then(|connection| connection.calls.as_ref()).filter(|_| !is_health);
        let (call, caller) = (calls.map(Calls::begin), connection.as_ref().and_then(|connection| connection.caller));
        SendBufferFuture { inner: Caller::scope(caller, self.inner.call(request)), connection, call }
    }
}

pin_project! {
    /// The future of a response.
    pub(super) struct SendBufferFuture<F> {
        #[pin]
        inner: CallerScope<F>,
        // None if the service is called without a connection, as in tests.
        connection: Option<Arc<SendBuffer>>,
        // Keeps the connection from being idle until the last byte of the response is handed to it.
        call: Option<CallInProgress>,
    }
}

impl<F, E> Future for SendBufferFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(context));
        let call = this.call.take();
        let Some(connection) = this.connection.take() else { return Poll::Ready(result) };
        Poll::Ready(result.map(|mut response| {
            let permit = response.extensions_mut().remove::<ReadPermit>();
            response.map(|inner| {
                let mut body = BufferedBody::new(inner, connection, call);
                // Encode the response while the permit of the store read is held. Otherwise the response would be
                // encoded when the connection asks for its bytes, without a permit.
                if let Some(permit) = permit {
                    body.encode_first(context, permit);
                }
                Body::new(body)
            })
        }))
    }
}

/// A response body that counts its bytes until the connection takes them.
struct BufferedBody {
    inner: Body,
    connection: Arc<SendBuffer>,
    timer: UnreadTimer,
    /// The encoded bytes that the connection has not taken yet.
    unsent: Bytes,
    charge: Option<Charge>,
    /// The frame or error that follows the unsent bytes.
    next: Option<Result<Frame<Bytes>, Status>>,
    /// The read permit, and the slot of the client's address that the permit takes.
    permit: Option<(ReadPermit, CallerSlot)>,
    is_over: bool,
    _call: Option<CallInProgress>,
}

impl BufferedBody {
    fn new(inner: Body, connection: Arc<SendBuffer>, call: Option<CallInProgress>) -> Self {
        let timer = UnreadTimer::new(Arc::clone(&connection));
        let unsent = Bytes::new();
        Self { inner, connection, timer, unsent, charge: None, next: None, permit: None, is_over: false, _call: call }
    }

    /// Encodes the first frame of a read. If the frame has more than one piece, holds `permit` until the frame is sent.
    fn encode_first(&mut self, context: &mut Context<'_>, permit: ReadPermit) {
        if let Poll::Ready(Some(frame)) = Pin::new(&mut self.inner).poll_frame(context) {
            self.take_frame(frame);
            if self.unsent.len() > PIECE_BYTES_MAX {
                let slot = self.connection.all.permit_slots.take(self.connection.caller);
                self.permit = slot.map(|slot| (permit, slot));
            }
        }
    }

    fn take_frame(&mut self, frame: Result<Frame<Bytes>, Status>) {
        let data = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => data,
            Ok(Err(other)) => return self.next = Some(Ok(other)),
            Err(status) => return self.next = Some(Err(status)),
        };
        self.charge = Charge::take(&self.connection, data.len());
        if self.charge.is_some() {
            self.unsent = data;
        } else {
            self.next = Some(refusal());
            self.is_over = true;
        }
    }

    /// Returns the next piece of the unsent bytes.
    fn piece(&mut self) -> Option<Frame<Bytes>> {
        if self.unsent.is_empty() {
            return None;
        }
        let piece = self.unsent.split_to(self.unsent.len().min(PIECE_BYTES_MAX));
        if let Some(charge) = &mut self.charge {
            charge.release(piece.len());
        }
        if self.unsent.is_empty() {
            (self.charge, self.permit) = (None, None);
        }
        Some(Frame::data(piece))
    }
}

/// Returns the trailers that end a call if its response exceeds a limit.
fn refusal() -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    Status::from(ServiceError::TooManyUnread).add_header(&mut trailers).map(|()| Frame::trailers(trailers))
}

impl http_body::Body for BufferedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        this.timer.stop();
        loop {
            if let Some(piece) = this.piece() {
                this.timer.start();
                return Poll::Ready(Some(Ok(piece)));
            }
            if let Some(next) = this.next.take() {
                this.timer.start();
                return Poll::Ready(Some(next));
            }
            if this.is_over {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                Some(frame) => this.take_frame(frame),
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.unsent.is_empty() && self.next.is_none() && (self.is_over || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        // If part of the inner body is taken already, the hint of the inner body is too small.
        if self.unsent.is_empty() && self.next.is_none() { self.inner.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests;
