//! Why nothing was observed for a while: a gap of a series, split by what the polls of its source found meanwhile.
//!
//! **Invariant**: stretches are in order, meet end to end and fill the gap; neighbours have different reasons.

use crate::domain::{Health, PollSpan, Timestamp};

/// Why a series has no observation. Of reasons that cover equal parts of a gap, the last in this order leads: what lies
/// nearest to this server is to be looked at first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum GapReason {
    /// The feed answered, and had no rates, or none for this series.
    AskedSilent,
    /// The feed was reached and refused, or what it sent was not taken in.
    Refused,
    /// The feed was asked and did not answer, or failed.
    Unreachable,
    /// Nobody asked.
    NotAsked,
}

impl GapReason {
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::AskedSilent, Self::Refused, Self::Unreachable, Self::NotAsked];

    const fn of(health: Health) -> Self {
        match health {
            Health::Ok | Health::Silent => Self::AskedSilent,
            Health::Refused => Self::Refused,
            Health::Unreachable => Self::Unreachable,
        }
    }
}

/// A part of a gap that has one reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GapStretch {
    /// Where it begins, UTC.
    pub start: Timestamp,
    /// The first instant after it.
    pub end: Timestamp,
    /// Why nothing was observed in it.
    pub reason: GapReason,
}

/// How much of a gap each reason covers, microseconds, in the order of [`GapReason::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReasonLengths([i64; GapReason::ALL.len()]);

impl ReasonLengths {
    /// Of stretches.
    pub fn of(stretches: &[GapStretch]) -> Self {
        let length = |reason| {
            let of_reason = stretches.iter().filter(|stretch| stretch.reason == reason);
            of_reason.map(|stretch| stretch.end.micros_since(stretch.start)).sum()
        };
        Self(GapReason::ALL.map(length))
    }

    /// How much `reason` covers, microseconds.
    pub fn length_us(&self, reason: GapReason) -> i64 {
        let found = GapReason::ALL.iter().zip(self.0).find(|(other, _)| **other == reason);
        found.map_or(0, |(_, length_us)| length_us)
    }

    /// The reason that covers most.
    pub fn leading(&self) -> GapReason {
        let most = GapReason::ALL.into_iter().zip(self.0).max_by_key(|(reason, length_us)| (*length_us, *reason));
        most.map_or(GapReason::NotAsked, |(reason, _)| reason)
    }
}

/// Splits `[start, end)` by `spans`, which are in order and do not overlap; those outside it play no part. Nothing is
/// split where `end` is not after `start`.
pub fn split_gap<'a>(
    start: Timestamp,
    end: Timestamp,
    spans: impl IntoIterator<Item = &'a PollSpan>,
) -> Vec<GapStretch> {
    let mut splitter = Splitter { at: start, end, stretches: Vec::new() };
    for span in spans {
        if span.first_poll_time >= end {
            break;
        }
        splitter.reach(span.first_poll_time, GapReason::NotAsked);
        splitter.reach(span.covered_until, GapReason::of(span.health));
    }
    splitter.reach(end, GapReason::NotAsked);
    splitter.stretches
}

struct Splitter {
    /// Up to where there are stretches.
    at: Timestamp,
    end: Timestamp,
    stretches: Vec<GapStretch>,
}

impl Splitter {
    /// Goes on until `until`, or the end of the gap, for one reason.
    fn reach(&mut self, until: Timestamp, reason: GapReason) {
        let until = until.min(self.end);
        if until <= self.at {
            return;
        }
        match self.stretches.last_mut() {
            Some(last) if last.reason == reason => last.end = until,
            Some(_) | None => self.stretches.push(GapStretch { start: self.at, end: until, reason }),
        }
        self.at = until;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * Timestamp::SECOND_US)
    }

    fn span((start, end, health): (i64, i64, Health)) -> PollSpan {
        let [first_poll_time, covered_until] = [start, end].map(at);
        PollSpan { first_poll_time, last_poll_time: first_poll_time, covered_until, poll_count: 1, health }
    }

    fn split(start: i64, end: i64, spans: &[(i64, i64, Health)]) -> Vec<GapStretch> {
        let spans: Vec<PollSpan> = spans.iter().copied().map(span).collect();
        split_gap(at(start), at(end), &spans)
    }

    #[test]
    fn a_gap_is_split_by_what_the_polls_found() {
        use GapReason::{AskedSilent, NotAsked, Refused as Refusing, Unreachable as Unreached};
        use Health::{Ok, Refused, Silent, Unreachable};
        let check = |spans: &[(i64, i64, Health)], expect: &[(i64, i64, GapReason)], leading: GapReason| {
            let found = split(10, 20, spans);
            let told: Vec<_> = found
                .iter()
                .map(|stretch| [stretch.start, stretch.end].map(|time| time.micros() / Timestamp::SECOND_US))
                .zip(found.iter().map(|stretch| stretch.reason))
                .map(|([start, end], reason)| (start, end, reason))
                .collect();
            assert_eq!((told.as_slice(), ReasonLengths::of(&found).leading()), (expect, leading), "{spans:?}");
        };
        check(&[], &[(10, 20, NotAsked)], NotAsked);
        check(&[(0, 30, Ok)], &[(10, 20, AskedSilent)], AskedSilent);
        // To answer without this series, and to answer with nothing, is the same to it.
        check(&[(0, 12, Ok), (12, 25, Silent)], &[(10, 20, AskedSilent)], AskedSilent);
        check(&[(0, 12, Ok), (12, 25, Unreachable)], &[(10, 12, AskedSilent), (12, 20, Unreached)], Unreached);
        // A server that was off between 12 and 17.
        check(
            &[(0, 12, Ok), (17, 25, Ok)],
            &[(10, 12, AskedSilent), (12, 17, NotAsked), (17, 20, AskedSilent)],
            // Five seconds each.
            NotAsked,
        );
        check(&[(0, 10, Unreachable), (20, 30, Unreachable)], &[(10, 20, NotAsked)], NotAsked);
        check(&[(15, 20, Refused)], &[(10, 15, NotAsked), (15, 20, Refusing)], NotAsked);
        check(&[(10, 15, Unreachable), (15, 20, Refused)], &[(10, 15, Unreached), (15, 20, Refusing)], Unreached);
        check(
            &[(0, 5, Ok), (12, 12, Refused), (13, 19, Silent)],
            &[(10, 13, NotAsked), (13, 19, AskedSilent), (19, 20, NotAsked)],
            AskedSilent,
        );
    }

    #[test]
    fn nothing_is_split_where_there_is_no_time() {
        assert_eq!(split(10, 10, &[(0, 30, Health::Ok)]), []);
        assert_eq!(split(10, 9, &[(0, 30, Health::Ok)]), []);
        assert_eq!(ReasonLengths::of(&[]), ReasonLengths::default());
    }

    proptest! {
        /// Against a model that asks for each second what the polls say of it.
        #[test]
        fn every_second_has_the_reason_of_its_own(
            start in 0_i64..60,
            length in 0_i64..60,
            cuts in proptest::collection::btree_set(0_i64..120, 0..16),
            healths in proptest::collection::vec(proptest::option::of(0_usize..4), 16),
        ) {
            let cuts: Vec<i64> = cuts.into_iter().collect();
            let spans: Vec<_> = cuts
                .windows(2)
                .zip(healths)
                .filter_map(|(ends, health)| Some((ends[0], ends[1], Health::ALL[health?])))
                .collect();
            let found = split(start, start + length, &spans);
            let mut naive: Vec<GapReason> = Vec::new();
            for second in start..start + length {
                let span = spans.iter().find(|(from, until, _)| (*from..*until).contains(&second));
                naive.push(span.map_or(GapReason::NotAsked, |(.., health)| GapReason::of(*health)));
            }
            let mut told = Vec::new();
            for stretch in &found {
                prop_assert!(stretch.start < stretch.end);
                let seconds = stretch.end.micros_since(stretch.start) / Timestamp::SECOND_US;
                told.extend((0..seconds).map(|_| stretch.reason));
            }
            prop_assert_eq!(&told, &naive, "{:?} of {:?}", found, spans);
            prop_assert!(found.windows(2).all(|pair| pair[0].end == pair[1].start && pair[0].reason != pair[1].reason));
            prop_assert!(found.first().is_none_or(|first| first.start == at(start)));
            let lengths = ReasonLengths::of(&found);
            for reason in GapReason::ALL {
                let seconds = naive.iter().filter(|other| **other == reason).count();
                prop_assert_eq!(lengths.length_us(reason), i64::try_from(seconds).unwrap() * Timestamp::SECOND_US);
                prop_assert!(lengths.length_us(lengths.leading()) >= lengths.length_us(reason));
            }
        }
    }
}
