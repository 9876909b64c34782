//! A cache of the responses of `/v1/latest`: dashboards poll the same rates far more often than these change.
//!
//! **Invariants**: a body is found only by the tag of its response, which identifies the request, the settings and the
//! commit. The cache has a size limit.

use axum::body::Bytes;
use axum::http::HeaderValue;

use crate::bytes_cache::BytesCache;

/// Maximum size of all cached bodies.
const LATEST_BODIES_BYTES_MAX: u64 = 8 << 20;

/// The bodies, by the tags of their responses.
pub(super) struct LatestBodies(BytesCache<HeaderValue, Bytes>);

impl Default for LatestBodies {
    fn default() -> Self {
        Self(BytesCache::new(LATEST_BODIES_BYTES_MAX, HeaderValue::len))
    }
}

impl LatestBodies {
    /// Returns the body of the response with this tag; none if the response has no tag.
    pub(super) fn get(&self, tag: Option<&HeaderValue>) -> Option<Bytes> {
        self.0.get(tag?)
    }

    /// Keeps the body of a response, if the response has a tag.
    pub(super) fn insert(&self, tag: Option<&HeaderValue>, body: &Bytes) {
        if let Some(tag) = tag {
            self.0.insert(tag.clone(), body.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_is_found_by_its_tag_only() {
        let bodies = LatestBodies::default();
        let [one, other] = ["\"1\"", "\"2\""].map(HeaderValue::from_static);
        bodies.insert(None, &Bytes::from_static(b"untagged"));
        bodies.insert(Some(&one), &Bytes::from_static(b"one"));
        assert_eq!(bodies.get(Some(&one)).as_deref(), Some(&b"one"[..]));
        assert_eq!(bodies.get(Some(&other)), None);
        assert_eq!(bodies.get(None), None);
    }
}
