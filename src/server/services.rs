//! The gRPC services with their layers.
//!
//! **Invariant**: every service is inside all layers.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::layer::util::{Identity, Stack};

use super::ServeError;
use super::access::AccessLayer;
use super::security::Security;
use super::send_buffer::SendBufferLayer;
use super::web::WebLayer;
use crate::api::Rates;
use crate::clock::Clock;
use crate::config::{Config, CorsOrigin};
use crate::grpc::Changes;
use crate::grpc::backup_service::BackupServiceImpl;
use crate::grpc::call_metrics::CallMetricsLayer;
use crate::grpc::deadline::DeadlineLayer;
use crate::grpc::ingest_service::IngestApi;
use crate::grpc::latest::LatestFastPath;
use crate::grpc::rate_service::RateServiceImpl;
use crate::grpc::snapshot_service::SnapshotServiceImpl;
use crate::ingest::Ingest;
use crate::ingest::batch::TickRules;
use crate::metrics::CallMetrics;
use crate::proto::DESCRIPTORS;
use crate::proto::v1::backup_service_server::BackupServiceServer;
use crate::proto::v1::ingest_service_server::IngestServiceServer;
use crate::proto::v1::rate_service_server::RateServiceServer;
use crate::proto::v1::snapshot_service_server::SnapshotServiceServer;

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// HTTP/2 flow-control windows of a stream and of a connection: bytes that a client may send before the server reads
/// them.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// The parts from which [`router`] builds the services.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) rules: Arc<TickRules>,
    pub(super) rates: Arc<Rates>,
    pub(super) ingest: &'a Ingest,
    pub(super) health: &'a HealthReporter,
    pub(super) draining: CancellationToken,
    pub(super) calls: CallMetrics,
    pub(super) origins: Vec<CorsOrigin>,
    pub(super) security: &'a Security,
}

/// The layers around every service, innermost first. `WebLayer` is outermost, so that metrics count gRPC-Web calls as
/// gRPC calls. `CallMetricsLayer` surrounds `DeadlineLayer`, so that a call past its deadline is counted with the
/// status `DEADLINE_EXCEEDED`. `AccessLayer` is innermost, so that refused calls are counted too.
pub(super) type Layers = Stack<
    AccessLayer,
    Stack<DeadlineLayer, Stack<CallMetricsLayer, Stack<SendBufferLayer, Stack<WebLayer, Identity>>>>,
>;

pub(super) fn router(parts: Parts<'_>) -> Result<Router<Layers>, ServeError> {
    let Parts { config, clock, rules, rates, ingest, health, draining, calls, origins, security } = parts;
    let (access, audit) = (security.access.clone(), security.audit.clone());
    let request_bytes_max = config.request_bytes_max();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let backups = BackupServiceImpl::new(ingest.clone(), draining.clone());
    let ingests =
        IngestApi::new(Changes::new(ingest.clone(), access.clone(), audit), Arc::clone(&rates), rules, clock, draining);
    let snapshots = SnapshotServiceImpl::new(Arc::clone(&rates));
    let rates = Arc::new(RateServiceImpl::new(rates));
    let rate_service = RateServiceServer::from_arc(Arc::clone(&rates)).max_decoding_message_size(request_bytes_max);
    Ok(Server::builder()
        .max_concurrent_streams(config.max_calls())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .accept_http1(true)
        .layer(WebLayer::new(origins))
        .layer(SendBufferLayer)
        .layer(CallMetricsLayer::new(calls))
        .layer(DeadlineLayer)
        .layer(AccessLayer::new(access))
        .add_service(IngestServiceServer::new(ingests).max_decoding_message_size(request_bytes_max))
        .add_service(LatestFastPath::new(rate_service, rates))
        .add_service(SnapshotServiceServer::new(snapshots).max_decoding_message_size(request_bytes_max))
        .add_service(BackupServiceServer::new(backups).max_decoding_message_size(request_bytes_max))
        .add_service(HealthServer::new(HealthService::from_health_reporter(health.clone())))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}
