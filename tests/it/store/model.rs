//! The store compared with a naive model. The model holds all ticks in an ordered map, collapses them from scratch
//! after every commit, and keeps every earlier state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use silkrate::domain::{
    CurrencySet, Pair, PublishedValue, Rate, ReportedChange, Revision, Run, ScanOrder, SeriesKey, Source, Timestamp,
};
use silkrate::latest_quotes::StateRules;
use silkrate::store::{CheckpointLimits, SeriesTotals, SeriesView, Store, StoreOptions, UpsertError, Upserted, View};

use crate::random::Random;

const SECOND: i64 = Timestamp::SECOND_US;
const WINDOW_US: i64 = 10 * SECOND;
const BASE_US: i64 = 1_765_152_000 * SECOND;

fn options(directory: &Path, window_us: i64, recollapse: bool) -> StoreOptions {
    StoreOptions {
        directory: directory.to_owned(),
        collapse_window_default_us: window_us,
        collapse_windows_us: BTreeMap::new(),
        recollapse,
        state_rules: StateRules::uniform(3_600 * SECOND, 86_400 * SECOND),
        reserve_bytes: 0,
        cache_bytes: 64 << 20,
        series_count_max: 100,
        configured_sources: Arc::default(),
        checkpoint: CheckpointLimits::default(),
        disk_fault: None,
    }
}

fn key() -> SeriesKey {
    SeriesKey {
        pair: Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap(),
        source: Source::parse("timesca").unwrap(),
    }
}

fn value(number: u64) -> PublishedValue {
    PublishedValue {
        rate: Rate::from_parts(u128::from(1_144 + number / 2), 5).unwrap(),
        reported_change: number.is_multiple_of(2).then(|| ReportedChange::parse("-0").unwrap()),
    }
}

/// The expected content of the store, computed in the simplest way.
struct Model {
    window_us: i64,
    ticks: BTreeMap<Timestamp, PublishedValue>,
    runs: Vec<Run>,
    revisions: Vec<Revision>,
    /// For each commit: its recorded time, and the runs after it.
    history: Vec<(Timestamp, Vec<Run>)>,
}

impl Model {
    fn collapsed(&self, recorded_time: Timestamp) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (time, value) in &self.ticks {
            match runs.last_mut() {
                Some(run)
                    if run.value == *value && time.micros() - run.last_observed_time.micros() <= self.window_us =>
                {
                    run.last_observed_time = *time;
                    run.observation_count += 1;
                }
                _ => runs.push(Run::single(*time, *value, recorded_time)),
            }
        }
        runs
    }

    /// Applies the rule of revisions literally.
    fn commit(&mut self, recorded_time: Timestamp) {
        let before = std::mem::take(&mut self.runs);
        let mut after = self.collapsed(recorded_time);
        let by_first: BTreeMap<Timestamp, usize> =
            after.iter().enumerate().map(|(at, run)| (run.first_observed_time, at)).collect();
        let starts: BTreeSet<Timestamp> = before.iter().map(|run| run.first_observed_time).collect();
        for run in before {
            let continued = by_first.get(&run.first_observed_time).copied().filter(|at| {
                let later = &after[*at];
                let others = starts
                    .range((
                        std::ops::Bound::Excluded(run.first_observed_time),
                        std::ops::Bound::Included(later.last_observed_time),
                    ))
                    .next();
                later.value == run.value && later.last_observed_time >= run.last_observed_time && others.is_none()
            });
            match continued {
                Some(at) => after[at].recorded_time = run.recorded_time,
                None => self.revisions.push(Revision { run, superseded_time: recorded_time }),
            }
        }
        self.runs = after;
        self.history.push((recorded_time, self.runs.clone()));
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Ticks newer than all others.
    Append(u64, u64),
    /// Ticks at random times between the stored ones.
    Scatter(u64, u64),
    /// Ticks older than all others, newest first.
    Backfill(u64, u64),
    /// Stored ticks sent again.
    Repeat(u64, u64),
    /// Other values at stored instants.
    Revise(u64, u64),
    /// Seals some mutable segments.
    Slice,
    Checkpoint,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let sized = |limit: u64| (any::<u64>(), 1..limit);
    prop_oneof![
        3 => sized(4_000).prop_map(|(seed, count)| Step::Append(seed, count)),
        3 => sized(400).prop_map(|(seed, count)| Step::Scatter(seed, count)),
        1 => sized(2_500).prop_map(|(seed, count)| Step::Backfill(seed, count)),
        1 => sized(50).prop_map(|(seed, count)| Step::Repeat(seed, count)),
        2 => sized(60).prop_map(|(seed, count)| Step::Revise(seed, count)),
        // Large enough that revisions fill several blocks and several pieces of the revision index.
        1 => sized(5_000).prop_map(|(seed, count)| Step::Revise(seed, count)),
        3 => Just(Step::Slice),
        3 => Just(Step::Checkpoint),
        2 => Just(Step::Restart),
    ]
}

/// Returns the ticks of a step, in sending order, and whether they may revise.
fn ticks(step: &Step, model: &Model) -> (Vec<(Timestamp, PublishedValue)>, bool) {
    let first = model.ticks.keys().next().map_or(BASE_US, |time| time.micros());
    let last = model.ticks.keys().next_back().map_or(BASE_US, |time| time.micros());
    let at = |micros: i64| Timestamp::from_micros(micros);
    let stored: Vec<(Timestamp, PublishedValue)> = model.ticks.iter().map(|(time, value)| (*time, *value)).collect();
    let known = |random: &mut Random| stored.get(random.below(stored.len().max(1) as u64) as usize).copied();
    match step {
        Step::Append(seed, count) => {
            let mut random = Random(*seed);
            let mut time = last;
            let mut number = 0;
            let ticks = (0..*count).map(|_| {
                time += SECOND * if random.below(40) == 0 { 11 + random.below(9) as i64 } else { 2 };
                if random.below(10) < 3 {
                    number = random.below(6);
                }
                (at(time), value(number))
            });
            (ticks.collect(), false)
        }
        Step::Scatter(seed, count) => {
            let mut random = Random(*seed);
            let span = ((last - first) / SECOND).max(1) as u64;
            let ticks = (0..*count).map(|_| {
                // Half of the times are at half-seconds, so that most instants are new.
                let time = first + random.below(span) as i64 * SECOND + SECOND / 2 * random.below(2) as i64;
                (at(time), value(random.below(6)))
            });
            (ticks.collect(), false)
        }
        Step::Backfill(seed, count) => {
            let mut random = Random(*seed);
            let mut time = first;
            let ticks = (0..*count).map(|_| {
                time -= SECOND * (1 + random.below(12) as i64);
                (at(time), value(random.below(3)))
            });
            (ticks.collect(), false)
        }
        Step::Repeat(seed, count) => {
            let mut random = Random(*seed);
            ((0..*count).filter_map(|_| known(&mut random)).collect(), false)
        }
        Step::Revise(seed, count) => {
            let mut random = Random(*seed);
            let ticks = (0..*count).filter_map(|_| Some((known(&mut random)?.0, value(random.below(6)))));
            (ticks.collect(), true)
        }
        Step::Slice | Step::Checkpoint | Step::Restart => (Vec::new(), false),
    }
}

/// Sends the same ticks to the store and to the model as one commit, and compares each result.
fn send(store: &mut Store, model: &mut Model, ticks: &[(Timestamp, PublishedValue)], revise: bool, now: Timestamp) {
    let recorded_time = store.next_recorded_time(now);
    let mut transaction = store.begin(now);
    let series = transaction.series(&key()).unwrap();
    let mut changed = false;
    for (time, value) in ticks {
        let newest = model.ticks.keys().next_back().copied();
        let late = newest.is_some_and(|newest| *time < newest);
        let answer = transaction.upsert(series, *time, *value, revise);
        match (model.ticks.get(time).copied(), answer) {
            (Some(stored), Ok(Upserted::Known)) => assert_eq!(stored, *value),
            (Some(stored), Err(UpsertError::Conflict(found))) => {
                assert!(!revise && stored != *value);
                assert_eq!(found, stored);
            }
            (Some(stored), Ok(Upserted::Revised { late: found })) => {
                assert!(revise && stored != *value);
                assert_eq!(found, late);
                model.ticks.insert(*time, *value);
                changed = true;
            }
            (None, Ok(Upserted::NewRun { late: found } | Upserted::Collapsed { late: found })) => {
                assert_eq!(found, late);
                model.ticks.insert(*time, *value);
                changed = true;
            }
            (stored, answer) => panic!("{stored:?} and {value:?} at {time}: {answer:?}"),
        }
    }
    let commit = transaction.commit().unwrap();
    assert_eq!(commit.is_some(), changed);
    if changed {
        model.commit(recorded_time);
    }
}

fn all_runs(series: &Arc<SeriesView>, known: Timestamp, order: ScanOrder) -> Vec<Run> {
    series.runs(Timestamp::MIN, Timestamp::MAX, known, order).unwrap().flat_map(Result::unwrap).collect()
}

fn check_present(view: &View, model: &Model) {
    let series = view.find(&key()).unwrap();
    let now = view.commit.recorded_time;
    assert_eq!(all_runs(series, now, ScanOrder::Ascending), model.runs);
    let mut reversed = all_runs(series, now, ScanOrder::Descending);
    reversed.reverse();
    assert_eq!(reversed, model.runs);
    let revisions: Vec<Revision> = series
        .revisions(Timestamp::MIN, Timestamp::MAX, Timestamp::MAX, ScanOrder::Ascending)
        .flat_map(Result::unwrap)
        .collect();
    assert_eq!(revisions, model.revisions);
    let instants: Vec<Timestamp> =
        series.instants(Timestamp::MIN, Timestamp::MAX, ScanOrder::Ascending).flat_map(Result::unwrap).collect();
    assert!(instants.iter().eq(model.ticks.keys()));
    assert_eq!(
        series.totals(now).unwrap(),
        Some(SeriesTotals {
            first_observed_time: *model.ticks.keys().next().unwrap(),
            last_observed_time: *model.ticks.keys().next_back().unwrap(),
            run_count: model.runs.len() as u64,
            observation_count: model.ticks.len() as u64,
            revision_count: model.revisions.len() as u64,
        })
    );
}

/// Checks that a read as known at an earlier commit returns what that commit had.
fn check_past(view: &View, model: &Model, random: &mut Random) {
    let series = view.find(&key()).unwrap();
    let seen = usize::try_from(view.commit.sequence).unwrap();
    for (at, (known, runs)) in model.history.iter().take(seen).enumerate() {
        let commit = view.commit_at(*known).unwrap().unwrap();
        assert_eq!((commit.sequence, commit.recorded_time), (at as u64 + 1, *known));
        let time_and_value = |run: &Run| (run.first_observed_time, run.value);
        let then: Vec<_> = all_runs(series, *known, ScanOrder::Ascending).iter().map(time_and_value).collect();
        assert_eq!(then, runs.iter().map(time_and_value).collect::<Vec<_>>(), "as known at commit {}", at + 1);
        let totals = series.totals(*known).unwrap().unwrap();
        assert_eq!(totals.run_count, runs.len() as u64);
        let superseded = model.revisions.iter().filter(|revision| revision.superseded_time <= *known).count();
        assert_eq!(totals.revision_count, superseded as u64);
        assert_eq!(series.first_observed_time(*known).unwrap(), Some(totals.first_observed_time));
        assert_eq!(totals.first_observed_time, runs[0].first_observed_time);
        assert!(series.is_known(*known));
        for _ in 0..4 {
            let run = &runs[random.below(runs.len() as u64) as usize];
            let time = run.first_observed_time.saturating_add_us(random.below(9) as i64 * SECOND - 2 * SECOND);
            let begun = runs.partition_point(|run| run.first_observed_time <= time);
            let expected = begun.checked_sub(1).map(|last| time_and_value(&runs[last]));
            assert_eq!(series.run_at(time, *known).unwrap().as_ref().map(time_and_value), expected, "at {time}");
            check_last_move(series, runs, begun, time, *known);
            let end = time.saturating_add_us(random.below(500) as i64 * SECOND);
            let part: Vec<_> = series
                .runs(time, end, *known, ScanOrder::Descending)
                .unwrap()
                .flat_map(Result::unwrap)
                .map(|run| time_and_value(&run))
                .collect();
            let within = |run: &&Run| time <= run.first_observed_time && run.first_observed_time < end;
            assert_eq!(part, runs.iter().rev().filter(within).map(time_and_value).collect::<Vec<_>>());
        }
    }
    let first = model.history[0].0;
    let before = first.saturating_add_us(-1);
    assert_eq!(view.commit_at(before).unwrap(), None);
    assert!(!series.is_known(before));
    assert_eq!(series.run_at(Timestamp::MAX, before).unwrap(), None);
}

/// Compares `rate_since` with a walk back over all runs: the time since which the rate is unchanged, and the rate
/// before it.
fn check_last_move(series: &Arc<SeriesView>, runs: &[Run], begun: usize, time: Timestamp, known: Timestamp) {
    let expected = begun.checked_sub(1).map(|last| {
        let rate = runs[last].value.rate;
        let same = runs[..=last].iter().rev().take_while(|run| run.value.rate == rate).count();
        let since = runs[last + 1 - same].first_observed_time;
        (since, (last + 1).checked_sub(same + 1).map(|before| runs[before].value.rate))
    });
    assert_eq!(series.rate_since(time, known).unwrap(), expected, "rate_since at {time}");
}

/// Applies the steps to the store and to the model, and compares both after each step. Returns the number of slices.
fn check_steps(steps: &[Step], seed: u64) -> u64 {
    let mut slices = 0;
    let directory = tempfile::tempdir().unwrap();
    let mut now = BASE_US * 2;
    let mut store = Store::open(options(directory.path(), WINDOW_US, false), Timestamp::from_micros(now)).unwrap();
    let mut model = Model {
        window_us: WINDOW_US,
        ticks: BTreeMap::new(),
        runs: Vec::new(),
        revisions: Vec::new(),
        history: Vec::new(),
    };
    let mut random = Random(seed);
    // A view must not change after later steps.
    let mut earlier: Option<(View, Vec<Run>)> = None;
    for step in steps {
        now += random.below(2_000) as i64;
        let moment = Timestamp::from_micros(now);
        match step {
            Step::Slice => drop(store.seal_slice().unwrap()),
            Step::Checkpoint => store.checkpoint().unwrap(),
            Step::Restart => {
                earlier = None;
                slices += store.slice_count();
                drop(store);
                store = Store::open(options(directory.path(), WINDOW_US, false), moment).unwrap();
            }
            Step::Append(..) | Step::Scatter(..) | Step::Backfill(..) | Step::Repeat(..) | Step::Revise(..) => {
                let (ticks, revise) = ticks(step, &model);
                send(&mut store, &mut model, &ticks, revise, moment);
            }
        }
        if !model.ticks.is_empty() {
            let view = store.view();
            check_present(&view, &model);
            match &earlier {
                None => earlier = Some((view, model.runs.clone())),
                Some((earlier_view, runs)) => {
                    let series = earlier_view.find(&key()).unwrap();
                    assert_eq!(&all_runs(series, earlier_view.commit.recorded_time, ScanOrder::Ascending), runs);
                    if random.below(4) == 0 {
                        check_past(&view, &model, &mut random);
                        earlier = Some((view, model.runs.clone()));
                    }
                }
            }
        }
    }
    let report = store.verify();
    assert_eq!(report.problems, Vec::<String>::new());
    if !model.ticks.is_empty() {
        check_past(&store.view(), &model, &mut random);
    }
    // The revision index now belongs to the newest view. An older view must not see later revisions through it.
    if let Some((view, _)) = &earlier {
        check_past(view, &model, &mut random);
    }
    slices + store.slice_count()
}

/// Late ticks into blocks of slices: before the next checkpoint, after it, and after a restart without a checkpoint.
#[test]
fn slices_change_no_answer() {
    let scatter = |seed: u64| [Step::Scatter(seed, 30), Step::Slice, Step::Revise(seed + 1, 20), Step::Slice];
    let mut steps = vec![Step::Append(1, 12_000), Step::Checkpoint];
    for round in 0..4 {
        steps.extend((0..3).flat_map(|part| scatter(round * 100 + part * 10)));
        steps.push(if round % 2 == 0 { Step::Checkpoint } else { Step::Restart });
    }
    let slices = check_steps(&steps, 7);
    assert!(slices >= 20, "only {slices} slices");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn store_equals_naive_model(steps in proptest::collection::vec(step(), 1..14), seed: u64) {
        check_steps(&steps, seed);
    }

    /// Ticks without conflicts make the same runs in any order, with any batching, and across restarts.
    #[test]
    fn tick_order_does_not_change_runs(seed: u64, count in 1..3_000_u64, pieces in 1..6_u64) {
        let mut random = Random(seed);
        let plain: BTreeMap<Timestamp, PublishedValue> = (0..count)
            .map(|_| (Timestamp::from_micros(BASE_US + random.below(count * 4) as i64 * SECOND), value(random.below(4))))
            .collect();
        let mut shuffled: Vec<_> = plain.iter().map(|(time, value)| (*time, *value)).collect();
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, random.below(at as u64 + 1) as usize);
        }
        let runs_of = |ticks: &[(Timestamp, PublishedValue)], pieces: usize| {
            let directory = tempfile::tempdir().unwrap();
            let now = Timestamp::from_micros(BASE_US);
            let mut store = Store::open(options(directory.path(), WINDOW_US, false), now).unwrap();
            for (number, piece) in ticks.chunks(ticks.len().div_ceil(pieces)).enumerate() {
                let mut transaction = store.begin(now);
                let series = transaction.series(&key()).unwrap();
                for (time, value) in piece {
                    transaction.upsert(series, *time, *value, false).unwrap();
                }
                transaction.commit().unwrap();
                if number % 2 == 0 {
                    store.checkpoint().unwrap();
                }
                drop(store);
                store = Store::open(options(directory.path(), WINDOW_US, false), now).unwrap();
            }
            assert_eq!(store.verify().problems, Vec::<String>::new());
            let view = store.view();
            let mut runs = all_runs(view.find(&key()).unwrap(), Timestamp::MAX, ScanOrder::Ascending);
            for run in &mut runs {
                run.recorded_time = now;
            }
            runs
        };
        let sorted: Vec<_> = plain.into_iter().collect();
        prop_assert_eq!(runs_of(&sorted, 1), runs_of(&shuffled, pieces as usize));
    }
}

#[test]
fn changed_collapse_window_is_refused_without_recollapse() {
    let directory = tempfile::tempdir().unwrap();
    let now = Timestamp::from_micros(BASE_US);
    let mut model = Model {
        window_us: WINDOW_US,
        ticks: BTreeMap::new(),
        runs: Vec::new(),
        revisions: Vec::new(),
        history: Vec::new(),
    };
    let mut store = Store::open(options(directory.path(), WINDOW_US, false), now).unwrap();
    let (first, _) = ticks(&Step::Append(7, 5_000), &model);
    send(&mut store, &mut model, &first, false, now);
    store.checkpoint().unwrap();
    let (second, _) = ticks(&Step::Append(8, 100), &model);
    send(&mut store, &mut model, &second, false, now);
    drop(store);
    let other_window_us = 15 * SECOND;
    let refused = Store::open(options(directory.path(), other_window_us, false), now).err().unwrap().to_string();
    assert!(refused.contains("10 s, but 15 s is configured"), "{refused}");
    assert!(refused.contains("--recollapse"), "{refused}");
    for window_us in [other_window_us, 3 * SECOND] {
        let store = Store::open(options(directory.path(), window_us, true), now).unwrap();
        model.window_us = window_us;
        model.commit(store.view().commit.recorded_time);
        check_present(&store.view(), &model);
        check_past(&store.view(), &model, &mut Random(1));
        assert_eq!(store.verify().problems, Vec::<String>::new());
        drop(store);
        // No recollapse is needed again: the store has the new window.
        let store = Store::open(options(directory.path(), window_us, false), now).unwrap();
        check_present(&store.view(), &model);
    }
}
