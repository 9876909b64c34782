//! The choice of series compared with a naive model: the rule of the design, one step after the other, over the ticks of
//! random sources with random zones, limits, preferences and archived sources.

use std::collections::BTreeMap;

use chrono::{Days, NaiveDate};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use crate::domain::{CurrencySet, PublishedValue, Rate, Span, SpanUnit};
use crate::latest_quotes::StateRules;
use crate::query::resolve::*;
use crate::query::{ChangeStart, Moment, MomentRange};
use crate::sources::{Setting, SourceSettings, SourceTable};
use crate::store::{Store, StoreOptions};

const HOUR_US: i64 = Timestamp::HOUR_US;
/// 2025-12-08T12:00:00Z.
const NOW: Timestamp = Timestamp::from_micros(1_765_195_200_000_000);
/// The collapse window of every series.
const WINDOW_US: i64 = HOUR_US;
const SOURCES: [&str; 4] = ["a", "b", "c", "d"];
const PAIRS: [&str; 6] = ["KGS/USD", "USD/KGS", "KZT/USD", "USD/KZT", "KGS/KZT", "KZT/KGS"];
/// Rates with one to five significant digits. Every rate suits every pair here, because no tick is held.
const RATES: [&str; 4] = ["0.2", "0.25", "0.250", "0.25012"];

#[derive(Clone, Debug)]
struct ModelSource {
    zone: Zone,
    stale_limit_us: i64,
    preference: Option<u32>,
    is_configured: bool,
    is_archived: bool,
}

#[derive(Clone, Debug)]
struct ModelTick {
    pair: usize,
    source: usize,
    hours_ago: i64,
    rate: usize,
}

/// What a request asks for, in hours before [`NOW`] or days before its date.
#[derive(Clone, Debug)]
enum Ask {
    Now,
    At(i64),
    Day(u64),
    Change { start: i64, hours: i64 },
    ChangeOfDays { start: u64, days: u64 },
    Range { start: i64, hours: i64 },
    RangeOfDays { start: u64, days: u64 },
    Window(u32),
}

fn source_of(at: usize) -> Source {
    Source::parse(SOURCES[at]).unwrap()
}

fn pair_of(text: &str) -> Pair {
    Pair::parse(text, &CurrencySet::central_asia()).unwrap()
}

fn hours_ago(hours: i64) -> Timestamp {
    NOW.saturating_add_us(-hours * HOUR_US)
}

fn days_ago(days: u64) -> NaiveDate {
    NaiveDate::from_ymd_opt(2025, 12, 8).unwrap() - Days::new(days)
}

/// A request in the terms of the model: whether it is for a change, and how its start and end follow from a time zone.
struct Asked<'a> {
    ask: &'a Ask,
    zone: Option<Zone>,
}

impl Asked<'_> {
    fn need(&self) -> Need {
        let at = |hours: i64| Moment::At(hours_ago(hours));
        let day = |days: u64| Moment::Day(days_ago(days));
        match *self.ask {
            Ask::Now => Need::rate(None, self.zone, NOW),
            Ask::At(hours) => Need::rate(Some(at(hours)), self.zone, NOW),
            Ask::Day(days) => Need::rate(Some(day(days)), self.zone, NOW),
            Ask::Change { start, hours } => {
                Need::change(ChangeStart::Time(at(start)), Some(at(start - hours)), self.zone, NOW)
            }
            Ask::ChangeOfDays { start, days } => {
                let end = Some(day(start.saturating_sub(days)));
                Need::change(ChangeStart::Time(day(start)), end, self.zone, NOW)
            }
            Ask::Window(hours) => {
                Need::change(ChangeStart::Before(Span::new(hours, SpanUnit::Hour)), None, self.zone, NOW)
            }
            Ask::Range { start, hours } => {
                let range = MomentRange { start: Some(at(start)), end: Some(at(start - hours)) };
                Need::range(range, self.zone, NOW)
            }
            Ask::RangeOfDays { start, days } => {
                let range = MomentRange { start: Some(day(start)), end: Some(day(start.saturating_sub(days))) };
                Need::range(range, self.zone, NOW)
            }
        }
    }

    fn is_change(&self) -> bool {
        matches!(self.ask, Ask::Change { .. } | Ask::ChangeOfDays { .. } | Ask::Window(_))
    }

    /// The start, and the time of the choice, for a source with days of `of_source`.
    fn times(&self, of_source: Zone) -> (Option<Timestamp>, Timestamp) {
        let zone = self.zone.unwrap_or(of_source);
        let first_instant = |days: u64| zone.day_start(days_ago(days));
        let before = |time: Timestamp| time.saturating_add_us(-1).min(NOW);
        let (start, end) = match *self.ask {
            Ask::Now => (None, NOW),
            Ask::At(hours) => (None, hours_ago(hours)),
            // The rate of a day is the rate in force just before the day ends, or now.
            Ask::Day(days) => (None, before(zone.day_start(days_ago(days) + Days::new(1)))),
            Ask::Change { start, hours } => (Some(hours_ago(start)), hours_ago(start - hours)),
            Ask::ChangeOfDays { start, days } => {
                (Some(first_instant(start)), first_instant(start.saturating_sub(days)))
            }
            Ask::Window(hours) => (Some(hours_ago(i64::from(hours))), NOW),
            Ask::Range { start, hours } => (Some(hours_ago(start)), before(hours_ago(start - hours))),
            Ask::RangeOfDays { start, days } => {
                (Some(first_instant(start)), before(first_instant(start.saturating_sub(days))))
            }
        };
        // An empty range has no start.
        (start.filter(|start| self.is_change() || *start <= end), end)
    }
}

/// A candidate of the model.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one step of the rule")]
struct Candidate {
    /// Pair, source, and whether the inverse of the rate answers.
    legs: Vec<(Pair, usize, bool)>,
    observed: Timestamp,
    is_archived: bool,
    is_stale: bool,
    has_start: bool,
    is_observed_inside: bool,
    preference: u32,
    is_configured: bool,
    digits: u32,
    stale_limit_us: i64,
}

struct Model<'a> {
    ticks: &'a [ModelTick],
    sources: &'a [ModelSource],
    asked: Asked<'a>,
}

impl Model<'_> {
    /// The ticks of a series, oldest first; of two ticks at one instant the first one given counts.
    fn timeline(&self, pair: Pair, source: usize) -> Vec<(Timestamp, &'static str)> {
        let mut found = BTreeMap::new();
        for tick in self.ticks.iter().filter(|tick| tick.source == source && pair_of(PAIRS[tick.pair]) == pair) {
            found.entry(hours_ago(tick.hours_ago)).or_insert(RATES[tick.rate]);
        }
        found.into_iter().collect()
    }

    /// The facts about a series at `end`; none without a rate in force.
    fn candidate(
        &self,
        (pair, source, inverted): (Pair, usize, bool),
        (start, end): (Option<Timestamp>, Timestamp),
    ) -> Option<Candidate> {
        let timeline = self.timeline(pair, source);
        let at = timeline.iter().rposition(|(time, _)| *time <= end)?;
        let rate = timeline[at].1;
        // The run in force ends at the last tick with the same value and no long gap before it.
        let mut last = timeline[at].0;
        for (time, value) in &timeline[at + 1..] {
            if *value != rate || time.micros_since(last) > WINDOW_US {
                break;
            }
            last = *time;
        }
        let settings = &self.sources[source];
        let is_short = self.asked.is_change() && start.is_some_and(|start| end.micros_since(start) < Timestamp::DAY_US);
        Some(Candidate {
            legs: vec![(pair, source, inverted)],
            observed: last.min(end),
            is_archived: settings.is_archived,
            is_stale: end.micros_since(last) >= settings.stale_limit_us,
            has_start: start.is_none_or(|start| timeline[0].0 <= start),
            is_observed_inside: !is_short
                || timeline.iter().any(|(time, _)| start.is_some_and(|start| *time >= start) && *time <= end),
            preference: settings.preference.unwrap_or(u32::MAX),
            is_configured: settings.is_configured,
            digits: u32::try_from(rate.trim_start_matches(['0', '.']).len()).unwrap(),
            stale_limit_us: settings.stale_limit_us,
        })
    }

    /// The direct rate and the inverse of each source.
    fn of_one_leg(&self, pair: Pair) -> Vec<Candidate> {
        let series = (0..SOURCES.len()).flat_map(|at| [(pair, at, false), (pair.inverse(), at, true)]);
        series.filter_map(|series| self.candidate(series, self.asked.times(self.sources[series.1].zone))).collect()
    }

    fn cross(&self, pair: Pair) -> Option<Candidate> {
        let (base, quote) = against_usd(pair)?;
        // Each leg is a currency against USD; the second one is turned around.
        let legs = [best(self.of_one_leg(base))?, best(self.of_one_leg(quote))?];
        let [first, (other_pair, other_source, inverted)] = legs.map(|leg| leg.legs[0]);
        let second = (other_pair, other_source, !inverted);
        // A cross without a time zone has the days that end first.
        let [one, other] = [first, second].map(|leg| self.asked.times(self.sources[leg.1].zone));
        let times = (one.0.zip(other.0).map(|(one, other)| one.min(other)), one.1.min(other.1));
        let (first, second) = (self.candidate(first, times)?, self.candidate(second, times)?);
        Some(Candidate {
            legs: [first.legs, second.legs].concat(),
            observed: first.observed.min(second.observed),
            is_archived: first.is_archived || second.is_archived,
            is_stale: first.is_stale || second.is_stale,
            has_start: first.has_start && second.has_start,
            is_observed_inside: first.is_observed_inside && second.is_observed_inside,
            preference: first.preference.max(second.preference),
            is_configured: first.is_configured && second.is_configured,
            digits: first.digits.min(second.digits),
            stale_limit_us: first.stale_limit_us.max(second.stale_limit_us),
        })
    }

    fn choice(&self, pair: Pair) -> Option<Candidate> {
        best(self.of_one_leg(pair).into_iter().chain(self.cross(pair)).collect())
    }
}

/// The rule of the design.
fn best(mut left: Vec<Candidate>) -> Option<Candidate> {
    fn keep(left: &mut Vec<Candidate>, wanted: impl Fn(&Candidate) -> bool) {
        if left.iter().any(&wanted) {
            left.retain(wanted);
        }
    }
    fn least<K: Ord>(left: &mut Vec<Candidate>, key: impl Fn(&Candidate) -> K) {
        if let Some(least) = left.iter().map(&key).min() {
            left.retain(|candidate| key(candidate) == least);
        }
    }
    keep(&mut left, |candidate| !candidate.is_archived);
    keep(&mut left, |candidate| !candidate.is_stale);
    keep(&mut left, |candidate| candidate.has_start);
    keep(&mut left, |candidate| candidate.is_observed_inside);
    if left.iter().all(|candidate| candidate.is_stale) {
        least(&mut left, |candidate| -candidate.observed.micros());
    }
    least(&mut left, |candidate| candidate.preference);
    keep(&mut left, |candidate| candidate.is_configured);
    least(&mut left, |candidate| -i64::from(candidate.digits));
    least(&mut left, |candidate| candidate.stale_limit_us);
    least(&mut left, |candidate| candidate.legs.len());
    least(&mut left, |candidate| {
        let mut names: Vec<usize> = candidate.legs.iter().map(|leg| leg.1).collect();
        names.sort_unstable();
        names
    });
    keep(&mut left, |candidate| !candidate.legs[0].2);
    assert!(left.len() < 2, "the rule leaves {left:?}");
    left.pop()
}

/// Stores the ticks, and archives sources.
fn reader(directory: &std::path::Path, ticks: &[ModelTick], sources: &[ModelSource]) -> Reader {
    let mut store = Store::open(StoreOptions::of_test(directory), NOW).unwrap();
    let mut transaction = store.begin(NOW);
    for tick in ticks {
        let series = SeriesKey { pair: pair_of(PAIRS[tick.pair]), source: source_of(tick.source) };
        let series = transaction.series(&series).unwrap();
        let value = PublishedValue { rate: Rate::parse(RATES[tick.rate]).unwrap(), reported_change: None };
        // A conflict keeps the first tick.
        let _ = transaction.upsert(series, hours_ago(tick.hours_ago), value, false);
    }
    transaction.commit().unwrap();
    for (at, settings) in sources.iter().enumerate().filter(|(_, settings)| settings.is_archived) {
        let mut transaction = store.begin(NOW);
        // A source without ticks has no series and cannot be archived.
        let _ = transaction.set_archived(&source_of(at), settings.is_archived, None);
        transaction.commit().unwrap();
    }
    let settings = |settings: &ModelSource| SourceSettings {
        zone: Setting::built_in(settings.zone),
        preference: settings.preference.map(Setting::built_in),
        ..SourceSettings::BUILT_IN
    };
    let is_named = |settings: &ModelSource| settings.is_configured;
    let named = sources.iter().enumerate().filter(|(_, source)| is_named(source));
    let named = named.map(|(at, source)| (source_of(at), settings(source))).collect();
    let table = SourceTable::new(SourceSettings::BUILT_IN, named).unwrap();
    let limits = sources.iter().enumerate().map(|(at, settings)| (source_of(at), settings.stale_limit_us));
    let rules = StateRules { stale_limits_us: limits.collect(), ..StateRules::uniform(HOUR_US, HOUR_US) };
    Reader::new(Arc::new(store.view()), NOW, Arc::new(rules), CancellationToken::new()).with_sources(&Arc::new(table))
}

fn zones() -> impl Strategy<Value = Zone> {
    prop_oneof![
        Just(Zone::UTC),
        Just(Zone::TASHKENT),
        Just(Zone::BISHKEK),
        Just(Zone::parse("America/New_York").unwrap())
    ]
}

fn sources() -> impl Strategy<Value = Vec<ModelSource>> {
    let limits = prop_oneof![Just(HOUR_US), Just(5 * HOUR_US), Just(100 * HOUR_US)];
    let one = (zones(), limits, any::<bool>(), any::<bool>(), prop::bool::weighted(0.25));
    prop::collection::vec(one, SOURCES.len()).prop_map(|found| {
        let source = |(at, one): (usize, (Zone, i64, bool, bool, bool))| {
            let (zone, stale_limit_us, is_preferred, is_configured, is_archived) = one;
            // Only a source in the configuration has a preference and a zone of its own.
            let preference = u32::try_from(SOURCES.len() - at).ok().filter(|_| is_preferred && is_configured);
            let zone = if is_configured { zone } else { Zone::UTC };
            ModelSource { zone, stale_limit_us, preference, is_configured, is_archived }
        };
        found.into_iter().enumerate().map(source).collect()
    })
}

fn ticks() -> impl Strategy<Value = Vec<ModelTick>> {
    // Some ticks are in the future.
    let tick = (0..PAIRS.len(), 0..SOURCES.len(), -20..80_i64, 0..RATES.len());
    let tick = tick.prop_map(|(pair, source, hours_ago, rate)| ModelTick { pair, source, hours_ago, rate });
    prop::collection::vec(tick, 1..30)
}

fn asks() -> impl Strategy<Value = Ask> {
    prop_oneof![
        Just(Ask::Now),
        (0..60_i64).prop_map(Ask::At),
        (0..4_u64).prop_map(Ask::Day),
        (20..70_i64, 0..50_i64).prop_map(|(start, hours)| Ask::Change { start, hours: hours.min(start) }),
        (0..4_u64, 0..3_u64).prop_map(|(start, days)| Ask::ChangeOfDays { start, days }),
        (20..70_i64, 0..50_i64).prop_map(|(start, hours)| Ask::Range { start, hours: hours.min(start) }),
        (0..4_u64, 0..3_u64).prop_map(|(start, days)| Ask::RangeOfDays { start, days }),
        (1..60_u32).prop_map(Ask::Window),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn choice_equals_the_rule_of_the_design(
        sources in sources(),
        ticks in ticks(),
        asks in prop::collection::vec((asks(), prop::option::of(zones())), 8),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let reader = reader(directory.path(), &ticks, &sources);
        let as_of = reader.as_of(None).unwrap();
        for (ask, zone) in &asks {
            let asked = || Asked { ask, zone: *zone };
            let model = Model { ticks: &ticks, sources: &sources, asked: asked() };
            for pair in PAIRS.map(pair_of) {
                // Without a candidate, the answer is an error or has no rows.
                let Some(expect) = model.choice(pair) else { continue };
                let found = reader.resolve(&as_of, pair, None, &[], &asked().need()).unwrap();
                let leg = |leg: &Leg<Arc<SeriesView>>| (leg.series.key().clone(), leg.inverted);
                let found: Vec<(SeriesKey, bool)> = found.iter().map(leg).collect();
                let legs = expect.legs.iter();
                let expected: Vec<(SeriesKey, bool)> = legs
                    .map(|(pair, source, inverted)| (SeriesKey { pair: *pair, source: source_of(*source) }, *inverted))
                    .collect();
                prop_assert_eq!(found, expected, "{} for {:?} in {:?}", pair, ask, zone);
            }
        }
    }
}
