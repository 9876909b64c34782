//! The seeded quotes of the comparison, and their files.
//!
//! **Invariant**: the quotes depend only on the pair, the second and the number of ticks, not on the machine.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use chrono::{DateTime, SecondsFormat};

use crate::random::Random;

/// 2025-01-01T00:00:00Z: the time of the first quote.
pub(crate) const QUOTES_START_S: i64 = 1_735_689_600;
/// 2015-01-01T00:00:00Z: the time of the first official rate.
const OFFICIAL_START_S: i64 = 1_420_070_400;
/// From 2015-01-01 to 2024-12-31.
const OFFICIAL_DAYS: i64 = 3_653;
pub(crate) const PAIRS: [&str; 5] = ["KGS/USD", "KZT/USD", "TJS/USD", "UZS/USD", "TMT/USD"];
pub(crate) const RATE_PLACES: u32 = 6;
const MOVES_PERCENT: u64 = 30;
/// The rates of one pair, times 10^6: one for each step of time.
pub(crate) struct Mantissas {
    random: Random,
    mantissa: u64,
}

impl Mantissas {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random(seed), mantissa: 11_440 + seed }
    }
}

impl Iterator for Mantissas {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.random.below(100) < MOVES_PERCENT {
            let step = 1 + self.random.below(20);
            let is_up = self.random.below(2) == 0 || self.mantissa < 5_000;
            self.mantissa = if is_up { self.mantissa + step } else { self.mantissa - step };
        }
        Some(self.mantissa)
    }
}

pub(crate) fn rate_text(mantissa: u64) -> String {
    format!("{}.{:06}", mantissa / 1_000_000, mantissa % 1_000_000)
}

pub(crate) fn generate(directory: &Path, ticks: u64) {
    let open = |name: &str| BufWriter::with_capacity(1 << 20, File::create(directory.join(name)).expect("a new file"));
    let write = |name: &str, source: &str, start_s: i64, step_s: i64, count: u64, first_seed: u64| {
        let (mut csv, mut influx) = (open(&format!("{name}.csv")), open(&format!("{name}.influx")));
        let mut pairs: Vec<_> =
            PAIRS.iter().zip(first_seed..).map(|(pair, seed)| (pair, Mantissas::new(seed))).collect();
        writeln!(csv, "pair,source,observed_time,rate").expect("room on the disk");
        for index in 0..count {
            let second = start_s + index as i64 * step_s;
            let time = DateTime::from_timestamp(second, 0).expect("a valid time");
            let time = time.to_rfc3339_opts(SecondsFormat::Secs, true);
            for (pair, mantissas) in &mut pairs {
                let rate = rate_text(mantissas.next().expect("endless"));
                writeln!(csv, "{pair},{source},{time},{rate}").expect("room on the disk");
                writeln!(influx, "quotes,pair={pair},source={source} rate={rate} {second}").expect("room on the disk");
            }
        }
        csv.flush().and_then(|()| influx.flush()).expect("room on the disk");
    };
    write("quotes", "quotes", QUOTES_START_S, 1, ticks / PAIRS.len() as u64, 1);
    write("official", "official", OFFICIAL_START_S, 86_400, OFFICIAL_DAYS as u64, 101);
    println!("{{}}");
}
