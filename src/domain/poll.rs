//! Polls of a source, and how those of one health collapse into spans.
//!
//! **Invariant**: the spans of a source, made by [`PollSpan::admit`] one poll after the other, are in order of time and
//! do not overlap: each poll speaks from its own moment until the next one's, or until it is covered no longer.

use std::fmt;

use super::series::Source;
use super::time::Timestamp;

/// How a feed is, going by its last poll. Of several answers, the last in this order counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Health {
    /// It answers, with what can be read.
    Ok,
    /// It answers, and has no rates for now.
    Silent,
    /// It refuses to answer, or what it sends is not taken in.
    Refused,
    /// It does not answer, or fails.
    Unreachable,
}

impl Health {
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Silent, Self::Refused, Self::Unreachable];

    /// Its one word.
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

/// One time that a source was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Poll {
    /// Who was asked.
    pub source: Source,
    /// When it began, UTC.
    pub time: Timestamp,
    /// Until when it speaks for the feed, exclusive: the next poll is to have begun by then.
    pub covered_until: Timestamp,
    /// What it found.
    pub health: Health,
}

/// Polls of one health that follow each other without a break.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PollSpan {
    /// Of the first of them. The span begins here.
    pub first_poll_time: Timestamp,
    /// Of the last.
    pub last_poll_time: Timestamp,
    /// Until when the last one speaks, exclusive. The span ends here.
    pub covered_until: Timestamp,
    /// How many, at least one.
    pub poll_count: u64,
    /// What all of them found.
    pub health: Health,
}

impl PollSpan {
    /// A span of one poll.
    pub fn single(poll: &Poll) -> Self {
        Self {
            first_poll_time: poll.time,
            last_poll_time: poll.time,
            covered_until: poll.covered_until.max(poll.time),
            poll_count: 1,
            health: poll.health,
        }
    }

    /// Takes in the next poll of its source, or ends where that begins and gives the span that follows. A poll by a clock
    /// that was put back counts as made when the last one was.
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

    /// Whether its times are in order, and it may follow `before`.
    pub fn is_sound_after(&self, before: Option<&Self>) -> bool {
        self.first_poll_time <= self.last_poll_time
            && self.last_poll_time <= self.covered_until
            && self.poll_count > 0
            && before.is_none_or(|before| before.covered_until <= self.first_poll_time)
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
        for each in polls.into_iter().map(poll) {
            let next = spans.last_mut().map_or_else(|| Some(PollSpan::single(&each)), |last| last.admit(&each));
            spans.extend(next);
        }
        spans
    }

    #[test]
    fn polls_of_one_health_without_a_break_are_one_span() {
        use Health::{Ok, Unreachable};
        // First and last poll, the end, and how many.
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
        // Nobody asked from 10 to 11.
        check(&[(0, 10, Ok), (11, 21, Ok)], &[(0, 0, 10, 1), (11, 11, 21, 1)]);
        // Another health ends what was said before.
        check(&[(0, 10, Ok), (6, 16, Unreachable), (8, 18, Ok)], &[(0, 0, 6, 1), (6, 6, 8, 1), (8, 8, 18, 1)]);
        // A clock that was put back, and one that is behind its own plan.
        check(&[(5, 15, Ok), (3, 13, Ok)], &[(5, 5, 13, 2)]);
        check(&[(5, 15, Ok), (3, 4, Unreachable)], &[(5, 5, 5, 1), (5, 5, 5, 1)]);
        check(&[(5, 1, Ok)], &[(5, 5, 5, 1)]);
    }

    proptest! {
        #[test]
        fn spans_are_in_order_and_say_what_the_polls_said(
            polls in proptest::collection::vec((0_i64..200, 0_i64..30, 0_usize..4), 1..40),
        ) {
            let mut polls: Vec<_> = polls.into_iter().map(|(time, long, health)| (time, time + long, Health::ALL[health])).collect();
            polls.sort_by_key(|(time, ..)| *time);
            let found = spans(polls.iter().copied());
            let mut before = None;
            for span in &found {
                prop_assert!(span.is_sound_after(before), "{:?}", found);
                before = Some(span);
            }
            prop_assert_eq!(found.iter().map(|span| span.poll_count).sum::<u64>(), polls.len() as u64);
            for moment in 0..240 {
                // The last poll by then, if it speaks still.
                let last = polls.iter().rev().find(|(time, ..)| *time <= moment);
                let expect = last.filter(|(_, until, _)| moment < *until).map(|(.., health)| *health);
                let at = Timestamp::from_micros(moment);
                let said = found.iter().find(|span| span.first_poll_time <= at && at < span.covered_until);
                prop_assert_eq!(said.map(|span| span.health), expect, "at {} of {:?}", moment, found);
            }
        }
    }
}
