//! Progress of an export, on a terminal only.

use std::time::Instant;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::cli::eta::left;

/// A bar over the rows that are on this side; hidden where standard error is no terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    begun: Instant,
    rows_before: u64,
    bytes: u64,
}

impl Progress {
    /// Over about so many rows, or an unknown number of them.
    pub(super) fn new(expected_rows: Option<u64>) -> Self {
        let (bar, template) = match expected_rows.filter(|rows| *rows > 0) {
            Some(rows) => (ProgressBar::new(rows), "{bar:24} {human_pos}/{human_len} rows  {msg}"),
            None => (ProgressBar::no_length(), "{spinner} {human_pos} rows  {msg}"),
        };
        // The default style stands in where the template does not parse; it always does.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, begun: Instant::now(), rows_before: 0, bytes: 0 }
    }

    /// So many bytes came, and the present part has so many rows by now.
    pub(super) fn add(&mut self, bytes: usize, part_rows: u64) {
        self.bytes += bytes as u64;
        let rows = self.rows_before + part_rows;
        let per_s = u128::from(rows) * 1_000 / self.begun.elapsed().as_millis().max(1);
        let left = self.bar.length().map_or_else(String::new, |total| left(rows, total, self.begun.elapsed()));
        self.bar.set_message(format!("{}, {per_s} rows/s{left}", HumanBytes(self.bytes)));
        self.set_rows(rows);
    }

    /// A part is over, with so many rows.
    pub(super) fn end_part(&mut self, part_rows: u64) {
        self.rows_before += part_rows;
        self.set_rows(self.rows_before);
    }

    /// Expected were about so many, and there may be more.
    fn set_rows(&self, rows: u64) {
        if self.bar.length().is_some_and(|total| total < rows) {
            self.bar.set_length(rows);
        }
        self.bar.set_position(rows);
    }
}

impl Drop for Progress {
    /// Errors and summaries are printed on a clean line.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
