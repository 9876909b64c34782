//! What is counted of responses that wait, and when a connection is ended.

use http_body_util::{BodyExt as _, Full};

use super::*;

fn body(connection: &Arc<ConnectionUnsent>, bytes: usize) -> UnsentBody {
    UnsentBody::new(Body::new(Full::new(Bytes::from(vec![7; bytes]))), Arc::clone(connection))
}

/// A connection from an address of its own by that number.
fn from(all: &Arc<Unsent>, number: u8) -> Arc<ConnectionUnsent> {
    all.connection(Some(IpAddr::from([127, 0, 0, number])))
}

/// A body whose bytes are made.
fn prepared(connection: &Arc<ConnectionUnsent>, bytes: usize) -> UnsentBody {
    let mut body = body(connection, bytes);
    body.prepare(&mut Context::from_waker(std::task::Waker::noop()), ReadPermit::of_test());
    body
}

#[tokio::test]
async fn bytes_are_counted_until_they_are_handed_over() {
    let all = Arc::new(Unsent::default());
    let connection = from(&all, 1);
    let mut body = prepared(&connection, 2 * PIECE_BYTES_MAX + 1);
    let mut sizes = Vec::new();
    loop {
        let (own, total) = (connection.bytes.load(Ordering::Relaxed), all.bytes.load(Ordering::Relaxed));
        assert_eq!((own, total), (body.left.len(), body.left.len()));
        match body.frame().await {
            Some(frame) => sizes.push(frame.unwrap().into_data().unwrap().len()),
            None => break,
        }
    }
    assert_eq!(sizes, [PIECE_BYTES_MAX, PIECE_BYTES_MAX, 1]);
    // A body that nobody reads gives its bytes back when its connection ends.
    let unread = prepared(&connection, 1_000);
    assert_eq!(all.bytes.load(Ordering::Relaxed), 1_000);
    drop(unread);
    assert_eq!((all.bytes.load(Ordering::Relaxed), connection.bytes.load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test]
async fn a_response_without_room_is_refused() {
    let all = Arc::new(Unsent::default());
    let connection = from(&all, 1);
    // One of any size may wait alone.
    let large = prepared(&connection, CONNECTION_BYTES_MAX + 1);
    let mut refused = prepared(&connection, 1);
    let trailers = refused.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(Status::from_header_map(&trailers).unwrap().code(), tonic::Code::ResourceExhausted);
    assert!(refused.frame().await.is_none());
    // Other connections have room, until there is none for all together.
    let fill = |number: u8| {
        let other = from(&all, number);
        (prepared(&other, CONNECTION_BYTES_MAX), other)
    };
    let others: Vec<_> = (0..8).flat_map(|number| [fill(number), fill(number)]).collect();
    assert_eq!(others.len(), TOTAL_BYTES_MAX / CONNECTION_BYTES_MAX);
    assert!(!others[0].0.is_over && others.last().unwrap().0.is_over);
    drop((large, refused, others));
    assert!(!prepared(&connection, 1).is_over);
    assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_address_alone_takes_neither_all_bytes_nor_all_places() {
    let all = Arc::new(Unsent::default());
    let connections: Vec<_> = (0..2 * CALLER_BYTES_MAX / CONNECTION_BYTES_MAX).map(|_| from(&all, 1)).collect();
    let bodies: Vec<_> = connections.iter().map(|own| prepared(own, CONNECTION_BYTES_MAX)).collect();
    let taken = bodies.iter().filter(|body| !body.is_over).count();
    assert_eq!(taken, CALLER_BYTES_MAX / CONNECTION_BYTES_MAX);
    assert!(!prepared(&from(&all, 2), CONNECTION_BYTES_MAX).is_over, "another address has room");
    drop(bodies);
    let small: Vec<_> = (0..CALLER_PLACES_MAX + 5).map(|_| prepared(&from(&all, 1), PIECE_BYTES_MAX + 1)).collect();
    assert_eq!(small.iter().filter(|body| body.place.is_some()).count(), CALLER_PLACES_MAX);
    assert!(small.iter().all(|body| !body.is_over), "who keeps no place is answered all the same");
    assert!(prepared(&from(&all, 2), PIECE_BYTES_MAX + 1).place.is_some());
    drop(small);
    assert!(prepared(&from(&all, 1), PIECE_BYTES_MAX + 1).place.is_some(), "places come back");
}

#[tokio::test]
async fn a_connection_is_stuck_once_a_response_waits_for_too_long() {
    let all = Arc::new(Unsent::default());
    let (deaf, reader, idle) = (from(&all, 1), from(&all, 2), from(&all, 3));
    let _unread = body(&deaf, 1);
    let mut read = body(&reader, 1);
    while read.frame().await.is_some() {}
    let later = Instant::now() + UNREAD_TIME_MAX;
    all.look(Instant::now(), UNREAD_TIME_MAX);
    assert!(!deaf.is_stuck.is_cancelled());
    all.look(later, UNREAD_TIME_MAX);
    assert_eq!([&deaf, &reader, &idle].map(|each| each.is_stuck.is_cancelled()), [true, false, false]);
    drop((deaf, reader, idle, read));
    all.look(later, UNREAD_TIME_MAX);
    assert_eq!(lock(&all.connections).len(), 0, "connections that ended are forgotten");
}

/// A stream that has nothing to say waits for nobody.
#[tokio::test]
async fn a_silent_stream_is_not_stuck() {
    let all = Arc::new(Unsent::default());
    let connection = from(&all, 1);
    let silent = Body::new(http_body_util::StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, Status>>()));
    let mut body = UnsentBody::new(silent, Arc::clone(&connection));
    assert!(tokio::time::timeout(Duration::from_millis(10), body.frame()).await.is_err());
    all.look(Instant::now() + UNREAD_TIME_MAX, UNREAD_TIME_MAX);
    assert!(!connection.is_stuck.is_cancelled());
}
