//! The sections of the latest rates: currencies against USD, other published pairs, and old series. A row of a group
//! expands to the rows of its series without script.
//!
//! **Invariant**: the markup around the rows depends only on the frame, so that a browser that has the same frame
//! needs only the rows that changed.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use maud::{Markup, PreEscaped, html};

use super::grouping::{Freshness, Group, Grouping};
use super::labels::millis;
use super::table::{COLUMNS, GROUP_COLUMNS, group_id, group_row, picture_heading, row, row_id};
use crate::domain::{SeriesKey, Timestamp};
use crate::query::QuoteChanges;

/// The other pairs are shown at first if the page then has at most this number of rows: more do not fit on a screen.
const OPEN_ROWS: usize = 12;

/// A row with its element id.
#[derive(Clone)]
pub(super) struct Row {
    pub(super) id: Arc<str>,
    pub(super) html: Arc<str>,
}

/// The rendered sections.
pub(super) struct Sections {
    /// Identifies the markup around the rows.
    pub(super) frame_hash: u64,
    /// The rows, in order.
    pub(super) rows: Vec<Row>,
    /// The complete markup.
    pub(super) html: Arc<str>,
}

/// Renders the sections. `pictures` has the picture of each chosen series. A row that has not changed
/// is taken from `known`. `total` is the number of series, of which at most those of `grouping` are shown.
pub(super) fn sections(
    grouping: &Grouping<'_>,
    pictures: &HashMap<SeriesKey, Arc<str>>,
    known: &HashMap<&str, &Row>,
    total: usize,
) -> Sections {
    let mut page = Renderer { known, pictures, rows: Vec::new(), frame_hash: DefaultHasher::new() };
    let shown =
        grouping.usd.iter().chain(&grouping.other).map(|group| group.series.len()).sum::<usize>() + grouping.old.len();
    let is_open = grouping.usd.len() + grouping.other.len() <= OPEN_ROWS;
    let is_fresh = grouping.freshness == Freshness::Fresh;
    let headings = group_headings(grouping.freshness);
    (shown, total, is_open, is_fresh).hash(&mut page.frame_hash);
    let usd = page.groups("usd", &grouping.usd);
    let other = page.groups("other", &grouping.other);
    let old: Vec<Markup> = grouping.old.iter().map(|changes| page.series(changes)).collect();
    let frame_hash = page.frame_hash.finish();
    let html = html! {
        div id="rates" data-frame=(format!("{frame_hash:016x}")) class=[(!is_fresh).then_some("none-fresh")] {
            @if !grouping.usd.is_empty() {
                div class="scroll" {
                    table class="pairs" id="usd" {
                        caption {
                            "Each row shows the source that the rule of choice picks, with the digits that it published. "
                            "An inverse is derived."
                            @if shown < total { " The page shows the first " (shown) " of " (total) " series." }
                        }
                        (headings)
                        (usd)
                    }
                }
            }
            @if !grouping.other.is_empty() {
                details class="section" id="others" open[is_open] {
                    summary { "Other published pairs (" (grouping.other.len()) ")" }
                    div class="scroll" {
                        table class="pairs" id="other" {
                            caption class="unseen" { "Other published pairs" }
                            (headings)
                            (other)
                        }
                    }
                }
            }
            @if !grouping.old.is_empty() {
                details class="section" id="old" {
                    summary {
                        "Show archived sources and series not confirmed for a month (" (grouping.old.len()) ")"
                    }
                    (series_table(&html! { "Archived sources, and series not confirmed for a month." }, &old))
                }
            }
        }
    };
    Sections { frame_hash, rows: page.rows, html: html.into_string().into() }
}

fn group_headings(freshness: Freshness) -> Markup {
    html! {
        colgroup { @for (_, class) in GROUP_COLUMNS { col class=(class); } }
        thead { tr {
            @for (heading, class) in GROUP_COLUMNS {
                th scope="col" class=(class) {
                    @if class == "picture" { (picture_heading(freshness)) } @else { (heading) }
                }
            }
        } }
    }
}

fn series_table(caption: &Markup, rows: &[Markup]) -> Markup {
    html! {
        div class="scroll" {
            table role="table" class="series" {
                caption { (caption) }
                thead role="rowgroup" {
                    tr role="row" {
                        @for column in COLUMNS { th role="columnheader" scope="col" { (column) } }
                    }
                }
                tbody role="rowgroup" { @for row in rows { (row) } }
            }
        }
    }
}

/// Returns the words by which a reader finds a group: both directions of the pair, the names of the currencies, and the
/// sources.
fn search_words(group: &Group<'_>) -> String {
    let (pair, inverse) = (group.pair, group.pair.inverse());
    let mut words = format!("{pair} {inverse} {} {}", pair.base().name(), pair.quote().name());
    for changes in &group.series {
        words.push(' ');
        words.push_str(changes.quote.series.source.as_str());
    }
    words.to_lowercase()
}

/// Renders rows and hashes the frame.
struct Renderer<'a> {
    known: &'a HashMap<&'a str, &'a Row>,
    pictures: &'a HashMap<SeriesKey, Arc<str>>,
    rows: Vec<Row>,
    frame_hash: DefaultHasher,
}

impl Renderer<'_> {
    fn push(&mut self, id: &str, html: Markup) -> Markup {
        id.hash(&mut self.frame_hash);
        let same = self.known.get(id).filter(|known| *known.html == *html.0);
        let row = same.map_or_else(|| Row { id: id.into(), html: html.0.as_str().into() }, |known| (*known).clone());
        self.rows.push(row);
        html
    }

    fn series(&mut self, changes: &QuoteChanges) -> Markup {
        self.push(&row_id(&changes.quote.series), row(changes))
    }

    fn groups(&mut self, name: &str, groups: &[Group<'_>]) -> Markup {
        (name, groups.len()).hash(&mut self.frame_hash);
        let bodies: Vec<Markup> = groups.iter().map(|group| self.group(group)).collect();
        html! { @for body in &bodies { (body) } }
    }

    fn group(&mut self, group: &Group<'_>) -> Markup {
        group.series.len().hash(&mut self.frame_hash);
        for changes in &group.old {
            row_id(&changes.quote.series).hash(&mut self.frame_hash);
        }
        let picture = self.pictures.get(&group.chosen.quote.series).map_or("", |picture| &**picture);
        let top = self.push(&group_id(group.pair), group_row(group, picture));
        let series: Vec<Markup> = group.series.iter().map(|changes| self.series(changes)).collect();
        let caption = html! {
            @if group.old.is_empty() { "All sources of " } @else { "Sources of " }
            (group.pair) " and " (group.pair.inverse()) "." (old_note(&group.old))
        };
        html! {
            tbody data-find=(search_words(group)) {
                (top)
                tr class="sources" { td colspan=(GROUP_COLUMNS.len()) { (series_table(&caption, &series)) } }
            }
        }
    }
}

/// Returns links to the series of a pair that are in the section of old series.
fn old_note(old: &[&QuoteChanges]) -> Markup {
    let count = old.len();
    html! {
        @if count > 0 {
            " " (count) " more " @if count == 1 { "is" } @else { "are" }
            " archived or not confirmed for a month, below: "
            @for (at, changes) in old.iter().enumerate() {
                @let series = &changes.quote.series;
                @if at > 0 { ", " }
                a href=(format!("#{}", row_id(series))) { (series.pair) " " (series.source) }
            }
            "."
        }
    }
}

/// Returns the main part of the page. The script shows the tools.
pub(super) fn main_part(head: &str, sections: &str, now: Timestamp) -> Markup {
    html! {
        div class="top" data-now=(millis(now)) {
            h1 { "Latest rates" }
            div id="tools" hidden {
                span id="found" role="status" {}
                label { "Filter " input type="search" id="filter" aria-label="Filter" placeholder="currency or source"
                    autocomplete="off"; }
                label class="order" { "Sort by " select id="order" {} }
            }
        }
        div id="head" { (PreEscaped(head)) }
        (PreEscaped(sections))
    }
}
