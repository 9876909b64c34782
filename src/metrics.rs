//! What a running server counts and times, for Prometheus.
//!
//! Each part that does work owns its counters and hands out a copy, which shares them; `http` gathers all copies when it
//! is scraped. Names follow Prometheus' conventions: base units, `_total` for counters.
//!
//! **Invariants**: counting never fails and never waits; the values of every label are few and fixed.

use std::collections::HashMap;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts};

/// From 50 us, which an answer from memory takes, to a minute.
const SECONDS: [f64; 18] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 60.0,
];

/// Names and labels are constants of this file, each with a row in its test: a wrong one would fail there at once.
const GOOD_NAMES: &str = "names and labels of metrics are good constants";

fn seconds(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(SECONDS.to_vec())
}

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(GOOD_NAMES)
}

fn histogram(name: &str, help: &str) -> Histogram {
    Histogram::with_opts(seconds(name, help)).expect(GOOD_NAMES)
}

/// A part's metrics as Prometheus' registry takes them.
macro_rules! collect_all {
    ($of:ty: $($field:ident),+) => {
        impl Collector for $of {
            fn desc(&self) -> Vec<&Desc> {
                [$(self.$field.desc()),+].concat()
            }

            fn collect(&self) -> Vec<MetricFamily> {
                [$(self.$field.collect()),+].concat()
            }
        }
    };
}

/// Taking ticks in.
#[derive(Clone, Debug)]
pub struct IngestMetrics {
    ticks: IntCounterVec,
    refused: IntCounterVec,
    decided: IntCounterVec,
    commit: Histogram,
    checkpoint: Histogram,
    queued_ticks: IntGauge,
}

collect_all!(IngestMetrics: ticks, refused, decided, commit, checkpoint, queued_ticks);

/// What became of ticks that were taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TickCounts {
    /// Began a run.
    pub new_run: u64,
    /// Joined one.
    pub collapsed: u64,
    /// Were known.
    pub known: u64,
    /// Replaced another value.
    pub revised: u64,
    /// Are held, or were discarded before.
    pub quarantined: u64,
}

impl Default for IngestMetrics {
    fn default() -> Self {
        Self {
            ticks: counter(
                "silkrate_ingest_ticks_total",
                "Ticks taken in: new_run began a run, collapsed joined one, known was there already, revised replaced a value, quarantined is held and not served.",
                &["outcome"],
            ),
            refused: counter("silkrate_ingest_refused_ticks_total", "Ticks refused, by reason.", &["reason"]),
            decided: counter(
                "silkrate_quarantine_decisions_total",
                "Held ticks decided: released, discarded, refused.",
                &["outcome"],
            ),
            commit: histogram(
                "silkrate_commit_seconds",
                "From taking waiting ticks to their commit being durable and visible.",
            ),
            checkpoint: histogram("silkrate_checkpoint_seconds", "Making blocks of what changed in memory."),
            queued_ticks: IntGauge::new("silkrate_ingest_queued_ticks", "Ticks that wait for the writer.")
                .expect(GOOD_NAMES),
        }
    }
}

impl IngestMetrics {
    /// Counts ticks that went in.
    pub fn taken_in(&self, counts: TickCounts) {
        let TickCounts { new_run, collapsed, known, revised, quarantined } = counts;
        for (outcome, count) in [
            ("new_run", new_run),
            ("collapsed", collapsed),
            ("known", known),
            ("revised", revised),
            ("quarantined", quarantined),
        ] {
            self.ticks.with_label_values(&[outcome]).inc_by(count);
        }
    }

    /// Counts a refused tick.
    pub fn refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// Counts a held tick that was to be decided.
    pub fn decided(&self, outcome: &'static str) {
        self.decided.with_label_values(&[outcome]).inc();
    }

    /// A commit that became durable.
    pub fn committed(&self, took: Duration) {
        self.commit.observe(took.as_secs_f64());
    }

    /// A checkpoint that came to its end.
    pub fn checkpointed(&self, took: Duration) {
        self.checkpoint.observe(took.as_secs_f64());
    }

    /// How many ticks wait now.
    pub fn queued(&self, ticks: usize) {
        self.queued_ticks.set(i64::try_from(ticks).unwrap_or(i64::MAX));
    }
}

/// Following publishers.
#[derive(Clone, Debug)]
pub struct FollowMetrics {
    polls: IntCounterVec,
    succeeded: IntGaugeVec,
}

collect_all!(FollowMetrics: polls, succeeded);

impl Default for FollowMetrics {
    fn default() -> Self {
        Self {
            polls: counter(
                "silkrate_feed_polls_total",
                "Polls of followed sources: taken had news, unchanged had none, silent had no table; unreachable, refused, not_stored failed.",
                &["source", "outcome"],
            ),
            succeeded: IntGaugeVec::new(
                Opts::new(
                    "silkrate_feed_last_success_timestamp_seconds",
                    "When a followed source last answered with what could be read.",
                ),
                &["source"],
            )
            .expect(GOOD_NAMES),
        }
    }
}

impl FollowMetrics {
    /// Counts a poll.
    pub fn polled(&self, source: &'static str, outcome: &'static str) {
        self.polls.with_label_values(&[source, outcome]).inc();
    }

    /// A source answered, at a time in seconds since 1970.
    pub fn succeeded(&self, source: &'static str, at_s: i64) {
        self.succeeded.with_label_values(&[source]).set(at_s);
    }
}

/// Calls of one wire.
#[derive(Clone, Debug)]
pub struct CallMetrics {
    took: HistogramVec,
    open: IntGauge,
}

collect_all!(CallMetrics: took, open);

impl CallMetrics {
    /// Calls of gRPC, streams included: until their last byte is handed over.
    pub fn grpc() -> Self {
        Self::new(
            (
                "silkrate_grpc_call_seconds",
                "Calls of gRPC until their last byte, by method and status.",
                ["method", "code"],
            ),
            ("silkrate_grpc_open_calls", "Calls of gRPC under way, streams and watchers included."),
        )
    }

    /// Requests of plain HTTP.
    pub fn http() -> Self {
        Self::new(
            (
                "silkrate_http_request_seconds",
                "Requests of plain HTTP until their answer begins, by route and status.",
                ["route", "status"],
            ),
            ("silkrate_http_open_requests", "Requests of plain HTTP whose answer is not begun."),
        )
    }

    fn new((took, help, labels): (&str, &str, [&str; 2]), (open, open_help): (&str, &str)) -> Self {
        Self {
            took: HistogramVec::new(seconds(took, help), &labels).expect(GOOD_NAMES),
            open: IntGauge::new(open, open_help).expect(GOOD_NAMES),
        }
    }

    /// A call begins; it counts as open until the guard goes.
    pub fn begin(&self) -> OpenCall {
        self.open.inc();
        OpenCall(self.open.clone())
    }

    /// A call came to its end. `what` and `outcome` are of a few values: never what a caller sent.
    pub fn ended(&self, what: &str, outcome: &str, took: Duration) {
        self.took.with_label_values(&[what, outcome]).observe(took.as_secs_f64());
    }
}

/// A call under way.
#[derive(Debug)]
pub struct OpenCall(IntGauge);

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The families of gauges that are read off when asked for, each with its labels.
#[derive(Debug, Default)]
pub struct Readings(Vec<(&'static str, &'static str, Vec<Reading>)>);

/// Labels with their values, and what was read.
type Reading = (Vec<(&'static str, String)>, f64);

impl Readings {
    /// One more family; `readings` all have the same labels.
    pub fn add(&mut self, name: &'static str, help: &'static str, readings: Vec<Reading>) {
        self.0.push((name, help, readings));
    }

    /// As Prometheus' encoder takes them.
    pub fn families(&self) -> Vec<MetricFamily> {
        self.0.iter().flat_map(|(name, help, readings)| family(name, help, readings)).collect()
    }
}

fn family(name: &str, help: &str, readings: &[Reading]) -> Vec<MetricFamily> {
    // A family without any reading is none: its labels are not known either.
    let Some((labels, _)) = readings.first() else { return Vec::new() };
    let labels: Vec<&str> = labels.iter().map(|(name, _)| *name).collect();
    let gauges = prometheus::GaugeVec::new(Opts::new(name, help), &labels).expect(GOOD_NAMES);
    for (labels, value) in readings {
        gauges.with(&labels.iter().map(|(name, value)| (*name, value.as_str())).collect::<HashMap<_, _>>()).set(*value);
    }
    gauges.collect()
}
