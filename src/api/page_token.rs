//! Page tokens: the position at which a list continues, the commit of the list, and a fingerprint of the request.
//!
//! **Invariant**: a token is valid only for the request that it was issued for. A token of another request or of
//! another server version is refused. A token contains no secret and grants no access.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use data_encoding::BASE64URL_NOPAD;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::domain::Timestamp;
use crate::query::{BucketCursor, GapCursor, QueryError, RevisionCursor};
use crate::sources::SourceTable;

/// Version of [`Layout`], the first byte of a token.
const VERSION: u8 = 1;
/// Maximum length of a token that is decoded. Tokens of this server have fewer than 60 characters.
const TOKEN_CHARS_MAX: usize = 128;

/// A checksum that identifies a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fingerprint(u32);

impl Fingerprint {
    /// Computes the fingerprint of a request to `method`. The caller clears the page size and the page token first,
    /// because they may change from page to page.
    pub(super) fn of(method: &str, request: &impl Message) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(method.as_bytes()), &request.encode_to_vec()))
    }

    /// Adds the settings of the sources, which decide which series answers a request that names no source.
    pub(super) fn with_settings(self, sources: &SourceTable) -> Self {
        let mut hasher = DefaultHasher::new();
        sources.hash(&mut hasher);
        Self(crc32c::crc32c_append(self.0, &hasher.finish().to_le_bytes()))
    }
}

/// The position at which the next page of a list starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cursor {
    /// After the run with this first observed time.
    Run(Timestamp),
    /// After this revision.
    Revision(RevisionCursor),
    /// After this bucket.
    Bucket(BucketCursor),
    /// At this position in the list of gaps.
    Gap(GapCursor),
    /// After the held tick with this id.
    HeldTick(u64),
}

/// The content of a page token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PageToken {
    /// Recorded time of the commit that the first page read. All pages read this commit.
    pub(super) known_time: Timestamp,
    /// The position at which the next page starts.
    pub(super) cursor: Cursor,
}

#[derive(Serialize, Deserialize)]
struct Layout {
    version: u8,
    fingerprint: u32,
    known_us: i64,
    cursor: CursorLayout,
}

#[derive(Serialize, Deserialize)]
enum CursorLayout {
    Run(i64),
    Revision(i64, i64),
    Bucket(i64, i64),
    Gap(u32, i64, i64),
    HeldTick(u64),
}

fn invalid(problem: &str) -> QueryError {
    QueryError::invalid("page_token", problem)
}

impl PageToken {
    /// Encodes the token as text for a response.
    pub(super) fn encode(self, fingerprint: Fingerprint) -> String {
        let cursor = match self.cursor {
            Cursor::Run(time) => CursorLayout::Run(time.micros()),
            Cursor::Revision(RevisionCursor { superseded_time, first_observed_time }) => {
                CursorLayout::Revision(superseded_time.micros(), first_observed_time.micros())
            }
            Cursor::Bucket(BucketCursor { start, now }) => CursorLayout::Bucket(start.micros(), now.micros()),
            Cursor::Gap(GapCursor { series, from, now }) => CursorLayout::Gap(series, from.micros(), now.micros()),
            Cursor::HeldTick(id) => CursorLayout::HeldTick(id),
        };
        let layout =
            Layout { version: VERSION, fingerprint: fingerprint.0, known_us: self.known_time.micros(), cursor };
        // Serializing numbers never fails. If it did, the empty token would only end the list.
        postcard::to_stdvec(&layout).map(|bytes| BASE64URL_NOPAD.encode(&bytes)).unwrap_or_default()
    }

    /// Decodes the token of a request. Returns `None` for an empty text, which requests the first page.
    ///
    /// # Errors
    /// Returns `InvalidArgument` for the field `page_token` if the token is not valid for this request.
    pub(super) fn decode(text: &str, fingerprint: Fingerprint) -> Result<Option<Self>, QueryError> {
        const MALFORMED: &str =
            "is not a token of this server; give next_page_token unchanged, or leave it empty for the first page";
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > TOKEN_CHARS_MAX {
            return Err(invalid(MALFORMED));
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| invalid(MALFORMED))?;
        if bytes.first() != Some(&VERSION) {
            return Err(invalid("is from another version of the server; start again with the first page"));
        }
        let (layout, rest) = postcard::take_from_bytes::<Layout>(&bytes).map_err(|_| invalid(MALFORMED))?;
        if !rest.is_empty() {
            return Err(invalid(MALFORMED));
        }
        if layout.fingerprint != fingerprint.0 {
            return Err(invalid(
                "belongs to another request, or the settings of the sources have changed; repeat every field except \
                 page_size, or start again with the first page",
            ));
        }
        // Buckets and spans are computed from these times. This computation supports only times from `MIN` to `MAX`.
        let time = |micros| {
            let time = Timestamp::from_micros(micros);
            (Timestamp::MIN..=Timestamp::MAX).contains(&time).then_some(time).ok_or_else(|| invalid(MALFORMED))
        };
        let cursor = match layout.cursor {
            CursorLayout::Run(first) => Cursor::Run(time(first)?),
            CursorLayout::HeldTick(id) => Cursor::HeldTick(id),
            CursorLayout::Bucket(start, now) => Cursor::Bucket(BucketCursor { start: time(start)?, now: time(now)? }),
            CursorLayout::Gap(series, from, now) => {
                Cursor::Gap(GapCursor { series, from: time(from)?, now: time(now)? })
            }
            CursorLayout::Revision(superseded, first) => Cursor::Revision(RevisionCursor {
                superseded_time: time(superseded)?,
                first_observed_time: time(first)?,
            }),
        };
        Ok(Some(Self { known_time: time(layout.known_us)?, cursor }))
    }
}

/// The body of the fuzz target of page tokens: the bytes as the text of a token, and as its content.
///
/// # Panics
/// Panics if a valid token is not the same after it was encoded and decoded.
#[cfg(any(test, fuzzing))]
pub fn fuzz(bytes: &[u8]) {
    let content = BASE64URL_NOPAD.encode(&[&[VERSION], bytes].concat());
    for text in [std::str::from_utf8(bytes).unwrap_or_default(), &content] {
        let layout = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap_or_default();
        // A fuzzer does not find the fingerprint of a request.
        let fingerprint = postcard::take_from_bytes::<Layout>(&layout);
        let fingerprint =
            Fingerprint(fingerprint.map_or_else(|_| Default::default(), |(layout, _)| layout.fingerprint));
        if let Ok(Some(token)) = PageToken::decode(text, fingerprint) {
            let again = PageToken::decode(&token.encode(fingerprint), fingerprint);
            assert!(again.is_ok_and(|again| again == Some(token)), "a token differs after encoding");
        }
    }
}

/// Valid inputs of the fuzz target: target, name and bytes.
#[cfg(test)]
pub(crate) fn fuzz_corpus() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let token = |cursor| PageToken { known_time: Timestamp::from_micros(1_765_152_000_000_000), cursor };
    let text = |cursor| token(cursor).encode(Fingerprint(7)).into_bytes();
    let gap = GapCursor { series: 3, from: Timestamp::default(), now: Timestamp::MAX };
    vec![
        ("page_token", "run", text(Cursor::Run(Timestamp::default()))),
        ("page_token", "gap", text(Cursor::Gap(gap))),
        ("page_token", "held-tick", text(Cursor::HeldTick(9))),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::v1::{ListRevisionsRequest, ListRunsRequest};

    fn fingerprint(pair: &str) -> Fingerprint {
        Fingerprint::of("ListRuns", &ListRunsRequest { pair: pair.to_owned(), ..ListRunsRequest::default() })
    }

    fn token(cursor: Cursor) -> PageToken {
        PageToken { known_time: Timestamp::from_micros(1_765_152_000_000_000), cursor }
    }

    #[test]
    fn token_is_valid_only_for_its_request() {
        let (min, max) = (Timestamp::MIN, Timestamp::MAX);
        for cursor in [
            Cursor::Run(min),
            Cursor::Run(max),
            Cursor::Revision(RevisionCursor { superseded_time: max, first_observed_time: min }),
            Cursor::Bucket(BucketCursor { start: min, now: max }),
            Cursor::Gap(GapCursor { series: u32::MAX, from: min, now: max }),
            Cursor::HeldTick(u64::MAX),
        ] {
            let text = token(cursor).encode(fingerprint("KGS/USD"));
            assert!(text.len() <= TOKEN_CHARS_MAX, "{text}");
            assert_eq!(PageToken::decode(&text, fingerprint("KGS/USD")).unwrap(), Some(token(cursor)));
            let error = PageToken::decode(&text, fingerprint("KZT/USD")).unwrap_err().to_string();
            assert!(error.contains("page_token: belongs to another request"), "{error}");
        }
        assert_eq!(PageToken::decode("", fingerprint("KGS/USD")).unwrap(), None);
        // Another method with equal fields has another fingerprint.
        let revisions = ListRevisionsRequest { pair: "KGS/USD".to_owned(), ..ListRevisionsRequest::default() };
        assert_ne!(Fingerprint::of("ListRevisions", &revisions), fingerprint("KGS/USD"));
    }

    #[test]
    fn token_with_a_time_outside_the_calendar_is_refused() {
        let valid = Timestamp::from_micros(0);
        for outside in [i64::MIN, i64::MAX, Timestamp::MIN.micros() - 1, Timestamp::MAX.micros() + 1] {
            let outside = Timestamp::from_micros(outside);
            for cursor in [
                Cursor::Run(outside),
                Cursor::Revision(RevisionCursor { superseded_time: outside, first_observed_time: valid }),
                Cursor::Revision(RevisionCursor { superseded_time: valid, first_observed_time: outside }),
                Cursor::Bucket(BucketCursor { start: outside, now: valid }),
                Cursor::Bucket(BucketCursor { start: valid, now: outside }),
                Cursor::Gap(GapCursor { series: 1, from: outside, now: valid }),
                Cursor::Gap(GapCursor { series: 1, from: valid, now: outside }),
            ] {
                let text = token(cursor).encode(fingerprint("KGS/USD"));
                assert!(PageToken::decode(&text, fingerprint("KGS/USD")).is_err(), "{cursor:?}");
            }
            let token = PageToken { known_time: outside, ..token(Cursor::Run(valid)) };
            assert!(
                PageToken::decode(&token.encode(fingerprint("KGS/USD")), fingerprint("KGS/USD")).is_err(),
                "{outside}"
            );
        }
    }

    #[test]
    fn malformed_token_is_refused() {
        let good = token(Cursor::Run(Timestamp::from_micros(5))).encode(fingerprint("KGS/USD"));
        let check = |text: &str, expect: &str| {
            let error = PageToken::decode(text, fingerprint("KGS/USD")).unwrap_err().to_string();
            assert!(error.starts_with("page_token: ") && error.contains(expect), "{text}: {error}");
        };
        check("!", "not a token of this server");
        check(&"A".repeat(TOKEN_CHARS_MAX + 4), "not a token of this server");
        check(&good[..good.len() - 4], "not a token of this server");
        check(&format!("{good}AAAA"), "not a token of this server");
        check(&BASE64URL_NOPAD.encode(&[9, 9, 9]), "another version");
    }

    proptest! {
        #[test]
        fn decoding_any_text_does_not_panic(text in "[A-Za-z0-9_-]{0,140}") {
            let _ = PageToken::decode(&text, fingerprint("KGS/USD"));
        }
    }
}
