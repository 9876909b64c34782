//! Events for browsers, as `text/event-stream` has them.
//!
//! **Invariant**: an event is one block of lines.

use axum::body::Bytes;
use serde::Serialize;

/// One event as it goes over the wire; JSON has no line breaks of its own.
pub(super) fn event(name: &str, data: &impl Serialize) -> Option<Bytes> {
    match serde_json::to_string(data) {
        Ok(json) => Some(format!("event: {name}\ndata: {json}\n\n").into()),
        Err(error) => {
            tracing::error!(%error, "cannot write a live event");
            None
        }
    }
}
