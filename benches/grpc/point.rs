//! `GetRate` and `GetChange` at random times, with few runs and with many.

use std::net::SocketAddr;
use std::time::Instant;

use silkrate::domain::Timestamp;
use silkrate::proto::v1;
use silkrate::proto::v1::rate_service_client::RateServiceClient;

use crate::client::{connect, runtime, wire_time};
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
