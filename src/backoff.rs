//! How long to wait between tries that fail: exponential backoff with jitter.

use std::time::Duration;

/// Doubles the wait after each failure in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// No wait is longer.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after so many failures in a row, from 1.
    pub fn wait(self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1));
        factor.and_then(|factor| self.first.checked_mul(factor)).map_or(self.longest, |wait| wait.min(self.longest))
    }
}

/// `wait` and up to the `part`-th part of it more, so that clients that failed together do not come back together.
/// `jitter` is any number: all numbers are as likely.
pub fn jittered(wait: Duration, part: u32, jitter: u32) -> Duration {
    let most = wait.as_nanos() / u128::from(part.max(1));
    let more = most.saturating_mul(u128::from(jitter)) >> u32::BITS;
    wait.saturating_add(Duration::from_nanos(u64::try_from(more).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff { first: SECOND, longest: 10 * SECOND };
        let waits = [0, 1, 2, 3, 4, 5, 31, 32, 33, u32::MAX].map(|failures| backoff.wait(failures).as_secs());
        assert_eq!(waits, [1, 1, 2, 4, 8, 10, 10, 10, 10, 10]);
    }

    #[test]
    fn jitter_adds_up_to_a_part() {
        let check = |jitter: u32, expect_ms: u64| {
            assert_eq!(jittered(8 * SECOND, 2, jitter).as_millis(), u128::from(expect_ms), "{jitter}");
        };
        check(0, 8_000);
        check(1 << 31, 10_000);
        check(u32::MAX, 11_999);
    }
}
