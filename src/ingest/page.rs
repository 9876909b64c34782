//! Conversion of a ticker page to a batch.
//!
//! **Invariant**: the ticks of the page have the first indices, and its refused quotes have the next indices. The
//! counts of a report therefore add up to the number of ticks and refused quotes.

use super::batch::{BatchBuilder, TickRules};
use super::{Batch, ConflictPolicy, Refusal, RefusalReason};
use crate::domain::{CurrencyError, PairError, Timestamp};
use crate::feed::{QuoteError, TickerPage};

/// A parsed page and its batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageBatch {
    /// The ticks of the page, and its refused quotes as refusals.
    pub batch: Batch,
    /// The parsed page.
    pub page: TickerPage,
}

impl PageBatch {
    /// Validates the ticks of `page` at the time `now`.
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
        // Refused quotes beyond the limit of the page have no entry, but they count.
        let unnamed = page.refused_count.saturating_sub(u32::try_from(page.refused.len()).unwrap_or(u32::MAX));
        for (_, index) in (0..unnamed).zip(&mut indices) {
            builder.refuse(
                index,
                RefusalReason::InvalidPair,
                &"the page has more refused quotes than are reported; correct the page",
            );
        }
        Self { batch: builder.finish(conflict_policy, validate_only), page }
    }
}

/// Adds a remedy to the conflicts of a page that has only a date. The observed time of every tick of this page is the
/// start of the day. The ticker changes during a day, so two pages of one day conflict at that instant unless the
/// caller gives their observed times.
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
    fn ticks_have_the_first_indices_and_refused_quotes_the_next() {
        let page = "08 December 2025\n\u{2022} KGS/USD = 0.01144 0%\n\u{2022} KZT/USD = 0.00196 -0%\n\
                    \u{2022} EUR/USD = 1.1 0%\n\u{2022} KZT/USD = 0.00197 -0%\n";
        let PageBatch { batch, page } = page_batch(page);
        assert_eq!((page.ticks.len(), batch.groups.len()), (1, 1));
        assert_eq!(batch.groups[0].ticks[0].index, 0);
        let refused: Vec<_> = batch.refusals.iter().map(|refusal| (refusal.index, refusal.reason)).collect();
        assert_eq!(refused, [(1, RefusalReason::UnknownCurrency), (2, RefusalReason::Ambiguous)]);
    }

    #[test]
    fn ticks_of_a_page_dated_too_far_ahead_are_refused() {
        let batch = page_batch("08 December 2035\nKGS/USD = 0.01144 0%\n").batch;
        assert_eq!((batch.groups.len(), batch.refusals.len()), (0, 1));
        assert_eq!(batch.refusals[0].reason, RefusalReason::TimeTooFarAhead);
    }

    #[test]
    fn only_conflicts_get_the_remedy_to_give_the_time() {
        let refusal = |reason| Refusal { index: 0, reason, message: "known".to_owned(), stored: None };
        let mut refusals = [refusal(RefusalReason::Conflict), refusal(RefusalReason::Ambiguous)];
        advise_time(&mut refusals, "pass it");
        assert_eq!(refusals[0].message, "known; the time is only the start of the page's date: pass it");
        assert_eq!(refusals[1].message, "known");
    }
}
