//! Limits on new series and new sources, by caller, and the series that are reserved for configured sources.
//!
//! **Invariant**: a configured source is limited only by the total number of series. All other sources together have at
//! most the series that are not reserved, and one caller creates only a limited number of them in a day of UTC.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::RefusalReason;
use crate::domain::{SeriesKey, Source, Timestamp};
use crate::store::WriteTransaction;

/// Maximum number of callers whose new series are counted one by one in a day. All other callers share one count.
const COUNTED_CALLERS_MAX: usize = 10_000;

/// The limits on new series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewSeriesLimits {
    /// Maximum number of new series of one caller in a day of UTC.
    pub caller_series_max: usize,
    /// Maximum number of new sources of one caller in a day of UTC.
    pub caller_sources_max: usize,
    /// Number of series that only configured sources ([`crate::store::StoreOptions::configured_sources`]) can take.
    pub reserved_series: usize,
}

impl Default for NewSeriesLimits {
    /// Returns limits under which only the total number of series counts.
    fn default() -> Self {
        Self { caller_series_max: usize::MAX, caller_sources_max: usize::MAX, reserved_series: 0 }
    }
}

/// Counts of new series and new sources.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Created {
    series: usize,
    sources: usize,
}

/// What each caller has created today. The counts are in memory: a restart of the server resets them.
pub(super) struct NewSeriesCounts {
    limits: NewSeriesLimits,
    /// Start of the day of the counts.
    day: Timestamp,
    by_caller: HashMap<Arc<str>, Created>,
    /// The count that the callers beyond [`COUNTED_CALLERS_MAX`] share.
    shared: Created,
}

impl NewSeriesCounts {
    pub(super) fn new(limits: NewSeriesLimits) -> Self {
        Self { limits, day: Timestamp::MIN, by_caller: HashMap::new(), shared: Created::default() }
    }

    /// Returns what a batch may still create at `now`. Without a caller, only the reserved series count.
    pub(super) fn allowance(&mut self, caller: Option<Arc<str>>, now: Timestamp) -> Allowance {
        let day = Timestamp::from_micros(now.micros() - now.micros().rem_euclid(Timestamp::DAY_US));
        if day != self.day {
            self.day = day;
            self.by_caller.clear();
            self.shared = Created::default();
        }
        let created = caller.as_ref().map(|caller| {
            let is_shared = self.by_caller.len() >= COUNTED_CALLERS_MAX;
            self.by_caller.get(caller).copied().unwrap_or(if is_shared { self.shared } else { Created::default() })
        });
        Allowance {
            limits: self.limits,
            caller,
            created: created.unwrap_or_default(),
            day,
            has_created: false,
            known: None,
        }
    }

    /// Adds what a batch has created to the counts.
    pub(super) fn keep(&mut self, allowance: &Allowance) {
        let Allowance { caller: Some(caller), created, has_created: true, .. } = allowance else { return };
        if self.by_caller.len() >= COUNTED_CALLERS_MAX && !self.by_caller.contains_key(caller) {
            self.shared = *created;
        } else {
            self.by_caller.insert(Arc::clone(caller), *created);
        }
    }
}

/// What one batch may still create.
pub(super) struct Allowance {
    limits: NewSeriesLimits,
    caller: Option<Arc<str>>,
    /// What the caller has created today, this batch included.
    created: Created,
    day: Timestamp,
    has_created: bool,
    /// The state of the store, this batch included; read at the first new series.
    known: Option<Known>,
}

/// What a store has.
struct Known {
    sources: HashSet<Source>,
    /// Number of series of sources that are not configured.
    open_series: usize,
}

impl Allowance {
    /// Checks that the series exists or may be created. Returns true if the series is limited, so that [`Self::count`]
    /// must count it once it is created. If the store has no room for any series, the check passes and the store refuses
    /// the series.
    ///
    /// # Errors
    /// The reason and the message of the refusal.
    pub(super) fn check(
        &mut self,
        transaction: &mut WriteTransaction<'_>,
        key: &SeriesKey,
    ) -> Result<bool, (RefusalReason, String)> {
        if transaction.has_series(key) || transaction.is_configured(&key.source) {
            return Ok(false);
        }
        let (existing, total_max) = transaction.series_count();
        if existing >= total_max {
            return Ok(false);
        }
        let known = self.known.get_or_insert_with(|| Known {
            sources: transaction.all_keys().map(|key| key.source.clone()).collect(),
            open_series: transaction.counted_keys().filter(|key| !transaction.is_configured(&key.source)).count(),
        });
        if known.open_series >= total_max.saturating_sub(self.limits.reserved_series) {
            let reserved = self.limits.reserved_series;
            let message = format!(
                "{key} would be a new series, and {reserved} of {total_max} series are reserved for configured sources; \
                 name the source in the configuration file, archive sources that are mistaken, or raise --series-max"
            );
            return Err((RefusalReason::TooManySeries, message));
        }
        let Some(caller) = &self.caller else { return Ok(true) };
        let has_source = known.sources.contains(&key.source);
        let limits = [
            (self.created.series, self.limits.caller_series_max, "series", "--caller-series", true),
            (self.created.sources, self.limits.caller_sources_max, "sources", "--caller-sources", !has_source),
        ];
        for (count, max, what, flag, applies) in limits {
            if applies && count >= max {
                let tomorrow = self.day.saturating_add_us(Timestamp::DAY_US);
                let message = format!(
                    "{key} would be a new series, and {caller} has created {max} {what} today, which is the limit of \
                     {flag}; send the tick again after {tomorrow}, name the source in the configuration file, or raise \
                     {flag}"
                );
                return Err((RefusalReason::CallerLimit, message));
            }
        }
        Ok(true)
    }

    /// Counts a limited series that was created after [`Self::check`].
    pub(super) fn count(&mut self, key: &SeriesKey) {
        let Some(known) = &mut self.known else { return };
        known.open_series += 1;
        self.has_created = true;
        self.created.series += 1;
        self.created.sources += usize::from(known.sources.insert(key.source.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::domain::{CurrencySet, Pair};
    use crate::store::{Store, StoreOptions};

    fn key(pair: &str, source: &str) -> SeriesKey {
        let pair = Pair::parse(pair, &CurrencySet::central_asia()).unwrap();
        SeriesKey { pair, source: Source::parse(source).unwrap() }
    }

    /// The options of a store with one configured source.
    fn options(directory: &Path) -> StoreOptions {
        let configured_sources = Arc::new([key("KGS/USD", "nbkr").source].into());
        StoreOptions { configured_sources, ..StoreOptions::of_test(directory) }
    }

    fn caller(text: &str) -> Arc<str> {
        text.into()
    }

    /// Creates a series as a batch of `caller` does. Returns the reason of the refusal.
    fn create(
        counts: &mut NewSeriesCounts,
        transaction: &mut WriteTransaction<'_>,
        (caller, now): (Option<Arc<str>>, Timestamp),
        key: &SeriesKey,
    ) -> Result<(), RefusalReason> {
        let mut allowance = counts.allowance(caller, now);
        let is_limited = allowance.check(transaction, key).map_err(|(reason, _)| reason)?;
        transaction.series(key).map_err(|_| RefusalReason::TooManySeries)?;
        if is_limited {
            allowance.count(key);
        }
        counts.keep(&allowance);
        Ok(())
    }

    #[test]
    fn caller_creates_few_series_and_sources_in_a_day() {
        let directory = tempfile::tempdir().unwrap();
        let today = Timestamp::from_micros(5 * Timestamp::DAY_US + 7);
        let mut store = Store::open(options(directory.path()), today).unwrap();
        let mut transaction = store.begin(today);
        let limits = NewSeriesLimits { caller_series_max: 3, caller_sources_max: 2, reserved_series: 0 };
        let mut counts = NewSeriesCounts::new(limits);
        let mut check = |who: Option<&str>, now, pair, source, expect| {
            let created = create(&mut counts, &mut transaction, (who.map(caller), now), &key(pair, source));
            assert_eq!(created, expect, "{who:?} {pair} {source}");
        };
        let (one, two) = (Some("the address 192.0.2.1"), Some("the token 'feeder'"));
        check(one, today, "KGS/USD", "a", Ok(()));
        check(one, today, "KGS/USD", "b", Ok(()));
        check(one, today, "KGS/USD", "c", Err(RefusalReason::CallerLimit));
        check(one, today, "KZT/USD", "b", Ok(()));
        check(one, today, "TJS/USD", "b", Err(RefusalReason::CallerLimit));
        check(one, today, "KGS/USD", "a", Ok(()));
        check(one, today, "KGS/USD", "nbkr", Ok(()));
        check(two, today, "KGS/USD", "c", Ok(()));
        check(two, today, "KGS/USD", "d", Ok(()));
        check(two, today, "KGS/USD", "e", Err(RefusalReason::CallerLimit));
        check(None, today, "KGS/USD", "e", Ok(()));
        check(one, today.saturating_add_us(Timestamp::DAY_US), "KGS/USD", "f", Ok(()));
    }

    #[test]
    fn callers_beyond_the_counted_ones_share_a_count() {
        let directory = tempfile::tempdir().unwrap();
        let today = Timestamp::from_micros(0);
        let mut store = Store::open(StoreOptions::of_test(directory.path()), today).unwrap();
        let mut transaction = store.begin(today);
        let mut counts = NewSeriesCounts::new(NewSeriesLimits { caller_sources_max: 1, ..NewSeriesLimits::default() });
        counts.allowance(None, today);
        counts.by_caller.extend((0..COUNTED_CALLERS_MAX).map(|number| (number.to_string().into(), Created::default())));
        let mut check = |who: &str, source, expect| {
            assert_eq!(
                create(&mut counts, &mut transaction, (Some(caller(who)), today), &key("KGS/USD", source)),
                expect
            );
        };
        check("one", "a", Ok(()));
        check("two", "b", Err(RefusalReason::CallerLimit));
        check("1", "b", Ok(()));
    }

    #[test]
    fn reserved_series_are_for_configured_sources() {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::from_micros(0);
        let options = StoreOptions { series_count_max: 4, ..options(directory.path()) };
        let mut store = Store::open(options, now).unwrap();
        let mut transaction = store.begin(now);
        let limits = NewSeriesLimits { reserved_series: 2, ..NewSeriesLimits::default() };
        let mut counts = NewSeriesCounts::new(limits);
        let mut check = |pair, source, expect| {
            assert_eq!(
                create(&mut counts, &mut transaction, (None, now), &key(pair, source)),
                expect,
                "{pair} {source}"
            );
        };
        check("USD/KGS", "nbkr", Ok(()));
        check("USD/KGS", "a", Ok(()));
        check("USD/KGS", "b", Ok(()));
        check("USD/KGS", "c", Err(RefusalReason::TooManySeries));
        check("KZT/KGS", "nbkr", Ok(()));
        check("TJS/KGS", "nbkr", Err(RefusalReason::TooManySeries));
    }
}
