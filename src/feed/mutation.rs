//! Mutations of recorded bodies, as a faulty server, a faulty connection or an attacker might send them.
//!
//! By default each recorded body is mutated 300 times. `SILKRATE_FUZZ_MUTATIONS` sets another number.

use std::env;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

const MUTATIONS_VARIABLE: &str = "SILKRATE_FUZZ_MUTATIONS";

/// Returns a test runner with a fixed seed, so that every run uses the same mutations.
pub(super) fn runner() -> TestRunner {
    let mutations = env::var(MUTATIONS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let config = ProptestConfig { cases: mutations, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

/// One change of a body.
#[derive(Clone, Debug)]
pub(super) enum Mutation {
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
    Repeat(usize, usize),
    /// Exchanges two ranges, which may have different lengths.
    Swap(usize, usize, usize, usize),
}

/// One to five mutations, applied one after the other.
pub(super) fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let at = any::<prop::sample::Index>().prop_map(|index| index.index(1 << 20));
    let length = 1..200_usize;
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..8),
        prop::sample::select(vec![
            "<",
            ">",
            "&",
            "\"",
            "]]>",
            "<![CDATA[",
            "<!--",
            "<!DOCTYPE x [<!ENTITY a 'b'>]>",
            "&a;",
            "&#49;",
            "0",
            "9",
            ".",
            ",",
            "-",
            "e9",
            " ",
            "\u{feff}",
            "</item>",
            "</Valute>",
            "{",
            "}",
            "[",
            "null",
            "%",
            "=",
            "KGS/USD = 0.01",
            "<br>",
            "&nbsp;",
            "\\u0000",
            "\\ud800",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    let mutation = prop_oneof![
        (at.clone(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (at.clone(), piece).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        (at.clone(), length.clone()).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (at.clone(), length.clone()).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        (at.clone(), length.clone(), at, length).prop_map(|(a, m, b, n)| Mutation::Swap(a, m, b, n)),
    ];
    prop::collection::vec(mutation, 1..6)
}

/// Returns the body after all mutations.
pub(super) fn mutated(body: &[u8], mutations: &[Mutation]) -> Vec<u8> {
    let mut body = body.to_vec();
    for mutation in mutations {
        apply(&mut body, mutation);
    }
    body
}

fn apply(body: &mut Vec<u8>, mutation: &Mutation) {
    if body.is_empty() {
        return;
    }
    let size = body.len();
    let range_at = |at: usize, length: usize| at % size..(at % size + length).min(size);
    match mutation {
        Mutation::Set(at, byte) => body[at % size] = *byte,
        Mutation::Insert(at, piece) => drop(body.splice(at % size..at % size, piece.iter().copied())),
        Mutation::Remove(at, length) => drop(body.drain(range_at(*at, *length))),
        Mutation::Repeat(at, length) => {
            let range = range_at(*at, *length);
            let copy = body[range.clone()].to_vec();
            drop(body.splice(range.end..range.end, copy));
        }
        Mutation::Swap(a, m, b, n) => {
            let (first, second) = (range_at(*a, *m), range_at(*b, *n));
            let (first, second) = if first.start <= second.start { (first, second) } else { (second, first) };
            if first.end <= second.start {
                let (left, right) = (body[first.clone()].to_vec(), body[second.clone()].to_vec());
                drop(body.splice(second, left));
                drop(body.splice(first, right));
            }
        }
    }
}
