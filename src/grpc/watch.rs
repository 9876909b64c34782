//! `WatchLatestRates`: one stream a watcher, made at the pace of its reader.
//!
//! **Invariants**: a message is made when the connection has room for it, of the newest latest quotes, and never before: what
//! waits for a slow reader is a number, not a backlog, and the writer knows nothing of it. A stream that is silent for
//! its interval sends a heartbeat.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prost::bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

use super::encoded_rates::{EncodedRatesCache, WithRates};
use crate::api::{Rates, ServiceError, WatchQuestion, WatchStep, Watcher};
use crate::latest_quotes::LatestQuotes;
use crate::proto::v1;
use crate::query::{SeriesFilter, latest};

/// Most watchers at once. Each keeps some kilobytes of its stream, however slowly it reads.
pub(super) const WATCHERS_MAX: usize = 10_000;

/// A message to a watcher.
pub(super) type WatchMessage = WithRates<v1::WatchLatestRatesResponse>;

/// What all watchers share.
pub(super) struct Watches {
    rates: Arc<Rates>,
    kept: Arc<EncodedRatesCache>,
    places: Arc<Semaphore>,
    watchers_max: usize,
}

impl Watches {
    /// Of `rates`, with the bytes of `kept`, for at most so many watchers.
    pub(super) fn new(rates: Arc<Rates>, kept: Arc<EncodedRatesCache>, watchers_max: usize) -> Self {
        Self { rates, kept, places: Arc::new(Semaphore::new(watchers_max)), watchers_max }
    }

    /// Begins a watch.
    pub(super) fn open(&self, request: &v1::WatchLatestRatesRequest) -> Result<Watch, ServiceError> {
        let question = self.rates.watch_question(request)?;
        let latest_quotes_updates = self.rates.watch_latest_quotes()?;
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| ServiceError::TooManyWatchers { watchers_max: self.watchers_max })?;
        let WatchQuestion { filter, since_sequence, heartbeat_interval } = question;
        Ok(Watch {
            latest_quotes_updates: WatchStream::from_changes(latest_quotes_updates),
            course: Course::Begins { since_sequence },
            filter,
            heartbeat_interval,
            silent: Box::pin(sleep(heartbeat_interval)),
            rates: Arc::clone(&self.rates),
            kept: Arc::clone(&self.kept),
            _place: place,
        })
    }
}

/// Where a watch stands.
enum Course {
    Begins { since_sequence: u64 },
    Runs(Watcher),
    Over,
}

/// The messages to one watcher.
pub(super) struct Watch {
    latest_quotes_updates: WatchStream<Arc<LatestQuotes>>,
    course: Course,
    filter: SeriesFilter,
    heartbeat_interval: Duration,
    silent: Pin<Box<Sleep>>,
    rates: Arc<Rates>,
    kept: Arc<EncodedRatesCache>,
    _place: OwnedSemaphorePermit,
}

impl Watch {
    /// The first message: a snapshot, or what changed since the caller was last here; if nothing did, that.
    fn begin(&mut self, since_sequence: u64) -> WatchMessage {
        // The newest there is: what its caller was answered for a moment ago is in it, even if the fan-out is behind.
        let latest_quotes = &self.rates.view().latest_quotes;
        let (watcher, step) = Watcher::begin(latest_quotes, since_sequence);
        self.course = Course::Runs(watcher);
        let heartbeat = || WatchMessage {
            message: watcher.message(v1::WatchKind::Heartbeat, self.rates.now()),
            ..Default::default()
        };
        self.message(&watcher, latest_quotes, step).unwrap_or_else(heartbeat)
    }

    /// The message of a step, unless it has nothing to say. A snapshot says that there is nothing, too.
    fn message(&self, watcher: &Watcher, latest_quotes: &Arc<LatestQuotes>, step: WatchStep) -> Option<WatchMessage> {
        let mut message = watcher.message(step.kind, self.rates.now());
        let encoded_rates = if self.filter.is_empty() {
            self.kept.changed(latest_quotes, step.since_sequence)
        } else {
            let rates = latest(latest_quotes, &self.filter, step.since_sequence);
            message.rates = rates.map(|quote| crate::api::convert::latest_rate(quote)).collect();
            Bytes::new()
        };
        let is_empty = encoded_rates.is_empty() && message.rates.is_empty();
        (!is_empty || step.kind == v1::WatchKind::Snapshot).then_some(WatchMessage { encoded_rates, message })
    }

    /// The next message, if a latest quotes brings one.
    fn poll_updates(&mut self, context: &mut Context<'_>) -> Poll<Result<WatchMessage, ServiceError>> {
        loop {
            let Course::Runs(mut watcher) = self.course else { return Poll::Pending };
            match Pin::new(&mut self.latest_quotes_updates).poll_next(context) {
                Poll::Ready(Some(latest_quotes)) => {
                    let step = watcher.next(&latest_quotes);
                    self.course = Course::Runs(watcher);
                    if let Some(message) = step.and_then(|step| self.message(&watcher, &latest_quotes, step)) {
                        return Poll::Ready(Ok(message));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(Err(self.rates.why_closed())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Stream for Watch {
    type Item = Result<WatchMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = match self.course {
            Course::Begins { since_sequence } => self.begin(since_sequence),
            Course::Over => return Poll::Ready(None),
            Course::Runs(watcher) => match self.poll_updates(context) {
                Poll::Ready(Ok(message)) => message,
                Poll::Ready(Err(error)) => {
                    self.course = Course::Over;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Pending => {
                    std::task::ready!(self.silent.as_mut().poll(context));
                    // Boards that held nothing for it may have gone by just now.
                    let watcher = if let Course::Runs(newer) = self.course { newer } else { watcher };
                    WatchMessage {
                        message: watcher.message(v1::WatchKind::Heartbeat, self.rates.now()),
                        ..Default::default()
                    }
                }
            },
        };
        let next = Instant::now() + self.heartbeat_interval;
        self.silent.as_mut().reset(next);
        Poll::Ready(Some(Ok(message)))
    }
}
