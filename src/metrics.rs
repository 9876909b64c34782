//! Counters, gauges and histograms of a running server, for Prometheus.
//!
//! Each part of the server owns its metrics and hands out clones, which share the values. `http` collects all of them
//! when `/metrics` is scraped. Names follow Prometheus' conventions: base units, `_total` for counters.
//!
//! **Invariants**: counting never fails and never blocks; each label has few, fixed values.

use std::collections::HashMap;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

/// Upper bounds of histogram buckets in seconds: from 50 us, the time of a response from memory, to one minute.
const SECONDS: [f64; 18] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 60.0,
];

/// Names and labels are constants of this file. The tests use every metric, so an invalid name makes a test fail.
const VALID_NAMES: &str = "names and labels of metrics are valid constants";

fn duration_options(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(SECONDS.to_vec())
}

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(VALID_NAMES)
}

fn histogram(name: &str, help: &str) -> Histogram {
    Histogram::with_opts(duration_options(name, help)).expect(VALID_NAMES)
}

/// Implements [`Collector`] for a struct of metrics by concatenating the metrics of its fields.
macro_rules! collect_all {
    ($metrics:ty: $($field:ident),+) => {
        impl Collector for $metrics {
            fn desc(&self) -> Vec<&Desc> {
                [$(self.$field.desc()),+].concat()
            }

            fn collect(&self) -> Vec<MetricFamily> {
                [$(self.$field.collect()),+].concat()
            }
        }
    };
}

/// Metrics of ingest and quarantine.
#[derive(Clone, Debug)]
pub struct IngestMetrics {
    ticks: IntCounterVec,
    refused: IntCounterVec,
    decided: IntCounterVec,
    commit: Histogram,
    checkpoint: Histogram,
    slice: Histogram,
    queued_ticks: IntGauge,
}

collect_all!(IngestMetrics: ticks, refused, decided, commit, checkpoint, slice, queued_ticks);

/// Counts of admitted ticks, by outcome.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TickCounts {
    /// Ticks that began a run.
    pub new_run: u64,
    /// Ticks that joined an existing run.
    pub collapsed: u64,
    /// Ticks that were stored already.
    pub known: u64,
    /// Ticks that replaced a stored value.
    pub revised: u64,
    /// Ticks that are held in quarantine, or that repeat a discarded tick.
    pub quarantined: u64,
}

impl Default for IngestMetrics {
    fn default() -> Self {
        Self {
            ticks: counter(
                "silkrate_ingest_ticks_total",
                "Ticks admitted, by outcome: new_run (the tick began a run), collapsed (joined a run), known (was stored already), revised (replaced a stored value), quarantined (is held and not served).",
                &["outcome"],
            ),
            refused: counter("silkrate_ingest_refused_ticks_total", "Ticks refused, by reason.", &["reason"]),
            decided: counter(
                "silkrate_quarantine_decisions_total",
                "Decisions on held ticks, by outcome: released, discarded, refused.",
                &["outcome"],
            ),
            commit: histogram(
                "silkrate_commit_seconds",
                "Duration of a commit, from taking the queued ticks until they are durable and visible.",
            ),
            checkpoint: histogram(
                "silkrate_checkpoint_seconds",
                "Duration of a checkpoint, which writes in-memory changes to blocks.",
            ),
            slice: histogram(
                "silkrate_slice_seconds",
                "Duration of a slice, which writes a few changed blocks between two commits.",
            ),
            queued_ticks: IntGauge::new("silkrate_ingest_queued_ticks", "Ticks in the queue of the writer.")
                .expect(VALID_NAMES),
        }
    }
}

impl IngestMetrics {
    /// Counts admitted ticks by outcome.
    pub fn count_admitted(&self, counts: TickCounts) {
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

    /// Counts a refused tick by its reason.
    pub fn count_refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// Counts a decision on a held tick by its outcome.
    pub fn count_decision(&self, outcome: &'static str) {
        self.decided.with_label_values(&[outcome]).inc();
    }

    /// Records the duration of a commit that became durable.
    pub fn record_commit(&self, duration: Duration) {
        self.commit.observe(duration.as_secs_f64());
    }

    /// Records the duration of a completed slice.
    pub fn record_slice(&self, duration: Duration) {
        self.slice.observe(duration.as_secs_f64());
    }

    /// Returns the number of completed slices.
    pub fn slice_count(&self) -> u64 {
        self.slice.get_sample_count()
    }

    /// Records the duration of a completed checkpoint.
    pub fn record_checkpoint(&self, duration: Duration) {
        self.checkpoint.observe(duration.as_secs_f64());
    }

    /// Sets the number of ticks in the queue of the writer.
    pub fn set_queued_ticks(&self, ticks: usize) {
        self.queued_ticks.set(i64::try_from(ticks).unwrap_or(i64::MAX));
    }
}

/// Metrics of followed publishers.
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
                "Polls of followed sources, by outcome: taken (new ticks), unchanged (no new ticks), silent (no table); the outcomes unreachable, refused and not_stored are failures.",
                &["source", "outcome"],
            ),
            succeeded: IntGaugeVec::new(
                Opts::new(
                    "silkrate_feed_last_success_timestamp_seconds",
                    "Time of the last poll of a followed source that returned a readable response.",
                ),
                &["source"],
            )
            .expect(VALID_NAMES),
        }
    }
}

impl FollowMetrics {
    /// Counts a poll of a source by its outcome.
    pub fn count_poll(&self, source: &'static str, outcome: &'static str) {
        self.polls.with_label_values(&[source, outcome]).inc();
    }

    /// Sets the time of the last successful poll of a source, in seconds since 1970.
    pub fn set_last_success(&self, source: &'static str, at_s: i64) {
        self.succeeded.with_label_values(&[source]).set(at_s);
    }
}

/// Metrics of the backups that a server makes by itself. `kind` is `backup`, or `log` for the frames between backups.
#[derive(Clone, Debug)]
pub struct BackupMetrics {
    attempts: IntCounterVec,
    bytes: IntCounterVec,
    succeeded: IntGaugeVec,
    interval: IntGauge,
}

collect_all!(BackupMetrics: attempts, bytes, succeeded, interval);

impl Default for BackupMetrics {
    fn default() -> Self {
        let metrics = Self {
            attempts: counter(
                "silkrate_backup_attempts_total",
                "Attempts of the server to back up its store, by kind (backup, log: the commits between two backups) and outcome (succeeded, failed).",
                &["kind", "outcome"],
            ),
            bytes: counter(
                "silkrate_backup_bytes_total",
                "Bytes that the server wrote to the destination of its backups, by kind (backup, log).",
                &["kind"],
            ),
            succeeded: IntGaugeVec::new(
                Opts::new(
                    "silkrate_backup_last_success_timestamp_seconds",
                    "Time of the last successful attempt, by kind (backup, log); 0 if none succeeded. The log is written only if there are new commits.",
                ),
                &["kind"],
            )
            .expect(VALID_NAMES),
            interval: IntGauge::new(
                "silkrate_backup_interval_seconds",
                "Configured time from one backup to the next; 0 if the server makes no backups.",
            )
            .expect(VALID_NAMES),
        };
        // All values exist from the start, so that an alert sees the first failure as an increase.
        for kind in ["backup", "log"] {
            for outcome in ["succeeded", "failed"] {
                metrics.attempts.with_label_values(&[kind, outcome]);
            }
            metrics.bytes.with_label_values(&[kind]);
            metrics.succeeded.with_label_values(&[kind]);
        }
        metrics
    }
}

impl BackupMetrics {
    /// Sets the configured time from one backup to the next, in seconds.
    pub fn set_interval(&self, interval_s: u64) {
        self.interval.set(i64::try_from(interval_s).unwrap_or(i64::MAX));
    }

    /// Counts an attempt by its kind and its outcome.
    pub fn count(&self, kind: &'static str, outcome: &'static str) {
        self.attempts.with_label_values(&[kind, outcome]).inc();
    }

    /// Adds bytes that were written.
    pub fn add_bytes(&self, kind: &'static str, bytes: u64) {
        self.bytes.with_label_values(&[kind]).inc_by(bytes);
    }

    /// Sets the time of the last success, in seconds since 1970.
    pub fn set_succeeded(&self, kind: &'static str, at_s: i64) {
        self.succeeded.with_label_values(&[kind]).set(at_s);
    }
}

/// Metrics of access: refused calls, and the files that a running server reads again.
#[derive(Clone, Debug)]
pub struct AccessMetrics {
    refusals: IntCounterVec,
    reloads: IntCounterVec,
    certificate_expiry: IntGauge,
    audit_failures: IntCounter,
}

collect_all!(AccessMetrics: refusals, reloads, certificate_expiry, audit_failures);

impl Default for AccessMetrics {
    fn default() -> Self {
        Self {
            refusals: counter(
                "silkrate_access_refusals_total",
                "Calls and connections refused because of their credentials, by reason.",
                &["reason"],
            ),
            reloads: counter(
                "silkrate_reloads_total",
                "Changed files that the running server read again, by file (tokens, tls) and outcome (ok, failed). After failed, the earlier content stays in force.",
                &["file", "outcome"],
            ),
            certificate_expiry: IntGauge::new(
                "silkrate_tls_certificate_expiry_timestamp_seconds",
                "End of the validity of the server's certificate; 0 without TLS.",
            )
            .expect(VALID_NAMES),
            audit_failures: IntCounter::new(
                "silkrate_audit_failures_total",
                "Lines of the audit log that could not be written or synced. The changes themselves are stored.",
            )
            .expect(VALID_NAMES),
        }
    }
}

impl AccessMetrics {
    /// Sets the end of the validity of the server's certificate, in seconds since 1970.
    pub fn set_certificate_expiry(&self, at_s: i64) {
        self.certificate_expiry.set(at_s);
    }

    /// Counts a failure to write or sync the audit log.
    pub fn count_audit_failure(&self) {
        self.audit_failures.inc();
    }

    /// Counts a refused call or connection by its reason.
    pub fn count_refusal(&self, reason: &'static str) {
        self.refusals.with_label_values(&[reason]).inc();
    }

    /// Counts a changed file that was read again.
    pub fn count_reload(&self, file: &'static str, is_valid: bool) {
        self.reloads.with_label_values(&[file, if is_valid { "ok" } else { "failed" }]).inc();
    }
}

/// Metrics of the calls of one protocol.
#[derive(Clone, Debug)]
pub struct CallMetrics {
    duration: HistogramVec,
    open: IntGauge,
}

collect_all!(CallMetrics: duration, open);

impl CallMetrics {
    /// Creates the metrics of gRPC calls, streams included. A call ends when its last byte is handed to the connection.
    pub fn grpc() -> Self {
        Self::new(
            (
                "silkrate_grpc_call_seconds",
                "Duration of gRPC calls until their last byte, by method and status.",
                ["method", "code"],
            ),
            ("silkrate_grpc_open_calls", "gRPC calls in progress, streams and watchers included."),
        )
    }

    /// Creates the metrics of plain HTTP requests.
    pub fn http() -> Self {
        Self::new(
            (
                "silkrate_http_request_seconds",
                "Duration of plain HTTP requests until their response begins, by route and status.",
                ["route", "status"],
            ),
            ("silkrate_http_open_requests", "Plain HTTP requests whose response has not begun."),
        )
    }

    fn new((name, help, labels): (&str, &str, [&str; 2]), (open_name, open_help): (&str, &str)) -> Self {
        Self {
            duration: HistogramVec::new(duration_options(name, help), &labels).expect(VALID_NAMES),
            open: IntGauge::new(open_name, open_help).expect(VALID_NAMES),
        }
    }

    /// Counts a call as open until the returned guard is dropped.
    pub fn begin(&self) -> OpenCall {
        self.open.inc();
        OpenCall(self.open.clone())
    }

    /// Records the duration of a finished call. `what` (method or route) and `outcome` (status) become label values, so
    /// they must come from a fixed set, never from the text of a client.
    pub fn record_call(&self, what: &str, outcome: &str, duration: Duration) {
        self.duration.with_label_values(&[what, outcome]).observe(duration.as_secs_f64());
    }
}

/// A guard that counts a call as open until it is dropped.
#[derive(Debug)]
pub struct OpenCall(IntGauge);

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Gauges that are read at the time of a scrape, by metric name.
#[derive(Debug, Default)]
pub struct Readings(Vec<(&'static str, &'static str, Vec<Reading>)>);

/// Label names with their values, and the value of the gauge.
type Reading = (Vec<(&'static str, String)>, f64);

impl Readings {
    /// Adds a metric. All `readings` must have the same label names.
    pub fn add(&mut self, name: &'static str, help: &'static str, readings: Vec<Reading>) {
        self.0.push((name, help, readings));
    }

    /// Returns the metrics in the form that Prometheus' encoder takes.
    pub fn families(&self) -> Vec<MetricFamily> {
        self.0.iter().flat_map(|(name, help, readings)| family(name, help, readings)).collect()
    }
}

fn family(name: &str, help: &str, readings: &[Reading]) -> Vec<MetricFamily> {
    // Without a reading, the label names are unknown, and the metric is left out.
    let Some((labels, _)) = readings.first() else { return Vec::new() };
    let labels: Vec<&str> = labels.iter().map(|(name, _)| *name).collect();
    let gauges = prometheus::GaugeVec::new(Opts::new(name, help), &labels).expect(VALID_NAMES);
    for (labels, value) in readings {
        gauges.with(&labels.iter().map(|(name, value)| (*name, value.as_str())).collect::<HashMap<_, _>>()).set(*value);
    }
    gauges.collect()
}
