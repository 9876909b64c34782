//! Gaps: where the timeline of a series has no instant for long, and why, going by what polls of its source found.
//!
//! **Invariants**: gaps are those of the newest commit; where they end for now, all pages of a list have one now. A page
//! ends after so much work, found or not, and the next one goes on from there.

use std::sync::Arc;

use super::as_of::AsOf;
use super::latest::SeriesFilter;
use super::resolve::listing;
use super::{Answer, QueryError, Range, Reader, check_cancelled};
use crate::analysis::{GapStretch, ReasonLengths, split_gap};
use crate::domain::{Pair, SeriesKey, Source, Timestamp};
use crate::store::SeriesView;

/// Instants that are read for one page: a second's work.
const PAGE_INSTANTS_MAX: usize = 20_000_000;
/// Stretches of the gaps of one page, beyond those of its last gap.
const PAGE_STRETCHES_MAX: usize = 50_000;

/// How much a page may cost.
#[derive(Clone, Copy, Debug)]
struct PageBudget {
    instants_max: usize,
    stretches_max: usize,
}

/// Asks for the gaps of a series, or of all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GapsRequest {
    /// Published, not derived; none for every pair.
    pub pair: Option<Pair>,
    /// From whom; none where a single source has the pair, or for every source.
    pub source: Option<Source>,
    /// What gaps are to overlap.
    pub range: Range,
    /// Gaps longer than this, microseconds; none for the collapse window of each series.
    pub minimum_us: Option<i64>,
    /// Where to go on.
    pub after: Option<GapCursor>,
    /// At most so many gaps, at least one.
    pub limit: usize,
}

/// Where a list of gaps goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GapCursor {
    /// The series, by the number under which the store keeps it.
    pub series: u32,
    /// The instant of it at which the next gap may begin.
    pub from: Timestamp,
    /// The now of the first page.
    pub now: Timestamp,
}

/// A time in which a series was not observed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// Whose.
    pub series: SeriesKey,
    /// The last observation before it.
    pub start: Timestamp,
    /// The first observation after it; now if there is none.
    pub end: Timestamp,
    /// Whether nothing was observed since.
    pub is_open: bool,
    /// Up to now, in order.
    pub stretches: Vec<GapStretch>,
    /// How much of it each reason covers.
    pub lengths: ReasonLengths,
}

/// A part of a list of gaps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GapsPage {
    /// In order of series, then of time.
    pub gaps: Vec<Gap>,
    /// Where the next page goes on; none on the last.
    pub next: Option<GapCursor>,
}

impl Reader {
    /// A page of gaps.
    ///
    /// # Errors
    /// No such published series, the caller gone, or the store's.
    pub fn gaps(&self, request: &GapsRequest) -> Result<Answer<GapsPage>, QueryError> {
        self.gaps_within(request, PageBudget { instants_max: PAGE_INSTANTS_MAX, stretches_max: PAGE_STRETCHES_MAX })
    }

    fn gaps_within(&self, request: &GapsRequest, budget: PageBudget) -> Result<Answer<GapsPage>, QueryError> {
        let as_of = self.as_of(None)?;
        let now = request.after.map_or(as_of.now, |cursor| cursor.now);
        let series = self.series_with_gaps(&as_of, request)?;
        // A series never goes away, so that the one of a cursor is there still.
        let begun = |series: &&Arc<SeriesView>| request.after.is_some_and(|cursor| cursor.series != series.id());
        let mut search = GapSearch { reader: self, request, budget, now, gaps: Vec::new(), instants: 0, stretches: 0 };
        let mut from = request.after.map(|cursor| cursor.from);
        for series in series.iter().skip_while(begun) {
            if let Some(from) = search.series(series, from.take())? {
                let next = Some(GapCursor { series: series.id(), from, now });
                return Ok(Answer { commit: as_of.commit, body: GapsPage { gaps: search.gaps, next } });
            }
        }
        Ok(Answer { commit: as_of.commit, body: GapsPage { gaps: search.gaps, next: None } })
    }

    fn series_with_gaps(&self, as_of: &AsOf, request: &GapsRequest) -> Result<Vec<Arc<SeriesView>>, QueryError> {
        if let Some(pair) = request.pair {
            // A list goes on with the series that it began with, whoever else publishes the pair since.
            let begun = request.after.and_then(|cursor| self.view.series().find(|one| one.id() == cursor.series));
            if let Some(series) = begun.filter(|series| series.key().pair == pair) {
                return Ok(vec![Arc::clone(series)]);
            }
            return Ok(vec![self.resolve_published(as_of, pair, request.source.as_ref())?]);
        }
        let filter = SeriesFilter { pairs: Vec::new(), sources: request.source.iter().cloned().collect() };
        let series: Vec<_> = self.view.series().filter(|series| filter.lets(series.key())).map(Arc::clone).collect();
        match &request.source {
            Some(wanted) if series.is_empty() => {
                let there_are = listing(&self.known_keys(as_of, |_| true));
                Err(QueryError::UnknownSource { wanted: wanted.clone(), there_are })
            }
            Some(_) | None => Ok(series),
        }
    }
}

/// One page in the making.
struct GapSearch<'a> {
    reader: &'a Reader,
    request: &'a GapsRequest,
    budget: PageBudget,
    now: Timestamp,
    gaps: Vec<Gap>,
    instants: usize,
    stretches: usize,
}

impl GapSearch<'_> {
    /// Looks through one series from an instant of it on. Gives the instant to go on from where the page has enough.
    fn series(&mut self, series: &Arc<SeriesView>, from: Option<Timestamp>) -> Result<Option<Timestamp>, QueryError> {
        let (start, end) = (self.request.range.start(), self.request.range.end());
        if start >= end {
            return Ok(None);
        }
        // The last instant before the range may begin a gap that reaches into it.
        let from = match from {
            Some(from) => from,
            None => series.instant_at(start)?.unwrap_or(start),
        };
        let mut last: Option<Timestamp> = None;
        for piece in series.instants(from, Timestamp::from_micros(i64::MAX)) {
            check_cancelled(&self.reader.cancel)?;
            let piece = piece?;
            self.instants += piece.len();
            for instant in piece {
                if let Some(before) = last.replace(instant)
                    && !self.take(series, before, Some(instant))
                {
                    return Ok(Some(before));
                }
                if instant >= end.min(self.now) {
                    return Ok(None);
                }
            }
            // Each page comes further than the one before.
            if self.instants >= self.budget.instants_max && last > Some(from) {
                return Ok(last);
            }
        }
        match last {
            Some(last) if !self.take(series, last, None) => Ok(Some(last)),
            Some(_) | None => Ok(None),
        }
    }

    /// Takes the time between two neighbouring instants, or since the last one, if it is a gap that is asked for. Says
    /// whether there was room for it.
    fn take(&mut self, series: &Arc<SeriesView>, start: Timestamp, next: Option<Timestamp>) -> bool {
        let end = next.unwrap_or(self.now);
        let minimum_us = self.request.minimum_us.unwrap_or_else(|| series.collapse_window_us());
        let overlaps = start < self.request.range.end() && end > self.request.range.start();
        // What begins after now has no past that could be told of.
        if !overlaps || start >= self.now || end.micros_since(start) <= minimum_us {
            return true;
        }
        if self.gaps.len() >= self.request.limit || self.stretches >= self.budget.stretches_max {
            return false;
        }
        let polls = self.reader.view.polls(&series.key().source);
        let spans = polls.into_iter().flat_map(|polls| polls.spans_after(start));
        let stretches = split_gap(start, end.min(self.now), spans);
        self.stretches += stretches.len();
        let lengths = ReasonLengths::of(&stretches);
        self.gaps.push(Gap { series: series.key().clone(), start, end, is_open: next.is_none(), stretches, lengths });
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

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
        StateRules {
            stale_limit_default_us: Timestamp::DAY_US,
            stale_limits_us: BTreeMap::new(),
            moving_window_us: Timestamp::DAY_US,
        }
    }

    /// A store with a series for each set of seconds, all of one source, which was polled every ten.
    fn reader(directory: &tempfile::TempDir, seconds: &[BTreeSet<i64>]) -> Reader {
        let options = StoreOptions {
            collapse_window_default_us: WINDOW_S * Timestamp::SECOND_US,
            state_rules: state_rules(),
            ..StoreOptions::of_test(directory.path())
        };
        let mut store = Store::open(options, at(NOW_S)).unwrap();
        let mut work = store.begin(at(NOW_S));
        let source = Source::parse("nbt").unwrap();
        for (base, seconds) in ["TJS", "KZT", "UZS"].into_iter().zip(seconds) {
            let pair = Pair::parse(&format!("{base}/USD"), &CurrencySet::central_asia()).unwrap();
            let key = SeriesKey { pair, source: source.clone() };
            for at_second in seconds {
                let value = PublishedValue { rate: Rate::parse("0.1").unwrap(), reported_change: None };
                let series = work.series(&key).unwrap();
                work.upsert(series, at(*at_second), value, false).unwrap();
            }
        }
        for ten in 0..NOW_S / 10 {
            let health = Health::ALL[usize::try_from(ten % 4).unwrap()];
            let (time, covered_until) = (at(ten * 10), at(ten * 10 + 10));
            work.record_poll(&Poll { source: source.clone(), time, covered_until, health }).unwrap();
        }
        work.commit().unwrap();
        Reader::new(
            Arc::new(store.view()),
            at(NOW_S),
            Arc::new(state_rules()),
            tokio_util::sync::CancellationToken::new(),
        )
    }

    /// What stands in the text of a gap: series, start, end, whether it is open.
    type Told = (String, i64, i64, bool);

    fn told(gaps: &[Gap]) -> Vec<Told> {
        let of = |gap: &Gap| (gap.series.pair.base().to_string(), second(gap.start), second(gap.end), gap.is_open);
        gaps.iter().map(of).collect()
    }

    /// Every pair of neighbours, looked at one by one.
    fn naive(seconds: &[BTreeSet<i64>], range: (i64, i64), minimum_s: i64) -> Vec<Told> {
        let mut found = Vec::new();
        let mut named: Vec<_> = ["TJS", "KZT", "UZS"].into_iter().zip(seconds).collect();
        named.sort_by_key(|(base, _)| *base);
        for (base, seconds) in named {
            let mut seconds: Vec<i64> = seconds.iter().copied().collect();
            let is_open = seconds.last().is_some_and(|last| *last < NOW_S);
            seconds.extend(is_open.then_some(NOW_S));
            for (place, ends) in seconds.windows(2).enumerate() {
                let (start, end) = (ends[0], ends[1]);
                let overlaps = start < range.1 && end > range.0 && range.0 < range.1;
                if overlaps && start < NOW_S && end - start > minimum_s {
                    found.push((base.to_owned(), start, end, is_open && place + 2 == seconds.len()));
                }
            }
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn gaps_are_those_of_the_timeline_however_small_the_pages(
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
                after: None,
                limit: 1_000,
            };
            let whole = reader.gaps(&request).unwrap().body;
            prop_assert_eq!(told(&whole.gaps), naive(&seconds, range, minimum_s.unwrap_or(WINDOW_S)));
            prop_assert_eq!(whole.next, None);
            request.limit = limit;
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
            prop_assert_eq!(request.after, None, "pages come to an end");
            prop_assert_eq!(paged, whole.gaps);
        }
    }
}
