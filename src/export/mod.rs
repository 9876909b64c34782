//! Snapshots to and from Parquet.
//!
//! **Invariant**: only this module knows arrow and Parquet; rates go through it as digits, never as
//! floating-point numbers.

pub mod read;
