//! The ticks that were held, and what was decided of them.

use super::latest::SeriesFilter;
use super::{Answer, QueryError, Range, Reader, check_cancelled};
use crate::domain::{HeldTick, Timestamp, Verdict};

/// Looked at between two checks of whether the caller is still there.
const TICKS_BETWEEN_CHECKS: usize = 4_096;

/// Asks for held ticks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuarantineRequest {
    /// Of which series.
    pub filter: SeriesFilter,
    /// Those of these verdicts; none stands for what is not decided.
    pub verdicts: Vec<Option<Verdict>>,
    /// Of observed times.
    pub range: Range,
    /// As known at.
    pub known_time: Option<Timestamp>,
    /// Only those with a greater id.
    pub after: u64,
    /// At most so many, at least one.
    pub limit: usize,
}

/// A part of the list, by id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuarantinePage {
    /// As they were known.
    pub ticks: Vec<HeldTick>,
    /// After which id the next page goes on; none on the last.
    pub next: Option<u64>,
}

impl Reader {
    /// Ticks that are held now, none of them decided.
    pub fn held_count(&self) -> usize {
        self.view.quarantine().held_count()
    }

    /// A page of held ticks, from memory.
    ///
    /// # Errors
    /// Nothing known by then, the caller gone, or the store's.
    pub fn quarantine(&self, request: &QuarantineRequest) -> Result<Answer<QuarantinePage>, QueryError> {
        let as_of = self.as_of(request.known_time)?;
        let known = as_of.known();
        let wanted = |tick: &HeldTick| {
            request.range.start() <= tick.observed_time
                && tick.observed_time < request.range.end()
                && request.verdicts.contains(&tick.verdict_at(known))
                && request.filter.lets(&tick.series)
        };
        let (mut ticks, mut next) = (Vec::new(), None);
        for (number, tick) in self.view.quarantine().after(request.after).enumerate() {
            if number.is_multiple_of(TICKS_BETWEEN_CHECKS) {
                check_cancelled(&self.cancel)?;
            }
            // Ids are given in the order of commits.
            let Some(tick) = tick.as_known(known) else { break };
            if !wanted(&tick) {
                continue;
            }
            if ticks.len() == request.limit {
                next = ticks.last().map(|last: &HeldTick| last.id);
                break;
            }
            ticks.push(tick);
        }
        Ok(Answer { commit: as_of.commit, body: QuarantinePage { ticks, next } })
    }
}
