//! Compares searches of the index with a linear search of the list, and checks the cost of a search.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// Finds the matches of a query by a linear search.
fn linear_search(list: &[RevisionTimes], query: &RevisionQuery) -> Vec<(usize, i64)> {
    let is_match = |times: &RevisionTimes| {
        times.recorded_us <= query.known_us
            && query.known_us < times.superseded_us
            && query.observed_us.contains(&times.observed_us)
    };
    let mut found: Vec<(usize, i64)> = list
        .iter()
        .enumerate()
        .take(query.count)
        .filter(|(_, times)| is_match(times))
        .map(|(position, times)| (position, times.observed_us))
        .collect();
    found.sort_by_key(|(_, observed_us)| *observed_us);
    if query.order == ScanOrder::Descending {
        found.reverse();
    }
    found
}

/// Makes a list of random revisions. At any recorded time, at most one revision of each observed time was current.
/// Between two revisions of an observed time, there may be a period without a current run.
fn list(count: usize, instants: u64, seed: u64) -> Vec<RevisionTimes> {
    let mut bits = seed;
    let mut random_below = |limit: u64| {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((bits >> 33) % limit).unwrap()
    };
    let mut recorded: Vec<i64> = (0..instants).map(|_| random_below(1_000)).collect();
    let mut now = 1_000;
    (0..count)
        .map(|_| {
            let observed_us = random_below(instants);
            let recorded_us = &mut recorded[usize::try_from(observed_us).unwrap()];
            now = (now + random_below(2)).max(*recorded_us + 1);
            let times = RevisionTimes { observed_us, recorded_us: *recorded_us, superseded_us: now };
            *recorded_us = now + if random_below(4) == 0 { random_below(5_000) } else { 0 };
            times
        })
        .collect()
}

fn check(list: &[RevisionTimes], index: &Arc<RevisionIndex>, query: &RevisionQuery) {
    let found: Vec<_> = RevisionMatches::new(Arc::clone(index), query.clone()).collect();
    assert_eq!(found, linear_search(list, query), "{query:?}");
    let first = index.first_match(query).map(|(position, times)| (position, times.observed_us));
    assert_eq!(first, found.first().copied(), "{query:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn index_finds_same_revisions_as_linear_search(
        count in 0..30_000_usize,
        instants in prop_oneof![Just(1_u64), Just(50), Just(20_000)],
        seed: u64,
        pieces in 1..7_usize,
    ) {
        let list = list(count, instants, seed);
        let mut index = RevisionIndex::default();
        for piece in list.chunks(count.div_ceil(pieces).max(1)) {
            index = index.extended(piece);
        }
        prop_assert_eq!(index.len(), count);
        let index = Arc::new(index);
        let last = list.last().map_or(0, |times| times.superseded_us);
        for nth in 0..12 {
            let known_us = last * nth / 11 - 1;
            let start = i64::try_from(instants).unwrap() * nth / 12;
            for observed_us in [i64::MIN..i64::MAX, start..start + 40, i64::MIN..start, start..i64::MAX] {
                for order in [ScanOrder::Ascending, ScanOrder::Descending] {
                    for count in [count, count * 2 / 3] {
                        let observed_us = observed_us.clone();
                        check(&list, &index, &RevisionQuery { count, known_us, observed_us, order });
                    }
                }
            }
        }
    }
}

/// Few pieces cover the positions from any start to the end of a long list.
#[test]
fn search_visits_few_pieces() {
    let index = RevisionIndex::default().extended(&list(600_000, 3, 7));
    for start in [0, 1, 1_023, 1_025, 9_000, 299_999, 599_999] {
        let pieces = index.pieces(&(start..599_900));
        assert!(pieces.len() <= 2 * FAN_OUT * 4, "{} pieces from position {start}", pieces.len());
    }
    let bytes = index.bytes() / index.len();
    assert!(bytes <= 44, "{bytes} bytes per revision");
}

#[test]
fn extended_index_shares_full_pieces() {
    let list = list(40_000, 100, 3);
    let shorter = RevisionIndex::default().extended(&list[..30_000]);
    let longer = shorter.extended(&list[30_000..]);
    let full = 30_000 / LEAF_REVISIONS;
    for at in 0..full {
        assert!(Arc::ptr_eq(&shorter.leaves[at], &longer.leaves[at]));
    }
    for at in 0..full / FAN_OUT {
        assert!(Arc::ptr_eq(&shorter.merged[0][at], &longer.merged[0][at]));
    }
}
