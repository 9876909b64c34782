//! The gRPC connections that a listener accepts, and their limits.
//!
//! **Invariant**: at most the configured number of connections is open, in total and from one address. Beyond a limit,
//! an idle connection gives way to the new one; if no connection is idle, the new one is closed before the server reads a
//! byte from it. A connection is also closed if it does not send its first bytes in time, or if a
//! response on it stays unread for too long.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use super::send_buffer::{ConnectionBuffer, SendBuffer, SendBuffers};
use crate::incoming::{ConnectionSlots, Incoming, Slot, SlotLimits};
use crate::tls::{self, Acceptor};

/// Maximum time until a connection has sent its first bytes, a TLS handshake included. Keep-alive and other timeouts apply only after these
/// bytes.
const OPENING_TIME_MAX: Duration = Duration::from_secs(10);
/// Length of the HTTP/2 connection preface, which distinguishes HTTP/2 from HTTP/1.
const OPENING_BYTES: usize = 24;

/// The stream of accepted connections, with a limit on open connections.
pub(super) struct Accepted {
    incoming: Incoming,
    slots: ConnectionSlots,
    send_buffers: Arc<SendBuffers>,
    acceptor: Acceptor,
}

impl Accepted {
    pub(super) fn new(
        listener: TcpListener,
        limits: SlotLimits,
        send_buffers: Arc<SendBuffers>,
        acceptor: Acceptor,
    ) -> Self {
        let slots = ConnectionSlots::new("gRPC", limits);
        Self { incoming: Incoming::new(listener), slots, send_buffers, acceptor }
    }
}

impl Stream for Accepted {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while let Some((stream, peer)) = ready!(Pin::new(&mut self.incoming).poll_next(context)) {
            if let Some(slot) = self.slots.take(peer.ip()) {
                let stream = self.acceptor.accept(stream);
                let send_buffer = self.send_buffers.connection(Some(peer.ip()), Some(&slot));
                return Poll::Ready(Some(Ok(Connection::new(stream, slot, OPENING_TIME_MAX, send_buffer))));
            }
        }
        Poll::Ready(None)
    }
}

/// A connection with its slot.
pub(super) struct Connection {
    stream: tls::Stream,
    opening: Option<Opening>,
    send_buffer: ConnectionBuffer,
    /// Completes once a response on this connection has been unread for too long, or once this connection gives way to
    /// another.
    close_requested: Pin<Box<WaitForCancellationFutureOwned>>,
    _slot: Slot,
}

/// The state of a connection before its first [`OPENING_BYTES`] have arrived.
struct Opening {
    missing_bytes: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(stream: tls::Stream, slot: Slot, opening_time: Duration, send_buffer: Arc<SendBuffer>) -> Self {
        let opening = Opening { missing_bytes: OPENING_BYTES, deadline: Box::pin(sleep(opening_time)) };
        let close_requested = Box::pin(send_buffer.close_token.clone().cancelled_owned());
        let send_buffer = ConnectionBuffer(send_buffer);
        Self { stream, opening: Some(opening), send_buffer, close_requested, _slot: slot }
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionBuffer;

    fn connect_info(&self) -> ConnectionBuffer {
        self.send_buffer.clone()
    }
}

impl Connection {
    /// Returns an error if the connection must close. A connection whose client reads nothing is written, not read.
    fn check_close(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.close_requested.as_mut().poll(context).is_ready() {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            Ok(())
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_close(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let this = &mut *self;
        if let Some(opening) = &mut this.opening {
            // The handshake ends before the first byte arrives, and a request needs more bytes than the opening.
            if let Some(handshaken) = this.stream.handshaken() {
                this.send_buffer.0.handshaken.get_or_init(|| handshaken);
            }
            opening.missing_bytes = opening.missing_bytes.saturating_sub(buffer.filled().len() - before);
            if opening.missing_bytes == 0 {
                this.opening = None;
            } else if read.is_pending() {
                ready!(opening.deadline.as_mut().poll(context));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check_close(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_close(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_close(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_close(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const OPENING: Duration = Duration::from_millis(50);

    async fn connected() -> (TcpStream, Connection, ConnectionSlots) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let slots = ConnectionSlots::new("gRPC", SlotLimits { total_max: 1, address_max: 1 });
        let slot = slots.take(peer.ip()).unwrap();
        let send_buffer = Arc::<SendBuffers>::default().connection(None, Some(&slot));
        (client, Connection::new(Acceptor::default().accept(stream), slot, OPENING, send_buffer), slots)
    }

    #[tokio::test]
    async fn connection_without_first_bytes_times_out() {
        for sent in [&b""[..], b"P"] {
            let (mut client, mut connection, _slots) = connected().await;
            client.write_all(sent).await.unwrap();
            let read = connection.read_exact(&mut [0; OPENING_BYTES]).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
    }

    #[tokio::test]
    async fn connection_may_be_silent_after_first_bytes() {
        let (mut client, mut connection, _slots) = connected().await;
        client.write_all(&[b'P'; OPENING_BYTES]).await.unwrap();
        connection.read_exact(&mut [0; OPENING_BYTES]).await.unwrap();
        let waiting = tokio::time::timeout(OPENING * 4, connection.read_u8()).await;
        assert!(waiting.is_err(), "{waiting:?}");
    }

    #[tokio::test]
    async fn idle_connection_ends_when_it_gives_way() {
        let (mut client, mut connection, slots) = connected().await;
        client.write_all(&[b'P'; OPENING_BYTES]).await.unwrap();
        connection.read_exact(&mut [0; OPENING_BYTES]).await.unwrap();
        let other = slots.take(client.local_addr().unwrap().ip());
        assert!(other.is_some());
        assert_eq!(connection.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
    #[tokio::test]
    async fn connection_that_waits_for_its_client_to_read_ends_when_it_gives_way() {
        let (client, mut connection, slots) = connected().await;
        let other = client.local_addr().unwrap().ip();
        let writing = tokio::spawn(async move {
            loop {
                if let Err(error) = connection.write_all(&[0; 1 << 13]).await {
                    return error.kind();
                }
            }
        });
        // The client reads nothing, so the writes block.
        sleep(OPENING).await;
        assert!(!writing.is_finished());
        assert!(slots.take(other).is_some());
        let ended = tokio::time::timeout(Duration::from_secs(10), writing).await.expect("the write ends");
        assert_eq!(ended.unwrap(), io::ErrorKind::TimedOut);
    }
}
