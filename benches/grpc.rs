//! The service over loopback, clients included, beside bare services in the same run.
//!
//! `cargo bench --bench grpc [-- latest|ingest|single|stream|point|late]`.

#![allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "these are measurements, not rates")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "small seeded numbers"
)]

mod support;

#[path = "../tests/support/mod.rs"]
mod server;

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use server::TestServer;
use silkrate::columns::{decode_runs, encode_tick_columns};
use silkrate::domain::{PublishedValue, SeriesKey, Timestamp};
use silkrate::proto::v1;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;
use silkrate::proto::v1::rate_service_client::RateServiceClient;
use support::{BASE_US, ROUNDS, Random, Ticks, filled, keys, median, parameter, per_second, report, wanted};
use tokio::runtime::Runtime;
use tonic::transport::Channel;

/// A tonic service that hands bytes back and does nothing else: what the transport alone costs.
mod bare {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use super::{Bytes, SocketAddr};
    use tonic::body::Body;
    use tonic::codegen::{BoxFuture, Service, http};
    use tonic::{Request, Response, Status};
    use tonic_prost::ProstCodec;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Blob {
        #[prost(bytes = "bytes", tag = "1")]
        pub(crate) bytes: Bytes,
    }

    /// What a bare service may answer with.
    pub(crate) trait Answer: prost::Message + Default + Clone + 'static {}
    impl<M: prost::Message + Default + Clone + 'static> Answer for M {}

    /// Answers every call with one message.
    #[derive(Clone)]
    pub(crate) struct Canned<M>(pub(crate) M);

    impl<M> tonic::server::NamedService for Canned<M> {
        const NAME: &'static str = "bare.Canned";
    }

    impl<M: Answer> tonic::server::UnaryService<Blob> for Canned<M> {
        type Response = M;
        type Future = std::future::Ready<Result<Response<M>, Status>>;

        fn call(&mut self, _: Request<Blob>) -> Self::Future {
            std::future::ready(Ok(Response::new(self.0.clone())))
        }
    }

    impl<M: Answer> Service<http::Request<Body>> for Canned<M> {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Self::Response, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<Body>) -> Self::Future {
            let service = self.clone();
            Box::pin(async move {
                let mut grpc = tonic::server::Grpc::new(ProstCodec::<M, Blob>::default())
                    .apply_max_message_size_config(Some(64 << 20), None);
                Ok(grpc.unary(service, request).await)
            })
        }
    }

    /// Serves it for as long as the runtime lives.
    pub(crate) async fn serve<M: Answer>(answer: M) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(tonic::transport::Server::builder().add_service(Canned(answer)).serve_with_incoming(incoming));
        address
    }

    pub(crate) async fn call<M: Answer>(channel: &tonic::transport::Channel, bytes: Bytes) -> M {
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.expect("a connection");
        let path = http::uri::PathAndQuery::from_static("/bare.Canned/Call");
        let codec = ProstCodec::<Blob, M>::default();
        grpc.unary(Request::new(Blob { bytes }), path, codec).await.expect("an answer").into_inner()
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

async fn connect(address: SocketAddr) -> Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .expect("an address")
        .tcp_nodelay(true)
        .connect()
        .await
        .expect("a connection")
}

async fn channel_to(server: &TestServer) -> Channel {
    connect(server.addr).await
}

/// Calls a second of `call`, so many in flight.
async fn calls_per_second<F>(in_flight: usize, calls: usize, call: impl Fn() -> F + Clone + Send + 'static) -> f64
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

fn wire_time(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.to_parts();
    prost_types::Timestamp { seconds, nanos }
}

fn message(key: &SeriesKey, time: Timestamp, value: PublishedValue) -> v1::Tick {
    v1::Tick {
        pair: key.pair.to_string(),
        source: key.source.to_string(),
        observed_time: Some(wire_time(time)),
        rate: value.rate.to_string(),
        reported_change_percent: value.reported_change.map(|change| change.to_string()),
    }
}

/// Seeded ticks of one series, up to the test server's clock.
fn ticks(seed: u64, count: usize) -> Vec<(Timestamp, PublishedValue)> {
    let back_us = 400 * Timestamp::DAY_US;
    Ticks::new(seed, 30).take(count).map(|(time, value)| (time.saturating_add_us(-back_us), value)).collect()
}

fn latest() {
    let runtime = runtime();
    runtime.block_on(async {
        let server = TestServer::start(&[]).await;
        let batch: Vec<v1::Tick> =
            keys().iter().flat_map(|key| ticks(1, 20).into_iter().map(|(t, v)| message(key, t, v))).collect();
        server.store(&batch).await;
        let channel = connect(server.addr).await;
        let answer = RateServiceClient::new(channel.clone())
            .get_latest_rates(v1::GetLatestRatesRequest::default())
            .await
            .expect("an answer")
            .into_inner();
        assert_eq!(answer.rates.len(), 5);
        let size = prost::Message::encoded_len(&answer);
        // Once as bytes that the client only hands on, once as the very message, decoded like ours.
        let blob = bare::Blob { bytes: Bytes::from(vec![7; size - 3]) };
        let bytes = connect(bare::serve(blob).await).await;
        let same = connect(bare::serve(answer.clone()).await).await;
        let calls = parameter("SILKRATE_BENCH_CALLS", 60_000) as usize;
        let mut speeds: [Vec<f64>; 4] = Default::default();
        for _ in 0..ROUNDS {
            let channel = bytes.clone();
            let call = move || {
                let channel = channel.clone();
                async move {
                    let blob: bare::Blob = bare::call(&channel, Bytes::new()).await;
                    assert_eq!(blob.bytes.len(), size - 3);
                }
            };
            speeds[0].push(calls_per_second(16, calls, call).await);
            let channel = same.clone();
            let call = move || {
                let channel = channel.clone();
                async move {
                    let answer: v1::GetLatestRatesResponse = bare::call(&channel, Bytes::new()).await;
                    assert_eq!(answer.rates.len(), 5);
                }
            };
            speeds[1].push(calls_per_second(16, calls, call).await);
            for (since, count, at) in [(0, 5, 2), (answer.sequence, 0, 3)] {
                let client = RateServiceClient::new(channel_to(&server).await);
                let request = v1::GetLatestRatesRequest { since_sequence: since, ..Default::default() };
                let call = move || {
                    let (mut client, request) = (client.clone(), request.clone());
                    async move {
                        let got = client.get_latest_rates(request).await.expect("an answer").into_inner();
                        assert_eq!(got.rates.len(), count);
                    }
                };
                speeds[at].push(calls_per_second(16, calls, call).await);
            }
        }
        let [bytes, same, ours, unchanged] = speeds.map(median);
        report(&format!("bare service, {size} B of bytes, 16 in flight"), bytes, "calls/s", "-");
        report("bare service, the same message, decoded", same, "calls/s", "-");
        report("latest", ours, "calls/s", "-");
        report("latest, times the bare service with the same message", ours / same, "times", ">= 0.85");
        report("latest, times the bare service with bytes", ours / bytes, "times", ">= 0.85");
        report("poll with an unchanged sequence, times the bare service", unchanged / bytes, "times", ">= 0.9");
        server.stop().await;
    });
}

fn ingest() {
    let runtime = runtime();
    runtime.block_on(async {
        let total = parameter("SILKRATE_BENCH_TICKS", 800_000) as usize;
        let (mut messages, mut columns, mut bares) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bares.push(ingest_bare(total).await);
            messages.push(ingest_messages(total).await);
            columns.push(ingest_columns(total * 4).await);
        }
        report("the same messages to a bare service that decodes nothing", median(bares), "ticks/s", "-");
        report("durable, messages, 1,000 a batch, 4 clients", median(messages), "ticks/s", ">= 400,000");
        report("durable, columns, 10,000 a batch, 4 clients", median(columns), "ticks/s", ">= 1,500,000");
    });
}

/// Batches of messages for each of four clients.
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
            let mut taken = 0;
            for batch in batches {
                let summary = client.ingest_ticks(batch).await.expect("taken").into_inner().summary.expect("counts");
                taken += summary.new_run_count + summary.collapsed_count;
            }
            taken
        }));
    }
    let mut taken = 0;
    for task in tasks {
        taken += task.await.expect("no panic") as usize;
    }
    let speed = per_second(total as u64, begun.elapsed());
    assert_eq!(taken, total / 4 * 4);
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
            let mut answers = client.stream_ticks(stream).await.expect("a stream").into_inner();
            let mut taken = 0;
            while let Some(answer) = answers.message().await.expect("an answer") {
                let summary = answer.result.expect("a result").summary.expect("counts");
                taken += summary.new_run_count + summary.collapsed_count;
            }
            taken
        }));
    }
    let mut taken = 0;
    for task in tasks {
        taken += task.await.expect("no panic") as usize;
    }
    let speed = per_second(total as u64, begun.elapsed());
    assert_eq!(taken, total / 4 * 4);
    server.stop().await;
    speed
}

fn single() {
    let runtime = runtime();
    runtime.block_on(async {
        let server = TestServer::start(&[]).await;
        let mut client = IngestServiceClient::new(connect(server.addr).await);
        let key = &keys()[0];
        let mut generator = ticks(1, 100_000).into_iter();
        let bare = connect(bare::serve(bare::Blob { bytes: Bytes::from(vec![7; 40]) }).await).await;
        let mut file = File::create(server.dir.path().join("append")).expect("a file");
        let calls = parameter("SILKRATE_BENCH_CALLS", 300) as usize;
        let (mut appends, mut rpcs, mut ours) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS * calls {
            let begun = Instant::now();
            file.write_all(&[7; 64]).and_then(|()| file.sync_data()).expect("a good disk");
            appends.push(begun.elapsed().as_secs_f64() * 1e6);
            let begun = Instant::now();
            bare::call::<bare::Blob>(&bare, Bytes::from_static(&[7; 60])).await;
            rpcs.push(begun.elapsed().as_secs_f64() * 1e6);
            let (time, value) = generator.next().expect("enough ticks");
            let request = v1::IngestTicksRequest { ticks: vec![message(key, time, value)], ..Default::default() };
            let begun = Instant::now();
            let answer = client.ingest_ticks(request).await.expect("taken").into_inner();
            ours.push(begun.elapsed().as_secs_f64() * 1e6);
            assert_eq!(answer.refusals, []);
        }
        let (append, rpc, ours) = (median(appends), median(rpcs), median(ours));
        report("bare append + fdatasync, median", append, "us", "-");
        report("bare call, median", rpc, "us", "-");
        report("one tick, durable, median", ours, "us", "-");
        report("one tick, times the two together", ours / (append + rpc), "times", "<= 1.5");
        server.stop().await;
    });
}

fn stream() {
    let runs = parameter("SILKRATE_BENCH_RUNS", 10_000_000);
    let directory = filled(runs);
    let runtime = runtime();
    runtime.block_on(async {
        let server = TestServer::start_over(directory).await;
        let mut client = RateServiceClient::new(connect(server.addr).await).max_decoding_message_size(64 << 20);
        let mut speeds = Vec::new();
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let mut read = 0;
            for key in keys() {
                let request = v1::StreamRunsRequest {
                    pair: key.pair.to_string(),
                    source: key.source.to_string(),
                    ..Default::default()
                };
                let mut answers = client.stream_runs(request).await.expect("a stream").into_inner();
                while let Some(answer) = answers.message().await.expect("a message") {
                    let decoded = decode_runs(&answer).expect("sound columns");
                    assert_eq!(decoded.len(), answer.run_count as usize);
                    read += decoded.len() as u64;
                }
            }
            speeds.push(per_second(read, begun.elapsed()));
            assert!(read * 100 >= runs * 95, "{read} of {runs} runs");
        }
        report(&format!("StreamRuns of {runs} runs, decoded"), median(speeds), "runs/s", ">= 5,000,000");
        server.stop().await;
    });
}

/// The program itself over a large store: how soon it answers, and what it holds.
fn program() {
    let runs = parameter("SILKRATE_BENCH_RUNS", 10_000_000);
    let directory = filled(runs);
    let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let begun = Instant::now();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_silkrate"))
        .args(["serve", "--listen", &address.to_string(), "--http-listen", "none", "--reserve-mib", "0", "--db"])
        .arg(directory.path().join("db"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program");
    let memory = |what: &str| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("a running program");
        let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("a line of memory");
        line.trim().trim_end_matches("kB").trim().parse::<f64>().expect("kilobytes") / 1024.0
    };
    runtime().block_on(async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = loop {
            assert!(begun.elapsed() < Duration::from_secs(30), "the program does not answer");
            match endpoint.connect().await {
                Ok(channel) => break channel,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let mut client = RateServiceClient::new(channel).max_decoding_message_size(64 << 20);
        let latest = client.get_latest_rates(v1::GetLatestRatesRequest::default()).await.expect("an answer");
        assert_eq!(latest.into_inner().rates.len(), 5);
        report(&format!("start over {runs} runs until the first answer"), begun.elapsed().as_secs_f64(), "s", "< 2");
        report("resident after start", memory("VmRSS:"), "MB", "< 250");
        for _ in 0..2 {
            for key in keys() {
                let request = v1::StreamRunsRequest {
                    pair: key.pair.to_string(),
                    source: key.source.to_string(),
                    ..Default::default()
                };
                let mut answers = client.stream_runs(request).await.expect("a stream").into_inner();
                while answers.message().await.expect("a message").is_some() {}
            }
        }
        report("most resident while reading everything twice", memory("VmHWM:"), "MB", "< 250");
    });
    child.kill().and_then(|()| child.wait()).expect("an end");
}

/// Latencies of `GetRate` and `GetChange` at random times, in microseconds: the 99th of a hundred.
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
        let answer = client.get_rate(request).await.expect("a rate").into_inner();
        rates.push(begun.elapsed().as_secs_f64() * 1e6);
        assert_eq!(answer.legs.len(), 1);
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
        let answer = client.get_change(request).await.expect("a change").into_inner();
        changes.push(begun.elapsed().as_secs_f64() * 1e6);
        assert!(answer.percent_change.is_some());
    }
    let p99 = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() * 99 / 100]
    };
    (p99(rates), p99(changes))
}

fn point() {
    let (few, many) = (10_000, parameter("SILKRATE_BENCH_RUNS", 10_000_000));
    let (small, large) = (filled(few), filled(many));
    let runtime = runtime();
    runtime.block_on(async {
        let small = TestServer::start_over(small).await;
        let large = TestServer::start_over(large).await;
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
        report(&format!("GetRate, p99 at {many} runs, times that"), large_rate / small_rate, "times", "<= 2");
        report(&format!("GetChange, p99 at {few} runs"), small_change, "us", "-");
        report(&format!("GetChange, p99 at {many} runs, times that"), large_change / small_change, "times", "<= 2");
        small.stop().await;
        large.stop().await;
    });
}

/// A thousand late ticks over a thousand blocks in one batch, while other callers go on.
fn late() {
    let blocks = 1_000_u64;
    let directory = filled(blocks * 2_048 * 5);
    let runtime = runtime();
    runtime.block_on(async {
        let server = TestServer::start_over(directory).await;
        let key = keys()[0].clone();
        let span_s = blocks * 2_048 * 33 / 10;
        let late: Vec<v1::Tick> = (0..1_000)
            .map(|n| {
                let us = (n * span_s / 1_000 + 20) as i64 * Timestamp::SECOND_US + 500_000;
                let time = Timestamp::from_micros(BASE_US - 400 * Timestamp::DAY_US + us);
                let (_, value) = Ticks::new(n, 100).next().expect("ticks without end");
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
                    client.ingest_ticks(request).await.expect("taken");
                    took.push(begun.elapsed().as_secs_f64());
                }
                took
            }));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = Instant::now();
        let request = v1::IngestTicksRequest { ticks: late, ..Default::default() };
        let answer = server.ingest().ingest_ticks(request).await.expect("taken").into_inner();
        let answered = begun.elapsed().as_secs_f64();
        let summary = answer.summary.expect("counts");
        assert_eq!((summary.late_count, summary.refused_count), (1_000, 0));
        // Until the checkpoint that follows has ended.
        tokio::time::sleep(Duration::from_secs(2)).await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut took = Vec::new();
        for other in others {
            took.extend(other.await.expect("no panic"));
        }
        took.sort_by(f64::total_cmp);
        report("1,000 late ticks over 1,000 blocks, answered", answered, "s", "< 1");
        report("other callers meanwhile, p99", took[took.len() * 99 / 100], "s", "< 1");
        report("other callers meanwhile, longest", took[took.len() - 1], "s", "-");
        server.stop().await;
    });
}

fn main() {
    let parts: [(&str, fn()); 7] = [
        ("program", program),
        ("latest", latest),
        ("ingest", ingest),
        ("single", single),
        ("stream", stream),
        ("point", point),
        ("late", late),
    ];
    for (name, part) in parts {
        if wanted(name) {
            println!("# {name}");
            part();
        }
    }
}
