//! Clients that store ticks.

use std::net::SocketAddr;
use std::time::Instant;

use silkrate::columns::encode_tick_columns;
use silkrate::domain::{CurrencySet, Pair, PublishedValue, Rate, SeriesKey, Source, Timestamp};
use silkrate::proto::v1;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;

use crate::plain_call::plain_connections;
use crate::quotes::{Mantissas, PAIRS, QUOTES_START_S, RATE_PLACES, rate_text};
use crate::{Options, connect, measure};

/// Returns the series that only this client writes.
fn client_series(client: usize) -> SeriesKey {
    let pair = Pair::parse(PAIRS[client % 4], &CurrencySet::central_asia()).expect("a pair");
    SeriesKey { pair, source: Source::parse(&format!("client-{client}")).expect("a slug") }
}

fn message(key: &SeriesKey, second: i64, mantissa: u64) -> v1::Tick {
    v1::Tick {
        pair: key.pair.to_string(),
        source: key.source.to_string(),
        observed_time: Some(prost_types::Timestamp { seconds: QUOTES_START_S + second, nanos: 0 }),
        rate: rate_text(mantissa),
        reported_change_percent: None,
    }
}

fn batches(client: usize, options: &Options) -> Vec<v1::StreamTicksRequest> {
    let (batch, clients) = (options.number("--batch", 1_000) as usize, options.number("--clients", 4));
    let (count, from) = ((options.number("--count", 400_000) / clients) as usize, options.number("--from", 0) as i64);
    let key = client_series(client);
    let ticks: Vec<(i64, u64)> = (from..).zip(Mantissas::new(client as u64)).take(count).collect();
    let as_messages = |piece: &[(i64, u64)]| {
        let ticks = piece.iter().map(|(second, mantissa)| message(&key, *second, *mantissa)).collect();
        v1::stream_ticks_request::Batch::Ticks(v1::TickBatch { ticks })
    };
    let as_columns = |piece: &[(i64, u64)]| {
        let value = |mantissa: u64| PublishedValue {
            rate: Rate::from_parts(u128::from(mantissa), RATE_PLACES).expect("a small mantissa is a rate"),
            reported_change: None,
        };
        let time = |second: i64| Timestamp::from_micros((QUOTES_START_S + second) * Timestamp::SECOND_US);
        let ticks: Vec<_> = piece.iter().map(|(second, mantissa)| (time(*second), value(*mantissa))).collect();
        v1::stream_ticks_request::Batch::Columns(encode_tick_columns(&key, &ticks).expect("equal places"))
    };
    ticks
        .chunks(batch)
        .map(|piece| v1::StreamTicksRequest {
            batch: Some(if options.has("--messages") { as_messages(piece) } else { as_columns(piece) }),
            ..Default::default()
        })
        .collect()
}

/// Sends batches from several clients. A client sends its next batch when the last one is acknowledged.
pub(crate) async fn ingest(address: SocketAddr, options: &Options) {
    let clients = options.number("--clients", 4) as usize;
    let prepared: Vec<_> = (0..clients).map(|client| batches(client, options)).collect();
    let mut tasks = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..clients {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut client = IngestServiceClient::new(connect(address).await);
        streams.push((sender, client.stream_ticks(requests).await.expect("a stream").into_inner()));
    }
    let begun = Instant::now();
    for (batches, (sender, mut responses)) in prepared.into_iter().zip(streams) {
        tasks.push(tokio::spawn(async move {
            let mut stored = 0;
            for batch in batches {
                sender.send(batch).await.expect("an open stream");
                let response = responses.message().await.expect("a response").expect("a response for each batch");
                let summary = response.result.and_then(|result| result.summary).expect("counts");
                stored += u64::from(summary.new_run_count + summary.collapsed_count);
            }
            stored
        }));
    }
    let mut stored = 0;
    for task in tasks {
        stored += task.await.expect("no panic");
    }
    let per_second = stored as f64 / begun.elapsed().as_secs_f64();
    println!("{{\"stored\": {stored}, \"per_second\": {per_second:.1}}}");
}

/// Stores one tick per call. The callers share the connections.
pub(crate) async fn tick(address: SocketAddr, options: &Options) {
    let from = options.number("--from", 0) as i64;
    let clients = plain_connections(address, options).await;
    measure(options.number("--callers", 1) as usize, options.deadline(), move |caller, call| {
        let client = clients[caller % clients.len()].clone();
        let key = SeriesKey { source: Source::parse(&format!("tick-{caller}")).expect("a slug"), ..client_series(0) };
        let ticks = vec![message(&key, from + call as i64, 11_440 + call % 7)];
        async move {
            let request = v1::IngestTicksRequest { ticks, ..Default::default() };
            let path = "/silkrate.v1.IngestService/IngestTicks";
            let response: v1::IngestTicksResponse = client.call(path, &request).await;
            let summary = response.summary.expect("counts");
            assert_eq!(summary.new_run_count + summary.collapsed_count, 1, "{:?}", response.refusals);
        }
    })
    .await;
}
