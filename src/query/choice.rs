//! The rule by which one of several candidates answers a request that names no source.
//!
//! A candidate is a direct rate, the inverse of one, or a cross through USD. The rule first drops candidates (those of
//! archived sources, stale ones, and those without the observations that the request needs) as long as one is left, then
//! orders the rest.
//!
//! **Invariant**: the order does not depend on the time of the last observation unless all candidates are stale, so that
//! the answer does not change its source at every tick. Only the last step depends on the direction of a pair, so that a
//! pair and its inverse answer from the same series.

use std::cmp::Reverse;

use crate::domain::Timestamp;

/// What the rule knows about a candidate at the time of the choice.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one step of the rule")]
pub(super) struct Facts {
    /// Whether the source is archived. Of a cross, whether the source of a leg is.
    pub(super) is_archived: bool,
    /// The last observation at or before the time of the choice. Of a cross, that of the older leg.
    pub(super) observed_time: Timestamp,
    /// Whether that observation is recent enough for the `max_age` of the request.
    pub(super) is_within_max_age: bool,
    /// Whether a leg was stale at the time of the choice.
    pub(super) is_stale: bool,
    /// Whether every leg has a rate in force at the start of the request.
    pub(super) has_start: bool,
    /// Whether every leg has an observation inside the window of the request.
    pub(super) is_observed_inside: bool,
    /// The preference that is configured for the source; `u32::MAX` without one. Of a cross, that of the worse leg.
    pub(super) preference: u32,
    /// Whether the source is built in, followed or named in the configuration. Of a cross, whether both sources are.
    pub(super) is_configured: bool,
    /// Significant digits of the published rate. Of a cross, those of the leg with fewer.
    pub(super) significant_digits: u32,
    /// Stale limit of the source, microseconds. Of a cross, the longer one.
    pub(super) stale_limit_us: i64,
    /// 1, or 2 for a cross.
    pub(super) leg_count: usize,
    /// Names of the sources, sorted.
    pub(super) sources: Vec<String>,
    /// Whether the inverse of a published rate answers; false for a cross.
    pub(super) is_inverse: bool,
}

impl Facts {
    /// Returns the facts of a cross of two legs.
    pub(super) fn cross(first: &Self, second: &Self) -> Self {
        let mut sources: Vec<String> = first.sources.iter().chain(&second.sources).cloned().collect();
        sources.sort_unstable();
        Self {
            is_archived: first.is_archived || second.is_archived,
            observed_time: first.observed_time.min(second.observed_time),
            is_within_max_age: first.is_within_max_age && second.is_within_max_age,
            is_stale: first.is_stale || second.is_stale,
            has_start: first.has_start && second.has_start,
            is_observed_inside: first.is_observed_inside && second.is_observed_inside,
            preference: first.preference.max(second.preference),
            is_configured: first.is_configured && second.is_configured,
            significant_digits: first.significant_digits.min(second.significant_digits),
            stale_limit_us: first.stale_limit_us.max(second.stale_limit_us),
            leg_count: first.leg_count + second.leg_count,
            sources,
            is_inverse: false,
        }
    }

    /// The order among candidates that the filters leave: the least answers.
    fn rank(&self) -> impl Ord + use<'_> {
        (
            self.preference,
            !self.is_configured,
            Reverse(self.significant_digits),
            self.stale_limit_us,
            self.leg_count,
            &self.sources,
            self.is_inverse,
        )
    }
}

/// Returns the position of the candidate that answers; `None` if there are no candidates.
pub(super) fn choose(candidates: &[Facts]) -> Option<usize> {
    let mut left: Vec<usize> = (0..candidates.len()).collect();
    let filters: [fn(&Facts) -> bool; 5] = [
        |facts| !facts.is_archived,
        |facts| facts.is_within_max_age,
        |facts| !facts.is_stale,
        |facts| facts.has_start,
        |facts| facts.is_observed_inside,
    ];
    for filter in filters {
        let kept: Vec<usize> = left.iter().copied().filter(|at| filter(&candidates[*at])).collect();
        if !kept.is_empty() {
            left = kept;
        }
    }
    // If a fresh candidate exists, the first filter left only fresh ones.
    let all_stale = left.iter().all(|at| candidates[*at].is_stale);
    left.into_iter().min_by_key(|at| {
        let facts = &candidates[*at];
        (all_stale.then_some(Reverse(facts.observed_time)), facts.rank())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts() -> impl Strategy<Value = Facts> {
        let flags = prop::array::uniform7(any::<bool>());
        let numbers = (0..4_i64, prop_oneof![1..3_u32, Just(u32::MAX)], 1..4_u32, 1..3_i64, 1..3_usize, 0..3_u8);
        (flags, numbers).prop_map(|([archived, age, stale, start, inside, configured, inverse], numbers)| {
            let (observed, preference, significant_digits, stale_limit_us, leg_count, name) = numbers;
            Facts {
                is_archived: archived,
                observed_time: Timestamp::from_micros(observed),
                is_within_max_age: age,
                is_stale: stale,
                has_start: start,
                is_observed_inside: inside,
                preference,
                is_configured: configured,
                significant_digits,
                stale_limit_us,
                leg_count,
                sources: vec![format!("source{name}")],
                is_inverse: inverse,
            }
        })
    }

    /// The rule as the design states it, one step after the other.
    fn model(candidates: &[Facts]) -> Vec<Facts> {
        let drop = |left: Vec<Facts>, keep: &dyn Fn(&Facts) -> bool| {
            let kept: Vec<Facts> = left.iter().filter(|facts| keep(facts)).cloned().collect();
            if kept.is_empty() { left } else { kept }
        };
        let mut left = candidates.to_vec();
        if left.iter().any(|facts| !facts.is_archived) {
            left.retain(|facts| !facts.is_archived);
        }
        left = drop(left, &|facts| facts.is_within_max_age);
        left = drop(left, &|facts| !facts.is_stale);
        left = drop(left, &|facts| facts.has_start);
        left = drop(left, &|facts| facts.is_observed_inside);
        if left.iter().all(|facts| facts.is_stale) {
            let last = left.iter().map(|facts| facts.observed_time).max();
            left.retain(|facts| Some(facts.observed_time) == last);
        }
        let best = left.iter().map(|facts| facts.preference).min();
        left.retain(|facts| Some(facts.preference) == best);
        left = drop(left, &|facts| facts.is_configured);
        let most = left.iter().map(|facts| facts.significant_digits).max();
        left.retain(|facts| Some(facts.significant_digits) == most);
        let shortest = left.iter().map(|facts| facts.stale_limit_us).min();
        left.retain(|facts| Some(facts.stale_limit_us) == shortest);
        left = drop(left, &|facts| facts.leg_count == 1);
        let name = left.iter().map(|facts| facts.sources.clone()).min();
        left.retain(|facts| Some(&facts.sources) == name.as_ref());
        drop(left, &|facts| !facts.is_inverse)
    }

    proptest! {
        #[test]
        fn choice_equals_the_steps_of_the_design(candidates in prop::collection::vec(facts(), 0..6)) {
            let chosen = choose(&candidates).map(|at| candidates[at].clone());
            let expect = model(&candidates);
            prop_assert_eq!(chosen.is_some(), !candidates.is_empty());
            if let Some(chosen) = chosen {
                prop_assert!(expect.contains(&chosen), "{:?} is not one of {:?}", chosen, expect);
            }
        }

        #[test]
        fn choice_does_not_depend_on_the_order_of_candidates(candidates in prop::collection::vec(facts(), 1..6)) {
            let of = |list: &[Facts]| choose(list).map(|at| (list[at].leg_count, list[at].sources.clone(), list[at].is_inverse));
            let reversed: Vec<Facts> = candidates.iter().rev().cloned().collect();
            prop_assert_eq!(of(&reversed), of(&candidates));
        }

        #[test]
        fn new_observations_do_not_change_the_source_of_fresh_rates(
            mut candidates in prop::collection::vec(facts(), 1..6),
            observed in 0..100_i64,
            at in 0..6_usize,
        ) {
            for facts in &mut candidates {
                facts.is_stale = false;
            }
            let chosen = choose(&candidates);
            let at = at % candidates.len();
            candidates[at].observed_time = Timestamp::from_micros(observed);
            prop_assert_eq!(choose(&candidates), chosen);
        }
    }
}
