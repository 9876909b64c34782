//! The recent rates of one series, as a line of small blocks.
//!
//! **Invariant**: a rate stands there once until another one comes; equal rates make one step. No float is used.

use std::collections::VecDeque;

use crate::domain::Rate;

/// Rates remembered: as many as the widest line of blocks has room for.
pub(super) const TREND_RATES_MAX: usize = 64;

/// From the lowest to the highest.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Of a rate that never moved: in the middle, since there is nothing to compare it with.
const ALONE: char = '▄';

/// Rates in order of time, the newest last, no two neighbours equal.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Trend(VecDeque<Rate>);

impl Trend {
    /// The newest rate as it was published; one that cannot be read is passed over.
    pub(super) fn push(&mut self, rate: &str) {
        let Ok(rate) = Rate::parse(rate) else { return };
        if self.0.back().is_some_and(|newest| newest.same_number(rate)) {
            return;
        }
        if self.0.len() == TREND_RATES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(rate);
    }

    /// Takes the place of what was known, with the rates in order; what came in the meantime goes on after them.
    pub(super) fn refill<'a>(&mut self, rates: impl Iterator<Item = &'a str>) {
        let newest = self.0.back().copied();
        self.0.clear();
        rates.for_each(|rate| self.push(rate));
        if let Some(newest) = newest {
            self.push(&newest.to_string());
        }
    }

    /// The last `width` rates between the lowest and the highest of them.
    pub(super) fn blocks(&self, width: usize) -> String {
        let rates: Vec<u128> =
            self.0.iter().skip(self.0.len().saturating_sub(width)).map(|rate| number(*rate)).collect();
        let (Some(low), Some(high)) = (rates.iter().min(), rates.iter().max()) else { return String::new() };
        let span = high - low;
        if span == 0 {
            return rates.iter().map(|_| ALONE).collect();
        }
        let top = BLOCKS.len() - 1;
        // Sevenths of the span, so that nothing overflows; a span below seven has steps of one.
        let step = (span / 7).max(1);
        rates
            .iter()
            .map(|rate| BLOCKS[usize::try_from((rate - low) / step).map_or(top, |level| level.min(top))])
            .collect()
    }
}

/// The rate in units of the finest place there may be: 38 digits, which fit.
pub(super) fn number(rate: Rate) -> u128 {
    rate.mantissa() * 10_u128.pow(u32::from(Rate::PLACES_MAX - rate.places()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(rates: &[&str]) -> Trend {
        let mut trend = Trend::default();
        for rate in rates {
            trend.push(rate);
        }
        trend
    }

    #[test]
    fn rates_stand_between_the_lowest_and_the_highest() {
        let check = |rates: &[&str], width, expect: &str| assert_eq!(trend(rates).blocks(width), expect, "{rates:?}");
        check(&[], 8, "");
        check(&["0.01144"], 8, "▄");
        check(&["0.01144", "0.01144", "0.011440"], 8, "▄");
        check(&["1", "2", "3", "4", "5", "6", "7", "8"], 8, "▁▂▃▄▅▆▇█");
        check(&["1", "2", "3", "4", "5", "6", "7", "8"], 3, "▁▄█");
        check(&["0.01144", "0.01145", "0.01144"], 8, "▁█▁");
        check(&["179.5", "180", "179.75"], 8, "▁█▄");
        // The widest that a rate can be.
        check(&["99999999999999999999", "0.000000000000000001"], 8, "█▁");
    }

    #[test]
    fn what_came_meanwhile_goes_on_after_what_was_stored() {
        let mut held = trend(&["3"]);
        held.refill(["1", "2"].into_iter());
        assert_eq!(held, trend(&["1", "2", "3"]));
        held.refill(["1", "2", "3"].into_iter());
        assert_eq!(held, trend(&["1", "2", "3"]));
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let rates: Vec<String> = (1..=TREND_RATES_MAX + 10).map(|rate| rate.to_string()).collect();
        let rates: Vec<&str> = rates.iter().map(String::as_str).collect();
        assert_eq!(trend(&rates), trend(&rates[10..]));
    }
}
