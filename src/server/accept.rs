//! Taking connections in.
//!
//! **Invariant**: no more than the configured number of connections is open; one too many is closed
//! before a byte of it is read. A failure to accept (no descriptors left) never ends the server.

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
use tonic::transport::server::{Connected, TcpConnectInfo, TcpIncoming};

const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener, at most so many at one time.
pub(super) struct Accepted {
    incoming: TcpIncoming,
    /// After a failure: what cannot be accepted now stays ready, and would be tried without end.
    pause: Option<Pin<Box<Sleep>>>,
    permits: Arc<Semaphore>,
}

impl Accepted {
    pub(super) fn new(listener: TcpListener, connections_max: usize) -> Self {
        // Answers are small and awaited one by one: they are not held back to fill a packet.
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        Self { incoming, pause: None, permits: Arc::new(Semaphore::new(connections_max)) }
    }
}

impl Stream for Accepted {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let stream = match ready!(Pin::new(&mut self.incoming).poll_next(context)) {
                Some(Ok(stream)) => stream,
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    self.pause = Some(Box::pin(sleep(FAILURE_PAUSE)));
                    continue;
                }
                None => return Poll::Ready(None),
            };
            if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
                return Poll::Ready(Some(Ok(Connection { stream, _permit: permit })));
            }
            let peer = stream.peer_addr().map(|address| address.to_string()).unwrap_or_default();
            tracing::warn!(%peer, "connection closed: as many as --max-connections allows are open");
        }
    }
}

/// A connection, and its place among those allowed.
pub(super) struct Connection {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
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
