//! The calls that HTTP serves, and the schemas of their messages from the descriptors of the protos.
//!
//! **Invariant**: names and descriptions of parameters and response fields come only from the protos, so that they
//! cannot differ from gRPC.

use std::collections::HashMap;

use super::descriptors::{CallSchema, Descriptors, SchemaError, decode};
use crate::proto::DESCRIPTORS;

const RATE_SERVICE: &str = "RateService";
const INGEST_SERVICE: &str = "IngestService";
/// Response fields that JSON omits. Their values change with time, so they would change the `ETag` of a response even
/// if no rate changed. `build.rs` has the same list.
const OMITTED_FIELDS: [&str; 2] = ["age", "server_time"];
/// The time of a rate, in requests and responses.
pub(super) const TIME: &str = "time";

/// A call that HTTP serves: the unary calls of `RateService`, and one call of `IngestService`.
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

/// The layout of a response as rows of CSV.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rows {
    /// The list field with one element per row; none if the response itself is the only row.
    pub(super) list: Option<&'static str>,
    /// Request fields that every row repeats, because the rows do not contain them.
    pub(super) repeated: &'static [Repeated],
    /// Response fields outside the list that every row repeats.
    pub(super) shared: &'static [&'static str],
    /// The field with the baseline, which is the first row. A column of the same name is true only in that row.
    pub(super) baseline: Option<&'static str>,
}

/// A request field that every row of CSV repeats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Repeated {
    pub(super) parameter: &'static str,
    /// The titles of its columns, one for each element of a list.
    pub(super) titles: &'static [&'static str],
}

const PAIR: Repeated = Repeated { parameter: "pair", titles: &["pair"] };
const AMOUNT: Repeated = Repeated { parameter: "amount", titles: &["amount"] };
const SOURCES: Repeated = Repeated { parameter: "sources", titles: &["first_source", "second_source"] };

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

    /// Returns the name of the call in its path, after `/v1/`.
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

    /// Returns the name of the gRPC method.
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

    /// Returns the name of the gRPC service.
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

    /// Returns the required parameters.
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

    /// Returns the layout of the response as CSV.
    pub(super) fn rows(self) -> Rows {
        let rows = |list| Rows { list: Some(list), repeated: &[], shared: &[], baseline: None };
        let one = |repeated| Rows { list: None, repeated, shared: &[], baseline: None };
        match self {
            Self::Latest => rows("rates"),
            Self::Rate | Self::Change => one(&[PAIR]),
            Self::Convert => one(&[PAIR, AMOUNT]),
            Self::History => Rows { baseline: Some("baseline"), shared: &["leg"], ..rows("runs") },
            Self::Changes => {
                Rows { repeated: &[PAIR], shared: &["derivation", "legs", "time_zone"], ..rows("changes") }
            }
            Self::Compare => Rows { repeated: &[PAIR, SOURCES], shared: &["time_zone"], ..rows("days") },
            Self::Candles => {
                Rows { repeated: &[PAIR], shared: &["derivation", "legs", "time_zone"], ..rows("candles") }
            }
            Self::Series => rows("series"),
            Self::Revisions => rows("revisions"),
            Self::Sources => rows("sources"),
            Self::Gaps => rows("gaps"),
            Self::Quarantine => rows("ticks"),
        }
    }
}

/// The message schemas of all calls.
#[derive(Debug)]
pub(super) struct Schema(HashMap<Call, CallSchema>);

impl Schema {
    /// Reads the schemas from the descriptors built into this program.
    ///
    /// # Errors
    /// Returns [`SchemaError`] if a call or a type is missing, or if the type of a field is not supported over HTTP.
    pub(super) fn new() -> Result<Self, SchemaError> {
        let files = decode(DESCRIPTORS)?;
        let descriptors = Descriptors::new(&files, &OMITTED_FIELDS);
        let calls = Call::ALL.into_iter().map(|call| Ok((call, descriptors.call(call.service(), call.rpc())?)));
        Ok(Self(calls.collect::<Result<_, SchemaError>>()?))
    }

    /// Returns the schemas of `call`.
    pub(super) fn call(&self, call: Call) -> Option<&CallSchema> {
        self.0.get(&call)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use prost::Message;
    use prost::encoding::{bytes, string, uint64};
    use prost_types::FileDescriptorSet;
    use prost_types::field_descriptor_proto::Type;
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::http::descriptors::{FieldSchema, Kind, MessageSchema};
    use crate::http::parameters::Parameters;
    use crate::proto::v1;

    #[test]
    fn every_call_has_a_comment_and_names_existing_fields() {
        let schema = Schema::new().unwrap();
        for call in Call::ALL {
            let call_schema = schema.call(call).unwrap();
            assert!(!call_schema.comment.is_empty(), "{call:?}");
            let repeated = call.rows().repeated.iter().map(|repeated| &repeated.parameter);
            for name in call.required().iter().chain(repeated) {
                assert!(call_schema.request.field(name).is_some(), "the request of {call:?} has no field {name}");
            }
            let rows = call.rows();
            for name in rows.list.iter().chain(rows.shared).chain(&rows.baseline) {
                assert!(call_schema.response.field(name).is_some(), "the response of {call:?} has no field {name}");
            }
        }
        let series = schema.call(Call::Series).unwrap().response.field("series").unwrap().kind.message().unwrap();
        let Kind::Enum(state) = &series.field("state").unwrap().kind else {
            panic!("the state of a series is an enum")
        };
        assert_eq!(state.values, ["STALE", "PEGGED", "MOVING", "FLAT"]);
    }

    /// Encodes a message with every field set: numbers are 60, strings are "60", and enums have their first value.
    fn filled(files: &FileDescriptorSet, name: &str) -> Vec<u8> {
        let mut found = Vec::new();
        let (package, own_name) = name.trim_start_matches('.').rsplit_once('.').unwrap();
        let file = files.file.iter().filter(|file| file.package() == package);
        let message = file.flat_map(|file| &file.message_type).find(|message| message.name() == own_name).unwrap();
        for field in message.field.iter().filter(|field| field.name() != "nanos") {
            let number = field.number().try_into().unwrap();
            let kind = field.r#type();
            if kind == Type::String {
                string::encode(number, &"60".to_owned(), &mut found);
            } else if kind == Type::Message {
                bytes::encode(number, &filled(files, field.type_name()), &mut found);
            } else {
                let value = if [Type::Bool, Type::Enum].contains(&kind) { 1 } else { 60 };
                uint64::encode(number, &value, &mut found);
            }
        }
        found
    }

    /// Returns the JSON of a field of a message from [`filled`], or of an empty message.
    fn value(field: &FieldSchema, is_filled: bool) -> String {
        let value = match &field.kind {
            _ if !is_filled && field.is_list => return "[]".to_owned(),
            Kind::Enum(schema) if is_filled => format!("\"{}\"", schema.values[0]),
            Kind::Enum(_) => "null".to_owned(),
            _ if !is_filled && field.may_be_absent => "null".to_owned(),
            Kind::Bool => is_filled.to_string(),
            Kind::Text => if is_filled { "\"60\"" } else { "\"\"" }.to_owned(),
            Kind::Int32 | Kind::Int64 | Kind::Unsigned => if is_filled { "60" } else { "0" }.to_owned(),
            Kind::Time => "\"1970-01-01T00:01:00Z\"".to_owned(),
            Kind::Duration => "\"60s\"".to_owned(),
            Kind::Message(schema) => json(schema, is_filled),
        };
        if field.is_list { format!("[{value}]") } else { value }
    }

    fn json(schema: &MessageSchema, is_filled: bool) -> String {
        let fields = schema.fields.iter().map(|field| format!("\"{}\":{}", field.name, value(field, is_filled)));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    }

    /// Returns the query parameter with the value of a field of a message from [`filled`].
    fn parameter(field: &FieldSchema) -> String {
        let text = match &field.kind {
            Kind::Bool => "true",
            Kind::Text | Kind::Int32 | Kind::Int64 | Kind::Unsigned => "60",
            Kind::Time => "1970-01-01T00:01:00Z",
            Kind::Duration => "1m",
            Kind::Enum(schema) => &schema.values[0],
            // The only message in requests is a window.
            Kind::Message(_) => "60m",
        };
        format!("{}={text}", field.name)
    }

    fn check<Q, A>(call: Call)
    where
        Q: Message + Default + Debug + PartialEq + DeserializeOwned,
        A: Message + Default + Serialize,
    {
        let schema = Schema::new().unwrap();
        let CallSchema { request, response, .. } = schema.call(call).unwrap();
        let files = decode(DESCRIPTORS).unwrap();
        let full = |message: &MessageSchema| filled(&files, &format!("silkrate.v1.{}", message.name));

        let query = request.fields.iter().map(parameter).collect::<Vec<_>>().join("&");
        let parsed: Q = Parameters::parse(Some(&query)).unwrap().read(&[]).unwrap();
        assert_eq!(parsed, Q::decode(full(request).as_slice()).unwrap(), "{call:?}: {query}");
        let unknown = Parameters::parse(Some("x=1")).unwrap().read::<Q>(&["format"]).unwrap_err().to_string();
        let known = request.fields.iter().map(|field| field.name.as_str()).chain(["format"]);
        assert_eq!(unknown, format!("x: unknown parameter; this call takes {}", known.collect::<Vec<_>>().join(", ")));

        let answer = A::decode(full(response).as_slice()).unwrap();
        assert_eq!(serde_json::to_string(&answer).unwrap(), json(response, true), "{call:?}");
        assert_eq!(serde_json::to_string(&A::default()).unwrap(), json(response, false), "{call:?}");
    }

    #[test]
    fn requests_and_responses_have_the_fields_of_the_protos() {
        for call in Call::ALL {
            match call {
                Call::Latest => check::<v1::GetLatestRatesRequest, v1::GetLatestRatesResponse>(call),
                Call::Rate => check::<v1::GetRateRequest, v1::GetRateResponse>(call),
                Call::History => check::<v1::ListRunsRequest, v1::ListRunsResponse>(call),
                Call::Change => check::<v1::GetChangeRequest, v1::GetChangeResponse>(call),
                Call::Changes => check::<v1::ListChangesRequest, v1::ListChangesResponse>(call),
                Call::Compare => check::<v1::CompareSourcesRequest, v1::CompareSourcesResponse>(call),
                Call::Candles => check::<v1::ListCandlesRequest, v1::ListCandlesResponse>(call),
                Call::Convert => check::<v1::ConvertRequest, v1::ConvertResponse>(call),
                Call::Series => check::<v1::ListSeriesRequest, v1::ListSeriesResponse>(call),
                Call::Revisions => check::<v1::ListRevisionsRequest, v1::ListRevisionsResponse>(call),
                Call::Sources => check::<v1::ListSourcesRequest, v1::ListSourcesResponse>(call),
                Call::Gaps => check::<v1::ListGapsRequest, v1::ListGapsResponse>(call),
                Call::Quarantine => check::<v1::ListQuarantineRequest, v1::ListQuarantineResponse>(call),
            }
        }
    }
}
