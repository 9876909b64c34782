//! A full disk stops writing, and the next start frees the reserve.
//!
//! The test needs a small file system of its own, which only root can mount. Without that permission the test reports
//! that it is skipped.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use silkrate::clock::SystemClock;
use silkrate::ingest::{IngestError, QueueLimits, Running};
use silkrate::store::{CheckpointLimits, Store, StoreOptions};

use crate::skipped::skipped;
use crate::store::durable::{BASE_US, SECOND, TINY_CHECKPOINTS, batch_of, instants, key, now, options, submit, value};

const RESERVE_BYTES: u64 = 24 << 20;

/// A mounted file system, unmounted on drop.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m", "none"])
            .arg(directory.path())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self(directory))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(std::thread::panicking() || unmounted.is_ok_and(|status| status.success()));
    }
}

fn with_reserve(directory: &Path) -> StoreOptions {
    StoreOptions { reserve_bytes: RESERVE_BYTES, ..options(directory, TINY_CHECKPOINTS, None) }
}

/// Fills the remaining space of the file system.
fn fill_disk(path: &Path) {
    let mut file = File::create(path).unwrap();
    for piece in [1 << 20, 4096, 1] {
        let bytes = vec![7; piece];
        while file.write_all(&bytes).is_ok() {}
    }
}

#[test]
fn full_disk_stops_writing_and_reserve_lets_the_store_open() {
    let Some(mount) = Mount::new() else {
        skipped("the full-disk test needs permission to mount a file system");
        return;
    };
    let directory = mount.0.path().join("store");
    let reserve = directory.join("reserve");
    let (running, _) = Running::open(with_reserve(&directory), QueueLimits::default(), Arc::new(SystemClock)).unwrap();
    assert_eq!(fs::metadata(&reserve).unwrap().len(), RESERVE_BYTES);
    let send = |running: &Running, number: i64| {
        let ticks = (0..50).map(|at| (BASE_US + (number * 100 + at) * SECOND, value(at.cast_unsigned() % 5)));
        submit(running.ingest(), batch_of(&key(0, 0), ticks, false))
    };
    send(&running, 0).unwrap();
    fill_disk(&mount.0.path().join("filler"));
    let (answered, error) =
        (1..100_000).find_map(|number| send(&running, number).err().map(|error| (number, error))).unwrap();
    assert!(matches!(error, IngestError::Poisoned(_)), "{error}");
    // Blocks are readable as before: only a write of the log failed, and sled has not written.
    let read = instants(&running.ingest().view(), &key(0, 0)).len() as i64;
    assert_eq!(read, answered * 50);
    running.close().unwrap_err();
    // The disk is still full: only the reserve frees space.
    let store = Store::open(with_reserve(&directory), now()).unwrap();
    assert!(!reserve.exists());
    assert_eq!(store.verify().problems, Vec::<String>::new());
    let found = instants(&store.view(), &key(0, 0)).len() as i64;
    assert!(
        found == answered * 50 || found == (answered + 1) * 50,
        "{found} instants after {answered} acknowledged batches"
    );
    drop(store);
    let (running, _) = Running::open(with_reserve(&directory), QueueLimits::default(), Arc::new(SystemClock)).unwrap();
    send(&running, 200_000).unwrap();
    running.close().unwrap();
    fs::remove_file(mount.0.path().join("filler")).unwrap();
    drop(Store::open(with_reserve(&directory), now()).unwrap());
    assert_eq!(fs::metadata(&reserve).unwrap().len(), RESERVE_BYTES);
    let store = Store::open(options(&directory, CheckpointLimits::default(), None), now()).unwrap();
    assert_eq!(store.verify().problems, Vec::<String>::new());
    drop(store);
}
