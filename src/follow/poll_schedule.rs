//! When a source is asked next.
//!
//! **Invariant**: pure: a function of the source's [`Schedule`], the time and outcome of its last poll, and a number of
//! jitter. Every wait is longer than zero and no longer than [`WAIT_MAX`].

use std::time::Duration;

use chrono::{NaiveTime, Timelike as _};
use thiserror::Error;

use super::source::FollowedSource;
use crate::analysis::Zone;
use crate::backoff::{Backoff, jittered};
use crate::domain::{Timestamp, duration_us, whole_length};

/// The ticker moves during the day.
const TICKER_INTERVAL: Duration = Duration::from_mins(1);
/// A bank publishes once a day, and corrects at any hour.
const BANK_INTERVAL: Duration = Duration::from_hours(1);
/// Around the hour of its publication.
const PUBLICATION_INTERVAL: Duration = Duration::from_mins(10);
/// How long before that hour, and how long after it.
const PUBLICATION_LEAD_S: u32 = 10 * 60;
const PUBLICATION_TAIL_S: u32 = 2 * 3_600;
const DAY_S: u32 = 24 * 3_600;

/// After one failure; twice as long after each more.
const BACKOFF_MIN: Duration = Duration::from_mins(1);
const TICKER_BACKOFF_MAX: Duration = Duration::from_mins(15);
const BANK_BACKOFF_MAX: Duration = Duration::from_hours(1);
/// A source that asks for longer is asked after this all the same.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(6);
/// A wait is longer by up to this part of it, so that many servers do not ask at one moment.
const JITTER_PART: u32 = 8;
/// How late the next poll may end and follow this one without a break: two fetches of a minute, and some to spare.
const POLL_SLACK: Duration = Duration::from_mins(3);
/// The longest wait of all, jitter included.
pub const WAIT_MAX: Duration = Duration::from_hours(7);

/// How often a source is asked while it answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    poll_interval: Duration,
    /// Of a bank: its zone, and the seconds into its day from when on it may publish.
    publication: Option<(Zone, u32)>,
}

/// A schedule that a source cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScheduleError {
    /// Impolite, or so slow that a clock put back would look like it.
    #[error("it is outside {min} to {max}; choose a pace between them", min = whole_length(duration_us(Schedule::POLL_INTERVAL_MIN)),
            max = whole_length(duration_us(Schedule::POLL_INTERVAL_MAX)))]
    PollInterval,
    /// It publishes all day.
    #[error("the ticker has no hour of publication, it moves all day; leave this out")]
    NoPublication,
}

impl Schedule {
    /// The shortest pace: what is asked more often than that may take it for an attack.
    pub const POLL_INTERVAL_MIN: Duration = Duration::from_secs(10);
    /// The longest pace, which with its jitter stays under [`WAIT_MAX`].
    pub const POLL_INTERVAL_MAX: Duration = Duration::from_hours(6);

    /// What is built in for `source`.
    pub fn of(source: FollowedSource) -> Self {
        let publication = source.publication();
        Self { poll_interval: if publication.is_some() { BANK_INTERVAL } else { TICKER_INTERVAL }, publication }
    }

    /// The same at another pace, from [`Self::POLL_INTERVAL_MIN`] to [`Self::POLL_INTERVAL_MAX`].
    ///
    /// # Errors
    /// `Pace`.
    pub fn with_poll_interval(self, poll_interval: Duration) -> Result<Self, ScheduleError> {
        if !(Self::POLL_INTERVAL_MIN..=Self::POLL_INTERVAL_MAX).contains(&poll_interval) {
            return Err(ScheduleError::PollInterval);
        }
        Ok(Self { poll_interval, ..self })
    }

    /// The same with another hour of publication, by the clocks of the bank.
    ///
    /// # Errors
    /// `NoPublication`, of the ticker.
    pub fn with_publication(self, hour: NaiveTime) -> Result<Self, ScheduleError> {
        let (zone, _) = self.publication.ok_or(ScheduleError::NoPublication)?;
        Ok(Self { publication: Some((zone, hour.num_seconds_from_midnight())), ..self })
    }

    /// Time between two polls, away from the publication.
    pub const fn poll_interval(self) -> Duration {
        self.poll_interval
    }

    /// Seconds into the bank's day from when on it may publish; none of the ticker.
    pub fn publication_s(self) -> Option<u32> {
        self.publication.map(|(_, published_s)| published_s)
    }

    /// The wait after an answer at `polled`.
    fn wait(self, polled: Timestamp) -> Duration {
        let Some((zone, published_s)) = self.publication else { return self.poll_interval };
        let local_s = zone.local(polled).num_seconds_from_midnight();
        let into_s = (local_s + 2 * DAY_S + PUBLICATION_LEAD_S - published_s) % DAY_S;
        if into_s < PUBLICATION_LEAD_S + PUBLICATION_TAIL_S {
            self.poll_interval.min(PUBLICATION_INTERVAL)
        } else {
            self.poll_interval.min(Duration::from_secs(u64::from(DAY_S - into_s)))
        }
    }

    fn backoff(self) -> Backoff {
        let longest = if self.publication.is_none() { TICKER_BACKOFF_MAX } else { BANK_BACKOFF_MAX };
        Backoff { first: BACKOFF_MIN, longest }
    }
}

/// How the last poll of a source ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LastPoll {
    /// With an answer, if only that there is no table.
    Answered {
        /// What the source asked for.
        retry_after: Option<Duration>,
    },
    /// With none that could be read.
    Failed {
        /// From 1.
        in_a_row: u32,
        /// What the source asked for.
        retry_after: Option<Duration>,
    },
}

/// When to ask a source of this schedule again, whose last poll ended at `polled`. `jitter` is any number.
pub fn next_poll(schedule: Schedule, polled: Timestamp, last: LastPoll, jitter: u32) -> Timestamp {
    let (own, asked) = match last {
        LastPoll::Answered { retry_after } => (schedule.wait(polled), retry_after),
        LastPoll::Failed { in_a_row, retry_after } => (schedule.backoff().wait(in_a_row), retry_after),
    };
    let wait = asked.map_or(own, |asked| asked.min(RETRY_AFTER_MAX).max(own));
    polled.saturating_add_us(duration_us(jittered(wait, JITTER_PART, jitter)))
}

/// Until when a poll speaks for its feed, the next one being planned for `next`.
pub fn covered_until(next: Timestamp) -> Timestamp {
    next.saturating_add_us(duration_us(POLL_SLACK))
}

/// Whether it is time. A clock that was put back would leave a plan beyond any wait.
pub fn is_due(now: Timestamp, next: Timestamp) -> bool {
    left(now, next) > WAIT_MAX || now >= next
}

/// How long it is until `next`.
pub fn left(now: Timestamp, next: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(next.micros().saturating_sub(now.micros())).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_bank_is_asked_hourly_and_more_often_around_its_publication() {
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
    fn a_poll_that_comes_late_by_two_fetches_follows_without_a_break() {
        let planned = time("2026-05-18T09:00:00Z");
        assert_eq!(covered_until(planned), time("2026-05-18T09:03:00Z"));
    }

    #[test]
    fn pace_and_publication_are_settings() {
        let check = |source, pace_s: u64, publication: Option<&str>, polled: &str, expect: &str| {
            let mut schedule = Schedule::of(source).with_poll_interval(Duration::from_secs(pace_s)).unwrap();
            if let Some(hour) = publication {
                schedule = schedule.with_publication(hour.parse().unwrap()).unwrap();
            }
            let next = next_poll(schedule, time(polled), LastPoll::Answered { retry_after: None }, 0);
            assert_eq!(next, time(expect), "{source} at {pace_s} s, {publication:?}, after {polled}");
        };
        let (ticker, bank) = (FollowedSource::Timesca, FollowedSource::Nbkr);
        check(ticker, 10, None, "2026-05-18T09:00:00Z", "2026-05-18T09:00:10Z");
        check(ticker, 21_600, None, "2026-05-18T09:00:00Z", "2026-05-18T15:00:00Z");
        // A pace shorter than that of the publication holds then too; a longer one waits for it.
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
    fn an_impolite_schedule_is_refused() {
        let pace = |millis| Schedule::of(FollowedSource::Cbu).with_poll_interval(Duration::from_millis(millis));
        for bad in [0, 9_999, 21_600_001] {
            let message = pace(bad).unwrap_err().to_string();
            assert_eq!(message, "it is outside 10s to 6h; choose a pace between them", "{bad}");
        }
        assert_eq!(pace(10_000).unwrap().poll_interval(), Schedule::POLL_INTERVAL_MIN);
        // The jitter of the longest pace stays below what is taken for a clock put back.
        assert!(Schedule::POLL_INTERVAL_MAX + Schedule::POLL_INTERVAL_MAX / JITTER_PART < WAIT_MAX);
        let ticker = Schedule::of(FollowedSource::Timesca).with_publication(NaiveTime::MIN);
        assert_eq!(ticker, Err(ScheduleError::NoPublication));
    }

    #[test]
    fn failures_are_met_with_patience() {
        let check = |source: FollowedSource, in_a_row: u32, retry_after_s: Option<u64>, expect_s: u64| {
            let last = LastPoll::Failed { in_a_row, retry_after: retry_after_s.map(Duration::from_secs) };
            let polled = time("2026-05-18T09:30:00Z");
            let wait = left(polled, next_poll(Schedule::of(source), polled, last, 0));
            assert_eq!(wait.as_secs(), expect_s, "{source}: {last:?}");
        };
        check(FollowedSource::Cbu, 1, None, 60);
        check(FollowedSource::Cbu, 2, None, 120);
        check(FollowedSource::Cbu, 6, None, 1_920);
        check(FollowedSource::Cbu, 7, None, 3_600);
        check(FollowedSource::Cbu, u32::MAX, None, 3_600);
        check(FollowedSource::Timesca, 5, None, 900);
        // What the source asks for counts, unless it is shorter than patience or beyond reason.
        check(FollowedSource::Cbu, 1, Some(0), 60);
        check(FollowedSource::Cbu, 1, Some(300), 300);
        check(FollowedSource::Cbu, 4, Some(300), 480);
        check(FollowedSource::Timesca, 1, Some(7_200), 7_200);
        check(FollowedSource::Timesca, 1, Some(u64::MAX), 21_600);
    }

    #[test]
    fn chance_lengthens_a_wait_by_an_eighth_at_most() {
        let polled = time("2026-05-18T00:00:00Z");
        let wait = |jitter| {
            left(
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
        let last = LastPoll::Failed { in_a_row: 1, retry_after: Some(Duration::MAX) };
        let longest = left(polled, next_poll(Schedule::of(FollowedSource::Cbt), polled, last, u32::MAX));
        assert!(longest < WAIT_MAX, "{longest:?}");
    }

    #[test]
    fn a_clock_put_back_does_not_stop_a_feed() {
        let check = |now: &str, next: &str, expect: bool| assert_eq!(is_due(time(now), time(next)), expect, "{now}");
        check("2026-05-18T09:00:00Z", "2026-05-18T09:00:01Z", false);
        check("2026-05-18T09:00:01Z", "2026-05-18T09:00:01Z", true);
        check("2026-05-18T02:00:01Z", "2026-05-18T09:00:01Z", false);
        check("2026-05-17T09:00:00Z", "2026-05-18T09:00:01Z", true);
    }
}
