//! Limits of calls per time, by the generic cell rate algorithm (ITU-T I.371): a client may make a burst of calls at
//! once, and one more after each interval. IPv6 addresses of one network count as one address ([`crate::callers`]).
//!
//! **Invariants**: a refused call does not count. At most `ADDRESSES_MAX` addresses are kept; beyond that, all further
//! addresses share one count.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::callers::network;
use crate::domain::Timestamp;

/// Number of failures that are answered one after the other.
const FAILURES_BURST_MAX: i64 = 10;
/// Time after which an address may fail once more.
const FAILURES_REFILL: Duration = Duration::from_secs(6);
/// Number of addresses whose calls are counted.
const ADDRESSES_MAX: usize = 10_000;

/// A limit of calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct CallRate {
    /// Time until a burst is forgotten, nanoseconds.
    burst_ns: i64,
    /// Time per call, nanoseconds.
    refill_ns: i64,
}

const SECOND_NS: i64 = 1_000_000_000;
const MICROSECOND_NS: i64 = 1_000;

impl CallRate {
    /// The limit of calls with invalid credentials.
    pub(super) const FAILURES: Self = {
        let refill_ns = FAILURES_REFILL.as_secs().cast_signed() * SECOND_NS;
        Self { burst_ns: FAILURES_BURST_MAX * refill_ns, refill_ns }
    };

    /// Returns a limit of `calls_max` calls in a second, of which all may come at once.
    pub(super) fn per_second(calls_max: u32) -> Self {
        let calls_max = i64::from(calls_max.max(1));
        let refill_ns = SECOND_NS / calls_max;
        Self { burst_ns: calls_max * refill_ns, refill_ns }
    }

    /// Counts a call at `now`. `free_at_ns` is the time at which the earlier calls are forgotten, in nanoseconds since
    /// 1970. Returns this time with the call.
    ///
    /// # Errors
    /// The time to wait, if there were too many calls.
    fn next(self, free_at_ns: i64, now: Timestamp) -> Result<i64, Duration> {
        let Self { burst_ns, refill_ns } = self;
        let now_ns = nanoseconds(now);
        let full_ns = now_ns.saturating_add(burst_ns);
        // A clock that is set back must not lock a client out.
        let next = free_at_ns.clamp(now_ns, full_ns).saturating_add(refill_ns);
        let wait_ns = next.saturating_sub(full_ns);
        if wait_ns > 0 { Err(Duration::from_nanos(wait_ns.unsigned_abs())) } else { Ok(next) }
    }
}

fn nanoseconds(time: Timestamp) -> i64 {
    time.micros().saturating_mul(MICROSECOND_NS)
}

/// The calls of one client.
#[derive(Debug)]
pub(super) struct ClientRate(AtomicI64);

impl Default for ClientRate {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl ClientRate {
    /// Counts a call at `now`.
    ///
    /// # Errors
    /// As of [`CallRate::next`].
    pub(super) fn record(&self, rate: CallRate, now: Timestamp) -> Result<(), Duration> {
        let mut free_at_ns = self.0.load(Ordering::Relaxed);
        loop {
            let next = rate.next(free_at_ns, now)?;
            match self.0.compare_exchange_weak(free_at_ns, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(changed) => free_at_ns = changed,
            }
        }
    }
}

/// The calls of all client addresses.
#[derive(Debug)]
pub(super) struct AddressRates {
    rate: CallRate,
    /// For each address: the time at which its calls are forgotten, in nanoseconds.
    free_at_ns: Mutex<HashMap<Option<IpAddr>, i64>>,
}

impl AddressRates {
    pub(super) fn new(rate: CallRate) -> Self {
        Self { rate, free_at_ns: Mutex::default() }
    }

    /// Counts a call of `address` at `now`.
    ///
    /// # Errors
    /// As of [`CallRate::next`].
    pub(super) fn record(&self, address: Option<IpAddr>, now: Timestamp) -> Result<(), Duration> {
        let now_ns = nanoseconds(now);
        let mut free_at = self.free_at_ns.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = address.map(network);
        if free_at.len() >= ADDRESSES_MAX && !free_at.contains_key(&key) {
            free_at.retain(|_, at| *at > now_ns);
            if free_at.len() >= ADDRESSES_MAX {
                key = None;
            }
        }
        let at = free_at.entry(key).or_insert(now_ns);
        *at = self.rate.next(*at, now)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_765_195_200_000_000 + seconds * Timestamp::SECOND_US)
    }

    #[test]
    fn address_fails_ten_times_then_once_in_six_seconds() {
        let failures = AddressRates::new(CallRate::FAILURES);
        let one = Some(IpAddr::from([192, 0, 2, 1]));
        for _ in 0..10 {
            assert_eq!(failures.record(one, at(0)), Ok(()));
        }
        assert_eq!(failures.record(one, at(0)), Err(Duration::from_secs(6)));
        assert_eq!(failures.record(one, at(2)), Err(Duration::from_secs(4)));
        assert_eq!(failures.record(Some(IpAddr::from([192, 0, 2, 2])), at(0)), Ok(()), "another address");
        assert_eq!(failures.record(one, at(6)), Ok(()));
        assert!(failures.record(one, at(6)).is_err());
        // A clock that is set back by a day does not lock the address out for a day.
        assert!(failures.record(one, at(-86_400)).is_err_and(|wait| wait <= FAILURES_REFILL));
    }

    #[test]
    fn ipv6_network_counts_as_one_address_and_the_table_is_bounded() {
        let failures = AddressRates::new(CallRate::FAILURES);
        let v6 = |text: &str| Some(text.parse().unwrap());
        for host in 0..10 {
            assert_eq!(failures.record(v6(&format!("2001:db8::{host:x}")), at(0)), Ok(()));
        }
        assert!(failures.record(v6("2001:db8::ffff"), at(0)).is_err());
        assert_eq!(failures.record(v6("2001:db8:0:1::1"), at(0)), Ok(()));
        for host in 0..20_000_u32 {
            let _ = failures.record(Some(IpAddr::from(host.to_be_bytes())), at(0));
        }
        let count = || failures.free_at_ns.lock().unwrap().len();
        assert!(count() <= ADDRESSES_MAX + 1, "{}", count());
        assert_eq!(failures.record(Some(IpAddr::from([9, 9, 9, 9])), at(3_600)), Ok(()));
        assert_eq!(count(), 1, "old failures are forgotten");
    }
    #[test]
    fn client_makes_calls_at_its_rate_and_a_refused_call_does_not_count() {
        let (rate, client) = (CallRate::per_second(4), ClientRate::default());
        let ms = |ms: i64| at(0).saturating_add_us(ms * 1_000);
        for _ in 0..4 {
            assert_eq!(client.record(rate, ms(0)), Ok(()));
        }
        for _ in 0..3 {
            assert_eq!(client.record(rate, ms(0)), Err(Duration::from_millis(250)));
        }
        assert_eq!(client.record(rate, ms(100)), Err(Duration::from_millis(150)));
        assert_eq!(client.record(rate, ms(250)), Ok(()));
        assert!(client.record(rate, ms(250)).is_err());
        assert_eq!(client.record(rate, ms(1_250)), Ok(()));
        // The largest limit that can be configured.
        let (rate, client) = (CallRate::per_second(1_000_000), ClientRate::default());
        assert_eq!((0..1_000_001).filter(|_| client.record(rate, ms(0)).is_ok()).count(), 1_000_000);
    }
}
