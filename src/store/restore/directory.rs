//! The directory that a store is built in.
//!
//! **Invariant**: nothing is removed but what an import or a store without a commit left, and only
//! while the lock is held.

use std::fs::{self, File};
use std::path::Path;

use super::error::RestoreError;
use crate::store::engine::{Engine, UNFINISHED_MARK, file_names, sync_directory, take_lock};
use crate::store::error::StoreError;
use crate::store::keys;
use crate::store::log::FILE_HEADER_BYTES;
use crate::store::records::Meta;

/// The text of the mark is for who finds it.
const UNFINISHED_TEXT: &str = "An import into this directory has not finished. Run 'silkrate import' again.\n";

/// What an unfinished import may have left behind.
const STORE_FILES: [&str; 3] = ["log", "witness", "reserve"];
const STORE_DIRECTORY: &str = "sled";
/// What a directory without a store may hold.
const HARMLESS_NAMES: [&str; 2] = ["LOCK", "lost+found"];

/// Makes a directory ours and empty but for the mark, which is durable first.
pub(super) fn take_over(directory: &Path) -> Result<File, RestoreError> {
    fs::create_dir_all(directory)
        .map_err(|error| StoreError::io(format!("cannot make the directory {}", directory.display()), &error))?;
    let lock = lock_empty(directory)?;
    mark(directory)?;
    for name in STORE_FILES {
        remove(&directory.join(name))?;
    }
    let inside = directory.join(STORE_DIRECTORY);
    if inside.exists() {
        fs::remove_dir_all(&inside)
            .map_err(|error| StoreError::io(format!("cannot remove {}", inside.display()), &error))?;
    }
    sync_directory(directory)?;
    Ok(lock)
}

/// Says, durably, that what is in a directory is no store.
fn mark(directory: &Path) -> Result<(), StoreError> {
    let mark = directory.join(UNFINISHED_MARK);
    fs::write(&mark, UNFINISHED_TEXT)
        .and_then(|()| File::open(&mark)?.sync_all())
        .map_err(|error| StoreError::io(format!("cannot write {}", mark.display()), &error))?;
    sync_directory(directory)
}

/// Makes what is in a directory a store, durably. If that fails it is none again, so that the import can be run again.
pub(super) fn unmark(directory: &Path) -> Result<(), StoreError> {
    remove(&directory.join(UNFINISHED_MARK))?;
    sync_directory(directory).inspect_err(|_| {
        // On a disk that takes nothing any more the store is live: all of it but the mark's removal is durable.
        let _ = mark(directory);
    })
}

/// What a directory holds, as far as it matters here.
#[derive(PartialEq, Eq)]
enum Content {
    Nothing,
    UnfinishedImport,
    Store,
    SomethingElse,
}

fn content(directory: &Path) -> Result<Content, StoreError> {
    let names = file_names(directory)?;
    let all = |known: &dyn Fn(&str) -> bool| names.iter().all(|name| known(name));
    let is_harmless = |name: &str| HARMLESS_NAMES.contains(&name);
    let is_of_store = |name: &str| name == STORE_DIRECTORY || STORE_FILES.contains(&name);
    Ok(if names.iter().any(|name| name == UNFINISHED_MARK) {
        Content::UnfinishedImport
    } else if all(&is_harmless) {
        Content::Nothing
    } else if all(&|name| is_harmless(name) || is_of_store(name)) {
        Content::Store
    } else {
        Content::SomethingElse
    })
}

/// Locks a directory in which nothing is that anybody could miss.
pub(super) fn lock_empty(directory: &Path) -> Result<File, RestoreError> {
    let not_empty = || RestoreError::NotEmpty { directory: directory.display().to_string() };
    // Before the lock, so that no lock file is left in a directory of something else.
    if content(directory)? == Content::SomethingElse {
        return Err(not_empty());
    }
    let lock = take_lock(directory)?;
    match content(directory)? {
        Content::Nothing | Content::UnfinishedImport => Ok(lock),
        Content::Store if is_unused(directory, &lock)? => Ok(lock),
        Content::Store | Content::SomethingElse => Err(not_empty()),
    }
}

/// Whether the store in a directory, whose lock is held, has no commit.
fn is_unused(directory: &Path, lock: &File) -> Result<bool, StoreError> {
    let logged = fs::metadata(directory.join("log")).map_or(0, |log| log.len());
    if logged > FILE_HEADER_BYTES {
        return Ok(false);
    }
    let lock = lock.try_clone().map_err(|error| StoreError::io("cannot keep the lock", &error))?;
    let engine = Engine::open_locked(directory, lock, 0, None)?;
    let Some(value) = engine.get(&keys::META)? else { return Ok(false) };
    let meta = keys::unseal(&keys::META, &value).ok().and_then(|(payload, _)| Meta::decode(payload));
    Ok(meta.is_some_and(|meta| meta.sequence == 0))
}

/// Removes a file that may not be there.
fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io(format!("cannot remove {}", path.display()), &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
