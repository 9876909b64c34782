//! Limits of `StreamRuns`: number of streams, deadline, and the commit that a slow client reads.

use std::time::Duration;

use silkrate::columns::decode_runs;
use silkrate::proto::v1;
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::grpc::reads::{Service, start};

/// The limit of the service.
const STREAMS_MAX: usize = 64;
/// More runs than fit into the messages that the server packs in advance and into the stream window.
const RUNS: i64 = 60_000;

async fn start_with_runs() -> Service {
    let service = start().await;
    let texts = ["0.01144", "0.01145"];
    let ticks: Vec<(i64, &str)> =
        (0..RUNS).zip(texts.into_iter().cycle()).map(|(at, text)| (at - RUNS, text)).collect();
    service.commit("KGS/USD timesca", &ticks).await;
    service
}

async fn open(service: &Service, timeout: Option<Duration>) -> Result<Streaming<v1::StreamRunsResponse>, Status> {
    let mut request =
        Request::new(v1::StreamRunsRequest { pair: "KGS/USD".to_owned(), ..v1::StreamRunsRequest::default() });
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    service.client.clone().stream_runs(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn stream_beyond_the_limit_is_refused_with_retry_info() {
    let service = start_with_runs().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS_MAX {
        streams.push(open(&service, None).await.unwrap());
    }
    let refused = open(&service, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.get_error_details().retry_info().is_some(), "{refused:?}");

    // A dropped stream frees a slot, and the next stream is complete.
    drop(streams.pop());
    let mut stream = loop {
        match open(&service, None).await {
            Ok(stream) => break stream,
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    drop(streams);
    let mut runs = 0;
    while let Some(message) = stream.message().await.unwrap() {
        runs += i64::try_from(decode_runs(&message).unwrap().len()).unwrap();
    }
    assert_eq!(runs, RUNS);
}

#[tokio::test]
async fn slow_stream_sees_one_commit() {
    let service = start_with_runs().await;
    let mut stream = open(&service, None).await.unwrap();
    let first = stream.message().await.unwrap().unwrap();
    // While the client pauses, a late tick splits a run that the client has not read yet, and new ticks arrive.
    let later = service.commit("KGS/USD timesca", &[(-5, "0.5"), (-1_000, "0.5"), (1, "0.6")]).await;
    let mut runs = decode_runs(&first).unwrap();
    while let Some(message) = stream.message().await.unwrap() {
        assert_eq!((message.sequence, message.recorded_time), (first.sequence, first.recorded_time));
        runs.extend(decode_runs(&message).unwrap());
    }
    assert!(later.sequence > first.sequence);
    assert_eq!(i64::try_from(runs.len()).unwrap(), RUNS);
    assert!(runs.iter().all(|run| run.value.rate.mantissa() >= 1_144));
}

#[tokio::test]
async fn deadline_ends_a_paused_stream() {
    let service = start_with_runs().await;
    let mut stream = open(&service, Some(Duration::from_millis(300))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    let error = loop {
        match stream.message().await {
            Ok(message) => assert!(message.is_some(), "the stream ended without an error"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::DeadlineExceeded);
}
