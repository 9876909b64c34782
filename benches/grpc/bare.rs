//! A tonic service that returns a fixed message: the cost of the transport alone.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Blob {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) bytes: Bytes,
}

/// A message that a bare service can return.
pub(crate) trait BareMessage: prost::Message + Default + Clone + 'static {}
impl<M: prost::Message + Default + Clone + 'static> BareMessage for M {}

/// Returns the same message to every call.
#[derive(Clone)]
pub(crate) struct FixedResponse<M>(pub(crate) M);

impl<M> tonic::server::NamedService for FixedResponse<M> {
    const NAME: &'static str = "bare.FixedResponse";
}

impl<M: BareMessage> tonic::server::UnaryService<Blob> for FixedResponse<M> {
    type Response = M;
    type Future = std::future::Ready<Result<Response<M>, Status>>;

    fn call(&mut self, _: Request<Blob>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.clone())))
    }
}

impl<M: BareMessage> Service<http::Request<Body>> for FixedResponse<M> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<M, Blob>::default())
                .apply_max_message_size_config(Some(64 << 20), None);
            Ok(grpc.unary(service, request).await)
        })
    }
}

/// Serves the message until the runtime ends.
pub(crate) async fn serve<M: BareMessage>(message: M) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(tonic::transport::Server::builder().add_service(FixedResponse(message)).serve_with_incoming(incoming));
    address
}

pub(crate) async fn call<M: BareMessage>(channel: &tonic::transport::Channel, bytes: Bytes) -> M {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.expect("a connection");
    let path = http::uri::PathAndQuery::from_static("/bare.FixedResponse/Call");
    let codec = ProstCodec::<Blob, M>::default();
    grpc.unary(Request::new(Blob { bytes }), path, codec).await.expect("a response").into_inner()
}
