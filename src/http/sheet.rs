//! Answers as CSV: a header, and a flat row for each element of the answer's list.
//!
//! **Invariant**: a cell is the text that JSON has, since it is cut out of that; what is absent is empty. Columns have the
//! names that the command line's CSV has, but for legs, which are columns of their own here and JSON there.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use thiserror::Error;

use super::descriptors::MessageSchema;
use super::schema::{Rows, TIME};

const RUN: &str = "Run";
const RATE: &str = "GetRateResponse";
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

/// The fields of an object, each as the JSON that it is.
type Object<'a> = BTreeMap<&'a str, &'a RawValue>;

/// What a field of a row becomes.
enum Part {
    /// A column of this title.
    Cell(String),
    /// The columns of the message that it holds.
    Inner(Vec<Field>),
    /// The columns of the first messages of the list that it holds.
    Items(Vec<Vec<Field>>),
}

/// A field of a row, by its name there.
struct Field {
    name: String,
    part: Part,
}

/// The fields of a row of this kind, those of them that `is_told`: the fields of the run in it stand among its own, of a
/// rate within it are told rate and time alone, and of the runs behind a rate what tells one from another.
fn fields(of: &MessageSchema, prefix: Option<&str>, is_told: &dyn Fn(&str) -> bool) -> Vec<Field> {
    // A period says itself when it begins and ends.
    let of_rate: &[&str] = if of.field("period_end_time").is_some() { &["rate"] } else { &["rate", TIME] };
    let told = of.fields.iter().filter(|field| is_told(&field.name));
    let parts = told.map(|field| {
        let name = field.name.as_str();
        let part = match field.kind.message() {
            Some(inner) if field.is_list && inner.name == RUN => Part::Items(legs(inner)),
            Some(inner) if !field.is_list && inner.name == RUN => Part::Inner(fields(inner, None, is_told)),
            Some(inner) if !field.is_list && inner.name == RATE => {
                let prefix = Some(name).filter(|name| *name != "rate");
                Part::Inner(fields(inner, prefix, &|name| is_told(name) && of_rate.contains(&name)))
            }
            // `open_bounds` with `low` and `high` in it makes `open_low` and `open_high`.
            Some(inner) if !field.is_list && name.ends_with(BOUNDS) => {
                Part::Inner(fields(inner, name.strip_suffix(BOUNDS), is_told))
            }
            Some(_) | None => Part::Cell(prefix.map_or(name.to_owned(), |prefix| format!("{prefix}_{name}"))),
        };
        Field { name: name.to_owned(), part }
    });
    parts.collect()
}

/// `leg1_pair`, `leg1_source` and so on, for both legs that there may be.
fn legs(run: &MessageSchema) -> Vec<Vec<Field>> {
    LEGS.iter().map(|leg| fields(run, Some(leg), &|name| LEG_FIELDS.contains(&name))).collect()
}

/// The titles of all columns, in order.
fn titles<'a>(fields: &'a [Field], found: &mut Vec<&'a str>) {
    for field in fields {
        match &field.part {
            Part::Cell(title) => found.push(title),
            Part::Inner(fields) => titles(fields, found),
            Part::Items(items) => items.iter().for_each(|fields| titles(fields, found)),
        }
    }
}

/// Adds the cells of a row, in the order of [`titles`]; all of them empty if there is none.
fn cells<'a>(fields: &[Field], row: Option<&'a RawValue>, found: &mut Vec<Cow<'a, str>>) -> Result<(), SheetError> {
    let object: Option<Object<'a>> = row.map(|row| serde_json::from_str(row.get())).transpose()?.flatten();
    for field in fields {
        let value = object.as_ref().and_then(|object| object.get(field.name.as_str())).copied();
        match &field.part {
            Part::Cell(_) => found.push(text(value)?),
            Part::Inner(fields) => cells(fields, value, found)?,
            Part::Items(items) => {
                let values = list(value)?;
                for (at, fields) in items.iter().enumerate() {
                    cells(fields, values.get(at).copied(), found)?;
                }
            }
        }
    }
    Ok(())
}

fn list(value: Option<&RawValue>) -> Result<Vec<&RawValue>, SheetError> {
    Ok(value.map_or(Ok(Vec::new()), |value| serde_json::from_str(value.get()))?)
}

/// One value as text: texts without quotes, of a list with commas between them, and other lists and objects as JSON.
fn text(value: Option<&RawValue>) -> Result<Cow<'_, str>, SheetError> {
    let json = value.map_or("null", RawValue::get);
    let quoted = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    Ok(match quoted {
        Some(plain) if !plain.contains('\\') => plain.into(),
        Some(_) => serde_json::from_str::<String>(json)?.into(),
        None if json == "null" => "".into(),
        None if json.starts_with("[\"") => serde_json::from_str::<Vec<String>>(json)?.join(",").into(),
        None => json.into(),
    })
}

/// An answer as CSV. `json` is the answer, `of` its schema, and `asked` the texts of the parameters that each row repeats.
/// `tells_time` says whether the answer says what moment it is for.
pub(super) fn write(
    rows: Rows,
    of: &MessageSchema,
    tells_time: bool,
    asked: &[String],
    json: &[u8],
) -> Result<Vec<u8>, SheetError> {
    let row = rows.list.and_then(|name| of.field(name)).and_then(|field| field.kind.message()).unwrap_or(of);
    let fields = fields(row, None, &|name| tells_time || name != TIME);
    let mut csv = csv::Writer::from_writer(Vec::new());
    let mut head: Vec<&str> = rows.asked.iter().chain(rows.shared).copied().collect();
    titles(&fields, &mut head);
    head.extend(rows.before);
    csv.write_record(head)?;

    let whole: &RawValue = serde_json::from_slice(json)?;
    let answer: Object<'_> = serde_json::from_str(whole.get())?;
    let mut fixed: Vec<Cow<'_, str>> = asked.iter().map(Into::into).collect();
    for name in rows.shared {
        fixed.push(text(answer.get(name).copied())?);
    }
    let mut write = |row: &RawValue, is_before: bool| -> Result<(), SheetError> {
        let mut row_cells = fixed.clone();
        cells(&fields, Some(row), &mut row_cells)?;
        row_cells.extend(rows.before.map(|_| Cow::from(if is_before { "true" } else { "false" })));
        Ok(csv.write_record(row_cells.iter().map(|cell| cell.as_bytes()))?)
    };
    let before = rows.before.and_then(|name| answer.get(name)).filter(|before| before.get() != "null");
    if let Some(before) = before {
        write(before, true)?;
    }
    match rows.list {
        None => write(whole, false)?,
        Some(name) => list(answer.get(name).copied())?.into_iter().try_for_each(|row| write(row, false))?,
    }
    Ok(csv.into_inner().map_err(csv::IntoInnerError::into_error)?)
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;
    use crate::http::schema::{Call, Schema};
    use crate::proto::v1;

    /// The lines of the sheet of an answer.
    fn check(call: Call, asked: &[&str], answer: &impl Serialize, expect: &[&str]) {
        let schema = Schema::new().unwrap();
        let asked: Vec<String> = asked.iter().map(|text| (*text).to_owned()).collect();
        let json = serde_json::to_vec(answer).unwrap();
        let sheet = write(call.rows(), &schema.call(call).unwrap().response, false, &asked, &json).unwrap();
        assert_eq!(String::from_utf8(sheet).unwrap().lines().collect::<Vec<_>>(), expect, "{call:?}");
    }

    fn run(rate: &str) -> v1::Run {
        v1::Run { pair: "KGS/USD".to_owned(), source: "nbkr".to_owned(), rate: rate.to_owned(), ..Default::default() }
    }

    #[test]
    fn an_empty_list_has_the_header_of_its_rows() {
        let header = "pair,source,rate,reported_change_percent,first_observed_time,last_observed_time,observation_count,recorded_time";
        check(Call::History, &[], &v1::ListRunsResponse::default(), &[&format!("{header},baseline")]);
        check(Call::Revisions, &[], &v1::ListRevisionsResponse::default(), &[&format!("{header},superseded_time")]);
    }

    #[test]
    fn the_row_before_the_others_is_marked() {
        let answer =
            v1::ListRunsResponse { runs: vec![run("2"), run("3")], baseline: Some(run("1")), ..Default::default() };
        let expect = [
            "pair,source,rate,reported_change_percent,first_observed_time,last_observed_time,observation_count,recorded_time,baseline",
            "KGS/USD,nbkr,1,,,,0,,true",
            "KGS/USD,nbkr,2,,,,0,,false",
            "KGS/USD,nbkr,3,,,,0,,false",
        ];
        check(Call::History, &[], &answer, &expect);
    }

    #[test]
    fn a_cell_is_the_text_of_json_without_its_escapes() {
        let note = "a \"slip\", of 100 \\ сом";
        let tick = v1::QuarantinedTick { id: 7, note: Some(note.to_owned()), ..Default::default() };
        let expect = [
            "id,pair,source,observed_time,rate,reported_change_percent,rate_in_force,held_time,state,decided_time,note",
            r#"7,,,,,,,,,,"a ""slip"", of 100 \ сом""#,
        ];
        check(Call::Quarantine, &[], &v1::ListQuarantineResponse { ticks: vec![tick], ..Default::default() }, &expect);
    }

    #[test]
    fn legs_and_bounds_have_columns_and_lists_are_json() {
        let rate = v1::GetRateResponse { legs: vec![run("1")], ..Default::default() };
        let expect = [
            "pair,rate,rate_low,rate_high,derivation,leg1_pair,leg1_source,leg1_rate,leg1_last_observed_time,leg2_pair,leg2_source,leg2_rate,leg2_last_observed_time,state,sequence,recorded_time,leg_age_difference",
            "KGS/KZT,,,,,KGS/USD,nbkr,1,,,,,,,0,,",
        ];
        check(Call::Rate, &["KGS/KZT"], &rate, &expect);

        let stretches = vec![v1::GapStretch { reason: v1::GapReason::Refused.into(), ..Default::default() }];
        let gap = v1::Gap { stretches, ..Default::default() };
        let expect = [
            "pair,source,start_time,end_time,open,length,reason,asked_silent_length,refused_length,unreachable_length,not_asked_length,stretches",
            r#",,,,false,,,,,,,"[{""start_time"":null,""end_time"":null,""reason"":""REFUSED""}]""#,
        ];
        check(Call::Gaps, &[], &v1::ListGapsResponse { gaps: vec![gap], ..Default::default() }, &expect);

        let bounds = Some(v1::RateBounds { low: "1".to_owned(), high: "2".to_owned() });
        let candle = v1::Candle { close_bounds: bounds, ..Default::default() };
        let answer = v1::ListCandlesResponse {
            candles: vec![candle],
            derivation: v1::Derivation::Cross.into(),
            ..Default::default()
        };
        let expect = [
            "pair,derivation,start_time,end_time,complete,filled,open,open_time,high,high_time,low,low_time,close,close_time,average,move_count,observation_count,open_low,open_high,high_low,high_high,low_low,low_high,close_low,close_high,average_low,average_high,leg_age_difference",
            "KGS/KZT,CROSS,,,false,false,,,,,,,,,,0,,,,,,,,1,2,,,",
        ];
        check(Call::Candles, &["KGS/KZT"], &answer, &expect);
    }
}
