//! A store with its writer and a manual clock, and followers of local publishers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use silkrate::clock::ManualClock;
use silkrate::domain::{ScanOrder, SeriesKey, Timestamp};
use silkrate::follow::{AddressPolicy, FetchLimits, Fetcher, FollowContext, FollowedSource, Follower, UserAgent};
use silkrate::ingest::Running;
use silkrate::metrics::FollowMetrics;
use silkrate::store::SeriesView;
use tempfile::TempDir;

use crate::publisher::Publisher;
use crate::support;

pub(crate) fn time(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// A store with its writer and a manual clock.
pub(crate) struct Fixture {
    pub(crate) running: Running,
    pub(crate) clock: Arc<ManualClock>,
    _dir: TempDir,
}

impl Fixture {
    pub(crate) fn at(now: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(time(now)));
        let config = support::config(&dir, &[]);
        let (options, limits) = (config.store_options().clone(), config.queue_limits());
        let (running, _fan_out) = Running::open(options, limits, Arc::clone(&clock) as _).unwrap();
        Self { running, clock, _dir: dir }
    }

    pub(crate) fn follower(&self, source: FollowedSource, publisher: &Publisher) -> Follower {
        self.follower_for(source, publisher, Duration::from_millis(500))
    }

    /// Creates a follower that waits at most `read` for each piece of a response.
    pub(crate) fn follower_for(&self, source: FollowedSource, publisher: &Publisher, read: Duration) -> Follower {
        let context = FollowContext {
            audit: None,
            ingest: self.running.ingest().clone(),
            rules: Arc::default(),
            clock: Arc::clone(&self.clock) as _,
            metrics: FollowMetrics::default(),
            seed: 7,
        };
        let limits = FetchLimits { read, ..FetchLimits::default() };
        let fetcher = Fetcher::new(AddressPolicy::Any, limits, &UserAgent::default()).unwrap();
        Follower::new(source, &publisher.base_url, fetcher, context)
    }

    /// Formats every run as pair, source, first and last observed time, observation count and rate.
    pub(crate) fn runs(&self) -> Vec<String> {
        let view = self.running.ingest().view();
        let mut lines = Vec::new();
        for series in view.series() {
            let runs = series.runs(Timestamp::MIN, Timestamp::MAX, Timestamp::MAX, ScanOrder::Ascending).unwrap();
            for run in runs.flat_map(Result::unwrap) {
                let (first, last) = (run.first_observed_time, run.last_observed_time);
                let SeriesKey { pair, source } = series.key();
                lines.push(format!("{pair} {source} {first} {last} {} {}", run.observation_count, run.value.rate));
            }
        }
        lines
    }

    /// Returns the value published at every instant, by series.
    pub(crate) fn timelines(&self) -> BTreeMap<String, BTreeMap<Timestamp, String>> {
        let view = self.running.ingest().view();
        let timeline = |series: &Arc<SeriesView>| {
            let runs = series.runs(Timestamp::MIN, Timestamp::MAX, Timestamp::MAX, ScanOrder::Ascending).unwrap();
            let mut runs = runs.flat_map(Result::unwrap).peekable();
            let instants =
                series.instants(Timestamp::MIN, Timestamp::MAX, ScanOrder::Ascending).flat_map(Result::unwrap);
            let valued = instants.map(|instant| {
                while runs.next_if(|run| run.last_observed_time < instant).is_some() {}
                let value = &runs.peek().unwrap().value;
                (instant, format!("{} {:?}", value.rate, value.reported_change.map(|change| change.to_string())))
            });
            valued.collect()
        };
        view.series().map(|series| (series.key().to_string(), timeline(series))).collect()
    }

    pub(crate) fn close(self) {
        self.running.close().unwrap();
    }
}
