//! A server with `RateService` only. It has its own store, its own port and a manual clock.

#![allow(clippy::unnecessary_wraps, reason = "message fields are optional times")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use prost_types::Timestamp as ProtoTimestamp;
use silkrate::api::{Rates, ServiceLimits};
use silkrate::clock::ManualClock;
use silkrate::domain::{CurrencySet, Pair, PublishedValue, Rate, ReportedChange, SeriesKey, Source, Timestamp};
use silkrate::grpc::deadline::DeadlineLayer;
use silkrate::grpc::latest::LatestFastPath;
use silkrate::grpc::rate_service::RateServiceImpl;
use silkrate::ingest::{Batch, BatchTick, ConflictPolicy, IngestReport, QueueLimits, Running, SeriesTicks};
use silkrate::latest_quotes::StateRules;
use silkrate::proto::v1;
use silkrate::proto::v1::rate_service_client::RateServiceClient;
use silkrate::proto::v1::rate_service_server::RateServiceServer;
use silkrate::store::{CheckpointLimits, StoreOptions};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

pub(crate) const HOUR_S: i64 = 3_600;
pub(crate) const DAY_S: i64 = 24 * HOUR_S;
/// 2025-12-08T12:00:00Z, the time at which the test clock starts. Test times are seconds after it.
pub(crate) const NOON_S: i64 = 1_765_195_200;

/// Less than the limit of a server, so that a test can reach it.
pub(crate) const WATCHERS_MAX: usize = 100;

pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) client: RateServiceClient<Channel>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) running: Running,
    _directory: TempDir,
}

pub(crate) fn instant(seconds: i64) -> Timestamp {
    Timestamp::from_micros((NOON_S + seconds) * Timestamp::SECOND_US)
}

pub(crate) fn at(seconds: i64) -> Option<ProtoTimestamp> {
    Some(ProtoTimestamp { seconds: NOON_S + seconds, nanos: 0 })
}

pub(crate) fn rules() -> StateRules {
    StateRules::uniform(2 * DAY_S * Timestamp::SECOND_US, DAY_S * Timestamp::SECOND_US)
}

/// Starts a server with an empty store. The clock of the server is at noon.
pub(crate) async fn start() -> Service {
    let directory = tempfile::tempdir().unwrap();
    let options = StoreOptions {
        directory: directory.path().join("db"),
        collapse_window_default_us: Timestamp::HOUR_US,
        collapse_windows_us: BTreeMap::new(),
        recollapse: false,
        state_rules: rules(),
        reserve_bytes: 0,
        cache_bytes: 64 << 20,
        series_count_max: 100,
        configured_sources: Arc::default(),
        checkpoint: CheckpointLimits::default(),
        disk_fault: None,
    };
    let clock = Arc::new(ManualClock::new(instant(0)));
    let limits = QueueLimits { batches_max: 16, ticks_max: 1_000_000 };
    let (running, fan_out) = Running::open(options, limits, clock.clone()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let rates = Rates::new(running.ingest().clone(), clock.clone(), CurrencySet::central_asia(), rules());
    let limits = ServiceLimits { watches_max: WATCHERS_MAX, ..ServiceLimits::DEFAULT };
    let service = Arc::new(RateServiceImpl::new(Arc::new(rates.with_limits(limits))));
    let service = LatestFastPath::new(RateServiceServer::from_arc(Arc::clone(&service)), service);
    let server = Server::builder().layer(DeadlineLayer).add_service(service);
    tokio::spawn(fan_out.run(std::future::pending()));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    // With a small window, the stream soon stops if the client does not read.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap().initial_stream_window_size(65_535);
    let client = RateServiceClient::new(endpoint.connect().await.unwrap());
    Service { address, client, clock, running, _directory: directory }
}

/// Parses "0.01144" or, with a reported change, "0.01144 -0".
pub(crate) fn value(text: &str) -> PublishedValue {
    let (rate, change) = text.split_once(' ').map_or((text, None), |(rate, change)| (rate, Some(change)));
    PublishedValue {
        rate: Rate::parse(rate).unwrap(),
        reported_change: change.map(|text| ReportedChange::parse(text).unwrap()),
    }
}

impl Service {
    /// Commits ticks of one series, given like "KGS/USD timesca".
    pub(crate) async fn commit(&self, series: &str, ticks: &[(i64, &str)]) -> IngestReport {
        let (pair, source) = series.split_once(' ').unwrap();
        let series = SeriesKey {
            pair: Pair::parse(pair, &CurrencySet::central_asia()).unwrap(),
            source: Source::parse(source).unwrap(),
        };
        let ticks = (0..).zip(ticks).map(|(index, (seconds, text))| BatchTick {
            index,
            observed_time: instant(*seconds),
            value: value(text),
        });
        let group = SeriesTicks { series, ticks: ticks.collect(), quarantine_threshold: None };
        let batch = Batch { groups: vec![group], conflict_policy: ConflictPolicy::Revise, ..Batch::default() };
        let report = self.running.ingest().submit(batch).await.unwrap();
        assert_eq!(report.refusals, []);
        report
    }

    pub(crate) async fn rate(&self, request: v1::GetRateRequest) -> Result<v1::GetRateResponse, Status> {
        self.client.clone().get_rate(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn runs(&self, request: v1::ListRunsRequest) -> Result<v1::ListRunsResponse, Status> {
        self.client.clone().list_runs(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn change(&self, request: v1::GetChangeRequest) -> Result<v1::GetChangeResponse, Status> {
        self.client.clone().get_change(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn latest(&self, since_sequence: u64) -> v1::GetLatestRatesResponse {
        let request = v1::GetLatestRatesRequest { since_sequence, ..Default::default() };
        self.client.clone().get_latest_rates(request).await.unwrap().into_inner()
    }
}

pub(crate) fn proto(time: Timestamp) -> Option<ProtoTimestamp> {
    let (seconds, nanos) = time.to_parts();
    Some(ProtoTimestamp { seconds, nanos })
}

/// Checks the code of an error, and its reason or field.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, detail: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone());
    let field = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
    assert_eq!(reason.or(field).as_deref(), Some(detail), "{status:?}");
}
