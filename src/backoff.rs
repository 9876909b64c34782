//! Exponential backoff with jitter: how long to wait between failed attempts.
//!
//! **Invariant**: a backoff is never longer than its maximum, and jitter only lengthens a wait.

use std::time::Duration;

/// A backoff that doubles after each consecutive failure, up to a maximum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// The maximum wait.
    pub longest: Duration,
}

impl Backoff {
    /// Returns the wait after `failures` consecutive failures; 0 counts as 1.
    pub fn wait_after(self, failures: u32) -> Duration {
        let factor = 1_u32.checked_shl(failures.saturating_sub(1));
        factor.and_then(|factor| self.first.checked_mul(factor)).map_or(self.longest, |wait| wait.min(self.longest))
    }
}

/// Lengthens `wait` by up to `wait / part`, so that clients that failed at the same time do not retry at the same time.
/// `jitter` is a random number, uniformly distributed over all values of `u32`.
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
    fn wait_doubles_up_to_maximum() {
        let backoff = Backoff { first: SECOND, longest: 10 * SECOND };
        let waits = [0, 1, 2, 3, 4, 5, 31, 32, 33, u32::MAX].map(|failures| backoff.wait_after(failures).as_secs());
        assert_eq!(waits, [1, 1, 2, 4, 8, 10, 10, 10, 10, 10]);
    }

    #[test]
    fn jitter_lengthens_wait_by_less_than_wait_divided_by_part() {
        let check = |jitter: u32, expect_ms: u64| {
            assert_eq!(jittered(8 * SECOND, 2, jitter).as_millis(), u128::from(expect_ms), "{jitter}");
        };
        check(0, 8_000);
        check(1 << 31, 10_000);
        check(u32::MAX, 11_999);
    }
}
