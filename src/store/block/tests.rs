//! Tests of encoding and decoding blocks, and of detecting flipped bits.

use proptest::prelude::*;

use super::*;
use crate::domain::PublishedValue;

/// Gap to the previous run, span, count, mantissa, places, reported change, recorded time.
pub(crate) type RawRun = (u32, u32, u64, u128, u8, Option<(bool, u64, u8)>, i64);

pub(crate) fn arbitrary_run() -> impl Strategy<Value = RawRun> {
    (
        1_u32..1_000_000,
        0_u32..1_000_000,
        1_u64..1 << 40,
        prop_oneof![1_u128..100, 1_u128..10_u128.pow(20), 1_u128..10_u128.pow(28)],
        8_u8..=18,
        proptest::option::of((any::<bool>(), 0_u64..10_u64.pow(12), 0_u8..=12)),
        any::<i32>().prop_map(i64::from),
    )
}

pub(crate) fn runs(raw: Vec<RawRun>) -> Vec<Run> {
    let mut at = 0_i64;
    raw.into_iter()
        .map(|(gap, span, count, mantissa, places, change, recorded)| {
            at += i64::from(gap);
            let first = at;
            at += i64::from(span);
            Run {
                first_observed_time: Timestamp::from_micros(first),
                last_observed_time: Timestamp::from_micros(at),
                observation_count: count,
                value: PublishedValue {
                    rate: Rate::from_parts(mantissa, u32::from(places)).unwrap(),
                    reported_change: change.map(|(negative, mantissa, places)| {
                        ReportedChange::from_parts(negative, mantissa, u32::from(places)).unwrap()
                    }),
                },
                recorded_time: Timestamp::from_micros(recorded),
            }
        })
        .collect()
}

fn check_round_trip<T: Item + PartialEq + std::fmt::Debug>(items: &[T]) {
    let mut decoded = Vec::new();
    for block in items.chunks(T::BLOCK_ITEMS_MAX).flat_map(|chunk| encode_blocks(chunk, &mut 1).unwrap()) {
        assert!(block.columns.iter().all(|column| column.len() <= COLUMN_BYTES_MAX));
        assert!(block.meta.item_count as usize <= T::BLOCK_ITEMS_MAX);
        let columns: Vec<&[u8]> = block.columns.iter().map(Vec::as_slice).collect();
        decoded.extend(decode_block(&block.meta, T::KIND, &columns, T::decode).unwrap());
    }
    assert_eq!(decoded, items);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn runs_instants_and_revisions_round_trip(raw in proptest::collection::vec(arbitrary_run(), 1..4_500)) {
        let runs = runs(raw);
        check_round_trip(&runs);
        let instants: Vec<Timestamp> = runs.iter().map(|run| run.first_observed_time).collect();
        check_round_trip(&instants);
        let revisions: Vec<Revision> = runs
            .into_iter()
            .zip(0_i64..)
            .map(|(run, at)| Revision { run, superseded_time: Timestamp::from_micros(at / 3) })
            .collect();
        check_round_trip(&revisions);
    }
}

#[test]
fn flipped_bit_fails_decoding() {
    let runs = runs((0..50).map(|n| (n + 1, n, 1, u128::from(n) + 1, 8, None, 5)).collect());
    let block = encode_blocks(&runs, &mut 1).unwrap().remove(0);
    for column in 0..block.columns.len() {
        for bit in 0..block.columns[column].len() * 8 {
            let mut columns = block.columns.clone();
            columns[column][bit / 8] ^= 1 << (bit % 8);
            let columns: Vec<&[u8]> = columns.iter().map(Vec::as_slice).collect();
            assert!(
                decode_block(&block.meta, BlockKind::Runs, &columns, Run::decode).is_err(),
                "column {column} bit {bit}"
            );
        }
    }
}
