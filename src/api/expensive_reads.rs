//! Permits for expensive reads, each of which may use a core for seconds.
//!
//! **Invariants**: at most the configured number of expensive reads run, and at most three quarters of it for one client
//! address. They take no place of cheap reads that wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::caller_slots::{Caller, CallerSlots};

/// Maximum number of expensive reads that wait. One client address takes at most three quarters.
const QUEUED_EXPENSIVE_READS_MAX: usize = 32;

/// The permits. Cheap to clone; all clones share the permits.
#[derive(Clone, Debug)]
pub(super) struct ExpensiveReads {
    permits: Arc<Semaphore>,
    caller_max: usize,
    /// The permits of each client address with an expensive read.
    callers: Arc<Mutex<HashMap<Option<Caller>, Weak<Semaphore>>>>,
    waiting: CallerSlots,
}

/// The permit of one expensive read.
#[derive(Debug)]
pub(super) struct ExpensivePermit {
    _permit: OwnedSemaphorePermit,
    _of_caller: OwnedSemaphorePermit,
}

impl ExpensiveReads {
    /// Creates `reads_max` permits.
    pub(super) fn new(reads_max: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(reads_max)),
            caller_max: CallerSlots::caller_max(reads_max),
            callers: Arc::default(),
            waiting: CallerSlots::new(QUEUED_EXPENSIVE_READS_MAX),
        }
    }

    /// Waits for a permit. Returns `None` if none becomes free within `wait_max`, or if too many reads wait.
    pub(super) async fn acquire(&self, caller: Option<Caller>, wait_max: Duration) -> Option<ExpensivePermit> {
        let of_caller = self.of_caller(caller);
        let at_once = Arc::clone(&of_caller).try_acquire_owned().ok().and_then(|of_caller| {
            let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
            Some(ExpensivePermit { _permit: permit, _of_caller: of_caller })
        });
        if at_once.is_some() {
            return at_once;
        }
        let _waiting = self.waiting.take(caller)?;
        // The permit of the address comes first, so that its reads take only their share of the queue of the others.
        let both = async {
            let of_caller = of_caller.acquire_owned().await.ok()?;
            let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
            Some(ExpensivePermit { _permit: permit, _of_caller: of_caller })
        };
        timeout(wait_max, both).await.ok().flatten()
    }

    /// Returns the permits of a client address, and forgets addresses without reads.
    fn of_caller(&self, caller: Option<Caller>) -> Arc<Semaphore> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(permits) = callers.get(&caller).and_then(Weak::upgrade) {
            return permits;
        }
        callers.retain(|_, permits| permits.strong_count() > 0);
        let permits = Arc::new(Semaphore::new(self.caller_max));
        callers.insert(caller, Arc::downgrade(&permits));
        permits
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    fn caller(last: u8) -> Caller {
        Caller(IpAddr::from([192, 0, 2, last]))
    }

    #[tokio::test]
    async fn one_client_leaves_a_permit_to_the_others() {
        let reads = ExpensiveReads::new(3);
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
        let reads = ExpensiveReads::new(1);
        let running = reads.acquire(Some(caller(1)), SOON).await.unwrap();
        let wait = |caller| {
            let reads = reads.clone();
            tokio::spawn(async move { reads.acquire(caller, Duration::from_mins(1)).await.is_some() })
        };
        let own: Vec<_> =
            (0..CallerSlots::caller_max(QUEUED_EXPENSIVE_READS_MAX)).map(|_| wait(Some(caller(1)))).collect();
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
