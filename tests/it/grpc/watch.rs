//! `WatchLatestRates` over real sockets: which messages a watcher receives, when, and that it misses no change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use silkrate::domain::{CurrencySet, Pair, SeriesKey, Source};
use silkrate::ingest::{Batch, BatchTick, SeriesTicks};
use silkrate::proto::v1;
use silkrate::proto::v1::rate_service_client::RateServiceClient;
use silkrate::store::{DiskFault, DiskOperation};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::grpc::reads;
use crate::grpc::reads::{DAY_S, Service, WATCHERS_MAX, assert_refused, at, instant, start, value};
use crate::skipped;
use crate::support::{TestServer, tick};

/// Far longer than any step of these tests takes.
const TIMEOUT: Duration = Duration::from_mins(1);

type Messages = Streaming<v1::WatchLatestRatesResponse>;

/// The state that a client builds from the messages: rates by pair and source, at a sequence.
#[derive(Default)]
struct ClientState {
    rates: BTreeMap<(String, String), v1::LatestRate>,
    sequence: u64,
}

impl ClientState {
    fn apply(&mut self, message: &v1::WatchLatestRatesResponse) {
        assert!(message.sequence >= self.sequence, "the sequence decreased");
        if message.kind() == v1::WatchKind::Snapshot {
            self.rates.clear();
        }
        assert!(message.kind() != v1::WatchKind::Heartbeat || message.rates.is_empty());
        for rate in &message.rates {
            let run = rate.run.clone().unwrap();
            self.rates.insert((run.pair, run.source), rate.clone());
        }
        self.sequence = message.sequence;
    }

    fn rates(&self) -> Vec<v1::LatestRate> {
        self.rates.values().cloned().collect()
    }
}

fn everything() -> v1::WatchLatestRatesRequest {
    v1::WatchLatestRatesRequest::default()
}

async fn watch(client: &RateServiceClient<Channel>, request: v1::WatchLatestRatesRequest) -> Result<Messages, Status> {
    client.clone().watch_latest_rates(request).await.map(tonic::Response::into_inner)
}

async fn next(messages: &mut Messages) -> v1::WatchLatestRatesResponse {
    timeout(TIMEOUT, messages.message()).await.expect("a message in time").unwrap().expect("a message")
}

async fn end(messages: &mut Messages) -> Status {
    loop {
        if let Err(status) = timeout(TIMEOUT, messages.message()).await.expect("an end in time") {
            return status;
        }
    }
}

/// Returns pair, rate and observation count of each rate in a message.
fn shown(message: &v1::WatchLatestRatesResponse) -> Vec<(String, String, u64)> {
    let runs = message.rates.iter().filter_map(|rate| rate.run.clone());
    runs.map(|run| (run.pair, run.rate, run.observation_count)).collect()
}

fn row(pair: &str, rate: &str, observations: u64) -> (String, String, u64) {
    (pair.to_owned(), rate.to_owned(), observations)
}

#[tokio::test]
async fn watch_sends_a_snapshot_and_then_each_change() {
    let service = start().await;
    service.commit("KGS/USD timesca", &[(-120, "0.01144")]).await;
    let stored = service.commit("KZT/USD timesca", &[(-120, "0.00196")]).await;
    let mut messages = watch(&service.client, everything()).await.unwrap();
    let first = next(&mut messages).await;
    assert_eq!((first.kind(), first.sequence), (v1::WatchKind::Snapshot, stored.sequence));
    assert_eq!(shown(&first), [row("KGS/USD", "0.01144", 1), row("KZT/USD", "0.00196", 1)]);
    assert_eq!((first.server_time, first.last_ingest_time), (at(0), reads::proto(stored.recorded_time)));

    let moved = service.commit("KGS/USD timesca", &[(-60, "0.01145")]).await;
    let message = next(&mut messages).await;
    assert_eq!((message.kind(), message.sequence), (v1::WatchKind::Changes, moved.sequence));
    assert_eq!(shown(&message), [row("KGS/USD", "0.01145", 1)]);
    assert_eq!(message.rates[0].previous_rate.as_deref(), Some("0.01144"));

    // A repeated rate is a confirmation. A dashboard needs it to see that the feed is alive.
    let confirmed = service.commit("KGS/USD timesca", &[(-30, "0.01145")]).await;
    let message = next(&mut messages).await;
    assert_eq!((message.kind(), message.sequence), (v1::WatchKind::Changes, confirmed.sequence));
    assert_eq!(shown(&message), [row("KGS/USD", "0.01145", 2)]);
    assert_eq!(message.last_ingest_time, reads::proto(confirmed.recorded_time));
}

#[tokio::test]
async fn watch_reports_changes_made_by_time_alone() {
    let service = start().await;
    service.commit("KGS/USD timesca", &[(-60, "0.01144")]).await;
    service.commit("KZT/USD nbk", &[(-60, "0.00196")]).await;
    // The observed time of this rate is tomorrow. The rate is stored now, and shown when it comes into force.
    service.commit("KZT/USD nbk", &[(DAY_S, "0.00197")]).await;
    let mut messages = watch(&service.client, everything()).await.unwrap();
    assert_eq!(shown(&next(&mut messages).await), [row("KGS/USD", "0.01144", 1), row("KZT/USD", "0.00196", 1)]);

    service.clock.set(instant(DAY_S));
    service.running.ingest().wake_writer();
    let due = next(&mut messages).await;
    assert_eq!((due.kind(), shown(&due)), (v1::WatchKind::Changes, vec![row("KZT/USD", "0.00197", 1)]));

    service.clock.set(instant(2 * DAY_S));
    service.running.ingest().wake_writer();
    let stale = next(&mut messages).await;
    assert_eq!(shown(&stale), [row("KGS/USD", "0.01144", 1), row("KZT/USD", "0.00197", 1)]);
    let states: Vec<v1::RateState> = stale.rates.iter().map(v1::LatestRate::state).collect();
    assert_eq!(states, [v1::RateState::Stale, v1::RateState::Flat]);
    assert!(stale.sequence > due.sequence);
    assert_eq!(stale.last_ingest_time, due.last_ingest_time, "no tick was ingested");
}

#[tokio::test]
async fn filtered_watch_excludes_other_pairs_and_heartbeats_carry_the_sequence() {
    let service = start().await;
    service.commit("KGS/USD timesca", &[(-120, "0.01144")]).await;
    let request = v1::WatchLatestRatesRequest {
        pairs: vec!["KZT/USD".to_owned()],
        heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..everything()
    };
    let mut messages = watch(&service.client, request).await.unwrap();
    let first = next(&mut messages).await;
    assert_eq!((first.kind(), first.rates.len()), (v1::WatchKind::Snapshot, 0), "an empty snapshot must be sent");
    let other = service.commit("KGS/USD timesca", &[(-60, "0.01145")]).await;
    service.clock.set(instant(7));
    let heartbeat = next(&mut messages).await;
    assert_eq!((heartbeat.kind(), heartbeat.sequence), (v1::WatchKind::Heartbeat, other.sequence));
    assert_eq!(heartbeat.last_ingest_time, reads::proto(other.recorded_time));
    assert_eq!(heartbeat.server_time, at(7));
    assert_eq!(next(&mut messages).await.kind(), v1::WatchKind::Heartbeat, "heartbeats repeat while nothing changes");
    service.commit("KZT/USD timesca", &[(-60, "0.00196")]).await;
    let message = loop {
        let message = next(&mut messages).await;
        if message.kind() != v1::WatchKind::Heartbeat {
            break message;
        }
    };
    assert_eq!((message.kind(), shown(&message)), (v1::WatchKind::Changes, vec![row("KZT/USD", "0.00196", 1)]));
}

#[tokio::test]
async fn reconnecting_watch_resumes_at_its_sequence() {
    let service = start().await;
    let first = service.commit("KGS/USD timesca", &[(-120, "0.01144")]).await.sequence;
    let last = service.commit("KZT/USD timesca", &[(-120, "0.00196")]).await.sequence;
    let begin = async |since_sequence| {
        let request = v1::WatchLatestRatesRequest { since_sequence, ..everything() };
        let message = next(&mut watch(&service.client, request).await.unwrap()).await;
        assert_eq!(message.sequence, last);
        (message.kind(), message.rates.len())
    };
    assert_eq!(begin(0).await, (v1::WatchKind::Snapshot, 2));
    assert_eq!(begin(first).await, (v1::WatchKind::Changes, 1));
    assert_eq!(begin(last).await, (v1::WatchKind::Heartbeat, 0), "a heartbeat must confirm that nothing was missed");
    assert_eq!(
        begin(last + 1).await,
        (v1::WatchKind::Snapshot, 2),
        "an unknown sequence, of another store, gets a snapshot"
    );
}

#[tokio::test]
async fn invalid_watch_request_names_the_field() {
    let service = start().await;
    let request_watch = |request| watch(&service.client, request);
    let heartbeat_interval = Some(prost_types::Duration { seconds: 181, nanos: 0 });
    let request = v1::WatchLatestRatesRequest { heartbeat_interval, ..everything() };
    assert_refused(request_watch(request).await, Code::InvalidArgument, "heartbeat_interval");
    let request = v1::WatchLatestRatesRequest { pairs: vec!["KGS".to_owned()], ..everything() };
    assert_refused(request_watch(request).await, Code::InvalidArgument, "pairs[0]");
    let request = v1::WatchLatestRatesRequest { sources: vec!["Times CA".to_owned()], ..everything() };
    assert_refused(request_watch(request).await, Code::InvalidArgument, "sources[0]");
}

#[tokio::test]
async fn deadline_ends_a_watch() {
    let service = start().await;
    let mut request = Request::new(everything());
    request.set_timeout(Duration::from_millis(300));
    let mut messages = service.client.clone().watch_latest_rates(request).await.unwrap().into_inner();
    assert_eq!(end(&mut messages).await.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn watch_beyond_the_limit_is_refused_with_retry_info() {
    let service = start().await;
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS_MAX {
        watchers.push(watch(&service.client, everything()).await.unwrap());
    }
    let refused = watch(&service.client, everything()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.get_error_details().retry_info().is_some(), "{refused:?}");
    // A dropped watch frees a slot.
    drop(watchers.pop());
    let again = async {
        while watch(&service.client, everything()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, again).await.expect("a free slot in time");
}

/// Commits a hundred series at once: a message of about ten kilobytes.
async fn commit_large(service: &Service, second: i64, rate: &str) -> u64 {
    let pair = Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap();
    let groups = (0..100).map(|number| SeriesTicks {
        series: SeriesKey { pair, source: Source::parse(&format!("source-{number}")).unwrap() },
        ticks: vec![BatchTick { index: number, observed_time: instant(second), value: value(rate) }],
        quarantine_threshold: None,
    });
    let batch = Batch { groups: groups.collect(), ..Batch::default() };
    service.running.ingest().submit(batch).await.unwrap().sequence
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_watcher_delays_nobody_and_then_gets_the_newest_state() {
    const COMMITS: i64 = 200;
    const WATCHERS: usize = 50;
    /// As many messages as a stream window of 64 KiB and the buffers of the transport hold.
    const MESSAGES_WAITING_MAX: usize = 20;
    let service = start().await;
    let mut last = commit_large(&service, -COMMITS - 1, "0.01144").await;
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        // One connection per watcher, so that no watcher reads for another.
        let endpoint = Endpoint::from_shared(format!("http://{}", service.address)).unwrap();
        let channel = endpoint.initial_stream_window_size(65_535).connect().await.unwrap();
        watchers.push(watch(&RateServiceClient::new(channel), everything()).await.unwrap());
    }
    // Each commit is acknowledged although no watcher reads: the writer does not wait for watchers.
    for second in -COMMITS..0 {
        last = commit_large(&service, second, if second % 2 == 0 { "0.01144" } else { "0.01145" }).await;
    }
    let expect = service.latest(0).await.rates;
    for mut messages in watchers {
        let (mut state, mut read) = (ClientState::default(), 0);
        while state.sequence < last {
            state.apply(&next(&mut messages).await);
            read += 1;
        }
        assert!(read <= MESSAGES_WAITING_MAX, "{read} messages were queued for a watcher that does not read");
        let mut rates = state.rates();
        rates.sort_by_key(|rate| expect.iter().position(|other| other == rate));
        assert_eq!(rates, expect);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thousand_watchers_see_a_change() {
    check_watchers_see_a_change(1_000, 250).await;
}

#[tokio::test]
async fn thousand_watchers_on_separate_connections_see_a_change() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    // Both ends of each connection are in this process. Some files are needed for the store and the other tests.
    let connections_max =
        limit.maximum.map_or(usize::MAX, |files| usize::try_from(files).unwrap().saturating_sub(500) / 2);
    let watchers = connections_max.min(1_000);
    if watchers < 1_000 {
        skipped::skipped(&format!("only {watchers} watchers instead of 1,000: the limit of open files is too low"));
    }
    check_watchers_see_a_change(watchers, 1).await;
}

async fn check_watchers_see_a_change(watchers_count: usize, calls_per_connection: usize) {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -60, "0.01144"), tick("KZT/USD", -60, "0.00196")]).await;
    let mut watchers = Vec::new();
    for _ in 0..watchers_count / calls_per_connection {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.addr)).unwrap();
        let client = RateServiceClient::new(endpoint.connect().await.unwrap());
        for _ in 0..calls_per_connection {
            let mut messages = watch(&client, everything()).await.unwrap();
            assert_eq!(next(&mut messages).await.rates.len(), 2);
            watchers.push(messages);
        }
    }
    let stored = server.store(&[tick("KGS/USD", -30, "0.01145")]).await;
    for messages in &mut watchers {
        let message = next(messages).await;
        assert_eq!((message.sequence, shown(&message)), (stored.sequence, vec![row("KGS/USD", "0.01145", 1)]));
    }
}

fn assert_retry(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
}

#[tokio::test]
async fn shutdown_ends_a_watch_with_retry_info() {
    let server = TestServer::start(&["--shutdown-grace", "10m"]).await;
    let stored = server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    let mut messages = watch(&server.rates(), everything()).await.unwrap();
    assert_eq!(next(&mut messages).await.sequence, stored.sequence);
    let (_dir, shutdown) = server.begin_stop();
    let status = end(&mut messages).await;
    assert_retry(&status);
    assert!(status.message().contains("shutting down"), "{status:?}");
    // An open watch does not delay the shutdown.
    timeout(TIMEOUT, shutdown).await.expect("an end within the grace").unwrap().0.unwrap();
}

#[tokio::test]
async fn disk_failure_ends_watches_and_leaves_reads_available() {
    let broken = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&broken);
    let fault: DiskFault = Arc::new(move |operation| match operation {
        DiskOperation::Sync if switch.load(Ordering::SeqCst) => Err(std::io::Error::other("injected disk fault")),
        DiskOperation::Write | DiskOperation::Flush | DiskOperation::Sync => Ok(()),
    });
    let server = TestServer::start_with_fault(fault, &[]).await;
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    let mut messages = watch(&server.rates(), everything()).await.unwrap();
    next(&mut messages).await;
    broken.store(true, Ordering::SeqCst);
    let request = v1::IngestTicksRequest { ticks: vec![tick("KGS/USD", -30, "0.01145")], ..Default::default() };
    assert_retry(&server.ingest().ingest_ticks(request).await.unwrap_err());
    let status = end(&mut messages).await;
    assert_retry(&status);
    assert!(status.message().contains("injected disk fault"), "{status:?}");
    assert_retry(&watch(&server.rates(), everything()).await.unwrap_err());
    let polled = server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap();
    assert_eq!(polled.into_inner().rates.len(), 1, "reads must still work");
}

/// An event of the random test.
#[derive(Clone, Debug)]
enum Event {
    /// A tick of a series. Its rate is one of three, so that confirmations are common.
    Tick { series: usize, late_s: i64, rate: usize },
    /// Time passes, and the writer checks its clock.
    Hours(i64),
    /// The watcher reads a message, if one is waiting.
    Read,
    /// The connection is cut, and the watcher reconnects with the last sequence that it saw.
    Cut,
}

const SERIES: [&str; 3] = ["KGS/USD timesca", "KGS/USD nbkr", "UZS/USD timesca"];
const RATES: [&str; 3] = ["0.01144", "0.01145", "0.01146 -0.1"];

fn events() -> impl Strategy<Value = Vec<Event>> {
    let tick = (0..SERIES.len(), prop_oneof![3 => Just(0), 1 => -DAY_S..DAY_S], 0..RATES.len())
        .prop_map(|(series, late_s, rate)| Event::Tick { series, late_s, rate });
    let one =
        prop_oneof![6 => tick, 1 => (1_i64..60).prop_map(Event::Hours), 3 => Just(Event::Read), 2 => Just(Event::Cut)];
    prop::collection::vec(one, 1..40)
}

/// Runs the events. Returns the final state of the watcher, and the response to a poll.
async fn run_events(
    events: Vec<Event>,
    filter: v1::WatchLatestRatesRequest,
) -> (ClientState, v1::GetLatestRatesResponse) {
    let service = start().await;
    let (mut state, mut now_s) = (ClientState::default(), 0);
    let mut messages = watch(&service.client, filter.clone()).await.unwrap();
    for event in events {
        match event {
            Event::Tick { series, late_s, rate } => {
                now_s += 1;
                service.clock.set(instant(now_s));
                service.commit(SERIES[series], &[(now_s + late_s, RATES[rate])]).await;
            }
            Event::Hours(hours) => {
                now_s += hours * reads::HOUR_S;
                service.clock.set(instant(now_s));
                service.running.ingest().wake_writer();
            }
            Event::Read => {
                // If no message is waiting, a short timeout is enough.
                if let Ok(message) = timeout(Duration::from_millis(5), messages.message()).await {
                    state.apply(&message.unwrap().unwrap());
                }
            }
            Event::Cut => {
                drop(messages);
                let request = v1::WatchLatestRatesRequest { since_sequence: state.sequence, ..filter.clone() };
                messages = watch(&service.client, request).await.unwrap();
            }
        }
    }
    // The writer checks its clock before it commits, so this commit includes every change by time.
    let last = service.commit(SERIES[0], &[(now_s - 2 * DAY_S, RATES[0])]).await.sequence;
    while state.sequence < last {
        state.apply(&next(&mut messages).await);
    }
    let request = v1::GetLatestRatesRequest { pairs: filter.pairs, ..Default::default() };
    let polled = service.client.clone().get_latest_rates(request).await.unwrap().into_inner();
    (state, polled)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn watcher_with_random_disconnects_ends_with_the_latest_quotes(events in events(), filtered in any::<bool>()) {
        let pairs = if filtered { vec!["KGS/USD".to_owned()] } else { Vec::new() };
        let heartbeat_interval = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let filter = v1::WatchLatestRatesRequest { pairs, heartbeat_interval, ..everything() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (state, polled) = runtime.block_on(run_events(events, filter));
        prop_assert_eq!(state.sequence, polled.sequence);
        let mut rates = polled.rates;
        rates.sort_by_key(|rate| rate.run.as_ref().map(|run| (run.pair.clone(), run.source.clone())));
        prop_assert_eq!(state.rates(), rates);
    }
}
