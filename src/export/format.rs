//! The formats of an export.

/// How the bytes of a part are to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// With zstd, statistics and metadata.
    Parquet,
    /// Arrow's IPC, the streaming format.
    ArrowStream,
    /// With a header.
    Csv,
}

impl Format {
    /// The usual ending of a file's name.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::ArrowStream => "arrows",
            Self::Csv => "csv",
        }
    }
}
