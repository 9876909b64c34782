//! A running server: opened, loaded, listening, and stopped in order.
//!
//! **Invariant**: nothing is answered before the store is open and the files named are in. On the way
//! down, calls under way end before the writer does, and the writer before the process.

mod accept;
mod latest_table;
mod load;
mod unsent;
mod web;

use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tower::layer::util::{Identity, Stack};

use crate::api::Rates;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError, CorsOrigin, HttpListen, ServeArgs};
use crate::domain::{duration_us, whole_length};
use crate::follow::{self, FetchError, FollowContext};
use crate::grpc::call_metrics::CallMetricsLayer;
use crate::grpc::deadline::DeadlineLayer;
use crate::grpc::ingest_service::IngestApi;
use crate::grpc::latest::LatestFastPath;
use crate::grpc::rate_service::RateServiceImpl;
use crate::grpc::snapshot_service::SnapshotServiceImpl;
use crate::http::{self, Origins, SchemaError, Scraped, Settings, Site};
use crate::ingest::batch::TickRules;
use crate::ingest::{FanOut, Ingest, Running};
use crate::metrics::{CallMetrics, FollowMetrics};
use crate::proto::DESCRIPTORS;
use crate::proto::v1::ingest_service_server::IngestServiceServer;
use crate::proto::v1::rate_service_server::RateServiceServer;
use crate::proto::v1::snapshot_service_server::SnapshotServiceServer;
use crate::store::StoreError;
use crate::telemetry::{self, TelemetryError};

use accept::Accepted;
use latest_table::latest_table;
use load::load_files;
use unsent::{Unsent, UnsentLayer};
use web::WebLayer;

/// Largest request read; above it, tonic answers `OUT_OF_RANGE`.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the writer is asked whether it still writes.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);
/// How long those who watch the health have to read that it is over, before their streams end.
const HEALTH_NOTICE: Duration = Duration::from_millis(200);
/// Bytes under way on a stream and on a connection before the other side must have read some.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

const INGEST_SERVICE: &str = <IngestServiceServer<IngestApi> as NamedService>::NAME;
const RATE_SERVICE: &str = <RateServiceServer<RateServiceImpl> as NamedService>::NAME;
const SNAPSHOT_SERVICE: &str = <SnapshotServiceServer<SnapshotServiceImpl> as NamedService>::NAME;

/// What a server takes connections from.
#[derive(Debug)]
pub struct Listeners {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For plain HTTP, if it is wanted.
    pub http: Option<TcpListener>,
}

/// Why a server did not start, or did not end well.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Somebody else listens there, or nobody may.
    #[error("cannot listen on {address}: {problem}; stop what listens there, or choose another {flag}")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// The flag that says so.
        flag: &'static str,
        /// As the system says it.
        problem: io::Error,
    },
    /// Signals cannot be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    /// The listener has no address.
    #[error("cannot tell the address listened on: {0}")]
    LocalAddress(io::Error),
    /// The store, on opening or on closing.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A collapse window other than the one stored.
    #[error("{error}; {place}")]
    Window {
        /// What is stored, and what is configured.
        error: StoreError,
        /// Where that is.
        place: String,
    },
    /// A thread of ours panicked; the log has the message.
    #[error("{0} failed unexpectedly; the log says why")]
    Panicked(&'static str),
    /// The descriptors built into this program.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The same, as plain HTTP reads them.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Serving.
    #[error("serving: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// Two metrics of one name: a mistake of this program.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Following publishers.
    #[error("cannot follow: {0}")]
    Follow(#[from] FetchError),
    /// Printing the first table.
    #[error("cannot print: {0}")]
    Print(io::Error),
}

/// What the store has against a setting, with the place where that is made.
fn explained(error: StoreError, config: &Config) -> ServeError {
    let StoreError::WindowDiffers { series, .. } = &error else { return error.into() };
    let place = config.collapse_window_place(&series.source);
    ServeError::Window { error, place }
}

/// Why `serve` ended before it began: exit status 2.
#[derive(Debug, Error)]
enum SetupError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
}

/// The command `serve`: until a signal, on the machine's clock. Exit status 0 after an orderly end,
/// 1 if something failed, 2 if the flags are no good.
pub async fn serve(args: ServeArgs) -> ExitCode {
    let config = match set_up(args) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match listen_and_run(&config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With logging off, the reason must still be seen.
            if tracing::enabled!(tracing::Level::ERROR) {
                tracing::error!("{error}");
            } else {
                eprintln!("error: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn set_up(args: ServeArgs) -> Result<Config, SetupError> {
    let (format, filter) = (args.log_format, args.log.clone());
    let config = Config::new(args)?;
    telemetry::start(format, &filter)?;
    allow_files();
    Ok(config)
}

/// Lets this process have as many files as it may: a thousand watchers are a thousand connections, and shells begin
/// programs with room for as many files. (What waits for files by `select`, which takes no more, is not in here.)
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

async fn listen_and_run(config: &Config) -> Result<(), ServeError> {
    // Before the store is touched: a second server by mistake should fail on the first thing it takes.
    let listeners = Listeners {
        grpc: bind(config.listen(), "--listen").await?,
        http: match config.http_listen() {
            HttpListen::Off => None,
            HttpListen::At(address) => Some(bind(address, "--http-listen, or none").await?),
        },
    };
    let shutdown = stop_signal().map_err(ServeError::Signals)?;
    run(config, Arc::new(SystemClock), listeners, &mut io::stdout(), shutdown).await
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|problem| ServeError::Bind { address, flag, problem })
}

/// Done at the first SIGINT or SIGTERM, even if that came while nobody waited yet. A second one ends
/// the process at once, as a kill would: the store survives that.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (first, told) = oneshot::channel();
    task::spawn(async move {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        tracing::info!("{name}: stopping; another signal stops at once");
        // Nobody listens any more if the server is on its way down by itself.
        let _ = first.send(());
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::warn!("stopping at once");
        std::process::exit(1);
    });
    Ok(async move {
        // The task above never drops its end before it has sent.
        let _ = told.await;
    })
}

/// Serves `config` on `listeners` until `shutdown`: opens the store, ingests the files named, prints
/// the latest quotes to `out`, serves, and closes the store. Callers who connect earlier wait.
///
/// # Errors
/// Any [`ServeError`]; the store is closed as well as may be.
pub async fn run(
    config: &Config,
    clock: Arc<dyn Clock>,
    listeners: Listeners,
    out: &mut (dyn Write + Send),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (options, limits, store_clock) = (config.store_options().clone(), config.queue_limits(), Arc::clone(&clock));
    let (running, fan_out) = blocking("opening the store", move || Running::open(options, limits, store_clock))
        .await?
        .map_err(|error| explained(error, config))?;
    let served = serve_store(config, clock, listeners, out, (running.ingest(), fan_out), shutdown).await;
    let closed = blocking("closing the store", move || running.close()).await;
    served?;
    closed??;
    tracing::info!("store closed");
    Ok(())
}

/// Of pages that come from `address`, as browsers write them: by number, and by the name of this machine to itself.
fn own_origins(address: SocketAddr) -> Vec<CorsOrigin> {
    let mut hosts = vec![address.to_string()];
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        hosts.extend(["127.0.0.1", "localhost"].map(|host| format!("{host}:{}", address.port())));
    }
    // Those with the port of the scheme are written without it.
    hosts
        .iter()
        .filter_map(|host| CorsOrigin::parse(&format!("http://{}", host.trim_end_matches(":80"))).ok())
        .collect()
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ServeError> {
    task::spawn_blocking(work).await.map_err(|_| ServeError::Panicked(what))
}

async fn serve_store(
    config: &Config,
    clock: Arc<dyn Clock>,
    listeners: Listeners,
    out: &mut (dyn Write + Send),
    (ingest, fan_out): (&Ingest, FanOut),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let rules = Arc::new(config.tick_rules().clone());
    load_files(ingest, config.load(), &clock, &rules).await;
    let table = latest_table(&ingest.view().latest_quotes);
    writeln!(out, "{table}").and_then(|()| out.flush()).map_err(ServeError::Print)?;

    let address = listeners.grpc.local_addr().map_err(ServeError::LocalAddress)?;
    let draining = CancellationToken::new();
    // Tasks end with a server that is dropped, too.
    let _ended = draining.clone().drop_guard();
    let state_rules = config.store_options().state_rules.clone();
    let rates = Rates::new(ingest.clone(), Arc::clone(&clock), rules.currencies.clone(), state_rules);
    let rates = Arc::new(rates.with_sources(config.sources().clone()));
    let calls = CallMetrics::grpc();
    let feeds = FollowMetrics::default();
    let mut origins = config.cors_origins().to_vec();
    let plain_http = match listeners.http {
        Some(listener) => {
            let address = listener.local_addr().map_err(ServeError::LocalAddress)?;
            tracing::info!("page and plain HTTP on http://{address}");
            // The built-in page calls over gRPC-Web from here.
            origins.extend(own_origins(address));
            let settings = Settings {
                origins: Origins::new(config.cors_origins().iter().map(CorsOrigin::to_string)),
                frankfurter_source: config.frankfurter_source().cloned(),
            };
            let scraped = Scraped::new(ingest, calls.clone(), feeds.clone(), config.store_options().directory.clone())?;
            let site = Site::new(Arc::clone(&rates), ingest.clone(), scraped, draining.clone(), settings)?;
            Some(http::serve(listener, http::router(site), http::Limits::default(), draining.clone()))
        }
        None => None,
    };
    let following = FollowContext {
        ingest: ingest.clone(),
        rules: Arc::clone(&rules),
        clock: Arc::clone(&clock),
        metrics: feeds,
        seed: clock.now().micros().unsigned_abs(),
    };
    // Its tasks end with it.
    let _following = follow::start(config.follow(), &following, &draining)?;
    task::spawn(fan_out.run(draining.clone().cancelled_owned()));
    let health = HealthReporter::new();
    for service in [INGEST_SERVICE, RATE_SERVICE, SNAPSHOT_SERVICE] {
        health.set_service_status(service, ServingStatus::Serving).await;
    }
    let unsent = Arc::new(Unsent::default());
    let grpc = router(Parts {
        config,
        clock,
        rules,
        rates,
        ingest,
        health: &health,
        draining: draining.clone(),
        calls,
        origins,
    })?
    .serve_with_incoming_shutdown(
        Accepted::new(listeners.grpc, config.max_connections(), Arc::clone(&unsent)),
        draining.clone().cancelled_owned(),
    );
    let serving = async {
        tokio::try_join!(grpc, async {
            if let Some(plain_http) = plain_http {
                plain_http.await;
            }
            Ok(())
        })
    };
    let watching = task::spawn(watch_writer(ingest.clone(), health.clone()));
    let _looking = AbortOnDrop(task::spawn(unsent.end_stuck_connections()));
    tracing::info!("serving on {address}");

    let stopping = async {
        shutdown.await;
        watching.abort();
        stop_health(&health).await;
        draining.cancel();
        end_health_watches(health).await;
        sleep(config.shutdown_grace()).await;
    };
    tokio::select! {
        served = serving => {
            served?;
        }
        () = stopping => tracing::warn!(
            "calls still under way after {} were cut off",
            whole_length(duration_us(config.shutdown_grace()))
        ),
    }
    Ok(())
}

/// A task that ends with its handle.
struct AbortOnDrop(task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the services are made of.
struct Parts<'a> {
    config: &'a Config,
    clock: Arc<dyn Clock>,
    rules: Arc<TickRules>,
    rates: Arc<Rates>,
    ingest: &'a Ingest,
    health: &'a HealthReporter,
    draining: CancellationToken,
    calls: CallMetrics,
    origins: Vec<CorsOrigin>,
}

/// Around every service, the innermost first: gRPC-Web outside of all, so that what is counted are calls of gRPC, and a call that ran out of time is counted as such.
type Layers = Stack<DeadlineLayer, Stack<CallMetricsLayer, Stack<UnsentLayer, Stack<WebLayer, Identity>>>>;

fn router(parts: Parts<'_>) -> Result<Router<Layers>, ServeError> {
    let Parts { config, clock, rules, rates, ingest, health, draining, calls, origins } = parts;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let ingests = IngestApi::new(ingest.clone(), Arc::clone(&rates), rules, clock, draining);
    let snapshots = SnapshotServiceImpl::new(Arc::clone(&rates));
    let rates = Arc::new(RateServiceImpl::new(rates));
    let rate_service = RateServiceServer::from_arc(Arc::clone(&rates)).max_decoding_message_size(REQUEST_BYTES_MAX);
    Ok(Server::builder()
        .max_concurrent_streams(config.max_calls())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .accept_http1(true)
        .layer(WebLayer::new(origins))
        .layer(UnsentLayer)
        .layer(CallMetricsLayer::new(calls))
        .layer(DeadlineLayer)
        .add_service(IngestServiceServer::new(ingests).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(LatestFastPath::new(rate_service, rates))
        .add_service(SnapshotServiceServer::new(snapshots).max_decoding_message_size(REQUEST_BYTES_MAX))
        .add_service(HealthServer::new(HealthService::from_health_reporter(health.clone())))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?))
}

/// Tells the health service when writing has stopped. Only a restart makes it good again.
async fn watch_writer(ingest: Ingest, health: HealthReporter) {
    let mut ticks = interval(HEALTH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(problem) = ingest.poisoned() {
            tracing::error!("writing stopped: {problem}; reads go on, restart once the cause is gone");
            health.set_service_status(INGEST_SERVICE, ServingStatus::NotServing).await;
            return;
        }
    }
}

async fn stop_health(health: &HealthReporter) {
    for service in ["", INGEST_SERVICE, RATE_SERVICE, SNAPSHOT_SERVICE] {
        health.set_service_status(service, ServingStatus::NotServing).await;
    }
}

/// A watch of the health never ends by itself, and would hold the end up for the whole grace period.
async fn end_health_watches(mut health: HealthReporter) {
    sleep(HEALTH_NOTICE).await;
    for service in ["", INGEST_SERVICE, RATE_SERVICE, SNAPSHOT_SERVICE] {
        health.clear_service_status(service).await;
    }
}
