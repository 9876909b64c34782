//! The filter of series, and the latest quotes that changed after a commit. Only memory is read.

use std::sync::Arc;

use crate::domain::{Pair, SeriesKey, Source};
use crate::latest_quotes::{LatestQuote, LatestQuotes};

/// A filter of series by pair and source.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct SeriesFilter {
    /// The pairs to include. Empty means all pairs.
    pub pairs: Vec<Pair>,
    /// The sources to include. Empty means all sources.
    pub sources: Vec<Source>,
}

impl SeriesFilter {
    /// Returns true if the filter matches every series.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.sources.is_empty()
    }

    /// Returns true if the filter matches the series `key`.
    pub fn matches(&self, key: &SeriesKey) -> bool {
        (self.pairs.is_empty() || self.pairs.contains(&key.pair))
            && (self.sources.is_empty() || self.sources.contains(&key.source))
    }
}

/// Returns the quotes of `latest_quotes` that changed after the commit `since_sequence`, sorted by series. A quote also
/// changes if a new observation confirms its rate. If `since_sequence` is zero, returns all quotes. If `since_sequence`
/// is above the sequence of `latest_quotes`, the client has read another store, so all quotes are returned as well.
pub fn latest<'a>(
    latest_quotes: &'a LatestQuotes,
    filter: &'a SeriesFilter,
    since_sequence: u64,
) -> impl Iterator<Item = &'a Arc<LatestQuote>> {
    let since = if since_sequence > latest_quotes.sequence { 0 } else { since_sequence };
    latest_quotes
        .quotes
        .iter()
        .filter(move |quote| (since == 0 || quote.changed_sequence > since) && filter.matches(&quote.series))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::{CurrencySet, PublishedValue, Rate, Run, Timestamp};
    use crate::latest_quotes::RateState;

    pub(crate) fn key(pair: &str, source: &str) -> SeriesKey {
        SeriesKey {
            pair: Pair::parse(pair, &CurrencySet::central_asia()).unwrap(),
            source: Source::parse(source).unwrap(),
        }
    }

    pub(crate) fn quote(pair: &str, source: &str, changed_sequence: u64) -> Arc<LatestQuote> {
        let value = PublishedValue { rate: Rate::parse("0.01144").unwrap(), reported_change: None };
        let time = Timestamp::from_micros(1_000_000);
        Arc::new(LatestQuote {
            series: key(pair, source),
            run: Run::single(time, value, time),
            state: RateState::Flat,
            is_archived: false,
            stale_time: Timestamp::from_micros(9_000_000),
            moved_time: None,
            previous_rate: None,
            changed_sequence,
        })
    }

    #[test]
    fn latest_returns_quotes_changed_since_the_sequence() {
        let latest_quotes = LatestQuotes {
            sequence: 7,
            quotes: vec![quote("KGS/USD", "nbkr", 3), quote("KGS/USD", "timesca", 7), quote("KZT/USD", "timesca", 5)],
            ..LatestQuotes::default()
        };
        let check = |pairs: &[&str], sources: &[&str], since: u64, expect: &[u64]| {
            let filter = SeriesFilter {
                pairs: pairs.iter().map(|pair| key(pair, "x").pair).collect(),
                sources: sources.iter().map(|source| Source::parse(source).unwrap()).collect(),
            };
            let found: Vec<u64> = latest(&latest_quotes, &filter, since).map(|quote| quote.changed_sequence).collect();
            assert_eq!(found, expect);
        };
        check(&[], &[], 0, &[3, 7, 5]);
        check(&[], &[], 2, &[3, 7, 5]);
        check(&[], &[], 3, &[7, 5]);
        check(&[], &[], 6, &[7]);
        check(&[], &[], 7, &[]);
        // A sequence above that of the store comes from another store, so all quotes are returned.
        check(&[], &[], 8, &[3, 7, 5]);
        check(&["KGS/USD"], &[], 0, &[3, 7]);
        check(&["KGS/USD", "KZT/USD"], &["timesca"], 0, &[7, 5]);
        check(&[], &["nbkr"], 3, &[]);
        // A valid pair without a series is no error.
        check(&["TMT/USD"], &[], 0, &[]);
    }
}
