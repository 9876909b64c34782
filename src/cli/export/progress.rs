//! The progress bar of an export.

use std::time::Instant;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::cli::eta::eta;

/// A progress bar that counts the received rows; hidden if standard error is not a terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    begun: Instant,
    rows_before: u64,
    bytes: u64,
}

impl Progress {
    /// Creates a bar for about `expected_rows` rows; `None` or 0 if the number is unknown.
    pub(super) fn new(expected_rows: Option<u64>) -> Self {
        let (bar, template) = match expected_rows.filter(|rows| *rows > 0) {
            Some(rows) => (ProgressBar::new(rows), "{bar:24} {human_pos}/{human_len} rows  {msg}"),
            None => (ProgressBar::no_length(), "{spinner} {human_pos} rows  {msg}"),
        };
        // The template is valid; if it were not, the default style would be used.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, begun: Instant::now(), rows_before: 0, bytes: 0 }
    }

    /// Adds received bytes. `part_rows` is the number of rows of the current part so far.
    pub(super) fn add(&mut self, bytes: usize, part_rows: u64) {
        self.bytes += bytes as u64;
        let rows = self.rows_before + part_rows;
        let per_s = u128::from(rows) * 1_000 / self.begun.elapsed().as_millis().max(1);
        let eta = self.bar.length().map_or_else(String::new, |total| eta(rows, total, self.begun.elapsed()));
        self.bar.set_message(format!("{}, {per_s} rows/s{eta}", HumanBytes(self.bytes)));
        self.set_rows(rows);
    }

    /// Ends a part that has `part_rows` rows.
    pub(super) fn end_part(&mut self, part_rows: u64) {
        self.rows_before += part_rows;
        self.set_rows(self.rows_before);
    }

    /// Shows `rows` and extends the bar if there are more rows than expected.
    fn set_rows(&self, rows: u64) {
        if self.bar.length().is_some_and(|total| total < rows) {
            self.bar.set_length(rows);
        }
        self.bar.set_position(rows);
    }
}

impl Drop for Progress {
    /// Removes the bar, so that errors and summaries start on an empty line.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
