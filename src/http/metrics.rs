//! `GET /metrics`: counters of the server and gauges of its data, for Prometheus. The middleware of this module records
//! the duration of requests.
//!
//! **Invariant**: a scrape reads the latest quotes and no block of the store, so that its duration does not grow with
//! the history.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus::process_collector::ProcessCollector;
use prometheus::{Registry, TEXT_FORMAT, TextEncoder};

use super::Site;
use crate::domain::{Source, Timestamp};
use crate::ingest::Ingest;
use crate::latest_quotes::{LatestQuote, LatestQuotes, RateState};
use crate::metrics::{AccessMetrics, BackupMetrics, CallMetrics, FollowMetrics, OpenCall, Readings};
use crate::sources::SourceTable;
use crate::store::{View, disk_usage};

/// The label of all requests whose path has no route.
const UNKNOWN_ROUTE: &str = "unknown";
/// The label in place of a status if the client disconnected before the response began.
const DISCONNECTED: &str = "left";

/// All metrics of `/metrics`.
pub struct Scraped {
    registry: Registry,
    requests: CallMetrics,
    /// The directory of the store.
    directory: PathBuf,
}

impl Scraped {
    /// Collects the metrics of `ingest`, of gRPC calls, of followed publishers (`feeds`), of access, of backups, of HTTP requests, of the
    /// process and of the store in `directory`.
    ///
    /// # Errors
    /// Returns [`prometheus::Error`] if two metrics have the same name.
    pub fn new(
        ingest: &Ingest,
        calls: CallMetrics,
        feeds: FollowMetrics,
        (access, backups): (AccessMetrics, BackupMetrics),
        directory: PathBuf,
    ) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = CallMetrics::http();
        registry.register(Box::new(ingest.metrics()))?;
        registry.register(Box::new(calls))?;
        registry.register(Box::new(feeds))?;
        registry.register(Box::new(access))?;
        registry.register(Box::new(backups))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(Self { registry, requests, directory })
    }

    /// Returns the metrics in Prometheus' text format. `live_streams` is the number of open streams of live updates.
    /// Blocks the thread.
    fn text(
        &self,
        ingest: &Ingest,
        (sources, now): (&SourceTable, Timestamp),
        live_streams: usize,
    ) -> Result<String, prometheus::Error> {
        // Updates the gauge of queued ticks.
        ingest.metrics();
        let view = ingest.view();
        let mut readings = Readings::default();
        add_server(&mut readings, &view, ingest.poisoned().is_none(), now);
        readings.add(
            "silkrate_live_streams",
            "Open streams of live updates of the web page. The windows of a browser share a stream.",
            vec![(Vec::new(), as_double(live_streams as u64))],
        );
        add_rates(&mut readings, &view.latest_quotes);
        add_series(&mut readings, &view);
        add_quarantine(&mut readings, &view);
        add_archived(&mut readings, &view);
        add_followed(&mut readings, sources);
        match disk_usage(&self.directory) {
            Ok(parts) => readings.add(
                "silkrate_store_bytes",
                "Bytes of the store on disk, by part.",
                parts.into_iter().map(|(part, bytes)| (vec![("part", part.to_owned())], as_double(bytes))).collect(),
            ),
            // The metric is omitted, because a dashboard shows a missing value but not the age of a value.
            Err(error) => tracing::warn!(%error, "cannot read the size of the store"),
        }
        let mut families = self.registry.gather();
        families.extend(readings.families());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new().encode_to_string(&families)
    }
}

/// Returns seconds since 1970, Prometheus' form of times.
fn seconds(time: Timestamp) -> f64 {
    let (seconds, nanos) = time.to_parts();
    // All stored times are after 1970.
    std::time::Duration::new(u64::try_from(seconds).unwrap_or(0), nanos.unsigned_abs()).as_secs_f64()
}

#[allow(clippy::cast_precision_loss, reason = "counts and bytes far below 2^53")]
fn as_double(number: u64) -> f64 {
    number as f64
}

fn add_server(readings: &mut Readings, view: &View, is_writing: bool, now: Timestamp) {
    let one = |value: f64| vec![(Vec::new(), value)];
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    readings.add("silkrate_build_info", "Always 1; the label has the version.", vec![(version, 1.0)]);
    readings.add(
        "silkrate_writer_up",
        "1 while the writer accepts ticks; 0 after a write has failed.",
        one(f64::from(is_writing)),
    );
    readings.add("silkrate_sequence", "Sequence of the newest visible commit.", one(as_double(view.commit.sequence)));
    readings.add(
        "silkrate_recorded_timestamp_seconds",
        "Recorded time of the newest visible commit.",
        one(seconds(view.commit.recorded_time)),
    );
    let ahead_us = view.commit.recorded_time.micros_since(now).max(0);
    readings.add(
        "silkrate_recorded_time_ahead_seconds",
        "Time by which the newest recorded time is ahead of the clock; 0 if it is not ahead.",
        one(std::time::Duration::from_micros(ahead_us.unsigned_abs()).as_secs_f64()),
    );
    if let Some(time) = view.latest_quotes.last_ingest_time {
        readings.add(
            "silkrate_last_ingest_timestamp_seconds",
            "Recorded time of the newest commit with ticks.",
            one(seconds(time)),
        );
    }
}

fn labels(quote: &LatestQuote) -> Vec<(&'static str, String)> {
    vec![("pair", quote.series.pair.to_string()), ("source", quote.series.source.to_string())]
}

fn add_rates(readings: &mut Readings, latest_quotes: &LatestQuotes) {
    let mut each = |name, help, read: &dyn Fn(&LatestQuote) -> Option<f64>| {
        let found = latest_quotes.quotes.iter().filter_map(|quote| Some((labels(quote), read(quote)?))).collect();
        readings.add(name, help, found);
    };
    // Prometheus has only doubles. No other response is computed from this double.
    each(
        "silkrate_rate",
        "The latest rate: units of the quote currency for one unit of the base currency.",
        &|quote| quote.run.value.rate.to_string().parse().ok(),
    );
    each(
        "silkrate_rate_last_observed_timestamp_seconds",
        "Time of the last observation of the latest rate.",
        &|quote| Some(seconds(quote.run.last_observed_time)),
    );
    each(
        "silkrate_rate_stale_timestamp_seconds",
        "Time at which the latest rate becomes stale unless it is observed again.",
        &|quote| Some(seconds(quote.stale_time)),
    );
    each(
        "silkrate_rate_moved_timestamp_seconds",
        "Time of the last move of the rate; absent if it never moved.",
        &|quote| quote.moved_time.map(seconds),
    );
    let states = latest_quotes.quotes.iter().flat_map(|quote| {
        RateState::ALL.map(|state| {
            let mut labels = labels(quote);
            labels.push(("state", state.name().to_owned()));
            (labels, f64::from(quote.state == state))
        })
    });
    readings.add("silkrate_rate_state", "1 for the current state of a rate, 0 for the other states.", states.collect());
}

fn add_series(readings: &mut Readings, view: &View) {
    let totals: Vec<_> = view
        .series()
        .filter_map(|series| {
            // The newest totals are in memory and need no block.
            let totals = series.totals(Timestamp::MAX).ok()??;
            let key = series.key();
            Some((vec![("pair", key.pair.to_string()), ("source", key.source.to_string())], totals))
        })
        .collect();
    let mut each = |name, help, count: fn(&crate::store::SeriesTotals) -> u64| {
        let counts = totals.iter().map(|(labels, totals)| (labels.clone(), as_double(count(totals))));
        readings.add(name, help, counts.collect());
    };
    each("silkrate_series_runs", "Runs of a series.", |totals| totals.run_count);
    each("silkrate_series_observations", "Observed instants of a series.", |totals| totals.observation_count);
    each("silkrate_series_revisions", "Revisions of a series.", |totals| totals.revision_count);
}

/// Adds the number of held ticks by source. A source with a series but without held ticks has the value 0.
fn add_quarantine(readings: &mut Readings, view: &View) {
    let mut held: BTreeMap<String, usize> = view.series().map(|series| (series.key().source.to_string(), 0)).collect();
    for (key, count) in view.quarantine().held_by_series() {
        *held.entry(key.source.to_string()).or_default() += count;
    }
    let held = held.into_iter().map(|(source, count)| (vec![("source", source)], as_double(count as u64)));
    readings.add(
        "silkrate_quarantined_ticks",
        "Ticks held in quarantine because their rate is too far from the rate in force, until they are released or discarded.",
        held.collect(),
    );
}

/// Adds whether each source is archived, so that alerts can leave it out.
fn add_archived(readings: &mut Readings, view: &View) {
    let sources: BTreeSet<_> = view.series().map(|series| series.key().source.clone()).collect();
    let is_archived = |source: Source| {
        let value = f64::from(view.archived().is_archived(&source, Timestamp::MAX));
        (vec![("source", source.to_string())], value)
    };
    readings.add(
        "silkrate_source_archived",
        "1 for an archived source, 0 for the other sources with series.",
        sources.into_iter().map(is_archived).collect(),
    );
}

/// Adds whether the server polls each publisher, so that the alert for a dead feed leaves out sources that others send.
fn add_followed(readings: &mut Readings, sources: &SourceTable) {
    let followed = sources.named().filter_map(|source| {
        let feed = sources.of(source).feed.as_ref()?;
        Some((vec![("source", source.to_string())], f64::from(feed.is_followed.value)))
    });
    readings.add(
        "silkrate_source_followed",
        "1 for a publisher that the server polls, 0 for the other publishers that it can poll.",
        followed.collect(),
    );
}

/// `GET /metrics`.
pub(super) async fn scrape(State(site): State<Site>) -> Response {
    let live_streams = site.live_streams.taken();
    let read = move || site.scraped.text(&site.ingest, (site.rates.sources(), site.rates.now()), live_streams);
    let answer = tokio::task::spawn_blocking(read).await;
    match answer {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Ok(Err(error)) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write metrics: {error}\n")).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot collect metrics: {error}\n")).into_response(),
    }
}

/// Middleware that records the duration of every request under its route. Requests without a route share one label,
/// because a label must not contain what a client sent.
pub(super) async fn measure(State(site): State<Site>, request: Request, next: Next) -> Response {
    let mut timed = Timed {
        requests: site.scraped.requests.clone(),
        _open: site.scraped.requests.begin(),
        route: request.extensions().get::<MatchedPath>().cloned(),
        begun: Instant::now(),
        status: None,
    };
    let response = next.run(request).await;
    timed.status = Some(response.status());
    response
}

/// A request in progress. It is counted on drop, because the future of a request is dropped if its client disconnects.
struct Timed {
    requests: CallMetrics,
    _open: OpenCall,
    route: Option<MatchedPath>,
    begun: Instant,
    status: Option<StatusCode>,
}

impl Drop for Timed {
    fn drop(&mut self) {
        let route = self.route.as_ref().map_or(UNKNOWN_ROUTE, MatchedPath::as_str);
        let status = self.status.as_ref().map_or(DISCONNECTED, StatusCode::as_str);
        self.requests.record_call(route, status, self.begun.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use prometheus::core::Collector as _;

    use super::*;

    #[test]
    fn request_of_disconnected_client_is_counted() {
        let requests = CallMetrics::http();
        let timed = |status| Timed {
            requests: requests.clone(),
            _open: requests.begin(),
            route: None,
            begun: Instant::now(),
            status,
        };
        drop(timed(Some(StatusCode::OK)));
        drop(timed(None));
        let text = TextEncoder::new().encode_to_string(&requests.collect()).unwrap();
        for status in ["200", "left"] {
            let line = format!("silkrate_http_request_seconds_count{{route=\"unknown\",status=\"{status}\"}} 1");
            assert!(text.contains(&line), "no {line} in {text}");
        }
        assert!(text.contains("silkrate_http_open_requests 0"), "{text}");
    }
}
