//! Response bodies that hold a permit until they are sent.
//!
//! **Invariant**: a body is sent in pieces of at most [`PIECE_BYTES_MAX`] and holds its permit until its client has
//! read the pieces. The number of large responses that wait for slow clients is therefore at most the number of
//! permits.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};

/// Maximum size of a piece, in bytes. A response of at most this size holds no permit.
const PIECE_BYTES_MAX: usize = 32 * 1024;

/// A body of more than one piece, with its permit.
pub(super) struct PermitBody<T> {
    unsent: Bytes,
    _permit: T,
}

impl<T: Send + Unpin + 'static> PermitBody<T> {
    /// Returns a body of `bytes`. If the body has more than one piece, it holds `permit` until it is dropped.
    pub(super) fn body(bytes: Bytes, permit: Option<T>) -> Body {
        match permit {
            Some(permit) if bytes.len() > PIECE_BYTES_MAX => Body::new(Self { unsent: bytes, _permit: permit }),
            Some(_) | None => Body::from(bytes),
        }
    }
}

impl<T: Unpin> HttpBody for PermitBody<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.unsent.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.unsent.len().min(PIECE_BYTES_MAX);
        Poll::Ready(Some(Ok(Frame::data(self.unsent.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.unsent.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.unsent.len()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn large_body_holds_permit_until_last_piece() {
        let permits = Arc::new(Semaphore::new(1));
        let permit = || Arc::clone(&permits).try_acquire_owned().ok();
        let small = PermitBody::body(Bytes::from(vec![1; PIECE_BYTES_MAX]), permit());
        assert_eq!(permits.available_permits(), 1);
        drop(small);

        let mut large = PermitBody::body(Bytes::from(vec![2; 2 * PIECE_BYTES_MAX + 5]), permit());
        assert_eq!(large.size_hint().exact(), Some(2 * PIECE_BYTES_MAX as u64 + 5));
        let mut sizes = Vec::new();
        while let Some(frame) = large.frame().await {
            assert_eq!(permits.available_permits(), 0);
            sizes.push(frame.unwrap().into_data().unwrap().len());
        }
        assert_eq!(sizes, [PIECE_BYTES_MAX, PIECE_BYTES_MAX, 5]);
        drop(large);
        assert_eq!(permits.available_permits(), 1);
    }
}
