//! Snapshots of the store as Parquet, Arrow and CSV: written here for whoever exports, checked here for whoever
//! receives.
//!
//! **Invariant**: what an export holds follows from one commit and the request; nothing here asks what time it is. No
//! more than a row group of Parquet and a few chunks are in memory, however long the export. Only this module knows
//! arrow and parquet.

mod candle_rows;
mod check;
mod count;
mod encode;
mod held_rows;
mod layout;
mod manifest;
mod outlet;
mod poll_rows;
mod produce;
pub mod read;
mod rows;
mod seal;
mod tree;

pub use check::{Checker, Step, StreamError};
pub use count::{CountError, StreamCounter, count_rows};
pub use layout::{ExportRequest, Format, SCHEMA_VERSION, Shape};
pub use manifest::{MANIFEST_NAME, PartFile, manifest_json};
pub use outlet::{CHUNK_BYTES_MAX, Unwanted};
pub use produce::{ExportError, produce};
pub use seal::is_of_silkrate;
pub use tree::{PartitionKey, PartitionWriter, TreeError, TreeTotals, part_number};
