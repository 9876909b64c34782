//! Since when a rate has held.
//!
//! **Invariant**: blocks in which every run has one number are passed over unread, so that a rate that
//! held for years costs no scan.

use super::block::BlockError;
use super::segments::Segment;
use super::series::{Access, Pace, Series};
use crate::domain::{Run, Timestamp};

impl Series {
    /// The rate of `run`, the last that begins at or before its own first observed time: since when
    /// it has held, and what was before. Blocks of one number are passed over unread.
    pub(crate) fn pace_of(&self, run: &Run, access: &Access<'_>) -> Result<Pace, BlockError> {
        let loader = access.runs();
        let mut pace = Pace { since: run.first_observed_time, before: None };
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
                pace.since = pace.since.min(first);
                continue;
            }
            let items = self.runs.load_segment(at, &loader)?;
            for other in items.iter().rev().skip_while(|other| other.first_observed_time > run.first_observed_time) {
                if !other.value.rate.same_number(run.value.rate) {
                    pace.before = Some((other.last_observed_time, other.value.rate));
                    return Ok(pace);
                }
                pace.since = other.first_observed_time;
            }
        }
        Ok(pace)
    }

    /// Whether a late change left the pace to be found anew.
    pub(crate) fn pace_is_unknown(&self) -> bool {
        self.pace.since == Timestamp::MAX
    }
}
