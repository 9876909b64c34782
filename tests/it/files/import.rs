//! Import of a full export: the result is an identical store, or a clear error and no store.

#![allow(clippy::cast_possible_truncation, reason = "indices of small tables")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};
use proptest::prelude::*;
use silkrate::domain::{
    CurrencySet, Health, HeldTick, Note, Pair, Poll, PublishedValue, Rate, RatioThreshold, ReportedChange, Run,
    ScanOrder, SeriesKey, Source, Timestamp, Verdict,
};
use silkrate::export::read::{FullExport, ReadError, ReadProgress};
use silkrate::latest_quotes::{LatestQuote, StateRules};
use silkrate::store::{Commit, Restore, RestoreError, Store, StoreError, StoreOptions, View, WriteTransaction};

use crate::files::stores;
use crate::full_export;
use crate::full_export::{Named, Parts, held_columns, names, run_columns};
use crate::random::Random;

const SECOND: i64 = Timestamp::SECOND_US;
const WINDOW_US: i64 = 10 * SECOND;
const BANK_WINDOW_US: i64 = 60 * SECOND;
const BASE_US: i64 = 1_765_152_000 * SECOND;

fn rules() -> StateRules {
    StateRules::uniform(3_600 * SECOND, 86_400 * SECOND)
}

fn options(directory: &Path) -> StoreOptions {
    StoreOptions {
        collapse_window_default_us: WINDOW_US,
        collapse_windows_us: BTreeMap::from([(Source::parse("nbkr").unwrap(), BANK_WINDOW_US)]),
        state_rules: rules(),
        ..stores::options(directory)
    }
}

fn open(directory: &Path) -> Store {
    Store::open(options(directory), Timestamp::from_micros(BASE_US)).unwrap()
}

fn key(number: u64) -> SeriesKey {
    let (pair, source) =
        [("UZS/USD", "timesca"), ("KGS/USD", "nbkr"), ("KGS/USD", "timesca"), ("KGS/KZT", "nbkr")][number as usize % 4];
    SeriesKey { pair: Pair::parse(pair, &CurrencySet::central_asia()).unwrap(), source: Source::parse(source).unwrap() }
}

/// Short and long rates, with positive, negative, zero and absent reported changes.
fn value(number: u64) -> PublishedValue {
    let rates = ["0.00008", "0.01144", "12345678901234567890.12345678", "0.000000000000000001", "8100", "0.0114400"];
    let changes = [None, Some("-0"), Some("0"), Some("-1.50"), Some("999999999999"), Some("0.000000000001")];
    PublishedValue {
        rate: Rate::parse(rates[number as usize % rates.len()]).unwrap(),
        reported_change: changes[(number / 7) as usize % changes.len()]
            .map(|change| ReportedChange::parse(change).unwrap()),
    }
}

/// Returns a poll of one of two sources at `second`. The poll covers two seconds.
fn poll(random: &mut Random, second: i64) -> Poll {
    let at = |second: i64| Timestamp::from_micros(BASE_US + second * SECOND);
    let source = key(random.below(2)).source;
    let health = Health::ALL[random.below(4) as usize];
    Poll { source, time: at(second), covered_until: at(second + 2), health }
}

/// Makes commits of polls and of ticks of several series. Every third commit has late ticks. Half of the ticks may
/// revise a stored value.
fn fill(store: &mut Store, seed: u64, commits: u64, ticks_each: u64) {
    let mut random = Random(seed);
    let mut now = BASE_US * 2;
    let (mut second, mut polled) = (0_i64, 0_i64);
    for number in 0..commits {
        now += 1 + random.below(5_000).cast_signed();
        let mut transaction = store.begin(Timestamp::from_micros(now));
        let late = number % 3 == 2;
        for _ in 0..=random.below(ticks_each) {
            second += i64::from(!late);
            let at = if late { random.below(second.max(1).cast_unsigned()).cast_signed() } else { second };
            let jitter = if late { random.below(3).cast_signed() } else { 0 };
            let series = transaction.series(&key(random.below(4))).unwrap();
            let time = Timestamp::from_micros(BASE_US + at * SECOND + jitter);
            // A tick that conflicts and may not revise is refused.
            let _ = transaction.upsert(series, time, value(random.below(20) / 3), random.below(2) == 0);
        }
        for _ in 0..random.below(80) {
            polled += random.below(3).cast_signed();
            transaction.record_poll(&poll(&mut random, polled)).unwrap();
        }
        hold_and_decide(&mut transaction, &mut random, second);
        let (source, note) = (key(random.below(2)).source, Note::parse("a test").unwrap());
        if random.below(3) == 0 {
            // A source without a series is refused.
            let note = (random.below(2) == 0).then_some(note);
            let _ = transaction.set_archived(&source, random.below(2) == 0, note);
        }
        transaction.commit().unwrap();
        if random.below(4) == 0 {
            store.checkpoint().unwrap();
        }
    }
}

/// Admits ticks with the quarantine rule. Most are held, since the rates differ widely. Sometimes decides a held tick.
fn hold_and_decide(transaction: &mut WriteTransaction<'_>, random: &mut Random, second: i64) {
    for _ in 0..random.below(3) {
        let series = transaction.series(&key(random.below(4))).unwrap();
        let time = Timestamp::from_micros(BASE_US + second * SECOND + 7 + random.below(3).cast_signed());
        // A conflicting tick is refused.
        let _ = transaction.admit(series, time, value(random.below(20)), false, Some(RatioThreshold::DEFAULT));
    }
    let note = Note::parse("looked at").unwrap();
    let verdict = if random.below(2) == 0 { Verdict::Released } else { Verdict::Discarded };
    // Only ticks held in an earlier commit are decided.
    let before =
        transaction.quarantine().after(0).filter(|tick| tick.held_time < transaction.recorded_time()).count() as u64;
    if random.below(3) == 0 && before > 0 {
        transaction.decide(&[random.below(before) + 1], verdict, (random.below(2) == 0).then_some(&note), true);
    }
}

/// Creates a store and fills it with [`fill`].
fn filled(directory: &Path, seed: u64, commits: u64, ticks_each: u64) -> Store {
    let mut store = open(directory);
    fill(&mut store, seed, commits, ticks_each);
    store
}

fn import(export: &Path, into: &Path) -> Result<Commit, ReadError> {
    let (export, progress) = (FullExport::open(export)?, ReadProgress::default());
    export.verify_checksums(&progress)?;
    assert_eq!(progress.checked_bytes(), export.total_bytes());
    let commit = export.restore(into, rules(), &progress)?;
    assert_eq!(progress.rows(), export.total_rows());
    Ok(commit)
}

/// Returns first observed time and value of all runs as known at `known`.
fn runs_as_known(view: &View, number: u64, known: Timestamp) -> Vec<(Timestamp, PublishedValue)> {
    let Some(series) = view.find(&key(number)) else { return Vec::new() };
    let runs = series.runs(Timestamp::MIN, Timestamp::MAX, known, ScanOrder::Ascending).unwrap();
    runs.flat_map(Result::unwrap).map(|run: Run| (run.first_observed_time, run.value)).collect()
}

/// Checks that two stores give the same results for all reads.
fn assert_same(left: &View, right: &View) {
    let parts = Parts::of(left);
    assert_eq!(parts, Parts::of(right));
    // An import computes all states at the newest commit. In the original store, the state of a series was computed at
    // the last commit of that series. So states are not compared.
    let quote = |quote: &Arc<LatestQuote>| LatestQuote {
        changed_sequence: 0,
        state: silkrate::latest_quotes::RateState::Flat,
        ..(**quote).clone()
    };
    let quotes = |view: &View| view.latest_quotes.quotes.iter().map(quote).collect::<Vec<_>>();
    assert_eq!(quotes(left), quotes(right));
    assert!(right.latest_quotes.quotes.iter().all(|quote| quote.changed_sequence == parts.commit.sequence));
    let pick = parts.commits.len().div_ceil(8).max(1);
    for (_, known) in parts.commits.iter().step_by(pick) {
        for number in 0..4 {
            assert_eq!(
                runs_as_known(left, number, *known),
                runs_as_known(right, number, *known),
                "as known at {known}"
            );
            let totals = |view: &View| view.find(&key(number)).map(|series| series.totals(*known).unwrap());
            assert_eq!(totals(left), totals(right), "totals as known at {known}");
        }
    }
}

fn check_round_trip(seed: u64, commits: u64, ticks_each: u64) {
    let dir = tempfile::tempdir().unwrap();
    let (from, export, into) = (dir.path().join("from"), dir.path().join("export"), dir.path().join("into"));
    let mut original = filled(&from, seed, commits, ticks_each);
    Parts::of(&original.view()).write(&export);
    assert_eq!(import(&export, &into).unwrap(), original.newest_commit());
    let mut copy = open(&into);
    assert_eq!(copy.verify().problems, Vec::<String>::new());
    assert_same(&original.view(), &copy.view());
    // Both stores accept the same later commits, and the copy can be opened again.
    for store in [&mut original, &mut copy] {
        let mut transaction = store.begin(Timestamp::from_micros(BASE_US * 3));
        for number in 0..400 {
            let series = transaction.series(&key(number)).unwrap();
            let time = Timestamp::from_micros(BASE_US + (number.cast_signed() * 37 % 500) * SECOND / 2 + 5);
            let _ = transaction.upsert(series, time, value(number / 40), true);
        }
        for number in 0..300 {
            transaction.record_poll(&poll(&mut Random(number), 100_000 + number.cast_signed())).unwrap();
        }
        transaction.commit().unwrap();
    }
    assert_eq!(Parts::of(&original.view()), Parts::of(&copy.view()));
    copy.checkpoint().unwrap();
    drop(copy);
    let copy = open(&into);
    assert_eq!(copy.verify().problems, Vec::<String>::new());
    assert_eq!(Parts::of(&original.view()), Parts::of(&copy.view()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn import_recreates_the_exported_store(seed: u64, commits in 1..60_u64, ticks_each in 1..120_u64) {
        check_round_trip(seed, commits, ticks_each);
    }
}

/// Several blocks of each kind.
#[test]
fn import_recreates_a_store_of_many_blocks() {
    check_round_trip(7, 90, 1_200);
}

#[test]
fn import_recreates_an_empty_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("from"));
    Parts::of(&store.view()).write(&dir.path().join("export"));
    import(&dir.path().join("export"), &dir.path().join("into")).unwrap();
    assert_same(&store.view(), &open(&dir.path().join("into")).view());
}

/// Creates a small export. Returns its directory, its parts, and the path of the store to import into.
fn small_export() -> (tempfile::TempDir, PathBuf, Parts, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(&dir.path().join("from"), 3, 30, 60);
    let parts = Parts::of(&store.view());
    let export = dir.path().join("export");
    parts.write(&export);
    let into = dir.path().join("into");
    (dir, export, parts, into)
}

/// Checks that the files of a failed import are not opened as a store, and that a correct import starts from scratch.
fn assert_no_store(into: &Path, original: &Parts) {
    if into.exists() {
        let refused = Store::open(options(into), Timestamp::from_micros(BASE_US)).err();
        assert!(matches!(refused, Some(StoreError::UnfinishedImport { .. })), "{refused:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    original.write(dir.path());
    import(dir.path(), into).unwrap();
    assert_eq!(&Parts::of(&open(into).view()), original);
}

#[test]
fn interrupted_import_is_not_a_store_and_restarts_from_scratch() {
    let (_dir, _, parts, into) = small_export();
    let mut restore = Restore::begin(&into, rules(), parts.commit).unwrap();
    restore.commits(parts.commits.iter().map(|(_, time)| Ok::<_, RestoreError>(*time))).unwrap();
    // A second import, or a server, at the same time is refused.
    let second = Restore::begin(&into, rules(), parts.commit).err();
    assert!(matches!(second, Some(RestoreError::Store(StoreError::InUse { .. }))), "{second:?}");
    drop(restore);
    assert_no_store(&into, &parts);
}

/// The files of an interrupted import may be damaged.
#[test]
fn damaged_files_of_an_interrupted_import_are_discarded() {
    let (_dir, _, parts, into) = small_export();
    drop(Restore::begin(&into, rules(), parts.commit).unwrap());
    fs::write(into.join("sled/db"), b"torn").unwrap();
    fs::write(into.join("log"), b"torn").unwrap();
    assert_no_store(&into, &parts);
}

#[test]
fn import_needs_an_empty_directory() {
    let (dir, export, parts, into) = small_export();
    let refuse = |directory: &Path| {
        let problem = Restore::check_directory(directory).unwrap_err();
        assert_eq!(problem, Restore::begin(directory, rules(), parts.commit).err().unwrap());
        let problem = problem.to_string();
        assert!(problem.contains("is not empty") && problem.contains("--db"), "{problem}");
    };
    // An import into the exported store, which is closed, is refused.
    refuse(&dir.path().join("from"));
    assert_eq!(Parts::of(&open(&dir.path().join("from")).view()), parts);
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("notes.txt"), b"dear").unwrap();
    refuse(&other);
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1, "a refused import must leave no file");
    // A store without commits counts as empty; one commit in its log is enough to refuse it.
    drop(open(&into));
    import(&export, &into).unwrap();
    refuse(&into);
    let begun = dir.path().join("begun");
    let mut store = open(&begun);
    fill(&mut store, 1, 1, 1);
    assert_eq!(store.newest_commit().sequence, 1);
    drop(store);
    refuse(&begun);
    drop(open(&begun));
}

/// Checks that an import of changed parts is refused with this message, and that a correct import starts from scratch.
fn check_refused(export: &Path, into: &Path, original: &Parts, change: &dyn Fn(&mut Parts), expect: &str) {
    let mut parts = original.clone();
    change(&mut parts);
    parts.write(export);
    let problem = import(export, into).unwrap_err().to_string();
    assert!(problem.contains(expect), "no '{expect}' in: {problem}");
    assert_no_store(into, original);
    fs::remove_dir_all(into).unwrap();
}

#[test]
fn inconsistent_parts_are_refused() {
    let (_dir, export, original, into) = small_export();
    let check = |change: &dyn Fn(&mut Parts), expect: &str| check_refused(&export, &into, &original, change, expect);
    // Selects a run of several observations. The runs before and after it have different values, so no runs merge if it
    // is removed.
    let separates_neighbours = |three: &[((String, String), Run)]| {
        three.iter().all(|(key, _)| *key == three[0].0) && three[0].1.value != three[2].1.value
    };
    let at = 1 + original
        .runs
        .windows(3)
        .position(|three| three[1].1.observation_count > 2 && separates_neighbours(three))
        .unwrap();
    let instants_before: u64 = original.runs[..at].iter().map(|(_, run)| run.observation_count).sum();
    let second_instant = original.instants[instants_before as usize + 1].1;
    check(&|parts| parts.runs[at].1.observation_count += 1, "does not match the timeline");
    check(&|parts| parts.runs[at].1.observation_count = 0, "with 0 observations does not match");
    check(&|parts| parts.runs[at].1.observation_count = u64::MAX, "does not match the timeline");
    check(&|parts| drop(parts.runs.remove(at)), "does not match the timeline");
    check(&|parts| drop(parts.runs.pop()), "belongs to no run");
    check(&|parts| drop(parts.instants.pop()), "does not match the timeline");
    check(
        &|parts| {
            let last = parts.runs.len() - 1;
            parts.runs[last].1.last_observed_time = parts.runs[last].1.last_observed_time.saturating_add_us(1);
        },
        "does not match the timeline",
    );
    check(&|parts| parts.runs.swap(at, at + 1), "does not match the timeline");
    check(
        &|parts| parts.runs[at + 1].1.first_observed_time = parts.runs[at].1.last_observed_time,
        "is not after the previous",
    );
    check(
        &|parts| {
            let (key, mut rest) = parts.runs[at].clone();
            rest.first_observed_time = second_instant;
            rest.observation_count -= 1;
            parts.runs.insert(at + 1, (key, rest));
            let first = &mut parts.runs[at].1;
            first.last_observed_time = first.first_observed_time;
            first.observation_count = 1;
        },
        "they must be one run",
    );
    check(
        &|parts| {
            let (_, run) = &mut parts.runs[at];
            let time = Timestamp::from_micros(0);
            run.first_observed_time = time;
        },
        "outside the years 1990 to 9999",
    );
    let shift = |time: &mut Timestamp| *time = time.saturating_add_us(1);
    check(&|parts| shift(&mut parts.runs[at].1.recorded_time), "no commit has the recorded time");
    check(&|parts| shift(&mut parts.revisions[0].1.superseded_time), "no commit has the recorded time");
    check(&|parts| parts.revisions[0].1.superseded_time = parts.revisions[0].1.run.recorded_time, "which is not later");
    check(
        &|parts| {
            let last = parts.series.len() - 1;
            parts.series[last].1 = -1;
        },
        "is negative",
    );
    check(&|parts| parts.series.iter_mut().for_each(|(_, window_us)| *window_us = 0), "bridges a gap");
    check(&|parts| drop(parts.series.pop()), "is out of order");
    check(&|parts| parts.series.reverse(), "is out of order");
    check(&|parts| parts.series.push(parts.series[0].clone()), "the series is given twice");
    check(&|parts| parts.series[0].0.0 = "KGS/KGS".to_owned(), "row 1: pair: pair 'KGS/KGS' has the same currency");
    check(&|parts| parts.series[0].0.1 = "No Slug".to_owned(), "row 1: source: source 'No Slug'");
    check(&|parts| parts.commits.truncate(parts.commits.len() - 1), "the list has");
    check(&|parts| parts.commit.sequence += 1, "the list has");
    check(&|parts| shift(&mut parts.commit.recorded_time), "the list has");
    check(&|parts| parts.commits[3].0 = 3, "row 4: sequence: is 3, but the next sequence must be 4");
    check(&|parts| parts.commits[3].1 = parts.commits[2].1, "is not after the previous");
    check(&|parts| parts.polls.swap(0, 1), "polls of nbkr: the span from");
    check(&|parts| parts.polls[1].1.covered_until = parts.polls[0].1.first_poll_time, "out of order, or overlaps");
    check(
        &|parts| {
            let span = parts.polls[0].1;
            parts.polls = (0..65).map(|number| (format!("bank-{number}"), span)).collect();
        },
        "the polls of bank-64 are not recorded",
    );
}

#[test]
fn inconsistent_held_ticks_are_refused() {
    let (_dir, export, original, into) = small_export();
    let check = |change: &dyn Fn(&mut Parts), expect: &str| check_refused(&export, &into, &original, change, expect);
    let shift = |time: &mut Timestamp| *time = time.saturating_add_us(1);
    let decided = original.held.iter().position(|tick| tick.decision.is_some()).unwrap();
    let decide = |tick: &mut HeldTick, time| {
        tick.decision.as_mut().unwrap().decided_time = time;
    };
    check(&|parts| parts.held.swap(0, 1), "held tick 1: its id is out of order: the id before it is 2");
    check(&|parts| shift(&mut parts.held[0].held_time), "no commit has the recorded time");
    check(
        &|parts| decide(&mut parts.held[decided], parts.commit.recorded_time.saturating_add_us(1)),
        "no commit has the recorded time",
    );
    let held_time = original.held[decided].held_time;
    check(&|parts| decide(&mut parts.held[decided], held_time), "which is not later");
    check(
        &|parts| {
            let last = parts.held.len() - 1;
            parts.held[last].held_time = parts.held[0].held_time;
        },
        "is not after the previous",
    );
    check(
        &|parts| {
            let last = HeldTick { id: parts.held.len() as u64, decision: None, ..parts.held[0].clone() };
            let held_time = parts.held.pop().unwrap().held_time;
            parts.held[0].decision = None;
            parts.held.push(HeldTick { held_time, ..last });
        },
        "is held or was discarded under another id",
    );
    check(&|parts| parts.held[0].observed_time = Timestamp::from_micros(0), "outside the years 1990 to 9999");
    check(
        &|parts| {
            let other = SeriesKey { source: Source::parse("unknown").unwrap(), ..(*parts.held[0].series).clone() };
            parts.held[0].series = Arc::new(other);
        },
        "there is no series of",
    );
}

#[test]
fn invalid_columns_of_held_ticks_are_named() {
    let (_dir, export, parts, into) = small_export();
    let check = |name: &'static str, column: ArrayRef, expect: &str| {
        let columns = held_columns(&parts.held).into_iter();
        let columns = columns.map(|(other, of)| (other, if other == name { Arc::clone(&column) } else { of }));
        full_export::write(&export.join("quarantine.parquet"), columns.collect());
        parts.write_manifest(&export);
        let problem = import(&export, &into).unwrap_err().to_string();
        assert!(problem.contains(expect), "no '{expect}' in: {problem}");
        assert_no_store(&into, &parts);
        fs::remove_dir_all(&into).unwrap();
    };
    let texts = |text: &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(parts.held.iter().map(|_| text))) };
    let decided = parts.held.iter().position(|tick| tick.decision.is_some()).unwrap() + 1;
    check("state", texts("OPEN"), "row 1: state: is 'OPEN'; it must be HELD, RELEASED or DISCARDED");
    check("state", texts("HELD"), &format!("row {decided}: decided_time: must be null, because state is HELD"));
    let notes = parts.held.iter().map(|tick| tick.decision.as_ref().map(|_| "two\nlines"));
    check("note", Arc::new(notes.collect::<StringArray>()), "note: note 'two\\nlines' contains control characters");
    check("pair", texts("KGS/KGS"), "row 1: pair: pair 'KGS/KGS' has the same currency twice");
}

#[test]
fn files_that_differ_from_the_manifest_are_refused() {
    let (_dir, export, parts, into) = small_export();
    let check = |change: &dyn Fn(&Path), expect: &[&str]| {
        parts.write(&export);
        change(&export);
        let problem = import(&export, &into).unwrap_err().to_string();
        for part in expect {
            assert!(problem.contains(part), "no '{part}' in: {problem}");
        }
        assert!(!into.exists(), "{expect:?}: the import created a store");
    };
    let manifest = |export: &Path, from: &str, to: &str| {
        let path = export.join("manifest.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    };
    let truncate = |export: &Path, name: &str, keep: usize| {
        let bytes = fs::read(export.join(name)).unwrap();
        fs::write(export.join(name), &bytes[..bytes.len().min(keep)]).unwrap();
    };
    let runs: Vec<&Run> = parts.runs.iter().map(|(_, run)| run).collect();
    let columns = || [names(&parts.runs), run_columns(&runs)].concat();
    let without = |name: &str| columns().into_iter().filter(|(other, _)| *other != name).collect::<Vec<Named>>();

    check(&|export| fs::remove_file(export.join("manifest.json")).unwrap(), &["no manifest.json", "--full"]);
    check(&|export| fs::write(export.join("manifest.json"), "{}").unwrap(), &["is not a manifest", "schema_version"]);
    check(
        &|export| manifest(export, "\"schema_version\":2", "\"schema_version\":3"),
        &["schema_version is 3", "reads 1 to 2", "0.1.0"],
    );
    check(&|export| manifest(export, "\"recorded_time\":\"", "&at "), &["is not a manifest"]);
    check(
        &|export| manifest(export, "\"recorded_time\":\"", "\"recorded_time\":\"at "),
        &["recorded_time", "RFC 3339"],
    );
    check(&|export| manifest(export, "runs.parquet", "run.parquet"), &["'parts' does not list runs.parquet"]);
    check(&|export| manifest(export, "polls.parquet", "poll.parquet"), &["'parts' does not list polls.parquet"]);
    check(&|export| fs::remove_file(export.join("runs.parquet")).unwrap(), &["runs.parquet", "No such file"]);
    check(&|export| truncate(export, "runs.parquet", 1_000), &["runs.parquet", "Parquet", "the file is complete"]);
    check(&|export| truncate(export, "timeline.parquet", 0), &["timeline.parquet", "Parquet"]);
    check(&|export| fs::write(export.join("series.parquet"), "pair,source").unwrap(), &["series.parquet", "Parquet"]);
    check(
        &|export| {
            // A byte of the first page: schema and row count remain correct.
            let mut bytes = fs::read(export.join("runs.parquet")).unwrap();
            bytes[40] ^= 1;
            fs::write(export.join("runs.parquet"), bytes).unwrap();
        },
        &["runs.parquet has SHA-256", "manifest states"],
    );
    let rows = parts.runs.len();
    check(
        &|export| manifest(export, &format!("\"row_count\":{rows}"), "\"row_count\":7"),
        &["rows, but the manifest states 7"],
    );
    check(
        &|export| full_export::write(&export.join("runs.parquet"), without("rate")),
        &["runs.parquet: column 'rate' is missing", "DECIMAL(38,18)"],
    );
    check(
        &|export| fs::copy(export.join("timeline.parquet"), export.join("commits.parquet")).map(drop).unwrap(),
        &["commits.parquet: column 'sequence' is missing", "a whole number"],
    );
    check(
        &|export| {
            let mut columns = without("observation_count");
            let counts: ArrayRef = Arc::new(StringArray::from_iter_values(runs.iter().map(|_| "1")));
            columns.push(("observation_count", counts));
            full_export::write(&export.join("runs.parquet"), columns);
        },
        &["runs.parquet: column 'observation_count' is Utf8; write it as a whole number"],
    );
}
