//! The directory in which an import or a restore builds a store, and its mark file.
//!
//! **Invariant**: only files of an unfinished import or restore, or of a store without commits are removed, and only while the lock
//! is held.

use std::fs::{self, File};
use std::path::Path;

use super::error::RestoreError;
use crate::store::engine::{Engine, UNFINISHED_MARK, file_names, sync_directory, take_lock};
use crate::store::error::StoreError;
use crate::store::keys;
use crate::store::log::FILE_HEADER_BYTES;
use crate::store::records::Meta;

/// Files of a store.
const STORE_FILES: [&str; 3] = ["log", "witness", "reserve"];
/// Subdirectory of a store.
const STORE_DIRECTORY: &str = "sled";
/// Names of entries that an import ignores: a directory with no other entries counts as empty.
const HARMLESS_NAMES: [&str; 2] = ["LOCK", "lost+found"];

/// Creates a directory if it does not exist, locks it, writes the mark with this text durably, and then removes the files
/// of a store. Returns the lock file.
///
/// # Errors
/// `NotEmpty` if the directory has other contents; `Store` if it is in use or cannot be written.
pub(in crate::store) fn prepare_directory(directory: &Path, text: &str) -> Result<File, RestoreError> {
    fs::create_dir_all(directory)
        .map_err(|error| StoreError::io(format!("cannot create the directory {}", directory.display()), &error))?;
    let lock = lock_empty(directory)?;
    write_mark(directory, text)?;
    for name in STORE_FILES {
        remove(&directory.join(name))?;
    }
    let sled_dir = directory.join(STORE_DIRECTORY);
    if sled_dir.exists() {
        fs::remove_dir_all(&sled_dir)
            .map_err(|error| StoreError::io(format!("cannot remove {}", sled_dir.display()), &error))?;
    }
    sync_directory(directory)?;
    Ok(lock)
}

/// Writes the mark durably.
fn write_mark(directory: &Path, text: &str) -> Result<(), StoreError> {
    let mark = directory.join(UNFINISHED_MARK);
    fs::write(&mark, text)
        .and_then(|()| File::open(&mark)?.sync_all())
        .map_err(|error| StoreError::io(format!("cannot write {}", mark.display()), &error))?;
    sync_directory(directory)
}

/// Removes the mark durably, so that the store can be opened. If the removal cannot be synced, writes the mark again,
/// so that the import or restore can be repeated.
pub(in crate::store) fn remove_mark(directory: &Path, text: &str) -> Result<(), StoreError> {
    remove(&directory.join(UNFINISHED_MARK))?;
    sync_directory(directory).inspect_err(|_| {
        // If the mark cannot be written either, the store can be opened. All data is durable, but the removal of the
        // mark may not be durable.
        let _ = write_mark(directory, text);
    })
}

/// The kind of contents of a directory.
#[derive(PartialEq, Eq)]
enum Content {
    Nothing,
    Unfinished,
    Store,
    SomethingElse,
}

fn content(directory: &Path) -> Result<Content, StoreError> {
    let names = file_names(directory)?;
    let all = |known: &dyn Fn(&str) -> bool| names.iter().all(|name| known(name));
    let is_harmless = |name: &str| HARMLESS_NAMES.contains(&name);
    let is_of_store = |name: &str| name == STORE_DIRECTORY || STORE_FILES.contains(&name);
    Ok(if names.iter().any(|name| name == UNFINISHED_MARK) {
        Content::Unfinished
    } else if all(&is_harmless) {
        Content::Nothing
    } else if all(&|name| is_harmless(name) || is_of_store(name)) {
        Content::Store
    } else {
        Content::SomethingElse
    })
}

/// Locks a directory that is empty, or contains an unfinished import or a store without commits.
///
/// # Errors
/// `NotEmpty` if the directory has other contents; `Store` if it is in use or cannot be read.
pub(in crate::store) fn lock_empty(directory: &Path) -> Result<File, RestoreError> {
    let not_empty = || RestoreError::NotEmpty { directory: directory.display().to_string() };
    // This check comes before the lock, so that no lock file is created in a directory with other contents.
    if content(directory)? == Content::SomethingElse {
        return Err(not_empty());
    }
    let lock = take_lock(directory)?;
    match content(directory)? {
        Content::Nothing | Content::Unfinished => Ok(lock),
        Content::Store if is_unused(directory, &lock)? => Ok(lock),
        Content::Store | Content::SomethingElse => Err(not_empty()),
    }
}

/// Returns true if the store in a directory has no commits. The caller holds the lock of the directory.
fn is_unused(directory: &Path, lock: &File) -> Result<bool, StoreError> {
    let logged = fs::metadata(directory.join("log")).map_or(0, |log| log.len());
    if logged > FILE_HEADER_BYTES {
        return Ok(false);
    }
    let lock = lock.try_clone().map_err(|error| StoreError::io("cannot duplicate the lock file handle", &error))?;
    let engine = Engine::open_locked(directory, lock, 0, None)?;
    let Some(value) = engine.get(&keys::META)? else { return Ok(false) };
    let meta = keys::verify_checksum(&keys::META, &value).ok().and_then(|(payload, _)| Meta::decode(payload));
    Ok(meta.is_some_and(|meta| meta.sequence == 0))
}

/// Removes a file. A missing file is not an error.
fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io(format!("cannot remove {}", path.display()), &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
