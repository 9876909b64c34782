//! What `serve` can be told, and the limits of it.
//!
//! **Invariant**: a [`Config`] is complete and within limits: each value is checked where it is read,
//! from a flag or from its `SILKRATE_` variable alike, before anything is bound or opened. Nothing is
//! repaired in silence.

mod file;
mod follow;
mod load;
mod origin;
mod quarantine;
mod sources;
mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::domain::{Currency, CurrencySet, Source, Timestamp, duration_us, parse_length};
use crate::follow::FollowSettings;
use crate::ingest::QueueLimits;
use crate::ingest::batch::TickRules;
use crate::sources::{Origin, SharedPreference, SourceTable};
use crate::store::{CheckpointLimits, DiskFault, StoreOptions};
use crate::telemetry::{LogFilter, LogFormat};

use file::FileSettings;
pub use file::{FILE_BYTES_MAX, FILE_SETTINGS, FileError, FileProblem, FileSetting, SettingScope};
pub use follow::FollowArgs;
pub use load::Load;
pub use origin::{CorsOrigin, OriginError};
pub use quarantine::{QuarantineArgs, SourceFactor};
pub use sources::default_state_rules;
use sources::{SourceFlags, each_once, places_once};
pub use value::{HttpListen, SourceDuration, ValueError};
use value::{
    YEAR, parse_address, parse_currency, parse_http_listen, parse_source, parse_source_duration, parse_source_places,
    parse_switch, parse_time,
};

const MEBIBYTE_BYTES: u64 = 1024 * 1024;
const TICKER: &str = "timesca";

/// Flags of `serve`. Each can also be given by the variable shown; an empty variable is refused, not
/// taken for an absent one.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// Directory of the store, created if absent
    #[arg(long, value_name = "DIR", env = "SILKRATE_DB", default_value = "silkrate-data")]
    pub db: PathBuf,

    /// Settings of sources in TOML, as in data/silkrate.toml; a flag that says the same goes before it
    #[arg(long, value_name = "FILE", env = "SILKRATE_CONFIG")]
    pub config: Option<PathBuf>,

    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", env = "SILKRATE_LISTEN", default_value = "127.0.0.1:50051",
          value_parser = parse_address)]
    pub listen: SocketAddr,

    /// Address and port for plain HTTP, or none; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", env = "SILKRATE_HTTP_LISTEN", default_value = "127.0.0.1:8080",
          value_parser = parse_http_listen)]
    pub http_listen: HttpListen,

    /// Source that answers under /frankfurter where several have a pair [default: the one that the configuration file
    /// prefers to all others, else timesca]
    #[arg(long, value_name = "SOURCE", env = "SILKRATE_FRANKFURTER_SOURCE", value_parser = parse_source)]
    pub frankfurter_source: Option<Source>,

    /// Ticker pages to ingest at start (the variable names one file)
    #[arg(long, value_name = "FILE", env = "SILKRATE_LOAD", num_args = 1..)]
    pub load: Vec<PathBuf>,

    /// Source of the quotes on those pages
    #[arg(long, value_name = "SOURCE", env = "SILKRATE_LOAD_SOURCE", default_value = "timesca",
          value_parser = parse_source)]
    pub load_source: Source,

    /// When those pages showed their quotes, RFC 3339 or a date (its start, UTC); by default the date printed on each
    #[arg(long, value_name = "TIME", env = "SILKRATE_LOAD_TIME", value_parser = parse_time)]
    pub load_time: Option<Timestamp>,

    /// A currency to serve besides KGS, KZT, TJS, TMT, USD and UZS; may be repeated, or a list with commas
    #[arg(long, value_name = "CODE", env = "SILKRATE_CURRENCY", value_delimiter = ',', value_parser = parse_currency)]
    pub currency: Vec<Currency>,

    /// Longest gap that a run may bridge, for a source or (without SOURCE=) for all others; 1s to 366d [default: 1h,
    /// and 7d for nbkr, nbk, nbt, cbu and cbt]
    #[arg(long, value_name = "[SOURCE=]DURATION", env = "SILKRATE_COLLAPSE_WINDOW", value_delimiter = ',',
          value_parser = parse_source_duration)]
    pub collapse_window: Vec<SourceDuration>,

    /// How long after its last confirmation a rate is stale, for a source or (without SOURCE=) for all others; 1s to
    /// 366d [default: 1h, and 5d for nbkr, nbk, nbt, cbu and cbt]
    #[arg(long, value_name = "[SOURCE=]DURATION", env = "SILKRATE_STALE_LIMIT", value_delimiter = ',',
          value_parser = parse_source_duration)]
    pub stale_limit: Vec<SourceDuration>,

    /// How long after a move a rate counts as moving; 1m to 366d
    #[arg(long, value_name = "DURATION", env = "SILKRATE_MOVING_WINDOW", default_value = "24h",
          value_parser = |text: &str| parse_length(text, Duration::from_mins(1), YEAR))]
    pub moving_window: Duration,

    /// How far ahead of now an observed time may lie; 0s to 366d
    #[arg(long, value_name = "DURATION", env = "SILKRATE_FUTURE_LIMIT", default_value = "48h",
          value_parser = |text: &str| parse_length(text, Duration::ZERO, YEAR))]
    pub future_limit: Duration,

    /// Decimal places to which the rates of a source that drops trailing zeros are padded, as in nbk=2; 0 to 18
    #[arg(long, value_name = "SOURCE=N", env = "SILKRATE_MINIMUM_PLACES", value_delimiter = ',',
          value_parser = parse_source_places)]
    pub minimum_places: Vec<(Source, u8)>,

    /// Ticks to hold.
    #[command(flatten)]
    pub quarantine: QuarantineArgs,

    /// Publishers to follow.
    #[command(flatten)]
    pub follow: FollowArgs,

    /// Collapse series again whose stored window is another than configured; it is one commit
    #[arg(long, env = "SILKRATE_RECOLLAPSE", value_parser = parse_switch)]
    pub recollapse: bool,

    /// Batches that may wait for the writer before callers are told to come back; 1 to 65536
    #[arg(long, value_name = "N", env = "SILKRATE_QUEUE_BATCHES", default_value = "256",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub queue_batches: u32,

    /// Series that the store may hold; 1 to 100000
    #[arg(long, value_name = "N", env = "SILKRATE_SERIES_MAX", default_value = "1000",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub series_max: u32,

    /// Disk space in MiB held back, to be freed when a full disk keeps the store from opening; 0 to 4096
    #[arg(long, value_name = "MIB", env = "SILKRATE_RESERVE_MIB", default_value = "64",
          value_parser = clap::value_parser!(u32).range(0..=4_096))]
    pub reserve_mib: u32,

    /// Connections open at one time, more are closed at once; 1 to 65536
    #[arg(long, value_name = "N", env = "SILKRATE_MAX_CONNECTIONS", default_value = "2048",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_connections: u32,

    /// Calls under way at one time on one connection, more wait; 1 to 10000
    #[arg(long, value_name = "N", env = "SILKRATE_MAX_CALLS", default_value = "256",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_calls: u32,

    /// Pages that may read over gRPC-Web and plain HTTP besides the built-in one, by scheme, host and port as browsers
    /// write them, or * for any; may be repeated, or a list with commas
    #[arg(long, value_name = "ORIGIN", env = "SILKRATE_CORS_ORIGIN", value_delimiter = ',',
          value_parser = CorsOrigin::parse)]
    pub cors_origin: Vec<CorsOrigin>,

    /// How long calls under way may take to finish when the server is told to stop; 0s to 10m
    #[arg(long, value_name = "DURATION", env = "SILKRATE_SHUTDOWN_GRACE", default_value = "10s",
          value_parser = |text: &str| parse_length(text, Duration::ZERO, Duration::from_mins(10)))]
    pub shutdown_grace: Duration,

    /// Form of the log on stderr
    #[arg(long, value_name = "FORMAT", env = "SILKRATE_LOG_FORMAT", default_value = "human")]
    pub log_format: LogFormat,

    /// What is logged: a level, or by module as in warn,silkrate=debug
    #[arg(long, value_name = "FILTER", env = "SILKRATE_LOG", default_value = "info", value_parser = LogFilter::parse)]
    pub log: LogFilter,
}

/// Flags that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// One setting twice for one source.
    #[error("{flag} is given twice for {subject}: once {first}, once {second}; give it once")]
    Twice {
        /// The flag.
        flag: &'static str,
        /// Which source, or all others.
        subject: String,
        /// One value.
        first: String,
        /// The other.
        second: String,
    },
    /// The configuration file.
    #[error(transparent)]
    File(#[from] FileError),
    /// Two sources in one place.
    #[error(transparent)]
    Preference(#[from] SharedPreference),
}

/// Everything a server needs to know, checked.
#[derive(Clone)]
pub struct Config {
    listen: SocketAddr,
    http_listen: HttpListen,
    frankfurter_source: Option<Source>,
    store: StoreOptions,
    queue: QueueLimits,
    load: Load,
    follow: FollowSettings,
    sources: SourceTable,
    /// Where settings of sources were read.
    file: Option<PathBuf>,
    tick_rules: TickRules,
    max_connections: usize,
    max_calls: u32,
    cors_origins: Vec<CorsOrigin>,
    shutdown_grace: Duration,
}

impl Config {
    /// Puts flags together whose values were each checked when they were read.
    ///
    /// # Errors
    /// `Twice`, where two of them contradict each other.
    pub fn new(args: ServeArgs) -> Result<Self, ConfigError> {
        let file = args.config.as_deref().map_or(Ok(FileSettings::default()), FileSettings::read)?;
        let flags = SourceFlags {
            collapse_window: each_once("--collapse-window", args.collapse_window)?,
            stale_limit: each_once("--stale-limit", args.stale_limit)?,
            minimum_places: places_once(args.minimum_places)?,
            quarantine_factor: args.quarantine.factors()?,
            follow: args.follow.settings()?,
        };
        let sources = sources::table(&flags, &file)?;
        let ticker = || sources.named().find(|source| source.as_str() == TICKER);
        let preferred = || sources.preferences().first().or_else(ticker).cloned();
        let frankfurter_source = args.frankfurter_source.or_else(preferred);
        let store = StoreOptions {
            directory: args.db,
            collapse_window_default_us: sources.others().collapse_window_us.value,
            collapse_windows_us: sources::named_us(&sources, |settings| settings.collapse_window_us),
            state_rules: sources::state_rules(&sources, args.moving_window),
            recollapse: args.recollapse,
            reserve_bytes: u64::from(args.reserve_mib) * MEBIBYTE_BYTES,
            series_count_max: count(args.series_max),
            checkpoint: CheckpointLimits::default(),
            disk_fault: None,
        };
        let queue = QueueLimits { batches_max: count(args.queue_batches), ..QueueLimits::default() };
        let tick_rules = TickRules {
            currencies: CurrencySet::central_asia().with(args.currency),
            future_limit_us: duration_us(args.future_limit),
            minimum_places: sources::minimum_places(&sources),
            quarantine: sources::quarantine(&sources),
        };
        Ok(Self {
            listen: args.listen,
            http_listen: args.http_listen,
            frankfurter_source,
            store,
            queue,
            load: Load { files: args.load, source: args.load_source, observed_time: args.load_time },
            follow: sources::follow_settings(&sources, &file),
            sources,
            file: args.config,
            tick_rules,
            max_connections: count(args.max_connections),
            max_calls: args.max_calls,
            cors_origins: args.cors_origin,
            shutdown_grace: args.shutdown_grace,
        })
    }

    /// With a disk that fails or stalls as told, for tests.
    #[must_use]
    pub fn with_disk_fault(mut self, fault: DiskFault) -> Self {
        self.store.disk_fault = Some(fault);
        self
    }

    /// Where to listen.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where to listen for plain HTTP.
    pub fn http_listen(&self) -> HttpListen {
        self.http_listen
    }

    /// Which source answers under `/frankfurter` where several have a pair.
    pub fn frankfurter_source(&self) -> Option<&Source> {
        self.frankfurter_source.as_ref()
    }

    /// The directory of the store.
    pub fn db(&self) -> &Path {
        &self.store.directory
    }

    /// How to open the store.
    pub fn store_options(&self) -> &StoreOptions {
        &self.store
    }

    /// How much may wait for the writer.
    pub fn queue_limits(&self) -> QueueLimits {
        self.queue
    }

    /// What to ingest at start.
    pub fn load(&self) -> &Load {
        &self.load
    }

    /// What to follow.
    pub fn follow(&self) -> &FollowSettings {
        &self.follow
    }

    /// How each source is treated.
    pub fn sources(&self) -> &SourceTable {
        &self.sources
    }

    /// Where the collapse window of `source` is set, and where it can be.
    pub fn collapse_window_place(&self, source: &Source) -> String {
        let file = self.file.as_deref().map(Path::display);
        let key = format!("collapse_window of [sources.{source}]");
        match (self.sources.of(source).collapse_window_us.origin, file) {
            (Origin::File { line }, Some(file)) => format!("it is configured in {file}, line {line}"),
            (Origin::Flag, Some(file)) => {
                format!("it is configured by --collapse-window, which goes before {key} in {file}")
            }
            (Origin::Flag, None) => "it is configured by --collapse-window".to_owned(),
            (_, Some(file)) => format!("it is built in; {key} in {file} changes it"),
            (_, None) => format!("it is built in; {key} in a file that --config names changes it"),
        }
    }

    /// What every tick must keep to.
    pub fn tick_rules(&self) -> &TickRules {
        &self.tick_rules
    }

    /// Connections open at one time.
    pub fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// Calls under way at one time on one connection.
    pub fn max_calls(&self) -> u32 {
        self.max_calls
    }

    /// Pages that may call over gRPC-Web.
    pub fn cors_origins(&self) -> &[CorsOrigin] {
        &self.cors_origins
    }

    /// How long calls under way may take to finish.
    pub fn shutdown_grace(&self) -> Duration {
        self.shutdown_grace
    }
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
