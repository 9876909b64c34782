//! The connections of a listener, as they come.
//!
//! **Invariant**: a failure to accept (no descriptors left) is logged and tried again after a pause; it never ends the
//! listener.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;

/// What cannot be accepted now stays ready, and would be tried without end.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// Accepts one connection after the other, without end.
#[derive(Debug)]
pub struct Incoming {
    listener: TcpListener,
    /// After a failure.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    /// Accepts the connections of `listener`.
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, pause: None }
    }

    fn accepted(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) -> Option<(TcpStream, SocketAddr)> {
        match accepted {
            Ok((stream, peer)) => {
                // Answers are small and awaited one by one: they are not held back to fill a packet.
                let _ = stream.set_nodelay(true);
                Some((stream, peer))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                self.pause = Some(Box::pin(sleep(FAILURE_PAUSE)));
                None
            }
        }
    }
}

impl Stream for Incoming {
    type Item = (TcpStream, SocketAddr);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let accepted = ready!(self.listener.poll_accept(context));
            if let Some(connection) = self.accepted(accepted) {
                return Poll::Ready(Some(connection));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_failure_to_accept_is_tried_again_after_a_pause() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = Incoming::new(listener);
        assert!(incoming.accepted(Err(io::Error::other("too many open files"))).is_none());
        let _client = TcpStream::connect(address).await.unwrap();
        let before = tokio::time::Instant::now();
        let (stream, _) = incoming.next().await.unwrap();
        assert!(before.elapsed() >= FAILURE_PAUSE);
        assert!(stream.nodelay().unwrap());
    }
}
