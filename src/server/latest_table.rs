//! The table of latest quotes that a server prints to stdout when it starts.
//!
//! **Invariant**: every cell is one line of plain text without control characters, whatever the store contains.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};

use crate::latest_quotes::{LatestQuote, LatestQuotes};

const HEADINGS: [&str; 6] = ["pair", "source", "rate", "reported change", "observed", "state"];
const RATE_COLUMN: usize = 2;
const CHANGE_COLUMN: usize = 3;

/// Returns the table of `latest_quotes`, or the line `no quotes yet` if there are none.
pub(super) fn latest_table(latest_quotes: &LatestQuotes) -> String {
    if latest_quotes.quotes.is_empty() {
        return "no quotes yet".to_owned();
    }
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(HEADINGS);
    for column in [RATE_COLUMN, CHANGE_COLUMN] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for quote in &latest_quotes.quotes {
        table.add_row(cells(quote).map(|cell| plain(&cell)));
    }
    table.to_string()
}

fn cells(quote: &LatestQuote) -> [String; 6] {
    let value = &quote.run.value;
    [
        quote.series.pair.to_string(),
        quote.series.source.to_string(),
        value.rate.to_string(),
        value.reported_change.map_or_else(String::new, |change| format!("{change} %")),
        quote.run.last_observed_time.to_string(),
        format!("{}{}", quote.state.name().to_lowercase(), if quote.is_archived { ", archived" } else { "" }),
    ]
}

fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{CurrencySet, Pair, PublishedValue, Rate, ReportedChange, Run, SeriesKey, Source, Timestamp};
    use crate::latest_quotes::RateState;

    fn quote(rate: &str, change: Option<&str>) -> Arc<LatestQuote> {
        let value = PublishedValue {
            rate: Rate::parse(rate).unwrap(),
            reported_change: change.map(|text| ReportedChange::parse(text).unwrap()),
        };
        let time = Timestamp::parse_rfc3339("2025-12-08T00:00:00Z").unwrap();
        let pair = Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap();
        Arc::new(LatestQuote {
            is_archived: false,
            series: SeriesKey { pair, source: Source::parse("timesca").unwrap() },
            run: Run::single(time, value, time),
            state: RateState::Stale,
            stale_time: time,
            moved_time: None,
            previous_rate: None,
            changed_sequence: 1,
        })
    }

    #[test]
    fn table_shows_published_digits_and_sign_of_zero() {
        let latest_quotes = LatestQuotes {
            quotes: vec![quote("0.01140", Some("-0")), quote("0.28490", None)],
            ..LatestQuotes::default()
        };
        let table = latest_table(&latest_quotes);
        for part in ["KGS/USD", "timesca", " 0.01140 ", " -0 % ", " 0.28490 ", "2025-12-08T00:00:00Z", "stale"] {
            assert!(table.contains(part), "no '{part}' in\n{table}");
        }
    }

    #[test]
    fn empty_store_prints_no_quotes_yet() {
        assert_eq!(latest_table(&LatestQuotes::default()), "no quotes yet");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(plain("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
    }
}
