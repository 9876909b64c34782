//! A tree of minima over a list of numbers. From a given index, a search finds the nearest number that is less than or
//! equal to a bound. The search does not read all numbers in between.
//!
//! **Invariant**: a search reads at most two groups of each level, so its cost is logarithmic in the number of items.

/// Number of items in a group, on every level.
const GROUP_ITEMS: usize = 32;

/// Minima of groups of numbers, minima of groups of these minima, and so on. The caller keeps the numbers themselves.
#[derive(Debug, Default)]
pub(super) struct MinTree {
    count: usize,
    /// `levels[0][i]` is the minimum of the numbers `32 * i..32 * i + 32`. Each further level holds the minima of the
    /// groups of the level before it.
    levels: Vec<Vec<i64>>,
}

impl MinTree {
    /// Builds the tree over these numbers.
    pub(super) fn new(numbers: &[i64]) -> Self {
        let minima = |numbers: &[i64]| -> Vec<i64> {
            numbers.chunks(GROUP_ITEMS).map(|group| group.iter().copied().min().unwrap_or(i64::MAX)).collect()
        };
        let mut levels: Vec<Vec<i64>> = Vec::new();
        while let below = levels.last().map_or(numbers, Vec::as_slice)
            && below.len() > 1
        {
            levels.push(minima(below));
        }
        Self { count: numbers.len(), levels }
    }

    /// Returns the index of the last number before index `end` that is at most `bound`. `number` returns the number at
    /// an index.
    pub(super) fn last_at_most(&self, end: usize, bound: i64, number: impl Fn(usize) -> i64) -> Option<usize> {
        let value = |level: usize, at: usize| self.value(level, at, &number);
        let mut end = end.min(self.count);
        for level in 0..=self.levels.len() {
            let group = end.checked_sub(1)? / GROUP_ITEMS;
            let start = group * GROUP_ITEMS;
            // Usually the minimum of the whole group shows that the group has no such number.
            if self.may_have(level, group, bound)
                && let Some(mut found) = (start..end).rev().find(|at| value(level, *at) <= bound)
            {
                for below in (0..level).rev() {
                    let group = found * GROUP_ITEMS..((found + 1) * GROUP_ITEMS).min(self.len_of(below));
                    found = group.rev().find(|at| value(below, *at) <= bound)?;
                }
                return Some(found);
            }
            end = group;
        }
        None
    }

    /// Returns the index of the first number from index `start` on that is at most `bound`. `number` returns the number
    /// at an index.
    pub(super) fn first_at_most(&self, start: usize, bound: i64, number: impl Fn(usize) -> i64) -> Option<usize> {
        let value = |level: usize, at: usize| self.value(level, at, &number);
        let mut start = start;
        for level in 0..=self.levels.len() {
            let next_group = start / GROUP_ITEMS + 1;
            let end = (next_group * GROUP_ITEMS).min(self.len_of(level));
            if self.may_have(level, next_group - 1, bound)
                && let Some(mut found) = (start..end).find(|at| value(level, *at) <= bound)
            {
                for below in (0..level).rev() {
                    let mut group = found * GROUP_ITEMS..((found + 1) * GROUP_ITEMS).min(self.len_of(below));
                    found = group.find(|at| value(below, *at) <= bound)?;
                }
                return Some(found);
            }
            start = next_group;
        }
        None
    }

    /// Returns false if no number is at most `bound`, and true otherwise. Always returns true for a tree of fewer than
    /// two numbers, which has no minima.
    pub(super) fn may_have_at_most(&self, bound: i64) -> bool {
        self.may_have(self.levels.len().saturating_sub(1), 0, bound)
    }

    /// Returns false if no number in group `group` of level `level` is at most `bound`.
    fn may_have(&self, level: usize, group: usize, bound: i64) -> bool {
        let minimum = self.levels.get(level).and_then(|minima| minima.get(group));
        minimum.is_none_or(|minimum| *minimum <= bound)
    }

    /// Memory used by the minima, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.levels.iter().map(|level| size_of_val(level.as_slice())).sum()
    }

    /// Returns the number of values on a level. Level 0 is the numbers themselves, and level n is `levels[n - 1]`.
    fn len_of(&self, level: usize) -> usize {
        match level.checked_sub(1) {
            None => self.count,
            Some(index) => self.levels.get(index).map_or(0, Vec::len),
        }
    }

    /// Returns the value at index `at` of a level. Levels count as in [`Self::len_of`].
    fn value(&self, level: usize, at: usize, number: &impl Fn(usize) -> i64) -> i64 {
        match level.checked_sub(1) {
            None => number(at),
            Some(index) => self.levels.get(index).and_then(|minima| minima.get(at)).copied().unwrap_or(i64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares every search over `numbers` with a linear search.
    fn check(numbers: &[i64], bounds: &[i64]) {
        let tree = MinTree::new(numbers);
        for at in 0..=numbers.len() {
            for bound in bounds {
                let is_small = |at: &usize| numbers[*at] <= *bound;
                let last = (0..at).rev().find(is_small);
                assert_eq!(tree.last_at_most(at, *bound, |at| numbers[at]), last, "last before {at}, {bound}");
                let first = (at..numbers.len()).find(is_small);
                assert_eq!(tree.first_at_most(at, *bound, |at| numbers[at]), first, "first from {at}, {bound}");
            }
        }
    }

    #[test]
    fn search_finds_nearest_number_at_most_bound() {
        check(&[], &[0]);
        check(&[5], &[4, 5]);
        for count in [31, 32, 33, 1_023, 1_024, 1_025, 3_000] {
            let scattered: Vec<i64> = (0..count).map(|at: i64| (at * 7_919) % 1_009).collect();
            check(&scattered, &[-1, 0, 3, 500, 1_008]);
            let mut single = vec![9; usize::try_from(count).unwrap()];
            single[usize::try_from(count).unwrap() / 3] = 1;
            check(&single, &[0, 1]);
        }
    }

    #[test]
    fn search_reads_at_most_two_groups_of_numbers() {
        let numbers: Vec<i64> = (0..1_000_000).map(|at| i64::from(at != 0)).collect();
        let tree = MinTree::new(&numbers);
        let read = std::cell::Cell::new(0);
        let number = |at: usize| {
            read.set(read.get() + 1);
            numbers[at]
        };
        assert_eq!(tree.last_at_most(numbers.len(), 0, number), Some(0));
        assert!(read.get() <= 2 * GROUP_ITEMS, "{} numbers were read", read.get());
    }
}
