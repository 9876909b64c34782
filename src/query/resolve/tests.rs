//! Choice of series over a store of ticks.

mod model;

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::{CurrencySet, PublishedValue, Rate};
use crate::latest_quotes::StateRules;
use crate::query::{ChangeStart, Moment};
use crate::sources::{Setting, SourceSettings, SourceTable};
use crate::store::{Store, StoreOptions};

const NOW: Timestamp = Timestamp::from_micros(1_765_195_200_000_000);

fn source(slug: &str) -> Source {
    Source::parse(slug).unwrap()
}

fn pair(text: &str) -> Pair {
    Pair::parse(text, &CurrencySet::central_asia()).unwrap()
}

fn rules() -> StateRules {
    let stale_limits_us = BTreeMap::from([(source("bank"), 5 * Timestamp::DAY_US)]);
    StateRules {
        stale_limit_default_us: Timestamp::HOUR_US,
        stale_limits_us,
        moving_window_default_us: Timestamp::DAY_US,
        series_stale_limits_us: BTreeMap::new(),
        moving_windows_us: BTreeMap::new(),
    }
}

/// A reader at [`NOW`] of a store with ticks such as "KGS/USD a 0.01144 90": pair, source, rate and age in minutes.
struct Fixture {
    _directory: tempfile::TempDir,
    store: Store,
    reader: Reader,
}

impl Fixture {
    fn new(ticks: &[&str], preferred: &[&str], configured: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(StoreOptions::of_test(directory.path()), NOW).unwrap();
        let mut transaction = store.begin(NOW);
        for tick in ticks {
            let fields: Vec<&str> = tick.split(' ').collect();
            let key = SeriesKey { pair: pair(fields[0]), source: source(fields[1]) };
            let age_minutes: i64 = fields[3].parse().unwrap();
            let value = PublishedValue { rate: Rate::parse(fields[2]).unwrap(), reported_change: None };
            let series = transaction.series(&key).unwrap();
            let time = NOW.saturating_add_us(-age_minutes * 60 * Timestamp::SECOND_US);
            transaction.upsert(series, time, value, false).unwrap();
        }
        transaction.commit().unwrap();
        let ranks = preferred.iter().zip(1..).map(|(slug, rank)| (*slug, Some(Setting::built_in(rank))));
        let named = ranks.chain(configured.iter().map(|slug| (*slug, None)));
        let settings = |preference| SourceSettings { preference, ..SourceSettings::BUILT_IN };
        let named = named.map(|(slug, preference)| (source(slug), settings(preference))).collect();
        let table = SourceTable::new(SourceSettings::BUILT_IN, named).unwrap();
        let view = Arc::new(store.view());
        let reader = Reader::new(view, NOW, Arc::new(rules()), CancellationToken::new()).with_sources(&Arc::new(table));
        Self { _directory: directory, store, reader }
    }

    /// Archives a source, or unarchives it, a second after the last commit.
    fn archive(&mut self, slug: &str, is_archived: bool) {
        let now = self.store.newest_commit().recorded_time.saturating_add_us(Timestamp::SECOND_US);
        let mut transaction = self.store.begin(now);
        assert!(transaction.set_archived(&source(slug), is_archived, None).unwrap());
        transaction.commit().unwrap();
        self.reader.view = Arc::new(self.store.view());
        self.reader.now = now;
    }

    /// The route for a pair: "KGS/USD from a", with "1/" before an inverse, or the error.
    fn route(&self, wanted: &str, (one, legs): (&str, &[&str]), need: &Need) -> String {
        let one = (!one.is_empty()).then(|| source(one));
        let legs: Vec<Source> = legs.iter().map(|slug| source(slug)).collect();
        let as_of = self.reader.as_of(None).unwrap();
        match self.reader.resolve(&as_of, pair(wanted), one.as_ref(), &legs, need) {
            Ok(route) => {
                let legs =
                    route.iter().map(|leg| format!("{}{}", if leg.inverted { "1/" } else { "" }, leg.series.key()));
                legs.collect::<Vec<_>>().join(" * ")
            }
            Err(error) => error.to_string(),
        }
    }
}

/// An `expect` that ends in "..." is a prefix.
#[track_caller]
fn assert_route(found: &str, expect: &str) {
    let is_equal = expect.strip_suffix("...").map_or(found == expect, |prefix| found.starts_with(prefix));
    assert!(is_equal, "{found}, expected {expect}");
}

#[track_caller]
fn check(ticks: &[&str], wanted: &str, expect: &str) {
    assert_route(&Fixture::new(ticks, &[], &[]).route(wanted, ("", &[]), &Need::at(NOW)), expect);
}

#[test]
fn fresh_rate_with_most_digits_answers_in_either_direction() {
    let ticks = ["UZS/USD timesca 0.00008 5", "USD/UZS bank 12000.00 600"];
    check(&ticks, "USD/UZS", "USD/UZS from bank");
    check(&ticks, "UZS/USD", "1/USD/UZS from bank");
    check(&ticks[..1], "USD/UZS", "1/UZS/USD from timesca");
    check(&["KGS/USD b 0.01144 5", "KGS/USD a 0.01144 5"], "KGS/USD", "KGS/USD from a");
}

#[test]
fn stale_rate_answers_only_if_all_candidates_are_stale() {
    let ticks = ["UZS/USD timesca 0.00008 120", "USD/UZS cbu 8100.55 4000000"];
    check(&ticks, "USD/UZS", "1/UZS/USD from timesca");
    check(&["UZS/USD timesca 0.00008 5", "USD/UZS cbu 8100.55 4000000"], "USD/UZS", "1/UZS/USD from timesca");
    check(&["USD/UZS cbu 8100.55 4000000"], "USD/UZS", "USD/UZS from cbu");
}

#[test]
fn configured_source_answers_before_unknown_source() {
    let ticks = ["KGS/USD timesca 0.01144 5", "KGS/USD tymesca 0.011440 5"];
    let route = |preferred: &[&str], configured: &[&str]| {
        Fixture::new(&ticks, preferred, configured).route("KGS/USD", ("", &[]), &Need::at(NOW))
    };
    assert_eq!(route(&[], &["timesca"]), "KGS/USD from timesca");
    assert_eq!(route(&[], &[]), "KGS/USD from tymesca");
    // A preference precedes all but freshness.
    assert_eq!(route(&["tymesca"], &["timesca"]), "KGS/USD from tymesca");
}

#[test]
fn cross_answers_if_no_direct_rate_is_better() {
    check(&["KGS/USD a 0.01144 5", "KZT/USD b 0.00196 5"], "KGS/KZT", "KGS/USD from a * 1/KZT/USD from b");
    check(&["USD/KGS a 87.4 5", "USD/KZT b 510.2 5"], "KGS/KZT", "1/USD/KGS from a * USD/KZT from b");
    // The cross has three significant digits, the direct rate five.
    let ticks = ["KGS/KZT c 5.8367 5", "KGS/USD a 0.01144 5", "KZT/USD b 0.00196 5"];
    check(&ticks, "KGS/KZT", "KGS/KZT from c");
    check(&ticks, "KZT/KGS", "1/KGS/KZT from c");
    // A stale direct rate does not hide a fresh cross.
    let stale = ["KGS/KZT c 5.8367 120", "KGS/USD a 0.01144 5", "KZT/USD b 0.00196 5"];
    check(&stale, "KGS/KZT", "KGS/USD from a * 1/KZT/USD from b");
    check(
        &["KGS/USD a 0.01144 5"],
        "KGS/KZT",
        "there is no series of KGS/KZT and no series of KZT/USD for a cross rate; available: KGS/USD from a",
    );
    check(
        &[],
        "KGS/KZT",
        "there is no series of KGS/KZT and no series of KGS/USD or KZT/USD for a cross rate; no series exists yet",
    );
}

#[test]
fn named_sources_limit_the_candidates() {
    let fixture = Fixture::new(
        &[
            "KGS/KZT d 5.8367 5",
            "KGS/USD a 0.01144 5",
            "KGS/USD b 0.01145 5",
            "KZT/USD a 0.00196 5",
            "KZT/USD b 0.00197 5",
            "USD/KGS c 87.4 5",
        ],
        &[],
        &[],
    );
    let check = |sources, expect: &str| assert_route(&fixture.route("KGS/KZT", sources, &Need::at(NOW)), expect);
    check(("d", &[]), "KGS/KZT from d");
    check(("a", &[]), "KGS/USD from a * 1/KZT/USD from a");
    check(("", &["a", "b"]), "KGS/USD from a * 1/KZT/USD from b");
    check(("", &["c", "a"]), "1/USD/KGS from c * 1/KZT/USD from a");
    check(("a", &["a", "a"]), "KGS/USD from a * 1/KZT/USD from a");
    check(("", &["d"]), "KGS/KZT from d");
    check(("", &["a"]), "leg_sources: 1 source is given; KGS/KZT is a cross of two legs...");
    check(("a", &["b"]), "leg_sources: 'b' contradicts source 'a'; give one of them");
    check(("", &["a", "b", "c"]), "leg_sources: 3 sources are given; a cross has two legs");
    check(("c", &[]), "there is no series of KGS/KZT from c and no series of KZT/USD for a cross rate...");
    let one_leg = |sources, expect: &str| assert_route(&fixture.route("KGS/USD", sources, &Need::at(NOW)), expect);
    one_leg(("", &["b"]), "KGS/USD from b");
    one_leg(("", &["a", "b"]), "leg_sources: 2 sources are given; KGS/USD contains USD and has one leg");
    one_leg(("z", &[]), "there is no series of KGS/USD from z; available: ...");
}

#[test]
fn change_needs_a_rate_at_its_start_and_an_observation_inside() {
    let ticks = ["KGS/USD old 0.0114 2000", "KGS/USD old 0.0114 30", "KGS/USD new 0.011440 50"];
    let fixture = Fixture::new(&ticks, &[], &[]);
    let minutes_ago = |minutes: i64| NOW.saturating_add_us(-minutes * 60 * Timestamp::SECOND_US);
    let route = |need: &Need| fixture.route("KGS/USD", ("", &[]), need);
    let change = |start, end| {
        let start = ChangeStart::Time(Moment::At(start));
        Need::change(start, Some(Moment::At(end)), None, NOW)
    };
    assert_eq!(route(&Need::at(NOW)), "KGS/USD from new");
    // Only `old` has a rate at the start of a longer change.
    assert_eq!(route(&change(minutes_ago(1_900), NOW)), "KGS/USD from old");
    // Only `old` has an observation in the last 40 minutes.
    assert_eq!(route(&change(minutes_ago(40), NOW)), "KGS/USD from old");
    assert_eq!(route(&change(minutes_ago(45), minutes_ago(35))), "KGS/USD from new");
}

#[test]
fn max_age_drops_older_candidates() {
    let fixture = Fixture::new(&["KGS/USD a 0.01144 50", "KGS/USD b 0.0114 5"], &[], &[]);
    let minutes = |count: i64| Some(count * 60 * Timestamp::SECOND_US);
    let route = |max_age_us| fixture.route("KGS/USD", ("", &[]), &Need::at(NOW).with_max_age(max_age_us));
    assert_eq!(route(None), "KGS/USD from a");
    assert_eq!(route(minutes(50)), "KGS/USD from a");
    assert_eq!(route(minutes(49)), "KGS/USD from b");
    // With all too old, the choice is that of a request without the limit.
    assert_eq!(route(minutes(1)), "KGS/USD from a");
}

#[test]
fn strict_sources_refuse_several_candidates() {
    let mut fixture = Fixture::new(
        &["KGS/USD a 0.01144 5", "USD/KGS b 87.4 5", "KZT/USD a 0.00196 5", "USD/KZT a 510.2 5", "USD/TJS c 9.3 5"],
        &[],
        &[],
    );
    fixture.reader = fixture.reader.strict(true);
    let route = |wanted, one| fixture.route(wanted, (one, &[]), &Need::at(NOW));
    let refused = "several series can answer for KGS/USD: KGS/USD from a, USD/KGS from b; name a source...";
    assert_route(&route("KGS/USD", ""), refused);
    assert_eq!(route("KGS/USD", "b"), "1/USD/KGS from b");
    // A request that names its source has made its choice, even if the source has the pair in both directions.
    assert_eq!(route("KZT/USD", "a"), "1/USD/KZT from a");
    assert_eq!(route("TJS/USD", ""), "1/USD/TJS from c");
    // The legs of a cross are chosen strictly as well.
    assert_route(&route("KGS/TJS", ""), "several series can answer for KGS/TJS: ...");
    // The error has the candidates of both legs.
    let both =
        "several series can answer for KGS/KZT: KGS/USD from a, USD/KGS from b; KZT/USD from a, USD/KZT from a; ...";
    assert_route(&route("KGS/KZT", ""), both);
}

#[test]
fn archived_source_answers_only_without_another_source() {
    let ticks = ["KGS/USD tymesca 0.011440 5", "KGS/USD timesca 0.01144 5", "KZT/USD tymesca 0.00196 5"];
    let mut fixture = Fixture::new(&ticks, &[], &[]);
    let route = |fixture: &Fixture, wanted: &str, one: &str| fixture.route(wanted, (one, &[]), &Need::at(NOW));
    assert_eq!(route(&fixture, "KGS/USD", ""), "KGS/USD from tymesca");
    fixture.archive("tymesca", true);
    let check = |wanted: &str, one: &str, expect: &str| assert_eq!(route(&fixture, wanted, one), expect);
    check("KGS/USD", "", "KGS/USD from timesca");
    check("KGS/USD", "tymesca", "KGS/USD from tymesca");
    // Only the archived source has the pair.
    check("KZT/USD", "", "KZT/USD from tymesca");
    check("KGS/KZT", "", "KGS/USD from timesca * 1/KZT/USD from tymesca");
    // A stale rate of another source comes before a fresh rate of an archived source.
    let mut stale = Fixture::new(&["KGS/USD tymesca 0.01144 5", "KGS/USD timesca 0.01144 600"], &[], &[]);
    stale.archive("tymesca", true);
    assert_eq!(route(&stale, "KGS/USD", ""), "KGS/USD from timesca");
    // Strict sources do not count an archived source.
    fixture.reader = fixture.reader.with_sources(&Arc::new(SourceTable::default().with_strict(true)));
    assert_eq!(route(&fixture, "KGS/USD", ""), "KGS/USD from timesca");
    fixture.archive("tymesca", false);
    assert_route(&route(&fixture, "KGS/USD", ""), "several series can answer for KGS/USD: ...");
}

#[test]
fn source_is_archived_as_known_at_the_time_of_the_read() {
    let mut fixture = Fixture::new(&["KGS/USD a 0.01144 5", "KGS/USD b 0.011440 5"], &[], &[]);
    let before = fixture.store.newest_commit().recorded_time;
    fixture.archive("b", true);
    let archived = fixture.store.newest_commit().recorded_time;
    fixture.archive("b", false);
    let answer = |known_time: Timestamp, one: Option<&str>| {
        let request = crate::query::RateRequest {
            pair: pair("KGS/USD"),
            source: one.map(source),
            leg_sources: Vec::new(),
            time: None,
            zone: None,
            max_age_us: None,
            known_time: Some(known_time),
        };
        let body = fixture.reader.rate(&request).unwrap().body;
        (body.legs[0].0.source.to_string(), body.is_archived)
    };
    assert_eq!(answer(before, None), ("b".to_owned(), false));
    assert_eq!(answer(archived, None), ("a".to_owned(), false));
    assert_eq!(answer(archived, Some("b")), ("b".to_owned(), true));
    assert_eq!(answer(fixture.reader.now, Some("b")), ("b".to_owned(), false));
}

#[test]
fn series_without_a_rate_yet_is_chosen_by_its_first_observation() {
    let fixture = Fixture::new(&["KGS/USD a 0.01144 5", "KGS/USD b 0.01144 10"], &[], &[]);
    let before = NOW.saturating_add_us(-Timestamp::DAY_US);
    assert_eq!(fixture.route("KGS/USD", ("", &[]), &Need::at(before)), "KGS/USD from b");
}

#[test]
fn unknown_series_error_lists_available_series() {
    let ticks: Vec<String> = (0..15).map(|number| format!("KGS/USD s{number} 0.01144 5")).collect();
    let ticks: Vec<&str> = ticks.iter().map(String::as_str).collect();
    let found = Fixture::new(&ticks, &[], &[]).route("KGS/USD", ("nbkr", &[]), &Need::at(NOW));
    assert_route(&found, "there is no series of KGS/USD from nbkr; available: KGS/USD from s0, ...");
    assert!(found.ends_with("KGS/USD from s6 and 3 more"), "{found}");
}

#[test]
fn day_is_a_day_of_the_source_that_answers() {
    // The table of the bank for a day begins at 19:00 UTC of the day before.
    let mut fixture = Fixture::new(&["USD/UZS bank 11973.40 2460", "USD/UZS bank 11984.50 1020"], &[], &[]);
    let bank = SourceSettings { zone: Setting::built_in(Zone::TASHKENT), ..SourceSettings::BUILT_IN };
    let named = BTreeMap::from([(source("bank"), bank)]);
    fixture.reader.sources = Arc::new(SourceTable::new(SourceSettings::BUILT_IN, named).unwrap());
    // NOW is 2025-12-08T12:00Z, so the tables begin on 6 December 19:00 and on 7 December 19:00 UTC.
    let rate = |day: u32, zone: Option<Zone>| {
        let date = chrono::NaiveDate::from_ymd_opt(2025, 12, day);
        let request = crate::query::RateRequest {
            pair: pair("USD/UZS"),
            source: None,
            leg_sources: Vec::new(),
            time: date.map(Moment::Day),
            zone,
            max_age_us: None,
            known_time: None,
        };
        let answer = fixture.reader.rate(&request).unwrap().body;
        (answer.rate.rounded_value().to_string(), answer.time.to_string(), answer.day.map(|(_, zone)| zone))
    };
    let tashkent = Some(Zone::TASHKENT);
    assert_eq!(rate(7, None), ("11973.40".to_owned(), "2025-12-07T18:59:59.999999Z".to_owned(), tashkent));
    assert_eq!(rate(8, None), ("11984.50".to_owned(), NOW.to_string(), tashkent));
}
