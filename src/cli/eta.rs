//! How long work will still take, for progress bars.
//!
//! **Invariant**: nothing is said before there is something to judge by.

use std::time::Duration;

use super::text::length;
use crate::domain::Timestamp;

/// Before that a rate says little.
const JUDGED_AFTER: Duration = Duration::from_secs(1);

/// `, about 26 s left`, going by the whole of what is done, which moves less than the last moments do. Empty where
/// nothing is known: at the beginning, and once more is done than was expected.
pub(super) fn left(done: u64, total: u64, elapsed: Duration) -> String {
    if done == 0 || done >= total || elapsed < JUDGED_AFTER {
        return String::new();
    }
    let micros = elapsed.as_micros() * u128::from(total - done) / u128::from(done);
    let micros = i64::try_from(micros).unwrap_or(i64::MAX);
    let about = if micros < Timestamp::SECOND_US { "" } else { "about " };
    format!(", {about}{} left", length(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_by_what_is_done() {
        let check = |done, total, elapsed_ms, expect: &str| {
            assert_eq!(left(done, total, Duration::from_millis(elapsed_ms)), expect, "{done}/{total}");
        };
        check(0, 100, 9_000, "");
        check(1, 100, 999, "");
        check(1, 100, 1_000, ", about 1 min left");
        check(50, 100, 30_000, ", about 30 s left");
        check(99, 100, 30_000, ", under 1 s left");
        check(100, 100, 30_000, "");
        check(120, 100, 30_000, "");
        check(1, u64::MAX, 30_000, ", about 106751991 d left");
    }
}
