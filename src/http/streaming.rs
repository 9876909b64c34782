//! Response headers of streams.

use http::header::CACHE_CONTROL;
use http::{HeaderName, HeaderValue};

/// Tells proxies to pass each message on at once: nginx, and proxies that follow it, must not buffer the response, and a
/// proxy that follows `no-transform` does not compress it, because compression collects messages first.
pub const STREAM_HEADERS: [(HeaderName, HeaderValue); 2] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform")),
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
];
