//! Imports with disk faults, and imports that are killed. The result is no store or a complete one, and running the
//! import again gives the exported store.
//!
//! strace makes system calls of `silkrate import` fail, one after the other. Without strace the test reports that it
//! is skipped.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use silkrate::domain::{CurrencySet, Pair, PublishedValue, Rate, SeriesKey, Source, Timestamp};
use silkrate::store::{Store, StoreError};
use tempfile::TempDir;

use crate::files::stores::options;
use crate::full_export::Parts;
use crate::skipped::skipped;
use crate::strace;

const SECOND: i64 = Timestamp::SECOND_US;
const NOW: Timestamp = Timestamp::from_micros(1_765_195_200 * SECOND);
/// More calls of any kind than an import of a small export makes.
const CALLS_MAX: usize = 60;

/// A full export of ticks, three per rate, and the path of the store to import into.
struct Fixture {
    directory: TempDir,
    parts: Parts,
}

impl Fixture {
    fn new(ticks: i64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(options(&directory.path().join("from")), NOW).unwrap();
        let pair = Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap();
        let key = SeriesKey { pair, source: Source::parse("timesca").unwrap() };
        // The late ticks split runs, so that there are revisions.
        for late in [0, 1] {
            let mut transaction = store.begin(NOW);
            let series = transaction.series(&key).unwrap();
            for number in (0..ticks).filter(|number| i64::from(number % 10 == 4) == late) {
                let rate = Rate::from_parts(u128::from((1_144 + number / 3).cast_unsigned()), 5).unwrap();
                let rate = if late == 1 { Rate::from_parts(7, 3).unwrap() } else { rate };
                let value = PublishedValue { rate, reported_change: None };
                transaction.upsert(series, NOW.saturating_add_us(number * SECOND), value, false).unwrap();
            }
            transaction.commit().unwrap();
        }
        let parts = Parts::of(&store.view());
        assert!(!parts.revisions.is_empty());
        parts.write(&directory.path().join("export"));
        Self { directory, parts }
    }

    fn db(&self) -> PathBuf {
        self.directory.path().join("db")
    }

    /// Adds the arguments of the import to `command`.
    fn add_import(&self, command: &mut Command) {
        command.arg("import").arg(self.directory.path().join("export")).arg("--db").arg(self.db());
        command.stdin(Stdio::null()).env_remove("SILKRATE_DB").env("RUST_BACKTRACE", "0");
    }

    fn import(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
        self.add_import(&mut command);
        command
    }

    /// Returns true if an interrupted import left no store. If it left a store, the store must be complete.
    fn is_unfinished(&self, what: &str) -> bool {
        if !self.db().exists() {
            return true;
        }
        match Store::open(options(&self.db()), NOW) {
            Err(StoreError::UnfinishedImport { .. }) => true,
            // The import has written nothing yet, not even the mark of an unfinished import.
            Ok(store) if store.newest_commit().sequence == 0 => true,
            // The mark was already removed.
            Ok(store) => {
                assert!(Parts::of(&store.view()) == self.parts, "{what}: the store is incomplete");
                false
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// Checks that running the import again completes it.
    fn check_again(&self, what: &str) {
        if self.is_unfinished(what) {
            let again = self.import().output().unwrap();
            assert!(again.status.success(), "{what}, then again: {}", String::from_utf8_lossy(&again.stderr));
        }
        self.check_store(what);
    }

    /// Checks that the store is complete, then removes it.
    fn check_store(&self, what: &str) {
        let store = Store::open(options(&self.db()), NOW).unwrap();
        assert_eq!(store.verify().problems, Vec::<String>::new(), "{what}");
        assert!(Parts::of(&store.view()) == self.parts, "{what}: the store differs from the export");
        drop(store);
        fs::remove_dir_all(self.db()).unwrap();
    }
}

/// Makes the `nth` of the given calls fail, counted from 1, and the calls after it if `and_then` is `+`. Returns false
/// if there was no such call.
fn check_failure(fixture: &Fixture, (calls, error): (&str, &str), nth: usize, and_then: &str) -> bool {
    let what = format!("{calls} {nth}{and_then}: {error}");
    let log = fixture.directory.path().join("strace.log");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-q", "-o"]).arg(&log).arg("-e").arg(format!("trace={calls}"));
    strace.arg("-e").arg(format!("inject={calls}:error={error}:when={nth}{and_then}"));
    // Inject faults only into files of the store, not into other calls of the runtime.
    for name in ["LOCK", "UNFINISHED-IMPORT", "log", "witness.new", "sled.new/conf", "sled.new/db", "sled/db"] {
        strace.arg("-P").arg(fixture.db().join(name));
    }
    for directory in ["", "sled", "sled.new"] {
        strace.arg("-P").arg(fixture.db().join(directory));
    }
    strace.arg(env!("CARGO_BIN_EXE_silkrate"));
    fixture.add_import(&mut strace);
    let ran = strace.output().unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    let injected = fs::read_to_string(&log).unwrap().contains("(INJECTED)");
    match ran.status.code() {
        // Some failures are harmless, such as a failed write of the process id into the lock file.
        Some(0) => fixture.check_store(&what),
        Some(1) => {
            assert!(injected && stderr.starts_with("error: cannot "), "{what}: {stderr}");
            // If the fault is not permanent, the command has restored the mark of an unfinished import.
            assert!(
                and_then == "+" || fixture.is_unfinished(&what),
                "{what}: the command failed but left a complete store"
            );
            fixture.check_again(&what);
        }
        code => panic!("{what}: {code:?} {stderr}"),
    }
    injected
}

#[test]
fn any_disk_failure_leaves_no_store_or_a_complete_one() {
    if !strace::can_trace() {
        skipped("the disk-fault test needs strace and permission to trace");
        return;
    }
    let (fixture, began) = (Fixture::new(1_000), Instant::now());
    let mut failures = Vec::new();
    for (failure, least) in [
        (("write", "ENOSPC"), 2),
        (("pwrite64", "ENOSPC"), 3),
        (("fsync", "EIO"), 8),
        (("fdatasync", "EIO"), 3),
        (("sync_file_range", "EIO"), 1),
        (("rename", "EIO"), 2),
        (("mkdir", "ENOSPC"), 2),
        (("unlink", "EIO"), 1),
    ] {
        let count = (1..=CALLS_MAX).find(|nth| !check_failure(&fixture, failure, *nth, "")).unwrap() - 1;
        assert!(count >= least, "only {count} of {failure:?} were injected");
        failures.push((failure.0, count));
    }
    // The disk fails permanently, from call `nth` on.
    for failure in [("fsync", "EIO"), ("pwrite64", "ENOSPC")] {
        for nth in [1, 4, 9, 12, 15] {
            check_failure(&fixture, failure, nth, "+");
        }
    }
    println!("{failures:?}, {:.1?}", began.elapsed());
}

/// Each import begins with the files that the previous import left.
#[test]
fn import_killed_at_any_moment_can_be_run_again() {
    let fixture = Fixture::new(30_000);
    let began = Instant::now();
    assert!(fixture.import().output().unwrap().status.success());
    let whole = began.elapsed();
    fixture.check_store("complete");
    let (mut killed, mut unfinished) = (0, 0);
    for number in 0..16 {
        let mut child = fixture.import().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The kill times are spread over the whole duration of an import.
        std::thread::sleep(whole * number / 16 + Duration::from_millis(1));
        // The import may already have finished.
        let _ = child.kill();
        if child.wait().unwrap().success() {
            fixture.check_store("not killed in time");
            continue;
        }
        killed += 1;
        unfinished += u32::from(fixture.db().join("UNFINISHED-IMPORT").exists());
        if number % 4 == 3 || !fixture.is_unfinished("killed") {
            fixture.check_again("killed");
        }
    }
    println!("{killed} killed, {unfinished} of them unfinished; a complete import takes {whole:.1?}");
    assert!(killed > 0 && unfinished > 0);
    fixture.check_again("after the last kill");
}
