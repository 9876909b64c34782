//! Verification of backups: reads every object, and makes the checks that a restore makes.
//!
//! **Invariant**: if no problem is found, a restore from each of the backups finds all its objects undamaged.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::spawn_blocking;

use super::catalog::{At, Catalog, Chosen};
use super::destination::Destination;
use super::error::BackupError;
use super::log_archive::{self, LogArchive};
use super::manifest::{Manifest, PackRef};
use super::names::StoreId;
use super::pack::blocks;
use super::restore::{get, read_records, wanted_blocks};
use crate::store::{IndexedBlock, LogFrames};

/// The result of a verification.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// The number of backups.
    pub backup_count: u64,
    /// The number of objects that were read, with the manifests.
    pub object_count: u64,
    /// The size of these objects without the manifests, in bytes.
    pub byte_count: u64,
    /// The number of blocks whose columns were compared with their checksums.
    pub block_count: u64,
    /// The problems; empty if all backups can be restored.
    pub problems: Vec<BackupError>,
}

/// Verifies all backups of a destination with the archived frames of the log, or the one backup that restores `at`.
///
/// # Errors
/// `Object` if the destination cannot be read; `NoBackup` or `NotCovered` if there is no such backup.
pub async fn verify(
    destination: &Destination,
    at: Option<At>,
    store: Option<StoreId>,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Verified, BackupError> {
    let catalog = Catalog::read(destination).await?;
    let mut verified = Verified::default();
    let backups: Vec<Manifest> = if let Some(at) = at {
        let Chosen { manifest, .. } = catalog.choose(destination, at, store).await?;
        vec![manifest]
    } else {
        verified.problems.extend(catalog.unreadable().cloned());
        let is_wanted = |manifest: &&Manifest| store.is_none_or(|store| store == manifest.store_id);
        catalog.backups().iter().filter(is_wanted).cloned().collect()
    };
    if backups.is_empty() && verified.problems.is_empty() {
        return Err(BackupError::NoBackup(destination.location().to_string()));
    }
    verified.backup_count = backups.len() as u64;
    verified.object_count = backups.len() as u64;
    let packs = verified.check_records(destination, &backups).await?;
    verified.check_packs(destination, packs, progress).await?;
    if at.is_none() {
        let stores: BTreeSet<StoreId> = backups.iter().map(|manifest| manifest.store_id).collect();
        for id in stores {
            verified.check_log(destination, id).await?;
        }
    }
    Ok(verified)
}

/// A pack, and the blocks that backups expect in it, by id.
struct Expected {
    pack: PackRef,
    blocks: BTreeMap<u64, IndexedBlock>,
}

impl Verified {
    /// Adds a problem of an object. Returns an error that concerns the destination.
    fn note<T>(&mut self, result: Result<T, BackupError>) -> Result<Option<T>, BackupError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error @ (BackupError::Missing { .. } | BackupError::Damaged { .. })) => {
                if !self.problems.contains(&error) {
                    self.problems.push(error);
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Checks the records of all backups. Returns the packs with the blocks that they must have, by name.
    async fn check_records(
        &mut self,
        destination: &Destination,
        backups: &[Manifest],
    ) -> Result<BTreeMap<String, Expected>, BackupError> {
        let mut packs: BTreeMap<String, Expected> = BTreeMap::new();
        for manifest in backups {
            let read = read_records(destination, manifest).await;
            let records = self.note(read)?;
            self.object_count += 1;
            self.byte_count += manifest.records.bytes;
            for pack in &manifest.packs {
                let name = pack.object.name.clone();
                let expected =
                    packs.entry(name).or_insert_with(|| Expected { pack: pack.clone(), blocks: BTreeMap::new() });
                if expected.pack.object != pack.object {
                    let problem = "two manifests state different checksums of it".to_owned();
                    let object = destination.describe(&pack.object.name);
                    self.problems.push(BackupError::Damaged { object, problem });
                }
                for block in records.iter().flat_map(|records| wanted_blocks(records, pack)) {
                    expected.blocks.entry(block.id()).or_insert_with(|| block.clone());
                }
            }
        }
        Ok(packs)
    }

    async fn check_packs(
        &mut self,
        destination: &Destination,
        packs: BTreeMap<String, Expected>,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<(), BackupError> {
        let total = packs.values().map(|expected| expected.pack.object.bytes).sum();
        let mut done = 0;
        for (name, Expected { pack, blocks: wanted }) in packs {
            progress(done, total);
            done += pack.object.bytes;
            self.object_count += 1;
            let read = get(destination, &pack.object).await;
            let Some(bytes) = self.note(read)? else { continue };
            self.byte_count += pack.object.bytes;
            let checked = spawn_blocking(move || check_pack(&bytes, wanted)).await?;
            let object = destination.describe(&name);
            let checked = checked.map_err(|problem| BackupError::Damaged { object, problem });
            self.block_count += self.note(checked)?.unwrap_or(0);
        }
        progress(done, total);
        Ok(())
    }

    /// Checks that the frames of each object of the log are whole and follow each other.
    async fn check_log(&mut self, destination: &Destination, store: StoreId) -> Result<(), BackupError> {
        let archive = LogArchive::list(destination, store).await?;
        for name in archive.names() {
            self.object_count += 1;
            let read = log_archive::read(destination, name).await;
            let Some(bytes) = self.note(read)? else { continue };
            self.byte_count += bytes.len() as u64;
            if let Err(problem) = LogFrames::check(&bytes) {
                let object = destination.describe(name);
                self.problems.push(BackupError::Damaged { object, problem: problem.to_string() });
            }
        }
        Ok(())
    }
}

/// Compares the blocks of a pack with their index entries. Returns how many there are.
fn check_pack(bytes: &[u8], mut wanted: BTreeMap<u64, IndexedBlock>) -> Result<u64, String> {
    let mut count = 0;
    for block in blocks(bytes) {
        let (id, columns) = block.ok_or("its blocks cannot be decoded")?;
        if let Some(entry) = wanted.remove(&id) {
            entry.check(columns)?;
            count += 1;
        }
    }
    match wanted.keys().next() {
        Some(id) => Err(format!("it lacks block {id}")),
        None => Ok(count),
    }
}
