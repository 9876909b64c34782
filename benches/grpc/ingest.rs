//! Ingest of ticks, in batches of messages and of columns.

use std::time::Instant;

use silkrate::columns::encode_tick_columns;
use silkrate::domain::SeriesKey;
use silkrate::proto::v1;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;

use crate::bare;
use crate::client::{connect, message, runtime, ticks};
use crate::server::TestServer;
use crate::support::{ROUNDS, keys, median, parameter, per_second, report};

pub(crate) fn ingest() {
    let runtime = runtime();
    runtime.block_on(async {
        let total = parameter("SILKRATE_BENCH_TICKS", 800_000) as usize;
        let (mut messages, mut columns, mut baselines) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            baselines.push(ingest_bare(total).await);
            messages.push(ingest_messages(total).await);
            columns.push(ingest_columns(total * 4).await);
        }
        report("bare service, messages that it does not decode, 1,000 per batch", median(baselines), "ticks/s", "-");
        report("durable, messages, 1,000 per batch, 4 clients", median(messages), "ticks/s", ">= 400,000");
        report("durable, columns, 10,000 per batch, 4 clients", median(columns), "ticks/s", ">= 1,500,000");
    });
}

/// Returns batches of messages for each of four clients.
fn message_batches(total: usize) -> Vec<(SeriesKey, Vec<v1::IngestTicksRequest>)> {
    keys()
        .into_iter()
        .take(4)
        .zip(1..)
        .map(|(key, seed)| {
            let ticks = ticks(seed, total / 4);
            let batches = ticks.chunks(1_000).map(|piece| v1::IngestTicksRequest {
                ticks: piece.iter().map(|(time, value)| message(&key, *time, *value)).collect(),
                ..Default::default()
            });
            let batches = batches.collect();
            (key, batches)
        })
        .collect()
}

async fn ingest_bare(total: usize) -> f64 {
    let channel = connect(bare::serve(bare::Blob::default()).await).await;
    let batches = message_batches(total);
    let begun = Instant::now();
    let tasks: Vec<_> = batches
        .into_iter()
        .map(|(_, batches)| {
            let channel = channel.clone();
            tokio::spawn(async move {
                for batch in batches {
                    bare::call::<bare::Blob>(&channel, prost::Message::encode_to_vec(&batch).into()).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    per_second(total as u64, begun.elapsed())
}

async fn ingest_messages(total: usize) -> f64 {
    let server = TestServer::start(&[]).await;
    let batches = message_batches(total);
    let mut tasks = Vec::new();
    let begun = Instant::now();
    for (_, batches) in batches {
        let mut client = IngestServiceClient::new(connect(server.addr).await);
        tasks.push(tokio::spawn(async move {
            let mut stored = 0;
            for batch in batches {
                let summary = client.ingest_ticks(batch).await.expect("stored").into_inner().summary.expect("counts");
                stored += summary.new_run_count + summary.collapsed_count;
            }
            stored
        }));
    }
    let mut stored = 0;
    for task in tasks {
        stored += task.await.expect("no panic") as usize;
    }
    let speed = per_second(total as u64, begun.elapsed());
    assert_eq!(stored, total / 4 * 4);
    server.stop().await;
    speed
}

async fn ingest_columns(total: usize) -> f64 {
    let server = TestServer::start(&[]).await;
    let batches: Vec<Vec<v1::StreamTicksRequest>> = keys()
        .into_iter()
        .take(4)
        .zip(1..)
        .map(|(key, seed)| {
            let ticks = ticks(seed, total / 4);
            let requests = ticks.chunks(10_000).map(|piece| v1::StreamTicksRequest {
                batch: Some(v1::stream_ticks_request::Batch::Columns(
                    encode_tick_columns(&key, piece).expect("equal places"),
                )),
                ..Default::default()
            });
            requests.collect()
        })
        .collect();
    let mut tasks = Vec::new();
    let begun = Instant::now();
    for requests in batches {
        let mut client = IngestServiceClient::new(connect(server.addr).await);
        tasks.push(tokio::spawn(async move {
            let stream = tokio_stream::iter(requests);
            let mut responses = client.stream_ticks(stream).await.expect("a stream").into_inner();
            let mut stored = 0;
            while let Some(response) = responses.message().await.expect("a response") {
                let summary = response.result.expect("a result").summary.expect("counts");
                stored += summary.new_run_count + summary.collapsed_count;
            }
            stored
        }));
    }
    let mut stored = 0;
    for task in tasks {
        stored += task.await.expect("no panic") as usize;
    }
    let speed = per_second(total as u64, begun.elapsed());
    assert_eq!(stored, total / 4 * 4);
    server.stop().await;
    speed
}
