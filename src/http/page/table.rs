//! The markup of the rows of the latest rates: a row with ten cells for each series, a shorter row for each group of
//! series, and the notices above them.

use maud::{Markup, PreEscaped, html};

use super::grouping::{Freshness, Group, OLD_AFTER_US};
use super::labels::{
    self, FormattedRate, age_then_time, day_text, duration, percent, reported, time_element, time_then_age,
};
use crate::domain::{Pair, SeriesKey, Timestamp};
use crate::latest_quotes::{LatestQuote, LatestQuotes, RateState};
use crate::query::{QuoteChanges, WindowChange};

/// Column headings of series, shown above the table and, on narrow screens, above each cell.
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
/// Column headings of groups, with the class of their cells. The picture has no order; its heading depends on what it
/// spans, see [`picture_heading`].
pub(super) const GROUP_COLUMNS: [(&str, &str); 9] = [
    ("Pair", "pair"),
    ("Rate", "direct"),
    ("Inverse", "inverse"),
    ("State", "now"),
    ("24 h", "h24"),
    ("7 d", "d7"),
    ("30 d", "d30"),
    (PICTURE_OF_MONTH, "picture"),
    ("Last confirmed", "when"),
];

const PICTURE_OF_MONTH: &str = "Last 30 days";
const PICTURE_OF_ALL: &str = "All data";

/// Returns the heading of the column of pictures. If no rate is fresh, each picture spans the data of its series.
pub(super) const fn picture_heading(freshness: Freshness) -> &'static str {
    match freshness {
        Freshness::Fresh => PICTURE_OF_MONTH,
        Freshness::Stale(_) => PICTURE_OF_ALL,
    }
}

/// A notice appears above the table if no source sends a tick for this time.
pub(super) const QUIET_AFTER_US: i64 = Timestamp::HOUR_US;

/// Returns the element id of a series' row.
pub(super) fn row_id(series: &SeriesKey) -> String {
    format!("r-{}-{}-{}", series.pair.base(), series.pair.quote(), series.source)
}

/// Returns the element id of a group's row.
pub(super) fn group_id(pair: Pair) -> String {
    format!("g-{}-{}", pair.base(), pair.quote())
}

/// Returns the path of a series' chart.
pub(super) fn chart_path(series: &SeriesKey) -> String {
    format!("/pair/{}/{}?source={}", series.pair.base(), series.pair.quote(), series.source)
}

/// Returns a state as a label with a symbol, and its meaning for this series.
pub(super) fn state(quote: &LatestQuote) -> Markup {
    state_of(quote.state, Some(quote.stale_time.micros_since(quote.run.last_observed_time)))
}

/// Returns a state as a label with a symbol, and its meaning. A derived rate has no stale limit of its own.
pub(super) fn state_of(state: RateState, stale_limit_us: Option<i64>) -> Markup {
    let meaning = match (state, stale_limit_us) {
        (RateState::Stale, Some(limit_us)) => format!("feed silent for over {}", duration(limit_us)),
        (RateState::Stale, None) => "the feed of a leg is silent".to_owned(),
        (RateState::Pegged, _) => "unchanged for 180 days or more".to_owned(),
        (RateState::Moving, _) => "moved recently".to_owned(),
        (RateState::Flat, _) => "confirmed, no recent move".to_owned(),
    };
    html! { (state_label(state)) span class="sub" { (meaning) } }
}

/// Returns a state as a label with a symbol, and a short form of its meaning.
fn short_state(quote: &LatestQuote) -> Markup {
    let limit_us = quote.stale_time.micros_since(quote.run.last_observed_time);
    let meaning = match quote.state {
        RateState::Stale => format!("silent for over {}", duration(limit_us)),
        RateState::Pegged => "for 180 d or more".to_owned(),
        RateState::Moving => "moved recently".to_owned(),
        RateState::Flat => "no recent move".to_owned(),
    };
    html! { (state_label(quote.state)) span class="sub" { (meaning) } }
}

/// Returns the label of a state with its symbol.
fn state_label(state: RateState) -> Markup {
    let word = match state {
        RateState::Stale => "Stale",
        RateState::Pegged => "Pegged",
        RateState::Moving => "Moving",
        RateState::Flat => "Unchanged",
    };
    html! { span class={ "state " (state.name().to_lowercase()) } { (word) } }
}

/// Returns a text for a cell without a number.
fn no_value(text: &str) -> Markup {
    html! { span class="no-value" { (text) } }
}

/// Returns the change over a window in two lines, or the reason why there is none.
fn brief_change(change: &WindowChange) -> Markup {
    match change {
        WindowChange::Change(change) => labels::brief_percent(change),
        WindowChange::SilentAtStart { .. } => no_value("not observed"),
        WindowChange::NotObserved | WindowChange::NoQuoteYet | WindowChange::Unreadable => window_change(change),
    }
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

/// Returns the row of a series. The row contains no age, so that its markup changes only with its data.
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
        span class="sub" { "published" }
        span class="sub turned" {
            "derived: 1 " (pair.quote()) " is " (inverse.low) " to " (inverse.high) " " (pair.base())
        }
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

/// The numbers by which a browser sorts the cells of a group.
fn sort_keys(changes: &QuoteChanges) -> [Option<String>; 9] {
    let quote = &changes.quote;
    let (rate, percent) = (quote.run.value.rate, |at: usize| match changes.over.get(at) {
        Some(WindowChange::Change(change)) => Some(change.value(6).to_string()),
        Some(
            WindowChange::NotObserved
            | WindowChange::SilentAtStart { .. }
            | WindowChange::NoQuoteYet
            | WindowChange::Unreadable,
        )
        | None => None,
    });
    let rank = RateState::ALL.iter().position(|state| *state == quote.state);
    [
        None,
        Some(rate.to_string()),
        Some(FormattedRate::new(rate, true).value),
        rank.map(|rank| rank.to_string()),
        percent(0),
        percent(1),
        percent(2),
        None,
        Some(labels::millis(quote.run.last_observed_time).to_string()),
    ]
}

/// Returns the row of a group: the series that the rule of choice picks. `picture` shows its rate over time.
pub(super) fn group_row(group: &Group<'_>, picture: &str) -> Markup {
    let changes = group.chosen;
    let (quote, keys) = (&changes.quote, sort_keys(changes));
    let (pair, rate) = (quote.series.pair, quote.run.value.rate);
    let inverse = FormattedRate::new(rate, true);
    let cell = |at: usize, content: Markup| {
        let (heading, class) = GROUP_COLUMNS[at];
        html! { td class=(class) data-label=(heading) data-sort=[keys[at].as_deref()] { (content) } }
    };
    let sources = match (group.series.len(), group.old.len()) {
        (1, 0) => "1 source".to_owned(),
        (many, 0) => format!("{many} sources"),
        (shown, old) => format!("{shown} of {} sources", shown + old),
    };
    let direct = html! { span class="rate" { (rate) } span class="sub" { (pair.quote()) ", published" } };
    let inverse = html! { span class="turned" { (inverse.value) } span class="sub" { (pair.base()) ", derived" } };
    let row_class = (quote.state == RateState::Stale).then_some("is-stale");
    html! {
        tr id=(group_id(group.pair)) class=[row_class] {
            th scope="row" class="pair" data-sort=(group.pair) {
                a href=(format!("/pair/{}/{}", pair.base(), pair.quote())) { (pair) }
                span class="from" {
                    span class="sub" { (quote.series.source) }
                    details class="more" {
                        summary aria-label=(format!("{sources} of {}", group.pair)) { (sources) }
                    }
                }
            }
            (cell(1, direct))
            (cell(2, inverse))
            (cell(3, short_state(quote)))
            @for (at, change) in changes.over.iter().take(3).enumerate() { (cell(4 + at, brief_change(change))) }
            (cell(7, PreEscaped(picture.to_owned())))
            (cell(8, age_then_time(quote.run.last_observed_time)))
        }
    }
}

/// Returns true if data that ends at `newest` is old data or a sample, so that nobody expects new ticks.
fn is_old(newest: Timestamp, now: Timestamp) -> bool {
    now.micros_since(newest) > OLD_AFTER_US
}

/// Returns a neutral line if no rate is fresh. The server cannot know whether old data is a sample or the data of a feed
/// that has stopped.
pub(super) fn none_fresh(freshness: Freshness, now: Timestamp) -> Markup {
    html! {
        @if let Freshness::Stale(newest) = freshness {
            p class="notice neutral" id="fresh" {
                "No rate is fresh: " @if is_old(newest, now) { "old or sample " } "data up to "
                time datetime=(newest) { (day_text(newest)) } "."
            }
        }
    }
}

/// Returns the part above the table: the time of the data, and notices about the server and held ticks.
pub(super) fn head(
    latest_quotes: &LatestQuotes,
    freshness: Freshness,
    held_count: usize,
    now: Timestamp,
    writing_stopped: Option<&str>,
) -> Markup {
    let last_ingest = latest_quotes.last_ingest_time;
    let quiet = last_ingest.is_some_and(|time| now.micros_since(time) > QUIET_AFTER_US);
    // Nobody expects new ticks in a store of old data.
    let is_old = matches!(freshness, Freshness::Stale(newest) if is_old(newest, now));
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
        (none_fresh(freshness, now))
        @if let Some(time) = last_ingest {
            @if !is_old {
                p class="notice bad" id="quiet" data-after=(QUIET_AFTER_US / 1_000) hidden[!quiet] {
                    strong { "No tick has arrived recently. " }
                    "The last tick from any source arrived at " (time_then_age(time)) "."
                }
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
