//! The high-water mark: a small file `witness` that records the highest sequence known to be durable. A store that
//! ends below its high-water mark has lost commits and is not opened.
//!
//! **Invariant**: the file has two slots of 32 bytes, which are written alternately. A torn write damages one slot and
//! leaves the other one valid.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::engine::sync_directory;
use super::error::StoreError;

/// Slot size. Layout, in bytes: magic (8), store id (8), sequence (8), zero (4), CRC-32C of the bytes before it (4).
const SLOT_BYTES: usize = 32;
const MAGIC: &[u8; 8] = b"silkwit1";

/// The open file of the high-water mark.
pub(crate) struct HighWaterMark {
    file: File,
    store_id: u64,
    newest: u64,
    next_slot: u64,
}

impl HighWaterMark {
    /// Opens the high-water mark of a store. Returns `None` if the file does not exist.
    ///
    /// # Errors
    /// `Damaged` if no slot is valid, or if a slot belongs to another store; `Io` if the file cannot be read.
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
                        problem: "the high-water mark (file 'witness') belongs to another store".to_owned(),
                    });
                }
                None => {}
            }
        }
        let Some((sequence, slot)) = newest else {
            return Err(StoreError::Damaged {
                path: directory.display().to_string(),
                problem: "the high-water mark (file 'witness') cannot be decoded".to_owned(),
            });
        };
        Ok(Some(Self { file, store_id, newest: sequence, next_slot: 1 - slot }))
    }

    /// Creates the high-water mark of a new store. The file gets its final name only after one slot is valid.
    pub(crate) fn create(directory: &Path, store_id: u64) -> Result<Self, StoreError> {
        let failed = |error: &io::Error| StoreError::io("cannot create the high-water mark (file 'witness')", error);
        let new_path = directory.join("witness.new");
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&new_path)
            .map_err(|error| failed(&error))?;
        let mut high_water_mark = Self { file, store_id, newest: 0, next_slot: 0 };
        high_water_mark.write(0)?;
        fs::rename(new_path, directory.join("witness")).map_err(|error| failed(&error))?;
        sync_directory(directory)?;
        Ok(high_water_mark)
    }

    /// The highest sequence known to be durable.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Records that the commit `sequence` is durable. The record itself is durable on return.
    pub(crate) fn write(&mut self, sequence: u64) -> Result<(), StoreError> {
        let slot = encode(self.store_id, sequence);
        self.file
            .write_all_at(&slot, self.next_slot * SLOT_BYTES as u64)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| StoreError::io("cannot write the high-water mark (file 'witness')", &error))?;
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
    fn open_uses_other_slot_if_one_slot_is_torn() {
        let directory = tempfile::tempdir().unwrap();
        let mut high_water_mark = HighWaterMark::create(directory.path(), 7).unwrap();
        high_water_mark.write(5).unwrap();
        high_water_mark.write(6).unwrap();
        // Slot 0 holds sequence 6. Tear it.
        high_water_mark.file.write_all_at(b"torn", 10).unwrap();
        assert_eq!(HighWaterMark::open(directory.path(), 7).unwrap().unwrap().newest(), 5);
        assert!(HighWaterMark::open(directory.path(), 8).is_err());
        high_water_mark.file.write_all_at(b"torn", 42).unwrap();
        assert!(HighWaterMark::open(directory.path(), 7).is_err());
    }

    #[test]
    fn missing_file_opens_as_none() {
        let directory = tempfile::tempdir().unwrap();
        assert!(HighWaterMark::open(directory.path(), 7).unwrap().is_none());
    }
}
