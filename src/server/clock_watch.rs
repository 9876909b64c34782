//! Warnings while the newest recorded time of the store is ahead of the clock.
//!
//! Recorded times never decrease. If the clock was once far ahead, the next commits are recorded a microsecond after each
//! other, until the clock has passed the newest recorded time.
//!
//! **Invariant**: a warning is logged at the start and once an hour, as long as the recorded time is ahead.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::domain::{Timestamp, format_duration};
use crate::ingest::Ingest;

/// Interval at which the clock is compared with the newest recorded time.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two warnings.
const WARNING_INTERVAL: Duration = Duration::from_hours(1);
/// Least time ahead that is reported. Many commits within a microsecond, or a clock that is adjusted, stay below it.
const REPORTED_AHEAD_US: i64 = 5 * Timestamp::SECOND_US;

/// Logs warnings until the future is dropped.
pub(super) async fn warn_while_ahead(ingest: Ingest, clock: Arc<dyn Clock>) {
    let mut checks = interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut warned: Option<Instant> = None;
    loop {
        let now = checks.tick().await;
        let warning = warning(ingest.view().commit.recorded_time, clock.now());
        let is_recent = warned.is_some_and(|warned| now.duration_since(warned) < WARNING_INTERVAL);
        match warning {
            None if warned.take().is_some() => tracing::info!("the clock has passed the newest recorded time"),
            Some(warning) if !is_recent => {
                warned = Some(now);
                tracing::warn!("{warning}");
            }
            None | Some(_) => {}
        }
    }
}

/// Returns the warning about a newest recorded time that is ahead of the clock.
fn warning(recorded: Timestamp, now: Timestamp) -> Option<String> {
    let ahead_us = recorded.micros_since(now);
    (ahead_us >= REPORTED_AHEAD_US).then(|| {
        let ahead = format_duration(ahead_us);
        format!(
            "the newest recorded time {recorded} is {ahead} ahead of the clock, which shows {now}; if the clock is wrong, correct it; if the clock was wrong before, commits are recorded after {recorded} until the clock has passed it, and reads with a known time of now do not find them"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_time_ahead_of_the_clock_is_reported_from_five_seconds_on() {
        let now = Timestamp::from_micros(1_765_195_200_000_000);
        for (ahead_us, expect) in [(-1, false), (0, false), (REPORTED_AHEAD_US - 1, false), (REPORTED_AHEAD_US, true)] {
            assert_eq!(warning(now.saturating_add_us(ahead_us), now).is_some(), expect, "{ahead_us}");
        }
        let text = warning(now.saturating_add_us(30 * Timestamp::DAY_US), now).unwrap_or_default();
        assert!(text.contains("2026-01-07T12:00:00Z is 30d ahead of the clock, which shows 2025-12-08"), "{text}");
    }
}
