//! What the latest quotes did lately: the change since each one's last move, and over windows up to now.
//!
//! **Invariants**: all of it is of one commit. What cannot be read of one series is said for that one, and hides no other.
//! A rate that the feed was silent about is nobody's rate of that moment: no change is told from it.

use std::sync::Arc;

use super::rate_intervals::items;
use super::window::window_start;
use super::{Answer, QueryError, Reader, check_cancelled};
use crate::analysis::{Derived, PercentChange};
use crate::domain::{Run, Span, Timestamp};
use crate::latest_quotes::LatestQuote;
use crate::store::SeriesView;

/// The change of a quote over a window that ends now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WindowChange {
    /// From the rate in force when the window began.
    Change(PercentChange),
    /// Nothing was observed within the window, so that nothing is known of it.
    NotObserved,
    /// The window began in a silence longer than the source's stale limit: what the rate was then is not known.
    SilentThen {
        /// The last observation before it.
        since: Timestamp,
    },
    /// The window began before the first quote.
    NoQuoteYet,
    /// The stored range that it needs cannot be read.
    Unreadable,
}

/// A latest quote, and what it did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuoteChanges {
    /// As the latest quotes has it.
    pub quote: Arc<LatestQuote>,
    /// From the rate before; none if it never moved.
    pub since_move: Option<PercentChange>,
    /// The last observation before a silence in which it moved, at a time that nobody saw and maybe more than once;
    /// none if it was seen to move, or that cannot be read.
    pub silent_before_move: Option<Timestamp>,
    /// Over the windows asked for, in their order.
    pub over: Vec<WindowChange>,
}

impl Reader {
    /// The first `limit` latest quotes, in order of series, with their changes over `windows` up to now.
    ///
    /// # Errors
    /// A window that the calendar does not hold, or the caller gone.
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

    /// The change of a latest quote from `start` up to now; of its inverse, if `inverted`.
    ///
    /// # Errors
    /// The caller gone.
    pub fn change_since(
        &self,
        quote: &LatestQuote,
        start: Timestamp,
        inverted: bool,
    ) -> Result<WindowChange, QueryError> {
        if quote.run.last_observed_time < start {
            return Ok(WindowChange::NotObserved);
        }
        self.told(quote, self.change_from(quote, start, inverted)).map(|told| told.unwrap_or(WindowChange::Unreadable))
    }

    /// The last observation before a silence in which `quote` moved; none if it was seen to move, or never did, or that
    /// cannot be read.
    ///
    /// # Errors
    /// The caller gone.
    pub fn silent_before_move(&self, quote: &LatestQuote) -> Result<Option<Timestamp>, QueryError> {
        let (Some(moved), Some(series)) = (quote.moved_time, self.view.find(&quote.series)) else { return Ok(None) };
        let before = series.run_at(moved.saturating_add_us(-1), self.view.commit.recorded_time);
        let silent = before.map_err(QueryError::from).and_then(|run| match run {
            Some(run) => self.silent_since(series, &run, moved),
            None => Ok(None),
        });
        self.told(quote, silent).map(Option::flatten)
    }

    /// What was read of a series; none, and a line in the log, if it cannot be.
    fn told<T>(&self, quote: &LatestQuote, read: Result<T, QueryError>) -> Result<Option<T>, QueryError> {
        check_cancelled(&self.cancel)?;
        match read {
            Ok(told) => Ok(Some(told)),
            Err(error) => {
                tracing::error!(series = %quote.series, %error, "a change cannot be told");
                Ok(None)
            }
        }
    }

    fn change_from(&self, quote: &LatestQuote, start: Timestamp, inverted: bool) -> Result<WindowChange, QueryError> {
        let Some(series) = self.view.find(&quote.series) else { return Ok(WindowChange::NoQuoteYet) };
        let Some(run) = series.run_at(start, self.view.commit.recorded_time)? else {
            return Ok(WindowChange::NoQuoteYet);
        };
        if let Some(since) = self.silent_since(series, &run, start)? {
            return Ok(WindowChange::SilentThen { since });
        }
        let [from, to] = [run.value.rate, quote.run.value.rate].map(|rate| {
            let direct = Derived::direct(rate);
            if inverted { direct.inverse() } else { direct }
        });
        Ok(WindowChange::Change(PercentChange::between(&from, &to)))
    }

    /// The last observation before `time`, at which `run` was in force, if that is longer before than the stale limit.
    fn silent_since(
        &self,
        series: &Arc<SeriesView>,
        run: &Run,
        time: Timestamp,
    ) -> Result<Option<Timestamp>, QueryError> {
        let limit_us = self.rules.stale_limit_us(&series.key().source);
        let window_us = series.collapse_window_us();
        let mut last = run.last_observed_time;
        if last > time {
            // No gap within a run is wider than its window; where that is more than the limit, silences may lie there.
            if window_us <= limit_us {
                return Ok(None);
            }
            last = run.first_observed_time;
            let from = last.max(time.saturating_add_us(-window_us));
            for instant in items(series.instants(from, time.saturating_add_us(1)), self.cancel.clone()) {
                last = instant?;
            }
        }
        Ok((time.micros_since(last) > limit_us).then_some(last))
    }
}
