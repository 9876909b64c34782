//! What there is, for programs and for people: `/openapi.json` and `/v1`.
//!
//! **Invariant**: parameters, answers and what is said of them are read from the same descriptors that requests are read
//! and answers written by; only what the protos do not know stands here.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::calls::FORMAT;
use super::descriptors::{CallSchema, EnumSchema, FieldSchema, Kind, MessageSchema};
use super::parameters::words;
use super::schema::{Call, Schema, TIME};
use crate::domain::{Span, SpanUnit};
use crate::proto::v1;

/// How a span is written whose unit is one of those that `is_taken`.
fn span_pattern(is_taken: impl Fn(Span) -> bool) -> String {
    let units = SpanUnit::ALL.into_iter().filter(|unit| is_taken(Span::new(1, *unit)));
    let suffixes: Vec<&str> = units.map(SpanUnit::suffix).collect();
    format!("^[1-9][0-9]*({})$", suffixes.join("|"))
}

/// What there is, for people.
pub(super) fn index(schema: &Schema) -> Value {
    let calls = Call::ALL.iter().filter_map(|call| {
        let of = schema.call(*call)?;
        let parameters: Vec<String> = of.request.fields.iter().map(|field| field.name.clone()).collect();
        Some(json!({
            "path": format!("/v1/{}", call.name()),
            "rpc": call.rpc(),
            "does": of.comment,
            "parameters": parameters,
            "required": call.required(),
        }))
    });
    json!({
        "calls": calls.collect::<Vec<_>>(),
        "formats": ["json", "csv"],
        "openapi": "/openapi.json",
        "frankfurter": "/frankfurter/v1/latest",
    })
}

/// The document.
pub(super) fn document(schema: &Schema) -> Value {
    let mut kinds = BTreeMap::new();
    let mut paths = Map::new();
    for call in Call::ALL {
        if let Some(of) = schema.call(call) {
            paths.insert(format!("/v1/{}", call.name()), json!({ "get": operation(call, of) }));
            response_kinds(&of.response, &mut kinds);
        }
    }
    paths.extend(other_paths());
    kinds.insert("Problem".to_owned(), problem_kind());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "silkrate",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0" },
            "description": "Exchange rates of Central Asia. Decimals are strings, times RFC 3339 in UTC, absent values \
                null. Every answer under /v1 bears an ETag that moves with the sequence: send it as If-None-Match. Those \
                to max_age without time count from now and bear none.",
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": kinds,
            "responses": { "Problem": {
                "description": "What is wrong, where, and what to do.",
                "content": { "application/problem+json": { "schema": reference("Problem") } },
            } },
        },
    })
}

fn reference(kind: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{kind}") })
}

fn operation(call: Call, of: &CallSchema) -> Value {
    let mut parameters: Vec<Value> = of.request.fields.iter().map(|field| parameter(call, field)).collect();
    parameters.push(json!({
        "name": FORMAT,
        "in": "query",
        "description": "How the answer is written; by default as Accept says. CSV comes whole unless page_size is given, \
            and is an error where that is too much.",
        "schema": { "type": "string", "enum": ["json", "csv"] },
    }));
    parameters.push(json!({
        "name": "If-None-Match",
        "in": "header",
        "description": "The ETag of an answer that the caller has.",
        "schema": { "type": "string" },
    }));
    json!({
        "operationId": call.name(),
        "summary": of.comment,
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "The answer.",
                "headers": {
                    "ETag": { "schema": { "type": "string" } },
                    "Link": { "description": "The next page, where there is one.", "schema": { "type": "string" } },
                    "Silkrate-Sequence": { "schema": { "type": "integer" } },
                },
                "content": {
                    "application/json": { "schema": reference(&of.response.name) },
                    "text/csv": { "schema": { "type": "string" } },
                },
            },
            "304": { "description": "The caller has it." },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    })
}

fn parameter(call: Call, field: &FieldSchema) -> Value {
    let kind = question_kind(&field.kind);
    let mut parameter = json!({
        "name": field.name,
        "in": "query",
        "required": call.required().contains(&field.name.as_str()),
        "schema": if field.is_list { json!({ "type": "array", "items": kind }) } else { kind },
    });
    if field.is_list {
        parameter["style"] = json!("form");
        parameter["explode"] = json!(false);
    }
    say(&mut parameter, &field.comment);
    parameter
}

fn say(value: &mut Value, comment: &str) {
    if !comment.is_empty() {
        value["description"] = json!(comment);
    }
}

/// What is taken in a query.
fn question_kind(kind: &Kind) -> Value {
    match kind {
        Kind::Time => json!({
            "description": "RFC 3339, or a date for its start in UTC.",
            "anyOf": [{ "type": "string", "format": "date-time" }, { "type": "string", "format": "date" }],
        }),
        Kind::Length => {
            json!({ "type": "string", "pattern": span_pattern(|span| span.micros().is_ok()), "examples": ["90m", "2d"] })
        }
        Kind::Message(_) => {
            json!({ "type": "string", "pattern": span_pattern(|span| v1::Window::try_from(span).is_ok()), "examples": ["24h", "1mo"] })
        }
        Kind::Enum(of) => taken_kind(of),
        Kind::Bool | Kind::Text | Kind::Int32 | Kind::Int64 | Kind::Unsigned => answer_kind(kind),
    }
}

/// What is taken for an enum: short words where there are some, and the names in the protos.
fn taken_kind(of: &EnumSchema) -> Value {
    let (mut taken, names) = words(&of.name, &of.values);
    taken.extend(names);
    json!({ "type": "string", "enum": taken })
}

/// The kinds of messages that an answer holds, each once.
fn response_kinds(of: &MessageSchema, kinds: &mut BTreeMap<String, Value>) {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in &of.fields {
        let mut kind = field_kind(field);
        say(&mut kind, &field.comment);
        properties.insert(field.name.clone(), kind);
        // The moment of a rate is told only where it was asked for.
        if of.name != "GetRateResponse" || field.name != TIME {
            required.push(field.name.as_str());
        }
        if let Some(inner) = field.kind.message().filter(|inner| !kinds.contains_key(&inner.name)) {
            response_kinds(inner, kinds);
        }
    }
    let mut kind = json!({ "type": "object", "properties": properties, "required": required });
    say(&mut kind, &of.comment);
    kinds.insert(of.name.clone(), kind);
}

/// What a field is written as: null where it may be absent.
fn field_kind(field: &FieldSchema) -> Value {
    let value = answer_kind(&field.kind);
    if field.is_list {
        return json!({ "type": "array", "items": value });
    }
    if field.may_be_absent || matches!(field.kind, Kind::Enum(_)) {
        return json!({ "anyOf": [value, { "type": "null" }] });
    }
    value
}

/// What a value is written as.
fn answer_kind(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Text => json!({ "type": "string" }),
        Kind::Int32 => json!({ "type": "integer", "format": "int32" }),
        Kind::Int64 => json!({ "type": "integer", "format": "int64" }),
        Kind::Unsigned => json!({ "type": "integer", "minimum": 0 }),
        Kind::Time => json!({ "type": "string", "format": "date-time" }),
        Kind::Length => json!({ "type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?s$" }),
        Kind::Enum(of) => json!({ "type": "string", "enum": of.values }),
        Kind::Message(of) => reference(&of.name),
    }
}

fn problem_kind() -> Value {
    json!({
        "type": "object",
        "description": "As RFC 9457 has it.",
        "properties": {
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string", "description": "Names the field, the value and the remedy." },
            "code": { "type": "string", "description": "As gRPC has it." },
            "field": { "type": "string", "description": "The parameter that is wrong." },
            "reason": { "type": "string", "enum": ["NO_QUOTE_YET", "STALE", "UNKNOWN_SERIES"] },
            "retry_after": { "type": "integer", "description": "Seconds." },
        },
        "required": ["title", "status", "detail"],
    })
}

/// What is no call of gRPC.
fn other_paths() -> Map<String, Value> {
    let plain = |summary: &str, ready: bool| {
        let mut responses = json!({ "200": { "description": "Yes.", "content": { "text/plain": { "schema": { "type": "string" } } } } });
        if ready {
            responses["503"] = json!({ "$ref": "#/components/responses/Problem" });
        }
        json!({ "get": { "summary": summary, "responses": responses } })
    };
    let frankfurter = |summary: &str, at: &[(&str, &str)], query: bool| {
        let in_path = at.iter().map(|(name, description)| {
            json!({ "name": name, "in": "path", "required": true, "description": description, "schema": { "type": "string" } })
        });
        let in_query = [
            ("base", "Of which one unit is priced; USD if it is not given."),
            ("symbols", "In which currencies, with commas; all there are if it is not given."),
            ("amount", "Of how many units."),
        ];
        let in_query = in_query.iter().filter(|_| query).map(|(name, description)| {
            json!({ "name": name, "in": "query", "description": description, "schema": { "type": "string" } })
        });
        json!({ "get": {
            "summary": summary,
            "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
            "responses": {
                "200": { "description": "Rates as numbers.", "content": { "application/json": { "schema": { "type": "object" } } } },
                "default": { "$ref": "#/components/responses/Problem" },
            },
        } })
    };
    let day = ("date", "A day, UTC.");
    let (start, end) =
        (("start", "The first day, UTC."), ("end", "The last day, UTC; the present one if it is left out."));
    Map::from_iter([
        ("/healthz".to_owned(), plain("Whether the process lives.", false)),
        ("/readyz".to_owned(), plain("Whether it reads and writes.", true)),
        ("/frankfurter/v1/latest".to_owned(), frankfurter("The latest rates in Frankfurter's shape.", &[], true)),
        ("/frankfurter/v1/{date}".to_owned(), frankfurter("The rates of a day.", &[day], true)),
        ("/frankfurter/v1/{start}..{end}".to_owned(), frankfurter("The rates of each day.", &[start, end], true)),
        ("/frankfurter/v1/currencies".to_owned(), frankfurter("The currencies there are.", &[], false)),
    ])
}
