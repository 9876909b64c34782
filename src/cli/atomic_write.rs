//! Files and directories that are being written beside the place where they will stand.
//!
//! **Invariant**: what is not finished bears another name than its own, and is removed when the command fails or is
//! interrupted. Only a kill or a power cut leaves one behind. Where something stood before, a whole thing stands at
//! every moment; between two directories that takes a file system that can exchange names, as Linux's own can.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How often a directory is removed that whoever writes into it goes on filling.
const REMOVALS_MAX: usize = 100;

/// Those of this process.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    // The list is whole even if somebody panicked over it.
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all that is unfinished, as an interrupt does before the process ends.
pub(super) fn remove_all() {
    // Kept locked, so that nothing is begun after this.
    let paths = unfinished();
    paths.iter().for_each(|path| remove(path));
    std::mem::forget(paths);
}

fn remove(path: &Path) {
    for _ in 0..REMOVALS_MAX {
        // Nobody is left to be told; it may be gone, or be the other of the two.
        let _ = fs::remove_file(path);
        let _ = fs::remove_dir_all(path);
        if fs::symlink_metadata(path).is_err() {
            return;
        }
    }
}

/// Something unfinished; removed when dropped.
#[derive(Debug)]
pub(super) struct AtomicWrite {
    path: PathBuf,
}

impl AtomicWrite {
    /// An empty file that will be `target`.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn file(target: &Path) -> io::Result<(Self, File)> {
        let (this, mut paths) = Self::beside(target)?;
        let file = File::options().write(true).create_new(true).open(&this.path)?;
        paths.push(this.path.clone());
        Ok((this, file))
    }

    /// An empty directory that will be `target`.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn directory(target: &Path) -> io::Result<Self> {
        let (this, mut paths) = Self::beside(target)?;
        fs::create_dir(&this.path)?;
        paths.push(this.path.clone());
        Ok(this)
    }

    fn beside(target: &Path) -> io::Result<(Self, MutexGuard<'static, Vec<PathBuf>>)> {
        let path = hidden(target, "partial").ok_or(io::ErrorKind::InvalidFilename)?;
        Ok((Self { path }, unfinished()))
    }

    /// Where it is for now.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name, in place of what may be there. What it consists of must be durable by now; then its name is
    /// too.
    ///
    /// # Errors
    /// The system's; what was there before is still there then.
    pub(super) fn finish(self, target: &Path) -> io::Result<()> {
        // An interrupt waits, so that it finds the one or the other.
        let _held = unfinished();
        if target.is_dir() {
            return self.replace_directory(target);
        }
        fs::rename(&self.path, target)?;
        sync_names(target)
    }

    /// A directory with something in it cannot be renamed over. The two change names at one stroke, so that one of them
    /// stands under `target` at every moment; only then, and durably so, is the old one removed.
    fn replace_directory(&self, target: &Path) -> io::Result<()> {
        if exchange(&self.path, target).is_ok() {
            // What bears the unfinished name now is removed when this is dropped.
            return sync_names(target);
        }
        let replaced = hidden(target, "replaced").ok_or(io::ErrorKind::InvalidFilename)?;
        fs::rename(target, &replaced)?;
        if let Err(problem) = fs::rename(&self.path, target) {
            fs::rename(&replaced, target)?;
            return Err(problem);
        }
        sync_names(target)?;
        fs::remove_dir_all(&replaced)
    }
}

impl Drop for AtomicWrite {
    fn drop(&mut self) {
        let mut paths = unfinished();
        if let Some(at) = paths.iter().position(|path| *path == self.path) {
            paths.swap_remove(at);
            // After a success it has another name, and there is nothing to remove.
            remove(&self.path);
        }
    }
}

/// Makes the names beside `target` durable, and its own.
fn sync_names(target: &Path) -> io::Result<()> {
    File::open(parent(target))?.sync_all()
}

/// Gives each of two things the other's name. Not every file system can; then nothing has happened.
#[cfg(target_os = "linux")]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The directory that a path stands in.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// `.NAME.PID.KIND` beside `target`, if that has a name.
fn hidden(target: &Path, kind: &str) -> Option<PathBuf> {
    let mut name = OsString::from(".");
    name.push(target.file_name()?);
    name.push(format!(".{}.{kind}", std::process::id()));
    Some(target.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_is_finished_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("runs.csv");
        drop(AtomicWrite::file(&target).unwrap());
        assert_eq!(names(directory.path()), [""; 0]);
        AtomicWrite::file(&target).unwrap().0.finish(&target).unwrap();
        assert_eq!(names(directory.path()), ["runs.csv"]);
        assert!(AtomicWrite::file(&directory.path().join("..")).is_err());
    }

    #[test]
    fn a_directory_takes_the_place_of_another() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("store");
        for name in ["old", "new"] {
            let unfinished = AtomicWrite::directory(&target).unwrap();
            fs::write(unfinished.path().join(name), "x").unwrap();
            unfinished.finish(&target).unwrap();
            assert_eq!(names(&target), [name]);
        }
        assert_eq!(names(directory.path()), ["store"]);
    }

    /// Whoever opens the directory while it is replaced, or after a kill, finds the old one or the new one.
    #[cfg(target_os = "linux")]
    #[test]
    fn something_stands_under_the_name_at_every_moment() {
        use std::sync::atomic::{AtomicBool, Ordering};

        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("store");
        AtomicWrite::directory(&target).unwrap().finish(&target).unwrap();
        let is_over = AtomicBool::new(false);
        let missing = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut missing = 0;
                while !is_over.load(Ordering::Relaxed) {
                    missing += u32::from(!target.exists());
                }
                missing
            });
            for _ in 0..500 {
                AtomicWrite::directory(&target).unwrap().finish(&target).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
            watcher.join().unwrap()
        });
        assert_eq!(missing, 0);
        assert_eq!(names(directory.path()), ["store"]);
    }
}
