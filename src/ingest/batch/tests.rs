//! Validation of ticks: groups and refusals of a batch.

use super::RefusalReason as R;
use super::*;

/// 2025-12-08T12:00:00Z.
const NOW: Timestamp = Timestamp::from_micros(1_765_195_200_000_000);

const GOOD: TickText<'static> = TickText {
    pair: "KGS/USD",
    source: "timesca",
    observed_time: ObservedTime::At(NOW),
    rate: "0.01144",
    reported_change: Some("-0"),
};

fn batch_of(rules: &TickRules, ticks: &[TickText<'_>]) -> Batch {
    let mut builder = BatchBuilder::new(NOW, rules);
    for (index, tick) in (0..).zip(ticks) {
        builder.push_text(index, *tick);
    }
    builder.finish(ConflictPolicy::Refuse, false)
}

#[test]
fn invalid_tick_is_refused_and_does_not_affect_others() {
    let check = |bad: TickText<'_>, reason: RefusalReason, message: &str| {
        let batch = batch_of(&TickRules::default(), &[GOOD, bad, GOOD]);
        assert_eq!(batch.groups.len(), 1, "{bad:?}");
        assert_eq!(batch.groups[0].ticks.iter().map(|tick| tick.index).collect::<Vec<_>>(), [0, 2], "{bad:?}");
        let [refusal] = batch.refusals.as_slice() else { panic!("{bad:?}: {:?}", batch.refusals) };
        assert_eq!((refusal.index, refusal.reason), (1, reason), "{bad:?}");
        assert!(refusal.message.contains(message), "{bad:?}: {}", refusal.message);
    };
    for (rate, message) in [
        ("0", "rate '0' is zero"),
        ("0.00000", "is zero"),
        ("-1", "rate '-1' is negative"),
        ("1e3", "rate '1e3' is not a plain decimal"),
        ("NaN", "rate 'NaN' is not a plain decimal"),
        ("", "rate '' is not a plain decimal"),
        ("12345678901234567890.123456789", "29 digits in total; at most 28"),
        ("0.1234567890123456789", "19 decimal places; at most 18"),
    ] {
        check(TickText { rate, ..GOOD }, R::InvalidRate, message);
    }
    for (pair, reason, message) in [
        ("KGS/KGS", R::InvalidPair, "has the same currency twice; use two"),
        ("kgs/usd", R::InvalidPair, "three upper-case letters"),
        ("KGSUSD", R::InvalidPair, "separated by a slash"),
        ("XXX/USD", R::UnknownCurrency, "'XXX' is not in ISO 4217"),
        ("EUR/USD", R::UnknownCurrency, "add it with the server's --currency"),
    ] {
        check(TickText { pair, ..GOOD }, reason, message);
    }
    for source in ["", "Timesca", "a b", "a/b", "abcdefghijklmnopqrstuvwxyz-1234567"] {
        check(TickText { source, ..GOOD }, R::InvalidSource, "is not a slug");
    }
    for change in ["", "0%", "1e1", "--1", "1234567890123"] {
        check(TickText { reported_change: Some(change), ..GOOD }, R::InvalidReportedChange, "reported change '");
    }
}

#[test]
fn observed_time_is_in_whole_microseconds_from_1990_to_the_future_limit() {
    let check = |observed_time: ObservedTime, expect: Option<(RefusalReason, &str)>| {
        let batch = batch_of(&TickRules::default(), &[TickText { observed_time, ..GOOD }]);
        let refusal = batch.refusals.first();
        assert_eq!(refusal.map(|r| r.reason), expect.map(|(reason, _)| reason), "{observed_time:?}");
        if let (Some(refusal), Some((_, message))) = (refusal, expect) {
            assert!(refusal.message.contains(message), "{}", refusal.message);
        }
    };
    let parts = |seconds, nanos| ObservedTime::Parts { seconds, nanos };
    check(parts(1_765_195_200, 0), None);
    check(parts(1_765_195_200, 1_000), None);
    check(parts(1_765_195_200, 1), Some((R::InvalidTime, "finer than a microsecond")));
    check(parts(1_765_195_200, -1), Some((R::InvalidTime, "outside the years")));
    check(parts(1_765_195_200, 1_000_000_000), Some((R::InvalidTime, "outside the years")));
    check(parts(i64::MAX, 0), Some((R::InvalidTime, "outside the years")));
    check(parts(0, 0), Some((R::TimeTooOld, "1970-01-01T00:00:00Z is before 1990-01-01T00:00:00Z")));
    check(parts(4_102_444_800, 0), Some((R::TimeTooFarAhead, "2100-01-01T00:00:00Z is more than 2d ahead")));
    check(ObservedTime::Absent, Some((R::InvalidTime, "observed_time is missing")));
    // Both limits are inclusive.
    check(ObservedTime::At(Timestamp::OLDEST_OBSERVED), None);
    check(ObservedTime::At(Timestamp::OLDEST_OBSERVED.saturating_add_us(-1)), Some((R::TimeTooOld, "before")));
    let limit = NOW.saturating_add_us(48 * Timestamp::HOUR_US);
    check(ObservedTime::At(limit), None);
    check(ObservedTime::At(limit.saturating_add_us(1)), Some((R::TimeTooFarAhead, "--future-limit")));
}

#[test]
fn ticks_are_grouped_by_series_in_request_order() {
    let (kzt, bank) = (TickText { pair: "KZT/USD", ..GOOD }, TickText { source: "nbkr", ..GOOD });
    let batch = batch_of(&TickRules::default(), &[GOOD, kzt, GOOD, bank, kzt, GOOD]);
    let groups: Vec<(String, Vec<u32>)> = batch
        .groups
        .iter()
        .map(|group| (group.series.to_string(), group.ticks.iter().map(|tick| tick.index).collect()))
        .collect();
    let expect =
        [("KGS/USD from timesca", vec![0, 2, 5]), ("KZT/USD from timesca", vec![1, 4]), ("KGS/USD from nbkr", vec![3])];
    assert_eq!(groups, expect.map(|(series, indices)| (series.to_owned(), indices)));
}

#[test]
fn invalid_series_does_not_replace_the_previous_valid_one() {
    let batch = batch_of(
        &TickRules::default(),
        &[GOOD, TickText { pair: "KGS/KGS", ..GOOD }, GOOD, TickText { source: "?", ..GOOD }],
    );
    assert_eq!(batch.groups.len(), 1);
    assert_eq!(batch.groups[0].ticks.len(), 2);
    assert_eq!(batch.refusals.len(), 2);
}

#[test]
fn rates_are_padded_to_the_minimum_places_of_their_source() {
    let minimum_places = BTreeMap::from([(Source::parse("nbk").unwrap(), 2)]);
    let rules = TickRules { minimum_places, ..TickRules::default() };
    let check = |source: &str, rate: &str, expect: Result<&str, &str>| {
        let batch = batch_of(&rules, &[TickText { source, rate, ..GOOD }]);
        let stored = batch.groups.first().map(|group| group.ticks[0].value.rate.to_string());
        let refused = batch.refusals.first().map(|refusal| refusal.message.clone());
        match expect {
            Ok(rate) => assert_eq!(stored.as_deref(), Some(rate)),
            Err(message) => assert!(refused.clone().is_some_and(|text| text.contains(message)), "{refused:?}"),
        }
    };
    check("nbk", "179.5", Ok("179.50"));
    check("nbk", "180", Ok("180.00"));
    check("nbk", "179.501", Ok("179.501"));
    check("timesca", "179.5", Ok("179.5"));
    check("nbk", "12345678901234567890", Ok("12345678901234567890.00"));
    let many = BTreeMap::from([(Source::parse("nbk").unwrap(), 18)]);
    let rules = TickRules { minimum_places: many, ..TickRules::default() };
    let batch = batch_of(&rules, &[TickText { source: "nbk", rate: "12345678901", ..GOOD }]);
    assert!(batch.refusals[0].message.contains("padded to the 18 places"), "{:?}", batch.refusals);
}

#[test]
fn tick_as_text_parsed_or_decoded_gives_the_same_entry() {
    let rules = TickRules::default();
    let tick = Tick {
        series: SeriesKey {
            pair: Pair::parse("KGS/USD", &rules.currencies).unwrap(),
            source: Source::parse("timesca").unwrap(),
        },
        observed_time: NOW,
        value: PublishedValue {
            rate: Rate::parse("0.01144").unwrap(),
            reported_change: Some(ReportedChange::parse("-0").unwrap()),
        },
    };
    let mut builder = BatchBuilder::new(NOW, &rules);
    builder.push_text(0, GOOD);
    builder.push(1, &tick);
    let slot = builder.series("KGS/USD", "timesca").unwrap();
    builder.push_value(2, slot, NOW, tick.value);
    let batch = builder.finish(ConflictPolicy::Revise, true);
    assert_eq!((batch.groups.len(), batch.refusals.len()), (1, 0));
    assert_eq!((batch.conflict_policy, batch.validate_only), (ConflictPolicy::Revise, true));
    let ticks = &batch.groups[0].ticks;
    assert_eq!(ticks.iter().map(|tick| tick.index).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(ticks.iter().all(|stored| stored.value == tick.value && stored.observed_time == NOW));
}

#[test]
fn parsed_tick_of_an_unserved_currency_is_refused() {
    let wide = CurrencySet::central_asia().with([crate::domain::Currency::parse("EUR").unwrap()]);
    let tick = Tick {
        series: SeriesKey { pair: Pair::parse("EUR/USD", &wide).unwrap(), source: Source::parse("timesca").unwrap() },
        observed_time: NOW,
        value: PublishedValue { rate: Rate::parse("1.1").unwrap(), reported_change: None },
    };
    let rules = TickRules::default();
    let mut builder = BatchBuilder::new(NOW, &rules);
    builder.push(7, &tick);
    let batch = builder.finish(ConflictPolicy::Refuse, false);
    assert_eq!((batch.refusals[0].index, batch.refusals[0].reason), (7, RefusalReason::UnknownCurrency));
}

#[test]
fn refusals_beyond_the_limit_have_no_message() {
    let bad = vec![TickText { rate: "0", ..GOOD }; NAMED_REFUSALS_MAX + 5];
    let batch = batch_of(&TickRules::default(), &bad);
    assert_eq!(batch.refusals.len(), NAMED_REFUSALS_MAX + 5);
    assert!(!batch.refusals[NAMED_REFUSALS_MAX - 1].message.is_empty());
    assert!(batch.refusals[NAMED_REFUSALS_MAX].message.is_empty());
}
