//! The manifest of a full export, parsed.

use serde::{Deserialize, Serialize};

/// The manifest of a full export.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Schema version of the files.
    pub schema_version: u32,
    /// Sequence of the exported commit.
    pub sequence: u64,
    /// Recorded time of the exported commit: RFC 3339, UTC.
    pub recorded_time: String,
    /// Recorded time of the newest commit with ticks, if known: RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_ingest_time: Option<String>,
    /// Version of silkrate that wrote the export.
    pub product_version: String,
    /// The Parquet files of the export.
    pub parts: Vec<Part>,
}

impl Manifest {
    /// Parses the text of a manifest file.
    ///
    /// # Errors
    /// Returns the JSON error if the text is not a manifest.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }
}

/// One file of a full export.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// File name in the directory, such as `runs.parquet`.
    pub name: String,
    /// Number of rows.
    pub row_count: u64,
    /// SHA-256 of the file, 64 hexadecimal digits.
    pub sha256: String,
}
