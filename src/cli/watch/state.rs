//! What a watch knows: the rates that it holds, and whether they still come.
//!
//! **Invariant**: nothing held grows old unseen: ages count from the server's clock as it was told last, and go on
//! counting while the connection is lost.

use std::collections::BTreeMap;
use std::time::Instant;

use super::connection::{News, SeriesName};
use super::trend::Trend;
use crate::cli::value::Value;
use crate::domain::{Timestamp, duration_us};
use crate::proto::v1::{LatestRate, Run, WatchKind, WatchLatestRatesResponse};

/// One series.
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

/// Whether news come.
#[derive(Debug)]
pub(super) enum Line {
    /// Nothing was heard yet.
    Waiting,
    Live,
    Lost {
        since: Instant,
        problem: String,
        retry_at: Instant,
    },
}

/// What is shown.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) rows: BTreeMap<SeriesName, Row>,
    pub(super) line: Line,
    pub(super) last_ingest: Option<Timestamp>,
    /// The server's clock, and when it was told.
    server_time: Option<(Timestamp, Instant)>,
}

impl Held {
    pub(super) fn new() -> Self {
        Self { rows: BTreeMap::new(), line: Line::Waiting, last_ingest: None, server_time: None }
    }

    /// Takes in what happened at `at`.
    pub(super) fn take(&mut self, news: News, at: Instant) {
        match news {
            News::Message(message) => self.take_message(message, at),
            News::History(series, rates) => {
                if let Some(row) = self.rows.get_mut(&series) {
                    row.trend.refill(rates.iter().map(String::as_str));
                }
            }
            News::Lost { problem, retry_in } => {
                let since = match self.line {
                    Line::Lost { since, .. } => since,
                    Line::Waiting | Line::Live => at,
                };
                self.line = Line::Lost { since, problem, retry_at: at + retry_in };
            }
        }
    }

    fn take_message(&mut self, message: WatchLatestRatesResponse, at: Instant) {
        self.line = Line::Live;
        self.last_ingest = time(message.last_ingest_time.as_ref());
        if let Some(now) = time(message.server_time.as_ref()) {
            self.server_time = Some((now, at));
        }
        if message.kind() == WatchKind::Snapshot {
            self.rows.clear();
        }
        for rate in message.rates {
            let Some(run) = &rate.run else { continue };
            let row = self.rows.entry((run.pair.clone(), run.source.clone())).or_default();
            if row.rate.run.is_none() {
                // All that a change says of the past; the rest of it is asked for apart.
                row.trend.refill(rate.previous_rate.as_deref().into_iter());
            }
            row.trend.push(&run.rate);
            row.rate = rate;
        }
    }

    /// The server's time at `at`, if it was ever told.
    pub(super) fn now(&self, at: Instant) -> Option<Timestamp> {
        let (told, when) = self.server_time?;
        let micros = duration_us(at.saturating_duration_since(when));
        Some(told.saturating_add_us(micros))
    }
}

/// A time of the wire, if it is one.
pub(super) fn time(time: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    match Value::time(time) {
        Value::Time(time) => Some(time),
        Value::Absent
        | Value::Text(_)
        | Value::Decimal(_)
        | Value::Count(_)
        | Value::Flag(_)
        | Value::Length(_)
        | Value::Record(_)
        | Value::List(_) => None,
    }
}
