//! A server process under far more load than it can serve: what its clients get, what memory it takes, and how soon it
//! serves again.

use std::error::Error as _;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use silkrate::proto::v1;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;
use silkrate::proto::v1::rate_service_client::RateServiceClient;
use silkrate::proto::v1::snapshot_service_client::SnapshotServiceClient;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::cli::serve::{Serving, serve};
use crate::support::tick_from;

/// The memory that a server may take under any load.
const RESIDENT_MIB_MAX: u64 = 400;
/// The memory to which a server falls after a load, caches included, and the time that this takes at most.
const FALLEN_MIB_MAX: u64 = 180;
const FALL_TIME: Duration = Duration::from_secs(30);
/// How long the load lasts. All of it stops by itself.
const LOAD_TIME: Duration = Duration::from_secs(8);
/// The time within which a server serves each kind of call again after a load. Machines that run tests may be slow.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(20);
const DAY_S: i64 = 86_400;

/// Returns a value of the memory of a process in MiB, such as `VmRSS` or `VmHWM`.
fn memory_mib(process: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
}

/// The answers of the server to a load.
#[derive(Default)]
struct Answers {
    served: AtomicUsize,
    refused: AtomicUsize,
    /// Calls whose connection ended: the server closes a connection whose client does not read for 20 s, and the callers
    /// of this test compete for the processor with other tests.
    lost: AtomicUsize,
}

impl Answers {
    /// Counts an answer: a response, or a refusal that says when to try again. Returns false if the connection ended.
    async fn count(&self, call: &str, answer: Result<(), Status>) -> bool {
        match answer {
            Ok(()) => drop(self.served.fetch_add(1, Ordering::Relaxed)),
            // Only a status that the server did not send has a source.
            Err(status) if status.source().is_some() => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{call}: {status:?}");
                let delay = status.get_error_details().retry_info().and_then(|info| info.retry_delay);
                assert!(delay.is_some(), "{call}: {status:?}");
                self.refused.fetch_add(1, Ordering::Relaxed);
                // Far sooner than the server asks for.
                sleep(Duration::from_millis(20)).await;
            }
        }
        true
    }
}

async fn connect(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// Stores histories that are expensive to read: 60,000 runs, and 9,000 days of two sources.
async fn fill(channel: &Channel) {
    let mut ingest = IngestServiceClient::new(channel.clone());
    let rate = |at: i64| format!("87.{:04}", at % 7_919);
    for batch in 0..6 {
        let ticks = (0..10_000).map(|at| tick_from("timesca", "KGS/USD", -60_000 + batch * 10_000 + at, &rate(at)));
        let request = v1::IngestTicksRequest { ticks: ticks.collect(), ..Default::default() };
        ingest.ingest_ticks(request).await.unwrap();
    }
    for source in ["nbkr", "cbu"] {
        let ticks = (0..9_000).map(|day| tick_from(source, "USD/KGS", -day * DAY_S, &rate(day)));
        let request = v1::IngestTicksRequest { ticks: ticks.collect(), ..Default::default() };
        ingest.ingest_ticks(request).await.unwrap();
    }
}

/// Makes one call of a kind, and reads its response.
async fn call(kind: &'static str, channel: Channel, at: i64) -> Result<(), Status> {
    let mut rates = RateServiceClient::new(channel.clone());
    let pair = "KGS/USD".to_owned();
    match kind {
        "latest" => rates.get_latest_rates(v1::GetLatestRatesRequest::default()).await.map(drop),
        "history" => {
            rates.list_runs(v1::ListRunsRequest { pair, page_size: 2_000, ..Default::default() }).await.map(drop)
        }
        "compare" => {
            let sources = vec!["nbkr".to_owned(), "cbu".to_owned()];
            let request = v1::CompareSourcesRequest {
                pair: "USD/KGS".to_owned(),
                sources,
                last_days: Some(10_000),
                ..Default::default()
            };
            rates.compare_sources(request).await.map(drop)
        }
        "stream" => {
            let request = v1::StreamRunsRequest { pair, ..Default::default() };
            let mut stream = rates.stream_runs(request).await?.into_inner();
            stream.message().await?;
            // Leaves the rest unread for a while.
            sleep(Duration::from_millis(200)).await;
            Ok(())
        }
        "export" => {
            let request = v1::ExportSnapshotRequest::default();
            let mut stream = SnapshotServiceClient::new(channel).export_snapshot(request).await?.into_inner();
            while stream.message().await?.is_some() {}
            Ok(())
        }
        "ingest" => {
            let ticks = (0..10_000).map(|row| tick_from("timesca", "KZT/USD", -900_000 + at + row, "0.0019"));
            let request = v1::IngestTicksRequest { ticks: ticks.collect(), ..Default::default() };
            IngestServiceClient::new(channel).ingest_ticks(request).await.map(drop)
        }
        other => unreachable!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overloaded_server_refuses_with_retry_delays_and_serves_again_at_once() {
    // Callers at one time. Reads have 32 permits, streams 64 slots, comparisons 4 permits, exports 4 slots.
    const LOAD: [(&str, usize); 6] =
        [("latest", 64), ("history", 320), ("compare", 64), ("stream", 160), ("export", 40), ("ingest", 32)];
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(serve(&dir.path().join("db")));
    let address = serving.log.concat().split("serving on ").nth(1).unwrap().trim().to_owned();
    let process = serving.child.id();
    fill(&connect(&address).await).await;
    let idle_mib = memory_mib(process, "VmRSS");

    let until = Instant::now() + LOAD_TIME;
    let mut callers = Vec::new();
    for (kind, count) in LOAD {
        let answers = Arc::new(Answers::default());
        let mut tasks = Vec::new();
        for caller in 0..count {
            let (answers, address) = (Arc::clone(&answers), address.clone());
            tasks.push(tokio::spawn(async move {
                let mut channel = connect(&address).await;
                let mut at = i64::try_from(caller).unwrap();
                while Instant::now() < until {
                    at += 1_000;
                    let answer = call(kind, channel.clone(), at).await;
                    if !answers.count(kind, answer).await {
                        channel = connect(&address).await;
                    }
                }
            }));
        }
        callers.push((kind, answers, tasks));
    }
    let mut refused = 0;
    for (kind, answers, tasks) in callers {
        for task in tasks {
            timeout(LOAD_TIME * 6, task).await.expect("a caller ends in time").unwrap();
        }
        let (served, of_kind) = (answers.served.load(Ordering::Relaxed), answers.refused.load(Ordering::Relaxed));
        eprintln!("{kind}: {served} served, {of_kind} refused");
        assert!(served > 0, "{kind}: nothing was served");
        let lost = answers.lost.load(Ordering::Relaxed);
        assert!(lost <= served + of_kind, "{kind}: {lost} calls lost their connection");
        refused += of_kind;
    }
    assert!(refused > 0, "the load was not more than the server can serve");

    // Each kind of call is served again.
    let ended = Instant::now();
    let channel = connect(&address).await;
    for (kind, _) in LOAD {
        while let Err(status) = call(kind, channel.clone(), 0).await {
            // Times are a figure of the benches; a test only notices a server that stays overloaded.
            assert!(ended.elapsed() < RECOVERY_TIME_MAX, "{kind}: {status:?}");
            sleep(Duration::from_millis(20)).await;
        }
        eprintln!("{kind}: served again after {:?}", ended.elapsed());
    }
    let peak_mib = memory_mib(process, "VmHWM");
    let begun = Instant::now();
    let mut after_mib = memory_mib(process, "VmRSS");
    while after_mib >= FALLEN_MIB_MAX && begun.elapsed() < FALL_TIME {
        sleep(Duration::from_millis(500)).await;
        after_mib = memory_mib(process, "VmRSS");
    }
    eprintln!("resident: {idle_mib} MiB before the load, {peak_mib} MiB at most, {after_mib} MiB after it");
    assert!(peak_mib < RESIDENT_MIB_MAX, "{peak_mib} MiB");
    assert!(after_mib < FALLEN_MIB_MAX, "the memory did not fall: {after_mib} MiB");
}
