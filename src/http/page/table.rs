//! The markup of the latest table: a row a series, and what is said above it.

use maud::{Markup, html};

use super::labels::{self, FormattedRate, age_and_moment, length, moment, moment_and_age, percent, reported};
use crate::domain::{SeriesKey, Timestamp};
use crate::latest_quotes::{LatestQuote, LatestQuotes, RateState};
use crate::query::{QuoteChanges, WindowChange};

/// Headings, as they stand above the table and, on a phone, before each cell.
pub(super) const COLUMNS: [&str; 10] =
    ["Pair", "Rate", "State", "Since last move", "24 h", "7 d", "30 d", "Source says", "Last move", "Last confirmed"];

/// After how long without a tick from anywhere that is said at the top.
pub(super) const QUIET_AFTER_US: i64 = Timestamp::HOUR_US;

/// What a series is called in the page.
pub(super) fn row_id(series: &SeriesKey) -> String {
    format!("r-{}-{}-{}", series.pair.base(), series.pair.quote(), series.source)
}

/// Where its chart is.
pub(super) fn chart_path(series: &SeriesKey) -> String {
    format!("/pair/{}/{}?source={}", series.pair.base(), series.pair.quote(), series.source)
}

/// A state in a word, with a shape beside it, and what it means here.
pub(super) fn state(quote: &LatestQuote) -> Markup {
    let limit_us = quote.stale_time.micros_since(quote.run.last_observed_time);
    let (word, meaning) = match quote.state {
        RateState::Stale => ("Stale", format!("feed silent for over {}", length(limit_us))),
        RateState::Pegged => ("Pegged", "one rate for 180 days or more".to_owned()),
        RateState::Moving => ("Moving", "moved lately".to_owned()),
        RateState::Flat => ("Unchanged", "confirmed, no move lately".to_owned()),
    };
    html! {
        span class={ "state " (quote.state.name().to_lowercase()) } { (word) }
        span class="sub" { (meaning) }
    }
}

/// What stands where there is no figure.
fn untold(words: &str) -> Markup {
    html! { span class="untold" { (words) } }
}

/// The change over a window, or why there is none.
pub(super) fn over(change: &WindowChange) -> Markup {
    match change {
        WindowChange::Change(change) => percent(change, None),
        WindowChange::NotObserved => untold("not observed"),
        WindowChange::SilentThen { since } => html! {
            (untold("not observed then"))
            span class="sub" { "silent since " (moment(*since)) }
        },
        WindowChange::NoQuoteYet => untold("no quote then"),
        WindowChange::Unreadable => untold("cannot be read"),
    }
}

/// When it last moved, as far as that was seen.
pub(super) fn moved(time: Timestamp, silent_since: Option<Timestamp>) -> Markup {
    html! {
        (age_and_moment(time))
        @if let Some(since) = silent_since {
            span class="sub" { "or before that: silent since " (moment(since)) }
        }
    }
}

/// One row; it holds no age, so that it stays the same until something in it changes.
pub(super) fn row(changes: &QuoteChanges) -> Markup {
    let QuoteChanges { quote, since_move, silent_before_move, over: windows } = changes;
    let (pair, run) = (quote.series.pair, &quote.run);
    let inverse = FormattedRate::new(run.value.rate, true);
    let cell = |at: usize, content: Markup| html! { td role="cell" data-label=(COLUMNS[at]) { div { (content) } } };
    let since_move = html! {
        @if let Some(change) = since_move { (percent(change, quote.previous_rate)) } @else { (untold("never moved")) }
        @if silent_before_move.is_some() { span class="sub" { "over a silence, maybe in several moves" } }
    };
    let reported_change =
        run.value.reported_change.map_or_else(|| untold("nothing"), |change| html! { (reported(change)) });
    let moved = quote.moved_time.map_or_else(|| untold("never"), |time| moved(time, *silent_before_move));
    let rate = html! {
        span class="rate" { (run.value.rate) }
        span class="sub turned" { "1 " (pair.quote()) " is " (inverse.low) " to " (inverse.high) " " (pair.base()) }
    };
    html! {
        tr role="row" id=(row_id(&quote.series)) class=[(quote.state == RateState::Stale).then_some("is-stale")] {
            th role="rowheader" scope="row" {
                a href=(chart_path(&quote.series)) { (pair) }
                span class="sub" { (quote.series.source) }
            }
            (cell(1, rate))
            (cell(2, state(quote)))
            (cell(3, since_move))
            @for (at, change) in windows.iter().enumerate() { (cell(4 + at, over(change))) }
            (cell(7, reported_change))
            (cell(8, moved))
            (cell(9, age_and_moment(run.last_observed_time)))
        }
    }
}

/// What is said above the table: of when it is, and what is wrong with the whole of it.
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
            p class="notice bad" { strong { "Nothing new is stored. " } (cause) }
        }
        @if held_count > 0 {
            p class="notice" id="held" {
                strong { @if held_count == 1 { "1 tick is held. " } @else { (held_count) " ticks are held. " } }
                "A rate too far from the one in force is not shown until somebody "
                a href="/v1/quarantine" { "looks at it" } "."
            }
        }
        @if let Some(time) = last_ingest {
            p class="notice bad" id="quiet" data-after=(QUIET_AFTER_US / 1_000) hidden[!quiet] {
                strong { "Nothing has come in lately. " }
                "The last tick from any source came at " (moment_and_age(time)) "."
            }
            p class="asof" {
                "Last tick from any source: " (moment_and_age(time)) ". As of commit " (latest_quotes.sequence)
                ", " (moment(latest_quotes.recorded_time)) "."
            }
        } @else {
            p class="notice" { strong { "Nothing has come in yet. " } "Send ticks, and they will show here." }
        }
    }
}

/// The table around its rows, of which there are `total`.
pub(super) fn table(head: &Markup, rows: &Markup, shown: usize, total: usize, now: Timestamp) -> Markup {
    html! {
        h1 { "Latest rates" }
        div id="head" { (head) }
        div class="scroll" {
            table role="table" id="latest" data-now=(labels::millis(now)) {
                caption {
                    "Each rate is in units of the second currency for one of the first. Changes have the bounds that "
                    "the published digits allow."
                    @if shown < total { " The first " (shown) " of " (total) " series." }
                }
                thead role="rowgroup" {
                    tr role="row" {
                        @for column in COLUMNS { th role="columnheader" scope="col" { (column) } }
                    }
                }
                tbody role="rowgroup" id="rows" { (rows) }
            }
        }
    }
}
