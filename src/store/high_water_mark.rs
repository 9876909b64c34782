//! A small file beside sled that remembers the newest sequence known to be durable, so that a store
//! which lost commits without noticing is not served.
//!
//! **Invariant**: two slots of 32 bytes, written in turn: a torn write leaves the other.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::engine::sync_directory;
use super::error::StoreError;

/// Slot: magic (8), store id (8), sequence (8), zero (4), CRC-32C of what is before it (4).
const SLOT_BYTES: usize = 32;
const MAGIC: &[u8; 8] = b"silkwit1";

pub(crate) struct HighWaterMark {
    file: File,
    store_id: u64,
    newest: u64,
    next_slot: u64,
}

impl HighWaterMark {
    /// Opens the high-water mark of a store; `None` if there is none yet.
    pub(crate) fn open(directory: &Path, store_id: u64) -> Result<Option<Self>, StoreError> {
        let path = directory.join("witness");
        let failed = |error: &io::Error| StoreError::io(format!("cannot read {}", path.display()), error);
        let file = match File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| failed(&error))?,
        };
        let mut newest: Option<(u64, u64)> = None;
        for slot in 0..2 {
            let mut bytes = [0; SLOT_BYTES];
            match file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                other => other.map_err(|error| failed(&error))?,
            }
            match decode(&bytes) {
                Some((id, sequence)) if id == store_id => {
                    newest = newest.max(Some((sequence, slot)));
                }
                Some(_) => {
                    return Err(StoreError::Damaged {
                        path: directory.display().to_string(),
                        problem: "its witness belongs to another store".to_owned(),
                    });
                }
                None => {}
            }
        }
        let Some((sequence, slot)) = newest else {
            return Err(StoreError::Damaged {
                path: directory.display().to_string(),
                problem: "its witness file does not decode".to_owned(),
            });
        };
        Ok(Some(Self { file, store_id, newest: sequence, next_slot: 1 - slot }))
    }

    /// Makes the high-water mark of a new store: under its name it is never seen without a slot that decodes.
    pub(crate) fn create(directory: &Path, store_id: u64) -> Result<Self, StoreError> {
        let failed = |error: &io::Error| StoreError::io("cannot create the witness", error);
        let unfinished = directory.join("witness.new");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&unfinished)
            .map_err(|error| failed(&error))?;
        let mut high_water_mark = Self { file, store_id, newest: 0, next_slot: 0 };
        high_water_mark.write(0)?;
        fs::rename(unfinished, directory.join("witness")).map_err(|error| failed(&error))?;
        sync_directory(directory)?;
        Ok(high_water_mark)
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Remembers, durably, that `sequence` was durable.
    pub(crate) fn write(&mut self, sequence: u64) -> Result<(), StoreError> {
        let slot = encode(self.store_id, sequence);
        self.file
            .write_all_at(&slot, self.next_slot * SLOT_BYTES as u64)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| StoreError::io("cannot write the witness", &error))?;
        self.newest = sequence;
        self.next_slot = 1 - self.next_slot;
        Ok(())
    }
}

fn encode(store_id: u64, sequence: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(MAGIC);
    slot[8..16].copy_from_slice(&store_id.to_le_bytes());
    slot[16..24].copy_from_slice(&sequence.to_le_bytes());
    let crc = crc32c::crc32c(&slot[..28]);
    slot[28..].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn decode(slot: &[u8; SLOT_BYTES]) -> Option<(u64, u64)> {
    let number = |at: usize| Some(u64::from_le_bytes(slot.get(at..at + 8)?.try_into().ok()?));
    let crc = u32::from_le_bytes(slot[28..].try_into().ok()?);
    (slot.starts_with(MAGIC) && crc32c::crc32c(&slot[..28]) == crc).then_some((number(8)?, number(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_slot_leaves_the_other() {
        let directory = tempfile::tempdir().unwrap();
        let mut high_water_mark = HighWaterMark::create(directory.path(), 7).unwrap();
        high_water_mark.write(5).unwrap();
        high_water_mark.write(6).unwrap();
        // Slot 0 holds 6 by now; tear it.
        high_water_mark.file.write_all_at(b"torn", 10).unwrap();
        assert_eq!(HighWaterMark::open(directory.path(), 7).unwrap().unwrap().newest(), 5);
        assert!(HighWaterMark::open(directory.path(), 8).is_err());
        high_water_mark.file.write_all_at(b"torn", 42).unwrap();
        assert!(HighWaterMark::open(directory.path(), 7).is_err());
    }

    #[test]
    fn no_file_is_no_witness() {
        let directory = tempfile::tempdir().unwrap();
        assert!(HighWaterMark::open(directory.path(), 7).unwrap().is_none());
    }
}
