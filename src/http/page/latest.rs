//! The rendered table of latest rates: one rendering for each snapshot of latest quotes, shared by all browsers.
//!
//! **Invariants**: a row that has not changed shares its allocation with the previous rendering, so that comparing
//! pointers finds the rows that a browser does not have. The update from one rendering to another is encoded once for
//! all browsers that have the first rendering.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use maud::{Markup, PreEscaped};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::super::Site;
use super::event::event;
use super::table;
use crate::api::ServiceError;
use crate::domain::{Span, SpanUnit, Timestamp};
use crate::query::QuoteChanges;

/// Maximum number of rows. A store may have many more series than anyone reads.
const ROWS_MAX: usize = 500;
/// Maximum number of cached events of a rendering. Most browsers have the same previous rendering.
const EVENTS_KEPT_MAX: usize = 4;
/// Minimum time between two renderings, even if commits are more frequent.
const RENDER_PAUSE: Duration = Duration::from_millis(100);
/// Maximum age of a rendering. An older rendering is replaced even without a commit, because the windows of changes
/// move.
const RENDER_AGE_MAX_US: i64 = 60 * Timestamp::SECOND_US;

/// The windows of the columns with changes.
const WINDOWS: [Span; 3] = [Span::new(24, SpanUnit::Hour), Span::new(7, SpanUnit::Day), Span::new(30, SpanUnit::Day)];

/// A row with its element id.
#[derive(Clone)]
struct Row {
    id: Arc<str>,
    html: Arc<str>,
}

/// The data of a `latest` event.
#[derive(Serialize)]
struct Update<'a> {
    head: &'a str,
    /// True if `rows` has all rows of the table, in order; false if it has only changed rows.
    all: bool,
    /// The element id and the markup of each row.
    rows: Vec<(&'a str, &'a str)>,
}

/// A rendering of the table at one commit.
pub(super) struct Rendering {
    /// The number of this rendering, counting from 1.
    number: u64,
    sequence: u64,
    /// The server's time of the rendering.
    now: Timestamp,
    rendered: Instant,
    writing_stopped: bool,
    /// Number of series, including those without a row.
    total: usize,
    /// The markup above the table.
    head: Arc<str>,
    /// The rows, sorted by series; those of archived sources come last.
    rows: Vec<Row>,
    /// Encoded events, each with the number of the rendering that the receiving browsers have; 0 means no rendering.
    events: std::sync::Mutex<Vec<(u64, Bytes)>>,
}

impl Rendering {
    /// Returns the main part of the page with the table.
    pub(super) fn page(&self) -> Markup {
        let rows = self.rows.iter().map(|row| &*row.html).collect();
        let head = PreEscaped((*self.head).to_owned());
        table::table(&head, &PreEscaped(rows), self.rows.len(), self.total, self.now)
    }

    /// Returns the event that updates a browser from the rendering `seen`, or from nothing. None if there is no change.
    pub(super) fn event_since(&self, seen: Option<&Self>) -> Option<Bytes> {
        let number = seen.map_or(0, |seen| seen.number);
        if number == self.number {
            return None;
        }
        // No code under the lock panics.
        let mut events = self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, event)) = events.iter().find(|(known, _)| *known == number) {
            return Some(event.clone());
        }
        let event = event("latest", &self.update(seen)?)?;
        if events.len() < EVENTS_KEPT_MAX {
            events.push((number, event.clone()));
        }
        Some(event)
    }

    fn update<'a>(&'a self, seen: Option<&Self>) -> Option<Update<'a>> {
        let pair = |row: &'a Row| (&*row.id, &*row.html);
        let ids = |latest: &'a Self| latest.rows.iter().map(|row| &row.id);
        let same_rows = |seen: &&Self| seen.rows.iter().map(|row| &row.id).eq(ids(self));
        let Some(seen) = seen.filter(same_rows) else {
            return Some(Update { head: &self.head, all: true, rows: self.rows.iter().map(pair).collect() });
        };
        let changed = seen.rows.iter().zip(&self.rows).filter(|(old, new)| !Arc::ptr_eq(&old.html, &new.html));
        let rows: Vec<_> = changed.map(|(_, new)| pair(new)).collect();
        (!rows.is_empty() || seen.head != self.head).then_some(Update { head: &self.head, all: false, rows })
    }
}

/// A cache of the newest rendering.
#[derive(Default)]
pub(super) struct RenderingCache {
    newest: Mutex<Option<Arc<Rendering>>>,
}

impl RenderingCache {
    /// Returns the rendering of the newest commit. Concurrent callers wait for the same rendering.
    ///
    /// # Errors
    /// Returns the error of the read that the rendering needs.
    pub(super) async fn newest(&self, site: &Site) -> Result<Arc<Rendering>, ServiceError> {
        let mut newest = self.newest.lock().await;
        if let Some(latest) = newest.as_ref() {
            let is_newest = latest.sequence == site.rates.view().latest_quotes.sequence
                && latest.writing_stopped == site.ingest.poisoned().is_some();
            let age_us = site.rates.now().micros_since(latest.now);
            if is_newest && (0..RENDER_AGE_MAX_US).contains(&age_us) {
                return Ok(Arc::clone(latest));
            }
            sleep(RENDER_PAUSE.saturating_sub(latest.rendered.elapsed())).await;
        }
        let latest = Arc::new(render(site, newest.clone()).await?);
        *newest = Some(Arc::clone(&latest));
        Ok(latest)
    }
}

/// Renders the table on the thread of the read, because a long table takes time.
async fn render(site: &Site, previous: Option<Arc<Rendering>>) -> Result<Rendering, ServiceError> {
    let now = site.rates.now();
    let stopped = site.ingest.poisoned();
    site.rates
        .read(move |reader| {
            let answer = reader.quote_changes(&WINDOWS, ROWS_MAX)?;
            let latest_quotes = reader.latest_quotes();
            Ok(Rendering {
                number: previous.as_ref().map_or(1, |previous| previous.number + 1),
                sequence: answer.commit.sequence,
                now,
                rendered: Instant::now(),
                writing_stopped: stopped.is_some(),
                total: latest_quotes.quotes.len(),
                head: table::head(latest_quotes, reader.held_count(), now, stopped.as_deref()).into_string().into(),
                rows: rows(&answer.body, previous.as_deref()),
                events: std::sync::Mutex::default(),
            })
        })
        .await
        .map(|read| read.answer)
}

/// Renders the rows of `quotes`. An unchanged row is taken from `previous`.
fn rows(quotes: &[QuoteChanges], previous: Option<&Rendering>) -> Vec<Row> {
    let known: HashMap<&str, &Row> =
        previous.into_iter().flat_map(|previous| &previous.rows).map(|row| (&*row.id, row)).collect();
    let row = |changes: &QuoteChanges| {
        let row =
            Row { id: table::row_id(&changes.quote.series).into(), html: table::row(changes).into_string().into() };
        known.get(&*row.id).filter(|known| known.html == row.html).map_or(row, |known| (*known).clone())
    };
    // Rows of archived sources come last.
    let (archived, shown): (Vec<_>, Vec<_>) = quotes.iter().partition(|changes| changes.quote.is_archived);
    shown.into_iter().chain(archived).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latest(number: u64, rows: &[Row]) -> Rendering {
        Rendering {
            number,
            sequence: number,
            now: Timestamp::from_micros(0),
            rendered: Instant::now(),
            writing_stopped: false,
            total: rows.len(),
            head: "head".into(),
            rows: rows.to_vec(),
            events: std::sync::Mutex::default(),
        }
    }

    fn row(id: &str, html: &str) -> Row {
        Row { id: id.into(), html: html.into() }
    }

    #[test]
    fn event_has_only_rows_that_the_browser_does_not_have() {
        let (kgs, kzt) = (row("kgs", "1"), row("kzt", "2"));
        let first = latest(1, &[kgs.clone(), kzt.clone()]);
        let moved = latest(2, &[row("kgs", "3"), kzt.clone()]);
        let same = latest(3, &moved.rows);
        let more = latest(4, &[moved.rows[0].clone(), kzt, row("tjs", "4")]);
        let check = |latest: &Rendering, seen: Option<&Rendering>, expect: Option<&str>| {
            for _ in 0..2 {
                let event = latest.event_since(seen).map(|event| String::from_utf8(event.to_vec()).unwrap());
                let expect = expect.map(|data| format!("event: latest\ndata: {{\"head\":\"head\",{data}}}\n\n"));
                assert_eq!(event, expect);
            }
        };
        check(&first, None, Some(r#""all":true,"rows":[["kgs","1"],["kzt","2"]]"#));
        check(&first, Some(&first), None);
        check(&moved, Some(&first), Some(r#""all":false,"rows":[["kgs","3"]]"#));
        check(&same, Some(&moved), None);
        // A slow browser skips the renderings in between.
        check(&same, Some(&first), Some(r#""all":false,"rows":[["kgs","3"]]"#));
        check(&more, Some(&same), Some(r#""all":true,"rows":[["kgs","3"],["kzt","2"],["tjs","4"]]"#));
    }

    #[test]
    fn event_is_encoded_once_for_all_browsers_with_the_same_rendering() {
        let first = latest(1, &[row("kgs", "1")]);
        let next = latest(2, &[row("kgs", "2")]);
        let (one, other) = (next.event_since(Some(&first)).unwrap(), next.event_since(Some(&first)).unwrap());
        assert_eq!(one.as_ptr(), other.as_ptr());
    }
}
