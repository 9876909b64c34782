//! Shared parts of the gRPC benchmarks: a runtime of two threads, connections, concurrent calls, seeded ticks as
//! messages.

use std::net::SocketAddr;
use std::time::Instant;

use silkrate::domain::{PublishedValue, SeriesKey, Timestamp};
use silkrate::proto::v1;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::support::{Ticks, per_second};

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

pub(crate) async fn connect(address: SocketAddr) -> Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .expect("an address")
        .tcp_nodelay(true)
        .connect()
        .await
        .expect("a connection")
}

/// Makes `calls` calls, `in_flight` of them at a time. Returns the number of calls per second.
pub(crate) async fn calls_per_second<F>(
    in_flight: usize,
    calls: usize,
    call: impl Fn() -> F + Clone + Send + 'static,
) -> f64
where
    F: Future<Output = ()> + Send,
{
    let begun = Instant::now();
    let tasks: Vec<_> = (0..in_flight)
        .map(|_| {
            let call = call.clone();
            tokio::spawn(async move {
                for _ in 0..calls / in_flight {
                    call().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    per_second(calls as u64, begun.elapsed())
}

pub(crate) fn wire_time(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.to_parts();
    prost_types::Timestamp { seconds, nanos }
}

pub(crate) fn message(key: &SeriesKey, time: Timestamp, value: PublishedValue) -> v1::Tick {
    v1::Tick {
        pair: key.pair.to_string(),
        source: key.source.to_string(),
        observed_time: Some(wire_time(time)),
        rate: value.rate.to_string(),
        reported_change_percent: value.reported_change.map(|change| change.to_string()),
    }
}

/// Returns seeded ticks of one series. Their observed times are before the time of the test server.
pub(crate) fn ticks(seed: u64, count: usize) -> Vec<(Timestamp, PublishedValue)> {
    let back_us = 400 * Timestamp::DAY_US;
    Ticks::new(seed, 30).take(count).map(|(time, value)| (time.saturating_add_us(-back_us), value)).collect()
}
