//! Snapshots: the series that an export reads, as known at one commit.
//!
//! **Invariant**: every read of a snapshot sees the commit of the snapshot.

use std::sync::Arc;

use super::as_of::AsOf;
use super::bucket_paging::{BucketLimit, range_buckets};
use super::candles::CandleRow;
use super::history::Range;
use super::latest::SeriesFilter;
use super::resolve::{Leg, derived_from, list_available};
use super::{MomentRange, QueryError, Reader, check_cancelled};
use crate::analysis::{Buckets, CandlePlan, Legs, RateBound, Zone};
use crate::domain::{ArchiveDecision, HeldTick, Interval, Run, ScanOrder, Timestamp};
use crate::store::{Commit, SeriesView, StoreError, View};

/// A request for a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotRequest {
    /// The series of the snapshot. Each requested pair and source must have a series.
    pub filter: SeriesFilter,
    /// The range of first observed times, or of the starts of days and candles.
    pub range: MomentRange,
    /// The time zone of days. `None` means the zone of the source of each series, and UTC for candles shorter than a
    /// day.
    pub zone: Option<Zone>,
    /// Read the data as known at this time. `None` means the newest commit.
    pub known_time: Option<Timestamp>,
    /// The days or candles to read; `None` if neither is needed.
    pub buckets: Option<SnapshotBuckets>,
}

/// The days or candles to read of each series.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotBuckets {
    /// The length of a bucket.
    pub interval: Interval,
    /// Whether an empty bucket has a candle that repeats the previous close. A bucket is empty if it overlaps no run.
    pub fill: bool,
}

/// Series at one commit. Every read sees that commit, even if the store has newer commits.
pub struct Snapshot {
    /// The commit that the snapshot reads.
    pub commit: Commit,
    /// The view of the store, which may be newer than `commit`. An export reads the list of commits, the polls and the
    /// time of the last ingest from this view.
    pub view: Arc<View>,
    /// The requested series, sorted by pair and source.
    pub series: Vec<Arc<SeriesView>>,
    range: MomentRange,
    zone: Option<Zone>,
    buckets: Option<SnapshotBuckets>,
    /// Whether the request is for the whole history at the newest commit.
    is_whole: bool,
    reader: Reader,
    /// The commit and the current time of every read. The current time is the recorded time of the commit, so that a
    /// repeated snapshot has the same rows.
    as_of: AsOf,
}

impl Snapshot {
    /// Returns the requested range of first observed times for `series`. A date is a day of the source, unless the
    /// request has a time zone.
    ///
    /// # Errors
    /// `InvalidArgument` if the range ends before it starts.
    pub fn range(&self, series: &SeriesView) -> Result<Range, QueryError> {
        self.range.in_zone(self.reader.zone_of_source(&series.key().source, self.zone))
    }

    /// Returns the time zone of the days or candles of `series`; `None` if the request has neither.
    pub fn bucket_zone(&self, series: &SeriesView) -> Option<Zone> {
        let interval = self.buckets?.interval;
        let has_days = interval.has_calendar_days();
        let of_source = has_days.then(|| self.reader.zone_of_source(&series.key().source, self.zone));
        Some(of_source.or(self.zone).unwrap_or(Zone::UTC))
    }

    /// Returns the number of runs of all series in the range, without reading the runs. The number is exact for the
    /// whole history at the newest commit, and an estimate for a part of the history or an earlier known time.
    ///
    /// # Errors
    /// Returns an error if reading the store fails.
    pub fn run_count(&self) -> Result<u64, QueryError> {
        let mut count = 0;
        for series in &self.series {
            let Some(totals) = series.totals(self.as_of.known())? else { continue };
            count += if self.is_whole {
                totals.run_count
            } else {
                let range = self.range(series)?;
                estimate_in(series, (range.start(), range.end()), totals.run_count)
            };
        }
        Ok(count)
    }

    /// Estimates the number of candles of all series. Without `fill`, empty buckets have no candle, so the estimate for
    /// a series is at most the estimated number of observations.
    ///
    /// # Errors
    /// `InvalidArgument` if there are too many buckets; `Store` if reading the store fails.
    pub fn approximate_candle_count(&self) -> Result<u64, QueryError> {
        let mut count = 0;
        for series in &self.series {
            let (Some(plan), Some(totals)) = (self.bucket_plan(series)?, series.totals(self.as_of.known())?) else {
                continue;
            };
            let buckets = plan.buckets.count_between(plan.first, plan.end);
            let observations = estimate_in(series, (plan.first, plan.end), totals.observation_count);
            count += if plan.fill { buckets } else { buckets.min(observations) };
        }
        Ok(count)
    }

    /// Returns the runs that begin in `[start, end)`, oldest first, in pieces that are never empty. `series` is one of
    /// the series of the snapshot. Reading a piece blocks.
    ///
    /// # Errors
    /// `Store`, directly or as an item, if reading the store fails; `Cancelled` as an item after cancellation.
    pub fn runs(
        &self,
        series: &Arc<SeriesView>,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<impl Iterator<Item = Result<Vec<Run>, QueryError>> + use<'_>, QueryError> {
        let pieces = series.runs(start, end, self.commit.recorded_time, ScanOrder::Ascending)?;
        Ok(self.until_cancelled(pieces))
    }

    /// Returns the last run that began before `time`. `series` is one of the series of the snapshot.
    ///
    /// # Errors
    /// `Store` if reading the store fails.
    pub fn run_before(&self, series: &SeriesView, time: Timestamp) -> Result<Option<Run>, QueryError> {
        Ok(series.run_at(time.saturating_add_us(-1), self.commit.recorded_time)?)
    }

    /// Returns the candles that begin in the range and at or before the recorded time of the commit, oldest first.
    /// `series` is one of the series of the snapshot. Empty if the request has no candles. Reading a candle blocks.
    ///
    /// # Errors
    /// `InvalidArgument` if there are too many buckets; `Store`, directly or as an item, if reading the store fails;
    /// `Cancelled` as an item after cancellation.
    pub fn candles(
        &self,
        series: &Arc<SeriesView>,
    ) -> Result<impl Iterator<Item = Result<CandleRow, QueryError>> + use<>, QueryError> {
        let route = Legs::One(Leg { inverted: false, series: Arc::clone(series) });
        let plan = self.bucket_plan(series)?;
        let fold = |plan| self.reader.fold_candles(&self.as_of, &route, plan, RateBound::Value);
        let candles = plan.map(fold).transpose()?;
        Ok(candles.into_iter().flatten())
    }

    /// Returns the plan of the days or candles of a series, from the bucket of its first rate on; `None` if the series has
    /// none.
    ///
    /// # Errors
    /// `InvalidArgument` if there are too many buckets; `Store` if reading the store fails.
    pub fn bucket_plan(&self, series: &SeriesView) -> Result<Option<CandlePlan>, QueryError> {
        let (Some(SnapshotBuckets { interval, fill }), Some(zone)) = (self.buckets, self.bucket_zone(series)) else {
            return Ok(None);
        };
        let buckets = Buckets { zone, interval };
        let first_rate = series.first_observed_time(self.as_of.known())?;
        let found =
            range_buckets(self.range(series)?, ("interval", buckets), first_rate, self.as_of.now, BucketLimit::EXPORT)?;
        Ok(found.map(|(first, end)| CandlePlan { buckets, first: first.start, end, now: self.as_of.now, fill }))
    }

    /// Returns the held ticks of the series, sorted by id, each with the index of its series. Reads memory only.
    pub fn held_ticks(&self) -> impl Iterator<Item = (usize, HeldTick)> {
        let known = self.as_of.known();
        let ticks = self.view.quarantine().after(0).map_while(move |tick| tick.as_known(known));
        ticks.filter_map(|tick| {
            let index = self.series.binary_search_by(|series| series.key().cmp(&tick.series)).ok()?;
            Some((index, tick))
        })
    }

    /// Returns the decisions to archive and unarchive sources, sorted by source, then by time. Reads memory only.
    pub fn archive_decisions(&self) -> impl Iterator<Item = &ArchiveDecision> {
        let known = self.as_of.known();
        self.view.archived().decisions().filter(move |decision| decision.recorded_time <= known)
    }

    /// Returns the items of `pieces`. After cancellation, returns `Cancelled` instead of each item.
    pub fn until_cancelled<T>(
        &self,
        pieces: impl Iterator<Item = Result<T, StoreError>>,
    ) -> impl Iterator<Item = Result<T, QueryError>> {
        pieces.map(|piece| {
            check_cancelled(&self.reader.cancel)?;
            Ok(piece?)
        })
    }
}

/// Estimates how much of `total`, a count for a whole series, belongs to a range. Assumes that `total` is distributed
/// over time like the runs known at the newest commit.
fn estimate_in(series: &SeriesView, (start, end): (Timestamp, Timestamp), total: u64) -> u64 {
    let all_runs = series.estimated_run_count(Timestamp::MIN, Timestamp::MAX);
    let share = u128::from(total) * u128::from(series.estimated_run_count(start, end)) / u128::from(all_runs.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

impl Reader {
    /// Creates a snapshot of the requested series at one commit.
    ///
    /// # Errors
    /// `UnknownSeries`, `UnknownSource` or `NotExported` if a requested pair or source has no series at that commit;
    /// `NothingKnownYet` if `known_time` is before the first commit; `InvalidArgument` if there are too many buckets;
    /// `Store` if reading the store fails.
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
                let available = list_available(&known);
                return Err(QueryError::UnknownSeries {
                    pair: *pair,
                    wanted_source: None,
                    missing_legs: Vec::new(),
                    available,
                });
            }
        }
        for source in &request.filter.sources {
            if !known.iter().any(|key| key.source == *source) {
                return Err(QueryError::UnknownSource { wanted: source.clone(), available: list_available(&known) });
            }
        }
        let wanted = known.iter().filter(|key| request.filter.matches(key));
        let snapshot = Snapshot {
            commit: as_of.commit,
            view: Arc::clone(&self.view),
            series: wanted.filter_map(|key| self.view.find(key)).map(Arc::clone).collect(),
            range: request.range,
            zone: request.zone,
            buckets: request.buckets,
            is_whole: as_of.newest && request.range == MomentRange::default(),
            reader: self.clone(),
            as_of: AsOf { now: as_of.known(), ..as_of },
        };
        // Check the number of buckets of every series now, so that an error is returned before any row is sent.
        for series in &snapshot.series {
            snapshot.bucket_plan(series)?;
        }
        Ok(snapshot)
    }
}
