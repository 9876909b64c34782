//! A ticker page as a batch for the writer.
//!
//! **Invariant**: indices count the ticks of the page first and its refused quotes after them, so that
//! what became of all of them adds up.

use super::batch::{BatchBuilder, TickRules};
use super::{Batch, ConflictPolicy, Refusal, RefusalReason};
use crate::domain::{CurrencyError, PairError, Timestamp};
use crate::feed::{QuoteError, TickerPage};

/// A page that was read, and what of it goes to the writer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageBatch {
    /// Its ticks, and the quotes that gave none as refusals.
    pub batch: Batch,
    /// As read.
    pub page: TickerPage,
}

impl PageBatch {
    /// Judges the ticks of `page` at `now`.
    pub fn new(
        page: TickerPage,
        conflict_policy: ConflictPolicy,
        validate_only: bool,
        now: Timestamp,
        rules: &TickRules,
    ) -> Self {
        let mut builder = BatchBuilder::new(now, rules);
        let mut indices = 0..;
        for (tick, index) in page.ticks.iter().zip(&mut indices) {
            builder.push(index, tick);
        }
        for (refused, index) in page.refused.iter().zip(&mut indices) {
            builder.refuse(index, reason(&refused.reason), &refused.reason);
        }
        // Those that the page does not name any more are counted all the same.
        let unnamed = page.refused_count.saturating_sub(u32::try_from(page.refused.len()).unwrap_or(u32::MAX));
        for (_, index) in (0..unnamed).zip(&mut indices) {
            builder.refuse(index, RefusalReason::InvalidPair, &"one of many bad quotes on this page");
        }
        Self { batch: builder.finish(conflict_policy, validate_only), page }
    }
}

/// Two pages of one day differ, since the ticker moves during it: where all times are a date's start,
/// a conflict says what would tell the pages apart.
pub fn advise_time(refusals: &mut [Refusal], remedy: &str) {
    for refusal in refusals.iter_mut().filter(|refusal| refusal.reason == RefusalReason::Conflict) {
        refusal.message.push_str("; the time is only the start of the page's date: ");
        refusal.message.push_str(remedy);
    }
}

fn reason(error: &QuoteError) -> RefusalReason {
    match error {
        QuoteError::Ambiguous { .. } => RefusalReason::Ambiguous,
        QuoteError::Truncated(_) => RefusalReason::Truncated,
        QuoteError::Pair(PairError::Currency {
            problem: CurrencyError::NotIso(_) | CurrencyError::NotServed { .. },
            ..
        }) => RefusalReason::UnknownCurrency,
        QuoteError::Pair(PairError::Malformed(_) | PairError::Same(_) | PairError::Currency { .. }) => {
            RefusalReason::InvalidPair
        }
        QuoteError::Rate { .. } => RefusalReason::InvalidRate,
        QuoteError::ReportedChange { .. } => RefusalReason::InvalidReportedChange,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Source;

    fn page_batch(text: &str) -> PageBatch {
        let rules = TickRules::default();
        let now = Timestamp::parse_rfc3339("2025-12-08T12:00:00Z").unwrap();
        let page =
            TickerPage::read(text.as_bytes(), &Source::parse("timesca").unwrap(), None, &rules.currencies).unwrap();
        PageBatch::new(page, ConflictPolicy::Refuse, false, now, &rules)
    }

    #[test]
    fn ticks_come_first_and_refused_quotes_after_them() {
        let page = "08 December 2025\n\u{2022} KGS/USD = 0.01144 0%\n\u{2022} KZT/USD = 0.00196 -0%\n\
                    \u{2022} EUR/USD = 1.1 0%\n\u{2022} KZT/USD = 0.00197 -0%\n";
        let PageBatch { batch, page } = page_batch(page);
        assert_eq!((page.ticks.len(), batch.groups.len()), (1, 1));
        assert_eq!(batch.groups[0].ticks[0].index, 0);
        let refused: Vec<_> = batch.refusals.iter().map(|refusal| (refusal.index, refusal.reason)).collect();
        assert_eq!(refused, [(1, RefusalReason::UnknownCurrency), (2, RefusalReason::Ambiguous)]);
    }

    #[test]
    fn a_page_dated_ahead_is_refused_tick_by_tick() {
        let batch = page_batch("08 December 2035\nKGS/USD = 0.01144 0%\n").batch;
        assert_eq!((batch.groups.len(), batch.refusals.len()), (0, 1));
        assert_eq!(batch.refusals[0].reason, RefusalReason::TimeTooFarAhead);
    }

    #[test]
    fn only_conflicts_are_advised_to_name_the_time() {
        let refusal = |reason| Refusal { index: 0, reason, message: "known".to_owned(), stored: None };
        let mut refusals = [refusal(RefusalReason::Conflict), refusal(RefusalReason::Ambiguous)];
        advise_time(&mut refusals, "pass it");
        assert_eq!(refusals[0].message, "known; the time is only the start of the page's date: pass it");
        assert_eq!(refusals[1].message, "known");
    }
}
