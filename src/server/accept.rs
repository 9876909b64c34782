//! Taking connections in.
//!
//! **Invariant**: no more than the configured number of connections is open; one too many is closed
//! before a byte of it is read, one that does not begin to speak gives its place back, and one on which a response stays
//! unread is ended.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::unsent::{Peer, Unsent};
use crate::incoming::Incoming;

/// How long a connection may take to say what it speaks. Until then nobody else looks at the clock.
const OPENING_TIME_MAX: Duration = Duration::from_secs(10);
/// What tells HTTP/2 from HTTP/1 is that long.
const OPENING_BYTES: usize = 24;

/// The connections of a listener, at most so many at one time.
pub(super) struct Accepted {
    incoming: Incoming,
    permits: Arc<Semaphore>,
    unsent: Arc<Unsent>,
}

impl Accepted {
    pub(super) fn new(listener: TcpListener, connections_max: usize, unsent: Arc<Unsent>) -> Self {
        Self { incoming: Incoming::new(listener), permits: Arc::new(Semaphore::new(connections_max)), unsent }
    }
}

impl Stream for Accepted {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while let Some((stream, peer)) = ready!(Pin::new(&mut self.incoming).poll_next(context)) {
            if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
                return Poll::Ready(Some(Ok(Connection::new(stream, permit, OPENING_TIME_MAX, &self.unsent))));
            }
            tracing::warn!(%peer, "connection closed: as many as --max-connections allows are open");
        }
        Poll::Ready(None)
    }
}

/// A connection, and its place among those allowed.
pub(super) struct Connection {
    stream: TcpStream,
    opening: Option<Opening>,
    peer: Peer,
    /// Done once a response on this connection has waited for too long.
    is_stuck: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: OwnedSemaphorePermit,
}

/// A connection's first bytes: how many are missing, and until when.
struct Opening {
    missing: usize,
    time: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit, opening_time: Duration, unsent: &Arc<Unsent>) -> Self {
        let opening = Opening { missing: OPENING_BYTES, time: Box::pin(sleep(opening_time)) };
        let unsent = unsent.connection(stream.peer_addr().ok().map(|address| address.ip()));
        let is_stuck = Box::pin(unsent.is_stuck.clone().cancelled_owned());
        Self { stream, opening: Some(opening), peer: Peer(unsent), is_stuck, _permit: permit }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_stuck.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(opening) = &mut self.opening {
            opening.missing = opening.missing.saturating_sub(buffer.filled().len() - before);
            if opening.missing == 0 {
                self.opening = None;
            } else if read.is_pending() {
                ready!(opening.time.as_mut().poll(context));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const OPENING: Duration = Duration::from_millis(50);

    async fn connected() -> (TcpStream, Connection, Arc<Semaphore>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let permits = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&permits).try_acquire_owned().unwrap();
        (client, Connection::new(stream, permit, OPENING, &Arc::default()), permits)
    }

    #[tokio::test]
    async fn a_connection_that_does_not_begin_is_given_up() {
        for said in [&b""[..], b"P"] {
            let (mut client, mut connection, _permits) = connected().await;
            client.write_all(said).await.unwrap();
            let read = connection.read_exact(&mut [0; OPENING_BYTES]).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
    }

    #[tokio::test]
    async fn one_that_began_may_be_silent() {
        let (mut client, mut connection, _permits) = connected().await;
        client.write_all(&[b'P'; OPENING_BYTES]).await.unwrap();
        connection.read_exact(&mut [0; OPENING_BYTES]).await.unwrap();
        let waiting = tokio::time::timeout(OPENING * 4, connection.read_u8()).await;
        assert!(waiting.is_err(), "{waiting:?}");
    }
}
