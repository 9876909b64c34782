//! The connection of a watch, which outlives a restart of its server.
//!
//! **Invariants**: after a break the watch goes on from the last sequence that was shown, so that nothing is missed and
//! nothing is shown twice; it comes back later after each failure, and never in step with others.

use std::time::Duration;

use tokio::sync::mpsc::Sender;

use crate::backoff::{Backoff, jittered};
use crate::cli::client::Client;
use crate::cli::text::clean;
use crate::cli::{CliError, Session};
use crate::domain::duration_us;
use crate::proto::convert::duration;
use crate::proto::v1::{ListRunsRequest, WatchLatestRatesRequest, WatchLatestRatesResponse};

/// The waits after a break, unless the server asks for a longer one.
const RETRY: Backoff = Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(10) };
/// What a message may take longer than the heartbeats that it stands for.
const LATE_MAX: Duration = Duration::from_secs(5);
/// Series whose recent rates are asked for at one time; others show what comes from now on.
const HISTORIES_MAX: usize = 200;
/// Runs asked for: twice the rates that a trend remembers, since some may only repeat the rate before.
const HISTORY_RUNS: i32 = 128;

/// A pair, and who published it.
pub(super) type SeriesName = (String, String);

/// What happens to a watch.
#[derive(Debug)]
pub(super) enum News {
    /// From the server.
    Message(WatchLatestRatesResponse),
    /// The recent rates of a series, the newest last.
    History(SeriesName, Vec<String>),
    /// The connection broke.
    Lost {
        /// On one line.
        problem: String,
        /// Until it is tried again.
        retry_in: Duration,
    },
}

/// What to watch.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) pairs: Vec<String>,
    pub(super) sources: Vec<String>,
    pub(super) heartbeat: Duration,
    /// Whether the recent rates of each series are wanted.
    pub(super) histories: bool,
}

/// Brings news until nobody takes them, or until coming back would not help.
///
/// # Errors
/// What cannot be mended by waiting: a server that was never there, a request that it refuses.
pub(super) async fn follow(session: &Session, question: Question, news: Sender<News>) -> Result<(), CliError> {
    // Whoever starts a watch with the wrong address should know at once.
    let mut link = Link { client: Some(session.connect().await?), question, news, seen: None };
    let mut failures = 0_u32;
    while !link.news.is_closed() {
        let before = link.seen;
        let Err(problem) = link.attend(session).await else { return Ok(()) };
        if problem.is_hopeless() {
            return Err(problem);
        }
        failures = if link.seen == before { failures.saturating_add(1) } else { 1 };
        let retry_in = retry_wait(failures, problem.retry_after());
        let problem = clean(problem.to_string().lines().next().unwrap_or_default()).into_owned();
        if link.news.send(News::Lost { problem, retry_in }).await.is_err() {
            return Ok(());
        }
        tokio::time::sleep(retry_in).await;
    }
    Ok(())
}

struct Link {
    /// Until it was used.
    client: Option<Client>,
    question: Question,
    news: Sender<News>,
    /// The newest sequence handed on.
    seen: Option<u64>,
}

impl Link {
    /// One connection, to its end. `Ok` once nobody takes the news.
    async fn attend(&mut self, session: &Session) -> Result<(), CliError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => session.connect().await?,
        };
        let heartbeat = self.question.heartbeat;
        let request = WatchLatestRatesRequest {
            pairs: self.question.pairs.clone(),
            sources: self.question.sources.clone(),
            since_sequence: self.seen.unwrap_or(0),
            heartbeat_interval: Some(duration(duration_us(heartbeat))),
        };
        let mut messages = client.watch(request).await?;
        let mut is_first = true;
        loop {
            let message = client.next_of(&mut messages, heartbeat + LATE_MAX).await?;
            if is_first && self.question.histories {
                tokio::spawn(histories(client.clone(), names(&message), self.news.clone()));
            }
            is_first = false;
            let sequence = message.sequence;
            if self.news.send(News::Message(message)).await.is_err() {
                return Ok(());
            }
            self.seen = Some(sequence);
        }
    }
}

fn names(message: &WatchLatestRatesResponse) -> Vec<SeriesName> {
    let runs = message.rates.iter().filter_map(|rate| rate.run.as_ref());
    runs.map(|run| (run.pair.clone(), run.source.clone())).take(HISTORIES_MAX).collect()
}

/// Asks for the recent rates of each. They are for the eye: one that cannot be had is left out.
async fn histories(client: Client, series: Vec<SeriesName>, news: Sender<News>) {
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
        if news.send(News::History(name, rates)).await.is_err() {
            return;
        }
    }
}

/// How long to wait after so many failures in a row: at least as long as the server asks, and up to half as long again,
/// so that all who lost one server do not come back to it at one moment.
fn retry_wait(failures: u32, asked: Option<Duration>) -> Duration {
    jittered(RETRY.wait(failures).max(asked.unwrap_or_default()), 2, fastrand::u32(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_within_their_limits_and_apart() {
        let asked = Duration::from_secs(30);
        let waits: Vec<Duration> = (1..20).map(|failures| retry_wait(failures, None)).collect();
        for (failures, wait) in (1..).zip(&waits) {
            let expect = RETRY.wait(failures);
            assert!((expect..expect * 3 / 2).contains(wait), "{wait:?} for {expect:?}");
        }
        assert!((asked..asked * 3 / 2).contains(&retry_wait(1, Some(asked))), "as the server asks");
        assert_ne!(waits, (1..20).map(|failures| retry_wait(failures, None)).collect::<Vec<_>>());
    }
}
