//! Connection slots of a listener: a limit in total, and a limit for each client address.
//!
//! **Invariant**: at most `total_max` connections have a slot, and at most `address_max` connections from one address.
//! If a limit is reached, the connection that has been idle for the longest time gives way to a new one. A connection
//! with a call in progress never gives way.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::callers::{network, share};

/// Maximum number of connections that gave way and are not closed yet. Beyond it, new connections are refused.
const CLOSING_MAX: usize = 64;
/// Shortest time between two log lines about refused connections of a listener.
const LOG_PERIOD: Duration = Duration::from_mins(1);

/// The limits of a listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotLimits {
    /// Maximum number of open connections.
    pub total_max: usize,
    /// Maximum number of open connections from one address.
    pub address_max: usize,
}

impl SlotLimits {
    /// Returns the limits of a listener with `total_max` connections. An address gets three quarters of them, as of
    /// calls and streams, unless `address_max` is given.
    pub fn new(total_max: usize, address_max: Option<usize>) -> Self {
        Self { total_max, address_max: address_max.unwrap_or(share(total_max)) }
    }
}

/// The slots of a listener. Cheap to clone; all clones share the slots.
#[derive(Clone, Debug)]
pub struct ConnectionSlots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// What the listener serves, for the log.
    listener: &'static str,
    limits: SlotLimits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next_number: u64,
    connections: HashMap<u64, Entry>,
    by_address: HashMap<IpAddr, OfAddress>,
    /// Idle connections, in the order in which they became idle.
    idle: BTreeMap<u64, u64>,
    /// Number of connections that gave way and are not closed yet.
    closing: usize,
    report: Report,
}

/// A connection with a slot.
#[derive(Debug)]
struct Entry {
    address: IpAddr,
    calls: usize,
    /// Key in the lists of idle connections, if the connection is idle.
    idle_since: Option<u64>,
    close: CancellationToken,
}

#[derive(Debug, Default)]
struct OfAddress {
    count: usize,
    idle: BTreeMap<u64, u64>,
}

/// Events since the last log line.
#[derive(Debug, Default)]
struct Report {
    logged: Option<Instant>,
    refused: u64,
    gave_way: u64,
    last_address: Option<IpAddr>,
}

impl Report {
    /// Returns the counts to log, if there are any and the last line is old enough.
    fn due(&mut self, now: Instant) -> Option<(u64, u64, Option<IpAddr>)> {
        let is_recent = self.logged.is_some_and(|logged| now.duration_since(logged) < LOG_PERIOD);
        if is_recent || self.refused + self.gave_way == 0 {
            return None;
        }
        self.logged = Some(now);
        Some((std::mem::take(&mut self.refused), std::mem::take(&mut self.gave_way), self.last_address.take()))
    }
}

impl ConnectionSlots {
    /// Creates the slots of a listener. `listener` names it in the log.
    pub fn new(listener: &'static str, limits: SlotLimits) -> Self {
        Self(Arc::new(Shared { listener, limits, taken: Mutex::default() }))
    }

    /// Takes a slot for a new connection from `address`. If a limit is reached, closes the connection that has been idle
    /// for the longest time: of this address, if the limit of the address is reached. Returns `None` if no connection is
    /// idle.
    pub fn take(&self, address: IpAddr) -> Option<Slot> {
        let address = network(address);
        let SlotLimits { total_max, address_max } = self.0.limits;
        let mut taken = self.0.lock();
        let of_address = taken.by_address.get(&address);
        let is_address_full = of_address.is_some_and(|of_address| of_address.count >= address_max);
        let oldest = if is_address_full {
            of_address.and_then(|of_address| of_address.idle.values().next().copied())
        } else {
            taken.idle.values().next().copied()
        };
        let is_full = is_address_full || taken.connections.len() >= total_max;
        let has_room = !is_full || taken.closing < CLOSING_MAX && oldest.is_some_and(|oldest| taken.give_way(oldest));
        let number = has_room.then(|| taken.add(address));
        if number.is_none() {
            taken.report.refused += 1;
            taken.report.last_address = Some(address);
        }
        let due = taken.report.due(Instant::now());
        let slot = number.and_then(|number| {
            let close = taken.connections.get(&number)?.close.clone();
            Some(Slot { shared: Arc::clone(&self.0), number, close })
        });
        drop(taken);
        if let Some((refused, gave_way, last)) = due {
            let (listener, last) =
                (self.0.listener, last.map_or_else(String::new, |last| format!(", the last from {last}")));
            tracing::warn!(
                "{listener}: the limit of {total_max} connections, or of {address_max} from one address, is reached: {refused} refused{last}; {gave_way} idle ones closed for new ones; this is logged at most once a minute"
            );
        }
        slot
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn add(&mut self, address: IpAddr) -> u64 {
        let number = self.next();
        self.by_address.entry(address).or_default().count += 1;
        let entry = Entry { address, calls: 0, idle_since: None, close: CancellationToken::new() };
        self.connections.insert(number, entry);
        self.set_idle(number, true);
        number
    }

    fn next(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Adds a connection to the lists of idle connections, or removes it.
    fn set_idle(&mut self, number: u64, is_idle: bool) {
        let order = self.next();
        let Some(entry) = self.connections.get_mut(&number) else { return };
        let Some(of_address) = self.by_address.get_mut(&entry.address) else { return };
        if let Some(since) = entry.idle_since.take() {
            self.idle.remove(&since);
            of_address.idle.remove(&since);
        }
        if is_idle {
            entry.idle_since = Some(order);
            self.idle.insert(order, number);
            of_address.idle.insert(order, number);
        }
    }

    /// Removes a connection. Returns `None` if it has no slot.
    fn remove(&mut self, number: u64) -> Option<Entry> {
        self.set_idle(number, false);
        let entry = self.connections.remove(&number)?;
        if let Some(of_address) = self.by_address.get_mut(&entry.address) {
            of_address.count -= 1;
            if of_address.count == 0 {
                self.by_address.remove(&entry.address);
            }
        }
        Some(entry)
    }

    /// Closes a connection and frees its slot.
    fn give_way(&mut self, number: u64) -> bool {
        let Some(entry) = self.remove(number) else { return false };
        entry.close.cancel();
        self.closing += 1;
        self.report.gave_way += 1;
        true
    }
}

/// The slot of one connection. Dropping this value frees the slot.
#[derive(Debug)]
pub struct Slot {
    shared: Arc<Shared>,
    number: u64,
    close: CancellationToken,
}

impl Slot {
    /// Returns the token that is cancelled when the connection must close, because it gives way to a new one.
    pub fn close_token(&self) -> &CancellationToken {
        &self.close
    }

    /// Returns a handle with which the calls of this connection are counted.
    pub fn calls(&self) -> Calls {
        Calls { shared: Arc::clone(&self.shared), number: self.number }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.shared.lock();
        if taken.remove(self.number).is_none() {
            taken.closing -= 1;
        }
    }
}

/// Counts the calls in progress of one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Calls {
    shared: Arc<Shared>,
    number: u64,
}

impl Calls {
    /// Counts a call as in progress until the returned guard is dropped.
    pub fn begin(&self) -> CallInProgress {
        let mut taken = self.shared.lock();
        if let Some(entry) = taken.connections.get_mut(&self.number) {
            entry.calls += 1;
            if entry.calls == 1 {
                taken.set_idle(self.number, false);
            }
        }
        CallInProgress(self.clone())
    }
}

/// A call in progress.
#[derive(Debug)]
pub struct CallInProgress(Calls);

impl Drop for CallInProgress {
    fn drop(&mut self) {
        let Calls { shared, number } = &self.0;
        let mut taken = shared.lock();
        let Some(entry) = taken.connections.get_mut(number) else { return };
        entry.calls -= 1;
        if entry.calls == 0 {
            taken.set_idle(*number, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(total_max: usize, address_max: usize) -> ConnectionSlots {
        ConnectionSlots::new("a test", SlotLimits { total_max, address_max })
    }

    fn from(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn is_closed(slot: &Slot) -> bool {
        slot.close_token().is_cancelled()
    }

    #[test]
    fn oldest_idle_connection_gives_way_and_a_busy_one_does_not() {
        let slots = slots(3, 3);
        let [first, second, third] = [1, 2, 3].map(|last| slots.take(from(last)).unwrap());
        let call = first.calls().begin();
        let fourth = slots.take(from(4)).unwrap();
        assert_eq!([&first, &second, &third, &fourth].map(is_closed), [false, true, false, false]);
        // A connection whose call ended has been idle for a shorter time than the others.
        drop(call);
        let fifth = slots.take(from(4)).unwrap();
        assert_eq!([&first, &third, &fourth, &fifth].map(is_closed), [false, true, false, false]);
        let _calls = [&first, &fourth, &fifth].map(|slot| slot.calls().begin());
        assert!(slots.take(from(6)).is_none(), "all connections have a call in progress");
        drop(second);
        drop(third);
        assert!(slots.take(from(6)).is_none(), "a connection that gave way frees no second slot");
        drop(fifth);
        assert!(slots.take(from(6)).is_some());
    }

    #[test]
    fn address_at_its_limit_displaces_only_its_own_connections() {
        let slots = slots(10, 2);
        let other = slots.take(from(1)).unwrap();
        let own = [2, 2].map(|last| slots.take(from(last)).unwrap());
        let next = slots.take(from(2)).unwrap();
        assert_eq!([&other, &own[0], &own[1], &next].map(is_closed), [false, true, false, false]);
        let _calls = [&own[1], &next].map(|slot| slot.calls().begin());
        assert!(slots.take(from(2)).is_none());
        assert!(slots.take(from(3)).is_some());
        let network = |host: &str| slots.take(host.parse().unwrap()).map(|slot| slot.calls().begin());
        assert!(network("2001:db8::1").is_some());
    }

    #[test]
    fn an_address_gets_three_quarters_of_the_connections_unless_configured() {
        assert_eq!(SlotLimits::new(2_048, None), SlotLimits { total_max: 2_048, address_max: 1_536 });
        assert_eq!(SlotLimits::new(2, None), SlotLimits { total_max: 2, address_max: 1 });
        assert_eq!(SlotLimits::new(2_048, Some(1_500)), SlotLimits { total_max: 2_048, address_max: 1_500 });
    }

    #[test]
    fn freed_slots_leave_nothing_behind() {
        let slots = slots(2, 2);
        for _ in 0..3 {
            let open: Vec<Slot> = (0..5).filter_map(|_| slots.take(from(1))).collect();
            let call = open[4].calls().begin();
            drop(open);
            drop(call);
        }
        let taken = slots.0.lock();
        assert!(taken.connections.is_empty() && taken.by_address.is_empty() && taken.idle.is_empty());
        assert_eq!(taken.closing, 0);
    }

    #[test]
    fn refusals_are_logged_once_a_period_with_their_count() {
        let begin = Instant::now();
        let mut report = Report::default();
        assert_eq!(report.due(begin), None);
        report.refused = 1;
        assert_eq!(report.due(begin), Some((1, 0, None)));
        (report.refused, report.gave_way) = (2_000, 3);
        assert_eq!(report.due(begin + LOG_PERIOD / 2), None);
        assert_eq!(report.due(begin + LOG_PERIOD), Some((2_000, 3, None)));
        assert_eq!(report.due(begin + LOG_PERIOD * 3), None);
    }
}
