//! Live updates of browsers by Server-Sent Events. A watch channel reports when the latest quotes change.
//!
//! Events carry JSON. `hello` has the path of the server's script, so that a page of another version reloads. `latest`
//! has the part above the table and the rows that changed; the first `latest` event has all rows. `beat` is a
//! heartbeat. `hello` and `beat` also have the server's time. Before the first event, a comment fills the buffers of
//! proxies that pass a response on only in pieces.
//!
//! **Invariants**: an event is made only when the browser can take it, so that a slow browser gets the newest state and
//! never a backlog. Browsers that receive the same event share its bytes. A stream ends if the browser stops reading,
//! or when the server shuts down.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::event::{event, padding};
use super::latest::Rendering;
use super::{Page, assets, labels};
use crate::api::{Caller, CallerSlot};
use crate::domain::Timestamp;
use crate::http::streaming::STREAM_HEADERS;

/// Interval of heartbeats. The script treats a connection as lost after three missed heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum time that a browser may leave an event unread before its stream ends.
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
    let Some(slot) = page.site.live_streams.take(Caller::current()) else {
        let text = "the limit of live streams, or of those of this client, is reached; try again in a moment\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "10")], text).into_response();
    };
    let (events, stream) = mpsc::channel(1);
    tokio::spawn(send_updates(page, events, slot));
    let body = Body::from_stream(ReceiverStream::new(stream).map(Ok::<_, Infallible>));
    (STREAM_HEADERS, [(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

fn beat(now: Timestamp) -> Option<Bytes> {
    event("beat", &Beat { now: labels::millis(now) })
}

/// Sends events until the browser disconnects or the server shuts down.
async fn send_updates(page: Arc<Page>, events: mpsc::Sender<Bytes>, _slot: CallerSlot) {
    let draining = page.site.draining.clone();
    let mut latest_quotes_updates = page.site.ingest.watch_latest_quotes();
    // The first event has the newest quotes already.
    latest_quotes_updates.mark_unchanged();
    let mut latest_quotes_updates = Some(latest_quotes_updates);
    let mut heartbeats = interval_at(Instant::now() + HEARTBEAT_INTERVAL, HEARTBEAT_INTERVAL);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The loop below detects a browser that has disconnected already.
    let _ = events.send(padding()).await;
    let hello = Hello { now: labels::millis(page.site.rates.now()), script: assets::script_path() };
    if let Some(hello) = event("hello", &hello) {
        let _ = events.send(hello).await;
    }
    let mut seen: Option<Arc<Rendering>> = None;
    loop {
        let Ok(Ok(slot)) = timeout(STALL_MAX, events.reserve()).await else { return };
        let latest = match page.latest.newest(&page.site).await {
            Ok(latest) => latest,
            Err(error) => {
                // Logs the error. The page shows that the connection is lost.
                error.log_and_describe();
                return;
            }
        };
        let Some(next) = latest.event_since(seen.as_deref()).or_else(|| beat(page.site.rates.now())) else { return };
        slot.send(next);
        seen = Some(latest);
        let next_latest_quotes = async {
            match &mut latest_quotes_updates {
                Some(latest_quotes_updates) => latest_quotes_updates.changed().await,
                // The writer has stopped: the quotes do not change any more.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = draining.cancelled() => return,
            () = events.closed() => return,
            changed = next_latest_quotes => if changed.is_err() { latest_quotes_updates = None },
            _ = heartbeats.tick() => {}
        }
    }
}
