//! The trend of a series: its recent rates as a line of block characters (a sparkline).
//!
//! **Invariant**: consecutive equal rates are one entry. The computation uses integers only.

use std::collections::VecDeque;

use crate::domain::Rate;

/// The maximum number of rates of a trend, and thus of block characters on a line.
pub(super) const TREND_RATES_MAX: usize = 64;

/// The block characters, lowest first.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The block of a trend with a single rate, in the middle of the range.
const FLAT_BLOCK: char = '▄';

/// Rates sorted by time, oldest first. Neighbours differ.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Trend(VecDeque<Rate>);

impl Trend {
    /// Appends the newest rate. Ignores a text that is not a rate, and a rate equal to the previous one.
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

    /// Replaces the history with `rates`, oldest first, and keeps the newest known rate as the last entry.
    pub(super) fn replace<'a>(&mut self, rates: impl Iterator<Item = &'a str>) {
        let newest = self.0.back().copied();
        self.0.clear();
        rates.for_each(|rate| self.push(rate));
        if let Some(newest) = newest {
            self.push(&newest.to_string());
        }
    }

    /// Formats the last `width` rates as blocks, scaled between the lowest and the highest of them.
    pub(super) fn blocks(&self, width: usize) -> String {
        let rates: Vec<u128> =
            self.0.iter().skip(self.0.len().saturating_sub(width)).map(|rate| scaled(*rate)).collect();
        let (Some(low), Some(high)) = (rates.iter().min(), rates.iter().max()) else { return String::new() };
        let span = high - low;
        if span == 0 {
            return rates.iter().map(|_| FLAT_BLOCK).collect();
        }
        let top = BLOCKS.len() - 1;
        // `(rate - low) * 7` can overflow, so this code divides by a seventh of the span. The minimum divisor is one.
        let step = (span / 7).max(1);
        rates
            .iter()
            .map(|rate| BLOCKS[usize::try_from((rate - low) / step).map_or(top, |level| level.min(top))])
            .collect()
    }
}

/// Converts a rate to an integer in units of 10^-18, the last of [`Rate::PLACES_MAX`] places. The integer has at most
/// 38 digits and fits a `u128`.
pub(super) fn scaled(rate: Rate) -> u128 {
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
    fn blocks_are_scaled_between_lowest_and_highest_rate() {
        let check = |rates: &[&str], width, expect: &str| assert_eq!(trend(rates).blocks(width), expect, "{rates:?}");
        check(&[], 8, "");
        check(&["0.01144"], 8, "▄");
        check(&["0.01144", "0.01144", "0.011440"], 8, "▄");
        check(&["1", "2", "3", "4", "5", "6", "7", "8"], 8, "▁▂▃▄▅▆▇█");
        check(&["1", "2", "3", "4", "5", "6", "7", "8"], 3, "▁▄█");
        check(&["0.01144", "0.01145", "0.01144"], 8, "▁█▁");
        check(&["179.5", "180", "179.75"], 8, "▁█▄");
        // The largest and the smallest possible rate.
        check(&["99999999999999999999", "0.000000000000000001"], 8, "█▁");
    }

    #[test]
    fn replace_keeps_newest_rate_after_history() {
        let mut replaced = trend(&["3"]);
        replaced.replace(["1", "2"].into_iter());
        assert_eq!(replaced, trend(&["1", "2", "3"]));
        replaced.replace(["1", "2", "3"].into_iter());
        assert_eq!(replaced, trend(&["1", "2", "3"]));
    }

    #[test]
    fn trend_drops_oldest_rate_beyond_limit() {
        let rates: Vec<String> = (1..=TREND_RATES_MAX + 10).map(|rate| rate.to_string()).collect();
        let rates: Vec<&str> = rates.iter().map(String::as_str).collect();
        assert_eq!(trend(&rates), trend(&rates[10..]));
    }
}
