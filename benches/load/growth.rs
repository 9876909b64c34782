//! Clients for the curves of cost over series, revisions and watchers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use silkrate::proto::v1;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;
use silkrate::proto::v1::rate_service_client::RateServiceClient;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::quotes::{Mantissas, PAIRS, QUOTES_START_S, rate_text};
use crate::random::Random;
use crate::{Options, connect};

const BATCH_TICKS: usize = 1_000;
/// A prime number that is no divisor of the number of quotes.
const STEP: u64 = 7_919;
/// Far longer than any step takes.
const TIMEOUT: Duration = Duration::from_mins(1);

fn tick(pair: &str, source: &str, second: i64, mantissa: u64) -> v1::Tick {
    v1::Tick {
        pair: pair.to_owned(),
        source: source.to_owned(),
        observed_time: Some(prost_types::Timestamp { seconds: QUOTES_START_S + second, nanos: 0 }),
        rate: rate_text(mantissa),
        reported_change_percent: None,
    }
}

/// Sends ticks in batches, each after the acknowledgement of the last one, and prints how many are stored per second.
async fn send(address: SocketAddr, ticks: Vec<v1::Tick>, policy: v1::ConflictPolicy) {
    let mut client = IngestServiceClient::new(connect(address).await);
    let count = ticks.len();
    let mut ticks = ticks.into_iter();
    let mut latencies_us = Vec::new();
    let begun = Instant::now();
    loop {
        let batch: Vec<v1::Tick> = ticks.by_ref().take(BATCH_TICKS).collect();
        if batch.is_empty() {
            break;
        }
        let sent = Instant::now();
        let request = v1::IngestTicksRequest { ticks: batch, conflict_policy: policy.into(), ..Default::default() };
        let response = client.ingest_ticks(request).await.expect("stored").into_inner();
        assert!(response.refusals.is_empty(), "{:?}", response.refusals.first());
        latencies_us.push(sent.elapsed().as_micros() as u64);
    }
    let per_second = count as f64 / begun.elapsed().as_secs_f64();
    latencies_us.sort_unstable();
    let p99 = latencies_us[(latencies_us.len() - 1) * 99 / 100];
    println!("{{\"per_second\": {per_second:.1}, \"p99_us\": {p99}}}");
}

/// Stores ticks in turn for each of many series.
pub(crate) async fn spread(address: SocketAddr, options: &Options) {
    let (series, count) = (options.number("--series", 1) as usize, options.number("--count", 200_000) as usize);
    let sources: Vec<String> = (0..series.div_ceil(PAIRS.len())).map(|source| format!("source-{source}")).collect();
    let mut mantissas = Mantissas::new(7);
    let ticks = (0..count)
        .map(|index| {
            let (round, at) = (index / series, index % series);
            let mantissa = mantissas.next().expect("endless");
            tick(PAIRS[at % PAIRS.len()], &sources[at / PAIRS.len()], round as i64, 11_440 + mantissa % 20)
        })
        .collect();
    send(address, ticks, v1::ConflictPolicy::Refuse).await;
}

/// Replaces the rates of quotes that are spread over the whole time.
pub(crate) async fn revise(address: SocketAddr, options: &Options) {
    let (seconds, count) =
        (options.number("--ticks", 2_000_000) / PAIRS.len() as u64, options.number("--count", 1_000));
    let from = options.number("--from", 0);
    let mut random = Random(from);
    let ticks = (from..from + count)
        .map(|index| {
            // Steps of a prime number meet each quote once before any is met again.
            let quote = index * STEP % (seconds * PAIRS.len() as u64);
            let (pair, second) = (quote % PAIRS.len() as u64, quote / PAIRS.len() as u64);
            tick(PAIRS[pair as usize], "quotes", second as i64, 11_440 + random.below(20))
        })
        .collect();
    send(address, ticks, v1::ConflictPolicy::Revise).await;
}

/// Returns the resident memory of a process in bytes.
fn resident_bytes(pid: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process that runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line of memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number of KiB") * 1024
}

/// Opens watches, then changes a rate several times. Prints the median and the longest time from sending a change until
/// the last watcher has it.
pub(crate) async fn watch(address: SocketAddr, options: &Options) {
    let (watchers, connections) = (options.number("--watchers", 100), options.number("--connections", 1));
    let pid = options.number("--pid", u64::from(std::process::id()));
    let resident_before = resident_bytes(pid);
    let (sender, mut received) = unbounded_channel();
    for connection in 0..connections {
        let client = RateServiceClient::new(connect(address).await);
        for _ in 0..(watchers / connections) + u64::from(connection < watchers % connections) {
            let request = v1::WatchLatestRatesRequest { sources: vec!["watched".to_owned()], ..Default::default() };
            let mut messages = client.clone().watch_latest_rates(request).await.expect("a watch").into_inner();
            messages.message().await.expect("a message").expect("a snapshot");
            let sender = sender.clone();
            tokio::spawn(async move { forward(messages, &sender).await });
        }
    }
    let resident = resident_bytes(pid);
    let mut writer = IngestServiceClient::new(connect(address).await);
    let mut last_us = Vec::new();
    let rounds = options.number("--rounds", 20);
    for round in 0..rounds {
        let second = (options.number("--from", 0) + round) as i64;
        let ticks = vec![tick(PAIRS[0], "watched", second, 11_440 + round % 2)];
        let sent = Instant::now();
        let request = v1::IngestTicksRequest { ticks, ..Default::default() };
        let sequence = writer.ingest_ticks(request).await.expect("stored").into_inner().sequence;
        for _ in 0..watchers {
            let seen = tokio::time::timeout(TIMEOUT, received.recv()).await.expect("a message in time");
            assert_eq!(seen, Some(sequence));
        }
        last_us.push(sent.elapsed().as_micros() as u64);
    }
    last_us.sort_unstable();
    let per_watcher = resident.saturating_sub(resident_before) / watchers.max(1);
    println!(
        "{{\"p50_us\": {}, \"max_us\": {}, \"bytes_per_watcher\": {per_watcher}}}",
        last_us[last_us.len() / 2],
        last_us[last_us.len() - 1],
    );
}

/// Sends the sequence of each message that has a change.
async fn forward(mut messages: tonic::Streaming<v1::WatchLatestRatesResponse>, sender: &UnboundedSender<u64>) {
    // The stream ends when the client ends.
    while let Ok(Some(message)) = messages.message().await {
        if message.kind() == v1::WatchKind::Changes && sender.send(message.sequence).is_err() {
            return;
        }
    }
}
