//! Where sled and the files around it are opened, locked and written to, durably. Blocks are read by
//! [`super::reader`].
//!
//! **Invariant**: when [`Engine::sync`] has returned, every write before it survives a power cut;
//! after any failed write or sync nothing more is written.

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

/// With the default of 128 KiB, pages over a quarter of it go to files that sled never syncs.
const SEGMENT_BYTES: usize = 4 << 20;
/// sled's own notion of its cache; what really keeps it small is in [`BlockReader`].
const CACHE_BYTES: u64 = 16 << 20;

/// The file that marks a store whose import did not come to its end.
pub(crate) const UNFINISHED_MARK: &str = "UNFINISHED-IMPORT";

/// How long sled may take to let go of its file after it was dropped.
const RELEASE_WAIT_MAX: Duration = Duration::from_secs(5);
const RELEASE_WAIT_STEP: Duration = Duration::from_millis(1);
/// How long a locked store is waited for.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(300);
const LOCK_WAIT_STEP: Duration = Duration::from_millis(10);

/// A write or sync about to be made, for tests that let it fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskOperation {
    /// Bytes go to the log, or a batch to sled.
    Write,
    /// sled hands its buffers to the operating system.
    Flush,
    /// The operating system hands its own to the disk.
    Sync,
}

/// Lets chosen operations fail.
pub type DiskFault = Arc<dyn Fn(DiskOperation) -> io::Result<()> + Send + Sync>;

/// An open store directory: ours by lock, sled inside it.
pub(crate) struct Engine {
    path: PathBuf,
    db: sled::Db,
    tree: sled::Tree,
    /// sled's file through a descriptor of our own: sled itself never calls fdatasync.
    file: File,
    fault: Option<DiskFault>,
    failed: AtomicBool,
    closing: Arc<Closing>,
    /// Held as long as the store is open.
    lock: File,
}

/// A sled just opened. The order of the fields is that in which they are dropped.
struct OpenSled {
    db: sled::Db,
    closing: Closing,
}

impl Engine {
    /// Takes the lock and opens sled in `path`, which is made if it is not there.
    pub(crate) fn open(path: &Path, reserve_bytes: u64, fault: Option<DiskFault>) -> Result<Self, StoreError> {
        make_directory(path)?;
        let lock = take_lock(path)?;
        if path.join(UNFINISHED_MARK).exists() {
            return Err(StoreError::UnfinishedImport { path: path.display().to_string() });
        }
        Self::open_locked(path, lock, reserve_bytes, fault)
    }

    /// Opens sled in a directory whose lock is held.
    pub(crate) fn open_locked(
        path: &Path,
        lock: File,
        reserve_bytes: u64,
        fault: Option<DiskFault>,
    ) -> Result<Self, StoreError> {
        let reserve = path.join("reserve");
        let inside = path.join("sled");
        let open_sled = || {
            make_sled(path, &inside)?;
            open_sled(path, &inside)
        };
        let mut reserve_bytes = reserve_bytes;
        let opened = match open_sled() {
            Err(StoreError::Io { disk_full: true, .. }) if reserve.exists() => {
                tracing::warn!("the disk is full: freeing the reserve of {} to open the store", path.display());
                fs::remove_file(&reserve).map_err(|error| StoreError::io("cannot free the reserve", &error))?;
                // What was freed is for commits now; a later start takes it again.
                reserve_bytes = 0;
                open_sled()?
            }
            other => other?,
        };
        let file = File::options()
            .read(true)
            .write(true)
            .open(inside.join("db"))
            .map_err(|error| StoreError::io(format!("cannot open {}/db", inside.display()), &error))?;
        file.sync_data().map_err(|error| StoreError::io("cannot sync the store", &error))?;
        for directory in [&inside, path] {
            sync_directory(directory)?;
        }
        keep_reserve(&reserve, reserve_bytes);
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

    /// For messages.
    pub(crate) fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, StoreError> {
        self.tree.get(key).map_err(|error| StoreError::engine("cannot read the store", &error))
    }

    /// All keys with a prefix and their values, in order. Only while nothing else writes.
    pub(crate) fn scan(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec), StoreError>> + use<> {
        self.tree
            .scan_prefix(prefix)
            .map(|pair| pair.map_err(|error| StoreError::engine("cannot scan the store", &error)))
    }

    /// The keys of all columns of blocks from an id on. Only while nothing else writes.
    pub(crate) fn block_keys_from(&self, block: u64) -> Result<Vec<sled::IVec>, StoreError> {
        self.tree
            .range(keys::column(block, 0).to_vec()..vec![keys::BLOCK + 1])
            .keys()
            .collect::<Result<_, _>>()
            .map_err(|error| StoreError::engine("cannot scan the store", &error))
    }

    /// Writes all keys of a batch or none.
    pub(crate) fn apply(&self, batch: sled::Batch) -> Result<(), StoreError> {
        self.guarded(DiskOperation::Write, "cannot write to the store", || {
            self.tree.apply_batch(batch).map_err(|error| StoreError::engine("cannot write to the store", &error))
        })
    }

    /// Lets sled clean as many old pages as writing so many bytes of blocks leaves behind.
    ///
    /// sled moves one page out of a nearly dead segment whenever it consolidates another page, which
    /// it does after some ten writes to that. A checkpoint makes few large writes, so cleaning would
    /// fall behind for ever and its file grow; small writes to one key at the end make up for it.
    pub(crate) fn clean(&self, block_bytes: u64) -> Result<(), StoreError> {
        const BLOCK_BYTES_A_WRITE: u64 = 200;
        self.guarded(DiskOperation::Write, "cannot clean the store", || {
            for number in 0..block_bytes / BLOCK_BYTES_A_WRITE {
                self.tree
                    .insert([keys::CLEANING], &number.to_le_bytes())
                    .map_err(|error| StoreError::engine("cannot clean the store", &error))?;
            }
            Ok(())
        })
    }

    /// Makes every write so far survive a power cut.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.guarded(DiskOperation::Flush, "cannot flush the store", || {
            self.db.flush().map(drop).map_err(|error| StoreError::engine("cannot flush the store", &error))
        })?;
        self.guarded(DiskOperation::Sync, "cannot sync the store", || {
            self.file.sync_data().map_err(|error| StoreError::io("cannot sync the store", &error))
        })
    }

    /// Appends a frame to the log and makes it survive a power cut.
    pub(crate) fn write_log(&self, log: &mut Log, frame: &[u8]) -> Result<(), StoreError> {
        let action = "cannot write a commit";
        self.guarded(DiskOperation::Write, action, || {
            log.append(frame).map_err(|error| StoreError::io(action, &error))
        })?;
        let action = "cannot sync a commit";
        self.guarded(DiskOperation::Sync, action, || log.sync().map_err(|error| StoreError::io(action, &error)))?;
        // What went to a file without a name is gone with this process.
        let action = "cannot keep a commit";
        let is_linked = log.is_linked().map_err(|error| StoreError::io(action, &error));
        self.noted(is_linked.and_then(|is_linked| if is_linked { Ok(()) } else { Err(self.replaced(action, "log")) }))
    }

    /// Whether the files under their names are those that are written to: they may have been removed, or others put in
    /// their place.
    pub(crate) fn check_files(&self, log: &Log) -> Result<(), StoreError> {
        let action = "cannot keep commits";
        let check = |(name, open): (&str, &File)| match is_same_file(&self.path.join(name), open) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.replaced(action, name)),
            Err(error) => Err(StoreError::io(action, &error)),
        };
        let files = [("log", log.file()), ("sled/db", &self.file), ("LOCK", &self.lock)];
        self.noted(files.into_iter().try_for_each(check))
    }

    /// The same, after which nothing more is written if it is an error.
    fn noted(&self, result: Result<(), StoreError>) -> Result<(), StoreError> {
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

    /// Whether the disk has so many free bytes. A disk that does not say counts as having them.
    pub(crate) fn has_room_for(&self, bytes: u64) -> bool {
        rustix::fs::fstatvfs(&self.file).map_or(true, |disk| disk.f_bavail.saturating_mul(disk.f_frsize) >= bytes)
    }

    /// Drops what a durable checkpoint contains from the log.
    pub(crate) fn clear_log(&self, log: &mut Log) -> Result<(), StoreError> {
        let action = "cannot clear the log";
        self.guarded(DiskOperation::Write, action, || log.clear().map_err(|error| StoreError::io(action, &error)))
    }

    /// Runs a write unless one failed before: what a failed sync left on disk is unknown, and the
    /// next one would answer for bytes that are gone.
    fn guarded(
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
            catch_panic(write).unwrap_or_else(|said| {
                Err(StoreError::Io { action: action.to_owned(), problem: said, disk_full: false })
            })
        });
        self.noted(result)
    }

    /// A reader of this store's blocks.
    pub(crate) fn reader(&self) -> BlockReader {
        BlockReader::new(self.tree.clone(), Arc::clone(&self.closing))
    }
}

/// Whether what is under a name is the open file.
fn is_same_file(path: &Path, open: &File) -> io::Result<bool> {
    let named = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let open = open.metadata()?;
    Ok((named.dev(), named.ino()) == (open.dev(), open.ino()))
}

/// Locks a file, which may take [`LOCK_WAIT_MAX`]: a process that this one is just starting holds all of its files until its
/// own program begins, those closed meanwhile too.
fn try_lock(file: &File) -> Result<(), fs::TryLockError> {
    let begin = Instant::now();
    loop {
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) if begin.elapsed() < LOCK_WAIT_MAX => sleep(LOCK_WAIT_STEP),
            locked => return locked,
        }
    }
}

/// Makes a directory this process's own as long as the file is open.
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
            // Who holds it may be writing its name just now: then it stays unnamed.
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
    // A full disk is no reason to stop here: opening may yet free some of it.
    if let Err(error) = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(name.as_bytes())) {
        tracing::warn!("cannot write who holds {}: {error}", file_path.display());
    }
    Ok(file)
}

/// Makes the directory of a store, so that it survives a power cut.
fn make_directory(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_directory(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|error| StoreError::io(format!("cannot make the directory {}", path.display()), &error)),
    }?;
    sync_directory(parent)
}

/// Makes an empty sled beside its place and puts it there once it is durable: sled never syncs its
/// settings, and with torn ones it does not open.
fn make_sled(path: &Path, inside: &Path) -> Result<(), StoreError> {
    if inside.exists() {
        return Ok(());
    }
    let failed = |error: &io::Error| StoreError::io(format!("cannot make {}", inside.display()), error);
    let unfinished = path.join("sled.new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(|error| failed(&error))?;
    }
    drop(open_sled(path, &unfinished)?);
    await_release(&unfinished)?;
    for name in file_names(&unfinished)? {
        File::open(unfinished.join(name)).and_then(|file| file.sync_all()).map_err(|error| failed(&error))?;
    }
    sync_directory(&unfinished)?;
    fs::rename(&unfinished, inside).map_err(|error| failed(&error))?;
    sync_directory(path)
}

fn open_sled(path: &Path, inside: &Path) -> Result<OpenSled, StoreError> {
    await_release(inside)?;
    remove_torn_snapshots(inside)?;
    refuse_blobs(path, inside)?;
    sync_db(inside)?;
    let config =
        sled::Config::new().path(inside).segment_size(SEGMENT_BYTES).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    // Truncated files can make sled panic while it opens.
    match catch_panic(|| config.open()) {
        Ok(Ok(db)) => Ok(OpenSled { db: db.clone(), closing: Closing::new(db) }),
        Ok(Err(error @ sled::Error::Io(_))) => {
            Err(StoreError::engine(format!("cannot open the store {}", path.display()), &error))
        }
        Ok(Err(error)) => Err(StoreError::Damaged { path: path.display().to_string(), problem: error.to_string() }),
        Err(said) => Err(StoreError::Damaged {
            path: path.display().to_string(),
            problem: format!("the engine gave up while opening its files: {said}"),
        }),
    }
}

/// Waits until sled has let go of its file: its own threads write, and hold the file, for some time
/// after it was dropped. Since the store is locked, nobody else has it.
fn await_release(inside: &Path) -> Result<(), StoreError> {
    let name = inside.join("db");
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

/// A process killed while sled starts leaves a half-written snapshot, after which every open would
/// say corruption. Nothing refers to it.
fn remove_torn_snapshots(inside: &Path) -> Result<(), StoreError> {
    for name in file_names(inside)? {
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(inside.join(&name))
                .map_err(|error| StoreError::io(format!("cannot remove the torn snapshot {name}"), &error))?;
        }
    }
    Ok(())
}

/// sled writes a snapshot of its file as it opens, and syncs the snapshot only: what a killed process
/// left unsynced in the file must not be lost after that.
fn sync_db(inside: &Path) -> Result<(), StoreError> {
    let synced = File::options().write(true).open(inside.join("db")).and_then(|file| file.sync_data());
    match synced {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|error| StoreError::io("cannot sync the store before opening it", &error)),
    }
}

/// Blob files are never synced: a store that has any was written with other settings.
fn refuse_blobs(path: &Path, inside: &Path) -> Result<(), StoreError> {
    if file_names(&inside.join("blobs"))?.is_empty() {
        return Ok(());
    }
    Err(StoreError::Damaged {
        path: path.display().to_string(),
        problem: "sled/blobs is not empty, and files in it do not survive a power cut".to_owned(),
    })
}

/// What is in a directory; nothing where there is none.
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

/// Makes new names in a directory survive a power cut.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), StoreError> {
    File::open(directory)
        .and_then(|open| open.sync_all())
        .map_err(|error| StoreError::io(format!("cannot sync the directory {}", directory.display()), &error))
}

/// Keeps a file of real blocks to free when a full disk keeps the store from opening. Doing without
/// is no reason not to serve.
fn keep_reserve(path: &Path, bytes: u64) {
    let present = fs::metadata(path).map_or(0, |meta| meta.len());
    if bytes == 0 || present >= bytes {
        return;
    }
    let made = OpenOptions::new().write(true).create(true).truncate(false).open(path).and_then(|file| {
        // Taking the last of the disk would bring about what the reserve is for.
        let disk = rustix::fs::fstatvfs(&file)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < bytes.saturating_mul(2) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "less than twice as much is free"));
        }
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).map_err(io::Error::from)
    });
    if let Err(error) = made {
        tracing::warn!("cannot keep {bytes} bytes in reserve at {}: {error}", path.display());
        // Half a reserve may hold the last of the disk. If it cannot go either, nothing is worse.
        let _ = fs::remove_file(path);
    }
}
