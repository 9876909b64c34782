//! What goes over the wire when a caller's deadline passes, seen by a client that leaves all judgement to the server.

#![allow(clippy::unwrap_used, reason = "a helper of tests that cannot go on fails the test")]

use std::future::pending;
use std::net::SocketAddr;

use silkrate::grpc::deadline::Deadline;
use silkrate::grpc::status::ServiceError;
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Never answers a check. `Check` leaves deadlines to tonic, or to [`Deadline`] where it is asked to.
struct Slow {
    watches_deadline: bool,
}

#[tonic::async_trait]
impl Health for Slow {
    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let work = pending::<Result<HealthCheckResponse, ServiceError>>();
        if self.watches_deadline {
            Ok(Response::new(Deadline::of(request.metadata()).limit(work).await?))
        } else {
            Ok(Response::new(work.await?))
        }
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }
}

async fn serve(watches_deadline: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(HealthServer::new(Slow { watches_deadline }));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

/// The `grpc-status` of a check that its caller gives so long. tonic's own client would not do: it ends a call at the
/// same time by itself, and what the server says comes too late.
async fn status_of_check(address: SocketAddr, timeout: &str) -> Code {
    let (client, connection) = h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", timeout)
        .body(())
        .unwrap();
    let (response, mut body) = client.ready().await.unwrap().send_request(request, false).unwrap();
    // An empty message: not compressed, of no bytes.
    body.send_data(vec![0; 5].into(), true).unwrap();
    let response = response.await.unwrap();
    Code::from_bytes(response.headers()["grpc-status"].as_bytes())
}

#[tokio::test]
async fn a_passed_deadline_is_deadline_exceeded() {
    let address = serve(true).await;
    for timeout in ["1m", "20m", "50000u", "200m"] {
        assert_eq!(status_of_check(address, timeout).await, Code::DeadlineExceeded, "{timeout}");
    }
}

/// Why the services watch the deadline themselves. Should this fail one day, `grpc::deadline` may have lost its purpose.
#[tokio::test]
async fn tonic_alone_would_say_cancelled() {
    assert_eq!(status_of_check(serve(false).await, "20m").await, Code::Cancelled);
}
