//! Keeping browsers live: Server-Sent Events, from the watch of latest quotes.
//!
//! Events are JSON. `hello` says which script the server has, so that a page of another version loads anew; `latest`
//! brings what stands above the table and the rows that changed (at first all of them); `beat` says that the connection
//! stands. The first and the last carry the server's time.
//!
//! **Invariants**: an event is chosen when there is room for it, so that a slow browser gets the newest state and never
//! a backlog; what many browsers are sent is one allocation. A browser that stops reading, or a server on its way down,
//! ends its stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::event::event;
use super::latest::Latest;
use super::{LIVE_STREAMS_MAX, Page, assets, labels};
use crate::domain::Timestamp;

/// How often a browser hears that the connection stands; it gives up on one after thrice that.
const BEAT: Duration = Duration::from_secs(2);
/// How long a browser may leave an event unread.
const STALL_MAX: Duration = Duration::from_secs(30);

#[derive(Serialize)]
struct Hello {
    now: i64,
    script: String,
}

#[derive(Serialize)]
struct Beat {
    now: i64,
}

/// `GET /live`.
pub(super) async fn live(State(page): State<Arc<Page>>) -> Response {
    let Ok(permit) = Arc::clone(&page.live_streams).try_acquire_owned() else {
        let text = format!("{LIVE_STREAMS_MAX} browsers are kept live, which is the most; try again in a moment\n");
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "10")], text).into_response();
    };
    let (events, stream) = mpsc::channel(1);
    tokio::spawn(feed(page, events, permit));
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(ReceiverStream::new(stream).map(Ok::<_, Infallible>))).into_response()
}

fn beat(now: Timestamp) -> Option<Bytes> {
    event("beat", &Beat { now: labels::millis(now) })
}

async fn feed(page: Arc<Page>, events: mpsc::Sender<Bytes>, _permit: OwnedSemaphorePermit) {
    let draining = page.site.draining.clone();
    let mut latest_quotes_updates = page.site.ingest.watch_latest_quotes();
    // The first table is of the newest latest quotes, this one or a later.
    latest_quotes_updates.mark_unchanged();
    let mut latest_quotes_updates = Some(latest_quotes_updates);
    let mut beats = interval_at(Instant::now() + BEAT, BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let hello = Hello { now: labels::millis(page.site.rates.now()), script: assets::script_path() };
    if let Some(hello) = event("hello", &hello) {
        // Gone already: the loop notices.
        let _ = events.send(hello).await;
    }
    let mut seen: Option<Arc<Latest>> = None;
    loop {
        let Ok(Ok(room)) = timeout(STALL_MAX, events.reserve()).await else { return };
        let latest = match page.latest.newest(&page.site).await {
            Ok(latest) => latest,
            Err(error) => {
                // For the log: a browser that hears nothing says that it is cut off.
                error.answered();
                return;
            }
        };
        let Some(next) = latest.event_since(seen.as_deref()).or_else(|| beat(page.site.rates.now())) else { return };
        room.send(next);
        seen = Some(latest);
        let next_latest_quotes = async {
            match &mut latest_quotes_updates {
                Some(latest_quotes_updates) => latest_quotes_updates.changed().await,
                // Writing has stopped: what stands, stands.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = draining.cancelled() => return,
            () = events.closed() => return,
            changed = next_latest_quotes => if changed.is_err() { latest_quotes_updates = None },
            _ = beats.tick() => {}
        }
    }
}
