//! The follower of one source: polls it, and passes its ticks to the writer.
//!
//! **Invariant**: the validators of a body are kept for conditional requests only after all of its ticks are stored. A
//! refused body is therefore fetched and reported again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::fetch::{FetchErrorKind, Fetched, Fetcher, Validators};
use super::health::Outcome;
use super::poll_schedule::{LastPoll, Schedule, covered_until, is_due, next_poll, time_until};
use super::source::{FetchTarget, FollowedSource};
use crate::audit::{Audit, submit_own};
use crate::clock::Clock;
use crate::domain::{Health, Poll, SeriesKey, SourceError, Timestamp, format_duration};
use crate::feed::{BankError, BankRules, PageError, TickerPage};
use crate::ingest::batch::TickRules;
use crate::ingest::{Batch, ConflictPolicy, Ingest, IngestError, IngestReport, PageBatch};
use crate::metrics::FollowMetrics;

/// Maximum time between two readings of the clock while a follower waits. The clock may be changed meanwhile, and the
/// machine may be suspended.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The values that all followers share.
#[derive(Clone)]
pub struct FollowContext {
    /// Stores ticks and polls.
    pub ingest: Ingest,
    /// Rules for validation of ticks.
    pub rules: Arc<TickRules>,
    /// Clock for poll schedules and observed times.
    pub clock: Arc<dyn Clock>,
    /// Counts polls.
    pub metrics: FollowMetrics,
    /// Seed of the random numbers for jitter.
    pub seed: u64,
    /// The audit log, in which the changes of polls are recorded.
    pub audit: Option<Audit>,
}

impl FollowContext {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Polls one source.
pub struct Follower {
    source: FollowedSource,
    base_url: String,
    fetcher: Fetcher,
    context: FollowContext,
    /// Validators of the last stored bodies, by URL.
    validators: HashMap<String, Validators>,
    /// The ticker page of the last body. A 304 response confirms the rates of this page.
    page: Option<TickerPage>,
    schedule: Schedule,
    jitter: Rng,
    /// Number of failures in a row.
    failures: u32,
    /// Time of the next poll.
    next: Timestamp,
    /// Health of the last poll; none before the first one.
    health: Option<Health>,
    /// Stale limits of single series, microseconds.
    stale_limits_us: Arc<BTreeMap<SeriesKey, i64>>,
    /// The last warning about the validity of rates, so that a warning is logged once.
    validity_warning: Option<String>,
}

/// Result of one fetch target, or of the whole poll.
struct TargetResult {
    outcome: Outcome,
    /// Details for the log.
    message: String,
    /// True if the poll interval applies to the next poll; false if backoff applies.
    is_answered: bool,
    /// True if all ticks of the body are stored.
    is_stored: bool,
    retry_after: Option<Duration>,
}

impl TargetResult {
    fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        let is_answered = matches!(outcome, Outcome::Taken | Outcome::Unchanged | Outcome::Silent);
        Self { outcome, message: message.into(), is_answered, is_stored: false, retry_after: None }
    }
}

impl Follower {
    /// Makes a follower of `source` at `base_url`. The first poll is due immediately.
    pub fn new(source: FollowedSource, base_url: &str, fetcher: Fetcher, context: FollowContext) -> Self {
        let source_seed = source.name().bytes().fold(context.seed, |seed, byte| seed.rotate_left(8) ^ u64::from(byte));
        Self {
            source,
            base_url: base_url.to_owned(),
            fetcher,
            next: context.now(),
            context,
            validators: HashMap::new(),
            page: None,
            schedule: Schedule::of(source),
            jitter: Rng::with_seed(source_seed),
            failures: 0,
            health: None,
            stale_limits_us: Arc::default(),
            validity_warning: None,
        }
    }

    /// Replaces the built-in poll schedule.
    #[must_use]
    pub fn with_schedule(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    /// Sets the stale limits of single series, with which the validity that a bank declares is compared.
    #[must_use]
    pub fn with_stale_limits(self, stale_limits_us: Arc<BTreeMap<SeriesKey, i64>>) -> Self {
        Self { stale_limits_us, ..self }
    }

    /// The time of the next poll.
    pub fn next_poll(&self) -> Timestamp {
        self.next
    }

    /// The health of the feed; `None` before the first poll.
    pub fn health(&self) -> Option<Health> {
        self.health
    }

    /// Polls according to the schedule until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let polling = async {
            loop {
                while !is_due(self.context.now(), self.next) {
                    sleep(CLOCK_CHECK_INTERVAL.min(time_until(self.context.now(), self.next))).await;
                }
                self.poll().await;
            }
        };
        tokio::select! {
            () = polling => {}
            () = stop.cancelled() => {}
        }
    }

    /// Polls the source once, without waiting, and schedules the next poll.
    pub async fn poll(&mut self) -> Outcome {
        let started = self.context.now();
        let targets = self.source.targets(started);
        let urls: Vec<String> = targets.iter().map(|target| target.url(&self.base_url)).collect();
        self.validators.retain(|url, _| urls.contains(url));
        let mut worst = TargetResult::new(Outcome::Unchanged, "nothing new");
        for (target, url) in targets.into_iter().zip(&urls) {
            let result = self.fetch(target, url).await;
            let must_stop = matches!(result.outcome, Outcome::Unreachable) || result.retry_after.is_some();
            // The longest `Retry-After` of all targets applies to the whole source.
            let retry_after = worst.retry_after.max(result.retry_after);
            if result.outcome > worst.outcome {
                worst = result;
            }
            worst.retry_after = retry_after;
            // Do not send more requests to a publisher that does not answer or that sent `Retry-After`.
            if must_stop {
                break;
            }
        }
        self.finish_poll(&worst, started).await;
        worst.outcome
    }

    /// Counts the poll, schedules the next poll, records the health, and logs a change of health.
    async fn finish_poll(&mut self, result: &TargetResult, started: Timestamp) {
        let now = self.context.now();
        let (source, outcome) = (self.source, result.outcome);
        self.context.metrics.count_poll(source.name(), outcome.label());
        let last = if result.is_answered {
            self.failures = 0;
            LastPoll::Answered { retry_after: result.retry_after }
        } else {
            self.failures = self.failures.saturating_add(1);
            LastPoll::Failed { failures: self.failures, retry_after: result.retry_after }
        };
        self.next = next_poll(self.schedule, now, last, self.jitter.u32(..));
        let Some(health) = outcome.health() else {
            tracing::debug!("{source}: {}", result.message);
            return;
        };
        self.record(started, health).await;
        if health == Health::Ok {
            self.context.metrics.set_last_success(source.name(), now.micros().div_euclid(Timestamp::SECOND_US));
        }
        if self.health.replace(health) != Some(health) {
            match health {
                Health::Ok | Health::Silent => tracing::info!("feed {source} is {health}: {}", result.message),
                Health::Refused | Health::Unreachable => {
                    tracing::warn!("feed {source} is {health}: {}", result.message);
                }
            }
        }
    }

    /// Records the health in the store, so that a gap report can distinguish a failed feed from an unchanged rate.
    async fn record(&self, time: Timestamp, health: Health) {
        let Ok(source) = self.source.source() else { return };
        let poll = Poll { source, time, covered_until: covered_until(self.next), health };
        match self.context.ingest.record_poll(poll).await {
            Ok(()) => {}
            Err(error @ (IngestError::QueueFull | IngestError::Poll(_))) => {
                tracing::warn!("cannot record the result of a poll of {}: {error}", self.source);
            }
            // The writer has already logged this condition.
            Err(error @ (IngestError::Poisoned(_) | IngestError::Draining)) => {
                tracing::debug!("cannot record the result of a poll of {}: {error}", self.source);
            }
        }
    }

    /// Fetches a target with a conditional request and stores its ticks.
    async fn fetch(&mut self, target: FetchTarget, url: &str) -> TargetResult {
        let known = self.validators.get(url).cloned().unwrap_or_default();
        match self.fetcher.get(url, &known, target.body_bytes_max()).await {
            Ok(Fetched::NotModified) => self.confirm_unmodified(target).await,
            Ok(Fetched::Body { bytes, validators }) => {
                self.validators.remove(url);
                let result = self.ingest_body(target, bytes).await;
                if result.is_stored {
                    self.validators.insert(url.to_owned(), validators);
                }
                result
            }
            Err(error) => {
                let outcome = match error.kind() {
                    _ if is_tomorrow(target) => Outcome::Unchanged,
                    // The ticker page is always there, so a missing page is an error.
                    FetchErrorKind::NotFound if target == FetchTarget::Ticker => Outcome::Refused,
                    FetchErrorKind::NotFound => Outcome::Silent,
                    FetchErrorKind::Unreachable => Outcome::Unreachable,
                    FetchErrorKind::Refused => Outcome::Refused,
                };
                let retry_after = error.retry_after().map(|after| after.wait_from(self.context.now()));
                TargetResult { retry_after, ..TargetResult::new(outcome, error.to_string()) }
            }
        }
    }

    /// Handles a 304 Not Modified response. An unmodified table gives no new ticks, because its observed times are
    /// fixed. An unmodified ticker page confirms its rates at the present time.
    async fn confirm_unmodified(&mut self, target: FetchTarget) -> TargetResult {
        let now = self.context.now();
        let (FetchTarget::Ticker, Some(mut page)) = (target, self.page.clone()) else {
            return TargetResult::new(Outcome::Unchanged, "nothing new");
        };
        page.observed_time = now;
        for tick in &mut page.ticks {
            tick.observed_time = now;
        }
        let batch = PageBatch::new(page, ConflictPolicy::Refuse, false, now, &self.context.rules).batch;
        match self.submit(batch).await {
            TargetResult { outcome: Outcome::Taken, message, .. } => TargetResult::new(Outcome::Unchanged, message),
            other => other,
        }
    }

    /// Parses a body and stores its ticks.
    async fn ingest_body(&mut self, target: FetchTarget, body: Vec<u8>) -> TargetResult {
        let (source, now, rules) = (self.source, self.context.now(), Arc::clone(&self.context.rules));
        // A page can be several megabytes of HTML, so parsing must not block the runtime.
        let parsed = task::spawn_blocking(move || parse_body(source, target, &body, now, &rules)).await;
        match parsed {
            Ok(Ok(ParsedBody { batch, page, validities })) => {
                self.page = page;
                self.warn_of_validity(&validities);
                self.submit(batch).await
            }
            Ok(Err(error)) => {
                let outcome = match error {
                    _ if is_tomorrow(target) => Outcome::Unchanged,
                    ParseError::Bank(BankError::OtherDate { .. } | BankError::Empty | BankError::NoEntries)
                    | ParseError::Page(PageError::NoQuotes) => Outcome::Silent,
                    ParseError::Bank(_) | ParseError::Page(_) | ParseError::Source(_) => Outcome::Refused,
                };
                TargetResult::new(outcome, error.to_string())
            }
            Err(error) => TargetResult::new(Outcome::NotStored, error.to_string()),
        }
    }

    /// Logs a warning if the bank declares a rate valid for longer than its stale limit, because the rate would become
    /// stale while it is valid.
    fn warn_of_validity(&mut self, validities: &[Validity]) {
        let warning = validities.iter().find_map(|validity| validity_warning(validity, &self.stale_limits_us));
        if let Some(text) = warning.as_ref().filter(|text| Some(*text) != self.validity_warning.as_ref()) {
            tracing::warn!("{text}");
        }
        if !validities.is_empty() {
            self.validity_warning = warning;
        }
    }

    async fn submit(&self, batch: Batch) -> TargetResult {
        let FollowContext { ingest, audit, .. } = &self.context;
        match submit_own(audit.as_ref(), ingest, "poll", batch).await {
            Ok(report) => result_of(&report),
            Err(error) => TargetResult::new(Outcome::NotStored, error.to_string()),
        }
    }
}

/// Returns true for the table of tomorrow. The bank may not have published this table yet, so a failure to fetch it
/// does not affect the health of the feed.
fn is_tomorrow(target: FetchTarget) -> bool {
    matches!(target, FetchTarget::Bank { is_tomorrow: true, .. })
}

fn result_of(report: &IngestReport) -> TargetResult {
    let summary = report.summary;
    if let Some(refusal) = report.refusals.first() {
        let message = format!("quotes refused: {}; first reason: {}", summary.refused_count, refusal.message);
        // The other ticks are stored, and the next body may be valid, so the poll interval applies.
        return TargetResult { is_answered: true, ..TargetResult::new(Outcome::Refused, message) };
    }
    let changed = summary.new_run_count + summary.collapsed_count + summary.revised_count;
    let confirmed = summary.collapsed_count + summary.known_count;
    let held = match summary.quarantined_count {
        0 => String::new(),
        count => format!(", {count} held"),
    };
    let message = format!("{} new runs, {confirmed} confirmed{held}", summary.new_run_count);
    let outcome = if changed > 0 { Outcome::Taken } else { Outcome::Unchanged };
    TargetResult { is_stored: true, ..TargetResult::new(outcome, message) }
}

/// A series and the number of days for which the bank declares its rate valid.
type Validity = (SeriesKey, u16);

/// Returns the warning for a rate that its bank declares valid for longer than its stale limit.
fn validity_warning((series, valid_days): &Validity, stale_limits_us: &BTreeMap<SeriesKey, i64>) -> Option<String> {
    let limit_us = *stale_limits_us.get(series)?;
    let SeriesKey { pair, source } = series;
    (i64::from(*valid_days) * Timestamp::DAY_US > limit_us).then(|| {
        format!(
            "{source} declares its rate of {pair} valid for {valid_days} d, but the rate becomes stale after {}; set a \
             longer stale_limit in [sources.{source}.pairs.\"{pair}\"] of the configuration file",
            format_duration(limit_us)
        )
    })
}

/// The ticks of a body, and the page if the body is a ticker page.
struct ParsedBody {
    batch: Batch,
    page: Option<TickerPage>,
    /// The validity of each rate for which the bank declares one.
    validities: Vec<Validity>,
}

/// Why a body is refused.
#[derive(Debug, thiserror::Error)]
enum ParseError {
    #[error(transparent)]
    Bank(#[from] BankError),
    #[error(transparent)]
    Page(#[from] PageError),
    #[error(transparent)]
    Source(#[from] SourceError),
}

fn parse_body(
    source: FollowedSource,
    target: FetchTarget,
    body: &[u8],
    now: Timestamp,
    rules: &TickRules,
) -> Result<ParsedBody, ParseError> {
    let source = source.source()?;
    match target {
        FetchTarget::Ticker => {
            let page = TickerPage::read(body, &source, Some(now), &rules.currencies)?;
            let PageBatch { batch, page } = PageBatch::new(page, ConflictPolicy::Refuse, false, now, rules);
            Ok(ParsedBody { batch, page: Some(page), validities: Vec::new() })
        }
        FetchTarget::Bank { request, .. } => {
            let minimum_places = rules.minimum_places.get(&source).copied();
            let table = request.read(body, &BankRules { served: &rules.currencies, minimum_places })?;
            let batch = Batch::of_table(&table, &source, ConflictPolicy::Refuse, now, rules);
            let key = |pair| SeriesKey { pair, source: source.clone() };
            let validities = table.quotes.iter().filter_map(|quote| Some((key(quote.pair), quote.valid_days?)));
            Ok(ParsedBody { batch, page: None, validities: validities.collect() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Pair, Source};

    #[test]
    fn validity_longer_than_the_stale_limit_is_warned_of() {
        let series =
            |pair: &str| SeriesKey { pair: Pair::parse_iso(pair).unwrap(), source: Source::parse("nbkr").unwrap() };
        let limits = BTreeMap::from([(series("UZS/KGS"), 9 * Timestamp::DAY_US)]);
        let warning = |pair: &str, days: u16| validity_warning(&(series(pair), days), &limits);
        assert_eq!(warning("UZS/KGS", 7), None);
        assert_eq!(warning("UZS/KGS", 9), None);
        assert_eq!(
            warning("UZS/KGS", 14).unwrap(),
            "nbkr declares its rate of UZS/KGS valid for 14 d, but the rate becomes stale after 9d; set a longer \
             stale_limit in [sources.nbkr.pairs.\"UZS/KGS\"] of the configuration file"
        );
        // The limit of the source, for a table without a declared validity, is not compared.
        assert_eq!(warning("USD/KGS", 14), None);
    }
}
