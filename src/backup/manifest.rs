//! The manifest of a backup: its commit, and the objects that a restore needs.
//!
//! The object is JSON: `{"sha256": "...", "manifest": {...}}`, where the hash is of the bytes of the value of `manifest`.
//!
//! **Invariant**: the ranges of the packs do not overlap and are sorted. Each block of the backup is in the pack whose
//! range contains its id.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::names::{self, StoreId};
use crate::domain::Timestamp;
use crate::store::Commit;

/// The version of the objects that this silkrate writes and reads.
pub(super) const FORMAT: u64 = 1;

/// What a manifest states about a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the objects, [`FORMAT`].
    pub(super) format: u64,
    /// The version of silkrate that wrote the backup.
    pub silkrate_version: String,
    /// The id of the store.
    pub store_id: StoreId,
    /// The sequence of the newest commit in the backup.
    pub sequence: u64,
    /// The recorded time of that commit, UTC.
    #[serde(with = "time")]
    pub recorded_time: Timestamp,
    /// When the backup was begun, UTC, by the clock of the process that wrote it.
    #[serde(with = "time")]
    pub taken_time: Timestamp,
    /// The sequence of the earlier backup whose packs this one names, too; none for a full backup.
    pub base_sequence: Option<u64>,
    /// All blocks of the backup have ids below this one.
    pub(super) next_block_id: u64,
    /// Checksum of the log frame of the newest commit.
    pub(super) chain: u32,
    /// SHA-256 of the records without the store id. The records contain the checksums of all blocks, so this is a digest of
    /// the content of the store.
    pub content_sha256: String,
    /// The number of series.
    pub series_count: u64,
    /// The number of blocks that the records name.
    pub block_count: u64,
    /// The size of these blocks, in bytes.
    pub block_bytes: u64,
    /// Bytes of packs and records that were written for this backup.
    pub sent_bytes: u64,
    /// The object with the records.
    pub(super) records: ObjectRef,
    /// The packs, sorted by their ranges of block ids.
    pub(super) packs: Vec<PackRef>,
}

/// An object that a manifest names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct ObjectRef {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// A pack that a manifest names.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct PackRef {
    #[serde(flatten)]
    pub(super) object: ObjectRef,
    /// The blocks of the backup with ids from `first_block` up to, not including, `end_block` are in this pack.
    pub(super) first_block: u64,
    pub(super) end_block: u64,
    /// Size of the blocks of the backup that are in this pack, in bytes.
    pub(super) live_bytes: u64,
}

/// Times in RFC 3339.
mod time {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use crate::domain::Timestamp;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Timestamp::parse_rfc3339(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

/// The object of a manifest.
#[derive(Serialize, Deserialize)]
struct Envelope {
    sha256: String,
    manifest: Box<RawValue>,
}

/// Why the bytes of an object are not a manifest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ManifestProblem {
    NewerFormat(u64),
    Invalid(String),
}

/// The SHA-256 of bytes, in hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(bytes))
}

impl ObjectRef {
    /// Describes bytes under a name.
    pub(super) fn new(bytes: &[u8], name: impl FnOnce(&str) -> String) -> Self {
        let sha256 = sha256(bytes);
        Self { name: name(&sha256), bytes: bytes.len() as u64, sha256 }
    }

    /// Compares bytes with what the manifest states.
    ///
    /// # Errors
    /// Returns the difference.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() as u64 != self.bytes {
            return Err(format!("it has {} bytes instead of {}", bytes.len(), self.bytes));
        }
        if sha256(bytes) == self.sha256 { Ok(()) } else { Err("it does not match its checksum".to_owned()) }
    }
}

impl Manifest {
    /// The newest commit in the backup.
    pub fn commit(&self) -> Commit {
        Commit { sequence: self.sequence, recorded_time: self.recorded_time }
    }

    /// The name of the object of this manifest.
    pub(super) fn name(&self) -> String {
        names::manifest(self.sequence, self.store_id)
    }

    /// The number of objects, the manifest included.
    pub fn object_count(&self) -> u64 {
        self.packs.len() as u64 + 2
    }

    /// The size of all objects without the manifest, in bytes. Backups share objects.
    pub fn total_bytes(&self) -> u64 {
        self.records.bytes + self.packs.iter().map(|pack| pack.object.bytes).sum::<u64>()
    }

    /// The names of all objects that a restore needs, without the manifest.
    pub(super) fn object_names(&self) -> impl Iterator<Item = &str> {
        [self.records.name.as_str()].into_iter().chain(self.packs.iter().map(|pack| pack.object.name.as_str()))
    }

    /// Encodes the object.
    ///
    /// # Errors
    /// Returns the problem if the manifest cannot be written as JSON.
    pub(super) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let text = serde_json::to_string_pretty(self)?;
        let sha256 = sha256(text.as_bytes());
        let mut bytes = serde_json::to_vec_pretty(&Envelope { sha256, manifest: RawValue::from_string(text)? })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Decodes and checks an object.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ManifestProblem> {
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let invalid = |problem: serde_json::Error| ManifestProblem::Invalid(problem.to_string());
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(invalid)?;
        let text = envelope.manifest.get();
        if sha256(text.as_bytes()) != envelope.sha256 {
            return Err(ManifestProblem::Invalid("it does not match its checksum".to_owned()));
        }
        let Format { format } = serde_json::from_str(text).map_err(invalid)?;
        if format != FORMAT {
            return Err(ManifestProblem::NewerFormat(format));
        }
        let manifest: Self = serde_json::from_str(text).map_err(invalid)?;
        let is_sorted = manifest.packs.is_sorted_by(|one, next| one.end_block <= next.first_block);
        if !is_sorted || manifest.packs.iter().any(|pack| pack.first_block >= pack.end_block) {
            return Err(ManifestProblem::Invalid("the ranges of its packs overlap".to_owned()));
        }
        Ok(manifest)
    }

    /// The pack that has the block with an id.
    pub(super) fn pack_of(&self, block: u64) -> Option<usize> {
        let at = self.packs.partition_point(|pack| pack.end_block <= block);
        self.packs.get(at).filter(|pack| pack.first_block <= block).map(|_| at)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::backup) fn pack(first_block: u64, end_block: u64, bytes: u64, live_bytes: u64) -> PackRef {
        let object = ObjectRef { name: format!("packs/{first_block}"), bytes, sha256: String::new() };
        PackRef { object, first_block, end_block, live_bytes }
    }

    pub(in crate::backup) fn manifest(sequence: u64, store: u64, taken_us: i64, packs: Vec<PackRef>) -> Manifest {
        Manifest {
            format: FORMAT,
            silkrate_version: "0.1.0".to_owned(),
            store_id: StoreId(store),
            sequence,
            recorded_time: Timestamp::from_micros(taken_us - 1),
            taken_time: Timestamp::from_micros(taken_us),
            base_sequence: None,
            next_block_id: 100,
            chain: 9,
            content_sha256: String::new(),
            series_count: 1,
            block_count: 2,
            block_bytes: 3,
            sent_bytes: 4,
            records: ObjectRef { name: "records/1".to_owned(), bytes: 5, sha256: String::new() },
            packs,
        }
    }

    #[test]
    fn manifest_round_trips_and_any_changed_byte_is_refused() {
        let manifest = manifest(7, 1, 1_000_000, vec![pack(1, 5, 9, 9), pack(5, 8, 9, 9)]);
        let bytes = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            // White space around the hash is the only part that is not covered.
            if let Ok(decoded) = Manifest::decode(&changed) {
                assert_eq!(decoded, manifest, "byte {at}");
            }
        }
        let newer = String::from_utf8(bytes).unwrap();
        let text = serde_json::to_string_pretty(&manifest).unwrap().replace("\"format\": 1", "\"format\": 2");
        let newer = newer.replace(&serde_json::to_string_pretty(&manifest).unwrap(), &text);
        let old_hash = sha256(serde_json::to_string_pretty(&manifest).unwrap().as_bytes());
        let newer = newer.replace(&old_hash, &sha256(text.as_bytes()));
        assert_eq!(Manifest::decode(newer.as_bytes()), Err(ManifestProblem::NewerFormat(2)));
    }

    #[test]
    fn block_is_in_the_pack_whose_range_contains_its_id() {
        let manifest = manifest(7, 1, 0, vec![pack(1, 5, 9, 9), pack(7, 8, 9, 9)]);
        let found: Vec<_> = (0..10).map(|id| manifest.pack_of(id)).collect();
        let expect = [None, Some(0), Some(0), Some(0), Some(0), None, None, Some(1), None, None];
        assert_eq!(found, expect);
    }
}
