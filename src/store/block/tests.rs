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

/// Decodes columns in memory.
pub(crate) fn decode_columns<T>(
    meta: &BlockMeta,
    columns: &[Vec<u8>],
    decode: impl FnOnce(&Columns<'_>) -> Result<T, DecodeError>,
) -> Result<T, BlockError> {
    let read = |number: u8| Ok(columns.get(usize::from(number)).map(|column| sled::IVec::from(column.as_slice())));
    decode_block(meta, BlockKind::Runs, &read, decode)
}

fn check_round_trip<T: Item + PartialEq + std::fmt::Debug>(items: &[T]) {
    let mut decoded = Vec::new();
    for block in items.chunks(T::BLOCK_ITEMS_MAX).flat_map(|chunk| encode_blocks(chunk, &mut 1).unwrap()) {
        assert!(block.columns.iter().all(|column| column.len() <= COLUMN_BYTES_MAX));
        assert!(block.meta.item_count as usize <= T::BLOCK_ITEMS_MAX);
        decoded.extend(decode_columns(&block.meta, &block.columns, T::decode).unwrap());
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

/// Makes a block of 50 runs. The blocks of two seeds differ in some columns of equal size.
fn block_of(seed: u32) -> EncodedBlock {
    let run = |n: u32| (n + 1, n, 1 + u64::from(n * seed % 13), 1_000 + u128::from(n * seed % 61), 8, None, 5);
    encode_blocks(&runs((0..50).map(run).collect()), &mut 1).unwrap().remove(0)
}

#[test]
fn flipped_bit_fails_decoding() {
    let block = block_of(1);
    for column in 0..block.columns.len() {
        for bit in 0..block.columns[column].len() * 8 {
            let mut columns = block.columns.clone();
            columns[column][bit / 8] ^= 1 << (bit % 8);
            assert!(decode_columns(&block.meta, &columns, Run::decode).is_err(), "column {column} bit {bit}");
        }
    }
}

#[test]
fn column_of_another_block_or_number_fails_decoding() {
    let (block, other) = (block_of(7), block_of(11));
    let mut of_equal_size = 0;
    for number in 0..block.columns.len() {
        let mut columns = block.columns.clone();
        for from in other.columns.iter().chain(&block.columns).filter(|from| **from != block.columns[number]) {
            columns[number].clone_from(from);
            let problem = decode_columns(&block.meta, &columns, Run::decode).map_err(|error| error.problem);
            // An omitted column is not read.
            let expect = match block.columns[number].len() {
                0 => continue,
                size if size == from.len() => "does not match its checksum",
                _ => "bytes instead of",
            };
            of_equal_size += usize::from(expect.contains("checksum"));
            assert!(problem.as_ref().is_err_and(|problem| problem.contains(expect)), "column {number}: {problem:?}");
        }
    }
    assert!(of_equal_size > 0, "no two columns have the same size");
}

/// Checks which columns `decode` reads. It reads each of them once.
fn check_columns_read<T>(
    block: &EncodedBlock,
    decode: impl FnOnce(&Columns<'_>) -> Result<T, DecodeError>,
    expect: impl IntoIterator<Item = u8>,
) {
    let seen = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let read = |number: u8| {
        assert!(seen.borrow_mut().insert(number), "column {number} is read twice");
        Ok(Some(sled::IVec::from(block.columns[usize::from(number)].as_slice())))
    };
    decode_block(&block.meta, BlockKind::Revisions, &read, decode).unwrap();
    assert!(seen.into_inner().into_iter().eq(expect));
}

#[test]
fn decoding_reads_only_the_columns_that_it_needs() {
    let revision = |run: Run| Revision { superseded_time: run.recorded_time, run };
    let revisions: Vec<Revision> =
        runs(vec![(1, 2, 3, 10_u128.pow(22), 8, None, 5)]).into_iter().map(revision).collect();
    let block = encode_blocks(&revisions, &mut 1).unwrap().remove(0);
    check_columns_read(&block, Revision::decode, 0..=8);
    check_columns_read(&block, Run::decode, 0..=7);
    check_columns_read(&block, decode_rates, [0, 1, 3, 4, 5]);
    check_columns_read(&block, decode_revision_times, [0, 7, 8]);
    check_columns_read(&block, |columns| decode_run(columns, 0, [1, 5]), 1..=6);
}
