//! Pages of held ticks and their verdicts. A held tick is a tick in quarantine, because its rate was too far from the
//! rate in force.
//!
//! **Invariant**: held ticks are read from memory. Only the search for the commit of an earlier `known_time` may read
//! blocks.

use super::latest::SeriesFilter;
use super::{Answer, QueryError, Range, Reader, check_cancelled};
use crate::domain::{HeldTick, ScanOrder, Timestamp, Verdict};

/// The number of ticks between two checks for cancellation.
const TICKS_BETWEEN_CHECKS: usize = 4_096;

/// A request for a page of held ticks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuarantineRequest {
    /// The series of the ticks.
    pub filter: SeriesFilter,
    /// The verdicts to include; `None` in the list means ticks without a verdict.
    pub verdicts: Vec<Option<Verdict>>,
    /// The range of observed times.
    pub range: Range,
    /// Read the data as known at this time. `None` means the newest commit.
    pub known_time: Option<Timestamp>,
    /// The order of the ticks: by id, oldest or newest first.
    pub order: ScanOrder,
    /// Return only ticks after the tick with this id, in the requested order. Zero means all ticks.
    pub after: u64,
    /// The maximum number of ticks, at least one.
    pub limit: usize,
}

/// A page of held ticks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuarantinePage {
    /// The ticks as known at the commit, in the requested order.
    pub ticks: Vec<HeldTick>,
    /// The last id of this page, after which the next page starts; `None` on the last page.
    pub next: Option<u64>,
}

impl Reader {
    /// Returns the number of held ticks without a verdict.
    pub fn held_count(&self) -> usize {
        self.view.quarantine().held_count()
    }

    /// Returns a page of held ticks. This reads memory only, unless `known_time` is before the newest commit: then this
    /// may read blocks of the list of commits.
    ///
    /// # Errors
    /// `NothingKnownYet` if `known_time` is before the first commit; `Cancelled` after cancellation; `Store` if reading
    /// the commits fails.
    pub fn quarantine(&self, request: &QuarantineRequest) -> Result<Answer<QuarantinePage>, QueryError> {
        let as_of = self.as_of(request.known_time)?;
        let known = as_of.known();
        let wanted = |tick: &HeldTick| {
            request.range.start() <= tick.observed_time
                && tick.observed_time < request.range.end()
                && request.verdicts.contains(&tick.verdict_at(known))
                && request.filter.matches(&tick.series)
        };
        let (mut ticks, mut next) = (Vec::new(), None);
        let quarantine = self.view.quarantine();
        let listed: Box<dyn Iterator<Item = &HeldTick>> = match request.order {
            ScanOrder::Ascending => Box::new(quarantine.after(request.after)),
            ScanOrder::Descending => Box::new(quarantine.before(request.after)),
        };
        for (number, tick) in listed.enumerate() {
            if number.is_multiple_of(TICKS_BETWEEN_CHECKS) {
                check_cancelled(&self.cancel)?;
            }
            let Some(tick) = tick.as_known(known) else { continue };
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
