//! A connection with or without TLS. The handshake runs when the connection is first read or written, so that accepting
//! connections never waits for it.
//!
//! **Invariant**: no byte of a TLS connection is passed on before its handshake is complete.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::Accept;
use tokio_rustls::server::TlsStream;

use super::{HTTP2, Tls, peer_subject};
use crate::metrics::AccessMetrics;

/// What a handshake agreed on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Handshaken {
    /// The subject of the verified client certificate.
    pub subject: Option<Arc<str>>,
    /// Whether the client chose HTTP/2.
    pub is_http2: bool,
}

/// A connection with or without TLS.
pub struct Stream {
    state: State,
    metrics: AccessMetrics,
}

enum State {
    Plain(TcpStream),
    Handshake(Box<Accept<TcpStream>>),
    Tls(Box<TlsStream<TcpStream>>),
    Failed,
}

/// A connection after its handshake, if it has one.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Stream {
    /// Wraps an accepted connection. A failed handshake is counted in `metrics`.
    pub(super) fn new(stream: TcpStream, tls: Option<&Tls>, metrics: &AccessMetrics) -> Self {
        let state = match tls {
            None => State::Plain(stream),
            Some(tls) => State::Handshake(Box::new(tls.accept(stream))),
        };
        Self { state, metrics: metrics.clone() }
    }

    /// Completes the handshake, if there is one and it is not complete.
    ///
    /// # Errors
    /// The error of the handshake.
    pub async fn handshake(&mut self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_io(context).map_ok(|_| ())).await
    }

    /// Returns what the handshake agreed on; `None` for a connection without TLS or before the end of the handshake.
    pub fn handshaken(&self) -> Option<Handshaken> {
        let State::Tls(stream) = &self.state else { return None };
        let (_, connection) = stream.get_ref();
        let is_http2 = connection.alpn_protocol() == Some(HTTP2);
        Some(Handshaken { subject: peer_subject(connection), is_http2 })
    }

    /// Returns the connection once its handshake is complete.
    fn poll_io(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&mut dyn Io>> {
        if let State::Handshake(accept) = &mut self.state {
            match ready!(Pin::new(accept).poll(context)) {
                Ok(stream) => self.state = State::Tls(Box::new(stream)),
                Err(error) => {
                    self.state = State::Failed;
                    self.metrics.count_refusal("tls_handshake");
                    tracing::debug!(%error, "TLS handshake failed");
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(match &mut self.state {
            State::Plain(stream) => Ok(stream),
            State::Tls(stream) => Ok(stream.as_mut()),
            State::Handshake(_) | State::Failed => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(ready!(self.poll_io(context))?).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(ready!(self.poll_io(context))?).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(ready!(self.poll_io(context))?).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            State::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
            // A connection that is closed during its handshake has nothing to send.
            State::Handshake(_) | State::Failed => Poll::Ready(Ok(())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(ready!(self.poll_io(context))?).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.state {
            State::Plain(stream) => stream.is_write_vectored(),
            State::Tls(stream) => stream.is_write_vectored(),
            State::Handshake(_) | State::Failed => false,
        }
    }
}
