//! Content codings of a body that reqwest does not decode: deflate, and gzip under its older name x-gzip.
//!
//! **Invariant**: decoding ends at the size limit of the body. A body without its end is an error.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use reqwest::header::HeaderValue;

use crate::domain::truncate_for_display;

/// The space for decoded bytes that is added at a time.
const CHUNK_BYTES: usize = 16_384;

/// A content coding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Deflate,
}

/// Why a body cannot be decoded.
#[derive(Debug)]
pub(super) enum DecodeError {
    /// The decoded body is longer than the limit.
    TooLarge,
    /// The body is damaged or incomplete; the message of the decoder, for display.
    Damaged(String),
}

impl Coding {
    /// Parses a `Content-Encoding` header.
    ///
    /// # Errors
    /// Returns the value, truncated for display, if it is not one known coding.
    pub(super) fn parse(header: &HeaderValue) -> Result<Self, String> {
        match header.as_bytes().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Ok(Self::Identity),
            b"gzip" | b"x-gzip" => Ok(Self::Gzip),
            b"deflate" => Ok(Self::Deflate),
            _ => Err(truncate_for_display(&String::from_utf8_lossy(header.as_bytes()))),
        }
    }

    /// Decodes a complete body to at most `max_bytes`. A body in deflate without the zlib header is decoded too.
    ///
    /// # Errors
    /// Returns a [`DecodeError`] if the decoded body is too long, or if the body is damaged.
    pub(super) fn decode(self, bytes: Vec<u8>, max_bytes: usize) -> Result<Vec<u8>, DecodeError> {
        match self {
            Self::Identity => Ok(bytes),
            Self::Gzip => gunzip(&bytes, max_bytes),
            Self::Deflate => match inflate(&bytes, true, max_bytes) {
                Err(DecodeError::Damaged(_)) => inflate(&bytes, false, max_bytes),
                decoded => decoded,
            },
        }
    }
}

fn damaged(problem: &impl ToString) -> DecodeError {
    DecodeError::Damaged(truncate_for_display(&problem.to_string()))
}

/// Decodes gzip. Reads at most one byte more than the limit.
fn gunzip(bytes: &[u8], max_bytes: usize) -> Result<Vec<u8>, DecodeError> {
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
    let mut decoded = Vec::new();
    MultiGzDecoder::new(bytes).take(limit).read_to_end(&mut decoded).map_err(|problem| damaged(&problem))?;
    if decoded.len() > max_bytes { Err(DecodeError::TooLarge) } else { Ok(decoded) }
}

/// Decodes DEFLATE, with or without the zlib header. The readers of `flate2` take a body without its end as complete, so
/// this function looks for the end itself.
fn inflate(bytes: &[u8], has_zlib_header: bool, max_bytes: usize) -> Result<Vec<u8>, DecodeError> {
    let mut inflater = Decompress::new(has_zlib_header);
    let (mut decoded, mut rest) = (Vec::new(), bytes);
    loop {
        decoded.reserve(CHUNK_BYTES);
        let before = (inflater.total_in(), inflater.total_out());
        let status = inflater.decompress_vec(rest, &mut decoded, FlushDecompress::None);
        let status = status.map_err(|problem| damaged(&problem))?;
        if decoded.len() > max_bytes {
            return Err(DecodeError::TooLarge);
        }
        if status == Status::StreamEnd {
            return Ok(decoded);
        }
        if (inflater.total_in(), inflater.total_out()) == before {
            return Err(damaged(&"the body ends early"));
        }
        let consumed = usize::try_from(inflater.total_in()).unwrap_or(usize::MAX);
        rest = bytes.get(consumed..).unwrap_or_default();
    }
}
