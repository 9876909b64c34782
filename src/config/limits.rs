//! The flags that limit what one client can take: connections, calls, reads, streams,
//! requests, the queue of the writer, new series and new sources.
//!
//! **Invariant**: the gRPC connections never need so many files that none is left for plain HTTP and the store.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use super::{Config, ConfigError, to_usize};
use crate::api::ServiceLimits;
use crate::domain::{DurationError, parse_duration};
use crate::incoming::SlotLimits;
use crate::ingest::{NewSeriesLimits, QueueLimits};

/// Default of `--max-connections`, and never more than half of the files that the process may open.
const CONNECTIONS_DEFAULT: usize = 2_048;
/// Default of `--client-calls` for a server with access control.
const CLIENT_CALLS_DEFAULT: u32 = 10_000;
/// Files that gRPC connections leave free: for the store, for fetches, for connections that are being closed, and for
/// overflow slots of HTTP. Another quarter of all files is for HTTP.
const STORE_FILES: usize = 192;
/// This part of the series is reserved for configured sources, unless configured.
const RESERVED_FRACTION: u32 = 4;

/// The flags of `serve` that limit what one client can take. The doc comments are their help texts.
#[derive(Clone, Debug, clap::Args)]
pub struct LimitArgs {
    /// Largest number of open gRPC connections, from 1 to 65536. Beyond it, the connection without a call that is idle
    /// for the longest time gives way to a new one; if every connection has a call, new ones are closed at once [default:
    /// 2048, or half of the files that the process may open if that is less]
    #[arg(long, value_name = "N", env = "SILKRATE_MAX_CONNECTIONS",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_connections: Option<u32>,

    /// Largest number of open connections from one address, or from one /64 network of IPv6, from 1 to 65536. The limit
    /// applies to gRPC and to plain HTTP, each on its own. Raise it for a proxy through which all clients come [default:
    /// three quarters of the connections of the listener]
    #[arg(long, value_name = "N", env = "SILKRATE_MAX_CONNECTIONS_PER_ADDRESS",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_connections_per_address: Option<u32>,

    /// Largest number of calls in a second of one token or client certificate, or without these of one address, from 1 to
    /// 1000000. gRPC calls and HTTP requests count; checks of health do not [default: 10000 for a server with access
    /// control, else no limit]
    #[arg(long, value_name = "N", env = "SILKRATE_CLIENT_CALLS",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub client_calls: Option<u32>,

    /// Largest number of new series that one token or certificate, or without these one address, may create in a day of
    /// UTC, from 1 to 100000. Series of configured sources do not count
    #[arg(long, value_name = "N", env = "SILKRATE_CALLER_SERIES", default_value = "200",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub caller_series: u32,

    /// Largest number of new sources that one token or certificate, or without these one address, may create in a day of
    /// UTC, from 1 to 100000. Configured sources do not count
    #[arg(long, value_name = "N", env = "SILKRATE_CALLER_SOURCES", default_value = "20",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub caller_sources: u32,

    /// Largest number of batches that wait for the writer, from 1 to 65536. Further batches are refused with a retry
    /// delay
    #[arg(long, value_name = "N", env = "SILKRATE_QUEUE_BATCHES", default_value = "256",
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub queue_batches: u32,

    /// Largest number of ticks in all batches that wait for the writer, from 100000 to 100000000. A tick takes about 100
    /// bytes. Further batches are refused with a retry delay
    #[arg(long, value_name = "N", env = "SILKRATE_QUEUE_TICKS", default_value = "2000000",
          value_parser = clap::value_parser!(u32).range(100_000..=100_000_000))]
    pub queue_ticks: u32,

    /// Largest number of concurrent reads of the store, from 1 to 1024. Each uses a thread. Further reads wait for up to
    /// 2 seconds. One address takes at most three quarters of this number and of the numbers below
    #[arg(long, value_name = "N", env = "SILKRATE_MAX_READS", default_value = "32",
          value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub max_reads: u32,

    /// Largest number of concurrent expensive reads, from 1 to 1024: comparisons of sources, gaps, candles, and ranges of
    /// the Frankfurter API. Each may use a core for seconds. They count for --max-reads, too
    #[arg(long, value_name = "N", env = "SILKRATE_MAX_EXPENSIVE_READS", default_value = "4",
          value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub max_expensive_reads: u32,

    /// Largest number of concurrent streams of runs, from 1 to 10000. Each uses a thread, and keeps a version of the
    /// store in memory
    #[arg(long, value_name = "N", env = "SILKRATE_MAX_STREAMS", default_value = "64",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_streams: u32,

    /// Longest time that a stream of runs may take, from 1s to 1d. The client can continue where it ended
    #[arg(long, value_name = "DURATION", env = "SILKRATE_STREAM_AGE", default_value = "10m", value_parser = parse_age)]
    pub stream_age: Duration,

    /// Largest number of concurrent exports, from 1 to 64. Each uses a thread, and keeps a version of the store in memory
    #[arg(long, value_name = "N", env = "SILKRATE_MAX_EXPORTS", default_value = "4",
          value_parser = clap::value_parser!(u32).range(1..=64))]
    pub max_exports: u32,

    /// Longest time that an export may take, from 1s to 1d
    #[arg(long, value_name = "DURATION", env = "SILKRATE_EXPORT_AGE", default_value = "1h", value_parser = parse_age)]
    pub export_age: Duration,

    /// Largest number of concurrent watches over gRPC, from 1 to 1000000. Each takes a few kilobytes
    #[arg(long, value_name = "N", env = "SILKRATE_MAX_WATCHES", default_value = "10000",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_watches: u32,

    /// Largest number of pages in browsers that update themselves, from 1 to 100000
    #[arg(long, value_name = "N", env = "SILKRATE_MAX_LIVE_PAGES", default_value = "1000",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_live_pages: u32,

    /// Largest size of a gRPC request in MiB, from 1 to 64. A larger one is refused
    #[arg(long, value_name = "MIB", env = "SILKRATE_MAX_REQUEST_MIB", default_value = "16",
          value_parser = clap::value_parser!(u32).range(1..=64))]
    pub max_request_mib: u32,

    /// Number of series, of those of --series-max, that only configured sources can take, from 0 to --series-max. A source
    /// is configured if it has settings of its own, by a flag or in the configuration file, or if it is a publisher that
    /// the server can follow
    /// [default: a quarter of --series-max]
    #[arg(long, value_name = "N", env = "SILKRATE_RESERVED_SERIES",
          value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub reserved_series: Option<u32>,
}

/// The limits of what one client can take.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) connections: SlotLimits,
    pub(super) address_max: Option<usize>,
    pub(super) new_series: NewSeriesLimits,
    pub(super) service: ServiceLimits,
    pub(super) queue: QueueLimits,
    pub(super) request_bytes_max: usize,
}

fn parse_age(text: &str) -> Result<Duration, DurationError> {
    parse_duration(text, Duration::from_secs(1), Duration::from_hours(24))
}

impl LimitArgs {
    /// Returns the largest number of calls of one client in a second; `None` for no limit.
    pub(super) fn client_calls_max(&self, is_protected: bool) -> Option<u32> {
        self.client_calls.or(is_protected.then_some(CLIENT_CALLS_DEFAULT))
    }

    /// Checks the flags against each other and against the limit of open files.
    ///
    /// # Errors
    /// `ReservedSeries` if more series are reserved than the store may have; `TooFewFiles` if the connections need more
    /// files than the process may open.
    pub(super) fn limits(&self, series_max: u32) -> Result<Limits, ConfigError> {
        // The server raises the soft limit to the hard limit.
        let files = getrlimit(Resource::Nofile).maximum.and_then(|files| usize::try_from(files).ok());
        let total_max = connections_max(self.max_connections.map(to_usize), files)?;
        let address_max = self.max_connections_per_address.map(to_usize);
        let reserved = self.reserved_series.unwrap_or(series_max / RESERVED_FRACTION);
        if reserved > series_max {
            return Err(ConfigError::ReservedSeries { reserved, series_max });
        }
        Ok(Limits {
            connections: SlotLimits::new(total_max, address_max),
            address_max,
            new_series: NewSeriesLimits {
                caller_series_max: to_usize(self.caller_series),
                caller_sources_max: to_usize(self.caller_sources),
                reserved_series: to_usize(reserved),
            },
            queue: QueueLimits { batches_max: to_usize(self.queue_batches), ticks_max: to_usize(self.queue_ticks) },
            service: ServiceLimits {
                reads_max: to_usize(self.max_reads),
                expensive_reads_max: to_usize(self.max_expensive_reads),
                streams_max: to_usize(self.max_streams),
                stream_age_max_s: self.stream_age.as_secs(),
                exports_max: to_usize(self.max_exports),
                export_age_max_s: self.export_age.as_secs(),
                watches_max: to_usize(self.max_watches),
                live_pages_max: to_usize(self.max_live_pages),
            },
            request_bytes_max: to_usize(self.max_request_mib) << 20,
        })
    }
}

impl Config {
    /// The limits of the gRPC connections.
    pub fn connection_limits(&self) -> SlotLimits {
        self.limits.connections
    }

    /// The largest number of connections from one address that the configuration sets for each listener.
    pub fn address_connections(&self) -> Option<usize> {
        self.limits.address_max
    }

    /// The limits of the service.
    pub fn service_limits(&self) -> &ServiceLimits {
        &self.limits.service
    }

    /// The largest size of a gRPC request, bytes.
    pub fn request_bytes_max(&self) -> usize {
        self.limits.request_bytes_max
    }

    /// The limits on new series.
    pub fn new_series_limits(&self) -> NewSeriesLimits {
        self.limits.new_series
    }

    /// The limits of the queue of batches that wait for the writer.
    pub fn queue_limits(&self) -> QueueLimits {
        self.limits.queue
    }
}

/// Returns the largest number of gRPC connections. `files` is the number of files that the process may open; `None` if
/// it has no limit.
fn connections_max(configured: Option<usize>, files: Option<usize>) -> Result<usize, ConfigError> {
    let Some(files) = files else { return Ok(configured.unwrap_or(CONNECTIONS_DEFAULT)) };
    let available = (files - files / 4).saturating_sub(STORE_FILES);
    match configured {
        None => Ok(CONNECTIONS_DEFAULT.min(files / 2).max(1)),
        Some(connections) if connections > available => Err(ConfigError::TooFewFiles { connections, files, available }),
        Some(connections) => Ok(connections),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_http_and_the_store() {
        assert_eq!(connections_max(None, None), Ok(2_048));
        assert_eq!(connections_max(None, Some(1 << 20)), Ok(2_048));
        assert_eq!(connections_max(None, Some(1_024)), Ok(512));
        assert_eq!(connections_max(Some(576), Some(1_024)), Ok(576));
        let refused = connections_max(Some(1_000), Some(1_024)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "--max-connections 1000: the process may open 1024 files, and plain HTTP and the store need the rest; give at most 576, or raise the hard limit of open files (ulimit -Hn)"
        );
    }
}
