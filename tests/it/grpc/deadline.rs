//! The status that a client receives after its deadline. The client of these tests does not enforce the deadline
//! itself.

use std::future::pending;
use std::net::SocketAddr;

use silkrate::grpc::deadline::DeadlineLayer;
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// A health service that never answers a check.
struct Slow;

#[tonic::async_trait]
impl Health for Slow {
    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn check(&self, _: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        pending().await
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }
}

/// Starts a server; with `with_deadline_layer` it has [`DeadlineLayer`], otherwise deadlines are left to tonic.
async fn serve(with_deadline_layer: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = TcpIncoming::from(listener);
    let health = HealthServer::new(Slow);
    if with_deadline_layer {
        tokio::spawn(Server::builder().layer(DeadlineLayer).add_service(health).serve_with_incoming(incoming));
    } else {
        tokio::spawn(Server::builder().add_service(health).serve_with_incoming(incoming));
    }
    address
}

/// Returns the `grpc-status` of a check with the given timeout. tonic's own client is not usable here: it ends the
/// call at the deadline by itself, before the status of the server arrives.
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
    // An empty message: the flag for no compression and a length of zero.
    body.send_data(vec![0; 5].into(), true).unwrap();
    let response = response.await.unwrap();
    Code::from_bytes(response.headers()["grpc-status"].as_bytes())
}

#[tokio::test]
async fn expired_deadline_has_the_status_deadline_exceeded() {
    let address = serve(true).await;
    for timeout in ["1m", "20m", "50000u", "200m"] {
        assert_eq!(status_of_check(address, timeout).await, Code::DeadlineExceeded, "{timeout}");
    }
}

/// Because of this status, the services watch deadlines themselves. If this test fails one day, `grpc::deadline` may be
/// unnecessary.
#[tokio::test]
async fn tonic_without_deadline_layer_reports_cancelled() {
    assert_eq!(status_of_check(serve(false).await, "20m").await, Code::Cancelled);
}
