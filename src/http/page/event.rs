//! Server-Sent Events in the format `text/event-stream`.
//!
//! **Invariant**: an event has one `event` line and one `data` line of JSON.

use std::sync::LazyLock;

use axum::body::Bytes;
use serde::Serialize;

/// Length of the comment at the start of a stream. Some proxies and browsers hold back the first 2 KiB of a response.
const PADDING_BYTES: usize = 4_096;

/// Returns the comment at the start of a stream. Browsers ignore it.
pub(super) fn padding() -> Bytes {
    static PADDING: LazyLock<Bytes> = LazyLock::new(|| format!(":{}\n\n", " ".repeat(PADDING_BYTES - 3)).into());
    PADDING.clone()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_one_comment() {
        let padding = String::from_utf8(padding().to_vec()).unwrap();
        assert_eq!(padding.len(), PADDING_BYTES);
        assert!(padding.len() >= 2_048 && padding.starts_with(':') && padding.ends_with("\n\n"));
        assert_eq!(padding.matches('\n').count(), 2, "a comment is one line and is followed by an empty line");
    }
}
