//! Tags of answers, and whether a caller has an answer already.
//!
//! **Invariant**: an answer that carries a tag is a function of its question, the settings, its commit and, where it
//! depends on the present, of the start of the present minute; so the tag alone says that nothing has changed, and the store is not
//! read to find that out.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::Site;
use super::parameters::Parameters;
use super::schema::{Call, TIME};
use crate::domain::Timestamp;
use crate::store::View;

const MINUTE_US: i64 = 60 * Timestamp::SECOND_US;

/// What an answer is a function of, beside its question.
pub(super) struct Basis {
    pub(super) view: Arc<View>,
    pub(super) now: Timestamp,
    /// Whether the two say all: then the answer may be kept under a tag made of them.
    pub(super) may_tag: bool,
    /// Of the settings that answers depend on.
    settings_hash: u64,
}

impl Basis {
    /// Between two commits nothing changes by time but what time alone is the measure of: the writer commits when a
    /// rate comes due or a state changes. So the present of most calls is that of the newest commit; where it ends a
    /// change or a candle, it is the start of the minute, or that commit if it is later.
    pub(super) fn new(site: &Site, counts_minutes: bool, counts_ages: bool) -> Self {
        let (view, present) = (site.rates.view(), site.rates.now());
        let (recorded, settings_hash) = (view.commit.recorded_time, site.settings_hash);
        // A writer that stopped makes no such commits any more.
        if counts_ages || site.ingest.poisoned().is_some() {
            return Self { view, now: present, may_tag: false, settings_hash };
        }
        let minute = present.saturating_add_us(-present.micros().rem_euclid(MINUTE_US));
        let now = if counts_minutes { minute.max(recorded) } else { recorded };
        Self { view, now, may_tag: true, settings_hash }
    }

    /// Of a call with these parameters.
    pub(super) fn of(site: &Site, call: Call, parameters: &Parameters) -> Self {
        let asked = |name| parameters.get(name).is_some();
        let counts_minutes = match call {
            Call::Change => !asked("end_time"),
            Call::Changes | Call::Compare | Call::Candles | Call::Gaps => true,
            Call::Latest
            | Call::Rate
            | Call::Convert
            | Call::History
            | Call::Series
            | Call::Revisions
            | Call::Sources
            | Call::Quarantine => false,
        };
        Self::new(site, counts_minutes, asked("max_age") && !asked(TIME))
    }

    /// The tag of the answer to a question; another version of this program may write another answer.
    pub(super) fn tag(&self, question: &[&[u8]]) -> Option<HeaderValue> {
        if !self.may_tag {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (env!("CARGO_PKG_VERSION"), self.settings_hash, question).hash(&mut hasher);
        let commit = self.view.commit;
        let (recorded, now) = (commit.recorded_time.micros(), self.now.micros());
        let tag = format!("\"{}-{recorded:x}-{now:x}-{:x}\"", commit.sequence, hasher.finish());
        HeaderValue::from_str(&tag).ok()
    }
}

/// Whether the caller has what bears this tag.
pub(super) fn has_it(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    let mut tags = tags.flat_map(|tags| tags.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    tags.any(|other| other.as_bytes() == tag.as_bytes())
}

pub(super) fn not_modified(tag: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    keep(&mut response, Some(tag));
    response
}

/// Says how an answer may be kept: asked for again each time, under its tag.
pub(super) fn keep(response: &mut Response<Body>, tag: Option<HeaderValue>) {
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
    fn tags_are_compared_one_by_one() {
        let check = |given: &[&'static str], expect: bool| {
            let mut headers = HeaderMap::new();
            for tags in given {
                headers.append(IF_NONE_MATCH, HeaderValue::from_static(tags));
            }
            assert_eq!(has_it(&headers, &HeaderValue::from_static("\"7-a\"")), expect, "{given:?}");
        };
        check(&[], false);
        check(&["\"7-a\""], true);
        check(&["W/\"7-a\""], true);
        check(&["\"6-a\", \"7-a\""], true);
        check(&["\"6-a\"", "\"7-a\""], true);
        check(&["\"7-ab\""], false);
        check(&["7-a"], false);
    }
}
