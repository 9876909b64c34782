//! What the latest quotes did lately: the change since each one's last move, and over windows up to now.
//!
//! **Invariant**: all of it is of one commit. What cannot be read of one series is said for that one, and hides no other.

use std::sync::Arc;

use super::{Answer, QueryError, Reader, Window};
use crate::analysis::{Derived, PercentChange};
use crate::board::LatestQuote;
use crate::domain::Timestamp;

/// The change of a quote over a window that ends now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WindowChange {
    /// From the rate in force when the window began.
    Change(PercentChange),
    /// Nothing was observed within the window, so that nothing is known of it.
    NotObserved,
    /// The window began before the first quote.
    NoQuoteYet,
    /// The stored range that it needs cannot be read.
    Unreadable,
}

/// A latest quote, and what it did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuoteChanges {
    /// As the board has it.
    pub quote: Arc<LatestQuote>,
    /// From the rate before; none if it never moved.
    pub since_move: Option<PercentChange>,
    /// Over the windows asked for, in their order.
    pub over: Vec<WindowChange>,
}

impl Reader {
    /// The first `limit` latest quotes, in order of series, with their changes over `windows` up to now.
    ///
    /// # Errors
    /// A window that the calendar does not hold, or the caller gone.
    pub fn quote_changes(&self, windows: &[Window], limit: usize) -> Result<Answer<Vec<QuoteChanges>>, QueryError> {
        let pin = self.pin(None)?;
        let starts: Vec<Timestamp> = windows.iter().map(|window| window.before(pin.now)).collect::<Result<_, _>>()?;
        let mut rows = Vec::new();
        for quote in self.view.board.quotes.iter().take(limit) {
            self.stop.check()?;
            let end = Derived::direct(quote.run.value.rate);
            let since_move = quote.previous_rate.map(|before| PercentChange::between(&Derived::direct(before), &end));
            let over = starts.iter().map(|start| self.change_since(quote, *start, &end)).collect();
            rows.push(QuoteChanges { quote: Arc::clone(quote), since_move, over });
        }
        Ok(Answer { commit: pin.commit, body: rows })
    }

    fn change_since(&self, quote: &LatestQuote, start: Timestamp, end: &Derived) -> WindowChange {
        let Some(series) = self.view.find(&quote.series) else { return WindowChange::NoQuoteYet };
        if quote.run.last_observed_time < start {
            return WindowChange::NotObserved;
        }
        match series.run_at(start, self.view.commit.recorded_time) {
            Ok(Some(run)) => WindowChange::Change(PercentChange::between(&Derived::direct(run.value.rate), end)),
            Ok(None) => WindowChange::NoQuoteYet,
            Err(error) => {
                tracing::error!(series = %quote.series, %error, "a change cannot be told");
                WindowChange::Unreadable
            }
        }
    }
}
