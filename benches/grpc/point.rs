//! `GetRate`, `GetChange` and crosses at random times, with few runs and with many.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use silkrate::domain::Timestamp;
use silkrate::proto::v1;
use silkrate::proto::v1::rate_service_client::RateServiceClient;

use crate::bare;
use crate::client::{calls_per_second, connect, runtime, wire_time};
use crate::server::TestServer;
use crate::support::{BASE_US, ROUNDS, Random, filled, median, parameter, report};

/// Returns the 99th percentile of the latencies of `GetRate` and `GetChange` at random times, in microseconds.
async fn point_p99(address: SocketAddr, runs: u64, calls: usize, random: &mut Random) -> (f64, f64) {
    let mut client = RateServiceClient::new(connect(address).await);
    let span_s = runs * 33 / 10 / 5;
    let mut at = || {
        let second = random.below(span_s) as i64 + 10;
        wire_time(Timestamp::from_micros(BASE_US - 400 * Timestamp::DAY_US + second * Timestamp::SECOND_US))
    };
    let (mut rates, mut changes) = (Vec::new(), Vec::new());
    for _ in 0..calls {
        let request = v1::GetRateRequest {
            pair: "KGS/USD".into(),
            source: "bench".into(),
            time: Some(at()),
            ..Default::default()
        };
        let begun = Instant::now();
        let response = client.get_rate(request).await.expect("a rate").into_inner();
        rates.push(begun.elapsed().as_secs_f64() * 1e6);
        assert_eq!(response.legs.len(), 1);
        let (a, b) = (at(), at());
        let (start, end) = if (a.seconds, a.nanos) <= (b.seconds, b.nanos) { (a, b) } else { (b, a) };
        let request = v1::GetChangeRequest {
            pair: "KGS/USD".into(),
            source: "bench".into(),
            start_time: Some(start),
            end_time: Some(end),
            ..Default::default()
        };
        let begun = Instant::now();
        let response = client.get_change(request).await.expect("a change").into_inner();
        changes.push(begun.elapsed().as_secs_f64() * 1e6);
        assert!(response.percent_change.is_some());
    }
    let p99 = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() * 99 / 100]
    };
    (p99(rates), p99(changes))
}

/// Returns the calls per second of `GetRate` at random times, of the same response from a bare service, of `GetChange`
/// and of crosses, with 16 concurrent calls.
async fn throughput(address: SocketAddr, runs: u64, calls: usize) -> [f64; 4] {
    let span_s = runs * 33 / 10 / 5;
    let seed = AtomicU64::new(1);
    let at = move |number: u64| {
        let second = Random(number).below(span_s) as i64 + 10;
        wire_time(Timestamp::from_micros(BASE_US - 400 * Timestamp::DAY_US + second * Timestamp::SECOND_US))
    };
    let next = Arc::new(move || at(seed.fetch_add(1, Ordering::Relaxed)));
    let rate_of = |pair: &str, next: &dyn Fn() -> prost_types::Timestamp| v1::GetRateRequest {
        pair: pair.to_owned(),
        source: "bench".into(),
        time: Some(next()),
        ..Default::default()
    };
    let channel = connect(address).await;
    let client = RateServiceClient::new(channel);
    let response = client.clone().get_rate(rate_of("KGS/USD", &*next)).await.expect("a rate").into_inner();
    let bare = connect(bare::serve(response).await).await;
    let bare_call = move || {
        let channel = bare.clone();
        async move {
            let response: v1::GetRateResponse = bare::call(&channel, Bytes::new()).await;
            assert_eq!(response.legs.len(), 1);
        }
    };
    let rate_call = |pair: &'static str, legs: usize| {
        let (client, next) = (client.clone(), Arc::clone(&next));
        move || {
            let (mut client, request) = (client.clone(), rate_of(pair, &*next));
            async move {
                assert_eq!(client.get_rate(request).await.expect("a rate").into_inner().legs.len(), legs);
            }
        }
    };
    let change_call = {
        let (client, next) = (client.clone(), Arc::clone(&next));
        move || {
            let (mut client, mut times) = (client.clone(), [next(), next()]);
            times.sort_by_key(|time| time.seconds);
            let [start, end] = times.map(Some);
            let (pair, source) = ("KGS/USD".to_owned(), "bench".to_owned());
            let request = v1::GetChangeRequest { pair, source, start_time: start, end_time: end, ..Default::default() };
            async move {
                assert!(client.get_change(request).await.expect("a change").into_inner().percent_change.is_some());
            }
        }
    };
    [
        calls_per_second(16, calls, rate_call("KGS/USD", 1)).await,
        calls_per_second(16, calls, bare_call).await,
        calls_per_second(16, calls, change_call).await,
        calls_per_second(16, calls, rate_call("KGS/UZS", 2)).await,
    ]
}

pub(crate) fn point() {
    let (few, many) = (10_000, parameter("SILKRATE_BENCH_RUNS", 10_000_000));
    let (small, large) = (filled(few), filled(many));
    let runtime = runtime();
    runtime.block_on(async {
        let small = TestServer::start_with_store(small, &[]).await;
        let large = TestServer::start_with_store(large, &[]).await;
        let mut random = Random(9);
        let calls = parameter("SILKRATE_BENCH_CALLS", 2_000) as usize;
        let mut at: [Vec<f64>; 4] = Default::default();
        for _ in 0..ROUNDS {
            let (rate, change) = point_p99(small.addr, few, calls, &mut random).await;
            at[0].push(rate);
            at[1].push(change);
            let (rate, change) = point_p99(large.addr, many, calls, &mut random).await;
            at[2].push(rate);
            at[3].push(change);
        }
        // The first reads fill the cache.
        let calls = parameter("SILKRATE_BENCH_CALLS", 60_000) as usize;
        throughput(large.addr, many, calls).await;
        let mut speeds: [Vec<f64>; 4] = Default::default();
        for _ in 0..ROUNDS {
            for (speeds, speed) in speeds.iter_mut().zip(throughput(large.addr, many, calls).await) {
                speeds.push(speed);
            }
        }
        let [rate, bare, change, cross] = speeds.map(median);
        report(&format!("GetRate at random times, {many} runs, 16 concurrent calls"), rate, "calls/s", "-");
        report("GetRate, ratio to a bare service with the same response", rate / bare, "times", ">= 0.8");
        report("GetRate, ratio to GetChange", rate / change, "times", "<= 3");
        report("GetRate, ratio to GetRate of a cross", rate / cross, "times", "<= 3");
        let [small_rate, small_change, large_rate, large_change] = at.map(median);
        report(&format!("GetRate, p99 at {few} runs"), small_rate, "us", "-");
        report(
            &format!("GetRate, p99 at {many} runs, ratio to p99 at {few} runs"),
            large_rate / small_rate,
            "times",
            "<= 2",
        );
        report(&format!("GetChange, p99 at {few} runs"), small_change, "us", "-");
        report(
            &format!("GetChange, p99 at {many} runs, ratio to p99 at {few} runs"),
            large_change / small_change,
            "times",
            "<= 2",
        );
        small.stop().await;
        large.stop().await;
    });
}
