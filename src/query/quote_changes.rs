//! Changes of the latest quotes: since the last move of each quote, and over windows that end now.
//!
//! **Invariants**: all changes come from one commit. A series that cannot be read is reported as unreadable, and the
//! other series are returned. No change starts at a time at which the feed was silent, because the rate at that time
//! is unknown.

use std::sync::Arc;

use super::rate_intervals::items;
use super::window::window_start;
use super::{Answer, QueryError, Reader, check_cancelled};
use crate::analysis::{Derived, PercentChange};
use crate::domain::{Run, ScanOrder, Span, Timestamp};
use crate::latest_quotes::{LatestQuote, RateState};
use crate::store::SeriesView;

/// The change of a quote over a window that ends now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WindowChange {
    /// The change from the rate in force at the start of the window.
    Change(PercentChange),
    /// The rate is stale, so it may have moved since its last observation.
    NotObserved,
    /// The window starts in a silence longer than the stale limit of the source, so the rate at its start is unknown.
    SilentAtStart {
        /// The last observation before the silence.
        since: Timestamp,
    },
    /// The window starts before the first quote.
    NoQuoteYet,
    /// Reading the data of the window failed.
    Unreadable,
}

/// A latest quote and its changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuoteChanges {
    /// The latest quote.
    pub quote: Arc<LatestQuote>,
    /// The change from the previous rate; `None` if the rate never moved.
    pub since_move: Option<PercentChange>,
    /// The last observation before a silence, if the last move happened in that silence. The time of such a move is
    /// unknown, and the rate may have moved more than once. `None` if the last move was observed, if the rate never
    /// moved, or if reading the data failed.
    pub silent_before_move: Option<Timestamp>,
    /// The changes over the requested windows, in their order.
    pub over: Vec<WindowChange>,
}

impl Reader {
    /// Returns the first `limit` latest quotes, sorted by series, with their changes over `windows` up to now.
    ///
    /// # Errors
    /// `InvalidArgument` if a window is empty or starts before the year 1; `Cancelled` after cancellation.
    pub fn quote_changes(&self, windows: &[Span], limit: usize) -> Result<Answer<Vec<QuoteChanges>>, QueryError> {
        let as_of = self.as_of(None)?;
        let starts: Vec<Timestamp> =
            windows.iter().map(|window| window_start(*window, as_of.now)).collect::<Result<_, _>>()?;
        let mut rows = Vec::new();
        for quote in self.view.latest_quotes.quotes.iter().take(limit) {
            check_cancelled(&self.cancel)?;
            let end = Derived::direct(quote.run.value.rate);
            let since_move = quote.previous_rate.map(|before| PercentChange::between(&Derived::direct(before), &end));
            let silent_before_move = self.silent_before_move(quote)?;
            let over = starts.iter().map(|start| self.change_since(quote, *start, false)).collect::<Result<_, _>>()?;
            rows.push(QuoteChanges { quote: Arc::clone(quote), since_move, silent_before_move, over });
        }
        Ok(Answer { commit: as_of.commit, body: rows })
    }

    /// Returns the change of a latest quote from `start` to now, or the change of its inverse if `inverted`.
    ///
    /// # Errors
    /// `Cancelled` after cancellation.
    pub fn change_since(
        &self,
        quote: &LatestQuote,
        start: Timestamp,
        inverted: bool,
    ) -> Result<WindowChange, QueryError> {
        if quote.state == RateState::Stale {
            return Ok(WindowChange::NotObserved);
        }
        let change = self.ok_or_logged(quote, self.read_change(quote, start, inverted))?;
        Ok(change.unwrap_or(WindowChange::Unreadable))
    }

    /// Returns the last observation before the silence in which `quote` moved. Returns `None` if the last move of the
    /// quote was observed, if the quote never moved, or if reading the data failed.
    ///
    /// # Errors
    /// `Cancelled` after cancellation.
    pub fn silent_before_move(&self, quote: &LatestQuote) -> Result<Option<Timestamp>, QueryError> {
        let (Some(moved), Some(series)) = (quote.moved_time, self.view.find(&quote.series)) else { return Ok(None) };
        let before = series.run_at(moved.saturating_add_us(-1), self.view.commit.recorded_time);
        let silent = before.map_err(QueryError::from).and_then(|run| match run {
            Some(run) => self.silent_since(series, &run, moved),
            None => Ok(None),
        });
        self.ok_or_logged(quote, silent).map(Option::flatten)
    }

    /// Returns the value of `read`, or logs its error and returns `None`.
    fn ok_or_logged<T>(&self, quote: &LatestQuote, read: Result<T, QueryError>) -> Result<Option<T>, QueryError> {
        check_cancelled(&self.cancel)?;
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                tracing::error!(series = %quote.series, %error, "cannot read the change of a latest quote");
                Ok(None)
            }
        }
    }

    fn read_change(&self, quote: &LatestQuote, start: Timestamp, inverted: bool) -> Result<WindowChange, QueryError> {
        let Some(series) = self.view.find(&quote.series) else { return Ok(WindowChange::NoQuoteYet) };
        let Some(run) = series.run_at(start, self.view.commit.recorded_time)? else {
            return Ok(WindowChange::NoQuoteYet);
        };
        if let Some(since) = self.silent_since(series, &run, start)? {
            return Ok(WindowChange::SilentAtStart { since });
        }
        let [from, to] = [run.value.rate, quote.run.value.rate].map(|rate| {
            let direct = Derived::direct(rate);
            if inverted { direct.inverse() } else { direct }
        });
        Ok(WindowChange::Change(PercentChange::between(&from, &to)))
    }

    /// Returns the last observation at or before `time` if that observation is older than the stale limit at `time`.
    /// `run` must be the run in force at `time`.
    fn silent_since(
        &self,
        series: &Arc<SeriesView>,
        run: &Run,
        time: Timestamp,
    ) -> Result<Option<Timestamp>, QueryError> {
        let limit_us = self.rules.stale_limit_us(series.key());
        let window_us = series.collapse_window_us();
        let mut last = run.last_observed_time;
        if last > time {
            // A gap inside a run is never longer than the collapse window. It can be a silence only if the window is
            // longer than the stale limit.
            if window_us <= limit_us {
                return Ok(None);
            }
            last = run.first_observed_time;
            let from = last.max(time.saturating_add_us(-window_us));
            for instant in
                items(series.instants(from, time.saturating_add_us(1), ScanOrder::Ascending), self.cancel.clone())
            {
                last = instant?;
            }
        }
        Ok((time.micros_since(last) > limit_us).then_some(last))
    }
}
