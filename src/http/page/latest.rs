//! The latest table as it is shown: rendered once a latest quotes, for all browsers.
//!
//! **Invariants**: a row that says the same as before is the same allocation as before, so that what a browser has yet
//! to see is found by comparing pointers. What brings a browser from one table to another is written once for all that
//! have seen the one.

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

/// Rows shown; a store may hold many more series than anybody reads.
const ROWS_MAX: usize = 500;
/// Events of a table that are kept: most browsers have seen the same one before.
const EVENTS_KEPT_MAX: usize = 4;
/// Shortest time between two renderings, however fast commits come.
const RENDER_PAUSE: Duration = Duration::from_millis(100);
/// Windows slide: after so long a table is rendered anew, commit or none.
const RENDER_AGE_MAX_US: i64 = 60 * Timestamp::SECOND_US;

/// Those that the table has columns for.
const WINDOWS: [Span; 3] = [Span::new(24, SpanUnit::Hour), Span::new(7, SpanUnit::Day), Span::new(30, SpanUnit::Day)];

/// A row, and what it is called.
#[derive(Clone)]
struct Row {
    id: Arc<str>,
    html: Arc<str>,
}

/// What a browser is told of a table.
#[derive(Serialize)]
struct Update<'a> {
    head: &'a str,
    /// Whether these are all rows there are, in order.
    all: bool,
    /// What each is called, and its markup.
    rows: Vec<(&'a str, &'a str)>,
}

/// The table of one commit.
pub(super) struct Latest {
    /// Counts renderings, from 1.
    number: u64,
    sequence: u64,
    /// The clock's, of its rendering.
    now: Timestamp,
    rendered: Instant,
    writing_stopped: bool,
    /// Series that there are.
    total: usize,
    /// What stands above the table.
    head: Arc<str>,
    /// In order of series.
    rows: Vec<Row>,
    /// Events that were written, each with the number of the table that a browser had seen before.
    events: std::sync::Mutex<Vec<(u64, Bytes)>>,
}

impl Latest {
    /// The whole of it.
    pub(super) fn page(&self) -> Markup {
        let rows = self.rows.iter().map(|row| &*row.html).collect();
        let head = PreEscaped((*self.head).to_owned());
        table::table(&head, &PreEscaped(rows), self.rows.len(), self.total, self.now)
    }

    /// The event for a browser that has `seen` another table, or none yet; none if it says the same.
    pub(super) fn event_since(&self, seen: Option<&Self>) -> Option<Bytes> {
        let number = seen.map_or(0, |seen| seen.number);
        if number == self.number {
            return None;
        }
        // Nothing that panics is done under the lock.
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

/// Keeps the newest table.
#[derive(Default)]
pub(super) struct LatestCache {
    kept: Mutex<Option<Arc<Latest>>>,
}

impl LatestCache {
    /// The table of the newest commit. Who asks while it is being made waits for that one.
    pub(super) async fn newest(&self, site: &Site) -> Result<Arc<Latest>, ServiceError> {
        let mut kept = self.kept.lock().await;
        if let Some(latest) = kept.as_ref() {
            let is_newest = latest.sequence == site.rates.view().latest_quotes.sequence
                && latest.writing_stopped == site.ingest.poisoned().is_some();
            let age_us = site.rates.now().micros_since(latest.now);
            if is_newest && (0..RENDER_AGE_MAX_US).contains(&age_us) {
                return Ok(Arc::clone(latest));
            }
            sleep(RENDER_PAUSE.saturating_sub(latest.rendered.elapsed())).await;
        }
        let latest = Arc::new(render(site, kept.clone()).await?);
        *kept = Some(Arc::clone(&latest));
        Ok(latest)
    }
}

/// Renders on the thread that reads, since a long table takes its time.
async fn render(site: &Site, before: Option<Arc<Latest>>) -> Result<Latest, ServiceError> {
    let now = site.rates.now();
    let stopped = site.ingest.poisoned();
    site.rates
        .read(move |reader| {
            let answer = reader.quote_changes(&WINDOWS, ROWS_MAX)?;
            let latest_quotes = reader.latest_quotes();
            Ok(Latest {
                number: before.as_ref().map_or(1, |before| before.number + 1),
                sequence: answer.commit.sequence,
                now,
                rendered: Instant::now(),
                writing_stopped: stopped.is_some(),
                total: latest_quotes.quotes.len(),
                head: table::head(latest_quotes, reader.held_count(), now, stopped.as_deref()).into_string().into(),
                rows: rows(&answer.body, before.as_deref()),
                events: std::sync::Mutex::default(),
            })
        })
        .await
        .map(|read| read.answer)
}

/// The rows of `quotes`; of `before`, those that say the same.
fn rows(quotes: &[QuoteChanges], before: Option<&Latest>) -> Vec<Row> {
    let known: HashMap<&str, &Row> =
        before.into_iter().flat_map(|before| &before.rows).map(|row| (&*row.id, row)).collect();
    let row = |changes: &QuoteChanges| {
        let row =
            Row { id: table::row_id(&changes.quote.series).into(), html: table::row(changes).into_string().into() };
        known.get(&*row.id).filter(|known| known.html == row.html).map_or(row, |known| (*known).clone())
    };
    quotes.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latest(number: u64, rows: &[Row]) -> Latest {
        Latest {
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
    fn a_browser_is_sent_what_it_has_not_seen() {
        let (kgs, kzt) = (row("kgs", "1"), row("kzt", "2"));
        let first = latest(1, &[kgs.clone(), kzt.clone()]);
        let moved = latest(2, &[row("kgs", "3"), kzt.clone()]);
        let same = latest(3, &moved.rows);
        let more = latest(4, &[moved.rows[0].clone(), kzt, row("tjs", "4")]);
        let check = |latest: &Latest, seen: Option<&Latest>, expect: Option<&str>| {
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
        // One that was slow skips what lay between.
        check(&same, Some(&first), Some(r#""all":false,"rows":[["kgs","3"]]"#));
        check(&more, Some(&same), Some(r#""all":true,"rows":[["kgs","3"],["kzt","2"],["tjs","4"]]"#));
    }

    #[test]
    fn an_event_is_written_once_for_all_who_have_seen_the_same() {
        let first = latest(1, &[row("kgs", "1")]);
        let next = latest(2, &[row("kgs", "2")]);
        let (one, other) = (next.event_since(Some(&first)).unwrap(), next.event_since(Some(&first)).unwrap());
        assert_eq!(one.as_ptr(), other.as_ptr());
    }
}
