//! Checks that a directory is an export, so that `--force` may replace and remove it.
//!
//! **Invariant**: a directory counts as an export only if every entry in it is known to belong to an export. Otherwise
//! the error names the first foreign entry, and the directory stays unchanged.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use crate::export::read::Manifest;
use crate::export::{MANIFEST_NAME, PartitionKey, has_checksum_trailer, part_number};

/// Returns the first entry, by name, that does not belong to a full export; `None` if the directory is a full export or
/// empty.
///
/// # Errors
/// Any I/O error.
pub(super) fn foreign_in_full_export(directory: &Path) -> io::Result<Option<PathBuf>> {
    let entries = sorted(directory)?;
    let Some(first) = entries.first() else { return Ok(None) };
    if !entries.iter().any(|entry| entry.file_name() == MANIFEST_NAME) {
        return Ok(Some(first.path()));
    }
    let Some(manifest) = fs::read(directory.join(MANIFEST_NAME)).ok().and_then(|text| Manifest::parse(&text).ok())
    else {
        return Ok(Some(directory.join(MANIFEST_NAME)));
    };
    for entry in entries {
        let name = entry.file_name();
        let is_named = name == MANIFEST_NAME || manifest.parts.iter().any(|part| name == part.name.as_str());
        if !is_named || !entry.file_type()?.is_file() {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Returns the first entry that does not belong to a partitioned dataset; `None` if the directory is a partitioned
/// dataset or empty.
///
/// # Errors
/// Any I/O error.
pub(super) fn foreign_in_partitions(directory: &Path) -> io::Result<Option<PathBuf>> {
    foreign_below(directory, &mut Vec::new(), 0)
}

/// Searches a directory at level `depth`. `keys` has the partition key of each level visited so far: all directories of
/// a level have the same key, and no two levels share a key.
fn foreign_below(directory: &Path, keys: &mut Vec<PartitionKey>, depth: usize) -> io::Result<Option<PathBuf>> {
    for entry in sorted(directory)? {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_str().unwrap_or_default();
        let foreign = if entry.file_type()?.is_dir() {
            match key_of(name) {
                Some(key) if depth == keys.len() && !keys.contains(&key) => {
                    keys.push(key);
                    foreign_below(&path, keys, depth + 1)?
                }
                Some(key) if keys.get(depth) == Some(&key) => foreign_below(&path, keys, depth + 1)?,
                Some(_) | None => Some(path),
            }
        } else {
            let is_part = depth > 0 && depth == keys.len() && entry.file_type()?.is_file();
            (!is_part || part_number(name).is_none() || !has_checksum_trailer(&path)?).then_some(path)
        };
        if foreign.is_some() {
            return Ok(foreign);
        }
    }
    Ok(None)
}

fn key_of(name: &str) -> Option<PartitionKey> {
    let (key, _) = name.split_once('=')?;
    PartitionKey::ALL.into_iter().find(|known| known.name() == key)
}

fn sorted(directory: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}
