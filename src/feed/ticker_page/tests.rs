//! Mutated pages: the parser does not panic, and each tick is printed completely on the page. Well-formed pages are
//! tested in `tests/it/feed/ticker_pages.rs`.

use std::cell::Cell;
use std::fs;

use super::*;
use crate::feed::mutation::{mutated, mutations, runner};

/// A page of text, and a page of HTML.
const PAGES: [&str; 2] = ["tests/data/ticker/2025-12-08-01.txt", "data/times-of-central-asia-2025-12-08.html"];

fn read(page: &[u8]) -> Result<TickerPage, PageError> {
    let source = Source::parse("timesca").expect("a slug");
    TickerPage::read(page, &source, Some(Timestamp::from_micros(0)), &CurrencySet::central_asia())
}

/// Asserts the invariants of an accepted page.
fn check_page(page: &TickerPage, bytes: &[u8]) {
    let mut pairs: Vec<Pair> = page.ticks.iter().map(|tick| tick.series.pair).collect();
    pairs.sort_unstable();
    pairs.dedup();
    assert_eq!(pairs.len(), page.ticks.len(), "a pair has two ticks");
    assert!(page.quote_count as usize >= page.ticks.len() && page.cycle_count <= page.quote_count);
    let text = String::from_utf8_lossy(bytes);
    // Markup can split a quote, and character references can encode its digits.
    if text.contains(['<', '&']) {
        return;
    }
    let bare: String = text.chars().filter(|c| !is_space(*c)).collect();
    for Tick { series, value, .. } in &page.ticks {
        let change = value.reported_change.expect("a quote has a percentage");
        let quote = format!("{}={}", series.pair, value.rate);
        let is_printed = bare.match_indices(&quote).any(|(at, _)| {
            let rest = &bare[at + quote.len()..];
            rest.split('%')
                .next()
                .is_some_and(|printed| ReportedChange::parse(printed.trim_start_matches('+')) == Ok(change))
        });
        assert!(is_printed, "{quote} {change}% is not in the page");
    }
}

#[test]
fn mutated_page_gives_only_quotes_of_the_page() {
    for file in PAGES {
        let whole = fs::read(file).expect("a page");
        let pages = Cell::new(0);
        let outcome = runner().run(&mutations(), |mutations| {
            let bytes = mutated(&whole, &mutations);
            if let Ok(page) = read(&bytes) {
                check_page(&page, &bytes);
                pages.set(pages.get() + 1);
            }
            Ok(())
        });
        assert!(outcome.is_ok(), "{file}: {outcome:?}");
        assert!(pages.get() > 0, "{file}: every mutated page was refused");
    }
}

#[test]
fn bank_table_has_no_ticker_quotes() {
    for file in [
        "nbkr/daily-2026-05-23.xml",
        "nbk/get_rates-2026-04-01.xml",
        "cbu/json-all-2026-04-01.json",
        "cbt/20052026.xml",
    ] {
        let body = fs::read(format!("tests/data/feeds/{file}")).expect("a body");
        assert_eq!(read(&body), Err(PageError::NoQuotes), "{file}");
    }
}
