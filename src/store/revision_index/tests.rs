//! Searches of the index against a plain walk over the list, and what they look at.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// Believed revisions, the plain way.
fn walked(list: &[RevisionTimes], wanted: &Wanted) -> Vec<(usize, i64)> {
    let is_wanted = |times: &RevisionTimes| {
        times.recorded_us <= wanted.known_us
            && wanted.known_us < times.superseded_us
            && wanted.observed_us.contains(&times.observed_us)
    };
    let mut found: Vec<(usize, i64)> = list
        .iter()
        .enumerate()
        .take(wanted.count)
        .filter(|(_, times)| is_wanted(times))
        .map(|(place, times)| (place, times.observed_us))
        .collect();
    found.sort_by_key(|(_, observed_us)| *observed_us);
    if wanted.order == ScanOrder::Descending {
        found.reverse();
    }
    found
}

/// A list of revisions of which no two of one observed time were believed at one time: instants are corrected at random,
/// and some of them cease to begin a run for a while.
fn list(count: usize, instants: u64, seed: u64) -> Vec<RevisionTimes> {
    let mut bits = seed;
    let mut below = |limit: u64| {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from((bits >> 33) % limit).unwrap()
    };
    let mut recorded: Vec<i64> = (0..instants).map(|_| below(1_000)).collect();
    let mut now = 1_000;
    (0..count)
        .map(|_| {
            let observed_us = below(instants);
            let begun = &mut recorded[usize::try_from(observed_us).unwrap()];
            now = (now + below(2)).max(*begun + 1);
            let times = RevisionTimes { observed_us, recorded_us: *begun, superseded_us: now };
            *begun = now + if below(4) == 0 { below(5_000) } else { 0 };
            times
        })
        .collect()
}

fn check(list: &[RevisionTimes], index: &Arc<RevisionIndex>, wanted: &Wanted) {
    let found: Vec<_> = Believed::new(Arc::clone(index), wanted.clone()).collect();
    assert_eq!(found, walked(list, wanted), "{wanted:?}");
    let next = index.next_believed(wanted).map(|(place, times)| (place, times.observed_us));
    assert_eq!(next, found.first().copied(), "{wanted:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn finds_what_a_walk_finds(
        count in 0..30_000_usize, instants in prop_oneof![Just(1_u64), Just(50), Just(20_000)], seed: u64, pieces in 1..7_usize,
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
                        check(&list, &index, &Wanted { count, known_us, observed_us: observed_us.clone(), order });
                    }
                }
            }
        }
    }
}

/// However many revisions there are, and whatever they are of, the end of their list is few pieces.
#[test]
fn a_search_looks_at_few_pieces() {
    let index = RevisionIndex::default().extended(&list(600_000, 3, 7));
    for start in [0, 1, 1_023, 1_025, 9_000, 299_999, 599_999] {
        let pieces = index.pieces(&(start..599_900));
        assert!(pieces.len() <= 2 * FAN_OUT * 4, "{} pieces from {start} on", pieces.len());
    }
    let bytes = index.bytes() / index.len();
    assert!(bytes <= 44, "{bytes} bytes a revision");
}

#[test]
fn a_longer_index_shares_full_pieces() {
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
