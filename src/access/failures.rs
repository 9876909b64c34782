//! The limit of calls with invalid credentials, per client address.
//!
//! Each address may fail `BURST_MAX` times at once, and once more after each `REFILL`. IPv6 addresses of one network
//! of 64 bits count as one address, because a client chooses the other bits.
//!
//! **Invariants**: a call with valid credentials is never limited. At most `ADDRESSES_MAX` addresses are kept; beyond
//! that, all further addresses share one limit.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::Timestamp;

/// Number of failures that are answered one after the other.
const BURST_MAX: i64 = 10;
/// Time after which an address may fail once more.
const REFILL: Duration = Duration::from_secs(6);
/// Number of addresses whose failures are counted.
const ADDRESSES_MAX: usize = 10_000;

/// The failures of all addresses.
#[derive(Debug, Default)]
pub struct Failures {
    /// For each address: the time at which its failures are forgotten (the theoretical arrival time of the generic
    /// cell rate algorithm), in microseconds.
    free_at_us: Mutex<HashMap<Option<IpAddr>, i64>>,
}

impl Failures {
    /// Records a failure of `address` at `now`.
    ///
    /// # Errors
    /// The time to wait, if the address failed too often.
    pub fn record(&self, address: Option<IpAddr>, now: Timestamp) -> Result<(), Duration> {
        let refill_us = i64::try_from(REFILL.as_micros()).unwrap_or(i64::MAX);
        let now_us = now.micros();
        let mut free_at = self.free_at_us.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = address.map(network);
        if free_at.len() >= ADDRESSES_MAX && !free_at.contains_key(&key) {
            free_at.retain(|_, at| *at > now_us);
            if free_at.len() >= ADDRESSES_MAX {
                key = None;
            }
        }
        let at = free_at.entry(key).or_insert(now_us);
        // A clock that is set back must not lock an address out.
        let next = (*at).clamp(now_us, now_us.saturating_add(BURST_MAX * refill_us)).saturating_add(refill_us);
        let wait_us = next.saturating_sub(now_us).saturating_sub(BURST_MAX * refill_us);
        if wait_us > 0 {
            return Err(Duration::from_micros(wait_us.unsigned_abs()));
        }
        *at = next;
        Ok(())
    }
}

/// Returns the address, and for IPv6 the network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
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
        let failures = Failures::default();
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
        assert!(failures.record(one, at(-86_400)).is_err_and(|wait| wait <= REFILL));
    }

    #[test]
    fn ipv6_network_counts_as_one_address_and_the_table_is_bounded() {
        let failures = Failures::default();
        let v6 = |text: &str| Some(text.parse().unwrap());
        for host in 0..10 {
            assert_eq!(failures.record(v6(&format!("2001:db8::{host:x}")), at(0)), Ok(()));
        }
        assert!(failures.record(v6("2001:db8::ffff"), at(0)).is_err());
        assert_eq!(failures.record(v6("2001:db8:0:1::1"), at(0)), Ok(()));
        for host in 0..20_000_u32 {
            let _ = failures.record(Some(IpAddr::from(host.to_be_bytes())), at(0));
        }
        let count = || failures.free_at_us.lock().unwrap().len();
        assert!(count() <= ADDRESSES_MAX + 1, "{}", count());
        assert_eq!(failures.record(Some(IpAddr::from([9, 9, 9, 9])), at(3_600)), Ok(()));
        assert_eq!(count(), 1, "old failures are forgotten");
    }
}
