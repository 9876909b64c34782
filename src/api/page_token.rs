//! Page tokens: where a list goes on, in which commit, and for which question.
//!
//! **Invariant**: a token belongs to the request that it was given for. Another request, or another version's token, is
//! refused rather than read wrongly. It holds no secret and grants nothing.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::domain::{Source, Timestamp};
use crate::query::{BucketCursor, GapCursor, QueryError, RevisionCursor};
use crate::sources::Preferences;

/// The layout below.
const VERSION: u8 = 1;
/// Longest token that is looked at; ours have fewer than 60.
const TOKEN_CHARS_MAX: usize = 128;

/// Identifies a question: a checksum of its fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fingerprint(u32);

impl Fingerprint {
    /// Of a method's request without its page size and token, which may change from page to page.
    pub(super) fn of(method: &str, request: &impl Message) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(method.as_bytes()), &request.encode_to_vec()))
    }

    /// The same question, where these say which source answers.
    pub(super) fn chosen_by(self, preferences: &Preferences) -> Self {
        let of_each = |sum, (source, place): (&Source, u32)| {
            let sum = crc32c::crc32c_append(sum, source.as_str().as_bytes());
            crc32c::crc32c_append(sum, &place.to_le_bytes())
        };
        Self(preferences.iter().fold(self.0, of_each))
    }
}

/// Where a list goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cursor {
    /// After the run first observed then.
    Run(Timestamp),
    /// After that revision.
    Revision(RevisionCursor),
    /// After that bucket.
    Bucket(BucketCursor),
    /// From that place on.
    Gap(GapCursor),
    /// After the held tick of that id.
    HeldTick(u64),
}

/// What a token says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PageToken {
    /// Recorded time of the commit that the first page saw: later commits do not show.
    pub(super) known_time: Timestamp,
    /// Where to go on.
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

fn refused(problem: &str) -> QueryError {
    QueryError::invalid("page_token", problem)
}

impl PageToken {
    /// As text for the answer.
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
        // Numbers always serialize; were it otherwise, an empty token would only end the list.
        postcard::to_stdvec(&layout).map(|bytes| URL_SAFE_NO_PAD.encode(bytes)).unwrap_or_default()
    }

    /// From the text of a request; empty means the first page.
    ///
    /// # Errors
    /// `InvalidArgument` naming `page_token`.
    pub(super) fn decode(text: &str, fingerprint: Fingerprint) -> Result<Option<Self>, QueryError> {
        const GARBLED: &str = "is none of this server's; give next_page_token as it came, or nothing";
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() > TOKEN_CHARS_MAX {
            return Err(refused(GARBLED));
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refused(GARBLED))?;
        if bytes.first() != Some(&VERSION) {
            return Err(refused("is of another version of the server; begin again with the first page"));
        }
        let (layout, rest) = postcard::take_from_bytes::<Layout>(&bytes).map_err(|_| refused(GARBLED))?;
        if !rest.is_empty() {
            return Err(refused(GARBLED));
        }
        if layout.fingerprint != fingerprint.0 {
            return Err(refused(
                "belongs to another request, or to other preferences among sources; repeat every field but page_size, or begin again with the first page",
            ));
        }
        // Buckets are reckoned from these times, by calendars that end somewhere, and spans between them.
        let time = |micros| {
            let time = Timestamp::from_micros(micros);
            (Timestamp::MIN..=Timestamp::MAX).contains(&time).then_some(time).ok_or_else(|| refused(GARBLED))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::v1::{ListRevisionsRequest, ListRunsRequest};

    fn question(pair: &str) -> Fingerprint {
        Fingerprint::of("ListRuns", &ListRunsRequest { pair: pair.to_owned(), ..ListRunsRequest::default() })
    }

    fn token(cursor: Cursor) -> PageToken {
        PageToken { known_time: Timestamp::from_micros(1_765_152_000_000_000), cursor }
    }

    #[test]
    fn tokens_come_back_to_their_question_only() {
        let (min, max) = (Timestamp::MIN, Timestamp::MAX);
        for cursor in [
            Cursor::Run(min),
            Cursor::Run(max),
            Cursor::Revision(RevisionCursor { superseded_time: max, first_observed_time: min }),
            Cursor::Bucket(BucketCursor { start: min, now: max }),
            Cursor::Gap(GapCursor { series: u32::MAX, from: min, now: max }),
            Cursor::HeldTick(u64::MAX),
        ] {
            let text = token(cursor).encode(question("KGS/USD"));
            assert!(text.len() <= TOKEN_CHARS_MAX, "{text}");
            assert_eq!(PageToken::decode(&text, question("KGS/USD")).unwrap(), Some(token(cursor)));
            let error = PageToken::decode(&text, question("KZT/USD")).unwrap_err().to_string();
            assert!(error.contains("page_token: belongs to another request"), "{error}");
        }
        assert_eq!(PageToken::decode("", question("KGS/USD")).unwrap(), None);
        // Equal fields of another list are another question.
        let revisions = ListRevisionsRequest { pair: "KGS/USD".to_owned(), ..ListRevisionsRequest::default() };
        assert_ne!(Fingerprint::of("ListRevisions", &revisions), question("KGS/USD"));
    }

    #[test]
    fn every_time_of_a_token_lies_in_the_calendar() {
        let sound = Timestamp::from_micros(0);
        for odd in [i64::MIN, i64::MAX, Timestamp::MIN.micros() - 1, Timestamp::MAX.micros() + 1] {
            let odd = Timestamp::from_micros(odd);
            for cursor in [
                Cursor::Run(odd),
                Cursor::Revision(RevisionCursor { superseded_time: odd, first_observed_time: sound }),
                Cursor::Revision(RevisionCursor { superseded_time: sound, first_observed_time: odd }),
                Cursor::Bucket(BucketCursor { start: odd, now: sound }),
                Cursor::Bucket(BucketCursor { start: sound, now: odd }),
                Cursor::Gap(GapCursor { series: 1, from: odd, now: sound }),
                Cursor::Gap(GapCursor { series: 1, from: sound, now: odd }),
            ] {
                let text = token(cursor).encode(question("KGS/USD"));
                assert!(PageToken::decode(&text, question("KGS/USD")).is_err(), "{cursor:?}");
            }
            let token = PageToken { known_time: odd, ..token(Cursor::Run(sound)) };
            assert!(PageToken::decode(&token.encode(question("KGS/USD")), question("KGS/USD")).is_err(), "{odd}");
        }
    }

    #[test]
    fn what_is_no_token() {
        let good = token(Cursor::Run(Timestamp::from_micros(5))).encode(question("KGS/USD"));
        let check = |text: &str, expect: &str| {
            let error = PageToken::decode(text, question("KGS/USD")).unwrap_err().to_string();
            assert!(error.starts_with("page_token: ") && error.contains(expect), "{text}: {error}");
        };
        check("!", "none of this server's");
        check(&"A".repeat(TOKEN_CHARS_MAX + 4), "none of this server's");
        check(&good[..good.len() - 4], "none of this server's");
        check(&format!("{good}AAAA"), "none of this server's");
        check(&URL_SAFE_NO_PAD.encode([9, 9, 9]), "another version");
    }

    proptest! {
        #[test]
        fn any_text_is_answered_without_a_panic(text in "[A-Za-z0-9_-]{0,140}") {
            let _ = PageToken::decode(&text, question("KGS/USD"));
        }
    }
}
