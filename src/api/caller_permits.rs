//! Permits of concurrent work, for which callers wait in turn.
//!
//! **Invariants**: at most the configured number of permits is taken, and at most three quarters of it for one client
//! address. The same holds for the places of those who wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::caller_slots::{Caller, CallerSlots};
use crate::callers::share;

/// The permits. Cheap to clone; all clones share the permits.
#[derive(Clone, Debug)]
pub(super) struct CallerPermits {
    permits: Arc<Semaphore>,
    caller_max: usize,
    /// The permits of each client address that has or wants one.
    callers: Arc<Mutex<HashMap<Caller, Weak<Semaphore>>>>,
    waiting: CallerSlots,
}

#[cfg(test)]
impl CallerPermit {
    /// Creates a permit that does not belong to any permits.
    pub(super) fn of_test() -> Self {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Self { _permit: permit, _of_caller: None }
    }
}

/// A permit. Dropping it releases it.
#[derive(Debug)]
pub(super) struct CallerPermit {
    _permit: OwnedSemaphorePermit,
    _of_caller: Option<OwnedSemaphorePermit>,
}

impl CallerPermits {
    /// Creates `total_max` permits, for which at most `waiting_max` callers wait.
    pub(super) fn new(total_max: usize, waiting_max: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(total_max)),
            caller_max: share(total_max),
            callers: Arc::default(),
            waiting: CallerSlots::new(waiting_max),
        }
    }

    /// Waits for a permit. Returns `None` if none becomes free within `wait_max`, or if too many callers wait. Work
    /// without an address is limited only in total.
    pub(super) async fn acquire(&self, caller: Option<Caller>, wait_max: Duration) -> Option<CallerPermit> {
        let of_caller = caller.map(|caller| self.of_caller(caller));
        let at_once = || {
            let of_caller = match &of_caller {
                Some(permits) => Some(Arc::clone(permits).try_acquire_owned().ok()?),
                None => None,
            };
            let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
            Some(CallerPermit { _permit: permit, _of_caller: of_caller })
        };
        if let Some(permit) = at_once() {
            return Some(permit);
        }
        let _waiting = self.waiting.take(caller)?;
        // The permit of the address comes first, so that its work takes only its share of the queue of the others.
        let both = async {
            let of_caller = match of_caller {
                Some(permits) => Some(permits.acquire_owned().await.ok()?),
                None => None,
            };
            let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
            Some(CallerPermit { _permit: permit, _of_caller: of_caller })
        };
        timeout(wait_max, both).await.ok().flatten()
    }

    /// Returns the permits of a client address, and forgets addresses without work.
    fn of_caller(&self, caller: Caller) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permits) = callers.get(&caller).and_then(Weak::upgrade) {
            return permits;
        }
        callers.retain(|_, permits| permits.strong_count() > 0);
        let permits = Arc::new(Semaphore::new(self.caller_max));
        callers.insert(caller, Arc::downgrade(&permits));
        permits
    }

    #[cfg(test)]
    pub(super) fn available(&self) -> usize {
        self.permits.available_permits()
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.taken()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    fn caller(last: u8) -> Caller {
        Caller::at(IpAddr::from([192, 0, 2, last]))
    }

    #[tokio::test]
    async fn one_client_leaves_a_permit_to_the_others() {
        let reads = CallerPermits::new(3, 8);
        let mut own = Vec::new();
        for _ in 0..2 {
            own.push(reads.acquire(Some(caller(1)), SOON).await.unwrap());
        }
        assert!(reads.acquire(Some(caller(1)), SOON).await.is_none());
        let other = reads.acquire(Some(caller(2)), SOON).await.unwrap();
        assert!(reads.acquire(Some(caller(3)), SOON).await.is_none(), "all permits are taken");
        drop(other);
        own.pop();
        assert!(reads.acquire(Some(caller(1)), SOON).await.is_some());
        drop(own);
        drop(reads.acquire(Some(caller(4)), SOON).await);
        let callers = reads.callers.lock().unwrap();
        assert_eq!(callers.len(), 1, "clients without reads are forgotten");
    }

    #[tokio::test]
    async fn one_client_leaves_places_in_the_queue_to_the_others() {
        let reads = CallerPermits::new(1, 32);
        let running = reads.acquire(Some(caller(1)), SOON).await.unwrap();
        let wait = |caller| {
            let reads = reads.clone();
            tokio::spawn(async move { reads.acquire(caller, Duration::from_mins(1)).await.is_some() })
        };
        let own: Vec<_> = (0..share(32)).map(|_| wait(Some(caller(1)))).collect();
        tokio::task::yield_now().await;
        assert!(!wait(Some(caller(1))).await.unwrap(), "refused at once");
        let other = wait(Some(caller(2)));
        tokio::task::yield_now().await;
        drop(running);
        assert!(other.await.unwrap());
        for waiting in own {
            assert!(waiting.await.unwrap());
        }
    }
}
