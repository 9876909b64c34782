//! The settings of `serve`: flags, environment variables and the configuration file, with defaults and ranges.
//!
//! **Invariant**: a [`Config`] is complete and within its limits. Each value, from a flag or from its `SILKRATE_`
//! variable, is checked when it is parsed, before a port is bound or the store is opened. An invalid value is an error,
//! and is never corrected silently.

mod access;
mod file;
mod follow;
mod limits;
mod load;
mod origin;
mod quarantine;
mod sources;
mod states;
mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::access::AccessSettings;
use crate::access::tokens::TokenFileError;
use crate::backup::BackupSettings;
use crate::domain::{Currency, CurrencySet, Source, Timestamp, duration_us, parse_duration};
use crate::follow::FollowSettings;
use crate::ingest::batch::TickRules;
use crate::sources::{Origin, SharedPreference, SourceTable};
use crate::store::{CheckpointLimits, DiskFault, StoreOptions};
use crate::telemetry::{LogFilter, LogFormat};
use crate::tls::{Tls, TlsError};

pub use access::AccessArgs;
use access::Protection;
pub use file::{FILE_BYTES_MAX, FILE_SETTINGS, FileError, FileProblem, FileSetting, SettingScope};
pub use follow::FollowArgs;
pub use limits::LimitArgs;
pub use load::Load;
pub use origin::{CorsOrigin, OriginError};
pub use quarantine::{QuarantineArgs, SourceFactor};
use sources::{SourceFlags, unique_durations, unique_places};
pub use states::StateArgs;
pub use value::{HttpListen, SourceDuration, ValueError};
use value::{
    LONGEST_DURATION, parse_address, parse_currency, parse_http_listen, parse_source, parse_source_duration,
    parse_source_places, parse_switch, parse_time,
};

const MEBIBYTE_BYTES: u64 = 1024 * 1024;

/// The flags of `serve`. The doc comments are their help texts. Each flag has an environment variable. An empty
/// variable is an invalid value, not an absent one.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// Directory of the store; it is created if it does not exist
    #[arg(long, value_name = "DIR", env = "SILKRATE_DB", default_value = "silkrate-data")]
    pub db: PathBuf,

    /// The settings that decide the states of rates.
    #[command(flatten)]
    pub states: StateArgs,

    /// Address and port of the gRPC and gRPC-Web server; port 0 selects a free port
    #[arg(long, value_name = "ADDRESS", env = "SILKRATE_LISTEN", default_value = "127.0.0.1:50051",
          value_parser = parse_address)]
    pub listen: SocketAddr,

    /// Address and port of the plain HTTP server (web page, JSON, CSV, metrics), or none to turn it off; port 0 selects
    /// a free port
    #[arg(long, value_name = "ADDRESS", env = "SILKRATE_HTTP_LISTEN", default_value = "127.0.0.1:8080",
          value_parser = parse_http_listen)]
    pub http_listen: HttpListen,

    /// Source that answers under /frankfurter for pairs that it has, unless its rate is stale [default: the source that
    /// answers other requests]
    #[arg(long, value_name = "SOURCE", env = "SILKRATE_FRANKFURTER_SOURCE", value_parser = parse_source)]
    pub frankfurter_source: Option<Source>,

    /// Refuse requests that name no source if several sources can answer. The error lists them. A request can ask for the
    /// same with its field strict
    #[arg(long, env = "SILKRATE_STRICT")]
    pub strict: bool,

    /// Ticker pages and CSV files of ticks to ingest at start; the environment variable takes one file [default: none]
    #[arg(long, value_name = "FILE", env = "SILKRATE_LOAD", num_args = 1..)]
    pub load: Vec<PathBuf>,

    /// Source of the quotes on the pages of --load
    #[arg(long, value_name = "SOURCE", env = "SILKRATE_LOAD_SOURCE", default_value = "timesca",
          value_parser = parse_source)]
    pub load_source: Source,

    /// Observed time of the quotes on the pages of --load: RFC 3339, or a date, which means its start in UTC [default:
    /// the date printed on each page]
    #[arg(long, value_name = "TIME", env = "SILKRATE_LOAD_TIME", value_parser = parse_time)]
    pub load_time: Option<Timestamp>,

    /// ISO 4217 code of a currency to serve in addition to KGS, KZT, TJS, TMT, USD and UZS. May be repeated or
    /// comma-separated [default: none]
    #[arg(long, value_name = "CODE", env = "SILKRATE_CURRENCY", value_delimiter = ',', value_parser = parse_currency)]
    pub currency: Vec<Currency>,

    /// Longest gap between two observations of one run, from 1s to 366d. Without SOURCE=, it applies to every source
    /// that has no value of its own. The window is stored with each series, so a change needs --recollapse. May be
    /// repeated or comma-separated [default: 1h, and 7d for the banks nbkr, nbk, nbt, cbu and cbt]
    #[arg(long, value_name = "[SOURCE=]DURATION", env = "SILKRATE_COLLAPSE_WINDOW", value_delimiter = ',',
          value_parser = parse_source_duration)]
    pub collapse_window: Vec<SourceDuration>,

    /// Longest time by which the observed time of a tick may be ahead of the clock, from 0s to 366d. A tick further
    /// ahead is refused
    #[arg(long, value_name = "DURATION", env = "SILKRATE_FUTURE_LIMIT", default_value = "48h",
          value_parser = |text: &str| parse_duration(text, Duration::ZERO, LONGEST_DURATION))]
    pub future_limit: Duration,

    /// Smallest number of decimal places of the rates of a source, from 0 to 18, as in nbk=2. A rate with fewer places
    /// is padded with zeros, for a source that drops trailing zeros. May be repeated or comma-separated [default: 2 for
    /// nbk and 4 for cbt, only in tables read from the bank; otherwise 0]
    #[arg(long, value_name = "SOURCE=N", env = "SILKRATE_MINIMUM_PLACES", value_delimiter = ',',
          value_parser = parse_source_places)]
    pub minimum_places: Vec<(Source, u8)>,

    /// The settings of the quarantine.
    #[command(flatten)]
    pub quarantine: QuarantineArgs,

    /// The settings of followed publishers.
    #[command(flatten)]
    pub follow: FollowArgs,

    /// Collapse a series again if its stored collapse window differs from the configured one. All such series change in
    /// one commit. Without this flag, the server refuses to start if a window differs
    #[arg(long, env = "SILKRATE_RECOLLAPSE", value_parser = parse_switch)]
    pub recollapse: bool,

    /// Largest number of series in the store, from 1 to 100000. Series of archived sources do not count. Ticks of further
    /// series are refused
    #[arg(long, value_name = "N", env = "SILKRATE_SERIES_MAX", default_value = "1000",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub series_max: u32,

    /// Size of the reserve file in MiB, from 0 to 4096. If a full disk prevents the store from opening, the server
    /// removes this file to free its space
    #[arg(long, value_name = "MIB", env = "SILKRATE_RESERVE_MIB", default_value = "64",
          value_parser = clap::value_parser!(u32).range(0..=4_096))]
    pub reserve_mib: u32,

    /// Largest memory for the rates of earlier times in MiB, from 0 to 65536. Reads of such rates fill it. Reads of rates
    /// that are in this memory are much faster than reads from the disk
    #[arg(long, value_name = "MIB", env = "SILKRATE_CACHE_MIB", default_value = "256",
          value_parser = clap::value_parser!(u32).range(0..=65_536))]
    pub cache_mib: u32,

    /// The settings of access.
    #[command(flatten)]
    pub access: AccessArgs,

    /// The limits of what one client can take.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// Largest number of concurrent calls on one gRPC connection, from 1 to 10000. Further calls wait
    #[arg(long, value_name = "N", env = "SILKRATE_MAX_CALLS", default_value = "256",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_calls: u32,

    /// Origin of web pages that may read over gRPC-Web and plain HTTP, in addition to the built-in page. An origin is
    /// scheme, host and port as browsers send them, or * for any. May be repeated or comma-separated [default: none]
    #[arg(long, value_name = "ORIGIN", env = "SILKRATE_CORS_ORIGIN", value_delimiter = ',',
          value_parser = CorsOrigin::parse)]
    pub cors_origin: Vec<CorsOrigin>,

    /// Longest time that the server waits, after a signal to stop, for calls in progress to finish, from 0s to 10m
    #[arg(long, value_name = "DURATION", env = "SILKRATE_SHUTDOWN_GRACE", default_value = "10s",
          value_parser = |text: &str| parse_duration(text, Duration::ZERO, Duration::from_mins(10)))]
    pub shutdown_grace: Duration,

    /// Format of the log on stderr
    #[arg(long, value_name = "FORMAT", env = "SILKRATE_LOG_FORMAT", default_value = "human")]
    pub log_format: LogFormat,

    /// Log filter: a level (error, warn, info, debug, trace or off), or levels by module, as in warn,silkrate=debug
    #[arg(long, value_name = "FILTER", env = "SILKRATE_LOG", default_value = "info", value_parser = LogFilter::parse)]
    pub log: LogFilter,
}

/// Why valid flags and a configuration file do not make a [`Config`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A flag sets a value twice for one source.
    #[error("{flag} is given twice for {subject}: once {first}, once {second}; give it once")]
    Twice {
        /// The name of the flag.
        flag: &'static str,
        /// The sources that the value applies to, such as `source nbk`.
        subject: String,
        /// The first value.
        first: String,
        /// The second value.
        second: String,
    },
    /// The configuration file cannot be read or is invalid.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file of tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
    /// The files of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The configuration file has certificates, and no authority verifies them.
    #[error("the configuration file has [certificates], and no authority verifies them; give --tls-client-ca FILE")]
    CertificatesWithoutAuthority,
    /// Client certificates are verified, and none has a role.
    #[error(
        "--tls-client-ca {}: no certificate has a role; add tables like [certificates.\"CN=feeder\"] to the file of \
         --config", .0.display()
    )]
    AuthorityWithoutCertificates(PathBuf),
    /// Other machines can reach the server, and it lacks TLS or tokens.
    #[error(
        "{flag} {address}: other machines can reach this address, and the server has no {missing}; give {remedy}, \
         listen on 127.0.0.1, or give --insecure if the network protects the server"
    )]
    Insecure {
        /// The flag that sets the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the server lacks.
        missing: &'static str,
        /// The flags that add it.
        remedy: &'static str,
    },
    /// More series are reserved than the store may have.
    #[error(
        "--reserved-series {reserved} is more than --series-max {series_max}; reserve fewer, or raise --series-max"
    )]
    ReservedSeries {
        /// The reserved series.
        reserved: u32,
        /// The maximum number of series.
        series_max: u32,
    },
    /// The connections would leave too few files for the rest of the process.
    #[error(
        "--max-connections {connections}: the process may open {files} files, and plain HTTP and the store need the rest; give at most {available}, or raise the hard limit of open files (ulimit -Hn)"
    )]
    TooFewFiles {
        /// The configured connections.
        connections: usize,
        /// The files that the process may open.
        files: usize,
        /// The most connections that leave enough files.
        available: usize,
    },
    /// Two sources have the same preference.
    #[error(transparent)]
    Preference(#[from] SharedPreference),
}

/// The complete and valid settings of a server.
#[derive(Clone)]
pub struct Config {
    listen: SocketAddr,
    http_listen: HttpListen,
    frankfurter_source: Option<Source>,
    store: StoreOptions,
    load: Load,
    follow: FollowSettings,
    sources: SourceTable,
    /// Path of the configuration file, if there is one.
    file: Option<PathBuf>,
    tick_rules: TickRules,
    limits: limits::Limits,
    max_calls: u32,
    cors_origins: Vec<CorsOrigin>,
    shutdown_grace: Duration,
    access: AccessSettings,
    tls: Option<Tls>,
    audit_log: Option<PathBuf>,
    backup: Option<BackupSettings>,
    insecure_risks: Vec<&'static str>,
}

impl Config {
    /// Combines the flags with the configuration file. Parsing has already checked the value of each flag.
    ///
    /// # Errors
    /// `Twice` if a flag sets a value twice for one source; `File` if the configuration file cannot be read or is
    /// invalid; `Tokens` and `Tls` if the files of tokens or of TLS cannot be used; `CertificatesWithoutAuthority` and
    /// `AuthorityWithoutCertificates` if client certificates lack one of both; `Insecure` if other machines can reach the server and it
    /// lacks TLS or tokens.
    pub fn new(args: ServeArgs) -> Result<Self, ConfigError> {
        let file = args.states.file()?;
        let mut access = args.access.settings(file.certificates.clone())?;
        access.client_calls_max = args.limits.client_calls_max(access.is_protected());
        let tls = args.access.tls()?;
        let protection = Protection { has_tls: tls.is_some(), has_clients: access.is_protected() };
        let insecure_risks = args.access.check(args.listen, args.http_listen, protection)?;
        let flags = SourceFlags {
            collapse_window: unique_durations("--collapse-window", args.collapse_window)?,
            minimum_places: unique_places(args.minimum_places)?,
            quarantine_factor: args.quarantine.factors()?,
            follow: args.follow.settings()?,
            ..args.states.flags()?
        };
        let sources = sources::table(&flags, &file)?.with_strict(args.strict);
        let limits = args.limits.limits(args.series_max)?;
        let store = StoreOptions {
            directory: args.db,
            collapse_window_default_us: sources.others().collapse_window_us.value,
            collapse_windows_us: sources::named_us(&sources, |settings| settings.collapse_window_us),
            state_rules: states::rules(&sources),
            recollapse: args.recollapse,
            reserve_bytes: u64::from(args.reserve_mib) * MEBIBYTE_BYTES,
            cache_bytes: u64::from(args.cache_mib) * MEBIBYTE_BYTES,
            series_count_max: to_usize(args.series_max),
            configured_sources: Arc::new(sources.named().cloned().collect()),
            checkpoint: CheckpointLimits::default(),
            disk_fault: None,
        };
        let tick_rules = TickRules {
            currencies: CurrencySet::central_asia().with(args.currency),
            future_limit_us: duration_us(args.future_limit),
            minimum_places: sources::minimum_places(&sources),
            quarantine: sources::quarantine(&sources),
        };
        Ok(Self {
            listen: args.listen,
            http_listen: args.http_listen,
            frankfurter_source: args.frankfurter_source,
            store,
            load: Load { files: args.load, source: args.load_source, observed_time: args.load_time },
            follow: FollowSettings {
                user_agent: flags.follow.user_agent.clone(),
                ..sources::follow_settings(&sources, &file)
            },
            sources,
            file: args.states.config,
            tick_rules,
            limits,
            max_calls: args.max_calls,
            cors_origins: args.cors_origin,
            shutdown_grace: args.shutdown_grace,
            access,
            tls,
            audit_log: args.access.audit_log,
            backup: file.backup,
            insecure_risks,
        })
    }

    /// Makes the disk fail or stall as in `fault`, for tests.
    #[must_use]
    pub fn with_disk_fault(mut self, fault: DiskFault) -> Self {
        self.store.disk_fault = Some(fault);
        self
    }

    /// The address and port of the gRPC server.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The address and port of the plain HTTP server, if it is on.
    pub fn http_listen(&self) -> HttpListen {
        self.http_listen
    }

    /// The source that answers under `/frankfurter` if several sources have a pair.
    pub fn frankfurter_source(&self) -> Option<&Source> {
        self.frankfurter_source.as_ref()
    }

    /// The directory of the store.
    pub fn db(&self) -> &Path {
        &self.store.directory
    }

    /// The options with which to open the store.
    pub fn store_options(&self) -> &StoreOptions {
        &self.store
    }

    /// The ticker pages to ingest at start.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// The publishers to follow.
    pub fn follow(&self) -> &FollowSettings {
        &self.follow
    }

    /// The settings of each source.
    pub fn sources(&self) -> &SourceTable {
        &self.sources
    }

    /// Describes for an error message where the collapse window of `source` is set, and how to change it.
    pub fn describe_collapse_window(&self, source: &Source) -> String {
        let file = self.file.as_deref().map(Path::display);
        let key = format!("collapse_window of [sources.{source}]");
        match (self.sources.of(source).collapse_window_us.origin, file) {
            (Origin::File { line }, Some(file)) => format!("it is configured in {file}, line {line}"),
            (Origin::Flag, Some(file)) => {
                format!("it is configured by --collapse-window, which takes precedence over {key} in {file}")
            }
            (Origin::Flag, None) => "it is configured by --collapse-window".to_owned(),
            (_, Some(file)) => format!("it is the built-in value; to change it, set {key} in {file}"),
            (_, None) => {
                format!("it is the built-in value; to change it, set {key} in a file and pass that file to --config")
            }
        }
    }

    /// The rules by which ticks are validated.
    pub fn tick_rules(&self) -> &TickRules {
        &self.tick_rules
    }

    /// The largest number of concurrent calls on one gRPC connection.
    pub fn max_calls(&self) -> u32 {
        self.max_calls
    }

    /// The origins of web pages that may read over gRPC-Web and plain HTTP.
    pub fn cors_origins(&self) -> &[CorsOrigin] {
        &self.cors_origins
    }

    /// The settings of access.
    pub fn access(&self) -> &AccessSettings {
        &self.access
    }

    /// TLS of both listeners, if it is on.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The file of the audit log.
    pub fn audit_log(&self) -> Option<&Path> {
        self.audit_log.as_deref()
    }

    /// The backups that the server makes by itself.
    pub fn backup(&self) -> Option<&BackupSettings> {
        self.backup.as_ref()
    }

    /// What `--insecure` permits, to be logged at each start.
    pub fn insecure_risks(&self) -> &[&'static str] {
        &self.insecure_risks
    }

    /// The longest time that calls in progress may take to finish after a signal to stop.
    pub fn shutdown_grace(&self) -> Duration {
        self.shutdown_grace
    }
}

fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
