//! A cache of the responses of `/v1/latest`: dashboards poll the same rates far more often than these change.
//!
//! **Invariants**: a body is found only by the tag of its response, which identifies the request, the settings and the
//! commit. The cache has a size limit.

use axum::body::Bytes;
use axum::http::HeaderValue;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

/// Maximum size of all cached bodies.
const LATEST_BODIES_BYTES_MAX: u64 = 8 << 20;
/// Expected number of bodies. The cache derives the sizes of its tables from it.
const LATEST_BODIES_TYPICAL: usize = 256;
/// Estimated memory of an entry in addition to its body.
const ENTRY_BYTES: u64 = 256;

/// The bodies, by the tags of their responses.
pub(super) struct LatestBodies(Cache<HeaderValue, Bytes, Size>);

/// Weighs a body by its size in memory.
#[derive(Clone)]
struct Size;

impl Weighter<HeaderValue, Bytes> for Size {
    fn weight(&self, _: &HeaderValue, body: &Bytes) -> u64 {
        body.len() as u64 + ENTRY_BYTES
    }
}

impl Default for LatestBodies {
    fn default() -> Self {
        // Each shard has its part of the size, and the body of many series must fit into a shard.
        let options = OptionsBuilder::new()
            .estimated_items_capacity(LATEST_BODIES_TYPICAL)
            .weight_capacity(LATEST_BODIES_BYTES_MAX)
            .shards(1)
            .build();
        // Building fails only if a size is missing.
        let options = options.unwrap_or_else(|error| unreachable!("{error}"));
        Self(Cache::with_options(options, Size, DefaultHashBuilder::default(), DefaultLifecycle::default()))
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

    #[test]
    fn cache_stays_within_its_size() {
        let bodies = LatestBodies::default();
        let body = Bytes::from(vec![0; 1 << 20]);
        for number in 0..100_u32 {
            bodies.insert(Some(&HeaderValue::from(number)), &body);
        }
        assert!(bodies.0.weight() <= LATEST_BODIES_BYTES_MAX);
        assert!(bodies.0.len() > 1);
    }
}
