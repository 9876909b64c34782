//! What a full export says of itself.

use serde::{Deserialize, Serialize};

/// What a full export says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Of its files.
    pub schema_version: u32,
    /// Of the commit that it holds.
    pub sequence: u64,
    /// Of that commit: RFC 3339, UTC.
    pub recorded_time: String,
    /// Of the newest commit that held ticks, where that is known: RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ingest_time: Option<String>,
    /// Of the silkrate that wrote it.
    pub product_version: String,
    /// Its files.
    pub parts: Vec<Part>,
}

impl Manifest {
    /// As it stands in its file.
    ///
    /// # Errors
    /// What is no manifest.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }
}

/// One file of a full export.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// File name inside the directory, such as `runs.parquet`.
    pub name: String,
    /// Rows in it.
    pub row_count: u64,
    /// SHA-256 of the file, 64 hexadecimal digits.
    pub sha256: String,
}
