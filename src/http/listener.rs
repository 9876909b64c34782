//! Taking connections in, and letting them go.
//!
//! **Invariants**: no more than [`CONNECTIONS_MAX`] are open; one too many is closed before a byte of it is read. A
//! client that is slow in sending a request's head is cut off. Once told to drain, a connection ends with the answer
//! under way.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Connections open at one time.
const CONNECTIONS_MAX: usize = 8_192;
/// From a connection's first moment, or the answer before, to the end of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a head that are held, the least that hyper takes.
const HEAD_BYTES_MAX: usize = 8_192;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// After a failure to accept (no descriptors left): it would be tried without end.
const FAILURE_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `draining` is true and every answer under way is sent. Dropped earlier, it
/// closes all connections.
pub async fn serve(listener: TcpListener, router: Router, mut draining: watch::Receiver<bool>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = told(&mut draining) => break,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                    let connection = connection(stream, router.clone(), draining.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                } else {
                    tracing::debug!(%peer, "connection closed: {CONNECTIONS_MAX} of plain HTTP are open");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of plain HTTP");
                sleep(FAILURE_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Done once the server is on its way down.
async fn told(draining: &mut watch::Receiver<bool>) {
    // With the sender gone, so is the server.
    let _ = draining.wait_for(|draining| *draining).await;
}

async fn connection(stream: TcpStream, router: Router, mut draining: watch::Receiver<bool>) {
    // Answers are small: they are not held back to fill a packet.
    let _ = stream.set_nodelay(true);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told(&mut draining) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection of plain HTTP broke off");
    }
}
