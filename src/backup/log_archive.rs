//! The frames of the commit log between two backups, as objects.
//!
//! **Invariant**: the frames of an object are whole and follow each other. A frame is used only if it follows the commit
//! before it: its chain value shows that.

use super::destination::Destination;
use super::error::BackupError;
use super::manifest::{ObjectRef, sha256};
use super::names::{self, Listed, ObjectName, StoreId};
use crate::store::{LogFrame, LogFrames};

/// An object with frames ends with the frame that makes it this large.
const LOG_OBJECT_BYTES: usize = 8 << 20;

/// The objects with frames of one store.
pub(super) struct LogArchive {
    objects: Vec<LogObject>,
}

struct LogObject {
    first: u64,
    last: u64,
    listed: Listed,
}

impl LogArchive {
    pub(super) async fn list(destination: &Destination, store: StoreId) -> Result<Self, BackupError> {
        let listed = destination.list(&format!("{}/{store}", names::LOG)).await?;
        let object = |listed: Listed| match names::parse(&listed.name)? {
            ObjectName::Log { first, last, .. } => Some(LogObject { first, last, listed }),
            ObjectName::Manifest { .. } | ObjectName::Records | ObjectName::Pack => None,
        };
        Ok(Self { objects: listed.into_iter().filter_map(object).collect() })
    }

    /// The first and the last commit of each object.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.objects.iter().map(|object| (object.first, object.last))
    }

    /// The names of all objects.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.objects.iter().map(|object| object.listed.name.as_str())
    }
}

/// Writes frames. Returns the number of bytes.
pub(super) async fn write(destination: &Destination, store: StoreId, frames: &[LogFrame]) -> Result<u64, BackupError> {
    let mut written = 0;
    let (mut bytes, mut first) = (Vec::new(), None);
    for (at, frame) in frames.iter().enumerate() {
        bytes.extend_from_slice(&frame.bytes);
        let (begin, last) = (*first.get_or_insert(frame.commit.sequence), frame.commit.sequence);
        if bytes.len() >= LOG_OBJECT_BYTES || at + 1 == frames.len() {
            let object = ObjectRef::new(&bytes, |sha256| names::log(begin, last, store, sha256));
            written += object.bytes;
            destination.put(&object.name, std::mem::take(&mut bytes)).await?;
            first = None;
        }
    }
    Ok(written)
}

/// Reads an object and compares it with the hash in its name.
pub(super) async fn read(destination: &Destination, name: &str) -> Result<Vec<u8>, BackupError> {
    let bytes = destination.get(name).await?;
    let matches = match names::parse(name) {
        Some(ObjectName::Log { hash, .. }) => names::short(&sha256(&bytes)) == hash,
        Some(ObjectName::Manifest { .. } | ObjectName::Records | ObjectName::Pack) | None => false,
    };
    if matches {
        return Ok(bytes);
    }
    let problem = "it does not match the checksum in its name".to_owned();
    Err(BackupError::Damaged { object: destination.describe(name), problem })
}

/// Reads the frames of the commits after the commit `sequence`, whose frame has the checksum `chain`, as far as they follow
/// each other, and at most up to the object that contains the commit `last`.
pub(super) async fn frames_after(
    destination: &Destination,
    archive: &LogArchive,
    sequence: u64,
    chain: u32,
    last: u64,
) -> Result<LogFrames, BackupError> {
    let mut frames = LogFrames::after(chain);
    let mut newest = sequence;
    'objects: while newest < last {
        let has_next = |object: &&LogObject| object.first <= newest + 1 && newest < object.last;
        for object in archive.objects.iter().filter(has_next) {
            let bytes = read(destination, &object.listed.name).await?;
            // A store that was set back to an earlier copy of its directory wrote other commits with the same numbers.
            let mut longer = frames.clone();
            if longer.append(&bytes, sequence).is_ok() && longer.count() > frames.count() {
                frames = longer;
                newest = frames.newest().map_or(newest, |commit| commit.sequence);
                continue 'objects;
            }
        }
        break;
    }
    Ok(frames)
}
