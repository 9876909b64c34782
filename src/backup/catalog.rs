//! The backups of a destination, and the choice of those that restore a commit.
//!
//! **Invariant**: a restore ends exactly at the wanted commit, or is refused.

use std::collections::BTreeMap;
use std::fmt;

use super::destination::Destination;
use super::error::BackupError;
use super::log_archive::{LogArchive, frames_after};
use super::manifest::{FORMAT, Manifest, ManifestProblem};
use super::names::{self, ObjectName, StoreId};
use crate::domain::Timestamp;
use crate::store::LogFrames;

/// The commit to restore.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum At {
    /// The newest commit.
    #[default]
    Newest,
    /// The commit with this sequence.
    Sequence(u64),
    /// The newest commit at this time.
    Time(Timestamp),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("the newest commit"),
            Self::Sequence(sequence) => write!(f, "commit {sequence}"),
            Self::Time(time) => write!(f, "the newest commit at {time}"),
        }
    }
}

/// All backups of a destination.
#[derive(Clone, Debug)]
pub struct Catalog {
    /// Oldest first, by the time at which they were taken.
    backups: Vec<Manifest>,
    /// Manifests that cannot be read, and why.
    unreadable: Vec<(String, BackupError)>,
}

impl Catalog {
    /// Reads all manifests.
    ///
    /// # Errors
    /// `Object` if the destination cannot be read.
    pub async fn read(destination: &Destination) -> Result<Self, BackupError> {
        let (mut backups, mut unreadable) = (Vec::new(), Vec::new());
        for object in destination.list(names::MANIFESTS).await? {
            let Some(ObjectName::Manifest { sequence, store }) = names::parse(&object.name) else { continue };
            let object_name = destination.describe(&object.name);
            match Manifest::decode(&destination.get(&object.name).await?) {
                Ok(manifest) if (manifest.sequence, manifest.store_id) == (sequence, store) => backups.push(manifest),
                Ok(_) => {
                    let problem = "it is the manifest of another backup".to_owned();
                    unreadable.push((object.name, BackupError::Damaged { object: object_name, problem }));
                }
                Err(ManifestProblem::NewerFormat(found)) => {
                    let error = BackupError::NewerFormat { object: object_name, found, supported: FORMAT };
                    unreadable.push((object.name, error));
                }
                Err(ManifestProblem::Invalid(problem)) => {
                    unreadable.push((object.name, BackupError::Damaged { object: object_name, problem }));
                }
            }
        }
        backups.sort_by_key(|manifest| (manifest.taken_time, manifest.sequence));
        Ok(Self { backups, unreadable })
    }

    /// The backups, oldest first.
    pub fn backups(&self) -> &[Manifest] {
        &self.backups
    }

    /// The errors of manifests that cannot be read.
    pub fn unreadable(&self) -> impl Iterator<Item = &BackupError> {
        self.unreadable.iter().map(|(_, error)| error)
    }

    /// The stores, the one that was backed up last first.
    fn stores(&self) -> Vec<StoreId> {
        let mut last: BTreeMap<StoreId, Timestamp> = BTreeMap::new();
        for manifest in &self.backups {
            last.insert(manifest.store_id, manifest.taken_time);
        }
        let mut stores: Vec<StoreId> = last.keys().copied().collect();
        stores.sort_by_key(|store| std::cmp::Reverse(last[store]));
        stores
    }

    /// Finds the backup and the frames of later commits that restore a commit. Without `store`, the stores are tried in
    /// the order of their newest backups, newest first.
    pub(super) async fn choose(
        &self,
        destination: &Destination,
        at: At,
        store: Option<StoreId>,
    ) -> Result<Chosen, BackupError> {
        let stores = self.stores();
        let wanted = stores.iter().filter(|id| store.is_none_or(|store| store == **id));
        let mut known = Vec::new();
        for id in wanted {
            let archive = LogArchive::list(destination, *id).await?;
            match self.choose_in(destination, &archive, at, *id).await? {
                Ok(chosen) => return Ok(chosen),
                Err(problem) => known.push(problem),
            }
        }
        match (self.unreadable.first(), known.is_empty()) {
            (Some((_, error)), true) => Err(error.clone()),
            (None, true) => Err(BackupError::NoBackup(destination.location().to_string())),
            (_, false) => Err(BackupError::NotCovered {
                at: at.to_string(),
                destination: destination.location().to_string(),
                problem: known.join("; "),
            }),
        }
    }

    /// Finds the backup and the frames of one store, or returns which commits it has.
    async fn choose_in(
        &self,
        destination: &Destination,
        archive: &LogArchive,
        at: At,
        store: StoreId,
    ) -> Result<Result<Chosen, String>, BackupError> {
        let of_store = || self.backups.iter().filter(|manifest| manifest.store_id == store);
        let is_early_enough = |manifest: &&Manifest| match at {
            At::Newest => true,
            At::Sequence(sequence) => manifest.sequence <= sequence,
            At::Time(time) => manifest.recorded_time <= time,
        };
        let Some(manifest) = of_store().filter(is_early_enough).max_by_key(|manifest| manifest.sequence) else {
            return Ok(Err(self.describe_commits(store, archive)));
        };
        let wanted_last = if let At::Sequence(sequence) = at { sequence } else { u64::MAX };
        let mut frames = frames_after(destination, archive, manifest.sequence, manifest.chain, wanted_last).await?;
        let covered = frames.newest().unwrap_or(manifest.commit());
        let is_covered = match at {
            At::Newest => true,
            At::Sequence(sequence) => covered.sequence >= sequence,
            // Another commit at or before this time may exist, unless a later one is known, or the backup was taken later.
            At::Time(time) => covered.recorded_time > time || (frames.count() == 0 && time <= manifest.taken_time),
        };
        if !is_covered {
            return Ok(Err(self.describe_commits(store, archive)));
        }
        frames.keep_while(|commit| match at {
            At::Newest => true,
            At::Sequence(sequence) => commit.sequence <= sequence,
            At::Time(time) => commit.recorded_time <= time,
        });
        Ok(Ok(Chosen { manifest: manifest.clone(), frames }))
    }

    /// Describes which commits of a store can be restored.
    fn describe_commits(&self, store: StoreId, archive: &LogArchive) -> String {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let mut commits: Vec<(u64, u64)> = Vec::new();
        let backups = self.backups.iter().filter(|manifest| manifest.store_id == store);
        commits.extend(backups.map(|manifest| (manifest.sequence, manifest.sequence)));
        let oldest = commits.iter().map(|range| range.0).min().unwrap_or(u64::MAX);
        commits.extend(archive.ranges().filter(|(first, _)| *first > oldest));
        commits.sort_unstable();
        for (first, last) in commits {
            match ranges.last_mut() {
                Some(range) if first <= range.1.saturating_add(1) => range.1 = range.1.max(last),
                Some(_) | None => ranges.push((first, last)),
            }
        }
        let shown = |(first, last): &(u64, u64)| {
            if first == last { first.to_string() } else { format!("{first} to {last}") }
        };
        let newest = self.backups.iter().rev().find(|manifest| manifest.store_id == store);
        let newest = newest.map_or_else(String::new, |manifest| format!(", backed up last at {}", manifest.taken_time));
        let shown: Vec<String> = ranges.iter().map(shown).collect();
        format!("of store {store}{newest}, these commits can be restored: {}", shown.join(", "))
    }

    /// The names of manifests that cannot be read.
    pub(super) fn has_unreadable(&self) -> bool {
        !self.unreadable.is_empty()
    }
}

/// A backup, and the frames of the commits after it up to the wanted one.
pub(super) struct Chosen {
    pub(super) manifest: Manifest,
    pub(super) frames: LogFrames,
}
