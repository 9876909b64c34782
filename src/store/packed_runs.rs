//! The runs of one block in memory, packed so that a read finds one run without decoding the others.
//!
//! **Invariant**: a packed block returns exactly the runs that were packed.

use super::block::{Columns, DecodeError, RunColumns, RunNumbers, greatest_common_divisor};
use crate::domain::{Run, Timestamp};

/// Numbers of equal width in bits. Each is stored as a multiple of `step` above `base`, which suits times, counts and
/// mantissas of neighbouring runs: they are close to each other and often multiples of a second or of a tick.
#[derive(Debug, PartialEq, Eq)]
struct PackedNumbers {
    base: u64,
    step: u64,
    /// Bits of each number, 0 to 64. With 0 bits, all numbers are `base`.
    width: u32,
    words: Box<[u64]>,
}

impl PackedNumbers {
    fn new(numbers: &[u64]) -> Self {
        let base = numbers.iter().min().copied().unwrap_or_default();
        let step = numbers.iter().fold(0, |step, number| greatest_common_divisor(step, number - base)).max(1);
        let largest = numbers.iter().map(|number| (number - base) / step).max().unwrap_or_default();
        let width = u64::BITS - largest.leading_zeros();
        let mut words = vec![0_u64; (numbers.len() * width as usize).div_ceil(64)];
        for (at, number) in numbers.iter().enumerate() {
            let multiple = (number - base) / step;
            let (word, shift) = position(at, width);
            if let Some(low) = words.get_mut(word) {
                *low |= multiple << shift;
            }
            // The bits that did not fit into the word. Without a shift, all bits fit.
            if let Some(high) = words.get_mut(word + 1) {
                *high |= multiple.checked_shr(u64::BITS - shift).unwrap_or_default();
            }
        }
        Self { base, step, width, words: words.into() }
    }

    /// Returns the number with this index, which must be less than the count of numbers.
    fn get(&self, at: usize) -> u64 {
        let (word, shift) = position(at, self.width);
        let bits = |word: usize| self.words.get(word).copied().unwrap_or_default();
        let high = bits(word + 1).checked_shl(u64::BITS - shift).unwrap_or_default();
        let mask = u64::MAX.checked_shr(u64::BITS - self.width).unwrap_or_default();
        self.base + self.step * ((bits(word) >> shift | high) & mask)
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }
}

/// Returns the word and the shift in this word at which the number with index `at` begins.
fn position(at: usize, width: u32) -> (usize, u32) {
    let bit = at * width as usize;
    (bit / 64, u32::try_from(bit % 64).unwrap_or_default())
}

/// Maps signed numbers to unsigned numbers of the same order.
const SIGN: u64 = 1 << 63;

/// The runs of one block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PackedRuns {
    first: PackedNumbers,
    span: PackedNumbers,
    observations: PackedNumbers,
    low: PackedNumbers,
    /// Upper bits of the mantissas; `None` if all are zero.
    high: Option<PackedNumbers>,
    places: PackedNumbers,
    change: PackedNumbers,
    recorded: PackedNumbers,
    count: usize,
}

impl PackedRuns {
    /// Decodes and packs the columns of a block of runs.
    pub(super) fn decode(columns: &Columns<'_>) -> Result<Self, DecodeError> {
        let count = columns.count();
        let columns = RunColumns::of_runs(columns)?;
        let signed =
            |numbers: &[i64]| -> Vec<u64> { numbers.iter().map(|number| number.cast_unsigned() ^ SIGN).collect() };
        let wide = |numbers: &[u32]| -> Vec<u64> { numbers.iter().map(|number| u64::from(*number)).collect() };
        let places: Vec<u64> = columns.rates.places.iter().map(|places| u64::from(*places)).collect();
        Ok(Self {
            first: PackedNumbers::new(&signed(&columns.rates.first)),
            span: PackedNumbers::new(&columns.rates.span),
            observations: PackedNumbers::new(&columns.observations),
            low: PackedNumbers::new(&columns.rates.low),
            high: (!columns.rates.high.is_empty()).then(|| PackedNumbers::new(&wide(&columns.rates.high))),
            places: PackedNumbers::new(&places),
            change: PackedNumbers::new(&columns.change),
            recorded: PackedNumbers::new(&signed(&columns.recorded)),
            count,
        })
    }

    /// The number of runs that begin at or before `time`.
    pub(super) fn count_up_to(&self, time: Timestamp) -> usize {
        let key = time.micros().cast_unsigned() ^ SIGN;
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            if self.first.get(middle) <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// First observed time of the run with this index, in microseconds since 1970, UTC.
    pub(super) fn first_us(&self, at: usize) -> i64 {
        (self.first.get(at) ^ SIGN).cast_signed()
    }

    /// Recorded time of the run with this index, in microseconds since 1970, UTC.
    pub(super) fn recorded_us(&self, at: usize) -> i64 {
        (self.recorded.get(at) ^ SIGN).cast_signed()
    }

    /// Returns the run with this index; `None` if there is no such run.
    pub(super) fn get(&self, at: usize) -> Option<Result<Run, String>> {
        let of_run = || {
            let mantissa =
                u128::from(self.low.get(at)) | u128::from(self.high.as_ref().map_or(0, |high| high.get(at))) << 64;
            RunNumbers {
                first_us: self.first_us(at),
                span: self.span.get(at),
                observations: self.observations.get(at),
                mantissa,
                places: u32::try_from(self.places.get(at)).unwrap_or(u32::MAX),
                change: self.change.get(at),
                recorded_us: self.recorded_us(at),
            }
        };
        (at < self.count).then(|| of_run().to_run())
    }

    /// Memory of the packed numbers, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let columns =
            [&self.first, &self.span, &self.observations, &self.low, &self.places, &self.change, &self.recorded];
        let packed = columns.into_iter().chain(&self.high).map(PackedNumbers::bytes).sum::<usize>();
        size_of::<Self>() + packed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::block::tests::{arbitrary_run, decode_columns, runs};
    use crate::store::block::{Item as _, encode_blocks};

    fn check(numbers: &[u64]) {
        let packed = PackedNumbers::new(numbers);
        let found: Vec<u64> = (0..numbers.len()).map(|at| packed.get(at)).collect();
        assert_eq!(found, numbers);
    }

    proptest! {
        #[test]
        fn packed_numbers_are_the_same(
            numbers in proptest::collection::vec(any::<u64>(), 0..200),
            small in proptest::collection::vec(0_u64..9, 0..200),
            (base, step) in (any::<u32>(), 1_u64..1_000_000_000),
        ) {
            check(&numbers);
            check(&small);
            check(&small.iter().map(|number| u64::from(base) + number * step).collect::<Vec<_>>());
        }

        #[test]
        fn packed_runs_are_those_of_the_block(
            raw in proptest::collection::vec(arbitrary_run(), 1..600),
            times in proptest::collection::vec(-10_i64..600_000_000, 20),
        ) {
            let runs = runs(raw);
            for block in encode_blocks(&runs, &mut 1).unwrap() {
                let columns = &block.columns;
                let whole = decode_columns(&block.meta, columns, Run::decode).unwrap();
                let packed = decode_columns(&block.meta, columns, PackedRuns::decode).unwrap();
                let found: Vec<Run> = (0..whole.len()).map(|at| packed.get(at).unwrap().unwrap()).collect();
                prop_assert_eq!(&found, &whole);
                prop_assert!(packed.get(whole.len()).is_none());
                let starts = whole.iter().map(|run| run.first_observed_time.micros());
                for time in times.iter().copied().chain(starts.flat_map(|start| [start - 1, start, start + 1])) {
                    let expect = whole.partition_point(|run| run.first_observed_time.micros() <= time);
                    prop_assert_eq!(packed.count_up_to(Timestamp::from_micros(time)), expect);
                }
            }
        }
    }

    #[test]
    fn numbers_far_apart_and_equal_numbers_are_packed() {
        check(&[]);
        check(&[u64::MAX]);
        check(&[0, u64::MAX, 1, u64::MAX - 1]);
        check(&[7; 300]);
        assert_eq!(PackedNumbers::new(&[7; 300]).bytes(), 0);
        // Multiples of a second need as many bits as the number of seconds.
        let seconds: Vec<u64> = (0..64).map(|second| 1_765_152_000_000_000 + second * 1_000_000).collect();
        assert_eq!(PackedNumbers::new(&seconds).bytes(), 64 * 6 / 8);
    }
}
