//! Progress of a long file, on a terminal only.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::eta::left;

/// A bar over the bytes whose rows are durable; hidden where standard error is no terminal.
pub(in crate::cli) struct Progress {
    bar: ProgressBar,
    begun: Instant,
}

impl Progress {
    /// Over a file of so many bytes, or of unknown length.
    pub(in crate::cli) fn new(total_bytes: Option<u64>) -> Self {
        let (bar, template) = match total_bytes {
            Some(total) => (ProgressBar::new(total), "{bar:24} {bytes}/{total_bytes}  {msg}"),
            None => (ProgressBar::no_length(), "{spinner} {bytes}  {msg}"),
        };
        // The default style stands in where the template does not parse; it always does.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, begun: Instant::now() }
    }

    /// So many bytes and rows are done.
    pub(in crate::cli) fn update(&self, bytes: u64, rows: u64) {
        let per_s = rate_per_s(rows, self.begun.elapsed().as_millis());
        let done = if rows == 0 { "no rows yet".to_owned() } else { format!("{rows} rows, {per_s}/s") };
        self.show(bytes, &done);
    }

    /// So many bytes have been compared with their checksums: no row has been read.
    pub(in crate::cli) fn update_checked(&self, bytes: u64) {
        self.show(bytes, "checksums");
    }

    fn show(&self, bytes: u64, what: &str) {
        let left = self.bar.length().map_or_else(String::new, |total| left(bytes, total, self.begun.elapsed()));
        self.bar.set_message(format!("{what}{left}"));
        self.bar.set_position(bytes);
    }
}

impl Drop for Progress {
    /// Errors and summaries are printed on a clean line.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn rate_per_s(rows: u64, elapsed_ms: u128) -> u128 {
    u128::from(rows) * 1_000 / elapsed_ms.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_whole_rows_a_second() {
        let check = |rows, elapsed_ms, expect| assert_eq!(rate_per_s(rows, elapsed_ms), expect);
        check(5_000, 2_000, 2_500);
        check(0, 0, 0);
        check(u64::MAX, 1, u128::from(u64::MAX) * 1_000);
    }
}
