//! Snapshots of the store as Parquet, Arrow and CSV: written here for whoever exports, checked here for whoever
//! receives.
//!
//! **Invariant**: what an export holds follows from one commit and the request; nothing here asks what time it is. No
//! more than two row groups of Parquet and a few chunks are in memory, however long the export. Only this module knows
//! polars.

mod check;
mod checksum_trailer;
mod chunk_writer;
mod count;
mod csv_lines;
mod encode;
mod format;
mod frame;
mod hive_partitions;
mod ipc;
mod manifest;
mod names;
mod parquet_file;
mod produce;
pub mod read;
mod request;
mod row;
mod schema;

pub use check::{Checker, Step, StreamError};
pub use checksum_trailer::is_of_silkrate;
pub use chunk_writer::{CHUNK_BYTES_MAX, ReceiverGone};
pub use count::{CountError, StreamCounter, count_rows};
pub use format::Format;
pub use hive_partitions::{PartitionError, PartitionKey, PartitionTotals, PartitionWriter, part_number};
pub use ipc::IpcError;
pub use manifest::{MANIFEST_NAME, PartFile, manifest_json};
pub use parquet_file::ParquetFileError;
pub use produce::{ExportError, produce};
pub use request::{ExportRequest, Shape};
pub use schema::SCHEMA_VERSION;

use crate::catch_panic::catch_panic;

/// Decodes bytes that may be damaged, on which the libraries may panic.
fn guarded<T, E: ToString>(decode: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_panic(decode) {
        Ok(decoded) => decoded.map_err(|error| error.to_string()),
        Err(_) => Err("it does not decode".to_owned()),
    }
}
