//! The load client of the comparison with other databases: seeded quotes as files, and calls to a server that already
//! runs. `benches/peers/run` starts it. Each command prints one line of JSON.
//!
//! - `generate DIR --ticks N` writes `quotes` and `official`, each as `.csv` and as `.influx` (line protocol).
//! - `latest ADDR`, `as-of ADDR --ticks N` read for `--seconds S`; `as-of` checks each rate.
//! - `ingest ADDR --batch 1000 --clients 4 --count N --from K [--messages]` stores `N` ticks from second `K` on.
//! - `tick ADDR --callers 64 --from K` stores one tick per call for `--seconds S`.
//! - `series ADDR` reads a whole series with `StreamRuns` and decodes it.
//! - `serve-bare ADDR` serves the latest rates of the server at `ADDR` as a fixed message, and `bare ADDR` reads it.
//!
//! **Invariant**: the quotes depend only on the pair, the second and the number of ticks, not on the machine.

#![allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "these are measurements, not rates")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "small seeded numbers"
)]

#[path = "../grpc/bare.rs"]
mod bare;

#[path = "../../tests/it/random/mod.rs"]
mod random;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use random::Random;
use silkrate::columns::{decode_runs, encode_tick_columns};
use silkrate::domain::{CurrencySet, Pair, PublishedValue, Rate, SeriesKey, Source, Timestamp};
use silkrate::proto::v1;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;
use silkrate::proto::v1::rate_service_client::RateServiceClient;
use tonic::transport::Channel;

/// 2025-01-01T00:00:00Z: the time of the first quote.
const QUOTES_START_S: i64 = 1_735_689_600;
/// 2015-01-01T00:00:00Z: the time of the first official rate.
const OFFICIAL_START_S: i64 = 1_420_070_400;
/// From 2015-01-01 to 2024-12-31.
const OFFICIAL_DAYS: i64 = 3_653;
const PAIRS: [&str; 5] = ["KGS/USD", "KZT/USD", "TJS/USD", "UZS/USD", "TMT/USD"];
const RATE_PLACES: u32 = 6;
const MOVES_PERCENT: u64 = 30;
const CONCURRENT_CALLS: usize = 16;
const USAGE: &str = "This is the load client of benches/peers/run. Start that program instead.";

/// The rates of one pair, times 10^6: one for each step of time.
struct Mantissas {
    random: Random,
    mantissa: u64,
}

impl Mantissas {
    fn new(seed: u64) -> Self {
        Self { random: Random(seed), mantissa: 11_440 + seed }
    }
}

impl Iterator for Mantissas {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.random.below(100) < MOVES_PERCENT {
            let step = 1 + self.random.below(20);
            let is_up = self.random.below(2) == 0 || self.mantissa < 5_000;
            self.mantissa = if is_up { self.mantissa + step } else { self.mantissa - step };
        }
        Some(self.mantissa)
    }
}

fn rate_text(mantissa: u64) -> String {
    format!("{}.{:06}", mantissa / 1_000_000, mantissa % 1_000_000)
}

/// The arguments after the command and its first operand.
struct Options(Vec<String>);

impl Options {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        let at = self.0.iter().position(|argument| argument == name);
        at.map_or(default, |at| self.0[at + 1].parse().expect("a whole number"))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.number("--seconds", 2))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [command, operand, ..] = arguments.as_slice() else {
        println!("{USAGE}");
        return;
    };
    let options = Options(arguments[2..].to_vec());
    if command == "generate" {
        generate(Path::new(operand), options.number("--ticks", 2_000_000));
        return;
    }
    let address: SocketAddr = operand.parse().expect("an address such as 127.0.0.1:50051");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.number("--threads", 2) as usize)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        match command.as_str() {
            "latest" => latest(address, &options).await,
            "bare" => bare_latest(address, &options).await,
            "serve-bare" => serve_bare(address).await,
            "as-of" => as_of(address, &options).await,
            "ingest" => ingest(address, &options).await,
            "tick" => tick(address, &options).await,
            "series" => series(address).await,
            _ => panic!("unknown command '{command}'. {USAGE}"),
        }
    });
}

fn generate(directory: &Path, ticks: u64) {
    let open = |name: &str| BufWriter::with_capacity(1 << 20, File::create(directory.join(name)).expect("a new file"));
    let write = |name: &str, source: &str, start_s: i64, step_s: i64, count: u64, first_seed: u64| {
        let (mut csv, mut influx) = (open(&format!("{name}.csv")), open(&format!("{name}.influx")));
        let mut pairs: Vec<_> =
            PAIRS.iter().zip(first_seed..).map(|(pair, seed)| (pair, Mantissas::new(seed))).collect();
        writeln!(csv, "pair,source,observed_time,rate").expect("room on the disk");
        for index in 0..count {
            let second = start_s + index as i64 * step_s;
            let time = DateTime::from_timestamp(second, 0).expect("a valid time");
            let time = time.to_rfc3339_opts(SecondsFormat::Secs, true);
            for (pair, mantissas) in &mut pairs {
                let rate = rate_text(mantissas.next().expect("endless"));
                writeln!(csv, "{pair},{source},{time},{rate}").expect("room on the disk");
                writeln!(influx, "quotes,pair={pair},source={source} rate={rate} {second}").expect("room on the disk");
            }
        }
        csv.flush().and_then(|()| influx.flush()).expect("room on the disk");
    };
    write("quotes", "quotes", QUOTES_START_S, 1, ticks / PAIRS.len() as u64, 1);
    write("official", "official", OFFICIAL_START_S, 86_400, OFFICIAL_DAYS as u64, 101);
    println!("{{}}");
}

async fn connect(address: SocketAddr) -> Channel {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.tcp_nodelay(true).connect().await.expect("a connection")
}

/// Calls from `callers` tasks until the deadline, and prints the rate and the latencies of the calls. `call` gets the
/// number of its caller, and the number of calls that this caller made before.
async fn measure<F>(callers: usize, deadline: Instant, call: impl Fn(usize, u64) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let call = call.clone();
            tokio::spawn(async move {
                let mut latencies_us = Vec::new();
                while Instant::now() < deadline {
                    let begun = Instant::now();
                    call(caller, latencies_us.len() as u64).await;
                    latencies_us.push(begun.elapsed().as_micros() as u64);
                }
                latencies_us
            })
        })
        .collect();
    let mut latencies_us = Vec::new();
    for task in tasks {
        latencies_us.extend(task.await.expect("no panic"));
    }
    let seconds = begun.elapsed().as_secs_f64();
    latencies_us.sort_unstable();
    let at = |percent: usize| latencies_us[(latencies_us.len() - 1) * percent / 100];
    let per_second = latencies_us.len() as f64 / seconds;
    println!("{{\"per_second\": {per_second:.1}, \"p50_us\": {}, \"p99_us\": {}}}", at(50), at(99));
}

async fn connections(address: SocketAddr, options: &Options) -> Arc<Vec<Channel>> {
    let mut channels = Vec::new();
    for _ in 0..options.number("--connections", 2) {
        channels.push(connect(address).await);
    }
    Arc::new(channels)
}

async fn latest(address: SocketAddr, options: &Options) {
    let channels = connections(address, options).await;
    let sources = vec!["quotes".to_owned()];
    measure(CONCURRENT_CALLS, options.deadline(), move |caller, _| {
        let mut client = RateServiceClient::new(channels[caller % channels.len()].clone());
        let request = v1::GetLatestRatesRequest { sources: sources.clone(), ..Default::default() };
        async move {
            let response = client.get_latest_rates(request).await.expect("a response").into_inner();
            assert_eq!(response.rates.len(), PAIRS.len());
        }
    })
    .await;
}

async fn serve_bare(address: SocketAddr) {
    let mut client = RateServiceClient::new(connect(address).await);
    let request = v1::GetLatestRatesRequest { sources: vec!["quotes".to_owned()], ..Default::default() };
    let response = client.get_latest_rates(request).await.expect("a response").into_inner();
    println!("{}", bare::serve(response).await);
    std::future::pending::<()>().await;
}

async fn bare_latest(address: SocketAddr, options: &Options) {
    let channels = connections(address, options).await;
    measure(CONCURRENT_CALLS, options.deadline(), move |caller, _| {
        let channel = channels[caller % channels.len()].clone();
        async move {
            let response: v1::GetLatestRatesResponse = bare::call(&channel, Bytes::from_static(b"quotes")).await;
            assert_eq!(response.rates.len(), PAIRS.len());
        }
    })
    .await;
}

async fn as_of(address: SocketAddr, options: &Options) {
    let seconds = options.number("--ticks", 2_000_000) / PAIRS.len() as u64;
    let quotes: Vec<Vec<u32>> = (1..=PAIRS.len() as u64)
        .map(|seed| Mantissas::new(seed).take(seconds as usize).map(|mantissa| mantissa as u32).collect())
        .collect();
    let quotes = Arc::new(quotes);
    let channels = connections(address, options).await;
    let seed = options.number("--seed", 1);
    measure(CONCURRENT_CALLS, options.deadline(), move |caller, call| {
        let mut random = Random(seed ^ ((caller as u64) << 48 | call << 8));
        let (pair, second) = (random.below(PAIRS.len() as u64) as usize, random.below(seconds));
        let request = v1::GetRateRequest {
            pair: PAIRS[pair].to_owned(),
            source: "quotes".to_owned(),
            time: Some(prost_types::Timestamp { seconds: QUOTES_START_S + second as i64, nanos: 500_000_000 }),
            ..Default::default()
        };
        let expected = u64::from(quotes[pair][second as usize]);
        let mut client = RateServiceClient::new(channels[caller % channels.len()].clone());
        async move {
            let response = client.get_rate(request).await.expect("a response").into_inner();
            assert_eq!(response.rate, rate_text(expected), "{} at second {second}", PAIRS[pair]);
        }
    })
    .await;
}

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
async fn ingest(address: SocketAddr, options: &Options) {
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
async fn tick(address: SocketAddr, options: &Options) {
    let from = options.number("--from", 0) as i64;
    let channels = connections(address, options).await;
    measure(options.number("--callers", 1) as usize, options.deadline(), move |caller, call| {
        let mut client = IngestServiceClient::new(channels[caller % channels.len()].clone());
        let key = SeriesKey { source: Source::parse(&format!("tick-{caller}")).expect("a slug"), ..client_series(0) };
        let ticks = vec![message(&key, from + call as i64, 11_440 + call % 7)];
        async move {
            let request = v1::IngestTicksRequest { ticks, ..Default::default() };
            let response = client.ingest_ticks(request).await.expect("stored").into_inner();
            let summary = response.summary.expect("counts");
            assert_eq!(summary.new_run_count + summary.collapsed_count, 1, "{:?}", response.refusals);
        }
    })
    .await;
}

async fn series(address: SocketAddr) {
    let mut client = RateServiceClient::new(connect(address).await).max_decoding_message_size(64 << 20);
    let request =
        v1::StreamRunsRequest { pair: PAIRS[0].to_owned(), source: "quotes".to_owned(), ..Default::default() };
    let begun = Instant::now();
    let mut responses = client.stream_runs(request).await.expect("a stream").into_inner();
    let (mut runs, mut ticks) = (0, 0);
    while let Some(response) = responses.message().await.expect("a message") {
        for run in decode_runs(&response).expect("valid columns") {
            runs += 1;
            ticks += run.observation_count;
        }
    }
    println!("{{\"seconds\": {:.6}, \"runs\": {runs}, \"ticks\": {ticks}}}", begun.elapsed().as_secs_f64());
}
