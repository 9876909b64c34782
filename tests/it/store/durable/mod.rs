//! Shared parts of the durability tests: a deterministic load, a child process that ingests it, and the comparison of
//! a store with the expected content.
//!
//! Each thread of the child sends its batches one after the other into two series of its own, and prints an
//! acknowledgement to stdout after each response. When the child dies, at most one batch per thread is unacknowledged,
//! and the ticks of a batch follow from its thread and number.

pub(crate) mod syscalls;
pub(crate) mod test_stores;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use silkrate::clock::{Clock as _, SystemClock};
use silkrate::domain::{
    CurrencySet, Pair, PublishedValue, Rate, RatioThreshold, ReportedChange, ScanOrder, SeriesKey, Source, Timestamp,
};
use silkrate::ingest::{
    Batch, BatchTick, ConflictPolicy, Ingest, IngestError, IngestReport, QueueLimits, Running, SeriesTicks,
};
use silkrate::latest_quotes::StateRules;
use silkrate::store::{CheckpointLimits, Commit, DiskFault, DiskOperation, Store, StoreOptions, View};

pub(crate) use crate::random::Random;

pub(crate) const SECOND: i64 = Timestamp::SECOND_US;
pub(crate) const WINDOW_US: i64 = 10 * SECOND;
/// 2020-01-01. Far in the past, so that no commit becomes due by time alone.
pub(crate) const BASE_US: i64 = 1_577_836_800 * SECOND;
pub(crate) const THREADS: u64 = 4;
pub(crate) const SERIES_PER_THREAD: usize = 2;
/// Batches of each thread that have many ticks.
const LARGE_BATCHES: std::ops::Range<u64> = 1..4;
/// Each batch puts its fresh ticks into one hour of its own.
const SLOT_US: i64 = 3_600 * SECOND;

/// Limits so small that a checkpoint follows every few commits.
pub(crate) const TINY_CHECKPOINTS: CheckpointLimits =
    CheckpointLimits { log_bytes: 2 << 10, head_items: 3_000, mutable_segments: 4, sealed_blocks: 6 };

/// Limits that make a slice follow every commit with a late tick. A checkpoint follows every few slices.
pub(crate) const SLICES: CheckpointLimits =
    CheckpointLimits { log_bytes: 16 << 10, head_items: 200_000, mutable_segments: 1, sealed_blocks: 12 };

pub(crate) fn options(directory: &Path, checkpoint: CheckpointLimits, disk_fault: Option<DiskFault>) -> StoreOptions {
    StoreOptions {
        directory: directory.to_owned(),
        collapse_window_default_us: WINDOW_US,
        collapse_windows_us: BTreeMap::new(),
        recollapse: false,
        state_rules: StateRules::uniform(3_600 * SECOND, 86_400 * SECOND),
        reserve_bytes: 0,
        cache_bytes: 64 << 20,
        series_count_max: 100,
        configured_sources: Arc::default(),
        checkpoint,
        disk_fault,
    }
}

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

pub(crate) fn open(directory: &Path) -> Store {
    Store::open(options(directory, CheckpointLimits::default(), None), now()).unwrap()
}

pub(crate) fn run(directory: &Path, checkpoint: CheckpointLimits, disk_fault: Option<DiskFault>) -> Running {
    Running::open(options(directory, checkpoint, disk_fault), QueueLimits::default(), Arc::new(SystemClock)).unwrap().0
}

/// Sends a batch and waits for the response.
pub(crate) fn submit(ingest: &Ingest, batch: Batch) -> Result<IngestReport, IngestError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(ingest.submit(batch))
}

pub(crate) fn key(thread: u64, series: usize) -> SeriesKey {
    let pair = ["KGS/USD", "KZT/USD"][series];
    SeriesKey {
        pair: Pair::parse(pair, &CurrencySet::central_asia()).unwrap(),
        source: Source::parse(&format!("thread-{thread}")).unwrap(),
    }
}

pub(crate) fn value(number: u64) -> PublishedValue {
    PublishedValue {
        rate: Rate::from_parts(u128::from(1_144 + number / 2), 5).unwrap(),
        reported_change: number.is_multiple_of(2).then(|| ReportedChange::parse("-0").unwrap()),
    }
}

/// Builds a batch of one series.
pub(crate) fn batch_of(key: &SeriesKey, ticks: impl IntoIterator<Item = (i64, PublishedValue)>, revise: bool) -> Batch {
    let ticks = (0_u32..).zip(ticks).map(|(index, (micros, value))| BatchTick {
        index,
        observed_time: Timestamp::from_micros(micros),
        value,
    });
    Batch {
        groups: vec![SeriesTicks { series: key.clone(), ticks: ticks.collect(), quarantine_threshold: None }],
        conflict_policy: if revise { ConflictPolicy::Revise } else { ConflictPolicy::Refuse },
        ..Batch::default()
    }
}

/// One batch of the load: ticks by series of its thread, at distinct instants.
pub(crate) struct PlannedBatch {
    pub(crate) ticks: Vec<(usize, i64, PublishedValue)>,
    pub(crate) revise: bool,
    /// In some batches: a tick of the first series with a rate a hundred times higher than the others, which is held.
    pub(crate) outlier: Option<(i64, PublishedValue)>,
}

/// Returns the ticks that only this batch contains: the newest ticks, or late ticks between the ticks of an earlier
/// batch. The microseconds of their times equal the batch number, so no other batch has the same instants. The first
/// tick is always in series 0: the batch is stored if and only if that tick is stored.
fn fresh(thread: u64, number: u64) -> (Vec<(usize, i64, PublishedValue)>, Random) {
    let mut random = Random(thread << 40 | number);
    let count = match random.below(40) {
        // The first large batches fill several blocks, so that later late ticks fall into blocks.
        _ if LARGE_BATCHES.contains(&number) => 3_000,
        0 => 3_000,
        1..=4 => 100 + random.below(400),
        5..=15 => 2 + random.below(30),
        _ => 1,
    };
    let late = random.below(3) == 0;
    let slot = match late {
        true if random.below(2) == 0 => LARGE_BATCHES.start + random.below(LARGE_BATCHES.end - LARGE_BATCHES.start),
        true => random.below(number + 1),
        false => number,
    };
    let step_us = if count > 500 { SECOND } else { SECOND * (1 + random.below(7).cast_signed()) };
    let base_us = BASE_US + slot.cast_signed() * SLOT_US + number.cast_signed();
    let ticks = (0..count.cast_signed())
        .map(|at| {
            let series = if at == 0 { 0 } else { random.below(3) as usize % SERIES_PER_THREAD };
            (series, base_us + at * step_us, value(random.below(4)))
        })
        .collect();
    (ticks, random)
}

/// Builds a rate with two decimal places fewer than the rates of [`value`].
fn outlier_rate(mantissa: u128) -> Rate {
    Rate::from_parts(mantissa, 3).unwrap()
}

/// Returns the batch that a thread sends as its `number`-th: fresh ticks, and sometimes ticks of an earlier batch
/// again, unchanged or revised.
pub(crate) fn plan(thread: u64, number: u64) -> PlannedBatch {
    let (mut ticks, mut random) = fresh(thread, number);
    let again = random.below(6);
    if number > 0 && again < 2 {
        let (old, _) = fresh(thread, random.below(number));
        // Skips the first tick, because its presence identifies the earlier batch.
        let mut old: Vec<_> = old.into_iter().skip(1).take(60).collect();
        if again == 0 {
            for tick in &mut old {
                tick.2 = value(random.below(6));
            }
        }
        ticks.extend(old);
    }
    // The outlier is half a second after the first tick, where no batch has an instant. The number of held ticks stays
    // below the limit.
    let has_outlier = number.is_multiple_of(16) && number < 12_000;
    let outlier =
        has_outlier.then(|| (ticks[0].1 + SECOND / 2, PublishedValue { rate: outlier_rate(1_144), ..value(0) }));
    PlannedBatch { ticks, revise: again == 0, outlier }
}

impl PlannedBatch {
    pub(crate) fn batch(&self, thread: u64) -> Batch {
        let outlier = self.outlier.map(|(micros, value)| (0, micros, value));
        let group = |series: usize| SeriesTicks {
            series: key(thread, series),
            ticks: (0_u32..)
                .zip(self.ticks.iter().chain(&outlier))
                .filter(|(_, tick)| tick.0 == series)
                .map(|(index, (_, micros, value))| BatchTick {
                    index,
                    observed_time: Timestamp::from_micros(*micros),
                    value: *value,
                })
                .collect(),
            quarantine_threshold: Some(RatioThreshold::DEFAULT),
        };
        Batch {
            groups: (0..SERIES_PER_THREAD).map(group).filter(|group| !group.ticks.is_empty()).collect(),
            conflict_policy: if self.revise { ConflictPolicy::Revise } else { ConflictPolicy::Refuse },
            ..Batch::default()
        }
    }
}

/// The expected content of a thread's series: values by instant.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Model([BTreeMap<i64, PublishedValue>; SERIES_PER_THREAD]);

impl Model {
    pub(crate) fn apply(&mut self, planned: &PlannedBatch) {
        for (series, micros, value) in &planned.ticks {
            if planned.revise {
                self.0[*series].insert(*micros, *value);
            } else {
                self.0[*series].entry(*micros).or_insert(*value);
            }
        }
    }
}

/// A response that the child acknowledged on stdout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ack {
    pub(crate) thread: u64,
    pub(crate) number: u64,
    pub(crate) commit: Commit,
    /// Slices that the process had made.
    pub(crate) slices: u64,
}

impl Ack {
    /// Parses a line of the child's output. The test runner may have printed text before the acknowledgement.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_once("ack ")?.1.split_whitespace();
        let mut next = || fields.next()?.parse::<i64>().ok();
        let (thread, number, sequence, micros, slices) = (next()?, next()?, next()?, next()?, next()?);
        Some(Self {
            slices: slices.cast_unsigned(),
            thread: thread.cast_unsigned(),
            number: number.cast_unsigned(),
            commit: Commit { sequence: sequence.cast_unsigned(), recorded_time: Timestamp::from_micros(micros) },
        })
    }
}

/// All acknowledgements of one store, over all processes that served it.
#[derive(Clone, Default)]
pub(crate) struct AckHistory {
    pub(crate) acks: Vec<Ack>,
    /// By thread, the number of the first batch that the next process sends. The previous process may have sent that
    /// batch and died before the response, so it is unknown whether the store has the batch until it is sent again.
    pub(crate) next: [u64; THREADS as usize],
}

impl AckHistory {
    /// Adds the acknowledgements of a process that has ended.
    pub(crate) fn extend(&mut self, acks: &[Ack]) {
        self.acks.extend(acks);
        for thread in 0..THREADS {
            if let Some(last) = acks.iter().filter(|ack| ack.thread == thread).map(|ack| ack.number).max() {
                self.next[thread as usize] = last + 1;
            }
        }
    }

    /// Checks that the store has every acknowledged batch under its sequence and recorded time, and every other batch
    /// completely or not at all.
    pub(crate) fn check(&self, store: &Store, random: &mut Random) {
        assert_eq!(store.verify().problems, Vec::<String>::new());
        let view = store.view();
        let newest = self.acks.iter().map(|ack| ack.commit.sequence).max().unwrap_or(0);
        assert!(view.commit.sequence >= newest, "{:?} is behind the acknowledged commit {newest}", view.commit);
        self.check_commits(&view, random);
        for thread in 0..THREADS {
            self.check_thread(&view, thread, random);
        }
    }

    /// Checks that acknowledged commits keep their sequence and recorded time.
    fn check_commits(&self, view: &View, random: &mut Random) {
        let mut times: BTreeMap<u64, Timestamp> = BTreeMap::new();
        for ack in &self.acks {
            let time = times.entry(ack.commit.sequence).or_insert(ack.commit.recorded_time);
            assert_eq!(*time, ack.commit.recorded_time, "two recorded times for commit {}", ack.commit.sequence);
        }
        assert!(times.values().is_sorted(), "recorded times decrease");
        for (sequence, recorded_time) in times {
            if random.below(4) == 0 || sequence + 20 > view.commit.sequence {
                assert_eq!(view.commit_at(recorded_time).unwrap(), Some(Commit { sequence, recorded_time }));
            }
        }
    }

    fn check_thread(&self, view: &View, thread: u64, random: &mut Random) {
        let mut acked: BTreeMap<u64, Commit> = BTreeMap::new();
        for ack in self.acks.iter().filter(|ack| ack.thread == thread) {
            assert!(
                acked
                    .last_key_value()
                    .is_none_or(|(number, commit)| { *number < ack.number && commit.sequence < ack.commit.sequence })
            );
            acked.insert(ack.number, ack.commit);
        }
        let instants: [Vec<i64>; SERIES_PER_THREAD] =
            std::array::from_fn(|series| instants(view, &key(thread, series)));
        let held = held(view, &key(thread, 0));
        let mut expected = BTreeSet::new();
        let probe = acked.keys().nth(random.below(acked.len().max(1) as u64) as usize).copied();
        let mut model = Model::default();
        for number in 0..=self.next[thread as usize] {
            let planned = plan(thread, number);
            let is_there = instants[0].binary_search(&planned.ticks[0].1).is_ok();
            assert!(is_there || !acked.contains_key(&number), "batch {number} of thread {thread} is lost");
            if is_there {
                model.apply(&planned);
                expected.extend(planned.outlier.map(|(micros, _)| micros));
            }
            if Some(number) == probe {
                compare(view, thread, &model, acked[&number].recorded_time);
            }
        }
        for (series, instants) in instants.iter().enumerate() {
            assert!(instants.iter().eq(model.0[series].keys()), "thread {thread}: a batch is stored partially");
        }
        assert_eq!(held, expected, "thread {thread}: the held ticks differ");
        compare(view, thread, &model, Timestamp::MAX);
    }
}

/// Returns the instants at which the series has a held tick.
fn held(view: &View, key: &SeriesKey) -> BTreeSet<i64> {
    let ticks = view.quarantine().after(0).filter(|tick| *tick.series == *key);
    ticks.map(|tick| tick.observed_time.micros()).collect()
}

pub(crate) fn instants(view: &View, key: &SeriesKey) -> Vec<i64> {
    let Some(series) = view.find(key) else { return Vec::new() };
    series
        .instants(Timestamp::MIN, Timestamp::MAX, ScanOrder::Ascending)
        .flat_map(Result::unwrap)
        .map(Timestamp::micros)
        .collect()
}

/// Checks that the store, as known at `known`, has the model's value at every instant of the model.
fn compare(view: &View, thread: u64, model: &Model, known: Timestamp) {
    for (series, ticks) in model.0.iter().enumerate() {
        let Some(series) = view.find(&key(thread, series)) else {
            assert!(ticks.is_empty(), "series {series} of thread {thread} is lost");
            continue;
        };
        let runs: Vec<_> = series
            .runs(Timestamp::MIN, Timestamp::MAX, known, ScanOrder::Ascending)
            .unwrap()
            .flat_map(Result::unwrap)
            .collect();
        let mut at = 0;
        for (micros, value) in ticks {
            while runs.get(at + 1).is_some_and(|run| run.first_observed_time.micros() <= *micros) {
                at += 1;
            }
            assert!(
                runs.get(at).is_some_and(|run| run.first_observed_time.micros() <= *micros && run.value == *value),
                "{}: {:?} instead of {value:?} at {micros} as known at {known}",
                series.key(),
                runs.get(at)
            );
        }
    }
}

/// Instructions for a child process.
#[derive(Clone)]
pub(crate) struct ChildPlan {
    pub(crate) directory: PathBuf,
    pub(crate) next: [u64; THREADS as usize],
    pub(crate) checkpoint: CheckpointLimits,
    /// After this number of acknowledgements the process exits just before the next sync, while its threads are
    /// sending.
    pub(crate) exit_after: u64,
    /// After this time the child closes the store and exits.
    pub(crate) close_after: Duration,
}

const CHILD: &str = "SILKRATE_TEST_CHILD";

impl ChildPlan {
    /// Makes `command` run this test binary as the child; `test` is the name of the test that calls [`child`].
    pub(crate) fn apply_to(&self, mut command: Command, test: &str) -> Command {
        let limits = self.checkpoint;
        let fields: Vec<String> = self
            .next
            .into_iter()
            .chain([limits.log_bytes, limits.head_items as u64])
            .chain([limits.mutable_segments as u64, limits.sealed_blocks as u64])
            .chain([self.exit_after, self.close_after.as_millis().try_into().unwrap()])
            .map(|number| number.to_string())
            .collect();
        command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, format!("{} {}", fields.join(" "), self.directory.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    fn from_environment() -> Option<Self> {
        let plan = std::env::var(CHILD).ok()?;
        let fields: Vec<&str> = plan.splitn(11, ' ').collect();
        let number = |at: usize| fields[at].parse::<u64>().unwrap();
        Some(Self {
            directory: fields[10].into(),
            next: std::array::from_fn(number),
            checkpoint: CheckpointLimits {
                log_bytes: number(4),
                head_items: number(5) as usize,
                mutable_segments: number(6) as usize,
                sealed_blocks: number(7) as usize,
            },
            exit_after: number(8),
            close_after: Duration::from_millis(number(9)),
        })
    }
}

/// Runs the child if this process is one: ingests until it is killed or its plan ends.
pub(crate) fn child() {
    let Some(plan) = ChildPlan::from_environment() else { return };
    let acks = Arc::new(AtomicU64::new(0));
    let exit: DiskFault = {
        let acks = Arc::clone(&acks);
        Arc::new(move |operation| {
            if operation == DiskOperation::Sync && acks.load(Ordering::SeqCst) >= plan.exit_after {
                std::process::exit(0);
            }
            Ok(())
        })
    };
    let running = run(&plan.directory, plan.checkpoint, Some(exit));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (ingest, acks, plan) = (running.ingest().clone(), Arc::clone(&acks), plan.clone());
            std::thread::spawn(move || send(&ingest, thread, &plan, &acks))
        })
        .collect();
    std::thread::sleep(plan.close_after);
    running.close().unwrap();
    for thread in threads {
        thread.join().unwrap();
    }
    std::process::exit(0);
}

fn send(ingest: &Ingest, thread: u64, plan: &ChildPlan, acks: &AtomicU64) {
    for number in plan.next[thread as usize].. {
        let report = match submit(ingest, self::plan(thread, number).batch(thread)) {
            Ok(report) => report,
            Err(IngestError::Draining) => return,
            Err(error) => panic!("{error}"),
        };
        // One write per line: lines of several threads do not mix, and a killed process leaves at most one incomplete
        // line at the end.
        let (micros, slices) = (report.recorded_time.micros(), ingest.metrics().slice_count());
        let line = format!("ack {thread} {number} {} {micros} {slices}\n", report.sequence);
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
        acks.fetch_add(1, Ordering::SeqCst);
    }
}
