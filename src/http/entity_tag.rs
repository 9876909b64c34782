//! Entity tags (`ETag`) of responses, and the check of `If-None-Match`.
//!
//! **Invariant**: a response with a tag depends only on its request, the settings, its commit and, if it depends on the
//! current time, on the start of the current minute. Equal tags therefore prove that the response is unchanged.
//! Comparing tags does not read the store.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::Site;
use super::parameters::{Parameters, is_date};
use super::schema::{Call, TIME};
use crate::domain::Timestamp;
use crate::store::View;

const MINUTE_US: i64 = 60 * Timestamp::SECOND_US;

/// The inputs of a response other than its request: the commit, the current time and the settings.
pub(super) struct Snapshot {
    pub(super) view: Arc<View>,
    pub(super) now: Timestamp,
    /// Whether the response may have a tag: the view and the time determine the response completely.
    pub(super) may_tag: bool,
    /// Hash of the settings that responses depend on.
    settings_hash: u64,
}

impl Snapshot {
    /// Takes the newest commit and the current time for a response.
    ///
    /// Between two commits, only ages change with time, because the writer commits when a rate comes into force or a
    /// state changes. For most calls, `now` is therefore the recorded time of the newest commit. A response can also
    /// depend on the time of the clock, for example a change or a candle that ends now (`until_now`). Then `now` is the
    /// start of the current minute, or the recorded time of the newest commit if that is later. A response that
    /// compares an age with the exact time of the clock (`compares_age`) has no tag. After the writer has failed, no
    /// response has a tag.
    pub(super) fn new(site: &Site, until_now: bool, compares_age: bool) -> Self {
        let (view, exact) = (site.rates.view(), site.rates.now());
        let (recorded, settings_hash) = (view.commit.recorded_time, site.settings_hash);
        // A failed writer no longer commits when a rate comes into force or a state changes.
        if compares_age || site.ingest.poisoned().is_some() {
            return Self { view, now: exact, may_tag: false, settings_hash };
        }
        let minute = exact.saturating_add_us(-exact.micros().rem_euclid(MINUTE_US));
        let now = if until_now { minute.max(recorded) } else { recorded };
        Self { view, now, may_tag: true, settings_hash }
    }

    /// Takes the snapshot for a call with these parameters.
    pub(super) fn of(site: &Site, call: Call, parameters: &Parameters) -> Self {
        let is_given = |name| parameters.get(name).is_some();
        let until_now = match call {
            Call::Change => !is_given("end_time"),
            Call::Changes | Call::Compare | Call::Candles | Call::Gaps => true,
            // The rate of a day is read at the end of the day, or now.
            Call::Rate | Call::Convert => is_given("date") || parameters.get(TIME).is_some_and(is_date),
            Call::Latest | Call::History | Call::Series | Call::Revisions | Call::Sources | Call::Quarantine => false,
        };
        Self::new(site, until_now, is_given("max_age") && !is_given(TIME))
    }

    /// Returns the tag of the response to `request`; none if the response may have no tag. The tag includes the
    /// program's version, since another version may write another response.
    pub(super) fn tag(&self, request: &[&[u8]]) -> Option<HeaderValue> {
        if !self.may_tag {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (env!("CARGO_PKG_VERSION"), self.settings_hash, request).hash(&mut hasher);
        let commit = self.view.commit;
        let (recorded, now) = (commit.recorded_time.micros(), self.now.micros());
        let tag = format!("\"{}-{recorded:x}-{now:x}-{:x}\"", commit.sequence, hasher.finish());
        HeaderValue::from_str(&tag).ok()
    }
}

/// Suffixes that Apache adds to the tag of a response that it has compressed (`DeflateAlterETag`, `BrotliAlterETag`). It
/// does not remove them when the client sends the tag back.
const COMPRESSION_SUFFIXES: [&str; 2] = ["-gzip", "-br"];

/// Returns true if `If-None-Match` contains `tag`: the client has the current response already.
pub(super) fn matches_tag(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    let mut tags = tags.flat_map(|tags| tags.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    tags.any(|other| original_tag(other).as_bytes() == tag.as_bytes())
}

/// Returns the tag without the suffix of a compressing proxy.
fn original_tag(tag: &str) -> Cow<'_, str> {
    let inner = tag.strip_suffix('"');
    let original = inner.and_then(|inner| COMPRESSION_SUFFIXES.iter().find_map(|suffix| inner.strip_suffix(suffix)));
    original.map_or(Cow::Borrowed(tag), |original| Cow::Owned(format!("{original}\"")))
}

/// Returns a 304 response with `tag`.
pub(super) fn not_modified(tag: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    set_cache_headers(&mut response, Some(tag));
    response
}

/// Sets the cache headers: clients must revalidate the response with its tag each time.
pub(super) fn set_cache_headers(response: &mut Response<Body>, tag: Option<HeaderValue>) {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.append(VARY, HeaderValue::from_static("Accept"));
    if let Some(tag) = tag {
        headers.insert(ETAG, tag);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tag_of_if_none_match_is_compared() {
        let check = |given: &[&'static str], expect: bool| {
            let mut headers = HeaderMap::new();
            for tags in given {
                headers.append(IF_NONE_MATCH, HeaderValue::from_static(tags));
            }
            assert_eq!(matches_tag(&headers, &HeaderValue::from_static("\"7-a\"")), expect, "{given:?}");
        };
        check(&[], false);
        check(&["\"7-a\""], true);
        check(&["W/\"7-a\""], true);
        check(&["\"7-a-gzip\""], true);
        check(&["W/\"7-a-br\""], true);
        check(&["\"7-a-gzip-gzip\""], false);
        check(&["\"7-a\"-gzip"], false);
        check(&["\"6-a\", \"7-a\""], true);
        check(&["\"6-a\"", "\"7-a\""], true);
        check(&["\"7-ab\""], false);
        check(&["7-a"], false);
    }
}
