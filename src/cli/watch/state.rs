//! The state of a watch: the latest rates and the state of the connection.
//!
//! **Invariant**: ages are current. They count from the server's clock in the last message, and keep counting while the
//! connection is lost.

use std::collections::BTreeMap;
use std::time::Instant;

use super::connection::{SeriesName, WatchEvent};
use super::trend::Trend;
use crate::cli::value::Value;
use crate::domain::{Timestamp, duration_us};
use crate::proto::v1::{LatestRate, Run, WatchKind, WatchLatestRatesResponse};

/// The latest rate and the trend of a series.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) rate: LatestRate,
    pub(super) trend: Trend,
}

impl Row {
    pub(super) fn run(&self) -> Option<&Run> {
        self.rate.run.as_ref()
    }
}

/// The state of the connection.
#[derive(Debug)]
pub(super) enum ConnectionState {
    /// Connected, but no message has arrived yet.
    Waiting,
    /// Connected, and messages arrive.
    Live,
    /// Disconnected.
    Lost {
        /// The time of the first failure.
        since: Instant,
        /// The error of the last attempt.
        problem: String,
        /// The time of the next attempt.
        retry_at: Instant,
    },
}

/// The state of a watch.
#[derive(Debug)]
pub(super) struct WatchState {
    shows_archived: bool,
    /// The series, sorted by pair and source.
    pub(super) rows: BTreeMap<SeriesName, Row>,
    pub(super) connection: ConnectionState,
    /// The time of the server's last ingest; `None` if nothing was ever ingested.
    pub(super) last_ingest: Option<Timestamp>,
    /// The server's clock in the last message, and the local time at which the message arrived.
    server_time: Option<(Timestamp, Instant)>,
}

impl WatchState {
    /// Creates the state before the first message. Archived sources are shown only if `shows_archived` is true.
    pub(super) fn new(shows_archived: bool) -> Self {
        Self {
            shows_archived,
            rows: BTreeMap::new(),
            connection: ConnectionState::Waiting,
            last_ingest: None,
            server_time: None,
        }
    }

    /// Applies an event that happened at `at`.
    pub(super) fn apply(&mut self, event: WatchEvent, at: Instant) {
        match event {
            WatchEvent::Message(message) => self.apply_message(message, at),
            WatchEvent::History(series, rates) => {
                if let Some(row) = self.rows.get_mut(&series) {
                    row.trend.replace(rates.iter().map(String::as_str));
                }
            }
            WatchEvent::Lost { problem, retry_in } => {
                let since = match self.connection {
                    ConnectionState::Lost { since, .. } => since,
                    ConnectionState::Waiting | ConnectionState::Live => at,
                };
                self.connection = ConnectionState::Lost { since, problem, retry_at: at + retry_in };
            }
        }
    }

    fn apply_message(&mut self, message: WatchLatestRatesResponse, at: Instant) {
        self.connection = ConnectionState::Live;
        self.last_ingest = time(message.last_ingest_time.as_ref());
        if let Some(now) = time(message.server_time.as_ref()) {
            self.server_time = Some((now, at));
        }
        if message.kind() == WatchKind::Snapshot {
            self.rows.clear();
        }
        for rate in message.rates {
            let Some(run) = &rate.run else { continue };
            if rate.archived && !self.shows_archived {
                self.rows.remove(&(run.pair.clone(), run.source.clone()));
                continue;
            }
            let row = self.rows.entry((run.pair.clone(), run.source.clone())).or_default();
            if row.rate.run.is_none() {
                // The message contains only the previous rate. Older rates arrive in a `History` event.
                row.trend.replace(rate.previous_rate.as_deref().into_iter());
            }
            row.trend.push(&run.rate);
            row.rate = rate;
        }
    }

    /// Returns the server's time at the local time `at`; `None` before the first message.
    pub(super) fn now(&self, at: Instant) -> Option<Timestamp> {
        let (server_time, arrived_at) = self.server_time?;
        let micros = duration_us(at.saturating_duration_since(arrived_at));
        Some(server_time.saturating_add_us(micros))
    }
}

/// Converts a protobuf time; `None` if it is absent or out of range.
pub(super) fn time(time: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    match Value::time(time) {
        Value::Time(time) => Some(time),
        Value::Absent
        | Value::Text(_)
        | Value::Decimal(_)
        | Value::Count(_)
        | Value::Flag(_)
        | Value::Duration(_)
        | Value::Record(_)
        | Value::List(_) => None,
    }
}
