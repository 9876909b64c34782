//! The last move of a rate: when the rate began, and the rate before it.
//!
//! **Invariant**: the search does not read a block in which all runs have the present rate. So it is cheap even for a
//! rate that did not move for years.

use super::block::BlockError;
use super::segments::Segment;
use super::series::{Access, LastMove, Series};
use crate::domain::{Run, Timestamp};

impl Series {
    /// Finds the last move of the rate of `run`, which must be a current run of this series. Does not read blocks
    /// in which all runs have this rate.
    pub(crate) fn last_move_of(&self, run: &Run, access: &Access<'_>) -> Result<LastMove, BlockError> {
        let loader = access.runs();
        let mut last_move = LastMove { since: run.first_observed_time, before: None };
        let mut at = self.runs.count_segments_up_to(run.first_observed_time);
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

    /// Returns true if a late tick invalidated the last move, so that it must be recomputed.
    pub(crate) fn last_move_is_unknown(&self) -> bool {
        self.last_move.since == Timestamp::MAX
    }
}
