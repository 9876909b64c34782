//! Server-Sent Events in the format `text/event-stream`.
//!
//! **Invariant**: an event has one `event` line and one `data` line of JSON.

use axum::body::Bytes;
use serde::Serialize;

/// Encodes an event. The encoded JSON contains no line breaks. None, with a log message, if `data` cannot be encoded.
pub(super) fn event(name: &str, data: &impl Serialize) -> Option<Bytes> {
    match serde_json::to_string(data) {
        Ok(json) => Some(format!("event: {name}\ndata: {json}\n\n").into()),
        Err(error) => {
            tracing::error!(%error, "cannot encode a live event");
            None
        }
    }
}
