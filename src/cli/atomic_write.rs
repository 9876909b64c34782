//! Atomic writes of files and directories: write under a temporary name beside the target, then rename.
//!
//! **Invariant**: an unfinished file or directory has a temporary name, and is removed if the command fails or is
//! interrupted; only SIGKILL or a power cut leaves it behind. A target that exists is replaced atomically. For
//! directories this requires a file system that can exchange two names, as the native file systems of Linux can.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The maximum number of attempts to remove a directory while another thread still writes into it.
const REMOVE_ATTEMPTS_MAX: usize = 100;

/// The paths of all unfinished files and directories of this process.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    // The list is consistent even if a thread panicked while it held the lock.
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes all unfinished files and directories. The signal handler calls this before the process ends.
pub(super) fn remove_unfinished() {
    // The lock is never released, so that no new write can start.
    let paths = unfinished();
    paths.iter().for_each(|path| remove(path));
    std::mem::forget(paths);
}

fn remove(path: &Path) {
    for _ in 0..REMOVE_ATTEMPTS_MAX {
        // Errors are ignored: the path may no longer exist, and one of the two calls always fails, because the first
        // call removes only files and the second call removes only directories.
        let _ = fs::remove_file(path);
        let _ = fs::remove_dir_all(path);
        if fs::symlink_metadata(path).is_err() {
            return;
        }
    }
}

/// An unfinished file or directory. Dropping it removes the file or directory.
#[derive(Debug)]
pub(super) struct AtomicWrite {
    path: PathBuf,
}

impl AtomicWrite {
    /// Creates an empty file that [`AtomicWrite::finish`] renames to `target`.
    ///
    /// # Errors
    /// Returns the I/O error of the creation.
    pub(super) fn file(target: &Path) -> io::Result<(Self, File)> {
        Self::file_with_mode(target, 0o666)
    }

    /// Creates an empty file with permissions that [`AtomicWrite::finish`] renames to `target`. The umask of the process
    /// removes permissions.
    ///
    /// # Errors
    /// Returns the I/O error of the creation.
    pub(super) fn file_with_mode(target: &Path, mode: u32) -> io::Result<(Self, File)> {
        let (this, mut paths) = Self::prepare(target)?;
        let file = File::options().write(true).create_new(true).mode(mode).open(&this.path)?;
        paths.push(this.path.clone());
        Ok((this, file))
    }

    /// Creates an empty directory that [`AtomicWrite::finish`] renames to `target`.
    ///
    /// # Errors
    /// Returns the I/O error of the creation.
    pub(super) fn directory(target: &Path) -> io::Result<Self> {
        let (this, mut paths) = Self::prepare(target)?;
        fs::create_dir(&this.path)?;
        paths.push(this.path.clone());
        Ok(this)
    }

    /// Chooses the temporary path beside `target`, and locks the list of unfinished paths, so that the caller can add
    /// the path.
    fn prepare(target: &Path) -> io::Result<(Self, MutexGuard<'static, Vec<PathBuf>>)> {
        let path = temporary_path(target, "partial").ok_or(io::ErrorKind::InvalidFilename)?;
        Ok((Self { path }, unfinished()))
    }

    /// Returns the temporary path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Renames the file or directory to `target` and makes the new name durable. An existing target is replaced. The
    /// content must be durable already.
    ///
    /// # Errors
    /// Returns the I/O error of the rename; an existing target is then unchanged. Returns the I/O error of a later
    /// step, such as a sync; the target is then already replaced.
    pub(super) fn finish(self, target: &Path) -> io::Result<()> {
        // The lock makes the signal handler wait until the rename is complete.
        let _lock = unfinished();
        if target.is_dir() {
            return self.replace_directory(target);
        }
        fs::rename(&self.path, target)?;
        sync_names(target)
    }

    /// Replaces an existing directory. A rename cannot replace a directory that is not empty, so the two directories
    /// exchange their names atomically. The old directory is removed after the exchange is durable.
    fn replace_directory(&self, target: &Path) -> io::Result<()> {
        if exchange(&self.path, target).is_ok() {
            // The old directory now has the temporary name, and is removed when `self` is dropped.
            return sync_names(target);
        }
        // Without an exchange, the old directory is moved away first, and `target` does not exist between the renames.
        let replaced = temporary_path(target, "replaced").ok_or(io::ErrorKind::InvalidFilename)?;
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
            // After a successful rename the temporary path does not exist, and nothing is removed.
            remove(&self.path);
        }
    }
}

/// Syncs the parent directory of `target`, which makes its entries durable.
fn sync_names(target: &Path) -> io::Result<()> {
    File::open(parent(target))?.sync_all()
}

/// Exchanges the names of two paths atomically. Fails without effect if the file system does not support it.
#[cfg(target_os = "linux")]
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

#[cfg(not(target_os = "linux"))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns the parent directory of a path; `.` for a plain file name.
pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the path `.NAME.PID.KIND` beside `target`; `None` if `target` has no file name.
fn temporary_path(target: &Path, kind: &str) -> Option<PathBuf> {
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
    fn unfinished_file_is_removed_on_drop() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("runs.csv");
        drop(AtomicWrite::file(&target).unwrap());
        assert_eq!(names(directory.path()), [""; 0]);
        AtomicWrite::file(&target).unwrap().0.finish(&target).unwrap();
        assert_eq!(names(directory.path()), ["runs.csv"]);
        assert!(AtomicWrite::file(&directory.path().join("..")).is_err());
    }

    #[test]
    fn finish_replaces_existing_directory() {
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

    /// A process that opens the target during the replacement, or after SIGKILL, finds the old or the new directory.
    #[cfg(target_os = "linux")]
    #[test]
    fn target_exists_at_every_instant_of_replacement() {
        use std::sync::atomic::{AtomicBool, Ordering};

        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("store");
        AtomicWrite::directory(&target).unwrap().finish(&target).unwrap();
        let done = AtomicBool::new(false);
        let missing = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut missing = 0;
                while !done.load(Ordering::Relaxed) {
                    missing += u32::from(!target.exists());
                }
                missing
            });
            for _ in 0..500 {
                AtomicWrite::directory(&target).unwrap().finish(&target).unwrap();
            }
            done.store(true, Ordering::Relaxed);
            watcher.join().unwrap()
        });
        assert_eq!(missing, 0);
        assert_eq!(names(directory.path()), ["store"]);
    }
}
