//! The share of the writer's queue that one caller takes.
//!
//! **Invariant**: the batches of one caller that wait take at most three quarters of the batches and of the ticks of the
//! queue, or one batch of any size.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::QueueLimits;
use crate::callers::share;

/// The batches of all callers that wait. Cheap to clone; all clones share the state.
#[derive(Clone, Default)]
pub(super) struct QueueShares(Arc<Mutex<HashMap<Arc<str>, Waiting>>>);

#[derive(Clone, Copy, Default)]
struct Waiting {
    batches: usize,
    ticks: usize,
}

/// A batch that waits. Dropping this value ends its wait.
pub(super) struct QueueShare {
    shares: QueueShares,
    caller: Arc<str>,
    ticks: usize,
}

impl QueueShares {
    /// Counts a batch of `ticks` ticks. Returns `None` if the caller has reached its share.
    pub(super) fn take(&self, caller: &Arc<str>, ticks: usize, limits: QueueLimits) -> Option<QueueShare> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_caller = waiting.entry(Arc::clone(caller)).or_default();
        let has_room = of_caller.batches < share(limits.batches_max)
            && of_caller.ticks.saturating_add(ticks) <= share(limits.ticks_max);
        if of_caller.batches > 0 && !has_room {
            return None;
        }
        of_caller.batches += 1;
        of_caller.ticks += ticks;
        Some(QueueShare { shares: self.clone(), caller: Arc::clone(caller), ticks })
    }
}

impl Drop for QueueShare {
    fn drop(&mut self) {
        let mut waiting = self.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(of_caller) = waiting.get_mut(&self.caller) else { return };
        of_caller.batches -= 1;
        of_caller.ticks -= self.ticks;
        if of_caller.batches == 0 {
            waiting.remove(&self.caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_leaves_a_quarter_of_the_queue_to_the_others() {
        let (shares, limits) = (QueueShares::default(), QueueLimits { batches_max: 8, ticks_max: 1_000 });
        let [one, other] = ["one", "other"].map(Arc::<str>::from);
        let take = |caller, ticks| shares.take(caller, ticks, limits);
        let mut batches: Vec<_> = (0..6).map(|_| take(&one, 10).unwrap()).collect();
        assert!(take(&one, 10).is_none(), "three quarters of the batches");
        assert!(take(&other, 10).is_some());
        batches.pop();
        assert!(take(&one, 701).is_none(), "three quarters of the ticks");
        assert!(take(&one, 700).is_some());
        drop(batches);
        assert!(take(&one, 5_000).is_some(), "one batch of any size");
        assert!(shares.0.lock().unwrap().is_empty(), "callers without batches are forgotten");
    }
}
