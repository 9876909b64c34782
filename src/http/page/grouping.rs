//! The arrangement of the latest rates on the page: a group for each pair and its inverse, with the series that the
//! rule of choice picks. Rates of currencies against USD come first, then the other published pairs, then the series
//! that are archived or were not confirmed for a month.
//!
//! **Invariant**: each series is in exactly one place.

use std::collections::BTreeMap;

use crate::domain::{Currency, Pair, SeriesKey, Timestamp};
use crate::latest_quotes::{LatestQuote, RateState};
use crate::query::QuoteChanges;

/// A stale series that was not confirmed for this time is old.
pub(super) const OLD_AFTER_US: i64 = 30 * Timestamp::DAY_US;

/// How recent the rates of all sources together are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Freshness {
    /// At least one rate is not stale, or there is no rate.
    Fresh,
    /// Every rate is stale; the newest observation of any source.
    Stale(Timestamp),
}

/// The series of a pair and its inverse.
#[derive(Debug)]
pub(super) struct Group<'a> {
    /// The pair in its usual direction: a currency against USD, else in alphabetical order.
    pub(super) pair: Pair,
    /// The series that the rule of choice picks.
    pub(super) chosen: &'a QuoteChanges,
    /// All series that are not old, sorted by pair and source.
    pub(super) series: Vec<&'a QuoteChanges>,
    /// The old series, which are not in `series`.
    pub(super) old: Vec<&'a QuoteChanges>,
}

/// The arrangement of all series.
#[derive(Debug)]
pub(super) struct Grouping<'a> {
    /// The currencies against USD, sorted by currency.
    pub(super) usd: Vec<Group<'a>>,
    /// The other pairs, sorted.
    pub(super) other: Vec<Group<'a>>,
    /// The old series, those of archived sources last.
    pub(super) old: Vec<&'a QuoteChanges>,
    pub(super) freshness: Freshness,
}

/// Returns the direction of a pair that names its group.
pub(super) fn usual_direction(pair: Pair) -> Pair {
    let inverse = pair.inverse();
    if pair.quote() == Currency::USD {
        pair
    } else if pair.base() == Currency::USD {
        inverse
    } else {
        pair.min(inverse)
    }
}

/// Returns how recent the latest rates are. Archived sources count only if all sources are archived.
pub(super) fn freshness<'a, I: Iterator<Item = &'a LatestQuote>>(quotes: impl Fn() -> I) -> Freshness {
    if quotes().any(|quote| !quote.is_archived && quote.state != RateState::Stale) {
        return Freshness::Fresh;
    }
    let newest = |with_archived: bool| {
        let wanted = quotes().filter(|quote| with_archived || !quote.is_archived);
        wanted.map(|quote| quote.run.last_observed_time).max()
    };
    newest(false).or_else(|| newest(true)).map_or(Freshness::Fresh, Freshness::Stale)
}

/// Arranges `quotes`, which are sorted by series. `choose` applies the rule of choice to the series of a pair and its
/// inverse. If every rate is stale, the age of a series counts from the newest observation, so that old data is shown as
/// it was.
pub(super) fn arrange(
    quotes: &[QuoteChanges],
    now: Timestamp,
    mut choose: impl FnMut(Pair) -> Option<SeriesKey>,
) -> Grouping<'_> {
    let freshness = freshness(|| quotes.iter().map(|changes| &*changes.quote));
    let reference = match freshness {
        Freshness::Fresh => now,
        Freshness::Stale(newest) => newest,
    };
    let is_old = |changes: &QuoteChanges| {
        let quote = &changes.quote;
        let age_us = reference.micros_since(quote.run.last_observed_time);
        quote.is_archived || (quote.state == RateState::Stale && age_us > OLD_AFTER_US)
    };
    let mut by_pair: BTreeMap<Pair, [Vec<&QuoteChanges>; 2]> = BTreeMap::new();
    let (mut old, mut archived) = (Vec::new(), Vec::new());
    for changes in quotes {
        let [series, old_of_pair] = by_pair.entry(usual_direction(changes.quote.series.pair)).or_default();
        if is_old(changes) {
            old_of_pair.push(changes);
            if changes.quote.is_archived { &mut archived } else { &mut old }.push(changes);
        } else {
            series.push(changes);
        }
    }
    old.extend(archived);
    let (mut usd, mut other) = (Vec::new(), Vec::new());
    for (pair, [series, old]) in by_pair {
        let Some(first) = series.first() else { continue };
        let chosen = choose(pair).and_then(|key| series.iter().find(|changes| changes.quote.series == key));
        let group = Group { pair, chosen: chosen.unwrap_or(first), series, old };
        if pair.quote() == Currency::USD { &mut usd } else { &mut other }.push(group);
    }
    Grouping { usd, other, old, freshness }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::query::latest_tests::{key, quote};

    const DAY: i64 = Timestamp::DAY_US;

    fn changes(pair: &str, source: &str, days_ago: i64, state: RateState, is_archived: bool) -> QuoteChanges {
        let mut quote = LatestQuote { state, is_archived, ..(*quote(pair, source, 1)).clone() };
        quote.run.last_observed_time = Timestamp::from_micros(-days_ago * DAY);
        QuoteChanges { quote: Arc::new(quote), since_move: None, silent_before_move: None, over: Vec::new() }
    }

    /// Describes a grouping: each group with its chosen series in brackets, then the old series.
    fn describe(grouping: &Grouping<'_>) -> String {
        let name = |changes: &QuoteChanges| format!("{} {}", changes.quote.series.pair, changes.quote.series.source);
        let groups = |groups: &[Group<'_>]| {
            let group = |group: &Group<'_>| {
                let series: Vec<String> = group.series.iter().map(|changes| name(changes)).collect();
                format!("[{}] {}", name(group.chosen), series.join(", "))
            };
            groups.iter().map(group).collect::<Vec<_>>().join("; ")
        };
        let old: Vec<String> = grouping.old.iter().map(|changes| name(changes)).collect();
        format!("{} | {} | {}", groups(&grouping.usd), groups(&grouping.other), old.join(", "))
    }

    #[test]
    fn each_series_is_in_one_place() {
        use RateState::{Flat, Moving, Stale};
        let check = |quotes: &[QuoteChanges], chosen: Option<(&str, &str)>, expect: &str, freshness: Freshness| {
            let choose = |_| chosen.map(|(pair, source)| key(pair, source));
            let grouping = arrange(quotes, Timestamp::from_micros(0), choose);
            assert_eq!((describe(&grouping).as_str(), grouping.freshness), (expect, freshness));
        };
        let fresh = Freshness::Fresh;
        let series = [
            changes("KGS/KZT", "nbk", 0, Flat, false),
            changes("KGS/USD", "timesca", 0, Moving, false),
            changes("KGS/USD", "tymesca", 0, Moving, true),
            changes("KZT/KGS", "nbkr", 0, Flat, false),
            changes("USD/KGS", "nbkr", 1, Flat, false),
            changes("USD/UZS", "cbu", 3_000, Stale, false),
            changes("UZS/USD", "timesca", 2, Stale, false),
        ];
        check(
            &series,
            Some(("USD/KGS", "nbkr")),
            "[USD/KGS nbkr] KGS/USD timesca, USD/KGS nbkr; [UZS/USD timesca] UZS/USD timesca | \
             [KGS/KZT nbk] KGS/KZT nbk, KZT/KGS nbkr | USD/UZS cbu, KGS/USD tymesca",
            fresh,
        );
        // An old series that the rule picks is not shown as current.
        let series = [changes("USD/UZS", "cbu", 3_000, Stale, false), changes("UZS/USD", "timesca", 2, Flat, false)];
        check(&series, Some(("USD/UZS", "cbu")), "[UZS/USD timesca] UZS/USD timesca |  | USD/UZS cbu", fresh);
        // Every rate is stale: the month counts from the newest observation.
        let series = [changes("KGS/USD", "timesca", 350, Stale, false), changes("USD/KGS", "nbkr", 381, Stale, false)];
        let newest = Freshness::Stale(Timestamp::from_micros(-350 * DAY));
        check(&series, None, "[KGS/USD timesca] KGS/USD timesca |  | USD/KGS nbkr", newest);
        // Only archived sources, and nothing.
        let newest = Freshness::Fresh;
        check(&[], None, " |  | ", newest);
        let newest = Freshness::Stale(Timestamp::from_micros(-5 * DAY));
        check(&[changes("KGS/USD", "tymesca", 5, Flat, true)], None, " |  | KGS/USD tymesca", newest);
    }

    #[test]
    fn group_is_named_by_the_usual_direction() {
        let check = |pair: &str, expect: &str| assert_eq!(usual_direction(key(pair, "x").pair).to_string(), expect);
        check("KGS/USD", "KGS/USD");
        check("USD/KGS", "KGS/USD");
        check("KZT/KGS", "KGS/KZT");
        check("KGS/KZT", "KGS/KZT");
    }
}
