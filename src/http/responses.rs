//! The responses of an HTTP/2 connection: which are in progress, and which the client does not read.
//!
//! With HTTP/1.1 a full connection shows that a client does not read. With HTTP/2 each response has a window of its own,
//! and the connection asks for more bytes of a response only when that window has room.
//!
//! **Invariant**: a response is in progress from its request to the end of its body, also if the client resets it.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

/// The responses of a connection. Clones share them.
#[derive(Clone)]
pub(super) struct Responses(Arc<Mutex<State>>);

struct State {
    begun: Instant,
    /// The end of the last response, or the start of the connection.
    idle_since: Instant,
    next: u64,
    /// For each response in progress: since when the connection has not asked for more bytes; `None` while the response
    /// is computed.
    in_progress: HashMap<u64, Option<Instant>>,
}

impl Default for Responses {
    fn default() -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(State { begun: now, idle_since: now, next: 0, in_progress: HashMap::new() })))
    }
}

impl Responses {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each critical section is a single update, so a panic leaves valid data.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a response.
    pub(super) fn begin(&self) -> InProgress {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        state.in_progress.insert(number, None);
        drop(state);
        InProgress { responses: self.clone(), number }
    }

    /// Returns true if the client has left a response unread for `time`.
    pub(super) fn is_unread_for(&self, time: Duration) -> bool {
        self.lock().in_progress.values().flatten().any(|since| since.elapsed() >= time)
    }

    /// Returns true if no response was in progress for `time`.
    pub(super) fn is_idle_for(&self, time: Duration) -> bool {
        let state = self.lock();
        state.in_progress.is_empty() && state.idle_since.elapsed() >= time
    }

    /// Returns the age of the connection.
    pub(super) fn age(&self) -> Duration {
        self.lock().begun.elapsed()
    }
}

/// A response in progress. Dropping it ends it.
pub(super) struct InProgress {
    responses: Responses,
    number: u64,
}

impl InProgress {
    /// Returns the body of the response, which ends the response when it is dropped.
    pub(super) fn body(self, inner: Body) -> Body {
        Body::new(TrackedBody { inner, response: self })
    }

    fn set_unread(&self, since: Option<Instant>) {
        self.responses.lock().in_progress.insert(self.number, since);
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut state = self.responses.lock();
        state.in_progress.remove(&self.number);
        state.idle_since = Instant::now();
    }
}

struct TrackedBody {
    inner: Body,
    response: InProgress,
}

impl http_body::Body for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        self.response.set_unread(polled.is_ready().then(Instant::now));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
