//! The progress bar of a backfill.

use std::time::Instant;

use chrono::NaiveDate;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::eta::eta;

/// A progress bar that counts the completed days; hidden if standard error is not a terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    begun: Instant,
}

impl Progress {
    pub(super) fn new(days: usize) -> Self {
        let bar = ProgressBar::new(u64::try_from(days).unwrap_or(u64::MAX));
        // The template is valid; if it were not, the default style would be used.
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} days  {msg}") {
            bar.set_style(style);
        }
        Self { bar, begun: Instant::now() }
    }

    /// Counts `day` as done and shows it.
    pub(super) fn done(&self, day: NaiveDate) {
        self.bar.inc(1);
        let eta = self.bar.length().map_or_else(String::new, |all| eta(self.bar.position(), all, self.begun.elapsed()));
        self.bar.set_message(format!("{day}{eta}"));
    }
}

impl Drop for Progress {
    /// Removes the bar, so that errors and summaries start on an empty line.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
