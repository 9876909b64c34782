//! The call `WatchLatestRates`: one stream per watcher, as fast as the client reads.
//!
//! **Invariants**: a message is built from the newest quotes, and only when the connection has room for it. So the
//! server keeps one sequence number for a slow client and no backlog, and the writer does not wait for clients. A
//! stream that sends no message for its heartbeat interval sends a heartbeat.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

use super::encoded_rates::{EncodedRatesCache, WithRates};
use crate::api::{Caller, CallerSlot, CallerSlots, Rates, ServiceError, WatchRequest, WatchStep, Watcher};
use crate::latest_quotes::LatestQuotes;
use crate::proto::v1;
use crate::query::SeriesFilter;

/// A message of a watch.
pub(super) type WatchMessage = WithRates<v1::WatchLatestRatesResponse>;

/// The shared state of all watches.
pub(super) struct Watches {
    rates: Arc<Rates>,
    cache: Arc<EncodedRatesCache>,
    slots: CallerSlots,
}

impl Watches {
    /// Creates the state of the watches of `rates`. Encoded bytes come from `cache`.
    pub(super) fn new(rates: Arc<Rates>, cache: Arc<EncodedRatesCache>) -> Self {
        let slots = CallerSlots::new(rates.limits().watches_max);
        Self { rates, cache, slots }
    }

    /// Starts a watch.
    ///
    /// # Errors
    /// `InvalidArgument` if the request is invalid; `TooManyWatches` if no slot is free; the error of
    /// [`Rates::close_error`] if no more commits will come.
    pub(super) fn open(&self, request: &v1::WatchLatestRatesRequest) -> Result<Watch, ServiceError> {
        let WatchRequest { filter, since_sequence, heartbeat_interval } = self.rates.watch_request(request)?;
        let latest_quotes_updates = self.rates.watch_latest_quotes()?;
        let watches_max = self.rates.limits().watches_max;
        let slot = self.slots.take(Caller::current()).ok_or(ServiceError::TooManyWatches { watches_max })?;
        Ok(Watch {
            latest_quotes_updates: WatchStream::from_changes(latest_quotes_updates),
            state: State::Start { since_sequence },
            filter,
            heartbeat_interval,
            heartbeat: Box::pin(sleep(heartbeat_interval)),
            rates: Arc::clone(&self.rates),
            cache: Arc::clone(&self.cache),
            _slot: slot,
        })
    }
}

/// The state of a watch.
enum State {
    /// No message has been sent.
    Start { since_sequence: u64 },
    /// The first message has been sent.
    Running(Watcher),
    /// The final status has been sent.
    Ended,
}

/// The stream of messages of one watch.
pub(super) struct Watch {
    latest_quotes_updates: WatchStream<Arc<LatestQuotes>>,
    state: State,
    filter: SeriesFilter,
    heartbeat_interval: Duration,
    /// The timer of the next heartbeat.
    heartbeat: Pin<Box<Sleep>>,
    rates: Arc<Rates>,
    cache: Arc<EncodedRatesCache>,
    _slot: CallerSlot,
}

impl Watch {
    /// Returns the first message: a snapshot, or the changes since the sequence that the client saw, or a heartbeat if
    /// nothing changed.
    fn begin(&mut self, since_sequence: u64) -> WatchMessage {
        // The message must include every commit for which the client got a response, so this function reads the newest
        // view. The quotes from the fan-out task may be of an earlier commit.
        let latest_quotes = &self.rates.view().latest_quotes;
        let (watcher, step) = Watcher::begin(latest_quotes, since_sequence);
        self.state = State::Running(watcher);
        let heartbeat = || WatchMessage {
            message: watcher.message(v1::WatchKind::Heartbeat, self.rates.now()),
            ..Default::default()
        };
        self.message(&watcher, latest_quotes, step).unwrap_or_else(heartbeat)
    }

    /// Returns the message of a step, or `None` if the step has no rates. A snapshot without rates is a message, too.
    fn message(&self, watcher: &Watcher, latest_quotes: &Arc<LatestQuotes>, step: WatchStep) -> Option<WatchMessage> {
        let encoded_rates = self.cache.selected(latest_quotes, &self.filter, step.since_sequence);
        let message = watcher.message(step.kind, self.rates.now());
        let is_needed = !encoded_rates.is_empty() || step.kind == v1::WatchKind::Snapshot;
        is_needed.then_some(WatchMessage { encoded_rates, message })
    }

    /// Polls for the next message with rates.
    fn poll_updates(&mut self, context: &mut Context<'_>) -> Poll<Result<WatchMessage, ServiceError>> {
        loop {
            let State::Running(mut watcher) = self.state else { return Poll::Pending };
            match Pin::new(&mut self.latest_quotes_updates).poll_next(context) {
                Poll::Ready(Some(latest_quotes)) => {
                    let step = watcher.next(&latest_quotes);
                    self.state = State::Running(watcher);
                    if let Some(message) = step.and_then(|step| self.message(&watcher, &latest_quotes, step)) {
                        return Poll::Ready(Ok(message));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(Err(self.rates.close_error())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Stream for Watch {
    type Item = Result<WatchMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = match self.state {
            State::Start { since_sequence } => self.begin(since_sequence),
            State::Ended => return Poll::Ready(None),
            State::Running(watcher) => match self.poll_updates(context) {
                Poll::Ready(Ok(message)) => message,
                Poll::Ready(Err(error)) => {
                    self.state = State::Ended;
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Pending => {
                    std::task::ready!(self.heartbeat.as_mut().poll(context));
                    // `poll_updates` may have skipped commits that change nothing for this watch.
                    let watcher = if let State::Running(newer) = self.state { newer } else { watcher };
                    WatchMessage {
                        message: watcher.message(v1::WatchKind::Heartbeat, self.rates.now()),
                        ..Default::default()
                    }
                }
            },
        };
        let next = Instant::now() + self.heartbeat_interval;
        self.heartbeat.as_mut().reset(next);
        Poll::Ready(Some(Ok(message)))
    }
}
