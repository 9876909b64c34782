//! The markup of the table of latest rates: one row for each series, and the notices above the table.

use maud::{Markup, html};

use super::labels::{self, FormattedRate, age_then_time, duration, percent, reported, time_element, time_then_age};
use crate::domain::{SeriesKey, Timestamp};
use crate::latest_quotes::{LatestQuote, LatestQuotes, RateState};
use crate::query::{QuoteChanges, WindowChange};

/// Column headings, shown above the table and, on narrow screens, above each cell.
pub(super) const COLUMNS: [&str; 10] = [
    "Pair",
    "Rate",
    "State",
    "Since last move",
    "24 h",
    "7 d",
    "30 d",
    "Reported change",
    "Last move",
    "Last confirmed",
];

/// A notice appears above the table if no source sends a tick for this time.
pub(super) const QUIET_AFTER_US: i64 = Timestamp::HOUR_US;

/// Returns the element id of a series' row.
pub(super) fn row_id(series: &SeriesKey) -> String {
    format!("r-{}-{}-{}", series.pair.base(), series.pair.quote(), series.source)
}

/// Returns the path of a series' chart.
pub(super) fn chart_path(series: &SeriesKey) -> String {
    format!("/pair/{}/{}?source={}", series.pair.base(), series.pair.quote(), series.source)
}

/// Returns a state as a word with a symbol, and its meaning for this series.
pub(super) fn state(quote: &LatestQuote) -> Markup {
    let limit_us = quote.stale_time.micros_since(quote.run.last_observed_time);
    let (word, meaning) = match quote.state {
        RateState::Stale => ("Stale", format!("feed silent for over {}", duration(limit_us))),
        RateState::Pegged => ("Pegged", "unchanged for 180 days or more".to_owned()),
        RateState::Moving => ("Moving", "moved recently".to_owned()),
        RateState::Flat => ("Unchanged", "confirmed, no recent move".to_owned()),
    };
    html! {
        span class={ "state " (quote.state.name().to_lowercase()) } { (word) }
        span class="sub" { (meaning) }
    }
}

/// Returns a text for a cell without a number.
fn no_value(text: &str) -> Markup {
    html! { span class="no-value" { (text) } }
}

/// Returns the change over a window, or the reason why there is none.
pub(super) fn window_change(change: &WindowChange) -> Markup {
    match change {
        WindowChange::Change(change) => percent(change, None),
        WindowChange::NotObserved => no_value("not observed"),
        WindowChange::SilentAtStart { since } => html! {
            (no_value("not observed then"))
            span class="sub" { "silent since " (time_element(*since)) }
        },
        WindowChange::NoQuoteYet => no_value("no quote then"),
        WindowChange::Unreadable => no_value("cannot be read"),
    }
}

/// Returns the time of the last move. If the rate moved during a silence, the move may be earlier than `time`.
pub(super) fn last_move(time: Timestamp, silent_since: Option<Timestamp>) -> Markup {
    html! {
        (age_then_time(time))
        @if let Some(since) = silent_since {
            span class="sub" { "or earlier: silent since " (time_element(since)) }
        }
    }
}

/// Returns the style class of a row.
fn row_class(quote: &LatestQuote) -> Option<&'static str> {
    match quote.state {
        _ if quote.is_archived => Some("is-archived"),
        RateState::Stale => Some("is-stale"),
        RateState::Pegged | RateState::Moving | RateState::Flat => None,
    }
}

/// Returns one row. The row contains no age, so that its markup changes only with its data.
pub(super) fn row(changes: &QuoteChanges) -> Markup {
    let QuoteChanges { quote, since_move, silent_before_move, over: windows } = changes;
    let (pair, run) = (quote.series.pair, &quote.run);
    let inverse = FormattedRate::new(run.value.rate, true);
    let cell = |at: usize, content: Markup| html! { td role="cell" data-label=(COLUMNS[at]) { div { (content) } } };
    let since_move = html! {
        @if let Some(change) = since_move { (percent(change, quote.previous_rate)) } @else { (no_value("never moved")) }
        @if silent_before_move.is_some() { span class="sub" { "during a silence, perhaps in several moves" } }
    };
    let reported_change =
        run.value.reported_change.map_or_else(|| no_value("none"), |change| html! { (reported(change)) });
    let last_move = quote.moved_time.map_or_else(|| no_value("never"), |time| last_move(time, *silent_before_move));
    let rate = html! {
        span class="rate" { (run.value.rate) }
        span class="sub turned" { "1 " (pair.quote()) " is " (inverse.low) " to " (inverse.high) " " (pair.base()) }
    };
    html! {
        tr role="row" id=(row_id(&quote.series)) class=[row_class(quote)] {
            th role="rowheader" scope="row" {
                a href=(chart_path(&quote.series)) { (pair) }
                span class="sub" { (quote.series.source) @if quote.is_archived { ", archived" } }
            }
            (cell(1, rate))
            (cell(2, state(quote)))
            (cell(3, since_move))
            @for (at, change) in windows.iter().enumerate() { (cell(4 + at, window_change(change))) }
            (cell(7, reported_change))
            (cell(8, last_move))
            (cell(9, age_then_time(run.last_observed_time)))
        }
    }
}

/// Returns the part above the table: the time of the data, and notices about the server and held ticks.
pub(super) fn head(
    latest_quotes: &LatestQuotes,
    held_count: usize,
    now: Timestamp,
    writing_stopped: Option<&str>,
) -> Markup {
    let last_ingest = latest_quotes.last_ingest_time;
    let quiet = last_ingest.is_some_and(|time| now.micros_since(time) > QUIET_AFTER_US);
    html! {
        @if let Some(cause) = writing_stopped {
            p class="notice bad" { strong { "New ticks are not stored. " } (cause) }
        }
        @if held_count > 0 {
            p class="notice" id="held" {
                strong { @if held_count == 1 { "1 tick is held. " } @else { (held_count) " ticks are held. " } }
                "A rate too far from the rate in force is not shown until it is released. "
                a href="/v1/quarantine" { "List held ticks" }
            }
        }
        @if let Some(time) = last_ingest {
            p class="notice bad" id="quiet" data-after=(QUIET_AFTER_US / 1_000) hidden[!quiet] {
                strong { "No tick has arrived recently. " }
                "The last tick from any source arrived at " (time_then_age(time)) "."
            }
            p class="asof" {
                "Last tick from any source: " (time_then_age(time)) ". As of commit " (latest_quotes.sequence)
                ", " (time_element(latest_quotes.recorded_time)) "."
            }
        } @else {
            p class="notice" { strong { "There are no ticks yet. " } "Rates appear here once ticks arrive." }
        }
    }
}

/// Returns the table with its `rows`. `shown` of the `total` series have a row.
pub(super) fn table(head: &Markup, rows: &Markup, shown: usize, total: usize, now: Timestamp) -> Markup {
    html! {
        h1 { "Latest rates" }
        div id="head" { (head) }
        div class="scroll" {
            table role="table" id="latest" data-now=(labels::millis(now)) {
                caption {
                    "A rate is the number of units of the second currency for one unit of the first. The bounds of a "
                    "change follow from the published digits."
                    @if shown < total { " The table shows the first " (shown) " of " (total) " series." }
                }
                thead role="rowgroup" {
                    tr role="row" {
                        @for column in COLUMNS { th role="columnheader" scope="col" { (column) } }
                    }
                }
                tbody role="rowgroup" id="rows" { (rows) }
            }
        }
        label id="archived" { input type="checkbox"; " Show archived sources" }
    }
}
