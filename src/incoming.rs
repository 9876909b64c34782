//! The stream of connections that a listener accepts.
//!
//! **Invariant**: a failure to accept (for example, no file descriptors left) is logged, and accepting is retried after
//! a pause. A failure never ends the stream.

mod slots;

pub use slots::{CallInProgress, Calls, ConnectionSlots, Slot, SlotLimits};

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;

/// Shortest time between two log lines about failures to accept.
const LOG_PERIOD: Duration = Duration::from_mins(1);
/// Pause after a failure to accept. The listener stays ready after a failure, so a retry without a pause would spin.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// An endless stream of accepted connections.
#[derive(Debug)]
pub struct Incoming {
    listener: TcpListener,
    /// The pause that follows a failure to accept.
    pause: Option<Pin<Box<Sleep>>>,
    /// Time of the last log line about failures, and the number of failures since.
    logged: Option<Instant>,
    failures: u64,
}

impl Incoming {
    /// Accepts connections from `listener`.
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, pause: None, logged: None, failures: 0 }
    }

    fn handle_accept(&mut self, result: io::Result<(TcpStream, SocketAddr)>) -> Option<(TcpStream, SocketAddr)> {
        match result {
            Ok((stream, peer)) => {
                // Responses are small, and clients wait for each: Nagle's algorithm would only delay them.
                let _ = stream.set_nodelay(true);
                Some((stream, peer))
            }
            Err(error) => {
                self.failures += 1;
                if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_PERIOD) {
                    self.logged = Some(Instant::now());
                    let count = std::mem::take(&mut self.failures);
                    tracing::warn!(%error, count, "cannot accept connections; this is logged at most once a minute");
                }
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
            if let Some(connection) = self.handle_accept(accepted) {
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
    async fn accept_is_retried_after_a_pause() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = Incoming::new(listener);
        assert!(incoming.handle_accept(Err(io::Error::other("too many open files"))).is_none());
        let _client = TcpStream::connect(address).await.unwrap();
        let before = tokio::time::Instant::now();
        let (stream, _) = incoming.next().await.unwrap();
        assert!(before.elapsed() >= FAILURE_PAUSE);
        assert!(stream.nodelay().unwrap());
    }
}
