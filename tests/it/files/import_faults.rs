//! An import on a disk that fails, and one that is killed: there is no store, or all of it, and the import run again
//! gives the store that was exported.
//!
//! strace lets the system calls of the built command fail, one after the other; without it that test says so and
//! passes.

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
/// More calls than an import of a small export makes of any kind.
const CALLS_MAX: usize = 60;

/// A full export of so many ticks, three of a rate, and where the store is to be that is made of it.
struct Scene {
    directory: TempDir,
    parts: Parts,
}

impl Scene {
    fn new(ticks: i64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(options(&directory.path().join("from")), NOW).unwrap();
        let pair = Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap();
        let key = SeriesKey { pair, source: Source::parse("timesca").unwrap() };
        // The late ones split runs, so that there are revisions.
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

    /// Has `command` run the import.
    fn add_import(&self, command: &mut Command) {
        command.arg("import").arg(self.directory.path().join("export")).arg("--db").arg(self.db());
        command.stdin(Stdio::null()).env_remove("SILKRATE_DB").env("RUST_BACKTRACE", "0");
    }

    fn import(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
        self.add_import(&mut command);
        command
    }

    /// Whether what is there after an import that broke off is no store. If it is one, it must be all of it.
    fn is_unfinished(&self, what: &str) -> bool {
        if !self.db().exists() {
            return true;
        }
        match Store::open(options(&self.db()), NOW) {
            Err(StoreError::UnfinishedImport { .. }) => true,
            // The mark was not there yet, and nothing else.
            Ok(store) if store.newest_commit().sequence == 0 => true,
            // It was gone already.
            Ok(store) => {
                assert!(Parts::of(&store.view()) == self.parts, "{what}: a part of a store");
                false
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }

    /// The import run again makes the store, unless it is there.
    fn check_again(&self, what: &str) {
        if self.is_unfinished(what) {
            let again = self.import().output().unwrap();
            assert!(again.status.success(), "{what}, then again: {}", String::from_utf8_lossy(&again.stderr));
        }
        self.check_store(what);
    }

    /// The store is there, whole; takes it away again.
    fn check_store(&self, what: &str) {
        let store = Store::open(options(&self.db()), NOW).unwrap();
        assert_eq!(store.verify().problems, Vec::<String>::new(), "{what}");
        assert!(Parts::of(&store.view()) == self.parts, "{what}: another store");
        drop(store);
        fs::remove_dir_all(self.db()).unwrap();
    }
}

/// Lets the `nth` of some calls fail, from 1, and those after it if the disk stays broken. Says whether it came to that.
fn check_failure(scene: &Scene, (calls, error): (&str, &str), nth: usize, and_then: &str) -> bool {
    let what = format!("{calls} {nth}{and_then}: {error}");
    let log = scene.directory.path().join("strace.log");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-q", "-o"]).arg(&log).arg("-e").arg(format!("trace={calls}"));
    strace.arg("-e").arg(format!("inject={calls}:error={error}:when={nth}{and_then}"));
    // Only what concerns the store: a runtime that cannot wake its threads is another matter.
    for name in ["LOCK", "UNFINISHED-IMPORT", "log", "witness.new", "sled.new/conf", "sled.new/db", "sled/db"] {
        strace.arg("-P").arg(scene.db().join(name));
    }
    for directory in ["", "sled", "sled.new"] {
        strace.arg("-P").arg(scene.db().join(directory));
    }
    strace.arg(env!("CARGO_BIN_EXE_silkrate"));
    scene.add_import(&mut strace);
    let ran = strace.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    let met = fs::read_to_string(&log).unwrap().contains("(INJECTED)");
    match ran.status.code() {
        // Of some failures nothing follows: who holds the lock need not be written there.
        Some(0) => scene.check_store(&what),
        Some(1) => {
            assert!(met && said.starts_with("error: cannot "), "{what}: {said}");
            // The disk takes things again by now, and so it did when the mark was put back.
            assert!(and_then == "+" || scene.is_unfinished(&what), "{what}: an error, and a store");
            scene.check_again(&what);
        }
        code => panic!("{what}: {code:?} {said}"),
    }
    met
}

#[test]
fn any_one_failure_leaves_no_store_or_all_of_it() {
    if !strace::can_trace() {
        skipped("no disk fails, since strace is not there or may not trace");
        return;
    }
    let (scene, began) = (Scene::new(1_000), Instant::now());
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
        let count = (1..=CALLS_MAX).find(|nth| !check_failure(&scene, failure, *nth, "")).unwrap() - 1;
        assert!(count >= least, "only {count} of {failure:?} were met");
        failures.push((failure.0, count));
    }
    // A disk that takes nothing any more from then on.
    for failure in [("fsync", "EIO"), ("pwrite64", "ENOSPC")] {
        for nth in [1, 4, 9, 12, 15] {
            check_failure(&scene, failure, nth, "+");
        }
    }
    println!("{failures:?}, {:.1?}", began.elapsed());
}

/// Each import begins over what the one before it left.
#[test]
fn imports_killed_at_any_moment_are_run_again() {
    let scene = Scene::new(30_000);
    let began = Instant::now();
    assert!(scene.import().output().unwrap().status.success());
    let whole = began.elapsed();
    scene.check_store("undisturbed");
    let (mut killed, mut unfinished) = (0, 0);
    for number in 0..16 {
        let mut child = scene.import().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Moments spread over all of its course.
        std::thread::sleep(whole * number / 16 + Duration::from_millis(1));
        // It may be done by then.
        let _ = child.kill();
        if child.wait().unwrap().success() {
            scene.check_store("not killed in time");
            continue;
        }
        killed += 1;
        unfinished += u32::from(scene.db().join("UNFINISHED-IMPORT").exists());
        if number % 4 == 3 || !scene.is_unfinished("killed") {
            scene.check_again("killed");
        }
    }
    println!("{killed} killed, {unfinished} of them amid their work, of some {whole:.1?}");
    assert!(killed > 0 && unfinished > 0);
    scene.check_again("killed at last");
}
