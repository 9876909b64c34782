//! Responses as CSV: a header line, and one flat row for each element of the response's list.
//!
//! **Invariant**: a cell has the same exact text as in JSON, and the cell of an absent value is empty. Columns have the
//! same names as in the CSV of the command line. Exception: in a response, the legs of a rate have columns; on the
//! command line, they are one cell of JSON.

use std::ops::Range;

use serde::Serialize;
use thiserror::Error;

use super::csv_cells::{CellError, CellWriter, Field, Target};
use super::descriptors::MessageSchema;
use super::schema::{Rows, TIME};

const RUN: &str = "Run";
const LEG: &str = "Leg";
const RATE: &str = "GetRateResponse";
/// The suffix of fields that hold the bounds of a value.
const BOUNDS: &str = "_bounds";

/// Prefixes of the columns of the legs of a rate, in order.
const LEGS: [&str; 2] = ["leg1", "leg2"];
/// The fields of a leg that have columns.
const LEG_FIELDS: [&str; 6] = ["pair", "source", "rate", "last_observed_time", "stale", "archived"];

/// The reason why a response cannot be written as CSV.
#[derive(Debug, Error)]
pub(super) enum CsvError {
    #[error("cannot write CSV: {0}")]
    Csv(#[from] csv::Error),
    #[error("cannot write CSV: {0}")]
    Flush(#[from] std::io::Error),
    #[error("cannot write CSV: {0}")]
    Cell(#[from] CellError),
}

/// The rows of a response.
pub(super) struct Page<'a, R> {
    /// The token of the next page; empty if there is none.
    pub(super) next_page_token: &'a str,
    pub(super) rows: &'a [R],
    /// The baseline. It is the first row of the CSV.
    pub(super) baseline: Option<&'a R>,
}

impl<'a, R> Page<'a, R> {
    pub(super) const fn new(next_page_token: &'a str, rows: &'a [R]) -> Self {
        Self { next_page_token, rows, baseline: None }
    }
}

/// Returns a page with the response itself as the only row.
pub(super) const fn one_row<A>(answer: &A) -> Page<'_, A> {
    Page::new("", std::slice::from_ref(answer))
}

/// The columns of a CSV response.
struct Columns {
    titles: Vec<String>,
    /// The columns of a row. Every row repeats the other columns.
    of_row: Range<usize>,
    /// The cells for the fields of a row.
    row: Target,
    /// The cells for those fields of the response that every row repeats.
    shared: Target,
}

impl Columns {
    fn new(rows: Rows, schema: &MessageSchema) -> Self {
        let mut titles: Vec<String> =
            rows.repeated.iter().flat_map(|repeated| repeated.titles).map(|title| (*title).to_owned()).collect();
        let first = titles.len();
        let row = rows.list.and_then(|name| schema.field(name)).and_then(|field| field.kind.message());
        let row = fields(row.unwrap_or(schema), None, &|_| true, &mut titles);
        let of_row = first..titles.len();
        let shared = fields(schema, None, &|name| rows.shared.contains(&name), &mut titles);
        titles.extend(rows.baseline.map(str::to_owned));
        Self { titles, of_row, row, shared }
    }
}

/// Assigns cells to the fields of a message for which `is_included` returns true, and adds a title for each column.
///
/// The fields of a run inside a row become columns of the row. A rate inside a row has columns only for its rate and
/// time. A leg has columns for [`LEG_FIELDS`].
fn fields(
    schema: &MessageSchema,
    prefix: Option<&str>,
    is_included: &dyn Fn(&str) -> bool,
    titles: &mut Vec<String>,
) -> Target {
    // If a row has a period, its rates have no column for their time, because the columns of the period already state
    // these times.
    let has_period = schema.field("period_end_time").is_some();
    let is_rate_field = |name: &str, prefix: Option<&str>| match name {
        "rate" => true,
        TIME | "derivation" | "legs" | "stale" | "archived" => !has_period,
        // Without a prefix: a row with one rate.
        "date" | "time_zone" => prefix.is_none(),
        _ => false,
    };
    let included = schema.fields.iter().filter(|field| is_included(&field.name));
    let fields = included.map(|field| {
        let name = field.name.as_str();
        let target = match field.kind.message() {
            Some(run) if field.is_list && [RUN, LEG].contains(&run.name.as_str()) => {
                // `leg1_pair`, `leg1_source` and so on, for at most two legs.
                let legs = LEGS.iter().map(|leg| {
                    let leg = prefix.map_or((*leg).to_owned(), |prefix| format!("{prefix}_{leg}"));
                    fields(run, Some(&leg), &|name| LEG_FIELDS.contains(&name), titles)
                });
                Target::Items(legs.collect())
            }
            // The series of all rows: the rows have its pair and source.
            Some(leg) if !field.is_list && leg.name == LEG => {
                fields(leg, None, &|name| ["stale", "archived"].contains(&name), titles)
            }
            Some(run) if !field.is_list && run.name == RUN => fields(run, None, is_included, titles),
            Some(rate) if !field.is_list && rate.name == RATE => {
                let prefix = Some(name).filter(|name| *name != "rate");
                fields(rate, prefix, &|name| is_included(name) && is_rate_field(name, prefix), titles)
            }
            // The fields `low` and `high` of `open_bounds` become the columns `open_low` and `open_high`.
            Some(bounds) if !field.is_list && name.ends_with(BOUNDS) => {
                fields(bounds, name.strip_suffix(BOUNDS), is_included, titles)
            }
            message => {
                titles.push(prefix.map_or(name.to_owned(), |prefix| format!("{prefix}_{name}")));
                let at = titles.len() - 1;
                if message.is_some() { Target::Json(at) } else { Target::Cell(at) }
            }
        };
        Field { name: name.to_owned(), target }
    });
    Target::Inner(fields.collect())
}

/// Writes a response with the given schema as CSV. Each row repeats `repeated`, the values of request parameters.
pub(super) fn write<R: Serialize>(
    rows: Rows,
    schema: &MessageSchema,
    repeated: &[String],
    answer: &impl Serialize,
    page: &Page<'_, R>,
) -> Result<Vec<u8>, CsvError> {
    let columns = Columns::new(rows, schema);
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(&columns.titles)?;

    let mut cells = repeated.to_vec();
    cells.resize(columns.titles.len(), String::new());
    answer.serialize(CellWriter::new(&columns.shared, &mut cells))?;
    let baseline = page.baseline.map(|row| (row, true));
    for (row, is_baseline) in baseline.into_iter().chain(page.rows.iter().map(|row| (row, false))) {
        cells[columns.of_row.clone()].iter_mut().for_each(String::clear);
        row.serialize(CellWriter::new(&columns.row, &mut cells))?;
        if let Some(cell) = cells.last_mut().filter(|_| rows.baseline.is_some()) {
            *cell = is_baseline.to_string();
        }
        csv.write_record(&cells)?;
    }
    Ok(csv.into_inner().map_err(csv::IntoInnerError::into_error)?)
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;
    use crate::http::schema::{Call, Schema};
    use crate::proto::v1;

    /// Asserts the lines of the CSV of a response.
    fn check<R: Serialize>(
        call: Call,
        repeated: &[&str],
        answer: &impl Serialize,
        page: &Page<'_, R>,
        expect: &[&str],
    ) {
        let schema = Schema::new().unwrap();
        let repeated: Vec<String> = repeated.iter().map(|text| (*text).to_owned()).collect();
        let message = &schema.call(call).unwrap().response;
        let csv = write(call.rows(), message, &repeated, answer, page).unwrap();
        assert_eq!(String::from_utf8(csv).unwrap().lines().collect::<Vec<_>>(), expect, "{call:?}");
    }

    fn run(rate: &str) -> v1::Run {
        v1::Run { pair: "KGS/USD".to_owned(), source: "nbkr".to_owned(), rate: rate.to_owned(), ..Default::default() }
    }

    #[test]
    fn empty_list_has_header_of_its_rows() {
        let header = "pair,source,rate,reported_change_percent,first_observed_time,last_observed_time,observation_count,recorded_time";
        let (runs, revisions) = (v1::ListRunsResponse::default(), v1::ListRevisionsResponse::default());
        let expect = format!("{header},stale,archived,baseline");
        check(Call::History, &[], &runs, &Page::new("", &runs.runs), &[&expect]);
        let expect = format!("{header},superseded_time");
        check(Call::Revisions, &[], &revisions, &Page::new("", &revisions.revisions), &[&expect]);
    }

    #[test]
    fn baseline_row_is_first_and_marked() {
        let answer = v1::ListRunsResponse {
            runs: vec![run("2"), run("3")],
            baseline: Some(run("1")),
            leg: Some(v1::Leg { stale: true, ..Default::default() }),
            ..Default::default()
        };
        let expect = [
            "pair,source,rate,reported_change_percent,first_observed_time,last_observed_time,observation_count,recorded_time,stale,archived,baseline",
            "KGS/USD,nbkr,1,,,,0,,true,false,true",
            "KGS/USD,nbkr,2,,,,0,,true,false,false",
            "KGS/USD,nbkr,3,,,,0,,true,false,false",
        ];
        let page = Page { baseline: answer.baseline.as_ref(), ..Page::new("", &answer.runs) };
        check(Call::History, &[], &answer, &page, &expect);
    }

    #[test]
    fn text_cell_is_quoted_as_csv_not_as_json() {
        let note = "a \"slip\", of 100 \\ сом";
        let tick = v1::QuarantinedTick { id: 7, note: Some(note.to_owned()), ..Default::default() };
        let expect = [
            "id,pair,source,observed_time,rate,reported_change_percent,rate_in_force,held_time,state,decided_time,note",
            r#"7,,,,,,,,,,"a ""slip"", of 100 \ сом""#,
        ];
        let answer = v1::ListQuarantineResponse { ticks: vec![tick.clone()], ..Default::default() };
        check(Call::Quarantine, &[], &answer, &Page::new("", &answer.ticks), &expect);
        // A spreadsheet would run a formula. A negative number is none.
        let (note, reported_change_percent) = (Some("=HYPERLINK(1)".to_owned()), Some("-0.57".to_owned()));
        let tick = v1::QuarantinedTick { note, reported_change_percent, ..tick };
        let answer = v1::ListQuarantineResponse { ticks: vec![tick], ..Default::default() };
        let expect = [expect[0], "7,,,,,-0.57,,,,,'=HYPERLINK(1)"];
        check(Call::Quarantine, &[], &answer, &Page::new("", &answer.ticks), &expect);
    }

    #[test]
    fn legs_and_bounds_have_columns_and_other_lists_are_json() {
        let rate = v1::GetRateResponse { legs: vec![run("1")], ..Default::default() };
        let expect = [
            "pair,rate,rate_low,rate_high,derivation,leg1_pair,leg1_source,leg1_rate,leg1_last_observed_time,leg2_pair,leg2_source,leg2_rate,leg2_last_observed_time,state,time,sequence,recorded_time,leg_age_difference,stale,date,time_zone,archived",
            "KGS/KZT,,,,,KGS/USD,nbkr,1,,,,,,,,0,,,false,,,false",
        ];
        check(Call::Rate, &["KGS/KZT"], &rate, &one_row(&rate), &expect);

        let stretches = vec![v1::GapStretch { reason: v1::GapReason::Refused.into(), ..Default::default() }];
        let gap = v1::Gap { stretches, ..Default::default() };
        let expect = [
            "pair,source,start_time,end_time,open,length,reason,asked_silent_length,refused_length,unreachable_length,not_asked_length,stretches",
            r#",,,,false,,,,,,,"[{""start_time"":null,""end_time"":null,""reason"":""REFUSED""}]""#,
        ];
        let answer = v1::ListGapsResponse { gaps: vec![gap], ..Default::default() };
        check(Call::Gaps, &[], &answer, &Page::new("", &answer.gaps), &expect);

        let bounds = Some(v1::RateBounds { low: "1".to_owned(), high: "2".to_owned() });
        let candle = v1::Candle { close_bounds: bounds, ..Default::default() };
        let leg = |pair: &str| v1::Leg { pair: pair.to_owned(), source: "nbkr".to_owned(), ..Default::default() };
        let answer = v1::ListCandlesResponse {
            candles: vec![candle],
            derivation: v1::Derivation::Cross.into(),
            legs: vec![leg("KGS/USD"), leg("USD/KZT")],
            time_zone: "UTC".to_owned(),
            ..Default::default()
        };
        let expect = [
            "pair,start_time,end_time,complete,filled,open,open_time,high,high_time,low,low_time,close,close_time,average,move_count,observation_count,open_low,open_high,high_low,high_high,low_low,low_high,close_low,close_high,average_low,average_high,leg_age_difference,start_date,derivation,leg1_pair,leg1_source,leg1_stale,leg1_archived,leg2_pair,leg2_source,leg2_stale,leg2_archived,time_zone",
            "KGS/KZT,,,false,false,,,,,,,,,,0,,,,,,,,1,2,,,,,CROSS,KGS/USD,nbkr,false,false,USD/KZT,nbkr,false,false,UTC",
        ];
        check(Call::Candles, &["KGS/KZT"], &answer, &Page::new("", &answer.candles), &expect);
    }
}
