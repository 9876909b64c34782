//! Deletion of backups that the rule of retention does not keep, and of objects that no backup needs.
//!
//! **Invariants**:
//!
//! - Manifests are deleted before the objects that they name, so an interruption leaves no manifest without its objects.
//! - An object is deleted only if its name is one that backups write, no manifest names it, and it is older than a day: a
//!   backup that is being written may name a younger one.
//! - If a manifest cannot be read, no object is deleted, because that manifest may name it.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::Catalog;
use super::destination::Destination;
use super::directory::UNFINISHED;
use super::error::BackupError;
use super::keep::Keep;
use super::manifest::Manifest;
use super::names::{self, Listed, ObjectName, StoreId};
use crate::domain::Timestamp;

/// What was deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pruned {
    /// The number of backups.
    pub backup_count: u64,
    /// The number of objects, with the manifests.
    pub object_count: u64,
}

/// Deletes the backups that `keep` does not keep, and then the objects that no backup needs. The rule applies to the
/// backups of each store on its own.
///
/// # Errors
/// `Object` if the destination cannot be read or written. Running it again continues.
pub async fn prune(destination: &Destination, keep: &Keep, now: Timestamp) -> Result<Pruned, BackupError> {
    let catalog = Catalog::read(destination).await?;
    let mut pruned = Pruned::default();
    let (kept, dropped) = divide(catalog.backups(), keep);
    for manifest in dropped {
        destination.delete(&manifest.name()).await?;
        pruned.backup_count += 1;
        pruned.object_count += 1;
    }
    if catalog.has_unreadable() {
        tracing::warn!("{}: a manifest is damaged, so no objects are deleted", destination.location());
        return Ok(pruned);
    }
    let mut objects = Vec::new();
    for folder in [names::MANIFESTS, names::RECORDS, names::PACKS, names::LOG] {
        objects.extend(destination.list(folder).await?);
    }
    for name in unneeded(&objects, &kept, now) {
        destination.delete(name).await?;
        pruned.object_count += 1;
    }
    Ok(pruned)
}

/// Divides backups into those that are kept and the others.
fn divide<'m>(backups: &'m [Manifest], keep: &Keep) -> (Vec<&'m Manifest>, Vec<&'m Manifest>) {
    let mut stores: BTreeMap<StoreId, Vec<&Manifest>> = BTreeMap::new();
    for manifest in backups {
        stores.entry(manifest.store_id).or_default().push(manifest);
    }
    let (mut kept, mut dropped) = (Vec::new(), Vec::new());
    for manifests in stores.into_values() {
        let taken: Vec<Timestamp> = manifests.iter().map(|manifest| manifest.taken_time).collect();
        for (manifest, is_kept) in manifests.into_iter().zip(keep.kept(&taken)) {
            if is_kept { kept.push(manifest) } else { dropped.push(manifest) }
        }
    }
    (kept, dropped)
}

/// Returns the names of the objects that can be deleted, given the backups that are kept.
fn unneeded<'o>(objects: &'o [Listed], kept: &[&Manifest], now: Timestamp) -> Vec<&'o str> {
    let needed: BTreeSet<&str> = kept.iter().flat_map(|manifest| manifest.object_names()).collect();
    let mut oldest: BTreeMap<StoreId, u64> = BTreeMap::new();
    for manifest in kept {
        let sequence = oldest.entry(manifest.store_id).or_insert(manifest.sequence);
        *sequence = manifest.sequence.min(*sequence);
    }
    let is_unneeded = |object: &&Listed| {
        let is_old = now.micros_since(object.modified) > Timestamp::DAY_US;
        let name = object.name.as_str();
        is_old
            && match names::parse(name) {
                Some(ObjectName::Records | ObjectName::Pack) => !needed.contains(name),
                // Frames continue a backup: those up to the oldest backup are not needed.
                Some(ObjectName::Log { last, store, .. }) => oldest.get(&store).is_some_and(|oldest| last <= *oldest),
                Some(ObjectName::Manifest { .. }) => false,
                None => is_unfinished(name),
            }
    };
    objects.iter().filter(is_unneeded).map(|object| object.name.as_str()).collect()
}

/// Returns true for a file whose writing was interrupted.
fn is_unfinished(name: &str) -> bool {
    let hash = name.strip_suffix(UNFINISHED).and_then(|stem| stem.rsplit_once('.')).map(|(_, hash)| hash);
    hash.is_some_and(|hash| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::tests::{manifest, pack};

    #[test]
    fn only_old_objects_that_no_backup_needs_are_deleted() {
        let (store, hash) = (StoreId(1), "0123456789abcdef");
        let now = Timestamp::from_micros(10 * Timestamp::DAY_US);
        let mut kept = manifest(7, 1, 0, vec![pack(1, 5, 9, 9)]);
        kept.packs[0].object.name = names::pack(1, 5, store, hash);
        kept.records.name = names::records(7, store, hash);
        let object = |name: String, age_h: i64| Listed {
            name,
            bytes: 1,
            modified: now.saturating_add_us(-age_h * Timestamp::HOUR_US),
        };
        let cases = [
            (names::pack(1, 5, store, hash), 99, false),
            (names::pack(1, 6, store, hash), 25, true),
            (names::pack(1, 6, store, hash), 23, false),
            (names::records(7, store, hash), 99, false),
            (names::records(6, store, hash), 99, true),
            (names::log(3, 7, store, hash), 99, true),
            (names::log(3, 8, store, hash), 99, false),
            (names::log(3, 7, StoreId(2), hash), 99, false),
            (names::manifest(3, store), 99, false),
            ("packs/notes.txt".to_owned(), 99, false),
            ("packs/x.0123456789abcdef.unfinished".to_owned(), 99, true),
            ("packs/x.0123456789abcdef.unfinished".to_owned(), 1, false),
            ("packs/mine.unfinished".to_owned(), 99, false),
        ];
        for (name, age_h, is_deleted) in cases {
            let objects = [object(name.clone(), age_h)];
            assert_eq!(unneeded(&objects, &[&kept], now).len(), usize::from(is_deleted), "{name}, {age_h} h old");
        }
    }

    #[test]
    fn rule_applies_to_each_store_on_its_own() {
        let hour = Timestamp::HOUR_US;
        let backups =
            [manifest(1, 1, hour, vec![]), manifest(2, 1, 2 * hour, vec![]), manifest(1, 2, 3 * hour, vec![])];
        let (kept, dropped) = divide(&backups, &"1h".parse().unwrap());
        let shown = |list: Vec<&Manifest>| list.iter().map(|m| (m.store_id.0, m.sequence)).collect::<Vec<_>>();
        assert_eq!((shown(kept), shown(dropped)), (vec![(1, 2), (2, 1)], vec![(1, 1)]));
    }
}
