//! Damage on disk: a read returns what was written, or an error for the damaged range only.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use silkrate::domain::{PublishedValue, Rate, RateSpan, Run, ScanOrder, Timestamp};
use silkrate::ingest::{RefusalReason, Summary};
use silkrate::store::{CheckpointLimits, Store, StoreError};

use crate::store::durable::test_stores::{
    TICKS, all_runs, commit, copy, fill, fill_and_close, flip, keys, raw, read_log, refusal, runs, tick, try_open,
};
use crate::store::durable::{BASE_US, Random, SECOND, batch_of, key, open, run, submit, value};

/// Changes the bytes of a log; the ranges are the positions of its frames.
type LogChange<'a> = &'a dyn Fn(&mut Vec<u8>, &[Range<usize>]);

/// Counts of how damaged stores behaved.
#[derive(Default, Debug)]
struct Outcomes {
    refused: usize,
    damaged_ranges: usize,
    intact: usize,
}

impl Outcomes {
    /// Opens and reads a damaged store. Every value it returns must equal what was written.
    fn add(&mut self, directory: &Path, expected: &[Vec<Run>]) {
        let Ok(store) = try_open(directory) else {
            self.refused += 1;
            return;
        };
        let mut intact = true;
        for (series, expected) in expected.iter().enumerate() {
            match all_runs(&store, series) {
                Ok(runs) => assert_eq!(&runs, expected),
                Err(StoreError::DamagedBlock { .. }) => intact = false,
                Err(error) => panic!("{error}"),
            }
            let newest = store.view().find(&key(0, series)).unwrap().run_at(Timestamp::MAX, Timestamp::MAX);
            assert_eq!(newest.unwrap().as_ref(), expected.last());
        }
        let problems = store.verify().problems;
        assert!(intact || !problems.is_empty(), "verify does not report a problem that a read found");
        if problems.is_empty() {
            self.intact += 1;
        } else {
            self.damaged_ranges += 1;
        }
    }
}

/// Creates a closed store of many pages. The rates are random, so that their blocks do not compress. Seven or more
/// parts fill a segment of sled, which sled reads again when it opens.
fn fill_pages(directory: &Path, parts: i64) {
    let mut random = Random(9);
    let mut store = fill(directory);
    for part in 1..=parts {
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

fn damage_many(parts: i64, count: u64, mut damage: impl FnMut(&Path, u64)) -> Outcomes {
    let original = tempfile::tempdir().unwrap();
    fill_pages(original.path(), parts);
    let expected: Vec<Vec<Run>> = {
        let store = open(original.path());
        (0..2).map(|series| all_runs(&store, series).unwrap()).collect()
    };
    drop(raw(original.path()));
    let mut outcomes = Outcomes::default();
    for number in 0..count {
        let directory = tempfile::tempdir().unwrap();
        copy(original.path(), directory.path());
        damage(directory.path(), number);
        outcomes.add(directory.path(), &expected);
    }
    outcomes
}

#[test]
fn truncated_store_file_is_an_error_or_harmless() {
    const LENGTHS: u64 = 40;
    let began = Instant::now();
    let outcomes = damage_many(2, LENGTHS, |directory, number| {
        let path = directory.join("sled/db");
        let file = fs::File::options().write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        // Small steps near both ends, large steps between them.
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
fn flipped_bit_in_store_file_never_changes_a_rate() {
    const FLIPS: u64 = 64;
    let began = Instant::now();
    let mut random = Random(3);
    let outcomes = damage_many(9, FLIPS, |directory, number| {
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
        // Prefers written bytes to padding, where neighbouring bytes are equal.
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
fn damaged_record_is_refused_at_open() {
    let original = tempfile::tempdir().unwrap();
    drop(fill(original.path()));
    drop(raw(original.path()));
    let check = |prefix: u8, change: &mut dyn FnMut(&sled::Db, &[u8])| {
        let directory = tempfile::tempdir().unwrap();
        copy(original.path(), directory.path());
        let db = raw(directory.path());
        let keys = keys(&db, prefix);
        change(&db, &keys[keys.len() / 2]);
        drop(db);
        let error = refusal(directory.path());
        assert!(matches!(error, StoreError::Damaged { .. } | StoreError::NewerFormat { .. }), "{error}");
        error.to_string()
    };
    let mut random = Random(5);
    for prefix in *b"fmqsx" {
        for _ in 0..3 {
            check(prefix, &mut |db, key| flip(db, key, &mut random));
        }
        let truncated =
            check(prefix, &mut |db, key| drop(db.insert(key, &db.get(key).unwrap().unwrap()[1..]).unwrap()));
        assert!(truncated.contains("damaged") || truncated.contains("format"), "{truncated}");
    }
    for (prefix, expect) in [
        (b'f', "its record of polls is invalid"),
        (b'm', "its meta record is missing"),
        (b's', "the record of series"),
        (b'q', "the record of a held tick is invalid"),
        (b'x', "its index has missing or unexpected entries"),
    ] {
        let message = check(prefix, &mut |db, key| drop(db.remove(key).unwrap()));
        assert!(message.contains(expect) || message.contains("missing"), "{message}");
    }
    // Removes the last chunk of polls of a source, and the newest held tick. The remaining numbers have no gap, so only
    // the digest detects the removal.
    for prefix in *b"fq" {
        let message = check(prefix, &mut |db, _| drop(db.remove(keys(db, prefix).pop().unwrap()).unwrap()));
        assert!(message.contains("missing or unexpected"), "{message}");
    }
    // Replaces an index entry, or a chunk of polls, by another one.
    for prefix in *b"fx" {
        check(prefix, &mut |db, key| {
            let other = keys(db, prefix).remove(0);
            db.insert(key, db.get(other).unwrap().unwrap()).unwrap();
        });
    }
}

#[test]
fn damaged_log_is_refused_and_torn_last_frame_is_dropped() {
    let original = tempfile::tempdir().unwrap();
    drop(fill(original.path()));
    drop(raw(original.path()));
    let check = |change: LogChange<'_>, expect: Result<usize, &str>| {
        let directory = tempfile::tempdir().unwrap();
        copy(original.path(), directory.path());
        let (path, mut log, mut frames) = read_log(directory.path());
        // The rest of the file has frames that the checkpoint contains, or zeros.
        frames.truncate(2);
        log.truncate(frames[1].end);
        change(&mut log, &frames);
        fs::write(path, log).unwrap();
        match (try_open(directory.path()), expect) {
            // The second commit stored ten ticks in the second series.
            (Ok(store), Ok(count)) => {
                assert_eq!(all_runs(&store, 1).unwrap().len(), count);
                assert_eq!(store.verify().problems, Vec::<String>::new());
            }
            (Err(error), Err(expect)) => assert!(error.to_string().contains(expect), "{error}"),
            (Ok(_), Err(expect)) => panic!("the store opens, but expected the error: {expect}"),
            (Err(error), Ok(_)) => panic!("{error}"),
        }
    };
    check(&|_, _| {}, Ok(60));
    let whole = fs::read(original.path().join("log")).unwrap();
    check(&|log, _| *log = whole.clone(), Ok(60));
    for bit in [0, 40, 100] {
        check(&|log, frames| log[frames[0].start + bit / 8] ^= 1 << (bit % 8), Err("but later commits follow"));
    }
    check(&|log, frames| drop(log.drain(frames[0].clone())), Err("does not follow commit"));
    check(&|log, _| log[9] ^= 1, Err("its log belongs to another store"));
    check(&|log, _| log.truncate(10), Err("its log is truncated"));
    // A torn last frame is a commit that a crash interrupted.
    for kept in [1, 20, 60] {
        check(&|log, frames| log.truncate(frames[1].start + kept), Ok(50));
    }
    check(&|log, _| log.extend_from_slice(&[0; 700]), Ok(60));
    let directory = tempfile::tempdir().unwrap();
    copy(original.path(), directory.path());
    fs::remove_file(directory.path().join("log")).unwrap();
    let error = refusal(directory.path()).to_string();
    assert!(error.contains("its log is missing"), "{error}");
}

/// Returns the key of a column of the block with index `nth` of the given kind in the first series.
fn column_key(db: &sled::Db, kind: u8, nth: usize, column: u8) -> Vec<u8> {
    let of_kind = |key: &Vec<u8>| key[1..5] == 1_u32.to_be_bytes() && key[5] == kind;
    let block = keys(db, b'x').into_iter().filter(of_kind).nth(nth).unwrap();
    [b"b", &block[6..], &[column]].concat()
}

/// Flips a bit in one column of the second block of the given kind in the first series.
fn damage_second_block(directory: &Path, kind: u8, column: u8) {
    let db = raw(directory);
    flip(&db, &column_key(&db, kind, 1, column), &mut Random(u64::from(column)));
}

/// Columns of runs whose values are in the rates and times of a scan for candles. Column 4 is omitted here.
const RATE_COLUMNS: [u8; 4] = [0, 1, 3, 5];

/// Returns the times and rates of all runs of the first series.
fn rate_spans(store: &Store) -> Result<Vec<RateSpan>, StoreError> {
    let view = store.view();
    let scan = view.find(&key(0, 0)).unwrap().rate_spans(Timestamp::MIN, Timestamp::MAX, Timestamp::MAX)?;
    Ok(scan.collect::<Result<Vec<_>, _>>()?.concat())
}

#[test]
fn damaged_column_fails_exactly_the_reads_that_decode_it() {
    let original = tempfile::tempdir().unwrap();
    fill_and_close(original.path());
    let expected = rate_spans(&open(original.path())).unwrap();
    for column in [0, 1, 2, 3, 5, 6, 7] {
        let directory = tempfile::tempdir().unwrap();
        copy(original.path(), directory.path());
        damage_second_block(directory.path(), 0, column);
        let store = open(directory.path());
        let error = all_runs(&store, 0).unwrap_err();
        assert!(matches!(error, StoreError::DamagedBlock { what: "runs", .. }), "column {column}: {error}");
        match rate_spans(&store) {
            Ok(found) => assert!(!RATE_COLUMNS.contains(&column) && found == expected, "column {column}"),
            Err(error) => assert!(RATE_COLUMNS.contains(&column), "column {column}: {error}"),
        }
        let problems = store.verify().problems;
        assert!(problems.iter().any(|problem| problem.contains("the stored runs from")), "{problems:?}");
    }
}

#[test]
fn missing_or_swapped_column_is_damage_of_its_block_only() {
    let original = tempfile::tempdir().unwrap();
    fill_and_close(original.path());
    let check = |change: &dyn Fn(&sled::Db), from: i64, to: i64| {
        let directory = tempfile::tempdir().unwrap();
        copy(original.path(), directory.path());
        let db = raw(directory.path());
        change(&db);
        drop(db);
        let store = open(directory.path());
        let error = all_runs(&store, 0).unwrap_err();
        assert!(matches!(error, StoreError::DamagedBlock { what: "runs", .. }), "{error}");
        let (from, to) = (tick(from).0, tick(to).0);
        assert_eq!(runs(&store, 0, i64::MIN, from).map(|runs| runs.len()), Ok(2_048));
        assert!(runs(&store, 0, from, from + 1).is_err() && runs(&store, 0, to, to + 1).is_err());
        assert!(runs(&store, 0, to + 1, i64::MAX).is_ok());
        assert!(!store.verify().problems.is_empty());
    };
    let swap = |db: &sled::Db, one: &[u8], other: &[u8]| {
        let (first, second) = (db.get(one).unwrap().unwrap(), db.get(other).unwrap().unwrap());
        assert_ne!(first, second);
        db.insert(one, second).unwrap();
        db.insert(other, first).unwrap();
    };
    let of_second = |db: &sled::Db, column: u8| column_key(db, 0, 1, column);
    check(&|db| drop(db.remove(of_second(db, 2)).unwrap()), 2_048, 4_095);
    check(&|db| swap(db, &of_second(db, 1), &of_second(db, 2)), 2_048, 4_095);
    // The rates of both blocks repeat after seven runs, so their columns have similar sizes.
    check(&|db| swap(db, &of_second(db, 3), &column_key(db, 0, 2, 3)), 2_048, 6_143);
    check(&|db| swap(db, &of_second(db, 0), &column_key(db, 0, 2, 0)), 2_048, 6_143);
}

#[test]
fn damaged_block_of_runs_fails_reads_of_its_range_only() {
    for column in [0, 3, 7] {
        let directory = tempfile::tempdir().unwrap();
        fill_and_close(directory.path());
        damage_second_block(directory.path(), 0, column);
        let store = open(directory.path());
        let error = all_runs(&store, 0).unwrap_err();
        let StoreError::DamagedBlock { series, what: "runs", from, to, .. } = error else { panic!("{error}") };
        assert_eq!(*series, key(0, 0));
        // Blocks hold 2,048 runs, so the second block holds the ticks 2,048 to 4,095.
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
fn damaged_block_of_instants_leaves_rates_readable() {
    let directory = tempfile::tempdir().unwrap();
    fill_and_close(directory.path());
    damage_second_block(directory.path(), 1, 0);
    let store = open(directory.path());
    assert_eq!(all_runs(&store, 0).unwrap().len() as i64, TICKS + 10);
    let view = store.view();
    let error = view
        .find(&key(0, 0))
        .unwrap()
        .instants(Timestamp::MIN, Timestamp::MAX, ScanOrder::Ascending)
        .find_map(Result::err)
        .unwrap();
    assert!(matches!(error, StoreError::DamagedBlock { what: "instants", .. }), "{error}");
    let problems = store.verify().problems;
    assert!(problems.iter().any(|problem| problem.contains("the stored instants from")), "{problems:?}");
    drop((store, view));
    check_ingest_around_damage(directory.path(), 5_000);
}

/// Checks that a tick into the damaged range is refused with its reason, and that ticks before and after the range are
/// stored.
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

/// The byte that marks a block of revisions. In the key of an index entry, this byte follows the series.
const REVISIONS: u8 = 2;

/// Creates a store of rates that were revised three times. Returns the recorded time of each commit.
fn fill_revised(directory: &Path) -> Vec<Timestamp> {
    let mut store = open(directory);
    let mut known = Vec::new();
    for round in 0..4_i64 {
        let mut transaction = store.begin(Timestamp::from_micros(BASE_US));
        let series = transaction.series(&key(0, 0)).unwrap();
        for at in 0..3_000_i64 {
            let value = value((at + round * 11).cast_unsigned());
            transaction.upsert(series, Timestamp::from_micros(BASE_US + at * SECOND), value, true).unwrap();
        }
        transaction.commit().unwrap();
        known.push(store.newest_commit().recorded_time);
    }
    store.checkpoint().unwrap();
    known
}

/// Reads at every 50th second as known at each of the times, and returns one result per read.
fn reads_as_known(directory: &Path, known: &[Timestamp]) -> Vec<Result<Option<Run>, StoreError>> {
    let store = try_open(directory).unwrap();
    let view = store.view();
    let series = view.find(&key(0, 0)).unwrap();
    let times = (0..3_000_i64).step_by(50).map(|at| Timestamp::from_micros(BASE_US + at * SECOND));
    let reads = times.flat_map(|time| known.iter().map(move |known| (time, *known)));
    reads.map(|(time, known)| series.run_at(time, known)).collect()
}

#[test]
fn damaged_block_of_revisions_fails_only_reads_that_need_it() {
    let original = tempfile::tempdir().unwrap();
    let mut known = fill_revised(original.path());
    known.push(Timestamp::MAX);
    let expected: Vec<Option<Run>> = reads_as_known(original.path(), &known).into_iter().map(Result::unwrap).collect();
    let db = raw(original.path());
    let entries = keys(&db, b'x').into_iter().filter(|key| key[5] == REVISIONS);
    let blocks: Vec<[u8; 8]> = entries.map(|key| key[6..14].try_into().unwrap()).collect();
    drop(db);
    assert!(blocks.len() >= 4, "{} blocks of revisions", blocks.len());
    let mut random = Random(5);
    let (mut failed, mut answered) = (0, 0);
    for block in &blocks {
        let directory = tempfile::tempdir().unwrap();
        copy(original.path(), directory.path());
        let db = raw(directory.path());
        for column in keys(&db, b'b').iter().filter(|key| key[1..9] == *block) {
            flip(&db, column, &mut random);
        }
        db.flush().unwrap();
        drop(db);
        for (nth, (read, expected)) in reads_as_known(directory.path(), &known).into_iter().zip(&expected).enumerate() {
            match read {
                Ok(run) => {
                    assert_eq!(&run, expected);
                    answered += 1;
                }
                Err(StoreError::DamagedBlock { .. }) => {
                    assert_ne!(nth % known.len(), known.len() - 1, "a read as known now must not need revisions");
                    failed += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    println!("{} blocks: {failed} reads failed, {answered} answered", blocks.len());
    assert!(failed > blocks.len() && answered > failed / 4, "{failed} failed, {answered} answered");
}
