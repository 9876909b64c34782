//! The calls there are over HTTP, and what their messages hold, read from the descriptors of the protos.
//!
//! **Invariant**: names of parameters and of what is answered, and what is said of them, come from the protos alone, so
//! that they cannot drift from the calls of gRPC.

use std::collections::HashMap;

use prost_reflect::{DescriptorError, DescriptorPool, EnumDescriptor, FileDescriptor, Kind, MessageDescriptor};
use thiserror::Error;

use crate::proto::DESCRIPTORS;

const RATE_SERVICE: &str = "silkrate.v1.RateService";
const INGEST_SERVICE: &str = "silkrate.v1.IngestService";
pub(super) const TIMESTAMP: &str = "google.protobuf.Timestamp";
pub(super) const DURATION: &str = "google.protobuf.Duration";

/// Why the descriptors built into this program are of no use.
#[derive(Debug, Error)]
pub enum SchemaError {
    /// They do not decode.
    #[error("descriptors: {0}")]
    Descriptors(#[from] DescriptorError),
    /// A call is not among them.
    #[error("descriptors: there is no call {0}")]
    NoSuchCall(&'static str),
}

/// A call that can be made over HTTP: those of `RateService`, and one of `IngestService`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(super) enum Call {
    Latest,
    Rate,
    History,
    Change,
    Changes,
    Compare,
    Candles,
    Convert,
    Series,
    Revisions,
    Sources,
    Gaps,
    Quarantine,
}

/// What CSV makes of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rows {
    /// The field that holds a row each; none where the answer is the one row.
    pub(super) list: Option<&'static str>,
    /// Fields of the request that head each row, since rows leave out what was asked for.
    pub(super) asked: &'static [&'static str],
    /// Fields of the whole answer that go into each row.
    pub(super) shared: &'static [&'static str],
    /// A field that holds one row more, before the others and marked by its name.
    pub(super) before: Option<&'static str>,
}

impl Call {
    pub(super) const ALL: [Self; 13] = [
        Self::Latest,
        Self::Rate,
        Self::History,
        Self::Change,
        Self::Changes,
        Self::Compare,
        Self::Candles,
        Self::Convert,
        Self::Series,
        Self::Revisions,
        Self::Sources,
        Self::Gaps,
        Self::Quarantine,
    ];

    /// Below `/v1/`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Rate => "rate",
            Self::History => "history",
            Self::Change => "change",
            Self::Changes => "changes",
            Self::Compare => "compare",
            Self::Candles => "candles",
            Self::Convert => "convert",
            Self::Series => "series",
            Self::Revisions => "revisions",
            Self::Sources => "sources",
            Self::Gaps => "gaps",
            Self::Quarantine => "quarantine",
        }
    }

    /// Of gRPC.
    pub(super) const fn rpc(self) -> &'static str {
        match self {
            Self::Latest => "GetLatestRates",
            Self::Rate => "GetRate",
            Self::History => "ListRuns",
            Self::Change => "GetChange",
            Self::Changes => "ListChanges",
            Self::Compare => "CompareSources",
            Self::Candles => "ListCandles",
            Self::Convert => "Convert",
            Self::Series => "ListSeries",
            Self::Revisions => "ListRevisions",
            Self::Sources => "ListSources",
            Self::Gaps => "ListGaps",
            Self::Quarantine => "ListQuarantine",
        }
    }

    /// Whose call it is.
    const fn service(self) -> &'static str {
        match self {
            Self::Quarantine => INGEST_SERVICE,
            Self::Latest
            | Self::Rate
            | Self::History
            | Self::Change
            | Self::Changes
            | Self::Compare
            | Self::Gaps
            | Self::Sources
            | Self::Candles
            | Self::Convert
            | Self::Series
            | Self::Revisions => RATE_SERVICE,
        }
    }

    /// Parameters without which there is no question.
    pub(super) const fn required(self) -> &'static [&'static str] {
        match self {
            Self::Latest | Self::Series | Self::Gaps | Self::Sources | Self::Quarantine => &[],
            Self::Rate | Self::History | Self::Change | Self::Revisions => &["pair"],
            Self::Changes => &["pair", "period"],
            Self::Compare => &["pair", "sources"],
            Self::Candles => &["pair", "interval"],
            Self::Convert => &["pair", "amount"],
        }
    }

    pub(super) fn rows(self) -> Rows {
        let rows = |list| Rows { list: Some(list), asked: &[], shared: &[], before: None };
        let one = |asked| Rows { list: None, asked, shared: &[], before: None };
        match self {
            Self::Latest => rows("rates"),
            Self::Rate | Self::Change => one(&["pair"]),
            Self::Convert => one(&["pair", "amount"]),
            Self::History => Rows { before: Some("baseline"), ..rows("runs") },
            Self::Changes => Rows { asked: &["pair"], ..rows("changes") },
            Self::Compare => Rows { asked: &["pair", "sources"], ..rows("days") },
            Self::Candles => Rows { asked: &["pair"], shared: &["derivation"], ..rows("candles") },
            Self::Series => rows("series"),
            Self::Revisions => rows("revisions"),
            Self::Sources => rows("sources"),
            Self::Gaps => rows("gaps"),
            Self::Quarantine => rows("ticks"),
        }
    }

    /// Fields of the answer that tell how much time has passed: an answer that is compared by its tag must not hold
    /// them. `time_asked` says whether the caller named the moment, which otherwise is that of the commit.
    pub(super) fn left_out(self, time_asked: bool) -> &'static [&'static str] {
        match self {
            Self::Rate | Self::Convert if !time_asked => &["age", "time"],
            Self::Latest => &["server_time"],
            Self::Rate
            | Self::Convert
            | Self::History
            | Self::Change
            | Self::Changes
            | Self::Compare
            | Self::Candles
            | Self::Series
            | Self::Revisions
            | Self::Gaps
            | Self::Sources
            | Self::Quarantine => &["age"],
        }
    }
}

/// The messages of one call.
#[derive(Clone, Debug)]
pub(super) struct CallSchema {
    pub(super) request: MessageDescriptor,
    pub(super) response: MessageDescriptor,
    /// What the call does, as the proto says it.
    pub(super) comment: String,
}

/// All calls, and the comments of the protos.
#[derive(Debug)]
pub(super) struct Schema {
    calls: HashMap<Call, CallSchema>,
    /// By file and path in it.
    comments: HashMap<(String, Vec<i32>), String>,
}

impl Schema {
    /// Of this program.
    pub(super) fn new() -> Result<Self, SchemaError> {
        let pool = DescriptorPool::decode(DESCRIPTORS)?;
        let mut schema =
            Self { calls: HashMap::new(), comments: pool.files().flat_map(|file| comments(&file)).collect() };
        for call in Call::ALL {
            let service = pool.get_service_by_name(call.service());
            let service = service.ok_or(SchemaError::NoSuchCall(call.service()))?;
            let method = service.methods().find(|method| method.name() == call.rpc());
            let method = method.ok_or(SchemaError::NoSuchCall(call.rpc()))?;
            let comment = schema.comment(&method.parent_service().parent_file(), method.path());
            let of_call = CallSchema { request: method.input(), response: method.output(), comment };
            schema.calls.insert(call, of_call);
        }
        Ok(schema)
    }

    /// Of `call`.
    pub(super) fn call(&self, call: Call) -> Option<&CallSchema> {
        self.calls.get(&call)
    }

    /// What the proto says above something; empty if nothing.
    pub(super) fn comment(&self, file: &FileDescriptor, path: &[i32]) -> String {
        self.comments.get(&(file.name().to_owned(), path.to_vec())).cloned().unwrap_or_default()
    }
}

fn comments(file: &FileDescriptor) -> Vec<((String, Vec<i32>), String)> {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let said = info.into_iter().flat_map(|info| &info.location).filter_map(|place| {
        let lines: Vec<&str> = place.leading_comments.as_deref()?.lines().map(str::trim).collect();
        Some(((file.name().to_owned(), place.path.clone()), lines.join(" ").trim().to_owned()))
    });
    said.collect()
}

/// The names of an enum's values without what they all begin with, by number; none for "unspecified".
pub(super) fn short_names(of: &EnumDescriptor) -> Vec<(i32, String)> {
    let prefix = of.values().find_map(|value| value.name().strip_suffix("UNSPECIFIED").map(str::to_owned));
    let prefix = prefix.unwrap_or_default();
    let short = |name: &str| name.strip_prefix(prefix.as_str()).unwrap_or(name).to_owned();
    of.values().filter(|value| value.number() != 0).map(|value| (value.number(), short(value.name()))).collect()
}

/// Whether a field's message is written as one value: a time or a length of time.
pub(super) fn is_value(kind: &Kind) -> bool {
    kind.as_message().is_none_or(|message| [TIMESTAMP, DURATION].contains(&message.full_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_and_field_says_what_it_is() {
        let schema = Schema::new().unwrap();
        for call in Call::ALL {
            let of_call = schema.call(call).unwrap();
            assert!(!of_call.comment.is_empty(), "{call:?}");
            for name in call.required().iter().chain(call.rows().asked) {
                assert!(of_call.request.get_field_by_name(name).is_some(), "{call:?} asks for no {name}");
            }
            let rows = call.rows();
            for name in rows.list.iter().chain(rows.shared).chain(&rows.before) {
                assert!(of_call.response.get_field_by_name(name).is_some(), "{call:?} answers no {name}");
            }
        }
        let state = schema.call(Call::Series).unwrap().response.parent_pool().get_enum_by_name("silkrate.v1.RateState");
        let names: Vec<String> = short_names(&state.unwrap()).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["STALE", "PEGGED", "MOVING", "FLAT"]);
    }
}
