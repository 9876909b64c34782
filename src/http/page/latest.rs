//! The rendered latest rates: one rendering for each snapshot of latest quotes, shared by all browsers.
//!
//! **Invariants**: a row that has not changed shares its allocation with the previous rendering, so that comparing
//! pointers finds the rows that a browser does not have. The update from one rendering to another is encoded once for
//! all browsers that have the first rendering.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use maud::Markup;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::super::Site;
use super::event::event;
use super::grouping::{Freshness, Group, Grouping, arrange};
use super::sections::{Sections, main_part, sections};
use super::sparkline::{self, sparkline};
use super::table;
use crate::api::ServiceError;
use crate::domain::{SeriesKey, Span, SpanUnit, Timestamp};
use crate::latest_quotes::RateState;
use crate::query::{DownsampleRequest, QueryError, Reader};

/// Maximum number of series. A store may have many more series than anyone reads.
const ROWS_MAX: usize = 500;
/// Maximum number of cached events of a rendering. Most browsers have the same previous rendering.
const EVENTS_KEPT_MAX: usize = 4;
/// Minimum time between two renderings, even if commits are more frequent.
const RENDER_PAUSE: Duration = Duration::from_millis(100);
/// Maximum age of a rendering. An older rendering is replaced even without a commit, because the windows of changes
/// move.
const RENDER_AGE_MAX_US: i64 = 60 * Timestamp::SECOND_US;
/// Maximum age of a picture. In a minute, it moves by less than a hundredth of a pixel.
const PICTURE_AGE_MAX_US: i64 = 60 * Timestamp::SECOND_US;
/// Maximum number of runs or observed instants that are read for a picture: a run every three seconds.
const PICTURE_ITEMS_MAX: u64 = 1_000_000;

/// The windows of the columns with changes.
const WINDOWS: [Span; 3] = [Span::new(24, SpanUnit::Hour), Span::new(7, SpanUnit::Day), Span::new(30, SpanUnit::Day)];

/// The data of a `latest` event.
#[derive(Serialize)]
struct Update<'a> {
    head: &'a str,
    /// True if `sections` has everything; false if the browser has the same frame and needs only `rows`.
    all: bool,
    /// The markup of all sections.
    #[serde(skip_serializing_if = "Option::is_none")]
    sections: Option<&'a str>,
    /// The element id and the markup of each changed row.
    rows: Vec<(&'a str, &'a str)>,
}

/// The picture of a series, and when it was drawn.
#[derive(Clone)]
struct Picture {
    drawn: Timestamp,
    /// Whether the picture spans the whole series, not the last month.
    is_whole: bool,
    html: Arc<str>,
}

/// A rendering of the latest rates at one commit.
pub(super) struct Rendering {
    /// The number of this rendering, counting from 1.
    number: u64,
    sequence: u64,
    /// The server's time of the rendering.
    now: Timestamp,
    rendered: Instant,
    writing_stopped: bool,
    /// The markup above the sections.
    head: Arc<str>,
    sections: Sections,
    pictures: HashMap<SeriesKey, Picture>,
    /// Encoded events, each with the number of the rendering that the receiving browsers have; 0 means no rendering.
    events: std::sync::Mutex<Vec<(u64, Bytes)>>,
}

impl Rendering {
    /// Returns the main part of the page.
    pub(super) fn page(&self) -> Markup {
        main_part(&self.head, &self.sections.html, self.now)
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
        let sections = &self.sections;
        let Some(seen) = seen.filter(|seen| seen.sections.frame_hash == sections.frame_hash) else {
            return Some(Update { head: &self.head, all: true, sections: Some(&sections.html), rows: Vec::new() });
        };
        let pairs = seen.sections.rows.iter().zip(&sections.rows);
        let changed = pairs.filter(|(old, new)| !Arc::ptr_eq(&old.html, &new.html));
        let rows: Vec<_> = changed.map(|(_, new)| (&*new.id, &*new.html)).collect();
        let is_changed = !rows.is_empty() || seen.head != self.head;
        is_changed.then_some(Update { head: &self.head, all: false, sections: None, rows })
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

/// Renders on the thread of the read, because many rows take time.
async fn render(site: &Site, previous: Option<Arc<Rendering>>) -> Result<Rendering, ServiceError> {
    let now = site.rates.now();
    let stopped = site.ingest.poisoned();
    site.rates
        .read(move |reader| {
            let answer = reader.quote_changes(&WINDOWS, ROWS_MAX)?;
            let latest_quotes = reader.latest_quotes();
            let mut failed = None;
            let grouping = arrange(&answer.body, now, |pair| {
                reader.published_choice(pair).unwrap_or_else(|error| {
                    failed.get_or_insert(error);
                    None
                })
            });
            if let Some(error) = failed {
                // The first series of a pair is shown instead of the one that the rule would pick.
                tracing::error!(%error, "cannot choose among the sources of a pair");
            }
            let previous = previous.as_deref();
            let pictures = pictures(reader, &grouping, previous, now)?;
            let html = pictures.iter().map(|(series, picture)| (series.clone(), Arc::clone(&picture.html))).collect();
            let known = previous.into_iter().flat_map(|previous| &previous.sections.rows);
            let known = known.map(|row| (&*row.id, row)).collect();
            let head = table::head(latest_quotes, grouping.freshness, reader.held_count(), now, stopped.as_deref())
                .into_string();
            Ok(Rendering {
                number: previous.map_or(1, |previous| previous.number + 1),
                sequence: answer.commit.sequence,
                now,
                rendered: Instant::now(),
                writing_stopped: stopped.is_some(),
                head: head.into(),
                sections: sections(&grouping, &html, &known, latest_quotes.quotes.len()),
                pictures,
                events: std::sync::Mutex::default(),
            })
        })
        .await
        .map(|read| read.answer)
}

/// Draws the picture of each chosen series. A recent picture is taken from `previous`.
fn pictures(
    reader: &Reader,
    grouping: &Grouping<'_>,
    previous: Option<&Rendering>,
    now: Timestamp,
) -> Result<HashMap<SeriesKey, Picture>, QueryError> {
    let is_whole = grouping.freshness != Freshness::Fresh;
    let mut pictures = HashMap::new();
    for group in grouping.usd.iter().chain(&grouping.other) {
        let quote = &group.chosen.quote;
        let recent = previous.and_then(|previous| previous.pictures.get(&quote.series));
        let recent = recent.filter(|picture| {
            picture.is_whole == is_whole && (0..PICTURE_AGE_MAX_US).contains(&now.micros_since(picture.drawn))
        });
        let picture = match recent {
            Some(picture) => picture.clone(),
            None => Picture { drawn: now, is_whole, html: picture(reader, group, is_whole)?.into() },
        };
        pictures.insert(quote.series.clone(), picture);
    }
    Ok(pictures)
}

/// Draws the chosen series of a group: its last month, or all its data. The picture of a stale series ends at its last
/// observation.
fn picture(reader: &Reader, group: &Group<'_>, is_whole: bool) -> Result<String, QueryError> {
    let quote = &group.chosen.quote;
    let request = DownsampleRequest {
        pair: quote.series.pair,
        source: None,
        leg_sources: vec![quote.series.source.clone()],
        window: (!is_whole).then_some(sparkline::WINDOW),
        end: (quote.state == RateState::Stale).then_some(quote.run.last_observed_time),
        columns: sparkline::COLUMNS,
        items_max: PICTURE_ITEMS_MAX,
    };
    match reader.downsample(&request) {
        Ok(answer) => Ok(sparkline(&answer.body).into_string()),
        Err(QueryError::Cancelled) => Err(QueryError::Cancelled),
        // The picture is left out if its data cannot be read or is too much. The other cells report unreadable data.
        Err(error) => {
            tracing::debug!(series = %quote.series, %error, "a picture is left out");
            Ok(String::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sections::Row;
    use super::*;

    fn latest(number: u64, rows: &[Row]) -> Rendering {
        let html: String = rows.iter().map(|row| &*row.html).collect();
        Rendering {
            number,
            sequence: number,
            now: Timestamp::from_micros(0),
            rendered: Instant::now(),
            writing_stopped: false,
            head: "head".into(),
            sections: Sections { frame_hash: rows.len() as u64, rows: rows.to_vec(), html: html.into() },
            pictures: HashMap::new(),
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
        let same = latest(3, &moved.sections.rows);
        let more = latest(4, &[moved.sections.rows[0].clone(), kzt, row("tjs", "4")]);
        let check = |latest: &Rendering, seen: Option<&Rendering>, expect: Option<&str>| {
            for _ in 0..2 {
                let event = latest.event_since(seen).map(|event| String::from_utf8(event.to_vec()).unwrap());
                let expect = expect.map(|data| format!("event: latest\ndata: {{\"head\":\"head\",{data}}}\n\n"));
                assert_eq!(event, expect);
            }
        };
        check(&first, None, Some(r#""all":true,"sections":"12","rows":[]"#));
        check(&first, Some(&first), None);
        check(&moved, Some(&first), Some(r#""all":false,"rows":[["kgs","3"]]"#));
        check(&same, Some(&moved), None);
        // A slow browser skips the renderings in between.
        check(&same, Some(&first), Some(r#""all":false,"rows":[["kgs","3"]]"#));
        // Another frame needs everything.
        check(&more, Some(&same), Some(r#""all":true,"sections":"324","rows":[]"#));
    }

    #[test]
    fn event_is_encoded_once_for_all_browsers_with_the_same_rendering() {
        let first = latest(1, &[row("kgs", "1")]);
        let next = latest(2, &[row("kgs", "2")]);
        let (one, other) = (next.event_since(Some(&first)).unwrap(), next.event_since(Some(&first)).unwrap());
        assert_eq!(one.as_ptr(), other.as_ptr());
    }
}
