//! Tests: which bytes are counted as unsent, and when a connection is stuck.

use http_body_util::{BodyExt as _, Full};

use super::*;

/// Three quarters of the read permits of a server without settings.
const CALLER_PERMITS: usize = 24;

fn body(connection: &Arc<SendBuffer>, bytes: usize) -> BufferedBody {
    BufferedBody::new(Body::new(Full::new(Bytes::from(vec![7; bytes]))), Arc::clone(connection), None)
}

/// A connection from the address `127.0.0.number`.
fn connect_from(all: &Arc<SendBuffers>, number: u8) -> Arc<SendBuffer> {
    all.connection(Some(IpAddr::from([127, 0, 0, number])), None)
}

/// A body whose first frame is encoded.
fn encoded(connection: &Arc<SendBuffer>, bytes: usize) -> BufferedBody {
    let mut body = body(connection, bytes);
    body.encode_first(&mut Context::from_waker(std::task::Waker::noop()), ReadPermit::of_test());
    body
}

#[tokio::test]
async fn bytes_are_counted_until_the_connection_takes_them() {
    let all = Arc::new(SendBuffers::default());
    let connection = connect_from(&all, 1);
    let mut body = encoded(&connection, 2 * PIECE_BYTES_MAX + 1);
    let mut sizes = Vec::new();
    loop {
        let (own, total) = (connection.bytes.load(Ordering::Relaxed), all.bytes.load(Ordering::Relaxed));
        assert_eq!((own, total), (body.unsent.len(), body.unsent.len()));
        match body.frame().await {
            Some(frame) => sizes.push(frame.unwrap().into_data().unwrap().len()),
            None => break,
        }
    }
    assert_eq!(sizes, [PIECE_BYTES_MAX, PIECE_BYTES_MAX, 1]);
    // A body that is never read releases its bytes when it is dropped with its connection.
    let unread = encoded(&connection, 1_000);
    assert_eq!(all.bytes.load(Ordering::Relaxed), 1_000);
    drop(unread);
    assert_eq!((all.bytes.load(Ordering::Relaxed), connection.bytes.load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test]
async fn response_beyond_limit_is_refused() {
    let all = Arc::new(SendBuffers::default());
    let connection = connect_from(&all, 1);
    // A response of any size is accepted if its connection has no other unsent response.
    let large = encoded(&connection, CONNECTION_BYTES_MAX + 1);
    let mut refused = encoded(&connection, 1);
    let trailers = refused.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(Status::from_header_map(&trailers).unwrap().code(), tonic::Code::ResourceExhausted);
    assert!(refused.frame().await.is_none());
    // Other connections accept responses until the total limit is reached.
    let fill = |number: u8| {
        let other = connect_from(&all, number);
        (encoded(&other, CONNECTION_BYTES_MAX), other)
    };
    let others: Vec<_> = (0..8).flat_map(|number| [fill(number), fill(number)]).collect();
    assert_eq!(others.len(), TOTAL_BYTES_MAX / CONNECTION_BYTES_MAX);
    assert!(!others[0].0.is_over && others.last().unwrap().0.is_over);
    drop((large, refused, others));
    assert!(!encoded(&connection, 1).is_over);
    assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn one_address_cannot_take_all_bytes_or_all_permits() {
    let all = Arc::new(SendBuffers::default());
    let connections: Vec<_> = (0..2 * CALLER_BYTES_MAX / CONNECTION_BYTES_MAX).map(|_| connect_from(&all, 1)).collect();
    let bodies: Vec<_> = connections.iter().map(|own| encoded(own, CONNECTION_BYTES_MAX)).collect();
    let accepted = bodies.iter().filter(|body| !body.is_over).count();
    assert_eq!(accepted, CALLER_BYTES_MAX / CONNECTION_BYTES_MAX);
    assert!(!encoded(&connect_from(&all, 2), CONNECTION_BYTES_MAX).is_over, "another address still has room");
    drop(bodies);
    let two_pieces = |number: u8| encoded(&connect_from(&all, number), PIECE_BYTES_MAX + 1);
    let small: Vec<_> = (0..CALLER_PERMITS + 5).map(|_| two_pieces(1)).collect();
    assert_eq!(small.iter().filter(|body| body.permit.is_some()).count(), CALLER_PERMITS);
    assert!(small.iter().all(|body| !body.is_over), "a response without a permit is still sent");
    assert!(two_pieces(2).permit.is_some());
    drop(small);
    assert!(two_pieces(1).permit.is_some(), "a dropped response releases its slot");
}

#[tokio::test]
async fn connection_is_stuck_once_a_response_is_unread_for_too_long() {
    let all = Arc::new(SendBuffers::default());
    let (stuck, reader, idle) = (connect_from(&all, 1), connect_from(&all, 2), connect_from(&all, 3));
    let _unread = body(&stuck, 1);
    let mut read = body(&reader, 1);
    while read.frame().await.is_some() {}
    let later = Instant::now() + UNREAD_TIME_MAX;
    all.cancel_stuck(Instant::now(), UNREAD_TIME_MAX);
    assert!(!stuck.close_token.is_cancelled());
    all.cancel_stuck(later, UNREAD_TIME_MAX);
    assert_eq!([&stuck, &reader, &idle].map(|each| each.close_token.is_cancelled()), [true, false, false]);
    drop((stuck, reader, idle, read));
    all.cancel_stuck(later, UNREAD_TIME_MAX);
    assert_eq!(lock(&all.connections).len(), 0, "closed connections are forgotten");
}

/// The timer runs only while a sent frame is unread, not while a stream has nothing to send.
#[tokio::test]
async fn silent_stream_is_not_stuck() {
    let all = Arc::new(SendBuffers::default());
    let connection = connect_from(&all, 1);
    let silent = Body::new(http_body_util::StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, Status>>()));
    let mut body = BufferedBody::new(silent, Arc::clone(&connection), None);
    assert!(tokio::time::timeout(Duration::from_millis(10), body.frame()).await.is_err());
    all.cancel_stuck(Instant::now() + UNREAD_TIME_MAX, UNREAD_TIME_MAX);
    assert!(!connection.close_token.is_cancelled());
}
