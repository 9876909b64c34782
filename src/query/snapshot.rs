//! What an export reads: many series at one commit.

use std::sync::Arc;

use super::as_of::AsOf;
use super::bucket_paging::{BucketLimit, range_buckets};
use super::candles::CandleRow;
use super::history::Range;
use super::latest::SeriesFilter;
use super::resolve::{Leg, derived_from, listing};
use super::{QueryError, Reader, check_cancelled};
use crate::analysis::{Buckets, CandlePlan, Legs, RateBound};
use crate::domain::{HeldTick, Run, Timestamp};
use crate::store::{Commit, ScanOrder, SeriesView, StoreError, View};

/// Asks for a part of the store as of one commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotRequest {
    /// Of these series. Every pair and source named must have been published.
    pub filter: SeriesFilter,
    /// Of first observed times, or of the starts of candles.
    pub range: Range,
    /// As known at.
    pub known_time: Option<Timestamp>,
    /// Of candles, if those are to be read.
    pub candles: Option<CandleBuckets>,
}

/// Which candles of each series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CandleBuckets {
    /// Of these buckets.
    pub buckets: Buckets,
    /// Also buckets that no run's span meets, with the close before.
    pub fill: bool,
}

/// Some series at one commit. Every read of it sees that commit, however late it is made.
pub struct Snapshot {
    /// What it sees.
    pub commit: Commit,
    /// The store, to read what has no known time: commits.
    pub view: Arc<View>,
    /// Those asked for, in order of pair and source.
    pub series: Vec<Arc<SeriesView>>,
    range: Range,
    candles: Option<CandleBuckets>,
    /// Whether all of the history as it is known now was asked for.
    is_whole: bool,
    reader: Reader,
    /// Its now is the recorded time seen, so that the same snapshot read later is the same.
    as_of: AsOf,
}

impl Snapshot {
    /// Of first observed times, as asked for.
    pub fn range(&self) -> Range {
        self.range
    }

    /// How many runs all series have in the range: exactly, or, of a part of the history or as known earlier, about so
    /// many, without reading them.
    ///
    /// # Errors
    /// The store's.
    pub fn run_count(&self) -> Result<u64, StoreError> {
        let mut count = 0;
        for series in &self.series {
            let Some(totals) = series.totals(self.as_of.known())? else { continue };
            count += if self.is_whole {
                totals.run_count
            } else {
                share_in(series, (self.range.start(), self.range.end()), totals.run_count)
            };
        }
        Ok(count)
    }

    /// About how many candles all series have. Those that are left out are guessed: there is hardly a candle more than
    /// observations.
    ///
    /// # Errors
    /// The store's.
    pub fn candle_count_about(&self) -> Result<u64, QueryError> {
        let mut count = 0;
        for series in &self.series {
            let (Some(plan), Some(totals)) = (self.candle_plan(series)?, series.totals(self.as_of.known())?) else {
                continue;
            };
            let buckets = plan.buckets.count_between(plan.first, plan.end);
            let seen = share_in(series, (plan.first, plan.end), totals.observation_count);
            count += if plan.fill { buckets } else { buckets.min(seen) };
        }
        Ok(count)
    }

    /// The runs of one of the series that begin in `[start, end)`, oldest first, in pieces that are never empty. Each step blocks.
    ///
    /// # Errors
    /// The store's, here or as an item; `Stopped` as an item once the caller has gone.
    pub fn runs(
        &self,
        series: &Arc<SeriesView>,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<impl Iterator<Item = Result<Vec<Run>, QueryError>> + use<'_>, QueryError> {
        let pieces = series.runs(start, end, self.commit.recorded_time, ScanOrder::Ascending)?;
        Ok(self.until_stopped(pieces))
    }

    /// The last run of one of the series that began before `time`.
    ///
    /// # Errors
    /// The store's.
    pub fn run_before(&self, series: &SeriesView, time: Timestamp) -> Result<Option<Run>, QueryError> {
        Ok(series.run_at(time.saturating_add_us(-1), self.commit.recorded_time)?)
    }

    /// The candles of one of the series that begin in the range and by the recorded time seen, oldest first; none if
    /// they were not asked for. Each step blocks.
    ///
    /// # Errors
    /// The store's, here or as an item; `Stopped` as an item once the caller has gone.
    pub fn candles(
        &self,
        series: &Arc<SeriesView>,
    ) -> Result<impl Iterator<Item = Result<CandleRow, QueryError>> + use<>, QueryError> {
        let route = Legs::One(Leg { inverted: false, series: Arc::clone(series) });
        let plan = self.candle_plan(series)?;
        let candles = plan.map(|plan| self.reader.fold(&self.as_of, &route, plan, RateBound::Value)).transpose()?;
        Ok(candles.into_iter().flatten())
    }

    /// Which candles a series has; none if there are none.
    fn candle_plan(&self, series: &SeriesView) -> Result<Option<CandlePlan>, QueryError> {
        let Some(CandleBuckets { buckets, fill }) = self.candles else { return Ok(None) };
        let first_rate = series.first_observed_time(self.as_of.known())?;
        let found = range_buckets(self.range, ("interval", buckets), first_rate, self.as_of.now, BucketLimit::EXPORT)?;
        Ok(found.map(|(first, end)| CandlePlan { buckets, first: first.start, end, now: self.as_of.now, fill }))
    }

    /// The held ticks of the series, by id, each with the place of its series among them. From memory.
    pub fn held_ticks(&self) -> impl Iterator<Item = (usize, HeldTick)> {
        let known = self.as_of.known();
        let ticks = self.view.quarantine().after(0).map_while(move |tick| tick.as_known(known));
        ticks.filter_map(|tick| {
            let number = self.series.binary_search_by(|series| series.key().cmp(&tick.series)).ok()?;
            Some((number, tick))
        })
    }

    /// The same pieces for as long as somebody waits for them.
    pub fn until_stopped<T>(
        &self,
        pieces: impl Iterator<Item = Result<T, StoreError>>,
    ) -> impl Iterator<Item = Result<T, QueryError>> {
        pieces.map(|piece| {
            check_cancelled(&self.reader.cancel)?;
            Ok(piece?)
        })
    }
}

/// About how much of a count over all of a series falls into a range: as much as of the runs as they are known now.
fn share_in(series: &SeriesView, (start, end): (Timestamp, Timestamp), count: u64) -> u64 {
    let of_all = series.run_count_about(Timestamp::MIN, Timestamp::MAX);
    let share = u128::from(count) * u128::from(series.run_count_about(start, end)) / u128::from(of_all.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

impl Reader {
    /// Pins a commit, and finds the series asked for.
    ///
    /// # Errors
    /// A pair or a source that was not published by then, too many buckets, or the store's.
    pub fn snapshot(&self, request: &SnapshotRequest) -> Result<Snapshot, QueryError> {
        let as_of = self.as_of(request.known_time)?;
        let known = self.known_keys(&as_of, |_| true);
        for pair in &request.filter.pairs {
            if !known.iter().any(|key| key.pair == *pair) {
                let from = derived_from(&known, *pair);
                if !from.is_empty() {
                    let from: Vec<String> = from.iter().map(ToString::to_string).collect();
                    return Err(QueryError::NotExported { pair: *pair, from: from.join(" and ") });
                }
                let there_are = listing(&known);
                return Err(QueryError::UnknownSeries {
                    pair: *pair,
                    wanted_source: None,
                    missing_legs: Vec::new(),
                    there_are,
                });
            }
        }
        for source in &request.filter.sources {
            if !known.iter().any(|key| key.source == *source) {
                return Err(QueryError::UnknownSource { wanted: source.clone(), there_are: listing(&known) });
            }
        }
        let wanted = known.iter().filter(|key| request.filter.lets(key));
        let snapshot = Snapshot {
            commit: as_of.commit,
            view: Arc::clone(&self.view),
            series: wanted.filter_map(|key| self.view.find(key)).map(Arc::clone).collect(),
            range: request.range,
            candles: request.candles,
            is_whole: as_of.newest && request.range == Range::default(),
            reader: self.clone(),
            as_of: AsOf { now: as_of.known(), ..as_of },
        };
        // What cannot be is said before anything is sent.
        for series in &snapshot.series {
            snapshot.candle_plan(series)?;
        }
        Ok(snapshot)
    }
}
