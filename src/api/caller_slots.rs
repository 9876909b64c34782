//! Slots for streams, unsent responses and reads that wait, with a limit in total and a limit for each client address.
//!
//! **Invariant**: one client address never takes all slots, unless there is only one.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::futures::TaskLocalFuture;
use tokio::task_local;

use crate::callers::{network, share};

/// The client address of a call, or its network for IPv6 ([`crate::callers`]).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Caller(IpAddr);

task_local! {
    static CALLER: Option<Caller>;
}

/// A future that runs for a caller.
pub type CallerScope<F> = TaskLocalFuture<Option<Caller>, F>;

impl Caller {
    /// Returns the caller at a client address.
    pub fn at(address: IpAddr) -> Self {
        Self(network(address))
    }

    /// Returns a future that runs `future` for a caller, whose permits and slots it takes.
    pub fn scope<F>(caller: Option<Self>, future: F) -> CallerScope<F>
    where
        F: Future,
    {
        CALLER.scope(caller, future)
    }

    /// Returns the caller for whom this future runs, or `None` if its call did not come over a connection.
    pub fn current() -> Option<Self> {
        CALLER.try_with(|caller| *caller).ok().flatten()
    }
}

/// The slots for one kind of stream. Cheap to clone; all clones share the slots.
#[derive(Clone, Debug)]
pub struct CallerSlots {
    taken: Arc<Mutex<Taken>>,
    total_max: usize,
    caller_max: usize,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_caller: HashMap<Option<Caller>, usize>,
}

/// A taken slot. Dropping this value releases the slot.
#[derive(Debug)]
pub struct CallerSlot {
    taken: Arc<Mutex<Taken>>,
    caller: Option<Caller>,
}

impl CallerSlots {
    /// Creates `total_max` slots, of which one client address takes at most three quarters.
    pub fn new(total_max: usize) -> Self {
        Self { taken: Arc::default(), total_max, caller_max: share(total_max) }
    }

    /// Returns the number of taken slots.
    pub fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).total
    }

    /// Takes a slot. Returns `None` if all slots are taken, or if this client address has reached its limit. A call
    /// without an address did not come over a connection, and is limited only in total.
    pub fn take(&self, caller: Option<Caller>) -> Option<CallerSlot> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.by_caller.get(&caller).copied().unwrap_or(0);
        if taken.total >= self.total_max || caller.is_some() && count >= self.caller_max {
            return None;
        }
        taken.total += 1;
        taken.by_caller.insert(caller, count + 1);
        Some(CallerSlot { taken: Arc::clone(&self.taken), caller })
    }
}

impl Drop for CallerSlot {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Some(count) = taken.by_caller.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                taken.by_caller.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_address_does_not_take_all_slots() {
        let slots = CallerSlots::new(4);
        let caller = |last: u8| Some(Caller::at(IpAddr::from([127, 0, 0, last])));
        let mut taken: Vec<_> = (0..3).map(|_| slots.take(caller(1)).unwrap()).collect();
        assert!(slots.take(caller(1)).is_none());
        let other = slots.take(caller(2)).unwrap();
        assert!(slots.take(caller(3)).is_none(), "all four slots are taken");
        drop(other);
        taken.pop();
        assert!(slots.take(caller(1)).is_some());
        drop(taken);
        assert!(slots.taken.lock().unwrap().by_caller.is_empty(), "addresses without a slot are removed");
    }
}
