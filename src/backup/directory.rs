//! Backups in a directory.
//!
//! **Invariant**: a file gets its name after its bytes are durable, and [`Directory::put`] returns after the name is
//! durable, too.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use tokio::task::spawn_blocking;

use super::names::Listed;
use crate::store::{create_directory, sync_directory};

/// The end of the name of a file that is being written. Such files are not objects.
pub(super) const UNFINISHED: &str = ".unfinished";

/// A directory with backups.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    pub(super) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), String> {
        let path = self.path.join(name);
        run(move || {
            let parent = path.parent().unwrap_or(Path::new("."));
            create_directory(parent).map_err(io::Error::other)?;
            // The name is unique, because another process may write the same object.
            let unfinished = path.with_extension(format!("{:016x}{UNFINISHED}", fastrand::u64(..)));
            let written = File::create_new(&unfinished)
                .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
                .and_then(|()| fs::rename(&unfinished, &path));
            if written.is_err() {
                // The error of the write is reported. A file that remains is removed later.
                let _ = fs::remove_file(&unfinished);
            }
            written?;
            sync_directory(parent).map_err(io::Error::other)
        })
        .await
    }

    pub(super) async fn get(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let path = self.path.join(name);
        run(move || match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        })
        .await
    }

    pub(super) async fn list(&self, folder: &str) -> Result<Vec<Listed>, String> {
        let (path, folder) = (self.path.join(folder), folder.to_owned());
        run(move || {
            let mut found = Vec::new();
            list(&path, &folder, &mut found)?;
            Ok(found)
        })
        .await
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), String> {
        let path = self.path.join(name);
        run(move || match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        })
        .await
    }
}

async fn run<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, String> {
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Adds the files in a directory and below it. A file that is removed meanwhile is left out.
fn list(path: &Path, name: &str, found: &mut Vec<Listed>) -> io::Result<()> {
    let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let entries = match fs::read_dir(path) {
        Err(error) if missing(&error) => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        let metadata = match entry.metadata() {
            Err(error) if missing(&error) => continue,
            other => other?,
        };
        if metadata.is_dir() {
            list(&entry.path(), &name, found)?;
        } else {
            let modified = DateTime::<Utc>::from(metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)).into();
            found.push(Listed { name, bytes: metadata.len(), modified });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn objects_are_written_listed_read_and_deleted() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::new(&root.path().join("not/yet"));
        assert_eq!(directory.list("packs").await.unwrap(), []);
        assert_eq!(directory.get("packs/a/1").await.unwrap(), None);
        directory.put("packs/a/1", b"one".to_vec()).await.unwrap();
        directory.put("packs/b/2", b"first".to_vec()).await.unwrap();
        directory.put("packs/b/2", b"two!".to_vec()).await.unwrap();
        let mut listed = directory.list("packs").await.unwrap();
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        let names: Vec<_> = listed.iter().map(|object| (object.name.as_str(), object.bytes)).collect();
        assert_eq!(names, [("packs/a/1", 3), ("packs/b/2", 4)]);
        assert_eq!(directory.get("packs/b/2").await.unwrap().unwrap(), b"two!");
        directory.delete("packs/b/2").await.unwrap();
        directory.delete("packs/b/2").await.unwrap();
        assert_eq!(directory.list("packs").await.unwrap().len(), 1);
    }
}
