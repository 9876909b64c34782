//! The progress bar of a file.

use std::time::Instant;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::cli::eta::eta;

/// A progress bar that counts the bytes of the rows that are stored durably; hidden if standard error is not a
/// terminal.
pub(in crate::cli) struct Progress {
    bar: ProgressBar,
    begun: Instant,
}

impl Progress {
    /// Creates a bar for a file of `total_bytes` bytes; `None` if the length is unknown.
    pub(in crate::cli) fn new(total_bytes: Option<u64>) -> Self {
        let (bar, template) = match total_bytes {
            Some(total) => (ProgressBar::new(total), "{bar:24} {bytes}/{total_bytes}  {msg}"),
            None => (ProgressBar::no_length(), "{spinner} {bytes}  {msg}"),
        };
        // The template is valid; if it were not, the default style would be used.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, begun: Instant::now() }
    }

    /// Shows the number of bytes and rows done.
    pub(in crate::cli) fn update(&self, bytes: u64, rows: u64) {
        let per_s = rate_per_s(rows, self.begun.elapsed().as_millis());
        let done = if rows == 0 { "no rows yet".to_owned() } else { format!("{rows} rows, {per_s}/s") };
        self.show(bytes, &done);
    }

    /// Shows the number of bytes hashed, before any row is read.
    pub(in crate::cli) fn update_checked(&self, bytes: u64) {
        self.show(bytes, "verifying checksums");
    }

    /// Shows the number of bytes done.
    pub(in crate::cli) fn update_bytes(&self, bytes: u64) {
        let per_s = rate_per_s(bytes, self.begun.elapsed().as_millis());
        let per_s = HumanBytes(u64::try_from(per_s).unwrap_or(u64::MAX));
        self.show(bytes, &format!("{per_s}/s"));
    }

    fn show(&self, bytes: u64, what: &str) {
        let eta = self.bar.length().map_or_else(String::new, |total| eta(bytes, total, self.begun.elapsed()));
        self.bar.set_message(format!("{what}{eta}"));
        self.bar.set_position(bytes);
    }
}

impl Drop for Progress {
    /// Removes the bar, so that errors and summaries start on an empty line.
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
    fn rate_is_in_whole_rows_per_second() {
        let check = |rows, elapsed_ms, expect| assert_eq!(rate_per_s(rows, elapsed_ms), expect);
        check(5_000, 2_000, 2_500);
        check(0, 0, 0);
        check(u64::MAX, 1, u128::from(u64::MAX) * 1_000);
    }
}
