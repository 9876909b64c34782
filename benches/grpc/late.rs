//! Late ticks that fall into old blocks, while other clients ingest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use silkrate::domain::Timestamp;
use silkrate::proto::v1;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;

use crate::client::{connect, message, runtime};
use crate::server::TestServer;
use crate::support::{BASE_US, Ticks, filled, keys, report};

/// Sends one batch of a thousand late ticks that fall into a thousand blocks, while three other clients ingest.
pub(crate) fn late() {
    let blocks = 1_000_u64;
    let directory = filled(blocks * 2_048 * 5);
    let runtime = runtime();
    runtime.block_on(async {
        let server = TestServer::start_with_store(directory, &[]).await;
        let key = keys()[0].clone();
        let span_s = blocks * 2_048 * 33 / 10;
        let late: Vec<v1::Tick> = (0..1_000)
            .map(|n| {
                let us = (n * span_s / 1_000 + 20) as i64 * Timestamp::SECOND_US + 500_000;
                let time = Timestamp::from_micros(BASE_US - 400 * Timestamp::DAY_US + us);
                let (_, value) = Ticks::new(n, 100).next().expect("an endless iterator");
                message(&key, time, value)
            })
            .collect();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mut others = Vec::new();
        for number in 1..4_usize {
            let mut client = IngestServiceClient::new(connect(server.addr).await);
            let (key, stop) = (keys()[number].clone(), Arc::clone(&stop));
            others.push(tokio::spawn(async move {
                let mut took = Vec::new();
                let base = Timestamp::from_micros(BASE_US - 20 * Timestamp::DAY_US);
                for (n, (_, value)) in Ticks::new(3, 30).take(100_000).enumerate() {
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    let time = base.saturating_add_us(n as i64 * Timestamp::SECOND_US);
                    let ticks = vec![message(&key, time, value)];
                    let begun = Instant::now();
                    let request = v1::IngestTicksRequest { ticks, ..Default::default() };
                    client.ingest_ticks(request).await.expect("stored");
                    took.push(begun.elapsed().as_secs_f64());
                }
                took
            }));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = Instant::now();
        let request = v1::IngestTicksRequest { ticks: late, ..Default::default() };
        let response = server.ingest().ingest_ticks(request).await.expect("stored").into_inner();
        let acknowledged = begun.elapsed().as_secs_f64();
        let summary = response.summary.expect("counts");
        assert_eq!((summary.late_count, summary.refused_count), (1_000, 0));
        // Waits for the end of the checkpoint that follows.
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut took = Vec::new();
        for other in others {
            took.extend(other.await.expect("no panic"));
        }
        took.sort_by(f64::total_cmp);
        report("1,000 late ticks in 1,000 blocks, acknowledged", acknowledged, "s", "< 1");
        report("latency of other clients meanwhile, p99", took[took.len() * 99 / 100], "s", "< 1");
        report("latency of other clients meanwhile, longest", took[took.len() - 1], "s", "-");
        server.stop().await;
    });
}
