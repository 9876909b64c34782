//! Restoring a store from a backup.
//!
//! **Invariant**: nothing is created before the wanted commit is found and its records are checked.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::catalog::{At, Catalog, Chosen};
use super::destination::Destination;
use super::error::BackupError;
use super::manifest::{Manifest, ObjectRef, PackRef, sha256};
use super::names::StoreId;
use super::pack::blocks;
use crate::store::{Commit, IndexedBlock, Rebuild, RebuildError, RecordSet};

/// Largest size of the decompressed records, in bytes. Those of a store with a million blocks take a tenth of it.
const RECORD_BYTES_MAX: u64 = 2 << 30;

/// A restored store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// The backup.
    pub manifest: Manifest,
    /// The newest commit of the store.
    pub commit: Commit,
    /// The number of commits that were replayed from the archived log.
    pub replayed_count: u64,
}

/// Restores a commit into the directory `db`, which may be missing or empty, or contain an unfinished restore. Calls
/// `progress` with the bytes that were read and the bytes of all packs.
///
/// # Errors
/// `NoBackup` or `NotCovered` if no backup has the commit; `Missing` or `Damaged` if an object cannot be used; `Rebuild` if
/// the directory is not empty or the store cannot be built.
pub async fn restore(
    destination: &Destination,
    at: At,
    store: Option<StoreId>,
    db: &Path,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Restored, BackupError> {
    let target: PathBuf = db.to_owned();
    spawn_blocking(move || Rebuild::check_directory(&target)).await??;
    let Chosen { manifest, frames } = Catalog::read(destination).await?.choose(destination, at, store).await?;
    let records = Arc::new(read_records(destination, &manifest).await?);
    let target: PathBuf = db.to_owned();
    let mut rebuild = spawn_blocking(move || Rebuild::begin(&target)).await??;
    let (mut read, total) = (0, manifest.packs.iter().map(|pack| pack.object.bytes).sum());
    for pack in &manifest.packs {
        progress(read, total);
        let bytes = get(destination, &pack.object).await?;
        read += bytes.len() as u64;
        let (records, pack, name) = (Arc::clone(&records), pack.clone(), destination.describe(&pack.object.name));
        rebuild = spawn_blocking(move || write_pack(rebuild, &records, &pack, &bytes, &name)).await??;
    }
    progress(read, total);
    let replayed_count = frames.count() as u64;
    let commit = spawn_blocking(move || rebuild.finish(&records, &frames)).await??;
    Ok(Restored { manifest, commit, replayed_count })
}

/// Writes the blocks of a pack that the backup uses.
fn write_pack(
    mut rebuild: Rebuild,
    records: &RecordSet,
    pack: &PackRef,
    bytes: &[u8],
    name: &str,
) -> Result<Rebuild, BackupError> {
    let damaged = |problem: String| BackupError::Damaged { object: name.to_owned(), problem };
    let mut wanted = wanted_blocks(records, pack).iter().peekable();
    for block in blocks(bytes) {
        let (id, columns) = block.ok_or_else(|| damaged("its blocks cannot be decoded".to_owned()))?;
        if let Some(entry) = wanted.next_if(|entry| entry.id() == id) {
            rebuild.block(records, entry, columns).map_err(|error| match error {
                RebuildError::Block { .. } => damaged(error.to_string()),
                RebuildError::NotEmpty { .. }
                | RebuildError::MissingBlock { .. }
                | RebuildError::Differs { .. }
                | RebuildError::Store(_) => error.into(),
            })?;
        }
    }
    match wanted.next() {
        Some(entry) => Err(damaged(format!("it lacks block {}, {}", entry.id(), records.describe(entry)))),
        None => Ok(rebuild),
    }
}

/// Returns the blocks of the records that a pack must have, by id.
pub(super) fn wanted_blocks<'r>(records: &'r RecordSet, pack: &PackRef) -> &'r [IndexedBlock] {
    let blocks = records.blocks();
    let begin = blocks.partition_point(|block| block.id() < pack.first_block);
    let end = blocks.partition_point(|block| block.id() < pack.end_block);
    blocks.get(begin..end).unwrap_or_default()
}

/// Reads an object and compares it with the manifest.
pub(super) async fn get(destination: &Destination, object: &ObjectRef) -> Result<Vec<u8>, BackupError> {
    let bytes = destination.get(&object.name).await?;
    let checked = object.clone();
    let (bytes, checked) = spawn_blocking(move || {
        let result = checked.check(&bytes);
        (bytes, result)
    })
    .await?;
    let described = destination.describe(&object.name);
    checked.map(|()| bytes).map_err(|problem| BackupError::Damaged { object: described, problem })
}

/// Reads the records of a backup, and compares them with its manifest.
pub(super) async fn read_records(destination: &Destination, manifest: &Manifest) -> Result<RecordSet, BackupError> {
    let bytes = get(destination, &manifest.records).await?;
    let manifest = manifest.clone();
    let object = destination.describe(&manifest.records.name);
    spawn_blocking(move || decode_records(&bytes, &manifest))
        .await?
        .map_err(|problem| BackupError::Damaged { object, problem })
}

fn decode_records(bytes: &[u8], manifest: &Manifest) -> Result<RecordSet, String> {
    let mut decoded = Vec::new();
    // One more byte than allowed shows that there are too many.
    let decoder = zstd::stream::Decoder::new(bytes).map_err(|error| error.to_string())?;
    decoder.take(RECORD_BYTES_MAX + 1).read_to_end(&mut decoded).map_err(|error| error.to_string())?;
    if decoded.len() as u64 > RECORD_BYTES_MAX {
        return Err(format!("its records have more than {RECORD_BYTES_MAX} bytes"));
    }
    let records = RecordSet::decode(&decoded).map_err(|error| error.to_string())?;
    let found = (StoreId(records.store_id()), records.commit(), records.chain(), records.next_block_id());
    if found != (manifest.store_id, manifest.commit(), manifest.chain, manifest.next_block_id) {
        return Err("its records are of another commit than its manifest".to_owned());
    }
    if sha256(&records.encode_content()) != manifest.content_sha256 {
        return Err("its records do not match the digest of the content".to_owned());
    }
    for block in records.blocks() {
        if manifest.pack_of(block.id()).is_none() {
            let what = records.describe(block);
            return Err(format!("no pack has block {}, {what}", block.id()));
        }
    }
    Ok(records)
}
