//! Minima over groups of numbers, to find the next number that is small enough without reading those between.
//!
//! **Invariant**: a search reads at most two groups of each level, so that its cost grows with the logarithm of the count.

/// Numbers of a group, and groups of a group above it.
const GROUP: usize = 32;

/// The minima of groups of some numbers, of groups of those, and so on. The numbers themselves are held elsewhere.
#[derive(Debug, Default)]
pub(super) struct MinTree {
    count: usize,
    /// `levels[0][i]` is the least of numbers `32 * i..32 * i + 32`; each level above does the same to the one below.
    levels: Vec<Vec<i64>>,
}

impl MinTree {
    /// Of these numbers, in their order.
    pub(super) fn new(numbers: &[i64]) -> Self {
        let minima = |numbers: &[i64]| -> Vec<i64> {
            numbers.chunks(GROUP).map(|group| group.iter().copied().min().unwrap_or(i64::MAX)).collect()
        };
        let mut levels: Vec<Vec<i64>> = Vec::new();
        while let below = levels.last().map_or(numbers, Vec::as_slice)
            && below.len() > 1
        {
            levels.push(minima(below));
        }
        Self { count: numbers.len(), levels }
    }

    /// The place of the last number before `end` that is at most `bound`. `number` gives the number at a place.
    pub(super) fn last_at_most(&self, end: usize, bound: i64, number: impl Fn(usize) -> i64) -> Option<usize> {
        let value = |level: usize, at: usize| self.value(level, at, &number);
        let mut end = end.min(self.count);
        for level in 0..=self.levels.len() {
            let group = end.checked_sub(1)? / GROUP;
            let start = group * GROUP;
            // The minimum of the whole group tells most often that nothing is there.
            if self.may_have(level, group, bound)
                && let Some(mut found) = (start..end).rev().find(|at| value(level, *at) <= bound)
            {
                for below in (0..level).rev() {
                    let group = found * GROUP..((found + 1) * GROUP).min(self.len_of(below));
                    found = group.rev().find(|at| value(below, *at) <= bound)?;
                }
                return Some(found);
            }
            end = group;
        }
        None
    }

    /// The place of the first number from `start` on that is at most `bound`. `number` gives the number at a place.
    pub(super) fn first_at_most(&self, start: usize, bound: i64, number: impl Fn(usize) -> i64) -> Option<usize> {
        let value = |level: usize, at: usize| self.value(level, at, &number);
        let mut start = start;
        for level in 0..=self.levels.len() {
            let next_group = start / GROUP + 1;
            let end = (next_group * GROUP).min(self.len_of(level));
            if self.may_have(level, next_group - 1, bound)
                && let Some(mut found) = (start..end).find(|at| value(level, *at) <= bound)
            {
                for below in (0..level).rev() {
                    let mut group = found * GROUP..((found + 1) * GROUP).min(self.len_of(below));
                    found = group.find(|at| value(below, *at) <= bound)?;
                }
                return Some(found);
            }
            start = next_group;
        }
        None
    }

    /// Whether any number is at most `bound`, as far as it tells without the numbers: of one number it does not.
    pub(super) fn may_have_at_most(&self, bound: i64) -> bool {
        self.may_have(self.levels.len().saturating_sub(1), 0, bound)
    }

    /// Whether a group of a level may have a number that is at most `bound`.
    fn may_have(&self, level: usize, group: usize, bound: i64) -> bool {
        let minimum = self.levels.get(level).and_then(|minima| minima.get(group));
        minimum.is_none_or(|minimum| *minimum <= bound)
    }

    /// Bytes that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.levels.iter().map(|level| size_of_val(level.as_slice())).sum()
    }

    fn len_of(&self, level: usize) -> usize {
        match level.checked_sub(1) {
            None => self.count,
            Some(above) => self.levels.get(above).map_or(0, Vec::len),
        }
    }

    fn value(&self, level: usize, at: usize, number: &impl Fn(usize) -> i64) -> i64 {
        match level.checked_sub(1) {
            None => number(at),
            Some(above) => self.levels.get(above).and_then(|minima| minima.get(at)).copied().unwrap_or(i64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every search over `numbers`, against a walk.
    fn check(numbers: &[i64], bounds: &[i64]) {
        let tree = MinTree::new(numbers);
        for at in 0..=numbers.len() {
            for bound in bounds {
                let small = |place: &usize| numbers[*place] <= *bound;
                let last = (0..at).rev().find(small);
                assert_eq!(tree.last_at_most(at, *bound, |at| numbers[at]), last, "last before {at}, {bound}");
                let first = (at..numbers.len()).find(small);
                assert_eq!(tree.first_at_most(at, *bound, |at| numbers[at]), first, "first from {at}, {bound}");
            }
        }
    }

    #[test]
    fn finds_the_next_small_number_on_either_side() {
        check(&[], &[0]);
        check(&[5], &[4, 5]);
        for count in [31, 32, 33, 1_023, 1_024, 1_025, 3_000] {
            let scattered: Vec<i64> = (0..count).map(|at: i64| (at * 7_919) % 1_009).collect();
            check(&scattered, &[-1, 0, 3, 500, 1_008]);
            let mut lone = vec![9; usize::try_from(count).unwrap()];
            lone[usize::try_from(count).unwrap() / 3] = 1;
            check(&lone, &[0, 1]);
        }
    }

    #[test]
    fn a_search_reads_few_numbers() {
        let numbers: Vec<i64> = (0..1_000_000).map(|at| i64::from(at != 0)).collect();
        let tree = MinTree::new(&numbers);
        let read = std::cell::Cell::new(0);
        let number = |at: usize| {
            read.set(read.get() + 1);
            numbers[at]
        };
        assert_eq!(tree.last_at_most(numbers.len(), 0, number), Some(0));
        assert!(read.get() <= 2 * GROUP, "{} numbers were read", read.get());
    }
}
