//! Messages as CSV: a header, and a flat row for each element of the answer's list.
//!
//! **Invariant**: a cell is exact and the same text as in JSON; what is absent is empty. Columns have the names that the
//! command line's CSV has, but for legs, which are columns of their own here and JSON there.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value};
use thiserror::Error;

use super::json::{Json, enum_name, present, text_of};
use super::schema::{Rows, is_value};

const RUN: &str = "silkrate.v1.Run";
const RATE: &str = "silkrate.v1.GetRateResponse";
/// How fields end that hold what a true value lies between.
const BOUNDS: &str = "_bounds";

/// Before the columns of the runs behind a rate, in order.
const LEGS: [&str; 2] = ["leg1", "leg2"];
/// What is told of each.
const LEG_FIELDS: [&str; 4] = ["pair", "source", "rate", "last_observed_time"];

/// Why an answer has no form.
#[derive(Debug, Error)]
pub(super) enum SheetError {
    #[error("csv: {0}")]
    Csv(#[from] csv::Error),
    #[error("csv: {0}")]
    Flush(#[from] std::io::Error),
    #[error("json in a cell: {0}")]
    Json(#[from] serde_json::Error),
}

/// A field on the way from a row to a value.
#[derive(Clone)]
struct Step {
    field: FieldDescriptor,
    /// Which one of a list.
    item: Option<usize>,
}

/// A column, and the way to its value from a row.
struct Column {
    name: String,
    path: Vec<Step>,
}

/// The columns of a row of this kind: the fields of the run in it stand among its own, of a rate within it are told rate
/// and time alone, and of the runs behind a rate what tells one from another.
fn columns(of: &MessageDescriptor, without: &[&'static str]) -> Vec<Column> {
    let mut found = Vec::new();
    // A period says itself when it begins and ends.
    let told: &[&str] = if of.get_field_by_name("period_end_time").is_some() { &["rate"] } else { &["rate", "time"] };
    for field in of.fields().filter(|field| !without.contains(&field.name())) {
        let kind = field.kind();
        match kind.as_message().filter(|_| !field.is_list() && !is_value(&kind)) {
            Some(inner) if inner.full_name() == RUN => {
                found.extend(columns(inner, without).into_iter().map(|column| column.below(&field, None)));
            }
            Some(inner) if inner.full_name() == RATE => {
                let prefix = Some(field.name()).filter(|name| *name != "rate");
                let of_rate = columns(inner, without).into_iter().filter(|column| told.contains(&&*column.name));
                found.extend(of_rate.map(|column| column.below(&field, prefix)));
            }
            // `open_bounds` with `low` and `high` in it makes `open_low` and `open_high`.
            Some(inner) if field.name().ends_with(BOUNDS) => {
                let prefix = field.name().strip_suffix(BOUNDS);
                found.extend(columns(inner, without).into_iter().map(|column| column.below(&field, prefix)));
            }
            Some(_) | None if field.is_list() && is_run(&kind) => found.extend(leg_columns(&field)),
            Some(_) | None => {
                found.push(Column { name: field.name().to_owned(), path: vec![Step { field, item: None }] });
            }
        }
    }
    found
}

fn is_run(kind: &Kind) -> bool {
    kind.as_message().is_some_and(|message| message.full_name() == RUN)
}

/// `leg1_pair`, `leg1_source` and so on, for both legs that there may be.
fn leg_columns(legs: &FieldDescriptor) -> Vec<Column> {
    let columns = LEGS.iter().enumerate().flat_map(|(item, leg)| LEG_FIELDS.iter().map(move |name| (item, leg, name)));
    let columns = columns.filter_map(|(item, leg, name)| {
        let field = legs.kind().as_message()?.get_field_by_name(name)?;
        let path = vec![Step { field: legs.clone(), item: Some(item) }, Step { field, item: None }];
        Some(Column { name: format!("{leg}_{name}"), path })
    });
    columns.collect()
}

impl Column {
    fn below(mut self, outer: &FieldDescriptor, prefix: Option<&str>) -> Self {
        self.path.insert(0, Step { field: outer.clone(), item: None });
        let name = prefix.map_or(self.name.clone(), |prefix| format!("{prefix}_{}", self.name));
        Self { name, ..self }
    }

    fn cell(&self, row: &DynamicMessage, without: &[&'static str]) -> Result<String, SheetError> {
        at(row, &self.path, without)
    }
}

/// The value at the end of a path.
fn at(row: &DynamicMessage, path: &[Step], without: &[&'static str]) -> Result<String, SheetError> {
    let Some((first, rest)) = path.split_first() else { return Ok(String::new()) };
    if rest.is_empty() {
        return cell(row, &first.field, without);
    }
    let value = present(row, &first.field);
    let inner = match (value.as_deref(), first.item) {
        (Some(Value::List(items)), Some(item)) => items.get(item),
        (value, _) => value,
    };
    inner.and_then(Value::as_message).map_or(Ok(String::new()), |inner| at(inner, rest, without))
}

/// One value as text.
fn cell(message: &DynamicMessage, field: &FieldDescriptor, without: &[&'static str]) -> Result<String, SheetError> {
    let Some(value) = present(message, field) else { return Ok(String::new()) };
    Ok(text(&value, &field.kind(), without)?.unwrap_or_default())
}

fn text(value: &Value, kind: &Kind, without: &[&'static str]) -> Result<Option<String>, SheetError> {
    Ok(Some(match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::I32(number) => number.to_string(),
        Value::I64(number) => number.to_string(),
        Value::U32(number) => number.to_string(),
        Value::U64(number) => number.to_string(),
        Value::EnumNumber(number) => return Ok(enum_name(kind, *number)),
        Value::Message(message) => match text_of(message) {
            Some(text) => text,
            None => serde_json::to_string(&Json { message, without })?,
        },
        Value::List(items) if items.iter().any(|item| item.as_str().is_some()) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        }
        Value::List(items) => {
            let messages = items.iter().filter_map(Value::as_message);
            serde_json::to_string(&messages.map(|message| Json { message, without }).collect::<Vec<_>>())?
        }
        Value::F32(_) | Value::F64(_) | Value::Bytes(_) | Value::Map(_) => return Ok(None),
    }))
}

/// The answer `response` to `request` as CSV.
pub(super) fn write(
    rows: Rows,
    request: &DynamicMessage,
    response: &DynamicMessage,
    without: &[&'static str],
) -> Result<Vec<u8>, SheetError> {
    let of = response.descriptor();
    let list = rows.list.and_then(|name| of.get_field_by_name(name));
    let row_kind = list.as_ref().and_then(|list| list.kind().as_message().cloned()).unwrap_or_else(|| of.clone());
    let columns = columns(&row_kind, without);
    let mut csv = csv::Writer::from_writer(Vec::new());
    let head = rows.asked.iter().chain(rows.shared).copied().chain(columns.iter().map(|column| column.name.as_str()));
    csv.write_record(head.chain(rows.before))?;

    let mut fixed = Vec::new();
    for (names, message) in [(rows.asked, request), (rows.shared, response)] {
        for field in names.iter().filter_map(|name| message.descriptor().get_field_by_name(name)) {
            fixed.push(cell(message, &field, without)?);
        }
    }
    let mut write = |row: &DynamicMessage, is_before: bool| -> Result<(), SheetError> {
        let mut cells = fixed.clone();
        for column in &columns {
            cells.push(column.cell(row, without)?);
        }
        cells.extend(rows.before.map(|_| is_before.to_string()));
        Ok(csv.write_record(cells)?)
    };
    let Some(list) = list else {
        write(response, false)?;
        return Ok(csv.into_inner().map_err(csv::IntoInnerError::into_error)?);
    };
    let before = rows.before.and_then(|name| of.get_field_by_name(name)).filter(|field| response.has_field(field));
    if let Some(row) = before.map(|field| response.get_field(&field)).as_deref().and_then(Value::as_message) {
        write(row, true)?;
    }
    for row in response.get_field(&list).as_list().unwrap_or_default().iter().filter_map(Value::as_message) {
        write(row, false)?;
    }
    Ok(csv.into_inner().map_err(csv::IntoInnerError::into_error)?)
}
