//! Tests of backups and restores: a store that changes in all ways that a store can change, backups of it in directories
//! and buckets, and comparison of restored stores with what the original answered.

mod bucket;
mod concurrent;
mod damage;
mod directory;
mod log;
mod program;
mod proxy;
mod schedule;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use silkrate::backup::{
    At, BackupError, Destination, Location, ProduceError, Restored, Writer, Written, produce, restore,
};
use silkrate::clock::{Clock as _, ManualClock};
use silkrate::domain::{
    Health, Pair, Poll, PublishedValue, Rate, RatioThreshold, ScanOrder, SeriesKey, Source, Timestamp, Verdict,
};
use silkrate::ingest::{
    ArchiveRequest, Batch, BatchTick, ConflictPolicy, DecisionRequest, Ingest, QueueLimits, Running, SeriesTicks,
};
use silkrate::store::{Commit, Store, StoreOptions, View};
use tempfile::TempDir;

use crate::files::options;
use crate::full_export::Parts;
use crate::random::Random;
use crate::support::NOW;

pub(crate) const SECOND_US: i64 = Timestamp::SECOND_US;

/// A running store with the views of its commits.
pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    running: Option<Running>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) random: Random,
    /// The view of each commit, by sequence.
    pub(crate) views: BTreeMap<u64, Arc<View>>,
    next_us: i64,
}

impl Fixture {
    pub(crate) fn start(seed: u64) -> Self {
        Self::start_with(seed, |_| {})
    }

    pub(crate) fn start_with(seed: u64, change: impl FnOnce(&mut StoreOptions)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(NOW));
        let mut options = options(&dir.path().join("db"));
        change(&mut options);
        let running = open(options, &clock);
        let next_us = NOW.micros() - 40 * Timestamp::DAY_US;
        Self { dir, running: Some(running), clock, random: Random(seed), views: BTreeMap::new(), next_us }
    }

    pub(crate) fn ingest(&self) -> &Ingest {
        self.running.as_ref().unwrap().ingest()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.ingest().view()
    }

    /// Closes the store.
    pub(crate) fn close(&mut self) {
        self.running.take().unwrap().close().unwrap();
    }

    /// Opens the store again, in this directory.
    pub(crate) fn open(&mut self, directory: &str) {
        self.running = Some(open(options(&self.path(directory)), &self.clock));
    }

    /// Makes some random changes of all kinds: new, late and revised ticks, held ticks, decisions, polls, archived sources.
    pub(crate) async fn step(&mut self, ticks: u64) {
        self.clock.advance_us(SECOND_US + self.random.below(1_000) as i64);
        let mut groups: BTreeMap<SeriesKey, Vec<BatchTick>> = BTreeMap::new();
        for index in 0..ticks {
            self.next_us += self.random.below(5_000_000) as i64 + 1;
            let is_late = self.random.below(8) == 0;
            let back_us = if is_late { self.random.below(20 * Timestamp::DAY_US as u64) as i64 } else { 0 };
            let time = Timestamp::from_micros(self.next_us - back_us);
            let outlier = if self.random.below(200) == 0 { 100 } else { 1 };
            let mantissa = u128::from((1_144 + self.random.below(3)) * outlier);
            let rate = Rate::from_parts(mantissa, 5).unwrap();
            let value = PublishedValue { rate, reported_change: None };
            let key = key(self.random.below(4));
            let tick = BatchTick { index: index as u32, observed_time: time, value };
            groups.entry(key).or_default().push(tick);
        }
        let threshold = Some(RatioThreshold::parse("5").unwrap());
        let groups =
            groups.into_iter().map(|(series, ticks)| SeriesTicks { series, ticks, quarantine_threshold: threshold });
        let batch = Batch { groups: groups.collect(), conflict_policy: ConflictPolicy::Revise, ..Batch::default() };
        let report = self.ingest().submit(batch).await.unwrap();
        self.record();
        for held in report.held.iter().filter(|held| !held.is_discarded).filter_map(|held| held.id) {
            let verdict = match held % 3 {
                0 => Verdict::Released,
                1 => Verdict::Discarded,
                _ => continue,
            };
            let conflict_policy = ConflictPolicy::Revise;
            self.ingest()
                .decide(DecisionRequest { ids: vec![held], verdict, note: None, conflict_policy })
                .await
                .unwrap();
            self.record();
        }
        let source = Source::parse("nbk").unwrap();
        let (time, covered_until) = (self.clock.now(), self.clock.now().saturating_add_us(SECOND_US));
        self.ingest().record_poll(Poll { source, time, covered_until, health: Health::Ok }).await.unwrap();
        self.record();
        if self.random.below(6) == 0 {
            let source = Source::parse("source-1").unwrap();
            let is_archived = !self.view().archived().is_archived(&source, Timestamp::MAX);
            // The source may have no series yet.
            let _ = self.ingest().archive(ArchiveRequest { source, is_archived, note: None }).await;
        }
        self.record();
    }

    /// Keeps the view of the newest commit.
    fn record(&mut self) {
        let view = self.view();
        self.views.insert(view.commit.sequence, view);
    }

    pub(crate) async fn steps(&mut self, count: usize, ticks: u64) {
        for _ in 0..count {
            self.step(ticks).await;
        }
    }

    /// Backs up the store as a server does.
    pub(crate) async fn back_up(&mut self, to: &Path) -> Written {
        self.clock.advance_us(SECOND_US);
        let written = back_up(self.ingest(), &directory(to), self.clock.now()).await.unwrap();
        self.record();
        written
    }

    /// Restores a commit into a new directory, and compares the store with the view of the original at that commit.
    pub(crate) async fn check_restore(&self, from: &Destination, at: At, expected: u64) -> Restored {
        let db = tempfile::tempdir().unwrap();
        let db = db.path().join("restored");
        let restored = restore(from, at, None, &db, &mut |_, _| {}).await.unwrap();
        assert_eq!(restored.commit.sequence, expected, "{at}");
        self.check_store(&db, expected);
        restored
    }

    /// Compares a store with the view of the original at a commit.
    pub(crate) fn check_store(&self, db: &Path, expected: u64) {
        let view = &self.views[&expected];
        let report = silkrate::store::verify(db).unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        let store = Store::open(options(db), self.clock.now()).unwrap();
        assert_same(&Arc::new(store.view()), view);
    }
}

fn open(options: StoreOptions, clock: &Arc<ManualClock>) -> Running {
    Running::open(options, QueueLimits::default(), Arc::<ManualClock>::clone(clock)).unwrap().0
}

pub(crate) fn key(number: u64) -> SeriesKey {
    let pair = ["KGS/USD", "KZT/USD"][number as usize % 2];
    SeriesKey {
        pair: Pair::parse_iso(pair).unwrap(),
        source: Source::parse(&format!("source-{}", number / 2)).unwrap(),
    }
}

pub(crate) fn directory(path: &Path) -> Destination {
    Destination::open(Location::Directory(path.to_owned())).unwrap()
}

/// Backs up the store behind `ingest`, as the schedule of a server does.
pub(crate) async fn back_up(ingest: &Ingest, to: &Destination, now: Timestamp) -> Result<Written, BackupError> {
    let mut writer = Writer::begin(to.clone(), now).await?;
    let point = ingest.backup_point().await?;
    let bases = writer.bases();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(4);
    let producing = tokio::task::spawn_blocking(move || {
        let source = point.open()?;
        produce(&source, &bases, &mut |piece| sender.blocking_send(piece).is_ok())
    });
    while let Some(piece) = receiver.recv().await {
        writer.accept(piece).await?;
    }
    match producing.await.unwrap() {
        Ok(()) => writer.finish().await,
        Err(ProduceError::Store(error)) => Err(error.into()),
        Err(ProduceError::ReceiverGone) => panic!("the writer has gone"),
    }
}

/// Compares everything that two stores can answer: all rows, the latest quotes, and the history as known at twenty earlier
/// commits.
pub(crate) fn assert_same(found: &Arc<View>, expected: &Arc<View>) {
    let (parts, wanted) = (Parts::of(found), Parts::of(expected));
    assert_eq!(parts.commit, wanted.commit);
    assert!(parts == wanted, "the rows differ at commit {}", parts.commit.sequence);
    let quotes = |view: &View| format!("{:?}", view.latest_quotes);
    assert_eq!(quotes(found), quotes(expected));
    let step = (parts.commits.len() / 20).max(1);
    for (_, known) in parts.commits.iter().step_by(step) {
        for (one, other) in found.series().zip(expected.series()) {
            let runs = |series: &Arc<silkrate::store::SeriesView>| {
                let all = series.runs(Timestamp::MIN, Timestamp::MAX, *known, ScanOrder::Ascending).unwrap();
                all.flat_map(Result::unwrap).collect::<Vec<_>>()
            };
            assert_eq!(runs(one), runs(other), "{} as known at {known}", one.key());
        }
    }
}

pub(crate) fn sequence(written: &Written) -> u64 {
    let Commit { sequence, .. } = written.commit();
    sequence
}

/// Lists the files below a directory, relative to it, sorted.
pub(crate) fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut next = vec![root.to_owned()];
    while let Some(path) = next.pop() {
        for entry in std::fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                next.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}
