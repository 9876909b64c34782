//! The documents `/openapi.json` (for programs) and `/v1` (an index for people).
//!
//! **Invariant**: parameters, responses and their descriptions come from the same descriptors as the code that reads
//! requests and writes responses. This file contains only what the protos do not describe.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::calls::FORMAT;
use super::descriptors::{CallSchema, EnumSchema, FieldSchema, Kind, MessageSchema};
use super::parameters::value_names;
use super::schema::{Call, Schema};
use crate::domain::{Span, SpanUnit};
use crate::proto::v1;

/// Returns the regular expression of a span with one of the units that `is_accepted` accepts.
fn span_pattern(is_accepted: impl Fn(Span) -> bool) -> String {
    let units = SpanUnit::ALL.into_iter().filter(|unit| is_accepted(Span::new(1, *unit)));
    let suffixes: Vec<&str> = units.map(SpanUnit::suffix).collect();
    format!("^[1-9][0-9]*({})$", suffixes.join("|"))
}

/// Returns the index of all calls, `/v1`.
pub(super) fn index(schema: &Schema) -> Value {
    let calls = Call::ALL.iter().filter_map(|call| {
        let call_schema = schema.call(*call)?;
        let parameters: Vec<String> = call_schema.request.fields.iter().map(|field| field.name.clone()).collect();
        Some(json!({
            "path": format!("/v1/{}", call.name()),
            "rpc": call.rpc(),
            "does": call_schema.comment,
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

/// Returns the document `/openapi.json`.
pub(super) fn document(schema: &Schema) -> Value {
    let mut schemas = BTreeMap::new();
    let mut paths = Map::new();
    for call in Call::ALL {
        if let Some(call_schema) = schema.call(call) {
            paths.insert(format!("/v1/{}", call.name()), json!({ "get": operation(call, call_schema) }));
            response_schemas(&call_schema.response, &mut schemas);
        }
    }
    paths.extend(other_paths());
    schemas.insert("Problem".to_owned(), problem_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "silkrate",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0" },
            "description": "Exchange rates of Central Asian currencies. Decimals are strings, times are RFC 3339 in \
                UTC, and absent values are null. Responses under /v1 have an ETag that changes with the sequence; send \
                it as If-None-Match. A response to a request with max_age and without time has no ETag, because it \
                depends on the current time.",
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": { "Problem": {
                "description": "The error: what is wrong, in which field, and what to do.",
                "content": { "application/problem+json": { "schema": reference("Problem") } },
            } },
        },
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn operation(call: Call, schema: &CallSchema) -> Value {
    let mut parameters: Vec<Value> = schema.request.fields.iter().map(|field| parameter(call, field)).collect();
    parameters.push(json!({
        "name": FORMAT,
        "in": "query",
        "description": "The format of the response; by default, the Accept header decides. CSV contains all rows \
            unless page_size is given; if there are more rows than the limit of the call, the response is an error.",
        "schema": { "type": "string", "enum": ["json", "csv"] },
    }));
    parameters.push(json!({
        "name": "If-None-Match",
        "in": "header",
        "description": "The ETag of a response that the client has already.",
        "schema": { "type": "string" },
    }));
    json!({
        "operationId": call.name(),
        "summary": schema.comment,
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "The response.",
                "headers": {
                    "ETag": { "schema": { "type": "string" } },
                    "Link": { "description": "The next page, if there is one.", "schema": { "type": "string" } },
                    "Silkrate-Sequence": { "schema": { "type": "integer" } },
                },
                "content": {
                    "application/json": { "schema": reference(&schema.response.name) },
                    "text/csv": { "schema": { "type": "string" } },
                },
            },
            "304": { "description": "The response has not changed; the client has it already." },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    })
}

fn parameter(call: Call, field: &FieldSchema) -> Value {
    let schema = parameter_schema(&field.kind);
    let mut parameter = json!({
        "name": field.name,
        "in": "query",
        "required": call.required().contains(&field.name.as_str()),
        "schema": if field.is_list { json!({ "type": "array", "items": schema }) } else { schema },
    });
    if field.is_list {
        parameter["style"] = json!("form");
        parameter["explode"] = json!(false);
    }
    describe(&mut parameter, &field.comment);
    parameter
}

fn describe(value: &mut Value, comment: &str) {
    if !comment.is_empty() {
        value["description"] = json!(comment);
    }
}

/// Returns the schema of a parameter.
fn parameter_schema(kind: &Kind) -> Value {
    match kind {
        Kind::Time => json!({
            "description": "RFC 3339, or a date, which means the start of that day in UTC.",
            "anyOf": [{ "type": "string", "format": "date-time" }, { "type": "string", "format": "date" }],
        }),
        Kind::Duration => {
            json!({ "type": "string", "pattern": span_pattern(|span| span.micros().is_ok()), "examples": ["90m", "2d"] })
        }
        Kind::Message(_) => {
            json!({ "type": "string", "pattern": span_pattern(|span| v1::Window::try_from(span).is_ok()), "examples": ["24h", "1mo"] })
        }
        Kind::Enum(values) => parameter_enum_schema(values),
        Kind::Bool | Kind::Text | Kind::Int32 | Kind::Int64 | Kind::Unsigned => response_value_schema(kind),
    }
}

/// Returns the schema of an enum parameter: the documented names, then the names in the protos if they differ.
fn parameter_enum_schema(schema: &EnumSchema) -> Value {
    let (mut accepted, names) = value_names(&schema.name, &schema.values);
    accepted.extend(names);
    json!({ "type": "string", "enum": accepted })
}

/// Adds the schemas of a response message and of all messages inside it to `schemas`, each once.
fn response_schemas(message: &MessageSchema, schemas: &mut BTreeMap<String, Value>) {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in &message.fields {
        let mut schema = response_field_schema(field);
        describe(&mut schema, &field.comment);
        properties.insert(field.name.clone(), schema);
        required.push(field.name.as_str());
        if let Some(inner) = field.kind.message().filter(|inner| !schemas.contains_key(&inner.name)) {
            response_schemas(inner, schemas);
        }
    }
    let mut schema = json!({ "type": "object", "properties": properties, "required": required });
    describe(&mut schema, &message.comment);
    schemas.insert(message.name.clone(), schema);
}

/// Returns the schema of a response field. The schema includes null if the field may be absent.
fn response_field_schema(field: &FieldSchema) -> Value {
    let value = response_value_schema(&field.kind);
    if field.is_list {
        return json!({ "type": "array", "items": value });
    }
    if field.may_be_absent || matches!(field.kind, Kind::Enum(_)) {
        return json!({ "anyOf": [value, { "type": "null" }] });
    }
    value
}

/// Returns the schema of a value in a response.
fn response_value_schema(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Text => json!({ "type": "string" }),
        Kind::Int32 => json!({ "type": "integer", "format": "int32" }),
        Kind::Int64 => json!({ "type": "integer", "format": "int64" }),
        Kind::Unsigned => json!({ "type": "integer", "minimum": 0 }),
        Kind::Time => json!({ "type": "string", "format": "date-time" }),
        Kind::Duration => json!({ "type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?s$" }),
        Kind::Enum(schema) => json!({ "type": "string", "enum": schema.values }),
        Kind::Message(schema) => reference(&schema.name),
    }
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "Problem details as defined by RFC 9457.",
        "properties": {
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string", "description": "The field, the value and the remedy." },
            "code": { "type": "string", "description": "The gRPC status code." },
            "field": { "type": "string", "description": "The invalid parameter." },
            "reason": { "type": "string", "enum": ["NO_QUOTE_YET", "STALE", "UNKNOWN_SERIES"] },
            "retry_after": { "type": "integer", "description": "Seconds to wait before a retry." },
        },
        "required": ["title", "status", "detail"],
    })
}

/// Returns the paths that are not gRPC calls: health checks and the Frankfurter API.
fn other_paths() -> Map<String, Value> {
    let health = |summary: &str, may_fail: bool| {
        let mut responses = json!({ "200": { "description": "Healthy.", "content": { "text/plain": { "schema": { "type": "string" } } } } });
        if may_fail {
            responses["503"] = json!({ "$ref": "#/components/responses/Problem" });
        }
        json!({ "get": { "summary": summary, "responses": responses } })
    };
    let frankfurter = |summary: &str, path: &[(&str, &str)], has_query: bool| {
        let in_path = path.iter().map(|(name, description)| {
            json!({ "name": name, "in": "path", "required": true, "description": description, "schema": { "type": "string" } })
        });
        let in_query = [
            ("base", "The base currency: a rate is for one unit of it. USD by default."),
            ("symbols", "The quote currencies of the rates, separated by commas; all currencies by default."),
            ("amount", "The number of units of the base; 1 by default."),
        ];
        let in_query = in_query.iter().filter(|_| has_query).map(|(name, description)| {
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
    let day = ("date", "A day in UTC.");
    let (start, end) = (("start", "The first day in UTC."), ("end", "The last day in UTC; today by default."));
    Map::from_iter([
        ("/healthz".to_owned(), health("Checks that the process is alive.", false)),
        ("/readyz".to_owned(), health("Checks that the server can read and write.", true)),
        ("/frankfurter/v1/latest".to_owned(), frankfurter("The latest rates in Frankfurter's format.", &[], true)),
        ("/frankfurter/v1/{date}".to_owned(), frankfurter("The rates at the end of a day.", &[day], true)),
        (
            "/frankfurter/v1/{start}..{end}".to_owned(),
            frankfurter("The rates of a range of days.", &[start, end], true),
        ),
        ("/frankfurter/v1/currencies".to_owned(), frankfurter("The currencies with rates.", &[], false)),
    ])
}
