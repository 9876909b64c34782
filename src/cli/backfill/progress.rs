//! Progress over days, on a terminal only.

use std::time::Instant;

use chrono::NaiveDate;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::eta::left;

/// A bar over the days that are done; hidden where standard error is no terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    begun: Instant,
}

impl Progress {
    pub(super) fn new(days: usize) -> Self {
        let bar = ProgressBar::new(u64::try_from(days).unwrap_or(u64::MAX));
        // The default style stands in where the template does not parse; it always does.
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} days  {msg}") {
            bar.set_style(style);
        }
        Self { bar, begun: Instant::now() }
    }

    /// One more, which was this.
    pub(super) fn done(&self, day: NaiveDate) {
        self.bar.inc(1);
        let left =
            self.bar.length().map_or_else(String::new, |all| left(self.bar.position(), all, self.begun.elapsed()));
        self.bar.set_message(format!("{day}{left}"));
    }
}

impl Drop for Progress {
    /// Errors and summaries are printed on a clean line.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
