//! Opening a store that has leftovers, another format version or foreign files: it opens with its content, or fails
//! with the reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use silkrate::domain::{ScanOrder, Timestamp};
use silkrate::store::{Store, StoreError, verify};

use crate::store::durable::test_stores::{
    FORMAT, TICKS, all_runs, commit, copy, fill, fill_and_close, keys, named_blocks, raw, read_log, refusal,
    stored_blocks, tick, try_open,
};
use crate::store::durable::{instants, key, open, value};

#[test]
fn second_open_names_the_process_that_holds_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path());
    let error = refusal(directory.path());
    assert!(
        matches!(&error, StoreError::InUse { holder, .. }
        if holder.contains(&format!("process {}", std::process::id())) && holder.starts_with("it-")),
        "{error}"
    );
    assert!(matches!(verify(directory.path()), Err(StoreError::InUse { .. })));
    drop(first);
    open(directory.path());
}

#[test]
fn open_removes_leftovers_of_an_interrupted_start() {
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
fn store_with_blob_files_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fill_and_close(directory.path());
    drop(raw(directory.path()));
    fs::write(directory.path().join("sled/blobs/17"), "a page").unwrap();
    let error = refusal(directory.path()).to_string();
    assert!(error.contains("sled/blobs is not empty"), "{error}");
}

/// Rewrites a checksummed value with another format version and a correct checksum.
fn with_version(key: &[u8], value: &[u8], version: u8) -> Vec<u8> {
    let mut body = value[..value.len() - 4].to_vec();
    body[0] = version;
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &body);
    body.extend_from_slice(&crc.to_le_bytes());
    body
}

#[test]
fn newer_format_is_refused_and_named() {
    for prefix in *b"fmsx" {
        let directory = tempfile::tempdir().unwrap();
        drop(fill(directory.path()));
        let db = raw(directory.path());
        let key = keys(&db, prefix).remove(0);
        let value = db.get(&key).unwrap().unwrap();
        db.insert(&*key, with_version(&key, &value, FORMAT + 1)).unwrap();
        drop(db);
        let error = refusal(directory.path());
        assert!(
            matches!(error, StoreError::NewerFormat { found, supported: FORMAT, .. } if found == FORMAT + 1),
            "{error}"
        );
        assert!(error.to_string().contains("run a newer silkrate"), "{error}");
    }
    let directory = tempfile::tempdir().unwrap();
    drop(fill(directory.path()));
    let (path, mut log, frames) = read_log(directory.path());
    let (first, checksum) = (frames[0].start, frames[0].end - 4);
    log[first + 4] += 1;
    let crc = crc32c::crc32c(&log[first..checksum]);
    log[checksum..frames[0].end].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, log).unwrap();
    let error = refusal(directory.path());
    assert!(matches!(error, StoreError::NewerFormat { found, .. } if found == FORMAT + 1), "{error}");
}

#[test]
fn store_behind_its_high_water_mark_is_refused() {
    let (directory, copied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sled = directory.path().join("sled");
    fill_and_close(directory.path());
    drop(raw(directory.path()));
    copy(&sled, copied.path());
    let log = fs::read(directory.path().join("log")).unwrap();
    let mut store = open(directory.path());
    let sequence = store.newest_commit().sequence;
    commit(&mut store, 0, [tick(TICKS + 20)]);
    store.checkpoint().unwrap();
    drop(store);
    drop(raw(directory.path()));
    fs::remove_dir_all(&sled).unwrap();
    copy(copied.path(), &sled);
    // The log still has the commit until others overwrite it, so the store is complete.
    let whole = tempfile::tempdir().unwrap();
    copy(directory.path(), whole.path());
    assert_eq!(open(whole.path()).newest_commit().sequence, sequence + 1);
    fs::write(directory.path().join("log"), log).unwrap();
    let error = refusal(directory.path());
    assert!(
        matches!(error, StoreError::Behind { sequence: found, high_water_mark, .. } if found == sequence && high_water_mark == sequence + 1),
        "{error}"
    );
    fs::remove_dir_all(&sled).unwrap();
    let error = refusal(directory.path()).to_string();
    assert!(error.contains("its meta record is missing"), "{error}");
}

fn flip_lowest_bit(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn high_water_mark_may_be_old_or_have_one_damaged_slot_but_must_exist() {
    let check = |change: fn(&Path), expect: Option<&str>| {
        let directory = tempfile::tempdir().unwrap();
        // The log is newer than the high-water mark, as after a kill.
        drop(fill(directory.path()));
        change(&directory.path().join("witness"));
        match (try_open(directory.path()), expect) {
            (Ok(store), None) => assert_eq!(all_runs(&store, 0).unwrap().len() as i64, TICKS + 10),
            (Err(error), Some(expect)) => assert!(error.to_string().contains(expect), "{error}"),
            (Ok(_), Some(expect)) => panic!("the store opens, but expected the error: {expect}"),
            (Err(error), None) => panic!("{error}"),
        }
    };
    check(|_| {}, None);
    check(|path| flip_lowest_bit(path, 20), None);
    check(|path| flip_lowest_bit(path, 60), None);
    check(
        |path| {
            flip_lowest_bit(path, 0);
            flip_lowest_bit(path, 32);
        },
        Some("(file 'witness') cannot be decoded"),
    );
    check(|path| fs::write(path, "").unwrap(), Some("(file 'witness') cannot be decoded"));
    check(|path| fs::remove_file(path).unwrap(), Some("(file 'witness') is missing"));
    check(
        |path| {
            let other = tempfile::tempdir().unwrap();
            fill_and_close(other.path());
            fs::copy(other.path().join("witness"), path).unwrap();
        },
        Some("(file 'witness') belongs to another store"),
    );
}

#[test]
fn unreferenced_blocks_are_removed_and_block_ids_are_never_reused() {
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
        // Blocks of an interrupted checkpoint.
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
        // Late ticks into old blocks replace those blocks.
        commit(&mut store, 0, (0..3).map(|at| (tick(at * 4_000).0 + generation + 1, value(3))));
        store.checkpoint().unwrap();
    }
    let retired = keys(&raw(directory.path()), b'r');
    assert!(!retired.is_empty(), "no block was replaced");
}

/// Commits late ticks into each block, and seals them in slices.
fn commit_late_and_seal(store: &mut Store, round: i64) {
    commit(store, 0, (0..5).map(|at| (tick(at * 2_000).0 + round + 1, value(2))));
    let before = store.slice_count();
    while store.seal_slice().unwrap() {}
    assert!(store.slice_count() > before && store.sealed_block_count() > 4);
}

#[test]
fn blocks_of_slices_are_indexed_by_the_next_checkpoint_or_removed_by_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    fill_and_close(directory.path());
    for has_checkpoint in [false, true] {
        let mut store = open(directory.path());
        for round in 0..3 {
            commit_late_and_seal(&mut store, i64::from(has_checkpoint) * 10 + round);
        }
        let sealed = store.sealed_block_count();
        let expected = all_runs(&store, 0).unwrap();
        if has_checkpoint {
            store.checkpoint().unwrap();
            assert_eq!(store.sealed_block_count(), 0);
        }
        drop(store);
        let db = raw(directory.path());
        let (named, stored) = (named_blocks(&db), stored_blocks(&db));
        let newest = named.last().copied().unwrap();
        let unnamed = stored.iter().filter(|id| **id > newest).count();
        // The blocks of the first two rounds are replaced in the last round, and removed because no reader holds them.
        assert_eq!(unnamed, if has_checkpoint { 0 } else { sealed });
        assert!(named.is_subset(&stored));
        drop(db);
        let store = open(directory.path());
        assert_eq!(all_runs(&store, 0).unwrap(), expected);
        assert_eq!(store.verify().problems, Vec::<String>::new());
        drop(store);
        let db = raw(directory.path());
        assert_eq!(stored_blocks(&db), named_blocks(&db));
    }
}

#[test]
fn view_keeps_replaced_blocks_of_slices_readable() {
    let directory = tempfile::tempdir().unwrap();
    fill_and_close(directory.path());
    let mut store = open(directory.path());
    commit_late_and_seal(&mut store, 0);
    let (earlier, before) = (store.view(), all_runs(&store, 0).unwrap());
    for round in 1..5 {
        commit_late_and_seal(&mut store, round);
        if round == 3 {
            store.checkpoint().unwrap();
        }
    }
    let series = Arc::clone(earlier.find(&key(0, 0)).unwrap());
    let pieces = series.runs(Timestamp::MIN, Timestamp::MAX, Timestamp::MAX, ScanOrder::Ascending).unwrap();
    assert_eq!(pieces.flat_map(Result::unwrap).collect::<Vec<_>>(), before);
    drop((series, earlier));
    store.checkpoint().unwrap();
    assert_eq!(instants(&store.view(), &key(0, 0)).len() as i64, TICKS + 10 + 25);
    drop(store);
    let db = raw(directory.path());
    // Every block that is neither named nor marked as retired was removed.
    let retired = keys(&db, b'r').len();
    assert!(stored_blocks(&db).len() <= named_blocks(&db).len() + retired);
}

#[test]
fn view_keeps_its_blocks_readable() {
    let directory = tempfile::tempdir().unwrap();
    fill_and_close(directory.path());
    let mut store = open(directory.path());
    let earlier = store.view();
    let before = all_runs(&store, 0).unwrap();
    for round in 0..5 {
        commit(&mut store, 0, (0..5).map(|at| (tick(at * 2_000).0 + round + 1, value(2))));
        store.checkpoint().unwrap();
    }
    let series = Arc::clone(earlier.find(&key(0, 0)).unwrap());
    let pieces = series.runs(Timestamp::MIN, Timestamp::MAX, Timestamp::MAX, ScanOrder::Ascending).unwrap();
    assert_eq!(pieces.flat_map(Result::unwrap).collect::<Vec<_>>(), before);
    drop((series, earlier));
    assert_eq!(instants(&store.view(), &key(0, 0)).len() as i64, TICKS + 10 + 25);
}
