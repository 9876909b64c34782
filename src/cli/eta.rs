//! The estimated remaining time (ETA) of progress bars.
//!
//! **Invariant**: there is no estimate before enough progress was measured.

use std::time::Duration;

use crate::domain::{Timestamp, format_rounded_duration};

/// The minimum elapsed time for an estimate; before it, the measured speed is unreliable.
const ESTIMATE_AFTER: Duration = Duration::from_secs(1);

/// Formats the remaining time as `, about 26 s left`. The estimate uses the average speed since the start, which varies
/// less than the current speed. Returns an empty text at the start, and when `done` reaches or exceeds `total`.
pub(super) fn eta(done: u64, total: u64, elapsed: Duration) -> String {
    if done == 0 || done >= total || elapsed < ESTIMATE_AFTER {
        return String::new();
    }
    let micros = elapsed.as_micros() * u128::from(total - done) / u128::from(done);
    let micros = i64::try_from(micros).unwrap_or(i64::MAX);
    let about = if micros < Timestamp::SECOND_US { "" } else { "about " };
    format!(", {about}{} left", format_rounded_duration(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eta_extrapolates_average_speed() {
        let check = |done, total, elapsed_ms, expect: &str| {
            assert_eq!(eta(done, total, Duration::from_millis(elapsed_ms)), expect, "{done}/{total}");
        };
        check(0, 100, 9_000, "");
        check(1, 100, 999, "");
        check(1, 100, 1_000, ", about 1 min left");
        check(50, 100, 30_000, ", about 30 s left");
        check(99, 100, 30_000, ", under 1 s left");
        check(100, 100, 30_000, "");
        check(120, 100, 30_000, "");
        check(1, u64::MAX, 30_000, ", about 292277 y left");
    }
}
