//! The limits of the service that an operator may change, with their defaults.

/// Limits on what the service does at one time. One client address takes at most three quarters of each number
/// ([`super::CallerSlots`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServiceLimits {
    /// Maximum number of concurrent reads of the store. Each uses a thread.
    pub reads_max: usize,
    /// Maximum number of concurrent expensive reads, each of which may use a core for seconds: comparisons of sources,
    /// gaps, candles, and ranges of the Frankfurter API. They also take a permit of `reads_max`; the other permits are
    /// left for cheap reads.
    pub expensive_reads_max: usize,
    /// Maximum number of concurrent `StreamRuns` calls. Each holds a thread, a version of the store and a few messages.
    pub streams_max: usize,
    /// Maximum age of a `StreamRuns` call, seconds.
    pub stream_age_max_s: u64,
    /// Maximum number of concurrent exports. Each holds a thread, a version of the store and a row group.
    pub exports_max: usize,
    /// Maximum age of an export, seconds.
    pub export_age_max_s: u64,
    /// Maximum number of concurrent watches. Each holds a few kilobytes, however slowly its client reads.
    pub watches_max: usize,
    /// Maximum number of pages in browsers that update themselves.
    pub live_pages_max: usize,
}

impl ServiceLimits {
    /// The limits of a server without settings.
    pub const DEFAULT: Self = Self {
        reads_max: 32,
        expensive_reads_max: 4,
        streams_max: 64,
        stream_age_max_s: 600,
        exports_max: 4,
        export_age_max_s: 3_600,
        watches_max: 10_000,
        live_pages_max: 1_000,
    };
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
