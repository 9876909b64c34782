//! Polls of a source, and the rule that collapses consecutive polls with the same health into spans.
//!
//! **Invariant**: if [`PollSpan::admit`] receives the polls of a source in order, the resulting spans are in order of
//! time and do not overlap. A poll determines the health from its own time until the next poll begins, but not past its
//! `covered_until`.

use std::fmt;

use super::series::Source;
use super::time::Timestamp;

/// The health of a feed after its last poll. If one poll gets several responses, the worst health counts. The variants
/// are ordered from the best to the worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Health {
    /// The source answers, and the response can be parsed.
    Ok,
    /// The source answers, but has no rates at present.
    Silent,
    /// The source refuses to answer, or its response is not accepted.
    Refused,
    /// The source does not answer, or fails.
    Unreachable,
}

impl Health {
    /// Every health, from the best to the worst.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Silent, Self::Refused, Self::Unreachable];

    /// The name of the health: one lower-case word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Silent => "silent",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One poll of a source, and its result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Poll {
    /// The source that was polled.
    pub source: Source,
    /// The time at which the poll began.
    pub time: Timestamp,
    /// The time until which this poll determines the health of the feed, exclusive. The next poll is due before this
    /// time.
    pub covered_until: Timestamp,
    /// The result of the poll.
    pub health: Health,
}

/// Consecutive polls with the same health and no uncovered time between them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PollSpan {
    /// The time of the first poll. The span begins here, inclusive.
    pub first_poll_time: Timestamp,
    /// The time of the last poll.
    pub last_poll_time: Timestamp,
    /// The time until which the last poll determines the health. The span ends here, exclusive.
    pub covered_until: Timestamp,
    /// The number of polls, at least one.
    pub poll_count: u64,
    /// The health that all of these polls found.
    pub health: Health,
}

impl PollSpan {
    /// Returns a span of one poll.
    pub fn single(poll: &Poll) -> Self {
        Self {
            first_poll_time: poll.time,
            last_poll_time: poll.time,
            covered_until: poll.covered_until.max(poll.time),
            poll_count: 1,
            health: poll.health,
        }
    }

    /// Adds the next poll of the source to this span and returns `None`. If the poll has another health, or begins
    /// after the end of this span, returns a new span of only this poll. In that case, `self` ends no later than this
    /// poll begins.
    ///
    /// If the clock was set back, the new poll can have an earlier time than the last poll of this span. The new poll
    /// then gets the time of that last poll.
    pub fn admit(&mut self, poll: &Poll) -> Option<Self> {
        let time = poll.time.max(self.last_poll_time);
        let covered_until = poll.covered_until.max(time);
        if poll.health == self.health && time <= self.covered_until {
            self.last_poll_time = time;
            self.covered_until = covered_until;
            self.poll_count = self.poll_count.saturating_add(1);
            return None;
        }
        self.covered_until = self.covered_until.min(time);
        Some(Self::single(&Poll { time, covered_until, ..poll.clone() }))
    }

    /// Returns true if this span has at least one poll, its times are in order, and it does not begin before the end of
    /// `previous`.
    pub fn is_valid_after(&self, previous: Option<&Self>) -> bool {
        self.first_poll_time <= self.last_poll_time
            && self.last_poll_time <= self.covered_until
            && self.poll_count > 0
            && previous.is_none_or(|previous| previous.covered_until <= self.first_poll_time)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn poll((time, covered, health): (i64, i64, Health)) -> Poll {
        let [time, covered_until] = [time, covered].map(Timestamp::from_micros);
        Poll { source: Source::parse("cbu").unwrap(), time, covered_until, health }
    }

    fn spans(polls: impl IntoIterator<Item = (i64, i64, Health)>) -> Vec<PollSpan> {
        let mut spans: Vec<PollSpan> = Vec::new();
        for poll in polls.into_iter().map(poll) {
            let next = spans.last_mut().map_or_else(|| Some(PollSpan::single(&poll)), |last| last.admit(&poll));
            spans.extend(next);
        }
        spans
    }

    #[test]
    fn consecutive_polls_of_one_health_are_one_span() {
        use Health::{Ok, Unreachable};
        // Expected spans: time of the first poll, time of the last poll, end, number of polls.
        let check = |polls: &[(i64, i64, Health)], expect: &[(i64, i64, i64, u64)]| {
            let found: Vec<_> = spans(polls.iter().copied())
                .iter()
                .map(|span| {
                    let [first, last, end] = [span.first_poll_time, span.last_poll_time, span.covered_until];
                    (first.micros(), last.micros(), end.micros(), span.poll_count)
                })
                .collect();
            assert_eq!(found, expect, "{polls:?}");
        };
        check(&[(0, 10, Ok)], &[(0, 0, 10, 1)]);
        check(&[(0, 10, Ok), (7, 17, Ok), (17, 27, Ok)], &[(0, 17, 27, 3)]);
        // No poll covers the time from 10 to 11.
        check(&[(0, 10, Ok), (11, 21, Ok)], &[(0, 0, 10, 1), (11, 11, 21, 1)]);
        // A poll with another health ends the previous span.
        check(&[(0, 10, Ok), (6, 16, Unreachable), (8, 18, Ok)], &[(0, 0, 6, 1), (6, 6, 8, 1), (8, 8, 18, 1)]);
        // The clock was set back. In the last case, `covered_until` of a poll is before the time of the poll.
        check(&[(5, 15, Ok), (3, 13, Ok)], &[(5, 5, 13, 2)]);
        check(&[(5, 15, Ok), (3, 4, Unreachable)], &[(5, 5, 5, 1), (5, 5, 5, 1)]);
        check(&[(5, 1, Ok)], &[(5, 5, 5, 1)]);
    }

    proptest! {
        #[test]
        fn spans_are_in_order_and_have_the_health_of_the_polls(
            polls in proptest::collection::vec((0_i64..200, 0_i64..30, 0_usize..4), 1..40),
        ) {
            let poll = |(time, covered_us, health): (i64, i64, usize)| (time, time + covered_us, Health::ALL[health]);
            let mut polls: Vec<_> = polls.into_iter().map(poll).collect();
            polls.sort_by_key(|(time, ..)| *time);
            let found = spans(polls.iter().copied());
            let mut previous = None;
            for span in &found {
                prop_assert!(span.is_valid_after(previous), "{:?}", found);
                previous = Some(span);
            }
            prop_assert_eq!(found.iter().map(|span| span.poll_count).sum::<u64>(), polls.len() as u64);
            for moment in 0..240 {
                // The last poll at or before `moment`, if it still covers `moment`.
                let last = polls.iter().rev().find(|(time, ..)| *time <= moment);
                let expect = last.filter(|(_, until, _)| moment < *until).map(|(.., health)| *health);
                let at = Timestamp::from_micros(moment);
                let span = found.iter().find(|span| span.first_poll_time <= at && at < span.covered_until);
                prop_assert_eq!(span.map(|span| span.health), expect, "at {} of {:?}", moment, found);
            }
        }
    }
}
