//! The order of a scan.
//!
//! **Invariant**: it says nothing of what is scanned.

/// In which direction of time runs come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanOrder {
    /// Oldest first.
    Ascending,
    /// Newest first.
    Descending,
}
