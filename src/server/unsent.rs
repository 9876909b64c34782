//! Responses that wait for their callers to read them: how many bytes, and for how long.
//!
//! HTTP/2 lets a caller open hundreds of calls and read none of their responses. The bytes of a response are made at once
//! and counted, for its connection and for all, until they are handed over; a connection on which one waits for too long
//! is ended.
//!
//! **Invariant**: the bytes that wait are at most [`TOTAL_BYTES_MAX`], [`CALLER_BYTES_MAX`] of one address and
//! [`CONNECTION_BYTES_MAX`] of a connection, but that one response of any size may wait on a connection that holds no other.
//! One address keeps at most [`CALLER_PLACES_MAX`] places for reads.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
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

use crate::api::{READS_MAX, ReadPermit, ServiceError};
use crate::grpc::{Caller, CallerSlots, Place};

/// Bytes of responses that wait on one connection.
const CONNECTION_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of responses that wait on all connections of one address.
const CALLER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Places for reads that unsent responses to one address keep. Beyond them a read's place is free once its bytes are made.
const CALLER_PLACES_MAX: usize = 24;
/// Bytes of responses that wait on all connections.
const TOTAL_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Bytes handed over at a time. A response of no more than this does not keep its read's place.
const PIECE_BYTES_MAX: usize = 32 * 1024;
/// How long a response may wait without a byte of it being taken.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(20);
/// How often connections are looked through for such responses.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What waits on all connections.
#[derive(Debug)]
pub(super) struct Unsent {
    bytes: AtomicUsize,
    connections: Mutex<Vec<Weak<ConnectionUnsent>>>,
    /// Bytes by address.
    callers: Mutex<HashMap<IpAddr, Weak<AtomicUsize>>>,
    /// Those for reads that responses keep until they are sent.
    places: CallerSlots,
}

impl Default for Unsent {
    fn default() -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            connections: Mutex::default(),
            callers: Mutex::default(),
            places: CallerSlots::new(READS_MAX, CALLER_PLACES_MAX),
        }
    }
}

/// What waits on one connection.
#[derive(Debug)]
pub(super) struct ConnectionUnsent {
    all: Arc<Unsent>,
    from: Option<IpAddr>,
    /// Of all connections from there.
    caller_bytes: Arc<AtomicUsize>,
    bytes: AtomicUsize,
    next_response: AtomicU64,
    /// Since when each response waits for its caller.
    waiting: Mutex<HashMap<u64, Instant>>,
    /// Cancelled when a response has waited for too long.
    pub(super) is_stuck: CancellationToken,
}

impl Unsent {
    /// Of a connection from an address, which counts into this.
    pub(super) fn connection(self: &Arc<Self>, from: Option<IpAddr>) -> Arc<ConnectionUnsent> {
        let connection = Arc::new(ConnectionUnsent {
            all: Arc::clone(self),
            from,
            caller_bytes: from.map(|address| self.caller_bytes(address)).unwrap_or_default(),
            bytes: AtomicUsize::new(0),
            next_response: AtomicU64::new(0),
            waiting: Mutex::default(),
            is_stuck: CancellationToken::new(),
        });
        lock(&self.connections).push(Arc::downgrade(&connection));
        connection
    }

    fn caller_bytes(&self, address: IpAddr) -> Arc<AtomicUsize> {
        let mut callers = lock(&self.callers);
        if let Some(bytes) = callers.get(&address).and_then(Weak::upgrade) {
            return bytes;
        }
        let bytes = Arc::default();
        callers.insert(address, Arc::downgrade(&bytes));
        bytes
    }

    /// Ends connections on which a response waits for too long, for as long as it is polled.
    pub(super) async fn end_stuck_connections(self: Arc<Self>) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look(Instant::now(), UNREAD_TIME_MAX);
        }
    }

    fn look(&self, now: Instant, unread_max: Duration) {
        lock(&self.connections).retain(|connection| {
            let Some(connection) = connection.upgrade() else { return false };
            let is_stuck = lock(&connection.waiting).values().any(|since| now.duration_since(*since) >= unread_max);
            if is_stuck {
                connection.is_stuck.cancel();
            }
            !is_stuck
        });
        lock(&self.callers).retain(|_, bytes| bytes.strong_count() > 0);
    }
}

/// Whose connection it is, among the extensions of each of its requests.
#[derive(Clone, Debug)]
pub(super) struct Peer(pub(super) Arc<ConnectionUnsent>);

/// A panic while a lock was held leaves counts that are as good as before: none of them is between two states.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes counted as waiting, until this is dropped.
#[derive(Debug)]
struct Charge {
    connection: Arc<ConnectionUnsent>,
    bytes: usize,
}

impl Charge {
    /// None if there is no room for so many.
    fn take(connection: &Arc<ConnectionUnsent>, bytes: usize) -> Option<Self> {
        // Counted first, so that two at once see each other; an uncounted moment would let both in.
        let charge = Self { connection: Arc::clone(connection), bytes };
        let own = connection.bytes.fetch_add(bytes, Ordering::Relaxed);
        let of_caller = connection.caller_bytes.fetch_add(bytes, Ordering::Relaxed);
        let total = connection.all.bytes.fetch_add(bytes, Ordering::Relaxed);
        let has_room = own + bytes <= CONNECTION_BYTES_MAX || own == 0;
        let caller_has_room = of_caller + bytes <= CALLER_BYTES_MAX.max(bytes);
        (has_room && caller_has_room && total + bytes <= TOTAL_BYTES_MAX.max(bytes)).then_some(charge)
    }

    fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.connection.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.connection.caller_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.connection.all.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

/// A response among those that may wait.
#[derive(Debug)]
struct Ticket {
    connection: Arc<ConnectionUnsent>,
    number: u64,
}

impl Ticket {
    fn new(connection: Arc<ConnectionUnsent>) -> Self {
        let number = connection.next_response.fetch_add(1, Ordering::Relaxed);
        let ticket = Self { connection, number };
        ticket.waits();
        ticket
    }

    /// From now on, until the connection asks for more.
    fn waits(&self) {
        lock(&self.connection.waiting).insert(self.number, Instant::now());
    }

    /// The connection asks for more.
    fn goes_on(&self) {
        lock(&self.connection.waiting).remove(&self.number);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.goes_on();
    }
}

/// Counts the responses of the services below it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct UnsentLayer;

impl<S> Layer<S> for UnsentLayer {
    type Service = UnsentService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        UnsentService { inner }
    }
}

/// See [`UnsentLayer`].
#[derive(Clone, Debug)]
pub(super) struct UnsentService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for UnsentService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = UnsentFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let connection = request.extensions().get::<Peer>().map(|Peer(connection)| Arc::clone(connection));
        if let Some(address) = connection.as_ref().and_then(|connection| connection.from) {
            request.extensions_mut().insert(Caller(address));
        }
        UnsentFuture { inner: self.inner.call(request), connection }
    }
}

pin_project! {
    /// A response being made.
    pub(super) struct UnsentFuture<F> {
        #[pin]
        inner: F,
        // None where the service is called without a connection.
        connection: Option<Arc<ConnectionUnsent>>,
    }
}

impl<F, E> Future for UnsentFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(context));
        let Some(connection) = this.connection.take() else { return Poll::Ready(answer) };
        Poll::Ready(answer.map(|mut response| {
            let place = response.extensions_mut().remove::<ReadPermit>();
            response.map(|inner| {
                let mut body = UnsentBody::new(inner, connection);
                // The bytes of a read are made now, while there is a place for it, and not when its caller reads them.
                if let Some(place) = place {
                    body.prepare(context, place);
                }
                Body::new(body)
            })
        }))
    }
}

/// A body whose bytes are counted while they wait.
struct UnsentBody {
    inner: Body,
    connection: Arc<ConnectionUnsent>,
    ticket: Ticket,
    /// What is left of the data under way.
    left: Bytes,
    charge: Option<Charge>,
    /// What follows the data under way.
    next: Option<Result<Frame<Bytes>, Status>>,
    /// That of the read, and which one of the caller's it is.
    place: Option<(ReadPermit, Place)>,
    is_over: bool,
}

impl UnsentBody {
    fn new(inner: Body, connection: Arc<ConnectionUnsent>) -> Self {
        let ticket = Ticket::new(Arc::clone(&connection));
        Self { inner, connection, ticket, left: Bytes::new(), charge: None, next: None, place: None, is_over: false }
    }

    /// Makes the first bytes of a read, whose place is kept if they are many.
    fn prepare(&mut self, context: &mut Context<'_>, place: ReadPermit) {
        if let Poll::Ready(Some(frame)) = Pin::new(&mut self.inner).poll_frame(context) {
            self.take_frame(frame);
            if self.left.len() > PIECE_BYTES_MAX {
                let kept = self.connection.all.places.take(self.connection.from.map(Caller));
                self.place = kept.map(|kept| (place, kept));
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
            self.left = data;
        } else {
            self.next = Some(refusal());
            self.is_over = true;
        }
    }

    /// The next piece of the data under way.
    fn piece(&mut self) -> Option<Frame<Bytes>> {
        if self.left.is_empty() {
            return None;
        }
        let piece = self.left.split_to(self.left.len().min(PIECE_BYTES_MAX));
        if let Some(charge) = &mut self.charge {
            charge.give_back(piece.len());
        }
        if self.left.is_empty() {
            (self.charge, self.place) = (None, None);
        }
        Some(Frame::data(piece))
    }
}

/// The end of a call whose response has no room: trailers with its status.
fn refusal() -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    Status::from(ServiceError::TooManyUnread).add_header(&mut trailers).map(|()| Frame::trailers(trailers))
}

impl http_body::Body for UnsentBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        this.ticket.goes_on();
        loop {
            if let Some(piece) = this.piece() {
                this.ticket.waits();
                return Poll::Ready(Some(Ok(piece)));
            }
            if let Some(next) = this.next.take() {
                this.ticket.waits();
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
        self.left.is_empty() && self.next.is_none() && (self.is_over || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        // Some of the inner body may be here already.
        if self.left.is_empty() && self.next.is_none() { self.inner.size_hint() } else { SizeHint::default() }
    }
}

#[cfg(test)]
mod tests;
