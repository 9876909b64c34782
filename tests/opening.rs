//! What opening a store makes of leftovers, of damage and of other people's files: it opens as it was
//! left, or says why not; and what reads afterwards is what was written, or an error.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test that cannot go on is to fail, and its numbers are small"
)]

mod durable;

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use durable::{BASE_US, Random, SECOND, batch_of, instants, key, now, open, options, run, submit, value};
use silkrate::domain::{PublishedValue, Rate, Run, Timestamp};
use silkrate::ingest::{RefusalReason, Summary};
use silkrate::store::{CheckpointLimits, ScanOrder, Store, StoreError, verify};

/// Ticks of the first series, each a run of its own: some five blocks of runs, three of instants.
const TICKS: i64 = 10_000;
const STEP_US: i64 = 20 * SECOND;
const FORMAT: u8 = 1;

fn try_open(directory: &Path) -> Result<Store, StoreError> {
    Store::open(options(directory, CheckpointLimits::default(), None), now())
}

fn refusal(directory: &Path) -> StoreError {
    match try_open(directory) {
        Ok(_) => panic!("the store opens"),
        Err(error) => error,
    }
}

fn tick(at: i64) -> (i64, PublishedValue) {
    (BASE_US + at * STEP_US, value(at.cast_unsigned() % 7))
}

fn commit(store: &mut Store, series: usize, ticks: impl IntoIterator<Item = (i64, PublishedValue)>) {
    let mut work = store.begin(now());
    let id = work.series(&key(0, series)).unwrap();
    for (micros, value) in ticks {
        work.upsert(id, Timestamp::from_micros(micros), value, false).unwrap();
    }
    work.commit().unwrap();
}

/// A store with blocks of two series, and in its log two more commits.
fn fill(directory: &Path) -> Store {
    let mut store = open(directory);
    commit(&mut store, 0, (0..TICKS).map(tick));
    commit(&mut store, 1, (0..50).map(tick));
    store.checkpoint().unwrap();
    commit(&mut store, 0, (TICKS..TICKS + 10).map(tick));
    commit(&mut store, 1, (50..60).map(tick));
    store
}

/// The same, closed in good order: everything in blocks, the witness up to date.
fn fill_and_close(directory: &Path) {
    fill(directory).checkpoint().unwrap();
}

fn runs(store: &Store, series: usize, from: i64, to: i64) -> Result<Vec<Run>, StoreError> {
    let view = store.view();
    let Some(series) = view.find(&key(0, series)) else { return Ok(Vec::new()) };
    let (from, to) = (Timestamp::from_micros(from), Timestamp::from_micros(to));
    let pieces: Result<Vec<_>, _> = series.runs(from, to, Timestamp::MAX, ScanOrder::Ascending)?.collect();
    Ok(pieces?.concat())
}

fn all_runs(store: &Store, series: usize) -> Result<Vec<Run>, StoreError> {
    runs(store, series, i64::MIN, i64::MAX)
}

/// sled itself, to plant damage with.
fn raw(directory: &Path) -> sled::Db {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let config = sled::Config::new().path(directory.join("sled")).segment_size(4 << 20).flush_every_ms(None);
        match config.open() {
            Ok(db) => return db,
            // The store just closed may not have let go yet.
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Keys with a prefix.
fn keys(db: &sled::Db, prefix: u8) -> Vec<Vec<u8>> {
    db.scan_prefix([prefix]).keys().map(|key| key.unwrap().to_vec()).collect()
}

/// Ids of the blocks that the index names, or that have columns.
fn block_ids(db: &sled::Db, prefix: u8, at: usize) -> BTreeSet<u64> {
    keys(db, prefix).iter().map(|key| u64::from_be_bytes(key[at..at + 8].try_into().unwrap())).collect()
}

fn named_blocks(db: &sled::Db) -> BTreeSet<u64> {
    block_ids(db, b'x', 6)
}

fn stored_blocks(db: &sled::Db) -> BTreeSet<u64> {
    block_ids(db, b'b', 1)
}

fn flip(db: &sled::Db, key: &[u8], random: &mut Random) {
    let mut value = db.get(key).unwrap().unwrap().to_vec();
    let bit = random.below(value.len() as u64 * 8) as usize;
    value[bit / 8] ^= 1 << (bit % 8);
    db.insert(key, value).unwrap();
}

#[test]
fn a_second_opening_says_who_has_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    let error = refusal(directory.path());
    assert!(
        matches!(&error, StoreError::InUse { holder, .. }
        if holder.contains(&format!("process {}", std::process::id())) && holder.starts_with("opening-")),
        "{error}"
    );
    assert!(matches!(verify(directory.path()), Err(StoreError::InUse { .. })));
    drop(first);
    open(directory.path());
}

#[test]
fn what_an_interrupted_start_leaves_is_cleared_away() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("sled.new")).unwrap();
    fs::write(directory.path().join("sled.new/conf"), "half").unwrap();
    fs::write(directory.path().join("witness.new"), "half").unwrap();
    fill_and_close(directory.path());
    assert!(!directory.path().join("sled.new").exists());
    let torn = directory.path().join("sled/snap.00000000FFFFFFFF.generating");
    fs::write(&torn, "half a snapshot").unwrap();
    let store = open(directory.path());
    assert!(!torn.exists());
    assert_eq!(all_runs(&store, 0).unwrap().len() as i64, TICKS + 10);
}

#[test]
fn a_store_made_with_blob_files_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fill_and_close(directory.path());
    drop(raw(directory.path()));
    fs::write(directory.path().join("sled/blobs/17"), "a page").unwrap();
    let error = refusal(directory.path()).to_string();
    assert!(error.contains("sled/blobs is not empty"), "{error}");
}

/// A sealed value of another version, its checksum right.
fn reseal(key: &[u8], value: &[u8], version: u8) -> Vec<u8> {
    let mut sealed = value[..value.len() - 4].to_vec();
    sealed[0] = version;
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &sealed);
    sealed.extend_from_slice(&crc.to_le_bytes());
    sealed
}

/// The log: its path, its bytes, and where its frames lie. A frame is magic (4), format (1), the
/// checksum it is chained to (4), length of the payload (4), payload, checksum (4).
fn read_log(directory: &Path) -> (PathBuf, Vec<u8>, Vec<Range<usize>>) {
    let path = directory.join("log");
    let log = fs::read(&path).unwrap();
    let mut frames = Vec::new();
    let mut at = 16;
    while at < log.len() {
        let payload_bytes = u32::from_le_bytes(log[at + 9..at + 13].try_into().unwrap()) as usize;
        frames.push(at..at + 17 + payload_bytes);
        at += 17 + payload_bytes;
    }
    (path, log, frames)
}

#[test]
fn a_newer_format_is_named_as_such() {
    for prefix in *b"msx" {
        let directory = tempfile::tempdir().unwrap();
        drop(fill(directory.path()));
        let db = raw(directory.path());
        let key = keys(&db, prefix).remove(0);
        let value = db.get(&key).unwrap().unwrap();
        db.insert(&*key, reseal(&key, &value, FORMAT + 1)).unwrap();
        drop(db);
        let error = refusal(directory.path());
        assert!(
            matches!(error, StoreError::NewerFormat { found, supported: FORMAT, .. } if found == FORMAT + 1),
            "{error}"
        );
        assert!(error.to_string().contains("run a newer one"), "{error}");
    }
    let directory = tempfile::tempdir().unwrap();
    drop(fill(directory.path()));
    let (path, mut log, frames) = read_log(directory.path());
    let (first, sealed) = (frames[0].start, frames[0].end - 4);
    log[first + 4] += 1;
    let crc = crc32c::crc32c(&log[first..sealed]);
    log[sealed..frames[0].end].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, log).unwrap();
    let error = refusal(directory.path());
    assert!(matches!(error, StoreError::NewerFormat { found, .. } if found == FORMAT + 1), "{error}");
}

#[test]
fn a_store_behind_its_witness_is_refused() {
    let (directory, copied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sled = directory.path().join("sled");
    fill_and_close(directory.path());
    drop(raw(directory.path()));
    copy(&sled, copied.path());
    let mut store = open(directory.path());
    let sequence = store.newest_commit().sequence;
    commit(&mut store, 0, [tick(TICKS + 20)]);
    store.checkpoint().unwrap();
    drop(store);
    drop(raw(directory.path()));
    fs::remove_dir_all(&sled).unwrap();
    copy(copied.path(), &sled);
    let error = refusal(directory.path());
    assert!(
        matches!(error, StoreError::Behind { sequence: found, witness, .. } if found == sequence && witness == sequence + 1),
        "{error}"
    );
    fs::remove_dir_all(&sled).unwrap();
    let error = refusal(directory.path()).to_string();
    assert!(error.contains("its own record is missing"), "{error}");
}

fn tear(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn the_witness_may_be_behind_or_half_torn_but_not_gone() {
    let check = |change: fn(&Path), expect: Option<&str>| {
        let directory = tempfile::tempdir().unwrap();
        // The log goes beyond the witness, as after a kill.
        drop(fill(directory.path()));
        change(&directory.path().join("witness"));
        match (try_open(directory.path()), expect) {
            (Ok(store), None) => assert_eq!(all_runs(&store, 0).unwrap().len() as i64, TICKS + 10),
            (Err(error), Some(expect)) => assert!(error.to_string().contains(expect), "{error}"),
            (Ok(_), Some(expect)) => panic!("opens, though {expect}"),
            (Err(error), None) => panic!("{error}"),
        }
    };
    check(|_| {}, None);
    check(|path| tear(path, 20), None);
    check(|path| tear(path, 60), None);
    check(
        |path| {
            tear(path, 0);
            tear(path, 32);
        },
        Some("its witness file does not decode"),
    );
    check(|path| fs::write(path, "").unwrap(), Some("its witness file does not decode"));
    check(|path| fs::remove_file(path).unwrap(), Some("its witness file is missing"));
    check(
        |path| {
            let other = tempfile::tempdir().unwrap();
            fill_and_close(other.path());
            fs::copy(other.path().join("witness"), path).unwrap();
        },
        Some("its witness belongs to another store"),
    );
}

/// What became of a damaged store.
#[derive(Default, Debug)]
struct Outcomes {
    refused: usize,
    damaged_ranges: usize,
    whole: usize,
}

impl Outcomes {
    /// Opens and reads a damaged store: whatever it answers must be what was written.
    fn add(&mut self, directory: &Path, expected: &[Vec<Run>]) {
        let Ok(store) = try_open(directory) else {
            self.refused += 1;
            return;
        };
        let mut whole = true;
        for (series, expected) in expected.iter().enumerate() {
            match all_runs(&store, series) {
                Ok(runs) => assert_eq!(&runs, expected),
                Err(StoreError::DamagedBlock { .. }) => whole = false,
                Err(error) => panic!("{error}"),
            }
            let newest = store.view().find(&key(0, series)).unwrap().run_at(Timestamp::MAX, Timestamp::MAX);
            assert_eq!(newest.unwrap().as_ref(), expected.last());
        }
        let problems = store.verify().problems;
        assert!(whole || !problems.is_empty(), "verify does not see what a read saw");
        if problems.is_empty() {
            self.whole += 1;
        } else {
            self.damaged_ranges += 1;
        }
    }
}

/// A closed store of many pages: rates without a pattern, so that their blocks do not compress.
fn fill_pages(directory: &Path) {
    let mut random = Random(9);
    let mut store = fill(directory);
    for part in 1..=9 {
        let ticks = (0..20_000).map(|at| {
            let mantissa = u128::from(random.below(u64::MAX - 1)) + 1;
            let micros =
                BASE_US + part * 400 * 86_400 * SECOND + at * 600 * SECOND + random.below(1 << 28).cast_signed();
            (micros, PublishedValue { rate: Rate::from_parts(mantissa, 5).unwrap(), reported_change: None })
        });
        commit(&mut store, 0, ticks);
        store.checkpoint().unwrap();
    }
}

fn damage_many(count: u64, mut damage: impl FnMut(&Path, u64)) -> Outcomes {
    let sound = tempfile::tempdir().unwrap();
    fill_pages(sound.path());
    let expected: Vec<Vec<Run>> = {
        let store = open(sound.path());
        (0..2).map(|series| all_runs(&store, series).unwrap()).collect()
    };
    drop(raw(sound.path()));
    let mut outcomes = Outcomes::default();
    for number in 0..count {
        let directory = tempfile::tempdir().unwrap();
        copy(sound.path(), directory.path());
        damage(directory.path(), number);
        outcomes.add(directory.path(), &expected);
    }
    outcomes
}

#[test]
fn a_truncated_store_file_is_an_error_or_no_loss() {
    const LENGTHS: u64 = 40;
    let began = Instant::now();
    let outcomes = damage_many(LENGTHS, |directory, number| {
        let path = directory.join("sled/db");
        let file = fs::File::options().write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        // Both ends finely, the middle by steps.
        let kept = match number {
            0..10 => number * 37,
            10..20 => length - (number - 9) * 37,
            _ => length * (number - 19) / (LENGTHS - 18),
        };
        file.set_len(kept).unwrap();
    });
    println!("{LENGTHS} truncations: {outcomes:?}, {:.1?}", began.elapsed());
    assert!(outcomes.refused > 0);
}

#[test]
fn a_flipped_bit_in_the_store_file_is_never_another_rate() {
    const FLIPS: u64 = 64;
    let began = Instant::now();
    let mut random = Random(3);
    let outcomes = damage_many(FLIPS, |directory, number| {
        let names: Vec<_> = fs::read_dir(directory.join("sled"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap."))
            .collect();
        let path = match names.first() {
            Some(snapshot) if number % 8 == 0 => snapshot.clone(),
            _ => directory.join("sled/db"),
        };
        let mut bytes = fs::read(&path).unwrap();
        // Rather where something is written than in what fills up the file.
        let at = (0..1_000)
            .map(|_| random.below(bytes.len() as u64) as usize)
            .find(|at| bytes[*at] != bytes[(*at + 1) % bytes.len()])
            .unwrap();
        bytes[at] ^= 1 << random.below(8);
        fs::write(path, bytes).unwrap();
    });
    println!("{FLIPS} flips in files: {outcomes:?}, {:.1?}", began.elapsed());
    assert!(outcomes.refused > 0 && outcomes.damaged_ranges > 0, "{outcomes:?}");
}

#[test]
fn a_damaged_record_is_refused() {
    let sound = tempfile::tempdir().unwrap();
    drop(fill(sound.path()));
    drop(raw(sound.path()));
    let check = |prefix: u8, change: &mut dyn FnMut(&sled::Db, &[u8])| {
        let directory = tempfile::tempdir().unwrap();
        copy(sound.path(), directory.path());
        let db = raw(directory.path());
        let keys = keys(&db, prefix);
        change(&db, &keys[keys.len() / 2]);
        drop(db);
        let error = refusal(directory.path());
        assert!(matches!(error, StoreError::Damaged { .. } | StoreError::NewerFormat { .. }), "{error}");
        error.to_string()
    };
    let mut random = Random(5);
    for prefix in *b"msx" {
        for _ in 0..3 {
            check(prefix, &mut |db, key| flip(db, key, &mut random));
        }
        let cut = check(prefix, &mut |db, key| drop(db.insert(key, &db.get(key).unwrap().unwrap()[1..]).unwrap()));
        assert!(cut.contains("damaged") || cut.contains("format"), "{cut}");
    }
    for (prefix, expect) in [
        (b'm', "its own record is missing"),
        (b's', "the record of series"),
        (b'x', "entries of its index are missing or foreign"),
    ] {
        let said = check(prefix, &mut |db, key| drop(db.remove(key).unwrap()));
        assert!(said.contains(expect) || said.contains("missing"), "{said}");
    }
    // An index entry in the place of another.
    check(b'x', &mut |db, key| {
        let other = keys(db, b'x').remove(0);
        db.insert(key, db.get(other).unwrap().unwrap()).unwrap();
    });
}

#[test]
fn a_damaged_log_is_refused_and_a_torn_end_cut_off() {
    let sound = tempfile::tempdir().unwrap();
    drop(fill(sound.path()));
    drop(raw(sound.path()));
    let check = |change: &dyn Fn(&mut Vec<u8>, &[Range<usize>]), expect: Result<usize, &str>| {
        let directory = tempfile::tempdir().unwrap();
        copy(sound.path(), directory.path());
        let (path, mut log, frames) = read_log(directory.path());
        assert_eq!(frames.len(), 2);
        change(&mut log, &frames);
        fs::write(path, log).unwrap();
        match (try_open(directory.path()), expect) {
            // The second commit put ten ticks into the second series.
            (Ok(store), Ok(count)) => {
                assert_eq!(all_runs(&store, 1).unwrap().len(), count);
                assert_eq!(store.verify().problems, Vec::<String>::new());
            }
            (Err(error), Err(expect)) => assert!(error.to_string().contains(expect), "{error}"),
            (Ok(_), Err(expect)) => panic!("opens, not said: {expect}"),
            (Err(error), Ok(_)) => panic!("{error}"),
        }
    };
    check(&|_, _| {}, Ok(60));
    for bit in [0, 40, 100] {
        check(&|log, frames| log[frames[0].start + bit / 8] ^= 1 << (bit % 8), Err("is broken, and others follow"));
    }
    check(&|log, frames| drop(log.drain(frames[0].clone())), Err("does not follow from"));
    check(&|log, _| log[9] ^= 1, Err("its log belongs to another store"));
    check(&|log, _| log.truncate(10), Err("its log is cut off"));
    // Half a frame at the end is a commit that a crash cut short.
    for kept in [1, 20, 60] {
        check(&|log, frames| log.truncate(frames[1].start + kept), Ok(50));
    }
    check(&|log, _| log.extend_from_slice(&[0; 700]), Ok(60));
    let directory = tempfile::tempdir().unwrap();
    copy(sound.path(), directory.path());
    fs::remove_file(directory.path().join("log")).unwrap();
    let error = refusal(directory.path()).to_string();
    assert!(error.contains("its log is missing"), "{error}");
}

/// Flips a bit in a column of the second block of a kind of the first series.
fn damage_second_block(directory: &Path, kind: u8, column: u8) {
    let db = raw(directory);
    let of_kind = |key: &Vec<u8>| key[1..5] == 1_u32.to_be_bytes() && key[5] == kind;
    let block = keys(&db, b'x').into_iter().filter(of_kind).nth(1).unwrap();
    let mut column_key = vec![b'b'];
    column_key.extend_from_slice(&block[6..]);
    column_key.push(column);
    flip(&db, &column_key, &mut Random(u64::from(column)));
}

#[test]
fn a_damaged_block_of_runs_is_lost_for_its_range_only() {
    for column in [0, 3, 7] {
        let directory = tempfile::tempdir().unwrap();
        fill_and_close(directory.path());
        damage_second_block(directory.path(), 0, column);
        let store = open(directory.path());
        let error = all_runs(&store, 0).unwrap_err();
        let StoreError::DamagedBlock { series, what: "runs", from, to, .. } = error else { panic!("{error}") };
        assert_eq!(*series, key(0, 0));
        // Blocks of 2,048 runs, so that one is the ticks 2,048 to 4,095.
        assert_eq!((from.micros(), to.micros()), (tick(2_048).0, tick(4_095).0));
        assert_eq!(runs(&store, 0, BASE_US, from.micros()).unwrap().len(), 2_048);
        assert_eq!(runs(&store, 0, to.micros() + 1, i64::MAX).unwrap().len() as i64, TICKS + 10 - 4_096);
        assert_eq!(all_runs(&store, 1).unwrap().len(), 60);
        let problems = store.verify().problems;
        assert!(problems.iter().any(|problem| problem.contains("the stored runs from")), "{problems:?}");
        drop(store);
        check_ingest_around_damage(directory.path(), 3_000);
    }
}

#[test]
fn a_damaged_block_of_instants_leaves_the_rates() {
    let directory = tempfile::tempdir().unwrap();
    fill_and_close(directory.path());
    damage_second_block(directory.path(), 1, 0);
    let store = open(directory.path());
    assert_eq!(all_runs(&store, 0).unwrap().len() as i64, TICKS + 10);
    let view = store.view();
    let error = view.find(&key(0, 0)).unwrap().instants(Timestamp::MIN, Timestamp::MAX).find_map(Result::err).unwrap();
    assert!(matches!(error, StoreError::DamagedBlock { what: "instants", .. }), "{error}");
    let problems = store.verify().problems;
    assert!(problems.iter().any(|problem| problem.contains("the stored instants from")), "{problems:?}");
    drop((store, view));
    check_ingest_around_damage(directory.path(), 5_000);
}

/// A tick into the damaged range is refused with its reason, those before and after it go in.
fn check_ingest_around_damage(directory: &Path, damaged: i64) {
    let running = run(directory, CheckpointLimits::default(), None);
    let between = |at: i64| (tick(at).0 + SECOND, value(1));
    let ticks = [between(10), between(damaged), between(9_000), tick(TICKS + 50)];
    let report = submit(running.ingest(), batch_of(&key(0, 0), ticks, false)).unwrap();
    let reasons: Vec<_> = report.refusals.iter().map(|refusal| (refusal.index, refusal.reason)).collect();
    assert_eq!(reasons, [(1, RefusalReason::DamagedRange)]);
    assert!(report.refusals[0].message.contains("restore the store from a backup"), "{:?}", report.refusals);
    assert_eq!(report.summary.refused_count, 1);
    let Summary { new_run_count, collapsed_count, .. } = report.summary;
    assert_eq!(new_run_count + collapsed_count, 3);
    running.close().unwrap();
    let store = open(directory);
    assert_eq!(runs(&store, 0, between(10).0, between(10).0 + 1).map(|runs| runs.len()), Ok(1));
    assert_eq!(runs(&store, 0, tick(TICKS + 50).0, i64::MAX).map(|runs| runs.len()), Ok(1));
}

#[test]
fn what_nothing_names_is_removed_and_no_id_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    fill_and_close(directory.path());
    let mut used = BTreeSet::new();
    for generation in 0..4 {
        let db = raw(directory.path());
        let named = named_blocks(&db);
        let fresh: Vec<u64> = named.difference(&used).copied().collect();
        assert!(!fresh.is_empty());
        let newest_used = used.last().copied().unwrap_or(0);
        assert!(fresh.iter().all(|id| *id > newest_used), "{fresh:?} came after {newest_used}");
        used.extend(named);
        // Blocks of a checkpoint that did not come to its end.
        for ahead in 1..=5_u64 {
            let mut key = vec![b'b'];
            key.extend_from_slice(&(used.last().unwrap() + ahead).to_be_bytes());
            key.push(0);
            db.insert(key, vec![7; 100]).unwrap();
        }
        drop(db);
        let mut store = open(directory.path());
        drop(store);
        let db = raw(directory.path());
        assert_eq!(stored_blocks(&db), named_blocks(&db));
        assert_eq!(keys(&db, b'r'), Vec::<Vec<u8>>::new());
        drop(db);
        store = open(directory.path());
        // Late ticks into old blocks, so that these are replaced.
        commit(&mut store, 0, (0..3).map(|at| (tick(at * 4_000).0 + generation + 1, value(3))));
        store.checkpoint().unwrap();
    }
    let retired = keys(&raw(directory.path()), b'r');
    assert!(!retired.is_empty(), "no block was ever replaced");
}

#[test]
fn readers_keep_the_blocks_they_hold() {
    let directory = tempfile::tempdir().unwrap();
    fill_and_close(directory.path());
    let mut store = open(directory.path());
    let held = store.view();
    let before = all_runs(&store, 0).unwrap();
    for round in 0..5 {
        commit(&mut store, 0, (0..5).map(|at| (tick(at * 2_000).0 + round + 1, value(2))));
        store.checkpoint().unwrap();
    }
    let series = Arc::clone(held.find(&key(0, 0)).unwrap());
    let pieces = series.runs(Timestamp::MIN, Timestamp::MAX, Timestamp::MAX, ScanOrder::Ascending).unwrap();
    assert_eq!(pieces.flat_map(Result::unwrap).collect::<Vec<_>>(), before);
    drop((series, held));
    assert_eq!(instants(&store.view(), &key(0, 0)).len() as i64, TICKS + 10 + 25);
}
