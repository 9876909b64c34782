//! The bodies of the fuzz targets: everything that reads bytes from outside or from the disk. `fuzz/` runs them under
//! libFuzzer; the test below runs them with mutations of the same corpora. Compiled only for these two.
//!
//! **Invariant**: a body panics only if the code under test is wrong.

use prost::Message as _;

use crate::columns::{decode_runs, decode_tick_columns};
use crate::domain::{CurrencySet, Source, Timestamp};
use crate::feed::{BankFeed, BankRequest, BankRules, TickCsv, TickerPage};
use crate::proto::v1;
use crate::{api, export, http, store};

/// The body of a fuzz target.
pub type Body = fn(&[u8]);

/// The name and the body of each target. `fuzz/corpus` has a directory for each name.
pub const TARGETS: [(&str, Body); 10] = [
    ("page", page),
    ("bank_table", bank_table),
    ("tick_csv", tick_csv),
    ("log_frames", store::fuzz::log_frames),
    ("block", store::fuzz::block),
    ("sealed_value", store::fuzz::sealed_value),
    ("page_token", api::fuzz_page_token),
    ("tick_columns", tick_columns),
    ("request", http::fuzz::request),
    ("import", export::read::fuzz),
];

/// Runs the body of a target.
///
/// # Panics
/// Panics if there is no such target, or if the code under test is wrong.
pub fn run(target: &str, bytes: &[u8]) {
    match TARGETS.iter().find(|(name, _)| *name == target) {
        Some((_, body)) => body(bytes),
        None => panic!("unknown target '{target}'"),
    }
}

/// A ticker page, text or HTML.
fn page(bytes: &[u8]) {
    let served = CurrencySet::central_asia();
    let Ok(source) = Source::parse("timesca") else { return };
    for time in [None, Some(Timestamp::default())] {
        let _ = TickerPage::read(bytes, &source, time, &served);
    }
}

/// The table of a bank. The first byte chooses the bank.
fn bank_table(bytes: &[u8]) {
    let Some((first, body)) = bytes.split_first() else { return };
    let feed = BankFeed::ALL[usize::from(*first) % BankFeed::ALL.len()];
    let (served, date) = (CurrencySet::central_asia(), Timestamp::from_micros(1_779_000_000_000_000).to_chrono());
    let rules = BankRules { served: &served, minimum_places: None };
    let _ = BankRequest::new(feed, date.date_naive()).read(body, &rules);
}

/// A file of ticks. Its rows must not depend on how the file is read.
fn tick_csv(bytes: &[u8]) {
    let (Ok(mut lines), Ok(mut parts)) = (TickCsv::new(bytes), TickCsv::new(bytes)) else { return };
    let header = parts.header().clone();
    while let Ok(Some(part)) = parts.next_part(1, 64) {
        for row in header.rows_of(&part) {
            assert_eq!(lines.next_row().ok().flatten(), Some(row), "a row differs between lines and parts");
        }
    }
    assert!(matches!(lines.next_row(), Ok(None)), "a row is missing in the parts");
}

/// Columns of ticks and of runs.
fn tick_columns(bytes: &[u8]) {
    if let Ok(columns) = v1::TickColumns::decode(bytes) {
        let _ = decode_tick_columns(&columns);
    }
    if let Ok(columns) = v1::StreamRunsResponse::decode(bytes) {
        let _ = decode_runs(&columns);
    }
    let _ = v1::StreamTicksRequest::decode(bytes);
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::{Path, PathBuf};

    use fastrand::Rng;

    use super::*;

    /// Inputs for each target. `SILKRATE_FUZZ_INPUTS` sets another number.
    const INPUTS: usize = 2_000;
    const CHANGES_MAX: usize = 6;
    const INSERTED_BYTES_MAX: usize = 16;
    const INPUT_BYTES_MAX: usize = 1 << 16;

    fn corpus(target: &str) -> Vec<Vec<u8>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let files = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        let corpus: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        assert!(!corpus.is_empty(), "{}: a corpus has at least one input", directory.display());
        corpus
    }

    /// Changes an input of the corpus in a few places.
    fn mutated(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
        let mut input = rng.choice(corpus).cloned().unwrap_or_default();
        for _ in 0..=rng.usize(..CHANGES_MAX) {
            let at = rng.usize(..=input.len());
            let end = (at + rng.usize(..=64)).min(input.len());
            match rng.u8(..7) {
                0 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
                1 if at < input.len() => {
                    input[at] = *rng.choice(&[0, 1, 0x7F, 0x80, 0xFF, b'0', b'-', b'"', b','][..]).unwrap();
                }
                2 => drop(
                    input.splice(at..at, (0..=rng.usize(..INSERTED_BYTES_MAX)).map(|_| rng.u8(..)).collect::<Vec<_>>()),
                ),
                3 => drop(input.drain(at..end)),
                4 => {
                    let piece = input[at..end].to_vec();
                    drop(input.splice(at..at, piece));
                }
                5 => input.truncate(at),
                _ => {
                    let other = rng.choice(corpus).cloned().unwrap_or_default();
                    let from = rng.usize(..=other.len());
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
            }
        }
        input.truncate(INPUT_BYTES_MAX);
        input
    }

    fn check(target: &str) {
        let corpus = corpus(target);
        let inputs = std::env::var("SILKRATE_FUZZ_INPUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(INPUTS);
        for input in &corpus {
            run(target, input);
        }
        for seed in 0..inputs {
            let input = mutated(&corpus, &mut Rng::with_seed(seed as u64));
            let result = catch_unwind(AssertUnwindSafe(|| run(target, &input)));
            assert!(
                result.is_ok(),
                "target {target}, seed {seed}: the body panicked for {:?}",
                input.escape_ascii().to_string()
            );
        }
    }

    macro_rules! targets {
        ($($target:ident)*) => {
            $(#[test] fn $target() { check(stringify!($target)); })*

            #[test]
            fn every_target_has_a_test_and_a_program() {
                let tested = [$(stringify!($target)),*];
                for (name, _) in TARGETS {
                    assert!(tested.contains(&name), "{name} has no test");
                    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/fuzz_targets/{name}.rs"));
                    let text = std::fs::read_to_string(&program).unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert!(text.contains(&format!("\"{name}\"")), "{name}: its program runs another target");
                }
            }
        };
    }

    /// Writes the inputs that only code can make. Run it again after a change of a format.
    #[test]
    #[ignore = "writes files: cargo test --lib fuzz -- --ignored"]
    fn write_corpora() {
        for (target, name, bytes) in store::fuzz::corpus().into_iter().chain(api::fuzz_corpus()) {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(name), bytes).unwrap();
        }
        let time = prost_types::Timestamp { seconds: 1_765_152_000, nanos: 0 };
        let columns = v1::TickColumns {
            pair: "KGS/USD".to_owned(),
            source: "nbkr".to_owned(),
            places: 5,
            base_time: Some(time),
            observed_time_deltas: [0_i64, 60_000_000, -1].iter().flat_map(|us| us.to_le_bytes()).collect(),
            rate_mantissas: [1_144_u64, 1_145, 0].iter().flat_map(|rate| rate.to_le_bytes()).collect(),
            ..Default::default()
        };
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/tick_columns");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("ticks"), columns.encode_to_vec()).unwrap();
    }

    targets!(page bank_table tick_csv log_frames block sealed_value page_token tick_columns request import);
}
