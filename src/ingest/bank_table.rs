//! Conversion of a bank's table to a batch.
//!
//! **Invariant**: the quotes of the table have the first indices, and its refused entries have the next indices. The
//! counts of a report therefore add up to the number of quotes and refused entries.

use super::batch::{BatchBuilder, TickRules};
use super::{Batch, ConflictPolicy, RefusalReason};
use crate::domain::{CurrencyError, Source, Timestamp};
use crate::feed::{BankQuoteError, BankTable};

impl Batch {
    /// Converts the quotes of `table` to ticks of `source`, validates them at the time `now`, and converts refused
    /// entries to refusals. A table that is fetched again gives known ticks. A table that the bank has corrected gives
    /// conflicts, unless `conflict_policy` is `Revise`.
    pub fn of_table(
        table: &BankTable,
        source: &Source,
        conflict_policy: ConflictPolicy,
        now: Timestamp,
        rules: &TickRules,
    ) -> Self {
        let mut builder = BatchBuilder::new(now, rules);
        let mut indices = 0..;
        for (tick, index) in table.ticks(source).zip(&mut indices) {
            builder.push(index, &tick);
        }
        for (refused, index) in table.refused.iter().zip(&mut indices) {
            builder.refuse(index, reason(&refused.reason), refused);
        }
        builder.finish(conflict_policy, false)
    }
}

fn reason(error: &BankQuoteError) -> RefusalReason {
    match error {
        BankQuoteError::Currency(CurrencyError::NotIso(_) | CurrencyError::NotServed { .. }) => {
            RefusalReason::UnknownCurrency
        }
        BankQuoteError::Currency(CurrencyError::Malformed(_)) | BankQuoteError::Pair(_) => RefusalReason::InvalidPair,
        BankQuoteError::Missing(_)
        | BankQuoteError::NotText(_)
        | BankQuoteError::Nominal(_)
        | BankQuoteError::DecimalMark { .. }
        | BankQuoteError::Rate(_) => RefusalReason::InvalidRate,
        BankQuoteError::BadDate(_) | BankQuoteError::OtherDate { .. } => RefusalReason::InvalidTime,
        BankQuoteError::Ambiguous { .. } => RefusalReason::Ambiguous,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{BankFeed, BankRequest, BankRules};

    #[test]
    fn quotes_have_the_first_indices_and_refused_entries_the_next() {
        let entry = |code: &str, nominal: &str, value: &str| {
            format!("<Valute><CharCode>{code}</CharCode><Nominal>{nominal}</Nominal><Value>{value}</Value></Valute>")
        };
        let entries = [
            entry("UZS", "7", "0.0780"),
            entry("USD", "1", "9.3450"),
            entry("EUR", "1", "10.8757"),
            entry("kgs", "10", "1.0686"),
        ];
        let body = format!("<ValCurs Date='2026-05-18'>{}</ValCurs>", entries.concat());
        let rules = TickRules::default();
        let date = "2026-05-18".parse().unwrap();
        let bank_rules = BankRules { served: &rules.currencies, minimum_places: None };
        let table = BankRequest::new(BankFeed::Nbt, date).read(body.as_bytes(), &bank_rules).unwrap();

        let batch = |now: &str| {
            let now = Timestamp::parse_rfc3339(now).unwrap();
            let source = Source::parse("nbt").unwrap();
            let batch = Batch::of_table(&table, &source, ConflictPolicy::Refuse, now, &rules);
            let ticks = batch.groups.iter().flat_map(|group| {
                group.ticks.iter().map(move |tick| (tick.index, format!("{} {}", group.series, tick.value.rate)))
            });
            let refusals = batch.refusals.iter().map(|refusal| (refusal.index, format!("{:?}", refusal.reason)));
            (ticks.collect::<Vec<_>>(), refusals.collect::<Vec<_>>())
        };
        let refused = [(1, "InvalidRate".to_owned()), (2, "InvalidPair".to_owned())];
        // At this time, the date of the table is tomorrow, within the future limit.
        let (ticks, refusals) = batch("2026-05-17T10:00:00Z");
        assert_eq!(ticks, [(0, "USD/TJS from nbt 9.3450".to_owned())]);
        assert_eq!(refusals, refused);
        // The table's date is beyond the future limit.
        let (ticks, refusals) = batch("2026-05-01T10:00:00Z");
        assert_eq!(ticks, []);
        assert_eq!(refusals, [&[(0, "TimeTooFarAhead".to_owned())][..], &refused].concat());
    }
}
