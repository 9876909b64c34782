//! The storage engine: opens and locks the store directory, and writes to sled and the log durably.
//! [`super::reader`] reads blocks.
//!
//! **Invariant**: after [`Engine::sync`] returns without an error, every earlier write survives a power cut. After a
//! failed write or sync, the engine refuses all further writes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::closing::Closing;
use super::error::StoreError;
use super::keys;
use super::log::Log;
use super::reader::BlockReader;
use crate::catch_panic::catch_panic;

/// sled's segment size. sled writes pages larger than a quarter of a segment to separate files that it never syncs. A
/// page has at most 20 values of 7,500 bytes. sled keeps a few segments, so small ones keep small stores small.
const SEGMENT_BYTES: usize = 1 << 20;
/// sled's configured cache size. Scans make sled exceed this size unless [`BlockReader`] makes extra reads.
const CACHE_BYTES: u64 = 16 << 20;

/// Name of the file that marks a store with an unfinished import.
pub(crate) const UNFINISHED_MARK: &str = "UNFINISHED-IMPORT";

/// How long to wait for sled to release its file lock after its last handle was dropped.
const RELEASE_WAIT_MAX: Duration = Duration::from_secs(5);
const RELEASE_WAIT_STEP: Duration = Duration::from_millis(1);
/// How long to wait for the lock of the store.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(300);
const LOCK_WAIT_STEP: Duration = Duration::from_millis(10);

/// A disk operation that a test can make fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskOperation {
    /// Write of bytes to the log, or of a batch to sled.
    Write,
    /// Flush of sled's buffers to the operating system.
    Flush,
    /// Sync of the operating system's buffers to the disk.
    Sync,
}

/// Fault injection for tests: a function called before each disk operation. Its error makes the operation fail.
pub type DiskFault = Arc<dyn Fn(DiskOperation) -> io::Result<()> + Send + Sync>;

/// An open store directory: the lock, and sled's database.
pub(crate) struct Engine {
    path: PathBuf,
    db: sled::Db,
    tree: sled::Tree,
    /// A separate handle of sled's file, for fdatasync, which sled itself never calls.
    file: File,
    fault: Option<DiskFault>,
    failed: AtomicBool,
    closing: Arc<Closing>,
    /// The lock file. The lock is held while the file is open.
    lock: File,
}

/// A newly opened sled database. `db` is declared first, so that it is dropped before `closing`.
struct OpenSled {
    db: sled::Db,
    closing: Closing,
}

impl Engine {
    /// Takes the lock and opens sled in the directory `path`, which is created if it does not exist.
    ///
    /// # Errors
    /// `InUse` if another process holds the lock; `UnfinishedImport` if the directory has the mark of an import;
    /// `Damaged` if sled cannot open its files; `Io` if an operation fails.
    pub(crate) fn open(path: &Path, reserve_bytes: u64, fault: Option<DiskFault>) -> Result<Self, StoreError> {
        create_directory(path)?;
        let lock = take_lock(path)?;
        if path.join(UNFINISHED_MARK).exists() {
            return Err(StoreError::UnfinishedImport { path: path.display().to_string() });
        }
        Self::open_locked(path, lock, reserve_bytes, fault)
    }

    /// Opens sled in a directory. The caller has locked the directory and passes the lock file.
    pub(crate) fn open_locked(
        path: &Path,
        lock: File,
        reserve_bytes: u64,
        fault: Option<DiskFault>,
    ) -> Result<Self, StoreError> {
        let reserve = path.join("reserve");
        let sled_dir = path.join("sled");
        let open_sled = || {
            create_sled(path, &sled_dir)?;
            open_sled(path, &sled_dir)
        };
        let mut reserve_bytes = reserve_bytes;
        let opened = match open_sled() {
            Err(StoreError::Io { disk_full: true, .. }) if reserve.exists() => {
                tracing::warn!("the disk is full: removing the reserve file of {} to open the store", path.display());
                fs::remove_file(&reserve).map_err(|error| StoreError::io("cannot remove the reserve file", &error))?;
                // Commits use the freed space. A later start creates the reserve file again.
                reserve_bytes = 0;
                open_sled()?
            }
            other => other?,
        };
        let file = File::options()
            .read(true)
            .write(true)
            .open(sled_dir.join("db"))
            .map_err(|error| StoreError::io(format!("cannot open {}/db", sled_dir.display()), &error))?;
        file.sync_data().map_err(|error| StoreError::io("cannot sync the store", &error))?;
        for directory in [&sled_dir, path] {
            sync_directory(directory)?;
        }
        create_reserve(&reserve, reserve_bytes);
        let (db, tree) = (opened.db.clone(), (*opened.db).clone());
        Ok(Self {
            path: path.to_owned(),
            db,
            tree,
            file,
            fault,
            failed: AtomicBool::new(false),
            closing: Arc::new(opened.closing),
            lock,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory as text, for messages.
    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        self.tree.get(key).map_err(|error| StoreError::engine("cannot read the store", &error))
    }

    /// Returns all keys with a prefix and their values, in key order. Nothing may write concurrently.
    pub(crate) fn scan(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), StoreError>> + use<> {
        self.tree
            .scan_prefix(prefix)
            .map(|pair| pair.map_err(|error| StoreError::engine("cannot scan the store", &error)))
    }

    /// Returns the keys of all columns of the blocks with ids from `block` on. Nothing may write concurrently.
    pub(crate) fn block_keys_from(&self, block: u64) -> Result<Vec<sled::IVec>, StoreError> {
        self.tree
            .range(keys::column(block, 0).to_vec()..vec![keys::BLOCK + 1])
            .keys()
            .collect::<Result<_, _>>()
            .map_err(|error| StoreError::engine("cannot scan the store", &error))
    }

    /// Writes a batch atomically.
    pub(crate) fn apply(&self, batch: sled::Batch) -> Result<(), StoreError> {
        self.run_write(DiskOperation::Write, "cannot write to the store", || {
            self.tree.apply_batch(batch).map_err(|error| StoreError::engine("cannot write to the store", &error))
        })
    }

    /// Makes sled reclaim old pages: about as many as a checkpoint with `block_bytes` bytes of blocks leaves behind.
    ///
    /// sled consolidates a page after about ten writes to the page. At each consolidation, sled also moves one other
    /// page out of a nearly empty segment. A checkpoint makes few large writes, so cleaning would fall behind and the
    /// file would grow. This function therefore makes many small writes to one key.
    pub(crate) fn clean(&self, block_bytes: u64) -> Result<(), StoreError> {
        const BLOCK_BYTES_PER_WRITE: u64 = 200;
        self.run_write(DiskOperation::Write, "cannot clean the store", || {
            for number in 0..block_bytes / BLOCK_BYTES_PER_WRITE {
                self.tree
                    .insert([keys::CLEANING], &number.to_le_bytes())
                    .map_err(|error| StoreError::engine("cannot clean the store", &error))?;
            }
            Ok(())
        })
    }

    /// Makes all earlier writes durable: they survive a power cut.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.run_write(DiskOperation::Flush, "cannot flush the store", || {
            self.db.flush().map(drop).map_err(|error| StoreError::engine("cannot flush the store", &error))
        })?;
        self.run_write(DiskOperation::Sync, "cannot sync the store", || {
            self.file.sync_data().map_err(|error| StoreError::io("cannot sync the store", &error))
        })
    }

    /// Appends a frame to the log and makes it durable.
    pub(crate) fn write_log(&self, log: &mut Log, frame: &[u8]) -> Result<(), StoreError> {
        let action = "cannot write a commit";
        self.run_write(DiskOperation::Write, action, || {
            log.append(frame).map_err(|error| StoreError::io(action, &error))
        })?;
        let action = "cannot sync a commit";
        self.run_write(DiskOperation::Sync, action, || log.sync().map_err(|error| StoreError::io(action, &error)))?;
        // If the log was deleted while open, the frame disappears when this process ends.
        let action = "cannot make a commit durable";
        let is_linked = log.is_linked().map_err(|error| StoreError::io(action, &error));
        self.note_failure(
            is_linked.and_then(|is_linked| if is_linked { Ok(()) } else { Err(self.replaced(action, "log")) }),
        )
    }

    /// Checks that the names of the log, of sled's file and of the lock file still refer to the open files.
    ///
    /// # Errors
    /// Returns `Io` if a file was removed or replaced. The engine then refuses all further writes.
    pub(crate) fn check_files(&self, log: &Log) -> Result<(), StoreError> {
        let action = "cannot make commits durable";
        let check = |(name, open): (&str, &File)| match is_same_file(&self.path.join(name), open) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.replaced(action, name)),
            Err(error) => Err(StoreError::io(action, &error)),
        };
        let files = [("log", log.file()), ("sled/db", &self.file), ("LOCK", &self.lock)];
        self.note_failure(files.into_iter().try_for_each(check))
    }

    /// Returns `result`. If it is an error, all further writes are refused.
    fn note_failure(&self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        result
    }

    fn replaced(&self, action: &str, name: &str) -> StoreError {
        StoreError::Io {
            action: action.to_owned(),
            problem: format!("{} was removed or replaced while the store was open", self.path.join(name).display()),
            disk_full: false,
        }
    }

    /// Returns true if the disk has at least `bytes` free bytes, or if the free space is unknown.
    pub(crate) fn has_room_for(&self, bytes: u64) -> bool {
        rustix::fs::fstatvfs(&self.file).map_or(true, |disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= bytes)
    }

    /// Removes all frames from the log. A durable checkpoint must contain their commits.
    pub(crate) fn clear_log(&self, log: &mut Log) -> Result<(), StoreError> {
        let action = "cannot clear the log";
        self.run_write(DiskOperation::Write, action, || log.clear().map_err(|error| StoreError::io(action, &error)))
    }

    /// Runs a write or sync, unless an earlier write or sync failed. After a failed sync the state of the disk is
    /// unknown: a later sync could succeed although earlier bytes are lost.
    fn run_write(
        &self,
        operation: DiskOperation,
        action: &str,
        write: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError::Io {
                action: action.to_owned(),
                problem: "an earlier write or sync failed".to_owned(),
                disk_full: false,
            });
        }
        let fault = self.fault.as_ref().map_or(Ok(()), |fault| fault(operation));
        let result = fault.map_err(|error| StoreError::io(action, &error)).and_then(|()| {
            catch_panic(write)
                .unwrap_or_else(|problem| Err(StoreError::Io { action: action.to_owned(), problem, disk_full: false }))
        });
        self.note_failure(result)
    }

    /// Returns a reader of the blocks of this store, with a cache of `cache_bytes`.
    pub(crate) fn reader(&self, cache_bytes: u64) -> BlockReader {
        BlockReader::new(self.tree.clone(), Arc::clone(&self.closing), cache_bytes)
    }
}

/// Returns true if `path` refers to the open file.
fn is_same_file(path: &Path, open: &File) -> io::Result<bool> {
    let named = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let open = open.metadata()?;
    Ok((named.dev(), named.ino()) == (open.dev(), open.ino()))
}

/// Locks a file, and waits up to [`LOCK_WAIT_MAX`] for the lock. While this process starts a child process, the child
/// holds copies of all open files, so a lock may persist briefly after its file was closed.
fn try_lock(file: &File) -> Result<(), fs::TryLockError> {
    let begin = Instant::now();
    loop {
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) if begin.elapsed() < LOCK_WAIT_MAX => sleep(LOCK_WAIT_STEP),
            locked => return locked,
        }
    }
}

/// Takes the exclusive lock of a store directory. The lock is held while the returned file is open.
///
/// # Errors
/// `InUse` if another process holds the lock; `Io` if the lock file cannot be created or locked.
pub(crate) fn take_lock(path: &Path) -> Result<File, StoreError> {
    let file_path = path.join("LOCK");
    let failed = |error: &io::Error| StoreError::io(format!("cannot lock {}", file_path.display()), error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file_path)
        .map_err(|error| failed(&error))?;
    match try_lock(&file) {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The holder may not have written its name yet. The message then does not name it.
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            let holder = if holder.is_empty() { "another process" } else { holder };
            return Err(StoreError::InUse { path: path.display().to_string(), holder: holder.to_owned() });
        }
        Err(fs::TryLockError::Error(error)) => return Err(failed(&error)),
    }
    let program = std::env::args_os().next().unwrap_or_default();
    let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = format!("{program}, process {}\n", std::process::id());
    // Continue on a full disk: opening the store may free space.
    if let Err(error) = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(name.as_bytes())) {
        tracing::warn!("cannot write the name of this process to {}: {error}", file_path.display());
    }
    Ok(file)
}

/// Creates a directory and its missing parents durably.
pub(crate) fn create_directory(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_directory(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => {
            other.map_err(|error| StoreError::io(format!("cannot create the directory {}", path.display()), &error))
        }
    }?;
    sync_directory(parent)
}

/// Creates an empty sled database under a temporary name and renames it when it is durable. sled never syncs its
/// configuration file, and cannot open a database with a torn configuration file.
fn create_sled(path: &Path, sled_dir: &Path) -> Result<(), StoreError> {
    if sled_dir.exists() {
        return Ok(());
    }
    let failed = |error: &io::Error| StoreError::io(format!("cannot create {}", sled_dir.display()), error);
    let new_path = path.join("sled.new");
    if new_path.exists() {
        fs::remove_dir_all(&new_path).map_err(|error| failed(&error))?;
    }
    drop(open_sled(path, &new_path)?);
    wait_for_release(&new_path)?;
    for name in file_names(&new_path)? {
        File::open(new_path.join(name)).and_then(|file| file.sync_all()).map_err(|error| failed(&error))?;
    }
    sync_directory(&new_path)?;
    fs::rename(&new_path, sled_dir).map_err(|error| failed(&error))?;
    sync_directory(path)
}

fn open_sled(path: &Path, sled_dir: &Path) -> Result<OpenSled, StoreError> {
    wait_for_release(sled_dir)?;
    remove_torn_snapshots(sled_dir)?;
    check_no_blobs(path, sled_dir)?;
    sync_db(sled_dir)?;
    let config =
        sled::Config::new().path(sled_dir).segment_size(SEGMENT_BYTES).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    // sled can panic while it opens truncated files.
    match catch_panic(|| config.open()) {
        Ok(Ok(db)) => Ok(OpenSled { db: db.clone(), closing: Closing::new(db) }),
        Ok(Err(error @ sled::Error::Io(_))) => {
            Err(StoreError::engine(format!("cannot open the store {}", path.display()), &error))
        }
        Ok(Err(error)) => Err(StoreError::Damaged { path: path.display().to_string(), problem: error.to_string() }),
        Err(panic) => Err(StoreError::Damaged {
            path: path.display().to_string(),
            problem: format!("sled panicked while it opened its files: {panic}"),
        }),
    }
}

/// Waits until sled has released its file. After the last handle is dropped, sled's threads still write to the file and
/// hold its lock for some time. No other process can use the file, because this process holds the lock of the store.
fn wait_for_release(sled_dir: &Path) -> Result<(), StoreError> {
    let name = sled_dir.join("db");
    let failed = |error: &io::Error| StoreError::io(format!("cannot lock {}", name.display()), error);
    let file = match File::open(&name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|error| failed(&error))?,
    };
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::WouldBlock) if waited < RELEASE_WAIT_MAX => {
                sleep(RELEASE_WAIT_STEP);
                waited += RELEASE_WAIT_STEP;
            }
            Err(fs::TryLockError::WouldBlock) => return Err(failed(&io::ErrorKind::WouldBlock.into())),
            Err(fs::TryLockError::Error(error)) => return Err(failed(&error)),
        }
    }
}

/// Removes half-written snapshots, which remain if a process is killed while sled starts. With such a snapshot, sled
/// reports corruption at every open. No other file refers to these snapshots.
fn remove_torn_snapshots(sled_dir: &Path) -> Result<(), StoreError> {
    for name in file_names(sled_dir)? {
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(sled_dir.join(&name))
                .map_err(|error| StoreError::io(format!("cannot remove the torn snapshot {name}"), &error))?;
        }
    }
    Ok(())
}

/// Syncs sled's file before sled opens it. A killed process may have left unsynced writes in the file. When sled opens
/// the file, it writes and syncs a snapshot of the file, but does not sync the file itself.
fn sync_db(sled_dir: &Path) -> Result<(), StoreError> {
    let synced = File::options().write(true).open(sled_dir.join("db")).and_then(|file| file.sync_data());
    match synced {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|error| StoreError::io("cannot sync the store before opening it", &error)),
    }
}

/// Refuses a store with blob files, which sled never syncs. Such a store was written with other settings.
fn check_no_blobs(path: &Path, sled_dir: &Path) -> Result<(), StoreError> {
    if file_names(&sled_dir.join("blobs"))?.is_empty() {
        return Ok(());
    }
    Err(StoreError::Damaged {
        path: path.display().to_string(),
        problem: "sled/blobs is not empty, and files in it do not survive a power cut".to_owned(),
    })
}

/// Returns the names of the entries of a directory, or no names if the directory does not exist.
pub(crate) fn file_names(directory: &Path) -> Result<Vec<String>, StoreError> {
    let failed = |error: &io::Error| StoreError::io(format!("cannot list {}", directory.display()), error);
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| failed(&error))?,
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<_>>()
        .map_err(|error| failed(&error))
}

/// Makes created, renamed and removed names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory)
        .and_then(|open| open.sync_all())
        .map_err(|error| StoreError::io(format!("cannot sync the directory {}", directory.display()), &error))
}

/// Creates the reserve file with allocated disk blocks. It is removed when a full disk prevents the store from opening.
/// A failure is only logged, because the store works without the reserve.
fn create_reserve(path: &Path, bytes: u64) {
    let present = fs::metadata(path).map_or(0, |meta| meta.len());
    if bytes == 0 || present >= bytes {
        return;
    }
    let made = OpenOptions::new().write(true).create(true).truncate(false).open(path).and_then(|file| {
        // If the reserve took the last free space, it would cause a full disk.
        let disk = rustix::fs::fstatvfs(&file)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < bytes.saturating_mul(2) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "less than twice that size is free"));
        }
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).map_err(io::Error::from)
    });
    if let Err(error) = made {
        tracing::warn!("cannot create the reserve file {} of {bytes} bytes: {error}", path.display());
        // A partial reserve may use the last free space. The store also works if the removal fails.
        let _ = fs::remove_file(path);
    }
}
