//! The order in which rows with times are read and listed.
//!
//! **Invariant**: the order does not change which rows a list has.

/// The order of rows by time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanOrder {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}
