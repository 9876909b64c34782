//! Since when a rate has held.
//!
//! **Invariant**: blocks in which every run has one number are passed over unread, so that a rate that
//! held for years costs no scan.

use super::block::BlockError;
use super::segments::Segment;
use super::series::{Access, LastMove, Series};
use crate::domain::{Run, Timestamp};

impl Series {
    /// The rate of `run`, the last that begins at or before its own first observed time: since when
    /// it has held, and what was before. Blocks of one number are passed over unread.
    pub(crate) fn last_move_of(&self, run: &Run, access: &Access<'_>) -> Result<LastMove, BlockError> {
        let loader = access.runs();
        let mut last_move = LastMove { since: run.first_observed_time, before: None };
        let mut at = self.runs.segments_from(run.first_observed_time);
        while at > 0 {
            at -= 1;
            let uniform = match self.runs.segment(at) {
                Some(Segment::Immutable(meta)) => meta.uniform_rate().map(|rate| (rate, meta.first_key())),
                Some(Segment::Mutable(_)) | None => None,
            };
            if let Some((rate, first)) = uniform
                && rate.same_number(run.value.rate)
            {
                last_move.since = last_move.since.min(first);
                continue;
            }
            let items = self.runs.load_segment(at, &loader)?;
            for other in items.iter().rev().skip_while(|other| other.first_observed_time > run.first_observed_time) {
                if !other.value.rate.same_number(run.value.rate) {
                    last_move.before = Some((other.last_observed_time, other.value.rate));
                    return Ok(last_move);
                }
                last_move.since = other.first_observed_time;
            }
        }
        Ok(last_move)
    }

    /// Whether a late change left the last move to be found anew.
    pub(crate) fn last_move_is_unknown(&self) -> bool {
        self.last_move.since == Timestamp::MAX
    }
}
