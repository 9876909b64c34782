//! Gaps: where the timeline of a series has no instant for long, and why, going by what polls of its source found.
//!
//! **Invariants**: gaps are those of the newest commit; where they end for now, all pages of a list have one now. A page
//! ends after so much work, found or not, and the next one goes on from there.

use std::sync::Arc;

use super::latest::SeriesFilter;
use super::pin::Pin;
use super::resolve::listing;
use super::{Answer, QueryError, Range, Reader};
use crate::analysis::{ReasonLengths, Stretch, split_gap};
use crate::domain::{Pair, SeriesKey, Source, Timestamp};
use crate::store::SeriesView;

/// Instants that are read for one page: a second's work.
const PAGE_INSTANTS_MAX: usize = 20_000_000;
/// Stretches of the gaps of one page, beyond those of its last gap.
const PAGE_STRETCHES_MAX: usize = 50_000;

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
    pub stretches: Vec<Stretch>,
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
        let pin = self.pin(None)?;
        let now = request.after.map_or(pin.now, |cursor| cursor.now);
        let series = self.series_with_gaps(&pin, request)?;
        // A series never goes away, so that the one of a cursor is there still.
        let begun = |series: &&Arc<SeriesView>| request.after.is_some_and(|cursor| cursor.series != series.id());
        let mut search = GapSearch { reader: self, request, now, gaps: Vec::new(), instants: 0, stretches: 0 };
        let mut from = request.after.map(|cursor| cursor.from);
        for series in series.iter().skip_while(begun) {
            if let Some(from) = search.series(series, from.take())? {
                let next = Some(GapCursor { series: series.id(), from, now });
                return Ok(Answer { commit: pin.commit, body: GapsPage { gaps: search.gaps, next } });
            }
        }
        Ok(Answer { commit: pin.commit, body: GapsPage { gaps: search.gaps, next: None } })
    }

    fn series_with_gaps(&self, pin: &Pin, request: &GapsRequest) -> Result<Vec<Arc<SeriesView>>, QueryError> {
        if let Some(pair) = request.pair {
            return Ok(vec![self.resolve_published(pin, pair, request.source.as_ref())?]);
        }
        let filter = SeriesFilter { pairs: Vec::new(), sources: request.source.iter().cloned().collect() };
        let series: Vec<_> = self.view.series().filter(|series| filter.lets(series.key())).map(Arc::clone).collect();
        match &request.source {
            Some(wanted) if series.is_empty() => {
                let there_are = listing(&self.known_keys(pin, |_| true)?);
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
            self.reader.stop.check()?;
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
            if self.instants >= PAGE_INSTANTS_MAX {
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
        if self.gaps.len() >= self.request.limit || self.stretches >= PAGE_STRETCHES_MAX {
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
