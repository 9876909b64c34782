//! The life of a server: open the store, load files, listen, serve, and shut down in order.
//!
//! **Invariant**: the server answers no call before the store is open and the files of `--load` are ingested. At
//! shutdown, calls in progress end before the writer stops, and the writer stops before the process ends.

mod accept;
mod access;
mod backup;
mod clock_watch;
mod latest_table;
mod load;
mod reload;
mod security;
mod send_buffer;
mod services;
mod web;

use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
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
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::api::Rates;
use crate::backup::BackupError;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError, CorsOrigin, HttpListen, ServeArgs};
use crate::domain::{duration_us, format_duration};
use crate::follow::{self, FetchError, FollowContext};
use crate::grpc::backup_service::BackupServiceImpl;
use crate::grpc::ingest_service::IngestApi;
use crate::grpc::rate_service::RateServiceImpl;
use crate::grpc::snapshot_service::SnapshotServiceImpl;
use crate::http::{self, Origins, SchemaError, Scraped, Settings, Site};
use crate::ingest::{FanOut, Ingest, Running};
use crate::metrics::{BackupMetrics, CallMetrics, FollowMetrics};
use crate::proto::v1::backup_service_server::BackupServiceServer;
use crate::proto::v1::ingest_service_server::IngestServiceServer;
use crate::proto::v1::rate_service_server::RateServiceServer;
use crate::proto::v1::snapshot_service_server::SnapshotServiceServer;
use crate::store::StoreError;
use crate::telemetry::{self, TelemetryError};

use accept::Accepted;
use clock_watch::warn_while_ahead;
use latest_table::latest_table;
use load::{check_readable, load_files};
use security::{AbortOnDrop, Security};
use send_buffer::SendBuffers;
use services::{Parts, router};

/// Interval at which the health task checks whether the writer has failed.
const HEALTH_INTERVAL: Duration = Duration::from_millis(500);
/// Time between the last health status and the end of the streams of health watchers. The watchers read the status in
/// this time.
const HEALTH_NOTICE: Duration = Duration::from_millis(200);

/// The name of the backup service in the health service of gRPC.
pub const BACKUP_SERVICE: &str = <BackupServiceServer<BackupServiceImpl> as NamedService>::NAME;
/// The name of the ingest service in the health service of gRPC.
pub const INGEST_SERVICE: &str = <IngestServiceServer<IngestApi> as NamedService>::NAME;
/// The name of the rate service in the health service of gRPC.
pub const RATE_SERVICE: &str = <RateServiceServer<RateServiceImpl> as NamedService>::NAME;
/// The name of the snapshot service in the health service of gRPC.
pub const SNAPSHOT_SERVICE: &str = <SnapshotServiceServer<SnapshotServiceImpl> as NamedService>::NAME;
/// The services whose health is reported.
pub const SERVICES: [&str; 4] = [BACKUP_SERVICE, INGEST_SERVICE, RATE_SERVICE, SNAPSHOT_SERVICE];

/// The listeners of a server.
#[derive(Debug)]
pub struct Listeners {
    /// The listener for gRPC and gRPC-Web.
    pub grpc: TcpListener,
    /// The listener for plain HTTP; none if plain HTTP is off.
    pub http: Option<TcpListener>,
}

/// The reason why a server did not start, or did not end cleanly.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The address is in use, or the process may not listen on it.
    #[error("cannot listen on {address}: {problem}; stop the process that listens there, or choose another {flag}")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// The flag that sets the address.
        flag: &'static str,
        /// The error of the operating system.
        problem: io::Error,
    },
    /// The signal handlers cannot be installed.
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    /// The address of a listener cannot be read.
    #[error("cannot read the address of the listener: {0}")]
    LocalAddress(io::Error),
    /// The store failed while it was opened or closed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configured collapse window differs from the stored one.
    #[error("{error}; {place}")]
    Window {
        /// The error of the store, with the stored and the configured window.
        error: StoreError,
        /// The place of the setting: a flag, a line of the configuration file, or a default.
        place: String,
    },
    /// A thread panicked while it opened or closed the store. The log has the message.
    #[error("{0} failed with a panic; see the log for its message")]
    Panicked(&'static str),
    /// The descriptors built into this program are invalid for reflection.
    #[error("cannot set up gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The descriptors built into this program are invalid for plain HTTP.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The gRPC server failed.
    #[error("cannot serve gRPC: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// Two metrics have the same name, which is a mistake of this program.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The client that follows publishers cannot be set up.
    #[error("cannot follow publishers: {0}")]
    Follow(#[from] FetchError),
    /// The destination of `[backup]` cannot be used.
    #[error("[backup]: {0}")]
    Backup(#[from] BackupError),
    /// The audit log cannot be opened.
    #[error("--audit-log {}: {problem}; name a file that the server may create or append to", path.display())]
    Audit {
        /// The path of the file.
        path: PathBuf,
        /// The error of the operating system.
        problem: io::Error,
    },
    /// The table of latest quotes cannot be written to stdout.
    #[error("cannot print the latest quotes: {0}")]
    Print(io::Error),
}

/// Converts an error of the store, and adds the place of the setting if a collapse window differs.
fn with_setting_place(error: StoreError, config: &Config) -> ServeError {
    let StoreError::WindowDiffers { series, .. } = &error else { return error.into() };
    let place = config.describe_collapse_window(&series.source);
    ServeError::Window { error, place }
}

/// The reason why `serve` refused its settings. The exit status is 2.
#[derive(Debug, Error)]
enum SetupError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("--load {}: cannot be read: {problem}; name a file that exists", file.display().to_string().escape_debug())]
    Load { file: PathBuf, problem: io::Error },
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
}

/// Runs the command `serve` with the system clock until a signal arrives. Exit status: 0 after an orderly shutdown, 1
/// after a failure, 2 for invalid settings.
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
            // With logging off, stderr must still show the reason.
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
    for file in &config.load().files {
        check_readable(file).map_err(|problem| SetupError::Load { file: file.clone(), problem })?;
    }
    telemetry::start(format, &filter)?;
    for risk in config.insecure_risks() {
        tracing::warn!("--insecure: {risk}");
        if !tracing::enabled!(tracing::Level::WARN) {
            eprintln!("warning: --insecure: {risk}");
        }
    }
    raise_file_limit();
    Ok(config)
}

/// Raises the soft `RLIMIT_NOFILE` to the hard limit. Shells often start programs with a soft limit of 1,024 files, and
/// a thousand watchers need a thousand connections. The low default exists for `select`, which this program does not
/// use.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

async fn listen_and_run(config: &Config) -> Result<(), ServeError> {
    // Bind before the store is opened: a second server started by mistake must fail at once.
    let listeners = Listeners {
        grpc: bind(config.listen(), "--listen").await?,
        http: match config.http_listen() {
            HttpListen::Off => None,
            HttpListen::At(address) => Some(bind(address, "--http-listen, or --http-listen none").await?),
        },
    };
    let shutdown = stop_signal().map_err(ServeError::Signals)?;
    run(config, Arc::new(SystemClock), listeners, &mut io::stdout(), shutdown).await
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|problem| ServeError::Bind { address, flag, problem })
}

/// Returns a future that completes at the first SIGINT or SIGTERM, even if the signal arrives before the future is
/// polled. A second signal ends the process at once. The store survives this, as it survives a kill.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (sender, receiver) = oneshot::channel();
    task::spawn(async move {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        tracing::info!("{name}: shutting down; a second signal ends the process immediately");
        // The receiver is gone if the server is already shutting down after a failure.
        let _ = sender.send(());
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::warn!("a second signal arrived: the process ends immediately");
        std::process::exit(1);
    });
    Ok(async move {
        // The task above sends before it drops the sender.
        let _ = receiver.await;
    })
}

/// Serves `config` on `listeners` until `shutdown` completes: opens the store, ingests the files of `--load`, prints
/// the latest quotes to `out`, serves, and closes the store. Clients that connect before the server is ready wait.
///
/// # Errors
/// Returns a [`ServeError`] if any of these steps fails. The store is closed even after a failure to serve.
pub async fn run(
    config: &Config,
    clock: Arc<dyn Clock>,
    listeners: Listeners,
    out: &mut (dyn Write + Send),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let (options, store_clock) = (config.store_options().clone(), Arc::clone(&clock));
    let (queue, new_series) = (config.queue_limits(), config.new_series_limits());
    let (running, fan_out) =
        run_blocking("opening the store", move || Running::open_limited(options, queue, new_series, store_clock))
            .await?
            .map_err(|error| with_setting_place(error, config))?;
    let served = serve_store(config, clock, listeners, out, (running.ingest(), fan_out), shutdown).await;
    let closed = run_blocking("closing the store", move || running.close()).await;
    served?;
    closed??;
    tracing::info!("store closed");
    Ok(())
}

/// Returns the origins of pages that browsers load from `address`: the address itself and, if `address` is reachable
/// over loopback, `127.0.0.1` and `localhost`.
fn own_origins(scheme: &str, address: SocketAddr) -> Vec<CorsOrigin> {
    let mut hosts = vec![address.to_string()];
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        hosts.extend(["127.0.0.1", "localhost"].map(|host| format!("{host}:{}", address.port())));
    }
    // An origin omits the default port of its scheme.
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    hosts
        .iter()
        .filter_map(|host| {
            let host = host.strip_suffix(default_port).unwrap_or(host);
            CorsOrigin::parse(&format!("{scheme}://{host}")).ok()
        })
        .collect()
}

async fn run_blocking<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ServeError> {
    task::spawn_blocking(work).await.map_err(|_| ServeError::Panicked(step))
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
    // Dropping this stops its tasks.
    let security = Security::start(config, &clock)?;
    load_files(ingest, config.load(), &clock, &rules, security.audit.as_ref()).await;
    let table = latest_table(&ingest.view().latest_quotes);
    writeln!(out, "{table}").and_then(|()| out.flush()).map_err(ServeError::Print)?;

    let address = listeners.grpc.local_addr().map_err(ServeError::LocalAddress)?;
    // Cancelled at the start of the shutdown: then the tasks end, and no new calls are accepted.
    let draining = CancellationToken::new();
    // If this future is dropped, the tasks end.
    let _cancel_on_drop = draining.clone().drop_guard();
    let state_rules = config.store_options().state_rules.clone();
    let rates = Rates::new(ingest.clone(), Arc::clone(&clock), rules.currencies.clone(), state_rules);
    let rates = Arc::new(rates.with_sources(config.sources().clone()).with_limits(*config.service_limits()));
    let (calls, feeds, backups) = (CallMetrics::grpc(), FollowMetrics::default(), BackupMetrics::default());
    let mut origins = config.cors_origins().to_vec();
    let plain_http = match listeners.http {
        Some(listener) => {
            let address = listener.local_addr().map_err(ServeError::LocalAddress)?;
            tracing::info!("page and plain HTTP on {}://{address}", security.scheme);
            // Pages of the HTTP listener may call over gRPC-Web.
            origins.extend(own_origins(security.scheme, address));
            let site = site(config, &rates, ingest, (&calls, &feeds, &backups), &security, &draining)?;
            Some(http::serve(
                listener,
                security.acceptor.clone(),
                http::router(site),
                http::Limits::new(config.address_connections()),
                draining.clone(),
            ))
        }
        None => None,
    };
    let following = FollowContext {
        ingest: ingest.clone(),
        rules: Arc::clone(&rules),
        clock: Arc::clone(&clock),
        metrics: feeds,
        audit: security.audit.clone(),
        seed: clock.now().micros().unsigned_abs(),
    };
    // Dropping the handle ends the tasks that follow publishers.
    let _following = follow::start(config.follow(), &following, &draining)?;
    if config.follow().sources.is_empty() {
        tracing::info!(
            "no publisher is polled; '--follow timesca,nbkr,nbk,nbt,cbu,cbt' polls the ticker and five banks"
        );
    }
    task::spawn(fan_out.run(draining.clone().cancelled_owned()));
    let backing_up = backup::start(config, ingest, &clock, backups, &draining)?;
    let health = HealthReporter::new();
    for service in SERVICES {
        health.set_service_status(service, ServingStatus::Serving).await;
    }
    let _watching_clock = AbortOnDrop(task::spawn(warn_while_ahead(ingest.clone(), Arc::clone(&clock))));
    let send_buffers = Arc::new(SendBuffers::new(config.service_limits()));
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
        security: &security,
    })?
    .serve_with_incoming_shutdown(
        Accepted::new(listeners.grpc, config.connection_limits(), Arc::clone(&send_buffers), security.acceptor.clone()),
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
    let _closing_stuck = AbortOnDrop(task::spawn(send_buffers.end_stuck_connections()));
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
            "aborted the calls that were still in progress after the grace period of {}",
            format_duration(duration_us(config.shutdown_grace()))
        ),
    }
    backup::finish(backing_up, &draining).await;
    security.finish().await;
    Ok(())
}

/// Returns the state of the routes of plain HTTP.
fn site(
    config: &Config,
    rates: &Arc<Rates>,
    ingest: &Ingest,
    (calls, feeds, backups): (&CallMetrics, &FollowMetrics, &BackupMetrics),
    security: &Security,
    draining: &CancellationToken,
) -> Result<Site, ServeError> {
    let directory = config.store_options().directory.clone();
    let scraped =
        Scraped::new(ingest, calls.clone(), feeds.clone(), (security.metrics.clone(), backups.clone()), directory)?;
    let settings = Settings {
        origins: Origins::new(config.cors_origins().iter().map(CorsOrigin::to_string)),
        access: security.access.clone(),
        frankfurter_source: config.frankfurter_source().cloned(),
    };
    Ok(Site::new(Arc::clone(rates), ingest.clone(), scraped, draining.clone(), settings)?)
}

/// Sets the ingest service to `NOT_SERVING` once the writer has failed. Only a restart ends this state.
async fn watch_writer(ingest: Ingest, health: HealthReporter) {
    let mut ticks = interval(HEALTH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(problem) = ingest.poisoned() {
            tracing::error!("writing stopped: {problem}; reads continue; remove the cause, then restart the server");
            health.set_service_status(INGEST_SERVICE, ServingStatus::NotServing).await;
            return;
        }
    }
}

async fn stop_health(health: &HealthReporter) {
    for service in [""].into_iter().chain(SERVICES) {
        health.set_service_status(service, ServingStatus::NotServing).await;
    }
}

/// Ends all health watches. A health watch never ends by itself, and would delay shutdown for the whole grace period.
async fn end_health_watches(mut health: HealthReporter) {
    sleep(HEALTH_NOTICE).await;
    for service in [""].into_iter().chain(SERVICES) {
        health.clear_service_status(service).await;
    }
}
