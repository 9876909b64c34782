//! Response bodies that count their request as in progress.
//!
//! **Invariant**: a request is in progress until the last piece of its response is handed to the connection. A piece has
//! at most [`PIECE_BYTES_MAX`] bytes, so that a connection with a long unread response is not idle.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};

use crate::incoming::CallInProgress;

/// Maximum size of a piece of a response, in bytes.
const PIECE_BYTES_MAX: usize = 32 * 1024;

/// The body of a response whose request is in progress.
pub(super) struct CountedBody {
    inner: Body,
    unsent: Bytes,
    _call: CallInProgress,
}

impl CountedBody {
    /// Returns `inner` as a body that holds `call` until its last piece is handed to the connection.
    pub(super) fn body(inner: Body, call: CallInProgress) -> Body {
        Body::new(Self { inner, unsent: Bytes::new(), _call: call })
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.unsent.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.unsent = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other @ (Some(Err(_)) | None) => return Poll::Ready(other),
            }
        }
        let piece = self.unsent.len().min(PIECE_BYTES_MAX);
        Poll::Ready(Some(Ok(Frame::data(self.unsent.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.unsent.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // If part of the inner body is taken already, the hint of the inner body is too small.
        if self.unsent.is_empty() { self.inner.size_hint() } else { SizeHint::default() }
    }
}
