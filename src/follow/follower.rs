//! One source, followed.
//!
//! **Invariant**: the validators of a body are kept only once all of it is in, so that what was refused is fetched and
//! told of again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::task;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::fetch::{Fetched, Fetcher, Trouble, Validators};
use super::health::Outcome;
use super::poll_schedule::{LastPoll, Schedule, covered_until, is_due, left, next_poll};
use super::source::{FetchTarget, FollowedSource};
use crate::clock::Clock;
use crate::domain::{Health, Poll, SourceError, Timestamp};
use crate::feed::{BankError, BankRules, PageError, TickerPage};
use crate::ingest::batch::TickRules;
use crate::ingest::{Batch, ConflictPolicy, Ingest, IngestError, IngestReport, PageBatch};
use crate::metrics::FollowMetrics;

/// How often the clock is looked at while waiting: it may be set, and the machine may have slept.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What all followers share.
#[derive(Clone)]
pub struct FollowContext {
    /// Where ticks go.
    pub ingest: Ingest,
    /// What they must keep to.
    pub rules: Arc<TickRules>,
    /// By which polls are planned.
    pub clock: Arc<dyn Clock>,
    /// Where polls are counted.
    pub metrics: FollowMetrics,
    /// For the jitter in waits.
    pub seed: u64,
}

impl FollowContext {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// A source that is followed.
pub struct Follower {
    source: FollowedSource,
    base_url: String,
    fetcher: Fetcher,
    context: FollowContext,
    /// Of what was asked for last, by URL.
    validators: HashMap<String, Validators>,
    /// The ticker page as last read, for when it is told to be the same.
    page: Option<TickerPage>,
    schedule: Schedule,
    jitter: Rng,
    failures: u32,
    next: Timestamp,
    health: Option<Health>,
}

/// What came of one question.
struct Answer {
    outcome: Outcome,
    /// In words, for the log.
    words: String,
    /// Whether the next poll comes at the usual pace.
    is_answered: bool,
    /// Whether all of a body is stored.
    is_in: bool,
    retry_after: Option<Duration>,
}

impl Answer {
    fn new(outcome: Outcome, words: impl Into<String>) -> Self {
        let is_answered = matches!(outcome, Outcome::Taken | Outcome::Unchanged | Outcome::Silent);
        Self { outcome, words: words.into(), is_answered, is_in: false, retry_after: None }
    }
}

impl Follower {
    /// Follows `source` at `base_url`; the first poll is due at once.
    pub fn new(source: FollowedSource, base_url: &str, fetcher: Fetcher, context: FollowContext) -> Self {
        let own_seed = source.name().bytes().fold(context.seed, |seed, byte| seed.rotate_left(8) ^ u64::from(byte));
        Self {
            source,
            base_url: base_url.to_owned(),
            fetcher,
            next: context.now(),
            context,
            validators: HashMap::new(),
            page: None,
            schedule: Schedule::of(source),
            jitter: Rng::with_seed(own_seed),
            failures: 0,
            health: None,
        }
    }

    /// The same on another schedule than the one built in.
    #[must_use]
    pub fn with_schedule(self, schedule: Schedule) -> Self {
        Self { schedule, ..self }
    }

    /// When the next poll is due.
    pub fn next_poll(&self) -> Timestamp {
        self.next
    }

    /// How the feed is, once it was polled.
    pub fn health(&self) -> Option<Health> {
        self.health
    }

    /// Polls whenever it is time, until `stop` says so or nobody is there to say it.
    pub async fn run(mut self, stop: CancellationToken) {
        let polling = async {
            loop {
                while !is_due(self.context.now(), self.next) {
                    sleep(LOOK_INTERVAL.min(left(self.context.now(), self.next))).await;
                }
                self.poll().await;
            }
        };
        tokio::select! {
            () = polling => {}
            () = stop.cancelled() => {}
        }
    }

    /// Asks the source once, now, and plans the next time.
    pub async fn poll(&mut self) -> Outcome {
        let begun = self.context.now();
        let targets = self.source.targets(begun);
        let urls: Vec<String> = targets.iter().map(|target| target.url(&self.base_url)).collect();
        self.validators.retain(|url, _| urls.contains(url));
        let mut worst = Answer::new(Outcome::Unchanged, "nothing new");
        for (target, url) in targets.into_iter().zip(&urls) {
            let answer = self.ask(target, url).await;
            let is_over = matches!(answer.outcome, Outcome::Unreachable) || answer.retry_after.is_some();
            // Who asks for patience has it, whatever the question was.
            let retry_after = worst.retry_after.max(answer.retry_after);
            if answer.outcome > worst.outcome {
                worst = answer;
            }
            worst.retry_after = retry_after;
            // Who does not answer, or wants to be left alone, is not asked for more.
            if is_over {
                break;
            }
        }
        self.close(&worst, begun).await;
        worst.outcome
    }

    /// Counts, plans, records and logs.
    async fn close(&mut self, answer: &Answer, begun: Timestamp) {
        let now = self.context.now();
        let (source, outcome) = (self.source, answer.outcome);
        self.context.metrics.polled(source.name(), outcome.label());
        let last = if answer.is_answered {
            self.failures = 0;
            LastPoll::Answered { retry_after: answer.retry_after }
        } else {
            self.failures = self.failures.saturating_add(1);
            LastPoll::Failed { in_a_row: self.failures, retry_after: answer.retry_after }
        };
        self.next = next_poll(self.schedule, now, last, self.jitter.u32(..));
        let Some(health) = outcome.health() else {
            tracing::debug!("{source}: {}", answer.words);
            return;
        };
        self.record(begun, health).await;
        if health == Health::Ok {
            self.context.metrics.succeeded(source.name(), now.micros().div_euclid(Timestamp::SECOND_US));
        }
        if self.health.replace(health) != Some(health) {
            match health {
                Health::Ok | Health::Silent => tracing::info!("feed {source} is {health}: {}", answer.words),
                Health::Refused | Health::Unreachable => tracing::warn!("feed {source} is {health}: {}", answer.words),
            }
        }
    }

    /// Lets the store know what this poll found, so that a gap can be told from a silence.
    async fn record(&self, time: Timestamp, health: Health) {
        let Ok(source) = self.source.source() else { return };
        let poll = Poll { source, time, covered_until: covered_until(self.next), health };
        match self.context.ingest.record_poll(poll).await {
            Ok(()) => {}
            Err(error @ (IngestError::QueueFull | IngestError::Poll(_))) => {
                tracing::warn!("what a poll of {} found is not recorded: {error}", self.source);
            }
            // The writer has said so itself.
            Err(error @ (IngestError::Poisoned(_) | IngestError::Draining)) => {
                tracing::debug!("what a poll of {} found is not recorded: {error}", self.source);
            }
        }
    }

    async fn ask(&mut self, target: FetchTarget, url: &str) -> Answer {
        let known = self.validators.get(url).cloned().unwrap_or_default();
        match self.fetcher.get(url, &known, target.body_bytes_max()).await {
            Ok(Fetched::NotModified) => self.confirm(target).await,
            Ok(Fetched::Body { bytes, validators }) => {
                self.validators.remove(url);
                let answer = self.take_in(target, bytes).await;
                if answer.is_in {
                    self.validators.insert(url.to_owned(), validators);
                }
                answer
            }
            Err(error) => {
                let outcome = match error.trouble() {
                    _ if is_ahead(target) => Outcome::Unchanged,
                    // A page that is gone is no page that is late.
                    Trouble::Absent if target == FetchTarget::Ticker => Outcome::Refused,
                    Trouble::Absent => Outcome::Silent,
                    Trouble::Unreachable => Outcome::Unreachable,
                    Trouble::Refused => Outcome::Refused,
                };
                let retry_after = error.retry_after().map(|after| after.wait_from(self.context.now()));
                Answer { retry_after, ..Answer::new(outcome, error.to_string()) }
            }
        }
    }

    /// What is not modified. A table is of its day and known; the ticker shows now what it showed before.
    async fn confirm(&mut self, target: FetchTarget) -> Answer {
        let now = self.context.now();
        let (FetchTarget::Ticker, Some(mut page)) = (target, self.page.clone()) else {
            return Answer::new(Outcome::Unchanged, "nothing new");
        };
        page.observed_time = now;
        for tick in &mut page.ticks {
            tick.observed_time = now;
        }
        let batch = PageBatch::new(page, ConflictPolicy::Refuse, false, now, &self.context.rules).batch;
        match self.submit(batch).await {
            Answer { outcome: Outcome::Taken, words, .. } => Answer::new(Outcome::Unchanged, words),
            other => other,
        }
    }

    async fn take_in(&mut self, target: FetchTarget, body: Vec<u8>) -> Answer {
        let (source, now, rules) = (self.source, self.context.now(), Arc::clone(&self.context.rules));
        // A page may be megabytes of HTML.
        let read = task::spawn_blocking(move || read(source, target, &body, now, &rules)).await;
        match read {
            Ok(Ok(Read { batch, page })) => {
                self.page = page;
                self.submit(batch).await
            }
            Ok(Err(error)) => {
                let outcome = match error {
                    _ if is_ahead(target) => Outcome::Unchanged,
                    ReadError::Bank(BankError::OtherDate { .. } | BankError::Empty | BankError::NoEntries)
                    | ReadError::Page(PageError::NoQuotes) => Outcome::Silent,
                    ReadError::Bank(_) | ReadError::Page(_) | ReadError::Source(_) => Outcome::Refused,
                };
                Answer::new(outcome, error.to_string())
            }
            Err(error) => Answer::new(Outcome::NotStored, error.to_string()),
        }
    }

    async fn submit(&self, batch: Batch) -> Answer {
        match self.context.ingest.submit(batch).await {
            Ok(report) => judged(&report),
            Err(error) => Answer::new(Outcome::NotStored, error.to_string()),
        }
    }
}

/// Whether it is a table that may not be there yet. What is answered in its place, be it an error, says nothing of the
/// feed: today's table does.
fn is_ahead(target: FetchTarget) -> bool {
    matches!(target, FetchTarget::Bank { is_ahead: true, .. })
}

fn judged(report: &IngestReport) -> Answer {
    let summary = report.summary;
    if let Some(refusal) = report.refusals.first() {
        let words = format!("{} refused, the first because {}", summary.refused_count, refusal.message);
        // The others went in, and the next body may be better.
        return Answer { is_answered: true, ..Answer::new(Outcome::Refused, words) };
    }
    let news = summary.new_run_count + summary.collapsed_count + summary.revised_count;
    let confirmed = summary.collapsed_count + summary.known_count;
    let held = match summary.quarantined_count {
        0 => String::new(),
        count => format!(", {count} held"),
    };
    let words = format!("{} new runs, {confirmed} confirmed{held}", summary.new_run_count);
    Answer { is_in: true, ..Answer::new(if news > 0 { Outcome::Taken } else { Outcome::Unchanged }, words) }
}

/// What a body says.
struct Read {
    batch: Batch,
    page: Option<TickerPage>,
}

/// Why a body is not taken in.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Bank(#[from] BankError),
    #[error(transparent)]
    Page(#[from] PageError),
    #[error(transparent)]
    Source(#[from] SourceError),
}

fn read(
    source: FollowedSource,
    target: FetchTarget,
    body: &[u8],
    now: Timestamp,
    rules: &TickRules,
) -> Result<Read, ReadError> {
    let source = source.source()?;
    match target {
        FetchTarget::Ticker => {
            let page = TickerPage::read(body, &source, Some(now), &rules.currencies)?;
            let PageBatch { batch, page } = PageBatch::new(page, ConflictPolicy::Refuse, false, now, rules);
            Ok(Read { batch, page: Some(page) })
        }
        FetchTarget::Bank { request, .. } => {
            let minimum_places = rules.minimum_places.get(&source).copied();
            let table = request.read(body, &BankRules { served: &rules.currencies, minimum_places })?;
            Ok(Read { batch: Batch::of_table(&table, &source, ConflictPolicy::Refuse, now, rules), page: None })
        }
    }
}
