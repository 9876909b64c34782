//! Stores for tests of damage and leftovers, and helpers that change their bytes.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use silkrate::domain::{Health, Poll, PublishedValue, Rate, RatioThreshold, Run, ScanOrder, Timestamp};
use silkrate::store::{Admitted, CheckpointLimits, Store, StoreError};

use crate::store::durable::{BASE_US, Random, SECOND, key, now, open, options, value};

/// Number of ticks of the first series. Each tick is a run of its own: about five blocks of runs and three of
/// instants.
pub(crate) const TICKS: i64 = 10_000;
pub(crate) const STEP_US: i64 = 20 * SECOND;
pub(crate) const FORMAT: u8 = 1;

pub(crate) fn try_open(directory: &Path) -> Result<Store, StoreError> {
    Store::open(options(directory, CheckpointLimits::default(), None), now())
}

pub(crate) fn refusal(directory: &Path) -> StoreError {
    match try_open(directory) {
        Ok(_) => panic!("the store opens"),
        Err(error) => error,
    }
}

pub(crate) fn tick(at: i64) -> (i64, PublishedValue) {
    (BASE_US + at * STEP_US, value(at.cast_unsigned() % 7))
}

pub(crate) fn commit(store: &mut Store, series: usize, ticks: impl IntoIterator<Item = (i64, PublishedValue)>) {
    let mut transaction = store.begin(now());
    let id = transaction.series(&key(0, series)).unwrap();
    for (micros, value) in ticks {
        transaction.upsert(id, Timestamp::from_micros(micros), value, false).unwrap();
    }
    transaction.commit().unwrap();
}

/// Records polls, each with another health than the poll before it. They make three chunks of poll spans.
fn poll(store: &mut Store) {
    let mut transaction = store.begin(now());
    for at in 0_i64..300 {
        let time = |step: i64| Timestamp::from_micros(BASE_US + (at + step) * STEP_US);
        let (source, health) = (key(0, 0).source, if at % 2 == 0 { Health::Ok } else { Health::Unreachable });
        transaction.record_poll(&Poll { source, time: time(0), covered_until: time(1), health }).unwrap();
    }
    transaction.commit().unwrap();
}

/// Creates a store with blocks of two series, polls of their source, held ticks, and two more commits in its log.
pub(crate) fn fill(directory: &Path) -> Store {
    let mut store = open(directory);
    commit(&mut store, 0, (0..TICKS).map(tick));
    commit(&mut store, 1, (0..50).map(tick));
    poll(&mut store);
    hold(&mut store, [3, 5_000, 9_999]);
    store.checkpoint().unwrap();
    commit(&mut store, 0, (TICKS..TICKS + 10).map(tick));
    commit(&mut store, 1, (50..60).map(tick));
    store
}

/// Adds held ticks to the first series: their rates are a hundred times higher than the others.
pub(crate) fn hold(store: &mut Store, ticks: impl IntoIterator<Item = i64>) {
    let mut transaction = store.begin(now());
    let id = transaction.series(&key(0, 0)).unwrap();
    for at in ticks {
        let (micros, good) = tick(at);
        let rate = Rate::from_parts(good.rate.mantissa(), u32::from(good.rate.places()) - 2).unwrap();
        let time = Timestamp::from_micros(micros + SECOND);
        let admitted =
            transaction.admit(id, time, PublishedValue { rate, ..good }, false, Some(RatioThreshold::DEFAULT));
        assert!(matches!(admitted, Ok(Admitted::Held { is_new: true, .. })), "{admitted:?}");
    }
    transaction.commit().unwrap();
}

/// Creates the store of [`fill`] and closes it cleanly. All its ticks are in blocks, and the high-water mark is up to
/// date.
pub(crate) fn fill_and_close(directory: &Path) {
    fill(directory).checkpoint().unwrap();
}

pub(crate) fn runs(store: &Store, series: usize, from: i64, to: i64) -> Result<Vec<Run>, StoreError> {
    let view = store.view();
    let Some(series) = view.find(&key(0, series)) else { return Ok(Vec::new()) };
    let (from, to) = (Timestamp::from_micros(from), Timestamp::from_micros(to));
    let pieces: Result<Vec<_>, _> = series.runs(from, to, Timestamp::MAX, ScanOrder::Ascending)?.collect();
    Ok(pieces?.concat())
}

pub(crate) fn all_runs(store: &Store, series: usize) -> Result<Vec<Run>, StoreError> {
    runs(store, series, i64::MIN, i64::MAX)
}

/// Opens sled directly, to change or remove records.
pub(crate) fn raw(directory: &Path) -> sled::Db {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let config = sled::Config::new().path(directory.join("sled")).segment_size(1 << 20).flush_every_ms(None);
        match config.open() {
            Ok(db) => return db,
            // A store that was just closed may still hold the lock.
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
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

/// Returns the keys with a prefix.
pub(crate) fn keys(db: &sled::Db, prefix: u8) -> Vec<Vec<u8>> {
    db.scan_prefix([prefix]).keys().map(|key| key.unwrap().to_vec()).collect()
}

/// Returns the block ids in the keys with a prefix; `at` is the position of the id in the key.
pub(crate) fn block_ids(db: &sled::Db, prefix: u8, at: usize) -> BTreeSet<u64> {
    keys(db, prefix).iter().map(|key| u64::from_be_bytes(key[at..at + 8].try_into().unwrap())).collect()
}

pub(crate) fn named_blocks(db: &sled::Db) -> BTreeSet<u64> {
    block_ids(db, b'x', 6)
}

pub(crate) fn stored_blocks(db: &sled::Db) -> BTreeSet<u64> {
    block_ids(db, b'b', 1)
}

pub(crate) fn flip(db: &sled::Db, key: &[u8], random: &mut Random) {
    let mut value = db.get(key).unwrap().unwrap().to_vec();
    let bit = random.below(value.len() as u64 * 8) as usize;
    value[bit / 8] ^= 1 << (bit % 8);
    db.insert(key, value).unwrap();
}

/// Reads the log and returns its path, its bytes and the ranges of its frames. A frame is magic (4 bytes), format (1),
/// the checksum of the previous frame (4), length of the payload (4), payload, checksum (4).
pub(crate) fn read_log(directory: &Path) -> (PathBuf, Vec<u8>, Vec<Range<usize>>) {
    let path = directory.join("log");
    let log = fs::read(&path).unwrap();
    let mut frames = Vec::new();
    let mut at = 16;
    while log[at.min(log.len())..].starts_with(b"\xF5rmE") {
        let payload_bytes = u32::from_le_bytes(log[at + 9..at + 13].try_into().unwrap()) as usize;
        frames.push(at..at + 17 + payload_bytes);
        at += 17 + payload_bytes;
    }
    (path, log, frames)
}
