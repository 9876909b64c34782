//! Poll schedule: the time of the next poll of a source.
//!
//! While a source answers, its poll interval applies, with shorter intervals around the publication hour of a bank.
//! After failures in a row exponential backoff applies. A `Retry-After` of the publisher can lengthen a wait, and
//! jitter lengthens every wait.
//!
//! **Invariant**: the next poll is a pure function of the source's [`Schedule`], the time and the result of its last
//! poll, and a jitter number. Every wait is longer than zero and at most [`WAIT_MAX`].

use std::time::Duration;

use chrono::{NaiveTime, Timelike as _};
use thiserror::Error;

use super::source::FollowedSource;
use crate::analysis::Zone;
use crate::backoff::{Backoff, jittered};
use crate::domain::{Timestamp, duration_us, format_duration};

/// Built-in poll interval of the ticker. The ticker changes all day.
const TICKER_INTERVAL: Duration = Duration::from_mins(1);
/// Built-in poll interval of a bank. A bank publishes once a day, and can publish a correction at any hour.
const BANK_INTERVAL: Duration = Duration::from_hours(1);
/// Longest poll interval of a bank around its publication hour.
const PUBLICATION_INTERVAL: Duration = Duration::from_mins(10);
/// Time from the moment at which `PUBLICATION_INTERVAL` begins to apply until the publication hour.
const PUBLICATION_LEAD_S: u32 = 10 * 60;
/// Time from the publication hour until `PUBLICATION_INTERVAL` stops applying.
const PUBLICATION_TAIL_S: u32 = 2 * 3_600;
const DAY_S: u32 = 24 * 3_600;

/// Wait after the first failure. Each further failure in a row doubles it.
const BACKOFF_MIN: Duration = Duration::from_mins(1);
const TICKER_BACKOFF_MAX: Duration = Duration::from_mins(15);
const BANK_BACKOFF_MAX: Duration = Duration::from_hours(1);
/// Longest wait that a publisher can request with `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(6);
/// Jitter lengthens a wait by at most the wait divided by this number, so that servers do not poll at the same moment.
const JITTER_PART: u32 = 8;
/// Maximum delay of the next poll that does not count as a gap: time for two fetches of one minute each, and a margin.
const POLL_SLACK: Duration = Duration::from_mins(3);
/// Longest wait, jitter included.
pub const WAIT_MAX: Duration = Duration::from_hours(7);

/// Poll schedule of a source while it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    poll_interval: Duration,
    /// Zone and publication hour of a bank, in seconds of the day; none for the ticker.
    publication: Option<(Zone, u32)>,
}

/// Why a schedule is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScheduleError {
    /// The poll interval is so short that it burdens the publisher, or so long that silkrate cannot distinguish the
    /// wait from a clock that was set back.
    #[error(
        "it is outside {min} to {max}; choose a poll interval between them",
        min = format_duration(duration_us(Schedule::POLL_INTERVAL_MIN)),
        max = format_duration(duration_us(Schedule::POLL_INTERVAL_MAX))
    )]
    PollInterval,
    /// The source publishes all day.
    #[error("the ticker changes all day and has no publication hour; remove this setting")]
    NoPublication,
}

impl Schedule {
    /// Shortest poll interval. A publisher may treat more frequent polls as an attack.
    pub const POLL_INTERVAL_MIN: Duration = Duration::from_secs(10);
    /// Longest poll interval. With jitter it stays below [`WAIT_MAX`].
    pub const POLL_INTERVAL_MAX: Duration = Duration::from_hours(6);

    /// Returns the built-in schedule of `source`.
    pub fn of(source: FollowedSource) -> Self {
        let publication = source.publication();
        Self { poll_interval: if publication.is_some() { BANK_INTERVAL } else { TICKER_INTERVAL }, publication }
    }

    /// Returns the schedule with another poll interval, from [`Self::POLL_INTERVAL_MIN`] to
    /// [`Self::POLL_INTERVAL_MAX`], both inclusive.
    ///
    /// # Errors
    /// Returns `ScheduleError::PollInterval` if the interval is outside this range.
    pub fn with_poll_interval(self, poll_interval: Duration) -> Result<Self, ScheduleError> {
        if !(Self::POLL_INTERVAL_MIN..=Self::POLL_INTERVAL_MAX).contains(&poll_interval) {
            return Err(ScheduleError::PollInterval);
        }
        Ok(Self { poll_interval, ..self })
    }

    /// Returns the schedule with another publication hour, in the bank's zone.
    ///
    /// # Errors
    /// Returns `ScheduleError::NoPublication` for the ticker.
    pub fn with_publication(self, hour: NaiveTime) -> Result<Self, ScheduleError> {
        let (zone, _) = self.publication.ok_or(ScheduleError::NoPublication)?;
        Ok(Self { publication: Some((zone, hour.num_seconds_from_midnight())), ..self })
    }

    /// The time between two polls outside the publication hours.
    pub const fn poll_interval(self) -> Duration {
        self.poll_interval
    }

    /// The publication hour of the bank, in seconds of its day; `None` for the ticker.
    pub fn publication_s(self) -> Option<u32> {
        self.publication.map(|(_, publication_s)| publication_s)
    }

    /// Returns the wait after a poll that was answered and ended at `polled`.
    fn wait_after(self, polled: Timestamp) -> Duration {
        let Some((zone, publication_s)) = self.publication else { return self.poll_interval };
        let local_s = zone.local(polled).num_seconds_from_midnight();
        // Seconds since the last time that `PUBLICATION_INTERVAL` began to apply.
        let elapsed_s = (local_s + 2 * DAY_S + PUBLICATION_LEAD_S - publication_s) % DAY_S;
        if elapsed_s < PUBLICATION_LEAD_S + PUBLICATION_TAIL_S {
            self.poll_interval.min(PUBLICATION_INTERVAL)
        } else {
            self.poll_interval.min(Duration::from_secs(u64::from(DAY_S - elapsed_s)))
        }
    }

    fn backoff(self) -> Backoff {
        let longest = if self.publication.is_none() { TICKER_BACKOFF_MAX } else { BANK_BACKOFF_MAX };
        Backoff { first: BACKOFF_MIN, longest }
    }
}

/// Result of the last poll of a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LastPoll {
    /// The source answered. The answer may be that it has no table.
    Answered {
        /// The wait that the publisher requested with `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The source did not answer, or its response was refused as a whole or not stored.
    Failed {
        /// Number of failures in a row, from 1.
        failures: u32,
        /// The wait that the publisher requested with `Retry-After`.
        retry_after: Option<Duration>,
    },
}

/// Returns the time of the next poll. The last poll ended at `polled`. `jitter` is a random number, uniformly
/// distributed over all values of `u32`.
pub fn next_poll(schedule: Schedule, polled: Timestamp, last: LastPoll, jitter: u32) -> Timestamp {
    let (scheduled, requested) = match last {
        LastPoll::Answered { retry_after } => (schedule.wait_after(polled), retry_after),
        LastPoll::Failed { failures, retry_after } => (schedule.backoff().wait_after(failures), retry_after),
    };
    let wait = requested.map_or(scheduled, |requested| requested.min(RETRY_AFTER_MAX).max(scheduled));
    polled.saturating_add_us(duration_us(jittered(wait, JITTER_PART, jitter)))
}

/// Returns the end, exclusive, of the time that a poll covers. `next` is the time of the next poll.
pub fn covered_until(next: Timestamp) -> Timestamp {
    next.saturating_add_us(duration_us(POLL_SLACK))
}

/// Returns true if the next poll is due. A wait beyond [`WAIT_MAX`] means that the clock was set back, so the poll is
/// due too.
pub fn is_due(now: Timestamp, next: Timestamp) -> bool {
    time_until(now, next) > WAIT_MAX || now >= next
}

/// Returns the time from `now` until `next`; zero if `next` has passed.
pub fn time_until(now: Timestamp, next: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(next.micros().saturating_sub(now.micros())).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn bank_is_polled_hourly_and_more_often_around_its_publication_hour() {
        let check = |source: FollowedSource, polled: &str, expect: &str| {
            let next = next_poll(Schedule::of(source), time(polled), LastPoll::Answered { retry_after: None }, 0);
            assert_eq!(next, time(expect), "{source} after {polled}");
        };
        check(FollowedSource::Timesca, "2026-05-18T09:00:00Z", "2026-05-18T09:01:00Z");
        // 15:30 in Bishkek is 09:30 UTC.
        check(FollowedSource::Nbkr, "2026-05-18T07:00:00Z", "2026-05-18T08:00:00Z");
        check(FollowedSource::Nbkr, "2026-05-18T08:50:00Z", "2026-05-18T09:20:00Z");
        check(FollowedSource::Nbkr, "2026-05-18T09:19:59Z", "2026-05-18T09:20:00Z");
        check(FollowedSource::Nbkr, "2026-05-18T09:20:00Z", "2026-05-18T09:30:00Z");
        check(FollowedSource::Nbkr, "2026-05-18T11:29:59Z", "2026-05-18T11:39:59Z");
        check(FollowedSource::Nbkr, "2026-05-18T11:30:00Z", "2026-05-18T12:30:00Z");
        check(FollowedSource::Nbkr, "2026-05-18T18:00:00Z", "2026-05-18T19:00:00Z");
    }

    #[test]
    fn poll_covers_three_minutes_beyond_the_next_poll() {
        let next = time("2026-05-18T09:00:00Z");
        assert_eq!(covered_until(next), time("2026-05-18T09:03:00Z"));
    }

    #[test]
    fn poll_interval_and_publication_hour_can_be_set() {
        let check = |source, interval_s: u64, publication: Option<&str>, polled: &str, expect: &str| {
            let mut schedule = Schedule::of(source).with_poll_interval(Duration::from_secs(interval_s)).unwrap();
            if let Some(hour) = publication {
                schedule = schedule.with_publication(hour.parse().unwrap()).unwrap();
            }
            let next = next_poll(schedule, time(polled), LastPoll::Answered { retry_after: None }, 0);
            assert_eq!(next, time(expect), "{source} every {interval_s} s, {publication:?}, after {polled}");
        };
        let (ticker, bank) = (FollowedSource::Timesca, FollowedSource::Nbkr);
        check(ticker, 10, None, "2026-05-18T09:00:00Z", "2026-05-18T09:00:10Z");
        check(ticker, 21_600, None, "2026-05-18T09:00:00Z", "2026-05-18T15:00:00Z");
        // If the poll interval is shorter than `PUBLICATION_INTERVAL`, it also applies around the publication hour. A
        // longer poll interval does not delay the first poll around the publication hour.
        check(bank, 60, None, "2026-05-18T09:30:00Z", "2026-05-18T09:31:00Z");
        check(bank, 21_600, None, "2026-05-18T09:30:00Z", "2026-05-18T09:40:00Z");
        check(bank, 21_600, None, "2026-05-18T07:00:00Z", "2026-05-18T09:20:00Z");
        // 23:55 and 00:05 in Bishkek are 17:55 and 18:05 UTC.
        check(bank, 3_600, Some("23:55:00"), "2026-05-18T17:00:00Z", "2026-05-18T17:45:00Z");
        check(bank, 3_600, Some("23:55:00"), "2026-05-18T19:00:00Z", "2026-05-18T19:10:00Z");
        check(bank, 3_600, Some("00:05:00"), "2026-05-18T17:00:00Z", "2026-05-18T17:55:00Z");
        check(bank, 3_600, Some("00:05:00"), "2026-05-18T09:30:00Z", "2026-05-18T10:30:00Z");
    }

    #[test]
    fn poll_interval_outside_limits_is_refused() {
        let with_interval =
            |millis| Schedule::of(FollowedSource::Cbu).with_poll_interval(Duration::from_millis(millis));
        for bad in [0, 9_999, 21_600_001] {
            let message = with_interval(bad).unwrap_err().to_string();
            assert_eq!(message, "it is outside 10s to 6h; choose a poll interval between them", "{bad}");
        }
        assert_eq!(with_interval(10_000).unwrap().poll_interval(), Schedule::POLL_INTERVAL_MIN);
        // A wait beyond `WAIT_MAX` counts as a clock that was set back, so the longest interval with jitter must be
        // shorter.
        assert!(Schedule::POLL_INTERVAL_MAX + Schedule::POLL_INTERVAL_MAX / JITTER_PART < WAIT_MAX);
        let ticker = Schedule::of(FollowedSource::Timesca).with_publication(NaiveTime::MIN);
        assert_eq!(ticker, Err(ScheduleError::NoPublication));
    }

    #[test]
    fn wait_doubles_after_each_failure_up_to_the_limit() {
        let check = |source: FollowedSource, failures: u32, retry_after_s: Option<u64>, expect_s: u64| {
            let last = LastPoll::Failed { failures, retry_after: retry_after_s.map(Duration::from_secs) };
            let polled = time("2026-05-18T09:30:00Z");
            let wait = time_until(polled, next_poll(Schedule::of(source), polled, last, 0));
            assert_eq!(wait.as_secs(), expect_s, "{source}: {last:?}");
        };
        check(FollowedSource::Cbu, 1, None, 60);
        check(FollowedSource::Cbu, 2, None, 120);
        check(FollowedSource::Cbu, 6, None, 1_920);
        check(FollowedSource::Cbu, 7, None, 3_600);
        check(FollowedSource::Cbu, u32::MAX, None, 3_600);
        check(FollowedSource::Timesca, 5, None, 900);
        // `Retry-After` applies if it is longer than the backoff, up to `RETRY_AFTER_MAX`.
        check(FollowedSource::Cbu, 1, Some(0), 60);
        check(FollowedSource::Cbu, 1, Some(300), 300);
        check(FollowedSource::Cbu, 4, Some(300), 480);
        check(FollowedSource::Timesca, 1, Some(7_200), 7_200);
        check(FollowedSource::Timesca, 1, Some(u64::MAX), 21_600);
    }

    #[test]
    fn jitter_lengthens_a_wait_by_at_most_an_eighth() {
        let polled = time("2026-05-18T00:00:00Z");
        let wait = |jitter| {
            time_until(
                polled,
                next_poll(
                    Schedule::of(FollowedSource::Timesca),
                    polled,
                    LastPoll::Answered { retry_after: None },
                    jitter,
                ),
            )
        };
        assert_eq!((wait(0), wait(1 << 31)), (Duration::from_mins(1), Duration::from_millis(63_750)));
        assert!(wait(u32::MAX) < Duration::from_millis(67_500));
        let last = LastPoll::Failed { failures: 1, retry_after: Some(Duration::MAX) };
        let longest = time_until(polled, next_poll(Schedule::of(FollowedSource::Cbt), polled, last, u32::MAX));
        assert!(longest < WAIT_MAX, "{longest:?}");
    }

    #[test]
    fn poll_is_due_after_clock_is_set_back() {
        let check = |now: &str, next: &str, expect: bool| assert_eq!(is_due(time(now), time(next)), expect, "{now}");
        check("2026-05-18T09:00:00Z", "2026-05-18T09:00:01Z", false);
        check("2026-05-18T09:00:01Z", "2026-05-18T09:00:01Z", true);
        check("2026-05-18T02:00:01Z", "2026-05-18T09:00:01Z", false);
        check("2026-05-17T09:00:00Z", "2026-05-18T09:00:01Z", true);
    }
}
