//! Bodies of answers that hold a turn until they are sent.
//!
//! **Invariant**: a body is handed over in pieces of [`PIECE_BYTES_MAX`], so that as long as its client leaves it unread,
//! the turn it was made in is not given to another: large answers that wait for slow clients are no more than there are
//! turns.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};

/// Bytes handed over at a time; answers that have no more hold no turn.
const PIECE_BYTES_MAX: usize = 32 * 1024;

/// What is left to send.
pub(super) struct Held<T> {
    left: Bytes,
    _turn: T,
}

impl<T: Send + Unpin + 'static> Held<T> {
    /// A body of `bytes` that keeps `turn` while it has more than one piece.
    pub(super) fn body(bytes: Bytes, turn: Option<T>) -> Body {
        match turn {
            Some(turn) if bytes.len() > PIECE_BYTES_MAX => Body::new(Self { left: bytes, _turn: turn }),
            Some(_) | None => Body::from(bytes),
        }
    }
}

impl<T: Unpin> HttpBody for Held<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.left.len().min(PIECE_BYTES_MAX);
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(u64::try_from(self.left.len()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn a_large_body_holds_its_turn_to_the_last_piece() {
        let turns = Arc::new(Semaphore::new(1));
        let turn = || Arc::clone(&turns).try_acquire_owned().ok();
        let small = Held::body(Bytes::from(vec![1; PIECE_BYTES_MAX]), turn());
        assert_eq!(turns.available_permits(), 1);
        drop(small);

        let mut large = Held::body(Bytes::from(vec![2; 2 * PIECE_BYTES_MAX + 5]), turn());
        assert_eq!(large.size_hint().exact(), Some(2 * PIECE_BYTES_MAX as u64 + 5));
        let mut sizes = Vec::new();
        while let Some(frame) = large.frame().await {
            assert_eq!(turns.available_permits(), 0);
            sizes.push(frame.unwrap().into_data().unwrap().len());
        }
        assert_eq!(sizes, [PIECE_BYTES_MAX, PIECE_BYTES_MAX, 5]);
        drop(large);
        assert_eq!(turns.available_permits(), 1);
    }
}
