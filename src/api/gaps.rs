//! The call `ListGaps`: validates the request and builds the response.
//!
//! **Invariant**: a request that this module returns is valid. This module does not check whether the series exists.

use super::convert::{length_us, pair, source};
use super::error::ServiceError;
use super::page_token::{Cursor, PageToken};
use super::rate_request::{PAGE_ROWS_MAX, Paged, order, page_rows, range, resume_chosen};
use super::rate_response::next_token;
use super::rates::{Rates, ReadTask};
use crate::analysis::{GapReason, GapStretch};
use crate::domain::CurrencySet;
use crate::proto::convert::{duration, timestamp};
use crate::proto::v1;
use crate::query::{Gap, GapsRequest, QueryError, Reader};
use crate::sources::SourceTable;

impl Rates {
    /// Validates the request and returns the task that reads a page of gaps.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the request is invalid.
    pub fn list_gaps(
        &self,
        request: v1::ListGapsRequest,
    ) -> Result<impl ReadTask<v1::ListGapsResponse> + use<>, ServiceError> {
        let strict = request.strict;
        let Paged { request, fingerprint } = gaps_request(request, self.currencies(), self.sources())?;
        Ok(move |reader: &Reader| {
            let answer = reader.strict(strict).gaps(&request)?;
            let (commit, page) = (answer.commit, answer.body);
            Ok(v1::ListGapsResponse {
                gaps: page.gaps.iter().map(message).collect(),
                next_page_token: next_token(commit, page.next.map(Cursor::Gap), fingerprint),
                sequence: commit.sequence,
                recorded_time: Some(timestamp(commit.recorded_time)),
            })
        })
    }
}

fn gaps_request(
    mut request: v1::ListGapsRequest,
    served: &CurrencySet,
    sources: &SourceTable,
) -> Result<Paged<GapsRequest>, QueryError> {
    let limit = page_rows(std::mem::take(&mut request.page_size), PAGE_ROWS_MAX)?;
    let token = std::mem::take(&mut request.page_token);
    let mut parsed = GapsRequest {
        pair: if request.pair.is_empty() { None } else { Some(pair("pair", &request.pair, served)?) },
        source: source("source", &request.source)?,
        range: range(request.start_time, request.end_time)?,
        minimum_us: length_us("minimum_length", request.minimum_length)?,
        order: order(request.descending),
        after: None,
        limit,
    };
    let (fingerprint, token) = resume_chosen(&token, "ListGaps", &request, (parsed.source.as_ref(), sources))?;
    if let Some(PageToken { cursor: Cursor::Gap(after), .. }) = token {
        parsed.after = Some(after);
    }
    Ok(Paged { request: parsed, fingerprint })
}

fn message(gap: &Gap) -> v1::Gap {
    let covered = |reason| Some(duration(gap.lengths.length_us(reason)));
    v1::Gap {
        pair: gap.series.pair.to_string(),
        source: gap.series.source.to_string(),
        start_time: Some(timestamp(gap.start)),
        end_time: Some(timestamp(gap.end)),
        open: gap.is_open,
        length: Some(duration(gap.end.micros_since(gap.start))),
        reason: reason(gap.lengths.leading()).into(),
        asked_silent_length: covered(GapReason::AskedSilent),
        refused_length: covered(GapReason::Refused),
        unreachable_length: covered(GapReason::Unreachable),
        not_asked_length: covered(GapReason::NotAsked),
        stretches: gap.stretches.iter().map(stretch).collect(),
    }
}

fn stretch(stretch: &GapStretch) -> v1::GapStretch {
    v1::GapStretch {
        start_time: Some(timestamp(stretch.start)),
        end_time: Some(timestamp(stretch.end)),
        reason: reason(stretch.reason).into(),
    }
}

const fn reason(reason: GapReason) -> v1::GapReason {
    match reason {
        GapReason::AskedSilent => v1::GapReason::AskedSilent,
        GapReason::Refused => v1::GapReason::Refused,
        GapReason::Unreachable => v1::GapReason::Unreachable,
        GapReason::NotAsked => v1::GapReason::NotAsked,
    }
}

#[cfg(test)]
mod tests {
    use prost_types::{Duration, Timestamp as ProtoTimestamp};

    use super::*;

    #[test]
    fn gaps_request_names_the_invalid_field() {
        let check = |edit: fn(&mut v1::ListGapsRequest), expect: &str| {
            let mut request = v1::ListGapsRequest { pair: "KGS/USD".to_owned(), ..v1::ListGapsRequest::default() };
            edit(&mut request);
            let error = gaps_request(request, &CurrencySet::central_asia(), &SourceTable::default())
                .err()
                .map(|error| error.to_string());
            let error = error.unwrap_or_default();
            assert!(error.starts_with(expect) && error.is_empty() == expect.is_empty(), "{error}");
        };
        check(|_| (), "");
        check(|r| r.pair.clear(), "");
        check(|r| r.pair = "KGS".to_owned(), "pair: pair 'KGS'");
        check(|r| r.source = "NBKR".to_owned(), "source: source 'NBKR' is not a slug");
        check(
            |r| r.minimum_length = Some(Duration { seconds: -1, nanos: 0 }),
            "minimum_length: is negative: -1 s and 0 ns",
        );
        check(
            |r| {
                r.start_time = Some(ProtoTimestamp { seconds: 2, nanos: 0 });
                r.end_time = Some(ProtoTimestamp { seconds: 1, nanos: 0 });
            },
            "end_time: 1970-01-01T00:00:01Z is before start_time",
        );
        check(|r| r.page_size = -1, "page_size: is -1");
        check(|r| r.page_token = "!".to_owned(), "page_token: is not a token of this server");
    }
}
