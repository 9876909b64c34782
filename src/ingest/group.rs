//! The requests that the writer commits together.

use std::collections::VecDeque;

use super::{PendingBatch, PendingPoll};

/// Requests for a group commit.
#[derive(Default)]
pub(super) struct Group {
    pub(super) batches: VecDeque<PendingBatch>,
    pub(super) polls: Vec<PendingPoll>,
    /// Number of ticks in all batches.
    pub(super) ticks: usize,
}

impl Group {
    pub(super) fn of(first: PendingBatch) -> Self {
        let mut group = Self::default();
        group.add(first);
        group
    }

    pub(super) fn of_poll(first: PendingPoll) -> Self {
        Self { polls: vec![first], ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.polls.is_empty()
    }

    pub(super) fn add(&mut self, mut pending: PendingBatch) {
        // The batch no longer waits in the queue.
        pending.share = None;
        self.ticks += pending.batch.tick_count();
        self.batches.push_back(pending);
    }
}
