//! Reasons of gaps: a gap of a series, split into stretches by the results of the polls of its source.
//!
//! **Invariant**: the stretches of a gap are in order of time and cover the gap without holes or overlaps. Neighbouring
//! stretches have different reasons.

use crate::domain::{Health, PollSpan, Timestamp};

/// Why a series has no observation. The reasons are sorted by the location of the cause, from the publisher to this
/// server. The leading reason of a gap is the reason that covers the longest part. If several reasons cover equally
/// long parts, the leading reason is the last of them in this order, because an operator first checks what is nearest
/// to this server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum GapReason {
    /// The feed answered without rates, or without a rate of this series.
    AskedSilent,
    /// The feed refused the poll, or its answer was rejected.
    Refused,
    /// The feed did not answer the poll, or failed.
    Unreachable,
    /// The feed was not polled.
    NotAsked,
}

impl GapReason {
    /// Every reason, in order.
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
    /// The start of the stretch, UTC.
    pub start: Timestamp,
    /// The end of the stretch, exclusive.
    pub end: Timestamp,
    /// Why the series has no observation in the stretch.
    pub reason: GapReason,
}

/// For each reason, the total length of the stretches with that reason, microseconds, in the order of
/// [`GapReason::ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReasonLengths([i64; GapReason::ALL.len()]);

impl ReasonLengths {
    /// Sums up the lengths of `stretches` by reason.
    pub fn of(stretches: &[GapStretch]) -> Self {
        let length = |reason| {
            let with_reason = stretches.iter().filter(|stretch| stretch.reason == reason);
            with_reason.map(|stretch| stretch.end.micros_since(stretch.start)).sum()
        };
        Self(GapReason::ALL.map(length))
    }

    /// Returns the length that `reason` covers, microseconds.
    pub fn length_us(&self, reason: GapReason) -> i64 {
        let found = GapReason::ALL.iter().zip(self.0).find(|(other, _)| **other == reason);
        found.map_or(0, |(_, length_us)| length_us)
    }

    /// Returns the reason that covers the longest part of the gap. If several cover equally long parts, returns the
    /// last of them.
    pub fn leading(&self) -> GapReason {
        let most = GapReason::ALL.into_iter().zip(self.0).max_by_key(|(reason, length_us)| (*length_us, *reason));
        most.map_or(GapReason::NotAsked, |(reason, _)| reason)
    }
}

/// Splits `[start, end)` into stretches by the poll `spans`, which must be in order of time without overlaps. Spans
/// outside the gap are ignored. Returns no stretch if `end` is not after `start`.
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
        splitter.extend_to(span.first_poll_time, GapReason::NotAsked);
        splitter.extend_to(span.covered_until, GapReason::of(span.health));
    }
    splitter.extend_to(end, GapReason::NotAsked);
    splitter.stretches
}

/// Builds the stretches of a gap from its start to its end.
struct Splitter {
    /// The end of the last stretch, or the start of the gap.
    at: Timestamp,
    end: Timestamp,
    stretches: Vec<GapStretch>,
}

impl Splitter {
    /// Assigns `reason` to the gap up to `until`, or up to the end of the gap if that is earlier.
    fn extend_to(&mut self, until: Timestamp, reason: GapReason) {
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
    fn gap_is_split_by_poll_results() {
        use GapReason::{AskedSilent, NotAsked, Refused as RefusedReason, Unreachable as UnreachableReason};
        use Health::{Ok, Refused, Silent, Unreachable};
        let check = |spans: &[(i64, i64, Health)], expect: &[(i64, i64, GapReason)], leading: GapReason| {
            let found = split(10, 20, spans);
            let rows: Vec<_> = found
                .iter()
                .map(|stretch| [stretch.start, stretch.end].map(|time| time.micros() / Timestamp::SECOND_US))
                .zip(found.iter().map(|stretch| stretch.reason))
                .map(|([start, end], reason)| (start, end, reason))
                .collect();
            assert_eq!((rows.as_slice(), ReasonLengths::of(&found).leading()), (expect, leading), "{spans:?}");
        };
        check(&[], &[(10, 20, NotAsked)], NotAsked);
        check(&[(0, 30, Ok)], &[(10, 20, AskedSilent)], AskedSilent);
        // An answer without this series and an answer without any rate have the same reason.
        check(&[(0, 12, Ok), (12, 25, Silent)], &[(10, 20, AskedSilent)], AskedSilent);
        check(
            &[(0, 12, Ok), (12, 25, Unreachable)],
            &[(10, 12, AskedSilent), (12, 20, UnreachableReason)],
            UnreachableReason,
        );
        // The server did not run between 12 and 17.
        check(
            &[(0, 12, Ok), (17, 25, Ok)],
            &[(10, 12, AskedSilent), (12, 17, NotAsked), (17, 20, AskedSilent)],
            // Both reasons cover five seconds.
            NotAsked,
        );
        check(&[(0, 10, Unreachable), (20, 30, Unreachable)], &[(10, 20, NotAsked)], NotAsked);
        check(&[(15, 20, Refused)], &[(10, 15, NotAsked), (15, 20, RefusedReason)], NotAsked);
        check(
            &[(10, 15, Unreachable), (15, 20, Refused)],
            &[(10, 15, UnreachableReason), (15, 20, RefusedReason)],
            UnreachableReason,
        );
        check(
            &[(0, 5, Ok), (12, 12, Refused), (13, 19, Silent)],
            &[(10, 13, NotAsked), (13, 19, AskedSilent), (19, 20, NotAsked)],
            AskedSilent,
        );
    }

    #[test]
    fn empty_gap_has_no_stretches() {
        assert_eq!(split(10, 10, &[(0, 30, Health::Ok)]), []);
        assert_eq!(split(10, 9, &[(0, 30, Health::Ok)]), []);
        assert_eq!(ReasonLengths::of(&[]), ReasonLengths::default());
    }

    proptest! {
        /// Compares the stretches with a naive model that looks up the poll span of each second.
        #[test]
        fn stretches_equal_the_naive_model(
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
            let mut reasons = Vec::new();
            for stretch in &found {
                prop_assert!(stretch.start < stretch.end);
                let seconds = stretch.end.micros_since(stretch.start) / Timestamp::SECOND_US;
                reasons.extend((0..seconds).map(|_| stretch.reason));
            }
            prop_assert_eq!(&reasons, &naive, "{:?} of {:?}", found, spans);
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
