//! The time until a change reaches a thousand watchers.

use std::time::{Duration, Instant};

use silkrate::proto::v1;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;
use silkrate::proto::v1::rate_service_client::RateServiceClient;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::client::{connect, runtime};
use crate::server::{TestServer, tick};
use crate::support::{median, parameter, report};

const WATCHERS: usize = 1_000;
/// Far longer than any step of this benchmark takes.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A change received by a watcher, and its time.
struct Receipt {
    at: Instant,
    sequence: u64,
    rate: String,
}

pub(crate) fn watch() {
    let runtime = runtime();
    runtime.block_on(async {
        for connections in [4, 100] {
            changes(connections).await;
        }
    });
}

async fn changes(connections: usize) {
    let server = TestServer::start(&[]).await;
    let pairs = ["KGS/USD", "KZT/USD", "TJS/USD", "UZS/USD", "TMT/USD"];
    server.store(&pairs.map(|pair| tick(pair, -86_400, "0.01144"))).await;
    let (receipts, mut received) = unbounded_channel();
    for _ in 0..connections {
        let client = RateServiceClient::new(connect(server.addr).await);
        for _ in 0..WATCHERS / connections {
            let request = v1::WatchLatestRatesRequest::default();
            let mut messages = client.clone().watch_latest_rates(request).await.expect("a watch").into_inner();
            let first = messages.message().await.expect("a message").expect("a snapshot");
            assert_eq!((first.kind(), first.rates.len()), (v1::WatchKind::Snapshot, pairs.len()));
            let receipts = receipts.clone();
            tokio::spawn(async move { send_receipts(messages, &receipts).await });
        }
    }
    let mut writer = IngestServiceClient::new(connect(server.addr).await);
    let (mut from_sent, mut from_acknowledged, mut last_watcher) = (Vec::new(), Vec::new(), Vec::new());
    let rounds = parameter("SILKRATE_BENCH_ROUNDS", 100) as i64;
    for round in 0..rounds {
        let rate = if round % 2 == 0 { "0.01145" } else { "0.01144" };
        let request =
            v1::IngestTicksRequest { ticks: vec![tick("KGS/USD", round - rounds, rate)], ..Default::default() };
        let sent = Instant::now();
        let response = writer.ingest_ticks(request).await.expect("stored").into_inner();
        let acknowledged = Instant::now();
        for number in 1..=WATCHERS {
            let receipt: Receipt =
                tokio::time::timeout(TIMEOUT, received.recv()).await.expect("a receipt in time").expect("watchers");
            assert_eq!((receipt.sequence, receipt.rate.as_str()), (response.sequence, rate));
            let ms = |since: Instant| receipt.at.saturating_duration_since(since).as_secs_f64() * 1e3;
            from_sent.push(ms(sent));
            from_acknowledged.push(ms(acknowledged));
            if number == WATCHERS {
                last_watcher.push(ms(sent));
            }
        }
    }
    let p99 = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() * 99 / 100]
    };
    let line = |what: &str| format!("{WATCHERS} watchers, {connections} connections: {what}");
    report(&line("from sending a tick to its receipt, p99"), p99(&mut from_sent), "ms", "-");
    report(&line("from sending a tick to its receipt, median"), median(from_sent), "ms", "<= 50");
    report(&line("from acknowledgement to receipt, p99"), p99(&mut from_acknowledged), "ms", "-");
    report(&line("from acknowledgement to receipt, median"), median(from_acknowledged), "ms", "<= 50");
    report(&line("from sending a tick to the last receipt, median"), median(last_watcher), "ms", "-");
    server.stop().await;
}

/// Sends a receipt for each change.
async fn send_receipts(
    mut messages: tonic::Streaming<v1::WatchLatestRatesResponse>,
    receipts: &UnboundedSender<Receipt>,
) {
    // The stream ends when the server stops.
    while let Ok(Some(message)) = messages.message().await {
        let at = Instant::now();
        assert_eq!((message.kind(), message.rates.len()), (v1::WatchKind::Changes, 1));
        let rate = message.rates[0].run.clone().expect("a run").rate;
        if receipts.send(Receipt { at, sequence: message.sequence, rate }).is_err() {
            return;
        }
    }
}
