//! Unary gRPC calls directly over HTTP/2, without the layers of a tonic client: as light as the load clients of other
//! databases, which a measurement on two shared cores must be fair to.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{Method, Request};
use prost::Message;
use tokio::net::TcpStream;

use crate::Options;

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A connection.
#[derive(Clone)]
pub(crate) struct PlainClient {
    send: SendRequest<Bytes>,
    address: SocketAddr,
}

impl PlainClient {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a TCP socket");
        let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        Self { send, address }
    }

    /// Calls a method, such as `/silkrate.v1.RateService/GetRate`, and returns its response.
    pub(crate) async fn call<R: Message + Default>(&self, path: &str, message: &impl Message) -> R {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a valid request");
        let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.encoded_len()).expect("a small message"));
        message.encode(&mut framed).expect("room for the message");
        let mut send = self.send.clone().ready().await.expect("an open connection");
        let (response, mut body) = send.send_request(request, false).expect("an open connection");
        body.send_data(framed.freeze(), true).expect("an open stream");
        let mut body = response.await.expect("a response").into_body();
        let mut received = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data.expect("the whole response");
            body.flow_control().release_capacity(data.len()).expect("an open stream");
            received.extend_from_slice(&data);
        }
        let trailers = body.trailers().await.expect("an open stream").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0", "{trailers:?}");
        R::decode(&received[PREFIX_BYTES..]).expect("a message")
    }
}

/// The connections of callers that share them.
pub(crate) async fn plain_connections(address: SocketAddr, options: &Options) -> Arc<Vec<PlainClient>> {
    let mut clients = Vec::new();
    for _ in 0..options.number("--connections", 2) {
        clients.push(PlainClient::connect(address).await);
    }
    Arc::new(clients)
}
