//! The file formats of an export.

/// File format of the parts of an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Parquet, with zstd compression, statistics and metadata.
    Parquet,
    /// The streaming format of Arrow IPC.
    ArrowStream,
    /// CSV with a header line.
    Csv,
}

impl Format {
    /// The usual file name extension, without a dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::ArrowStream => "arrows",
            Self::Csv => "csv",
        }
    }
}
