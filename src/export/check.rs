//! Verifies a received export stream: the order of its messages, its checksums and its row counts.
//!
//! **Invariant**: a part is reported as complete only if its bytes match the checksum in its end message. The export is
//! reported as complete only if every part of the manifest is complete and the row counts add up.

use data_encoding::HEXLOWER;
use prost::bytes::Bytes;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::manifest::PartFile;
use super::schema::SCHEMA_VERSION;
use crate::domain::truncate_for_display;
use crate::proto::v1;
use crate::proto::v1::export_snapshot_response::Message;

/// Maximum length of a part name in bytes.
const PART_NAME_BYTES_MAX: usize = 64;

/// Why an export stream is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StreamError {
    /// A message is not allowed at its position in the stream.
    #[error("invalid export stream: {0}; use the server's version of silkrate")]
    OutOfOrder(&'static str),
    /// The export has another schema version.
    #[error(
        "the server exports schema version {found}, but this command reads version {SCHEMA_VERSION}; \
         use the server's version of silkrate"
    )]
    OtherSchema {
        /// The schema version in the manifest.
        found: u32,
    },
    /// A part name is not a plain file name, so the part could be written outside the target directory.
    #[error("invalid part name '{0}' from the server: it is not a plain file name")]
    PartName(String),
    /// The received bytes differ from the bytes sent.
    #[error("{part} arrived damaged: its SHA-256 is {found}, but the server sent {expected}; run the export again")]
    Checksum {
        /// Name of the part.
        part: String,
        /// The server's SHA-256, in hexadecimal.
        expected: String,
        /// SHA-256 of the received bytes, in hexadecimal.
        found: String,
    },
    /// Rows are missing, or there are too many.
    #[error("{what} has {found} rows, but the server sent {expected}; run the export again")]
    RowCount {
        /// Name of the part, or the whole export.
        what: String,
        /// The server's row count.
        expected: u64,
        /// The row count that the client found.
        found: u64,
    },
    /// The stream ended before its end message.
    #[error("the export stream ended before its end message; run the export again")]
    Incomplete,
}

/// A verified message of the stream.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// The manifest, which is the first step. The first part begins after it.
    Manifest(Box<v1::ExportManifest>),
    /// The next bytes of the current part, and the number of the part's rows so far.
    Data(Bytes, u64),
    /// The current part is complete and verified; the next part begins.
    PartEnd(PartFile),
    /// The export is complete and verified. No step follows.
    End,
}

/// Verifies the messages of one stream, in order.
#[derive(Default)]
pub struct Checker {
    parts: Option<Vec<String>>,
    ended: Vec<PartFile>,
    hash: Sha256,
    byte_count: u64,
    is_over: bool,
}

impl Checker {
    /// Verifies the next message.
    ///
    /// # Errors
    /// Any [`StreamError`] except `Incomplete`; then the caller must discard the export.
    pub fn accept(&mut self, response: v1::ExportSnapshotResponse) -> Result<Step, StreamError> {
        if self.is_over {
            return Err(StreamError::OutOfOrder("a message follows the end of the export"));
        }
        match response.message {
            None => Err(StreamError::OutOfOrder("a message is empty")),
            Some(Message::Manifest(manifest)) => self.manifest(manifest),
            Some(Message::Chunk(chunk)) => {
                self.expect_part(&chunk.part)?;
                self.hash.update(&chunk.data);
                self.byte_count += chunk.data.len() as u64;
                Ok(Step::Data(chunk.data, chunk.row_count))
            }
            Some(Message::PartEnd(end)) => self.part_end(end),
            Some(Message::End(end)) => self.end(end),
        }
    }

    /// Returns the parts of the export after the stream has ended.
    ///
    /// # Errors
    /// `Incomplete` if the stream ended before its end message.
    pub fn finish(self) -> Result<Vec<PartFile>, StreamError> {
        if self.is_over { Ok(self.ended) } else { Err(StreamError::Incomplete) }
    }

    fn manifest(&mut self, manifest: v1::ExportManifest) -> Result<Step, StreamError> {
        if self.parts.is_some() {
            return Err(StreamError::OutOfOrder("a second manifest follows"));
        }
        if manifest.schema_version != SCHEMA_VERSION {
            return Err(StreamError::OtherSchema { found: manifest.schema_version });
        }
        if let Some(bad) = manifest.parts.iter().find(|name| !is_plain_name(name)) {
            return Err(StreamError::PartName(truncate_for_display(bad)));
        }
        self.parts = Some(manifest.parts.clone());
        Ok(Step::Manifest(Box::new(manifest)))
    }

    fn expect_part(&self, name: &str) -> Result<(), StreamError> {
        let Some(parts) = &self.parts else { return Err(StreamError::OutOfOrder("it starts without a manifest")) };
        match parts.get(self.ended.len()) {
            Some(expected) if expected == name => Ok(()),
            _ => Err(StreamError::OutOfOrder("a part is not the next part of the manifest")),
        }
    }

    fn part_end(&mut self, end: v1::ExportPartEnd) -> Result<Step, StreamError> {
        self.expect_part(&end.part)?;
        let found = self.hash.finalize_reset();
        if end.sha256 != found.as_slice() {
            return Err(StreamError::Checksum {
                part: end.part,
                expected: HEXLOWER.encode(&end.sha256),
                found: HEXLOWER.encode(&found),
            });
        }
        let byte_count = std::mem::take(&mut self.byte_count);
        let part = PartFile { name: end.part, row_count: end.row_count, byte_count, sha256: HEXLOWER.encode(&found) };
        self.ended.push(part.clone());
        Ok(Step::PartEnd(part))
    }

    fn end(&mut self, end: v1::ExportEnd) -> Result<Step, StreamError> {
        if self.parts.as_ref().is_none_or(|parts| parts.len() != self.ended.len()) {
            return Err(StreamError::OutOfOrder("it ends before its last part"));
        }
        if u32::try_from(self.ended.len()) != Ok(end.part_count) {
            return Err(StreamError::OutOfOrder("the part count at its end differs from its manifest"));
        }
        let found = self.ended.iter().map(|part| part.row_count).sum();
        if end.row_count != found {
            return Err(StreamError::RowCount { what: "the export".to_owned(), expected: end.row_count, found });
        }
        self.is_over = true;
        Ok(Step::End)
    }
}

fn is_plain_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=PART_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(parts: &[&str]) -> Message {
        let parts = parts.iter().map(|part| (*part).to_owned()).collect();
        Message::Manifest(v1::ExportManifest { schema_version: SCHEMA_VERSION, parts, ..Default::default() })
    }

    fn chunk(part: &str, data: &'static [u8]) -> Message {
        Message::Chunk(v1::ExportChunk { part: part.to_owned(), data: Bytes::from_static(data), row_count: 1 })
    }

    fn part_end(part: &str, data: &[u8], row_count: u64) -> Message {
        let sha256 = Sha256::digest(data).to_vec();
        Message::PartEnd(v1::ExportPartEnd { part: part.to_owned(), row_count, sha256 })
    }

    fn end(row_count: u64, part_count: u32) -> Message {
        Message::End(v1::ExportEnd { row_count, part_count })
    }

    fn receive(messages: impl IntoIterator<Item = Message>) -> Result<Vec<PartFile>, StreamError> {
        let mut checker = Checker::default();
        for message in messages {
            checker.accept(v1::ExportSnapshotResponse { message: Some(message) })?;
        }
        checker.finish()
    }

    #[test]
    fn complete_stream_returns_its_parts() {
        let parts = receive([
            manifest(&["a.csv", "b.csv"]),
            chunk("a.csv", b"one,"),
            chunk("a.csv", b"two"),
            part_end("a.csv", b"one,two", 2),
            part_end("b.csv", b"", 0),
            end(2, 2),
        ])
        .unwrap();
        let found: Vec<_> = parts.iter().map(|part| (part.name.as_str(), part.row_count, part.byte_count)).collect();
        assert_eq!(found, [("a.csv", 2, 7), ("b.csv", 0, 0)]);
        assert_eq!(parts[1].sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn incomplete_reordered_or_damaged_stream_is_an_error() {
        let check = |messages: Vec<Message>, expect: &str| {
            let error = receive(messages).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        let one = || manifest(&["a.csv"]);
        check(vec![], "before its end message");
        check(vec![one(), chunk("a.csv", b"x")], "before its end message");
        check(vec![one(), chunk("a.csv", b"x"), part_end("a.csv", b"x", 1)], "before its end message");
        check(vec![chunk("a.csv", b"x")], "without a manifest");
        check(vec![one(), one()], "a second manifest");
        check(vec![one(), chunk("b.csv", b"x")], "not the next part of the manifest");
        check(vec![one(), part_end("a.csv", b"", 0), chunk("a.csv", b"x")], "not the next part of the manifest");
        check(vec![one(), end(0, 1)], "before its last part");
        check(vec![one(), part_end("a.csv", b"", 0), end(0, 2)], "the part count at its end differs");
        check(vec![one(), part_end("a.csv", b"", 3), end(4, 1)], "the export has 3 rows, but the server sent 4");
        check(vec![one(), part_end("a.csv", b"", 0), end(0, 1), end(0, 1)], "follows the end of the export");
        check(vec![one(), chunk("a.csv", b"x"), part_end("a.csv", b"y", 1)], "a.csv arrived damaged");
        for name in ["../a", "/etc/passwd", "", ".hidden", "a b", "a\\b"] {
            check(vec![manifest(&[name])], "not a plain file name");
        }
        let newer = v1::ExportManifest { schema_version: SCHEMA_VERSION + 1, ..Default::default() };
        check(vec![Message::Manifest(newer)], "use the server's version");
        let empty = v1::ExportSnapshotResponse { message: None };
        assert!(Checker::default().accept(empty).is_err());
    }
}
