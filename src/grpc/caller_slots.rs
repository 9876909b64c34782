//! Slots for streams and for unsent responses, with a limit in total and a limit for each client address.
//!
//! **Invariant**: one client address never takes all slots.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::Extensions;

/// The client address of a call. The server stores it in the extensions of the request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Caller(pub IpAddr);

impl Caller {
    /// Returns the client address from the extensions of a request, or `None` if the request did not come over a
    /// connection.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get::<Self>().copied()
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
    /// Creates `total_max` slots, of which one client address takes at most `caller_max`.
    pub fn new(total_max: usize, caller_max: usize) -> Self {
        Self { taken: Arc::default(), total_max, caller_max }
    }

    /// Takes a slot. Returns `None` if all slots are taken, or if this client address has reached its limit.
    pub fn take(&self, caller: Option<Caller>) -> Option<CallerSlot> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.by_caller.get(&caller).copied().unwrap_or(0);
        if taken.total >= self.total_max || count >= self.caller_max {
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
        let slots = CallerSlots::new(4, 3);
        let caller = |last: u8| Some(Caller(IpAddr::from([127, 0, 0, last])));
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
