//! Pages of the gaps of series. An *instant* is an observed time of a series. A *gap* is a long period between two
//! neighbouring instants of a series, or between the last instant and now. A *stretch* is a part of a gap that has one
//! reason. The reasons come from the polls of the source.
//!
//! **Invariants**: gaps come from the newest commit. Open gaps end at the current time, which is the same for all pages
//! of a list. A page ends after a bounded amount of work, even if the page has no gap, and the next page continues at
//! that point.

mod newest_first;

use std::sync::Arc;

use super::as_of::AsOf;
use super::latest::SeriesFilter;
use super::need::Need;
use super::resolve::list_available;
use super::{Answer, QueryError, Range, Reader, check_cancelled};
use crate::analysis::{GapStretch, ReasonLengths, split_gap};
use crate::domain::{Pair, ScanOrder, SeriesKey, Source, Timestamp};
use crate::store::SeriesView;

/// A page ends when at least this number of instants has been read, which takes about one second.
const PAGE_INSTANTS_MAX: usize = 20_000_000;
/// A page ends when its gaps have at least this number of stretches. Only the last gap can exceed the number.
const PAGE_STRETCHES_MAX: usize = 50_000;

/// The limits of the work for one page.
#[derive(Clone, Copy, Debug)]
struct PageBudget {
    instants_max: usize,
    stretches_max: usize,
}

/// A request for a page of the gaps of one or more series.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GapsRequest {
    /// The published pair; derived pairs have no gaps. `None` means every pair.
    pub pair: Option<Pair>,
    /// The source. If the source is `None` and the pair is given, the choice rule selects it. If both are `None`, every
    /// source is used.
    pub source: Option<Source>,
    /// The range that a gap must overlap.
    pub range: Range,
    /// The minimum length of a gap, exclusive, microseconds. `None` means the collapse window of each series.
    pub minimum_us: Option<i64>,
    /// The order of the gaps: by series and then by time, or the newest first across all series.
    pub order: ScanOrder,
    /// The position after which the page starts. `None` means the first page.
    pub after: Option<GapCursor>,
    /// The maximum number of gaps, at least one.
    pub limit: usize,
}

/// The position at which the next page of a list of gaps starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GapCursor {
    /// The id of the series in the store.
    pub series: u32,
    /// The instant of the series at which the next gap may start. In descending order, gaps that start at this instant
    /// follow only in the series after `series`.
    pub from: Timestamp,
    /// The current time of the first page.
    pub now: Timestamp,
}

/// A period in which a series has no observation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The series of the gap.
    pub series: SeriesKey,
    /// The last observation before the gap.
    pub start: Timestamp,
    /// The first observation after the gap, or now for an open gap.
    pub end: Timestamp,
    /// Whether the series has no observation after the gap.
    pub is_open: bool,
    /// The stretches of the gap up to now, in order of time.
    pub stretches: Vec<GapStretch>,
    /// The time that each reason covers.
    pub lengths: ReasonLengths,
}

/// A page of a list of gaps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GapsPage {
    /// The gaps, in the requested order.
    pub gaps: Vec<Gap>,
    /// The cursor of the next page; `None` on the last page.
    pub next: Option<GapCursor>,
}

impl Reader {
    /// Returns a page of gaps.
    ///
    /// # Errors
    /// `UnknownSeries`, `UnknownSource`, `OnlyInverse` or `Ambiguous` if no published series can be chosen; `Cancelled`
    /// after cancellation; `Store` if reading the store fails.
    pub fn gaps(&self, request: &GapsRequest) -> Result<Answer<GapsPage>, QueryError> {
        self.gaps_within(request, PageBudget { instants_max: PAGE_INSTANTS_MAX, stretches_max: PAGE_STRETCHES_MAX })
    }

    fn gaps_within(&self, request: &GapsRequest, budget: PageBudget) -> Result<Answer<GapsPage>, QueryError> {
        let as_of = self.as_of(None)?;
        let now = request.after.map_or(as_of.now, |cursor| cursor.now);
        let series = self.series_with_gaps(&as_of, request)?;
        let (gaps, instant_count, stretch_count) = (Vec::new(), 0, 0);
        let mut search = GapSearch { reader: self, request, budget, now, gaps, instant_count, stretch_count };
        if request.order == ScanOrder::Descending {
            let next = search.find_newest_first(&series)?;
            return Ok(Answer { commit: as_of.commit, body: GapsPage { gaps: search.gaps, next } });
        }
        // A series is never removed, so the series of a cursor still exists.
        let is_before_cursor =
            |series: &&Arc<SeriesView>| request.after.is_some_and(|cursor| cursor.series != series.id());
        let mut from = request.after.map(|cursor| cursor.from);
        for series in series.iter().skip_while(is_before_cursor) {
            if let Some(from) = search.find_gaps(series, from.take())? {
                let next = Some(GapCursor { series: series.id(), from, now });
                return Ok(Answer { commit: as_of.commit, body: GapsPage { gaps: search.gaps, next } });
            }
        }
        Ok(Answer { commit: as_of.commit, body: GapsPage { gaps: search.gaps, next: None } })
    }

    fn series_with_gaps(&self, as_of: &AsOf, request: &GapsRequest) -> Result<Vec<Arc<SeriesView>>, QueryError> {
        if let Some(pair) = request.pair {
            // All pages of a list read the same series, even if another source publishes the pair in the meantime.
            let series_of_cursor =
                request.after.and_then(|cursor| self.view.series().find(|one| one.id() == cursor.series));
            if let Some(series) = series_of_cursor.filter(|series| series.key().pair == pair) {
                return Ok(vec![Arc::clone(series)]);
            }
            return Ok(vec![self.resolve_published(as_of, pair, request.source.as_ref(), &Need::at(as_of.known()))?]);
        }
        let filter = SeriesFilter { pairs: Vec::new(), sources: request.source.iter().cloned().collect() };
        let series: Vec<_> = self.view.series().filter(|series| filter.matches(series.key())).map(Arc::clone).collect();
        match &request.source {
            Some(wanted) if series.is_empty() => {
                let available = list_available(&self.known_keys(as_of, |_| true));
                Err(QueryError::UnknownSource { wanted: wanted.clone(), available })
            }
            Some(_) | None => Ok(series),
        }
    }
}

/// The search for the gaps of one page.
struct GapSearch<'a> {
    reader: &'a Reader,
    request: &'a GapsRequest,
    budget: PageBudget,
    now: Timestamp,
    gaps: Vec<Gap>,
    instant_count: usize,
    stretch_count: usize,
}

impl GapSearch<'_> {
    /// Searches one series for gaps, starting at the instant `from` of the series. If the page is full, returns the
    /// instant at which the next page starts.
    fn find_gaps(
        &mut self,
        series: &Arc<SeriesView>,
        from: Option<Timestamp>,
    ) -> Result<Option<Timestamp>, QueryError> {
        let (start, end) = (self.request.range.start(), self.request.range.end());
        if start >= end {
            return Ok(None);
        }
        // A gap that overlaps the range may start at the last instant before the range.
        let from = match from {
            Some(from) => from,
            None => series.instant_at(start)?.unwrap_or(start),
        };
        let mut last: Option<Timestamp> = None;
        for piece in series.instants(from, Timestamp::from_micros(i64::MAX), ScanOrder::Ascending) {
            check_cancelled(&self.reader.cancel)?;
            let piece = piece?;
            self.instant_count += piece.len();
            for instant in piece {
                if let Some(before) = last.replace(instant)
                    && !self.add_if_gap(series, before, Some(instant))
                {
                    return Ok(Some(before));
                }
                if instant >= end.min(self.now) {
                    return Ok(None);
                }
            }
            // The next page starts at the last instant of this page. So a page must read beyond its first instant, or
            // the list would never end.
            if self.instant_count >= self.budget.instants_max && last > Some(from) {
                return Ok(last);
            }
        }
        match last {
            Some(last) if !self.add_if_gap(series, last, None) => Ok(Some(last)),
            Some(_) | None => Ok(None),
        }
    }

    /// Adds the gap from the instant `start` to the `next` instant, or to now if `next` is `None`. Does nothing if the
    /// time between them is not a requested gap. Returns false if the page has no room for the gap.
    fn add_if_gap(&mut self, series: &Arc<SeriesView>, start: Timestamp, next: Option<Timestamp>) -> bool {
        if !self.is_requested(series, start, next) {
            return true;
        }
        if self.is_full() {
            return false;
        }
        self.add(series, start, next);
        true
    }

    /// Returns true if the time from `start` to `next`, or to now if `next` is `None`, is a requested gap.
    fn is_requested(&self, series: &SeriesView, start: Timestamp, next: Option<Timestamp>) -> bool {
        let end = next.unwrap_or(self.now);
        let minimum_us = self.request.minimum_us.unwrap_or_else(|| series.collapse_window_us());
        let overlaps = start < self.request.range.end() && end > self.request.range.start();
        // A gap that starts at or after the current time has no stretches yet and is left out.
        overlaps && start < self.now && end.micros_since(start) > minimum_us
    }

    /// Returns true if the page has no room for another gap.
    fn is_full(&self) -> bool {
        self.gaps.len() >= self.request.limit || self.stretch_count >= self.budget.stretches_max
    }

    /// Adds the gap from `start` to `next`, or to now if `next` is `None`.
    fn add(&mut self, series: &SeriesView, start: Timestamp, next: Option<Timestamp>) {
        let end = next.unwrap_or(self.now);
        let polls = self.reader.view.polls(&series.key().source);
        let spans = polls.into_iter().flat_map(|polls| polls.spans_after(start));
        let stretches = split_gap(start, end.min(self.now), spans);
        self.stretch_count += stretches.len();
        let lengths = ReasonLengths::of(&stretches);
        self.gaps.push(Gap { series: series.key().clone(), start, end, is_open: next.is_none(), stretches, lengths });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{CurrencySet, Health, Poll, PublishedValue, Rate};
    use crate::latest_quotes::StateRules;
    use crate::store::{Store, StoreOptions};

    const WINDOW_S: i64 = 5;
    const NOW_S: i64 = 100;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(1_765_152_000_000_000 + second * Timestamp::SECOND_US)
    }

    fn second(time: Timestamp) -> i64 {
        time.micros_since(at(0)) / Timestamp::SECOND_US
    }

    fn state_rules() -> StateRules {
        StateRules::uniform(Timestamp::DAY_US, Timestamp::DAY_US)
    }

    /// Creates a store with a series for each set of seconds. All series have one source, which is polled every ten
    /// seconds.
    fn reader(directory: &tempfile::TempDir, seconds: &[BTreeSet<i64>]) -> Reader {
        let options = StoreOptions {
            collapse_window_default_us: WINDOW_S * Timestamp::SECOND_US,
            state_rules: state_rules(),
            ..StoreOptions::of_test(directory.path())
        };
        let mut store = Store::open(options, at(NOW_S)).unwrap();
        let mut transaction = store.begin(at(NOW_S));
        let source = Source::parse("nbt").unwrap();
        for (base, seconds) in ["TJS", "KZT", "UZS"].into_iter().zip(seconds) {
            let pair = Pair::parse(&format!("{base}/USD"), &CurrencySet::central_asia()).unwrap();
            let key = SeriesKey { pair, source: source.clone() };
            for at_second in seconds {
                let value = PublishedValue { rate: Rate::parse("0.1").unwrap(), reported_change: None };
                let series = transaction.series(&key).unwrap();
                transaction.upsert(series, at(*at_second), value, false).unwrap();
            }
        }
        for ten in 0..NOW_S / 10 {
            let health = Health::ALL[usize::try_from(ten % 4).unwrap()];
            let (time, covered_until) = (at(ten * 10), at(ten * 10 + 10));
            transaction.record_poll(&Poll { source: source.clone(), time, covered_until, health }).unwrap();
        }
        transaction.commit().unwrap();
        Reader::new(
            Arc::new(store.view()),
            at(NOW_S),
            Arc::new(state_rules()),
            tokio_util::sync::CancellationToken::new(),
        )
    }

    /// Base currency, start second, end second, and whether the gap is open.
    type GapRow = (String, i64, i64, bool);

    fn gap_rows(gaps: &[Gap]) -> Vec<GapRow> {
        let row = |gap: &Gap| (gap.series.pair.base().to_string(), second(gap.start), second(gap.end), gap.is_open);
        gaps.iter().map(row).collect()
    }

    /// The naive model: checks every pair of neighbouring instants.
    fn naive(seconds: &[BTreeSet<i64>], range: (i64, i64), minimum_s: i64) -> Vec<GapRow> {
        let mut found = Vec::new();
        let mut named: Vec<_> = ["TJS", "KZT", "UZS"].into_iter().zip(seconds).collect();
        named.sort_by_key(|(base, _)| *base);
        for (base, seconds) in named {
            let mut seconds: Vec<i64> = seconds.iter().copied().collect();
            let is_open = seconds.last().is_some_and(|last| *last < NOW_S);
            seconds.extend(is_open.then_some(NOW_S));
            for (index, ends) in seconds.windows(2).enumerate() {
                let (start, end) = (ends[0], ends[1]);
                let overlaps = start < range.1 && end > range.0 && range.0 < range.1;
                if overlaps && start < NOW_S && end - start > minimum_s {
                    found.push((base.to_owned(), start, end, is_open && index + 2 == seconds.len()));
                }
            }
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn gaps_equal_those_of_the_naive_model_for_every_page_size(
            seconds in proptest::collection::vec(proptest::collection::btree_set(0_i64..120, 1..14), 1..4),
            range in (-10_i64..130, 0_i64..140),
            minimum_s in proptest::option::of(0_i64..20),
            (limit, instants_max, stretches_max) in (1_usize..8, 1_usize..12, 1_usize..6),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let reader = reader(&directory, &seconds);
            let range = (range.0, range.0 + range.1);
            let mut request = GapsRequest {
                pair: None,
                source: None,
                range: Range::new(Some(at(range.0)), Some(at(range.1))).unwrap(),
                minimum_us: minimum_s.map(|seconds| seconds * Timestamp::SECOND_US),
                order: ScanOrder::Ascending,
                after: None,
                limit: 1_000,
            };
            let whole = reader.gaps(&request).unwrap().body;
            prop_assert_eq!(gap_rows(&whole.gaps), naive(&seconds, range, minimum_s.unwrap_or(WINDOW_S)));
            prop_assert_eq!(whole.next, None);
            let mut newest_first = whole.gaps.clone();
            // Sorting is stable: gaps that start together stay in the order of their series.
            newest_first.sort_by_key(|gap| std::cmp::Reverse(gap.start));
            for (order, expect) in [(ScanOrder::Ascending, whole.gaps), (ScanOrder::Descending, newest_first)] {
                request = GapsRequest { order, after: None, limit, ..request };
                let mut paged = Vec::new();
                for _ in 0..200 {
                    let page = reader.gaps_within(&request, PageBudget { instants_max, stretches_max }).unwrap().body;
                    prop_assert!(page.gaps.len() <= limit);
                    paged.extend(page.gaps);
                    request.after = page.next;
                    if page.next.is_none() {
                        break;
                    }
                }
                prop_assert_eq!(request.after, None, "the list of pages ends");
                prop_assert_eq!(paged, expect);
            }
        }
    }
}
