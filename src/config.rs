//! What `serve` can be told, and the limits of it.
//!
//! **Invariant**: a [`Config`] is complete and within limits: each value is checked where it is read,
//! from a flag or from its `SILKRATE_` variable alike, before anything is bound or opened. Nothing is
//! repaired in silence.

mod follow;
mod load;
mod origin;
mod quarantine;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::board::StateRules;
use crate::domain::{Currency, CurrencySet, Rate, Source, Timestamp};
use crate::follow::FollowSettings;
use crate::ingest::QueueLimits;
use crate::ingest::batch::TickRules;
use crate::store::{CheckpointLimits, DiskFault, StoreOptions};
use crate::telemetry::{LogFilter, LogFormat};

pub use follow::FollowArgs;
pub use load::Load;
pub use origin::{CorsOrigin, OriginError};
pub use quarantine::{QuarantineArgs, SourceFactor};

const MEBIBYTE_BYTES: u64 = 1024 * 1024;

/// The banks of the five countries, whose official rates are published once a working day.
const BANKS: [&str; 5] = ["nbkr", "nbk", "nbt", "cbu", "cbt"];
const COLLAPSE_WINDOW_DEFAULT: Duration = Duration::from_hours(1);
const MOVING_WINDOW_DEFAULT: Duration = Duration::from_hours(24);
const COLLAPSE_WINDOW_BANK: Duration = Duration::from_hours(7 * 24);
const STALE_LIMIT_DEFAULT: Duration = Duration::from_hours(1);
const STALE_LIMIT_BANK: Duration = Duration::from_hours(5 * 24);

/// Flags of `serve`. Each can also be given by the variable shown; an empty variable is refused, not
/// taken for an absent one.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// Directory of the store, created if absent
    #[arg(long, value_name = "DIR", env = "SILKRATE_DB", default_value = "silkrate-data")]
    pub db: PathBuf,

    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", env = "SILKRATE_LISTEN", default_value = "127.0.0.1:50051",
          value_parser = parse_address)]
    pub listen: SocketAddr,

    /// Address and port for plain HTTP, or none; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", env = "SILKRATE_HTTP_LISTEN", default_value = "127.0.0.1:8080",
          value_parser = parse_http_listen)]
    pub http_listen: HttpListen,

    /// Source that answers under /frankfurter where several have a pair
    #[arg(long, value_name = "SOURCE", env = "SILKRATE_FRANKFURTER_SOURCE", default_value = "timesca",
          value_parser = parse_source)]
    pub frankfurter_source: Source,

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
          value_parser = |text: &str| parse_duration(text, Duration::from_mins(1), YEAR))]
    pub moving_window: Duration,

    /// How far ahead of now an observed time may lie; 0s to 366d
    #[arg(long, value_name = "DURATION", env = "SILKRATE_FUTURE_LIMIT", default_value = "48h",
          value_parser = |text: &str| parse_duration(text, Duration::ZERO, YEAR))]
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
          value_parser = |text: &str| parse_duration(text, Duration::ZERO, Duration::from_mins(10)))]
    pub shutdown_grace: Duration,

    /// Form of the log on stderr
    #[arg(long, value_name = "FORMAT", env = "SILKRATE_LOG_FORMAT", default_value = "human")]
    pub log_format: LogFormat,

    /// What is logged: a level, or by module as in warn,silkrate=debug
    #[arg(long, value_name = "FILTER", env = "SILKRATE_LOG", default_value = "info", value_parser = LogFilter::parse)]
    pub log: LogFilter,
}

const YEAR: Duration = Duration::from_hours(366 * 24);

/// Where to listen for plain HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpListen {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

/// A duration for one source, or for all that are not named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceDuration {
    source: Option<Source>,
    duration: Duration,
}

/// A value that a flag does not take.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Neither yes nor no.
    #[error("it is no switch; write true or false")]
    Switch,
    /// No address with a port.
    #[error("it is no address with a port; write one like 127.0.0.1:50051 or [::1]:50051")]
    Address,
    /// The same, where none is an answer too.
    #[error("it is no address with a port; write one like 127.0.0.1:8080 or [::1]:8080, or none")]
    HttpAddress,
    /// No time.
    #[error("it is no time; write RFC 3339 like 2025-12-08T09:30:00Z, or a date like 2025-12-08")]
    Time,
    /// No duration.
    #[error("it is no duration; write one like 90s, 15m, 1h or 7d")]
    Duration,
    /// A duration outside the limits of the setting.
    #[error("it is outside {min} to {max}; choose a duration between them", min = humantime::format_duration(*min),
            max = humantime::format_duration(*max))]
    DurationRange {
        /// Shortest allowed.
        min: Duration,
        /// Longest allowed.
        max: Duration,
    },
    /// No source with a count of places.
    #[error("it is not SOURCE=N with N from 0 to {max}; write one like nbk=2", max = Rate::PLACES_MAX)]
    SourcePlaces,
    /// Whatever a domain type has against it.
    #[error("{0}")]
    Domain(String),
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
}

/// Flags come as "true"; what a variable says must be plain.
fn parse_switch(text: &str) -> Result<bool, ValueError> {
    text.parse().map_err(|_| ValueError::Switch)
}

fn parse_address(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().map_err(|_| ValueError::Address)
}

fn parse_http_listen(text: &str) -> Result<HttpListen, ValueError> {
    if text == "none" {
        return Ok(HttpListen::Off);
    }
    text.parse().map(HttpListen::At).map_err(|_| ValueError::HttpAddress)
}

fn parse_source(text: &str) -> Result<Source, ValueError> {
    Source::parse(text).map_err(|error| ValueError::Domain(error.to_string()))
}

fn parse_currency(text: &str) -> Result<Currency, ValueError> {
    Currency::parse(text).map_err(|error| ValueError::Domain(error.to_string()))
}

fn parse_time(text: &str) -> Result<Timestamp, ValueError> {
    Timestamp::parse(text).map_err(|_| ValueError::Time)
}

fn parse_duration(text: &str, min: Duration, max: Duration) -> Result<Duration, ValueError> {
    let duration = humantime::parse_duration(text).map_err(|_| ValueError::Duration)?;
    if !(min..=max).contains(&duration) {
        return Err(ValueError::DurationRange { min, max });
    }
    Ok(duration)
}

fn parse_source_duration(text: &str) -> Result<SourceDuration, ValueError> {
    let (source, duration) = match text.split_once('=') {
        Some((source, duration)) => (Some(parse_source(source)?), duration),
        None => (None, text),
    };
    Ok(SourceDuration { source, duration: parse_duration(duration, Duration::from_secs(1), YEAR)? })
}

fn parse_source_places(text: &str) -> Result<(Source, u8), ValueError> {
    let (source, places) = text.split_once('=').ok_or(ValueError::SourcePlaces)?;
    match places.parse::<u8>() {
        Ok(places) if places <= Rate::PLACES_MAX => Ok((parse_source(source)?, places)),
        _ => Err(ValueError::SourcePlaces),
    }
}

/// Settings by source, and for all others.
#[derive(Clone, PartialEq, Eq, Debug)]
struct BySource {
    default_us: i64,
    sources_us: BTreeMap<Source, i64>,
}

/// Everything a server needs to know, checked.
#[derive(Clone)]
pub struct Config {
    listen: SocketAddr,
    http_listen: HttpListen,
    frankfurter_source: Source,
    store: StoreOptions,
    queue: QueueLimits,
    load: Load,
    follow: FollowSettings,
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
        let windows =
            by_source("--collapse-window", args.collapse_window, COLLAPSE_WINDOW_DEFAULT, COLLAPSE_WINDOW_BANK)?;
        let stale = by_source("--stale-limit", args.stale_limit, STALE_LIMIT_DEFAULT, STALE_LIMIT_BANK)?;
        let state_rules = StateRules {
            stale_limit_default_us: stale.default_us,
            stale_limits_us: stale.sources_us,
            moving_window_us: micros(args.moving_window),
        };
        let store = StoreOptions {
            directory: args.db,
            collapse_window_default_us: windows.default_us,
            collapse_windows_us: windows.sources_us,
            state_rules,
            recollapse: args.recollapse,
            reserve_bytes: u64::from(args.reserve_mib) * MEBIBYTE_BYTES,
            series_count_max: count(args.series_max),
            checkpoint: CheckpointLimits::default(),
            disk_fault: None,
        };
        let queue = QueueLimits { batches_max: count(args.queue_batches), ..QueueLimits::default() };
        let tick_rules = TickRules {
            currencies: CurrencySet::central_asia().with(args.currency),
            future_limit_us: micros(args.future_limit),
            minimum_places: minimum_places(args.minimum_places)?,
            quarantine: args.quarantine.rules()?,
        };
        Ok(Self {
            listen: args.listen,
            http_listen: args.http_listen,
            frankfurter_source: args.frankfurter_source,
            store,
            queue,
            load: Load { files: args.load, source: args.load_source, observed_time: args.load_time },
            follow: args.follow.settings()?,
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
    pub fn frankfurter_source(&self) -> &Source {
        &self.frankfurter_source
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

/// Every duration here was checked to be 366 days at most.
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The rules of states that a server has unless it is told others.
pub fn default_state_rules() -> StateRules {
    StateRules {
        stale_limit_default_us: micros(STALE_LIMIT_DEFAULT),
        stale_limits_us: banks_us(STALE_LIMIT_BANK),
        moving_window_us: micros(MOVING_WINDOW_DEFAULT),
    }
}

/// One setting for all banks, in microseconds.
fn banks_us(bank: Duration) -> BTreeMap<Source, i64> {
    BANKS.iter().filter_map(|name| Some((Source::parse(name).ok()?, micros(bank)))).collect()
}

/// For whom a setting is.
fn subject(source: Option<&Source>) -> String {
    source.map_or_else(|| "all other sources".to_owned(), |name| format!("source {name}"))
}

fn by_source(
    flag: &'static str,
    given: Vec<SourceDuration>,
    default: Duration,
    bank: Duration,
) -> Result<BySource, ConfigError> {
    let mut seen: BTreeMap<Option<Source>, Duration> = BTreeMap::new();
    for SourceDuration { source, duration } in given {
        let subject = subject(source.as_ref());
        if let Some(first) = seen.insert(source, duration) {
            let text = |duration| humantime::format_duration(duration).to_string();
            return Err(ConfigError::Twice { flag, subject, first: text(first), second: text(duration) });
        }
    }
    let default_us = micros(seen.remove(&None).unwrap_or(default));
    let mut sources_us = banks_us(bank);
    sources_us.extend(seen.into_iter().filter_map(|(source, duration)| Some((source?, micros(duration)))));
    Ok(BySource { default_us, sources_us })
}

fn minimum_places(given: Vec<(Source, u8)>) -> Result<BTreeMap<Source, u8>, ConfigError> {
    let mut places = BTreeMap::new();
    for (source, second) in given {
        if let Some(first) = places.insert(source.clone(), second) {
            return Err(ConfigError::Twice {
                flag: "--minimum-places",
                subject: format!("source {source}"),
                first: first.to_string(),
                second: second.to_string(),
            });
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests;
