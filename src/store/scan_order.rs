//! The order of a scan over runs.
//!
//! **Invariant**: the order does not change which runs a scan returns.

/// The order of runs by first observed time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanOrder {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}
