//! Snapshots of the store as Parquet, Arrow and CSV. The server writes them; the client checks the stream and reads
//! exported files back.
//!
//! **Invariant**: the content of an export depends only on one commit and the request; this module reads no clock. At
//! most two Parquet row groups and a few chunks are in memory, whatever the size of the export. No other module uses
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
pub use checksum_trailer::has_checksum_trailer;
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

/// Runs a decoder on bytes that may be damaged. A panic of the decoding library becomes an error.
fn decode_untrusted<T, E: ToString>(decode: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_panic(decode) {
        Ok(decoded) => decoded.map_err(|error| error.to_string()),
        Err(_) => Err("the bytes cannot be decoded".to_owned()),
    }
}
