//! Places for streams, and for responses that are not sent yet: at most so many at one time, and of those at most so many for
//! one caller.
//!
//! **Invariant**: a caller alone never takes all places.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::Extensions;

/// Who makes a call, among the extensions of its request: the address that it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Caller(pub IpAddr);

impl Caller {
    /// Of the call with these extensions; none where it did not come over a connection.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get::<Self>().copied()
    }
}

/// Places of one kind of stream. Cheap to clone; all clones share them.
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

/// A place, given back when dropped.
#[derive(Debug)]
pub struct Place {
    taken: Arc<Mutex<Taken>>,
    caller: Option<Caller>,
}

impl CallerSlots {
    /// At most `total_max`, of which one caller has at most `caller_max`.
    pub fn new(total_max: usize, caller_max: usize) -> Self {
        Self { taken: Arc::default(), total_max, caller_max }
    }

    /// None if there is no place, for this caller or at all.
    pub fn take(&self, caller: Option<Caller>) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.by_caller.get(&caller).copied().unwrap_or(0);
        if taken.total >= self.total_max || own >= self.caller_max {
            return None;
        }
        taken.total += 1;
        taken.by_caller.insert(caller, own + 1);
        Some(Place { taken: Arc::clone(&self.taken), caller })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Some(own) = taken.by_caller.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                taken.by_caller.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_alone_does_not_take_all_places() {
        let places = CallerSlots::new(4, 3);
        let caller = |last: u8| Some(Caller(IpAddr::from([127, 0, 0, last])));
        let mut own: Vec<_> = (0..3).map(|_| places.take(caller(1)).unwrap()).collect();
        assert!(places.take(caller(1)).is_none());
        let other = places.take(caller(2)).unwrap();
        assert!(places.take(caller(3)).is_none(), "four are taken");
        drop(other);
        own.pop();
        assert!(places.take(caller(1)).is_some());
        drop(own);
        assert!(places.taken.lock().unwrap().by_caller.is_empty(), "callers without a place are forgotten");
    }
}
