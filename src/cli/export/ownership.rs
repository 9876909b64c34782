//! Which directories are exports, so that `--force` may put another one in their place and remove them.
//!
//! **Invariant**: a directory counts as an export only if every single thing in it is known to be of one. Whatever is
//! not is named, and then nothing of the directory is touched.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use crate::export::read::Manifest;
use crate::export::{MANIFEST_NAME, PartitionKey, is_of_silkrate, part_number};

/// The first thing, by name, in a directory that is not of a full export; none if the directory is one, or empty.
///
/// # Errors
/// The system's.
pub(super) fn foreign_in_full(directory: &Path) -> io::Result<Option<PathBuf>> {
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

/// The first thing in a directory that is not of a tree of partitions; none if the directory is one, or empty.
///
/// # Errors
/// The system's.
pub(super) fn foreign_in_tree(directory: &Path) -> io::Result<Option<PathBuf>> {
    foreign_below(directory, &mut Vec::new(), 0)
}

/// `keys` are those of the levels seen so far: each level has one, and none is there twice.
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
            (!is_part || part_number(name).is_none() || !is_of_silkrate(&path)?).then_some(path)
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
