//! The quarantine of the store compared with a naive model. The model has the stored ticks in an ordered map, and the
//! held ticks in a list.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use silkrate::domain::{
    CurrencySet, HeldTick, Note, Pair, PublishedValue, Rate, RatioThreshold, ScanOrder, SeriesKey, Source, Timestamp,
    Verdict,
};
use silkrate::store::{
    Admitted, CheckpointLimits, Decided, DecisionRefusal, Quarantine, QuarantineLimit, Store, StoreOptions,
    UpsertError, Upserted, WriteTransaction,
};

use crate::store::durable::{BASE_US, Random, SECOND, key, open, options};

type Ticks = Vec<(Timestamp, PublishedValue)>;

/// The expected result for a tick.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Stored,
    Known,
    Revised,
    Conflict,
    /// The id of the held tick, and whether the tick is newly held.
    Held(u64, bool),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    time: Timestamp,
    value: PublishedValue,
    in_force: Rate,
    since: Timestamp,
    decision: Option<(Verdict, Timestamp)>,
}

/// The expected content of the store, computed in the simplest way.
#[derive(Clone, Default)]
struct Model {
    ticks: BTreeMap<Timestamp, PublishedValue>,
    /// Indexed by id - 1.
    held: Vec<Held>,
}

/// Returns true if one rate is at least five times the other. All rates of this test have few digits.
fn is_beyond_threshold(one: Rate, other: Rate) -> bool {
    let scaled = |rate: Rate| rate.mantissa() * 10_u128.pow(u32::from(12 - rate.places()));
    let (low, high) = (scaled(one).min(scaled(other)), scaled(one).max(scaled(other)));
    high >= 5 * low
}

impl Model {
    fn put(&mut self, time: Timestamp, value: PublishedValue, revise: bool) -> Outcome {
        match self.ticks.get(&time) {
            Some(stored) if *stored == value => Outcome::Known,
            Some(_) if !revise => Outcome::Conflict,
            stored => {
                let outcome = if stored.is_some() { Outcome::Revised } else { Outcome::Stored };
                self.ticks.insert(time, value);
                outcome
            }
        }
    }

    /// Applies the quarantine rule literally. The rate in force at a time is the rate of the last tick at or before
    /// it.
    fn admit(&mut self, time: Timestamp, value: PublishedValue, revise: bool, now: Timestamp) -> Outcome {
        if self.ticks.get(&time).is_some_and(|stored| *stored == value || !revise) {
            return self.put(time, value, revise);
        }
        let in_force = self.ticks.range(..=time).next_back().map(|(_, value)| value.rate);
        let same_tick = self.held.iter().rposition(|held| held.time == time && held.value == value);
        match (same_tick.map(|at| (at as u64 + 1, self.held[at].decision)), in_force) {
            (Some((_, Some((Verdict::Released, _)))), _) => self.put(time, value, revise),
            (Some((id, _)), _) => Outcome::Held(id, false),
            (None, Some(in_force)) if is_beyond_threshold(in_force, value.rate) => {
                self.held.push(Held { time, value, in_force, since: now, decision: None });
                Outcome::Held(self.held.len() as u64, true)
            }
            (None, _) => self.put(time, value, revise),
        }
    }

    /// Returns the result for each id, in the given order.
    fn decide(&mut self, ids: &[u64], verdict: Verdict, revise: bool, now: Timestamp) -> Vec<Option<Outcome>> {
        let mut order: Vec<u64> = ids.to_vec();
        order.sort_by_key(|id| (self.held.get(*id as usize - 1).map(|held| held.time), *id));
        let mut outcomes = BTreeMap::new();
        for id in order {
            let Some(held) = self.held.get(id as usize - 1).cloned() else { continue };
            if held.decision.is_some() {
                continue;
            }
            let outcome =
                if verdict == Verdict::Discarded { Outcome::Stored } else { self.put(held.time, held.value, revise) };
            if outcome != Outcome::Conflict {
                self.held[id as usize - 1].decision = Some((verdict, now));
            }
            outcomes.insert(id, outcome);
        }
        ids.iter().map(|id| outcomes.get(id).copied()).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Ticks at random times, some with a shifted decimal point; the flag allows them to revise.
    Ticks(u64, u64, bool),
    /// Ticks like those of [`Step::Ticks`], which are admitted and then rolled back.
    Validate(u64, u64),
    /// Held ticks, sent again.
    Repeat(u64),
    /// Decides some ids; the last flag allows a release to revise.
    Decide(u64, bool, bool),
    Checkpoint,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (any::<u64>(), 1..60_u64, any::<bool>()).prop_map(|(seed, count, revise)| Step::Ticks(seed, count, revise)),
        1 => (any::<u64>(), 1..60_u64).prop_map(|(seed, count)| Step::Validate(seed, count)),
        2 => any::<u64>().prop_map(Step::Repeat),
        4 => (any::<u64>(), any::<bool>(), any::<bool>()).prop_map(|(seed, release, revise)| Step::Decide(seed, release, revise)),
        2 => Just(Step::Checkpoint),
        3 => Just(Step::Restart),
    ]
}

/// Returns ticks of few instants, so that instants repeat. Some rates have the decimal point shifted by one to three
/// places.
fn ticks(seed: u64, count: u64) -> Ticks {
    let mut random = Random(seed);
    let tick = |_| {
        let time = Timestamp::from_micros(BASE_US + random.below(300) as i64 * SECOND);
        let mantissa = u128::from(1_100_000 + random.below(3) * 1_000);
        let places = [6, 6, 6, 6, 6, 6, 5, 4, 7, 9][random.below(10) as usize];
        (time, PublishedValue { rate: Rate::from_parts(mantissa, places).unwrap(), reported_change: None })
    };
    (0..count).map(tick).collect()
}

fn outcome(answer: Result<Admitted, UpsertError>) -> Outcome {
    match answer {
        Ok(Admitted::Stored(Upserted::NewRun { .. } | Upserted::Collapsed { .. })) => Outcome::Stored,
        Ok(Admitted::Stored(Upserted::Known)) => Outcome::Known,
        Ok(Admitted::Stored(Upserted::Revised { .. })) => Outcome::Revised,
        Ok(Admitted::Held { id, is_new, .. }) => Outcome::Held(id, is_new),
        Err(UpsertError::Conflict(_)) => Outcome::Conflict,
        Err(error) => panic!("{error:?}"),
    }
}

/// Admits the ticks of `validated` and rolls them back, and then admits `ticks`, all in one transaction. The
/// writer does this if a request to validate and a request to store wait in the queue.
fn send(store: &mut Store, model: &mut Model, validated: &Ticks, ticks: &Ticks, revise: bool, now: Timestamp) {
    let recorded_time = store.next_recorded_time(now);
    let mut transaction = store.begin(now);
    let savepoint = transaction.savepoint(std::iter::once(&key(0, 0)));
    let mut scratch_model = model.clone();
    admit(&mut transaction, &mut scratch_model, validated, revise, recorded_time);
    transaction.roll_back(savepoint);
    let changed = admit(&mut transaction, model, ticks, revise, recorded_time);
    assert_eq!(transaction.commit().unwrap().is_some(), changed);
}

/// Returns true if anything changed.
fn admit(
    transaction: &mut WriteTransaction<'_>,
    model: &mut Model,
    ticks: &Ticks,
    revise: bool,
    recorded_time: Timestamp,
) -> bool {
    let mut changed = false;
    for (time, value) in ticks {
        let series = transaction.series(&key(0, 0)).unwrap();
        let found = outcome(transaction.admit(series, *time, *value, revise, Some(RatioThreshold::DEFAULT)));
        assert_eq!(found, model.admit(*time, *value, revise, recorded_time), "{value:?} at {time}");
        changed |= matches!(found, Outcome::Stored | Outcome::Revised | Outcome::Held(_, true));
    }
    changed
}

fn decide(store: &mut Store, model: &mut Model, seed: u64, verdict: Verdict, revise: bool, now: Timestamp) {
    let recorded_time = store.next_recorded_time(now);
    let mut random = Random(seed);
    // One of the ids does not exist.
    let ids: Vec<u64> = (1..=model.held.len() as u64 + 1).filter(|_| random.below(3) == 0).collect();
    let note = Note::parse("decided by the model test").unwrap();
    let before = model.clone();
    let mut transaction = store.begin(now);
    let answers = transaction.decide(&ids, verdict, Some(&note), revise);
    let expected = model.decide(&ids, verdict, revise, recorded_time);
    for ((id, answer), expected) in ids.iter().zip(&answers).zip(&expected) {
        let decided_before = before.held.get(*id as usize - 1).map(|held| held.decision.map(|(verdict, _)| verdict));
        match (decided_before, expected, answer) {
            (None, None, Decided::Refused(DecisionRefusal::UnknownId))
            | (
                Some(None),
                Some(Outcome::Conflict),
                Decided::Refused(DecisionRefusal::Upsert(UpsertError::Conflict(_))),
            )
            | (Some(None), Some(Outcome::Known), Decided::Released(Upserted::Known))
            | (Some(None), Some(Outcome::Revised), Decided::Released(Upserted::Revised { .. })) => {}
            (Some(Some(found)), None, Decided::Already) => assert_eq!(found, verdict),
            (Some(Some(found)), None, Decided::Refused(DecisionRefusal::DecidedOtherwise(earlier))) => {
                assert!(found == *earlier && found != verdict);
            }
            (Some(None), Some(Outcome::Stored), Decided::Discarded) => assert_eq!(verdict, Verdict::Discarded),
            (
                Some(None),
                Some(Outcome::Stored),
                Decided::Released(Upserted::NewRun { .. } | Upserted::Collapsed { .. }),
            ) => {
                assert_eq!(verdict, Verdict::Released);
            }
            other => panic!("{id}: {other:?}"),
        }
    }
    let changed = expected.iter().any(|outcome| outcome.is_some_and(|outcome| outcome != Outcome::Conflict));
    assert_eq!(transaction.commit().unwrap().is_some(), changed);
}

fn from_tick(tick: &HeldTick) -> Held {
    Held {
        time: tick.observed_time,
        value: tick.value,
        in_force: tick.rate_in_force,
        since: tick.held_time,
        decision: tick.decision.as_ref().map(|decision| (decision.verdict, decision.decided_time)),
    }
}

fn check(store: &Store, model: &Model) {
    let view = store.view();
    let found: Vec<Held> = view.quarantine().after(0).map(from_tick).collect();
    assert_eq!(found, model.held);
    assert!(view.quarantine().after(0).zip(1..).all(|(tick, id)| tick.id == id && *tick.series == key(0, 0)));
    let held = model.held.iter().filter(|held| held.decision.is_none()).count();
    assert_eq!(view.quarantine().held_count(), held);
    let by_series: Vec<usize> = view.quarantine().held_by_series().map(|(_, count)| count).collect();
    assert_eq!(by_series, if held > 0 { vec![held] } else { vec![] });
    let Some(series) = view.find(&key(0, 0)) else {
        assert!(model.ticks.is_empty());
        return;
    };
    let instants: Vec<Timestamp> =
        series.instants(Timestamp::MIN, Timestamp::MAX, ScanOrder::Ascending).flat_map(Result::unwrap).collect();
    assert!(instants.iter().eq(model.ticks.keys()), "a held tick is on the timeline");
    let runs = series.runs(Timestamp::MIN, Timestamp::MAX, Timestamp::MAX, ScanOrder::Ascending).unwrap();
    for run in runs.flat_map(Result::unwrap) {
        let of_run = model.ticks.range(run.first_observed_time..=run.last_observed_time);
        assert!(of_run.into_iter().all(|(_, value)| *value == run.value));
    }
}

/// Opens a store that was dropped without a checkpoint, as after a kill.
fn reopen(directory: &Path) -> Store {
    let store = open(directory);
    assert_eq!(store.verify().problems, Vec::<String>::new());
    store
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn quarantine_equals_naive_model(steps in proptest::collection::vec(step(), 1..16)) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        let mut model = Model::default();
        let mut now = BASE_US * 2;
        // After each step: the recorded time, and the held ticks as known then.
        let mut history: Vec<(Timestamp, Vec<Held>)> = Vec::new();
        for step in steps {
            now += SECOND;
            let moment = Timestamp::from_micros(now);
            match step {
                Step::Ticks(seed, count, revise) => {
                    let validated = ticks(!seed, count / 4);
                    send(&mut store, &mut model, &validated, &ticks(seed, count), revise, moment);
                }
                Step::Validate(seed, count) => send(&mut store, &mut model, &ticks(seed, count), &Vec::new(), true, moment),
                Step::Repeat(seed) => {
                    let mut random = Random(seed);
                    let held = model.held.iter().filter(|_| random.below(2) == 0).map(|held| (held.time, held.value));
                    let held = held.collect();
                    send(&mut store, &mut model, &Vec::new(), &held, false, moment);
                }
                Step::Decide(seed, release, revise) => {
                    let verdict = if release { Verdict::Released } else { Verdict::Discarded };
                    decide(&mut store, &mut model, seed, verdict, revise, moment);
                }
                Step::Checkpoint => store.checkpoint().unwrap(),
                Step::Restart => {
                    drop(store);
                    store = reopen(directory.path());
                }
            }
            check(&store, &model);
            history.push((store.newest_commit().recorded_time, model.held.clone()));
        }
        for (known, held) in history {
            let as_known = store.quarantine().after(0).map_while(|tick| tick.as_known(known));
            let then: Vec<Held> = as_known.map(|tick| from_tick(&tick)).collect();
            prop_assert_eq!(then, held);
        }
    }
}

/// Returns a value far from 1; the number makes it unique.
fn outlier(number: i64) -> PublishedValue {
    PublishedValue { rate: Rate::from_parts(1_000_000 + number as u128, 2).unwrap(), reported_change: None }
}

#[test]
fn held_ticks_are_limited_per_series_and_per_store() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    let one = PublishedValue { rate: Rate::parse("1").unwrap(), reported_change: None };
    let at = |seconds: i64| Timestamp::from_micros(BASE_US + seconds * SECOND);
    let now = Timestamp::from_micros(BASE_US);
    let hold = |store: &mut Store, thread: u64, count: i64| -> Result<(), UpsertError> {
        let mut transaction = store.begin(now);
        let series = transaction.series(&key(thread, 0)).unwrap();
        transaction.upsert(series, at(0), one, true).unwrap();
        let mut answers = (1..=count).map(|number| {
            transaction.admit(series, at(number), outlier(number), false, Some(RatioThreshold::DEFAULT)).map(drop)
        });
        let answer = answers.find(Result::is_err).unwrap_or(Ok(()));
        transaction.commit().unwrap();
        answer
    };
    let series_max = Quarantine::SERIES_HELD_MAX as i64;
    let full = |limit| Err(UpsertError::QuarantineFull(limit));
    for thread in 0..10 {
        assert_eq!(hold(&mut store, thread, series_max), Ok(()));
        assert_eq!(hold(&mut store, thread, series_max + 1), full(QuarantineLimit::Series));
    }
    assert_eq!(hold(&mut store, 10, 1), full(QuarantineLimit::Store));
    assert!(store.checkpoint_is_due());
    store.checkpoint().unwrap();
    assert!(!store.checkpoint_is_due());
    let mut transaction = store.begin(now);
    let ids: Vec<u64> = (1..=1_000).collect();
    assert!(
        transaction.decide(&ids, Verdict::Discarded, None, false).iter().all(|answer| *answer == Decided::Discarded)
    );
    transaction.commit().unwrap();
    assert_eq!(hold(&mut store, 10, 1_000), Ok(()));
    drop(store);
    let store = reopen(directory.path());
    assert_eq!((store.quarantine().count(), store.quarantine().held_count()), (11_000, Quarantine::HELD_MAX));
}

/// Commits one tick with rate 1, and ticks with outliers at these seconds after it. Returns the ids of the held ticks, or
/// the first refusal.
fn hold(store: &mut Store, key: &SeriesKey, seconds: std::ops::Range<i64>) -> Result<Vec<u64>, UpsertError> {
    let begin = Timestamp::from_micros(BASE_US);
    let one = PublishedValue { rate: Rate::parse("1").unwrap(), reported_change: None };
    let mut transaction = store.begin(begin);
    let series = transaction.series(key).unwrap();
    transaction.upsert(series, begin, one, true).unwrap();
    let admitted: Vec<_> = seconds
        .map(|second| {
            let time = begin.saturating_add_us(second * SECOND);
            transaction.admit(series, time, outlier(second), false, Some(RatioThreshold::DEFAULT))
        })
        .collect();
    transaction.commit().unwrap();
    let id = |admitted| match admitted {
        Ok(Admitted::Held { id, .. }) => Ok(id),
        Ok(Admitted::Stored(_)) => panic!("an outlier is held"),
        Err(error) => Err(error),
    };
    admitted.into_iter().map(id).collect()
}

fn discard(store: &mut Store, ids: &[u64]) {
    let mut transaction = store.begin(Timestamp::from_micros(BASE_US));
    let decided = transaction.decide(ids, Verdict::Discarded, None, false);
    assert!(decided.iter().all(|decided| *decided == Decided::Discarded));
    transaction.commit().unwrap();
}

#[test]
fn one_source_does_not_take_the_places_of_other_sources() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    let of_pair = |pair: &str| SeriesKey {
        pair: Pair::parse(pair, &CurrencySet::central_asia()).unwrap(),
        source: key(0, 0).source,
    };
    for pair in ["KGS/USD", "KZT/USD"] {
        assert_eq!(hold(&mut store, &of_pair(pair), 1..1_001).unwrap().len(), Quarantine::SERIES_HELD_MAX);
    }
    let left = i64::try_from(Quarantine::SOURCE_HELD_MAX).unwrap() - 2_000;
    assert!(hold(&mut store, &of_pair("TJS/USD"), 1..left + 1).is_ok());
    let refused = hold(&mut store, &of_pair("TJS/USD"), left + 1..left + 2);
    assert_eq!(refused, Err(UpsertError::QuarantineFull(QuarantineLimit::Source)));
    assert!(hold(&mut store, &key(1, 0), 1..2).is_ok());
}

#[test]
fn sources_that_are_not_configured_leave_places_to_those_that_are() {
    let directory = tempfile::tempdir().unwrap();
    let of = |source: &str, pair: &str| SeriesKey {
        pair: Pair::parse(pair, &CurrencySet::central_asia()).unwrap(),
        source: Source::parse(source).unwrap(),
    };
    let configured_sources = Arc::new(BTreeSet::from([of("nbkr", "KGS/USD").source]));
    let options = StoreOptions { configured_sources, ..options(directory.path(), CheckpointLimits::default(), None) };
    let mut store = Store::open(options, Timestamp::from_micros(BASE_US)).unwrap();
    let mut held = 0;
    for source in ["a", "b", "c"] {
        for pair in ["KGS/USD", "KZT/USD"] {
            held += hold(&mut store, &of(source, pair), 1..1_001).map_or(0, |ids| ids.len());
        }
    }
    assert_eq!(held, Quarantine::OPEN_HELD_MAX);
    let refused = hold(&mut store, &of("d", "KGS/USD"), 1..2);
    assert_eq!(refused, Err(UpsertError::QuarantineFull(QuarantineLimit::Open)));
    assert!(hold(&mut store, &of("nbkr", "KGS/USD"), 1..2).is_ok());
}

#[test]
fn decided_ticks_do_not_fill_the_quarantine() {
    const ROUNDS: i64 = 105;
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    let waiting = hold(&mut store, &key(1, 0), 1..2).unwrap();
    for round in 0..ROUNDS {
        let last_id = store.quarantine().last_id();
        let ids = hold(&mut store, &key(0, 0), round * 1_000 + 1..round * 1_000 + 1_001).expect("there is room");
        assert!(ids.iter().copied().eq(last_id + 1..=last_id + 1_000), "ids are not reused");
        discard(&mut store, &ids);
        if store.checkpoint_is_due() && round < ROUNDS - 1 {
            store.checkpoint().unwrap();
        }
    }
    let list = store.quarantine();
    assert_eq!((list.count(), list.held_count()), (Quarantine::DECIDED_MAX + 1, 1));
    assert_eq!(list.after(0).next().map(|tick| tick.id), Some(waiting[0]), "a held tick stays");
    let next = hold(&mut store, &key(2, 0), 1..2).expect("a slip of another source is held");
    discard(&mut store, &next);
    let listed: Vec<HeldTick> = store.quarantine().after(0).cloned().collect();
    assert!(listed.is_sorted_by(|a, b| a.id < b.id) && listed.len() == Quarantine::DECIDED_MAX + 1);
    // Opened once with the last changes only in the log, and once with all records in sled.
    for _ in 0..2 {
        drop(store);
        store = reopen(directory.path());
        assert!(store.quarantine().after(0).eq(&listed));
        store.checkpoint().unwrap();
    }
    assert_eq!(store.verify().problems, [""; 0]);
    assert!(hold(&mut store, &key(2, 0), 2..3).unwrap()[0] == next[0] + 1);
}
