//! The connection of a watch, which reconnects after a failure.
//!
//! **Invariants**: after a failure the watch resumes after the last sequence that it passed on, so that no change is
//! missed or repeated. The waits between attempts grow exponentially, with jitter.

use std::time::Duration;

use tokio::sync::mpsc::Sender;

use crate::backoff::{Backoff, jittered};
use crate::cli::client::Client;
use crate::cli::text::clean;
use crate::cli::{CliError, Session};
use crate::domain::duration_us;
use crate::proto::convert::duration;
use crate::proto::v1::{ListRunsRequest, WatchLatestRatesRequest, WatchLatestRatesResponse};

/// The backoff after a failure. A longer wait that the server asks for takes precedence.
const RETRY: Backoff = Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(10) };
/// The maximum delay of a message beyond the heartbeat interval.
const DELAY_MAX: Duration = Duration::from_secs(5);
/// The maximum number of series for which recent rates are requested. Trends of other series start with
/// the previous rate.
const HISTORIES_MAX: usize = 200;
/// The number of runs to request per series: twice the length of a trend, because runs can repeat the previous rate.
const HISTORY_RUNS: i32 = 128;

/// The pair and the source of a series.
pub(super) type SeriesName = (String, String);

/// An event of a watch.
#[derive(Debug)]
pub(super) enum WatchEvent {
    /// A message from the server.
    Message(WatchLatestRatesResponse),
    /// The recent rates of a series, oldest first.
    History(SeriesName, Vec<String>),
    /// The connection broke.
    Lost {
        /// The error, on one line.
        problem: String,
        /// The wait until the next attempt.
        retry_in: Duration,
    },
}

/// The parameters of a watch.
#[derive(Clone, Debug)]
pub(super) struct WatchParameters {
    /// The pairs to watch; empty for all.
    pub(super) pairs: Vec<String>,
    /// The sources to watch; empty for all.
    pub(super) sources: Vec<String>,
    /// The heartbeat interval that the server is asked for.
    pub(super) heartbeat: Duration,
    /// True to request the recent rates of each series.
    pub(super) with_history: bool,
}

/// Watches the latest rates and sends the events to `events`, until the receiver is dropped.
///
/// # Errors
/// Returns the error of the first connection attempt, and later only errors that a retry cannot fix, such as an invalid
/// request.
pub(super) async fn follow(
    session: &Session,
    parameters: WatchParameters,
    events: Sender<WatchEvent>,
) -> Result<(), CliError> {
    // The first attempt is not retried, so that a wrong address is reported at once.
    let mut connection = Connection { client: Some(session.connect().await?), parameters, events, sequence: None };
    let mut failures = 0_u32;
    while !connection.events.is_closed() {
        let sequence_before = connection.sequence;
        let Err(problem) = connection.receive(session).await else { return Ok(()) };
        if problem.is_permanent() {
            return Err(problem);
        }
        failures = if connection.sequence == sequence_before { failures.saturating_add(1) } else { 1 };
        let retry_in = retry_wait(failures, problem.retry_after());
        let problem = clean(problem.to_string().lines().next().unwrap_or_default()).into_owned();
        if connection.events.send(WatchEvent::Lost { problem, retry_in }).await.is_err() {
            return Ok(());
        }
        tokio::time::sleep(retry_in).await;
    }
    Ok(())
}

/// The state of a watch across reconnects.
struct Connection {
    /// The client of the first attempt, until it is used.
    client: Option<Client>,
    parameters: WatchParameters,
    events: Sender<WatchEvent>,
    /// The newest sequence that was sent to `events`.
    sequence: Option<u64>,
}

impl Connection {
    /// Opens a connection and receives messages until it fails. Returns `Ok` when the receiver of events is dropped.
    async fn receive(&mut self, session: &Session) -> Result<(), CliError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => session.connect().await?,
        };
        let heartbeat = self.parameters.heartbeat;
        let request = WatchLatestRatesRequest {
            pairs: self.parameters.pairs.clone(),
            sources: self.parameters.sources.clone(),
            since_sequence: self.sequence.unwrap_or(0),
            heartbeat_interval: Some(duration(duration_us(heartbeat))),
        };
        let mut messages = client.watch(request).await?;
        let mut is_first = true;
        loop {
            let message = client.next_watch_message(&mut messages, heartbeat + DELAY_MAX).await?;
            if is_first && self.parameters.with_history {
                tokio::spawn(send_histories(client.clone(), series_names(&message), self.events.clone()));
            }
            is_first = false;
            let sequence = message.sequence;
            if self.events.send(WatchEvent::Message(message)).await.is_err() {
                return Ok(());
            }
            self.sequence = Some(sequence);
        }
    }
}

/// Returns the series of a message, at most [`HISTORIES_MAX`].
fn series_names(message: &WatchLatestRatesResponse) -> Vec<SeriesName> {
    let runs = message.rates.iter().filter_map(|rate| rate.run.as_ref());
    runs.map(|run| (run.pair.clone(), run.source.clone())).take(HISTORIES_MAX).collect()
}

/// Requests the recent rates of each series and sends them to `events`. Skips a series if its request fails, because
/// trends are not essential.
async fn send_histories(client: Client, series: Vec<SeriesName>, events: Sender<WatchEvent>) {
    for name in series {
        let request = ListRunsRequest {
            pair: name.0.clone(),
            source: name.1.clone(),
            descending: true,
            page_size: HISTORY_RUNS,
            ..ListRunsRequest::default()
        };
        let Ok(page) = client.answer(client.rates().list_runs(client.request(request))).await else { continue };
        let rates = page.runs.into_iter().rev().map(|run| run.rate).collect();
        if events.send(WatchEvent::History(name, rates)).await.is_err() {
            return;
        }
    }
}

/// Returns the wait after `failures` consecutive failures: the longer of the backoff and `requested`. The server asks
/// for the wait `requested`. Jitter adds up to half of the result, so that the clients of a server do not reconnect at
/// the same time.
fn retry_wait(failures: u32, requested: Option<Duration>) -> Duration {
    jittered(RETRY.wait_after(failures).max(requested.unwrap_or_default()), 2, fastrand::u32(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_wait_has_bounds_and_jitter() {
        let requested = Duration::from_secs(30);
        let waits: Vec<Duration> = (1..20).map(|failures| retry_wait(failures, None)).collect();
        for (failures, wait) in (1..).zip(&waits) {
            let expect = RETRY.wait_after(failures);
            assert!((expect..expect * 3 / 2).contains(wait), "{wait:?} for {expect:?}");
        }
        let wait = retry_wait(1, Some(requested));
        assert!((requested..requested * 3 / 2).contains(&wait), "{wait:?} for a requested wait of {requested:?}");
        assert_ne!(waits, (1..20).map(|failures| retry_wait(failures, None)).collect::<Vec<_>>());
    }
}
