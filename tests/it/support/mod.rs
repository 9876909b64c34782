//! A complete server within the test: the same `run` as in the program, on its own port, with a store in a temporary
//! directory and a manual clock.

#![allow(dead_code, reason = "each test binary needs only a part")]
#![allow(clippy::unwrap_used, reason = "a failed helper must fail the test")]

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Parser;
use silkrate::clock::ManualClock;
use silkrate::config::{Config, ServeArgs};
use silkrate::domain::Timestamp;
use silkrate::proto::v1;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;
use silkrate::proto::v1::rate_service_client::RateServiceClient;
use silkrate::server::{self, Listeners, ServeError};
use silkrate::store::DiskFault;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The time at which the clock of a test server starts: 2025-12-08T12:00:00Z.
pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_765_195_200_000_000);

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    serve: ServeArgs,
}

/// Returns the configuration for flags of `serve`, with the store in `db` under a directory.
pub(crate) fn config(dir: &TempDir, flags: &[String]) -> Config {
    let db = dir.path().join("db").display().to_string();
    // Tests do not need the reserve file, and it is slow to write.
    let own = ["test", "--db", &db, "--reserve-mib", "0"].map(str::to_owned);
    Config::new(Command::try_parse_from(own.iter().chain(flags)).unwrap().serve).unwrap()
}

/// The result of a server, and what it printed at start.
pub(crate) type Ended = (Result<(), ServeError>, Vec<u8>);

/// A running server. Without [`TestServer::stop`] it ends with the runtime of the test.
pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    /// The address of plain HTTP.
    pub(crate) http_addr: SocketAddr,
    pub(crate) channel: Channel,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) dir: TempDir,
    flags: Vec<String>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Ended>,
}

impl TestServer {
    /// Starts a server with flags of `serve` and an empty store.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::start_in(dir, flags, Arc::new(ManualClock::new(NOW)), None).await
    }

    /// Starts a server with the existing store in `db` under a directory.
    pub(crate) async fn start_with_store(dir: TempDir, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::start_in(dir, flags, Arc::new(ManualClock::new(NOW)), None).await
    }

    /// Starts a server on a disk that fails or stalls according to `fault`.
    pub(crate) async fn start_with_fault(fault: DiskFault, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Self::start_in(dir, flags, Arc::new(ManualClock::new(NOW)), Some(fault)).await
    }

    async fn start_in(dir: TempDir, flags: Vec<String>, clock: Arc<ManualClock>, fault: Option<DiskFault>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), dir, flags, clock, fault).await
    }

    async fn start_at(
        http_addr: SocketAddr,
        dir: TempDir,
        flags: Vec<String>,
        clock: Arc<ManualClock>,
        fault: Option<DiskFault>,
    ) -> Self {
        let mut config = config(&dir, &flags);
        if let Some(fault) = fault {
            config = config.with_disk_fault(fault);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let http = TcpListener::bind(http_addr).await.unwrap();
        let http_addr = http.local_addr().unwrap();
        let listeners = Listeners { grpc: listener, http: Some(http) };
        let (stop, stopped) = oneshot::channel::<()>();
        let server_clock = Arc::clone(&clock);
        let task = tokio::spawn(async move {
            let mut printed = Vec::new();
            let shutdown = async {
                // A dropped sender also stops the server.
                let _ = stopped.await;
            };
            let ended = server::run(&config, server_clock, listeners, &mut printed, shutdown).await;
            if let Err(error) = &ended {
                // Clients see only a closed connection.
                eprintln!("server ended: {error}");
            }
            (ended, printed)
        });
        let channel = Endpoint::from_shared(format!("http://{addr}")).unwrap().connect_lazy();
        Self { addr, http_addr, channel, clock, dir, flags, stop, task }
    }

    /// Stops the server cleanly. Returns the directory with the closed store, and what was printed at start.
    pub(crate) async fn stop(self) -> (TempDir, String) {
        drop(self.channel);
        self.stop.send(()).unwrap();
        let (ended, printed) = self.task.await.unwrap();
        ended.unwrap();
        (self.dir, String::from_utf8(printed).unwrap())
    }

    /// Requests the shutdown without closing the client's connections. Returns the directory and the task of the
    /// server.
    pub(crate) fn begin_stop(self) -> (TempDir, JoinHandle<Ended>) {
        self.stop.send(()).unwrap();
        (self.dir, self.task)
    }

    /// Stops the server and starts it again with its store and its clock.
    pub(crate) async fn restart(self) -> Self {
        self.pause().await.resume().await
    }

    /// Stops the server so that it can be started again.
    pub(crate) async fn pause(self) -> Paused {
        let (http_addr, flags, clock) = (self.http_addr, self.flags.clone(), Arc::clone(&self.clock));
        let (dir, _) = self.stop().await;
        Paused { http_addr, dir, flags, clock }
    }

    pub(crate) fn ingest(&self) -> IngestServiceClient<Channel> {
        IngestServiceClient::new(self.channel.clone()).max_encoding_message_size(usize::MAX)
    }

    pub(crate) fn rates(&self) -> RateServiceClient<Channel> {
        RateServiceClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// Stores ticks that must all be accepted.
    pub(crate) async fn store(&self, ticks: &[v1::Tick]) -> v1::IngestTicksResponse {
        let request = v1::IngestTicksRequest { ticks: ticks.to_vec(), ..Default::default() };
        let response = self.ingest().ingest_ticks(request).await.unwrap().into_inner();
        assert_eq!(response.refusals, []);
        response
    }
}

/// A stopped server with its store.
pub(crate) struct Paused {
    http_addr: SocketAddr,
    dir: TempDir,
    flags: Vec<String>,
    pub(crate) clock: Arc<ManualClock>,
}

impl Paused {
    /// Starts the server again, with plain HTTP on the same address.
    pub(crate) async fn resume(self) -> TestServer {
        TestServer::start_at(self.http_addr, self.dir, self.flags, self.clock, None).await
    }
}

/// Returns the time `seconds` after [`NOW`].
pub(crate) fn time(seconds: i64) -> prost_types::Timestamp {
    let (seconds, nanos) = NOW.saturating_add_us(seconds * Timestamp::SECOND_US).to_parts();
    prost_types::Timestamp { seconds, nanos }
}

/// Builds a tick of `pair` from timesca, `seconds` after [`NOW`].
pub(crate) fn tick(pair: &str, seconds: i64, rate: &str) -> v1::Tick {
    v1::Tick {
        pair: pair.to_owned(),
        source: "timesca".to_owned(),
        observed_time: Some(time(seconds)),
        rate: rate.to_owned(),
        reported_change_percent: None,
    }
}

/// Returns a tick of a source other than the ticker.
pub(crate) fn tick_from(source: &str, pair: &str, seconds: i64, rate: &str) -> v1::Tick {
    v1::Tick { source: source.to_owned(), ..tick(pair, seconds, rate) }
}

/// Nineteen series: the ticker, three banks with their other pairs, and an old series of a bank that has no other.
pub(crate) fn nineteen_series() -> Vec<v1::Tick> {
    const HOUR_S: i64 = 3_600;
    let mut ticks = Vec::new();
    for hour in -50..=0 {
        let kgs = format!("0.{:05}", 1_144 + hour / 24);
        let rates = [
            ("KGS/USD", kgs.as_str()),
            ("KZT/USD", "0.00196"),
            ("TJS/USD", "0.10899"),
            ("TMT/USD", "0.28490"),
            ("UZS/USD", "0.00008"),
        ];
        ticks.extend(rates.map(|(pair, rate)| tick(pair, hour * HOUR_S, rate)));
    }
    for day in -20..=0 {
        let usd = format!("87.{}00", 45 + day);
        let banks = [
            ("nbkr", "USD/KGS", usd.as_str()),
            ("nbkr", "KZT/KGS", "0.1712"),
            ("nbkr", "UZS/KGS", "0.0073"),
            ("nbkr", "TJS/KGS", "9.4510"),
            ("nbkr", "TMT/KGS", "24.9857"),
            ("nbk", "USD/KZT", "517.65"),
            ("nbk", "KGS/KZT", "5.92"),
            ("nbk", "UZS/KZT", "0.0433"),
            ("nbk", "TJS/KZT", "55.96"),
            ("cbu", "USD/UZS", "11984.50"),
            ("cbu", "KZT/UZS", "23.15"),
            ("cbu", "KGS/UZS", "137.04"),
            ("cbu", "TJS/UZS", "1295.30"),
        ];
        ticks.extend(banks.map(|(source, pair, rate)| tick_from(source, pair, (day * 24 - 1) * HOUR_S, rate)));
    }
    ticks.push(tick_from("cbs", "USD/UZS", -3_000 * 24 * HOUR_S, "8100.00"));
    ticks
}

/// Checks an `INVALID_ARGUMENT` status: the named field, and a part of the message.
#[track_caller]
pub(crate) fn assert_invalid(status: &Status, field: &str, part: &str) {
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    assert!(violations.iter().any(|violation| violation.field == field), "no '{field}' among {violations:?}");
    assert!(status.message().contains(part), "no '{part}' in: {}", status.message());
}
