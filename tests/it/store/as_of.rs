//! The cost of as-of reads. The tests count the blocks that a read decodes. The stores have so many revisions that a
//! read of all blocks of revisions exceeds the limit.

use std::path::Path;

use silkrate::domain::{CurrencySet, Pair, PublishedValue, Rate, ScanOrder, SeriesKey, Source, Timestamp};
use silkrate::store::{CheckpointLimits, Store, StoreError, StoreOptions, memory_only};

use crate::store::durable;

const SECOND: i64 = Timestamp::SECOND_US;
const BASE_US: i64 = 1_765_152_000 * SECOND;

fn options(directory: &Path) -> StoreOptions {
    let options = durable::options(directory, CheckpointLimits::default(), None);
    StoreOptions { collapse_window_default_us: Timestamp::HOUR_US, ..options }
}

fn key() -> SeriesKey {
    let pair = Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap();
    SeriesKey { pair, source: Source::parse("timesca").unwrap() }
}

fn second(second: u64) -> Timestamp {
    Timestamp::from_micros(BASE_US + i64::try_from(second).unwrap() * SECOND)
}

fn value(number: u64) -> PublishedValue {
    PublishedValue { rate: Rate::from_parts(u128::from(10_000 + number), 5).unwrap(), reported_change: None }
}

/// A store of one series. Each commit returns its recorded time, which is a known time for reads.
struct Fixture {
    store: Store,
    _directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(options(directory.path()), Timestamp::from_micros(BASE_US)).unwrap();
        Self { store, _directory: directory }
    }

    /// Commits one rate at each of the given seconds and returns the recorded time of the commit.
    fn commit(&mut self, ticks: impl IntoIterator<Item = (u64, u64)>) -> Timestamp {
        let mut transaction = self.store.begin(Timestamp::from_micros(BASE_US));
        let series = transaction.series(&key()).unwrap();
        for (at, number) in ticks {
            transaction.upsert(series, second(at), value(number), true).unwrap();
        }
        transaction.commit().unwrap();
        self.store.newest_commit().recorded_time
    }

    /// Revises every rate in ten commits. Each commit changes a tenth of the rates, scattered over all seconds.
    fn revise_all(&mut self, rates: u64, round: u64) -> Timestamp {
        let mut known = Timestamp::MIN;
        for part in 0..10 {
            let scattered = (part..rates).step_by(10).map(|nth| nth * 7_919 % rates);
            known = self.commit(scattered.map(|at| (at, at + round * rates)));
        }
        self.store.checkpoint().unwrap();
        known
    }

    /// Reads the rate at each of `seconds` as known at `known`, and compares it with `expect`. Each read must decode at
    /// most [`READ_BLOCKS_MAX`] blocks.
    fn check_reads(&self, known: Timestamp, seconds: &[u64], expect: impl Fn(u64) -> Option<u64>) {
        let view = self.store.view();
        let series = view.find(&key()).unwrap();
        for at in seconds {
            let before = view.blocks_read();
            let run = series.run_at(second(*at), known).unwrap();
            let blocks = view.blocks_read() - before;
            assert!(blocks <= READ_BLOCKS_MAX, "{blocks} blocks at second {at} as known at {known}");
            assert_eq!(run.map(|run| run.value), expect(*at).map(value), "at second {at} as known at {known}");
        }
    }

    /// Returns the number of blocks decoded by a read that may have to extend the revision index.
    fn blocks_decoded_by_first_read(&self, known: Timestamp) -> u64 {
        let view = self.store.view();
        let before = view.blocks_read();
        view.find(&key()).unwrap().run_at(second(0), known).unwrap();
        view.blocks_read() - before
    }
}

/// The most blocks that a read may decode: the block of runs at its time, the block of runs before it, and the block
/// of revisions that holds the result.
const READ_BLOCKS_MAX: u64 = 3;

fn every_240th(seconds: u64) -> Vec<u64> {
    (0..seconds).step_by(240).collect()
}

#[test]
fn read_decodes_few_blocks_after_every_rate_was_revised() {
    const RATES: u64 = 10_000;
    let mut fixture = Fixture::new();
    let mut known = vec![fixture.commit((0..RATES).map(|at| (at, at)))];
    known.extend((1..4).map(|round| fixture.revise_all(RATES, round)));
    // The index reads each block of revisions once, then only new blocks.
    let revision_blocks = 3 * RATES / 2_048 + 1;
    let first = fixture.blocks_decoded_by_first_read(known[0]);
    assert!((revision_blocks..=revision_blocks + 4).contains(&first), "{first} blocks were read for the index");
    for (round, known) in (0..).zip(&known) {
        fixture.check_reads(*known, &every_240th(RATES), |at| Some(at + round * RATES));
    }
    fixture.commit([(7, 1), (8_000, 2)]);
    fixture.store.checkpoint().unwrap();
    let more = fixture.blocks_decoded_by_first_read(known[0]);
    assert!(more <= 1 + READ_BLOCKS_MAX, "{more} blocks were read for two more revisions");
    fixture.check_reads(known[1], &every_240th(RATES), |at| Some(at + RATES));
}

#[test]
fn read_decodes_few_blocks_after_one_minute_was_revised_often() {
    const RATES: u64 = 5_000;
    let mut fixture = Fixture::new();
    fixture.commit((0..RATES).map(|at| (at, at)));
    let flap = |number: u64| (2_000..2_060).map(move |at| (at, at + (number % 2 + 1) * RATES));
    let known: Vec<Timestamp> = (0..150).map(|number| fixture.commit(flap(number))).collect();
    fixture.store.checkpoint().unwrap();
    fixture.commit(flap(150));
    fixture.blocks_decoded_by_first_read(known[0]);
    for number in [0, 1, 77, 149] {
        let expect = |at| Some(if (2_000..2_060).contains(&at) { at + (number % 2 + 1) * RATES } else { at });
        let known = known[usize::try_from(number).unwrap()];
        fixture.check_reads(known, &[0, 1_999, 2_000, 2_030, 2_059, 2_060, 4_999], expect);
    }
}

#[test]
fn read_decodes_few_blocks_after_backfill() {
    const RATES: u64 = 12_000;
    let mut fixture = Fixture::new();
    let known = fixture.commit((RATES..RATES + 10).map(|at| (at, at)));
    for start in [9_000, 6_000, 3_000, 0] {
        fixture.commit((start..start + 3_000).map(|at| (at, at)));
    }
    let check = |fixture: &Fixture| {
        let expect = |at: u64| at.checked_sub(RATES).map(|nth| RATES + nth.min(9));
        fixture.check_reads(known, &[0, 5_000, RATES - 1, RATES, RATES + 4, RATES + 500], expect);
        let series = fixture.store.view();
        let first = series.find(&key()).unwrap().first_observed_time(known).unwrap();
        assert_eq!(first, Some(second(RATES)));
    };
    check(&fixture);
    fixture.store.checkpoint().unwrap();
    check(&fixture);
}

#[test]
fn scan_decodes_each_block_of_revisions_a_few_times() {
    const RATES: u64 = 10_000;
    let mut fixture = Fixture::new();
    let known = fixture.commit((0..RATES).map(|at| (at, at)));
    fixture.revise_all(RATES, 1);
    let view = fixture.store.view();
    let series = view.find(&key()).unwrap();
    for order in [ScanOrder::Ascending, ScanOrder::Descending] {
        let before = view.blocks_read();
        let pieces = series.runs(Timestamp::MIN, Timestamp::MAX, known, order).unwrap();
        let mut runs: Vec<_> = pieces.flat_map(Result::unwrap).collect();
        if order == ScanOrder::Descending {
            runs.reverse();
        }
        assert!(runs.iter().map(|run| run.value).eq((0..RATES).map(value)));
        let blocks = view.blocks_read() - before;
        assert!(blocks <= 60, "{blocks} blocks were read for {RATES} runs");
    }
}

#[test]
fn read_without_the_disk_finds_the_same_rates_or_is_refused() {
    let mut fixture = Fixture::new();
    let rates = 10_000;
    let first = fixture.commit((0..rates).map(|at| (at * 2, at)));
    fixture.store.checkpoint().unwrap();
    // These rates are still in memory.
    fixture.commit((rates..rates + 100).map(|at| (at * 2, at)));
    let view = fixture.store.view();
    let series = view.find(&key()).unwrap();
    let newest = view.commit.recorded_time;
    let read = |at: u64| series.run_at(second(at), newest);
    let in_memory = |at: u64| memory_only(|| read(at));
    for at in [0, 1, 7_777, 12_000] {
        assert_eq!(in_memory(at), Err(StoreError::NotInMemory), "{at}");
    }
    let recent = |at: u64| in_memory(at).unwrap().unwrap().value;
    assert_eq!((recent(rates * 2), recent(rates * 2 + 201)), (value(rates), value(rates + 99)));
    // A read with the disk brings the block into memory. Then all its rates are found, and no block is read.
    for at in [0, 19_998] {
        read(at).unwrap();
    }
    let blocks = view.blocks_read();
    for at in [0, 1, 2, 901, 19_997, 19_998, 19_999] {
        assert_eq!(in_memory(at).unwrap().unwrap().value, value(at / 2), "{at}");
    }
    assert_eq!(view.blocks_read(), blocks);
    // The index of revisions is read from the disk.
    let earlier = memory_only(|| series.run_at(second(5), first));
    assert_eq!(earlier, Err(StoreError::NotInMemory));
    assert_eq!(series.run_at(second(5), first).unwrap().unwrap().value, value(2));
    // Scans need the disk.
    let mut pieces = series.instants(Timestamp::MIN, Timestamp::MAX, ScanOrder::Ascending);
    assert_eq!(memory_only(|| pieces.next()).unwrap(), Err(StoreError::NotInMemory));
}
