//! Round trips, the byte layout, and errors for invalid columns.

use proptest::prelude::*;

use super::*;
use crate::domain::{CurrencySet, Pair, Source};

fn series() -> SeriesKey {
    SeriesKey {
        pair: Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap(),
        source: Source::parse("timesca").unwrap(),
    }
}

fn value(rate: &str, change: Option<&str>) -> PublishedValue {
    PublishedValue {
        rate: Rate::parse(rate).unwrap(),
        reported_change: change.map(|text| ReportedChange::parse(text).unwrap()),
    }
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn three_ticks() -> TickColumns {
    let rows = [
        (at(5), value("0.01144", Some("-0"))),
        (at(3), value("0.01145", None)),
        (at(1_000_009), value("0.01146", Some("1"))),
    ];
    encode_tick_columns(&series(), &rows).unwrap()
}

#[test]
fn tick_columns_have_layout_of_proto() {
    let columns = three_ticks();
    let le = |numbers: [i64; 3]| Bytes::from(numbers.map(i64::to_le_bytes).concat());
    assert_eq!((columns.pair.as_str(), columns.source.as_str()), ("KGS/USD", "timesca"));
    assert_eq!(columns.places, 5);
    assert_eq!(columns.base_time, Some(prost_types::Timestamp { seconds: 0, nanos: 5_000 }));
    assert_eq!(columns.observed_time_deltas, le([0, -2, 1_000_006]));
    assert_eq!(columns.rate_mantissas, le([1144, 1145, 1146]));
    assert!(columns.rate_mantissas_high.is_empty());
    // The code is twice the magnitude, plus one for a minus sign; -1 for no reported change.
    assert_eq!(columns.reported_changes, le([1, -1, 2]));
}

#[test]
fn optional_columns_are_omitted_if_every_row_has_default() {
    let wide = value("1234567890123456789012.345678".get(3..).unwrap(), None);
    let mut packer = RunPacker::new(2);
    packer.extend(&[Run::single(at(1), value("5", None), at(9)), Run::single(at(2), wide, at(9))]);
    assert_eq!((packer.len(), packer.room()), (2, 0));
    let message = packer.finish();
    assert_eq!(message.rate_mantissas_high.len(), 8, "zeros before the first wide mantissa");
    assert!(message.reported_changes.is_empty() && message.reported_change_places.is_empty());
    assert_eq!(decode_runs(&message).unwrap()[1].value, wide);

    let empty = RunPacker::new(0).finish();
    assert_eq!(empty.run_count, 0);
    assert_eq!(decode_runs(&empty), Ok(Vec::new()));
}

#[test]
fn observation_count_above_column_maximum_is_stored_as_maximum() {
    let mut run = Run::single(at(1), value("5", None), at(9));
    run.observation_count = u64::from(u32::MAX) + 5;
    let mut packer = RunPacker::new(1);
    packer.extend(&[run]);
    assert_eq!(decode_runs(&packer.finish()).unwrap()[0].observation_count, u64::from(u32::MAX));
}

#[test]
fn invalid_column_makes_whole_batch_invalid() {
    let check = |spoil: fn(&mut TickColumns), expect: &str| {
        let mut columns = three_ticks();
        spoil(&mut columns);
        let error = decode_tick_columns(&columns).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(|c| c.base_time = None, "base_time is missing");
    check(|c| c.base_time = Some(prost_types::Timestamp { seconds: 0, nanos: 1 }), "finer than a microsecond");
    check(|c| c.base_time = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), "outside the years");
    check(|c| c.places = 19, "places is 19; use at most 18");
    check(|c| c.reported_change_places = 13, "reported_change_places is 13; use at most 12");
    check(|c| c.rate_mantissas = c.rate_mantissas.slice(..16), "rate_mantissas has 16 bytes, but 3 rows need 24");
    check(
        |c| c.observed_time_deltas = c.observed_time_deltas.slice(..23),
        "not a multiple of the row width of 8 bytes",
    );
    check(|c| c.rate_mantissas_high = Bytes::from_static(&[0; 8]), "rate_mantissas_high has 8 bytes");
    check(|c| c.reported_changes = c.reported_changes.slice(..8), "reported_changes has 8 bytes");
    let rows = TICK_COLUMN_ROWS_MAX + 1;
    let mut many = three_ticks();
    many.observed_time_deltas = vec![0; rows * 8].into();
    assert_eq!(decode_tick_columns(&many), Err(ColumnsError::TooManyRows { found: rows }));
}

#[test]
fn invalid_row_does_not_affect_other_rows() {
    let check = |spoil: fn(&mut TickColumns), expect: [&str; 3]| {
        let mut columns = three_ticks();
        spoil(&mut columns);
        let rows = decode_tick_columns(&columns).unwrap();
        for (row, expect) in rows.iter().zip(expect) {
            let time = row.observed_time.as_ref().map_err(ToString::to_string);
            let value = row.value.as_ref().map_err(ToString::to_string);
            let error = time.err().or(value.err()).unwrap_or_default();
            assert!(if expect.is_empty() { error.is_empty() } else { error.contains(expect) }, "{error} | {expect}");
        }
    };
    let le = |numbers: [i64; 3]| Bytes::from(numbers.map(i64::to_le_bytes).concat());
    check(|c| c.places = 0, ["", "", ""]);
    check(|c| c.rate_mantissas = vec![0; 24].into(), ["is zero", "is zero", "is zero"]);
    check(
        |c| c.rate_mantissas_high = vec![0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0].into(),
        ["", "too many digits", ""],
    );
    check(
        |c| c.reported_changes = [0, -2, 9].map(i64::to_le_bytes).concat().into(),
        ["", "invalid reported change code -2", ""],
    );
    check(|c| c.reported_changes = [0, i64::MAX, 9].map(i64::to_le_bytes).concat().into(), ["", "at most 12", ""]);
    // The times of all three rows are outside the supported years. The sum does not overflow.
    check(
        |c| c.observed_time_deltas = [i64::MAX, i64::MAX, -i64::MAX].map(i64::to_le_bytes).concat().into(),
        ["outside the years", "18446744073709551619 us", "outside the years"],
    );
    // The third row is inside the supported years again.
    let mut columns = three_ticks();
    columns.observed_time_deltas = le([7, i64::MAX, -i64::MAX]);
    let times: Vec<_> = decode_tick_columns(&columns).unwrap().into_iter().map(|row| row.observed_time.ok()).collect();
    assert_eq!(times, [Some(at(12)), None, Some(at(12))]);
}

#[test]
fn ticks_with_different_places_are_not_encoded() {
    let check = |second: PublishedValue, expect: &str| {
        let rows = [(at(1), value("0.5", Some("1"))), (at(2), second)];
        let error = encode_tick_columns(&series(), &rows).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(value("0.50", None), "row 1 has 2 places, but the rows before it have 1");
    check(value("0.5", Some("1.0")), "row 1 has 1 reported_change_places");
}

#[test]
fn invalid_run_makes_whole_message_invalid() {
    let check = |spoil: fn(&mut StreamRunsResponse), expect: &str| {
        let mut packer = RunPacker::new(2);
        packer.extend(&[
            Run::single(at(1), value("0.5", Some("-0")), at(9)),
            Run::single(at(2), value("0.6", None), at(9)),
        ]);
        let mut message = packer.finish();
        spoil(&mut message);
        let error = decode_runs(&message).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    check(|m| m.run_count = 3, "first_observed_times has 16 bytes, but 3 rows need 24");
    check(|m| m.run_count = u32::MAX, "first_observed_times");
    check(|m| m.recorded_times = Bytes::new(), "recorded_times has 0 bytes, but 2 rows need 16");
    check(|m| m.reported_change_places = Bytes::new(), "reported_change_places");
    check(|m| m.reported_changes = Bytes::new(), "reported_change_places");
    check(|m| m.rate_places = Bytes::from_static(&[1, 19]), "row 1: rate with mantissa 6 and 19 decimal places");
    check(|m| m.observation_counts = vec![0; 8].into(), "row 0 is not a valid run");
    check(|m| m.last_observed_times = vec![0; 16].into(), "row 0 is not a valid run");
}

prop_compose! {
    fn rates(places: u32)(mantissa in prop_oneof![1..100_000_u128, 1..10_u128.pow(28)]) -> Rate {
        // If the mantissa has too many digits before the point for these places, its low digits are used.
        Rate::from_parts(mantissa, places).unwrap_or(Rate::from_parts(mantissa % 10_u128.pow(20) + 1, places).unwrap())
    }
}

fn changes(places: u32) -> impl Strategy<Value = Option<ReportedChange>> {
    prop::option::of((any::<bool>(), 0..10_u64.pow(12)))
        .prop_map(move |parts| parts.map(|(minus, m)| ReportedChange::from_parts(minus, m, places).unwrap()))
}

fn times() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.micros()..=Timestamp::MAX.micros()).prop_map(Timestamp::from_micros)
}

fn runs() -> impl Strategy<Value = Run> {
    let value = (0..=18_u32, 0..=12_u32)
        .prop_flat_map(|(places, change_places)| (rates(places), changes(change_places)))
        .prop_map(|(rate, reported_change)| PublishedValue { rate, reported_change });
    (times(), times(), value, 1..u64::from(u32::MAX), times()).prop_map(|(one, other, value, count, recorded)| Run {
        first_observed_time: one.min(other),
        last_observed_time: one.max(other),
        observation_count: count,
        value,
        recorded_time: recorded,
    })
}

fn tick_rows() -> impl Strategy<Value = Vec<(Timestamp, PublishedValue)>> {
    (0..=18_u32, 0..=12_u32).prop_flat_map(|(places, change_places)| {
        let value = (rates(places), changes(change_places))
            .prop_map(|(rate, reported_change)| PublishedValue { rate, reported_change });
        prop::collection::vec((times(), value), 0..40)
    })
}

proptest! {
    #[test]
    fn decoded_runs_equal_encoded_runs(runs in prop::collection::vec(runs(), 0..40), capacity in 0..50_usize) {
        let mut packer = RunPacker::new(capacity);
        packer.extend(&runs);
        prop_assert_eq!(decode_runs(&packer.finish()).unwrap(), runs);
    }

    #[test]
    fn decoded_ticks_equal_encoded_ticks(rows in tick_rows()) {
        let columns = encode_tick_columns(&series(), &rows).unwrap();
        let read: Vec<_> = decode_tick_columns(&columns)
            .unwrap()
            .into_iter()
            .map(|row| (row.observed_time.unwrap(), row.value.unwrap()))
            .collect();
        prop_assert_eq!(read, rows);
    }

    #[test]
    fn decoding_arbitrary_bytes_does_not_panic(
        deltas in prop::collection::vec(any::<u8>(), 0..64),
        lows in prop::collection::vec(any::<u8>(), 0..64),
        codes in prop::collection::vec(any::<u8>(), 0..64),
        places in 0..25_u32,
    ) {
        let columns = TickColumns {
            places,
            base_time: Some(prost_types::Timestamp::default()),
            observed_time_deltas: deltas.clone().into(),
            rate_mantissas: lows.into(),
            reported_changes: codes.into(),
            ..TickColumns::default()
        };
        if let Ok(rows) = decode_tick_columns(&columns) {
            prop_assert_eq!(rows.len() * 8, deltas.len());
        }
    }
}
