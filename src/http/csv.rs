//! Answers as CSV: a header, and a flat row for each element of the answer's list.
//!
//! **Invariant**: a cell is exact and the same text as in JSON; what is absent is empty. Columns have the names that the
//! command line's CSV has, but for legs, which are columns of their own here and JSON there.

use serde::Serialize;
use thiserror::Error;

use super::csv_cells::{CellError, Field, Filler, Part};
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
pub(super) enum CsvError {
    #[error("csv: {0}")]
    Csv(#[from] csv::Error),
    #[error("csv: {0}")]
    Flush(#[from] std::io::Error),
    #[error("csv: {0}")]
    Cell(#[from] CellError),
}

/// The rows of an answer.
pub(super) struct Page<'a, R> {
    /// Of the page after it; empty if there is none.
    pub(super) next_page_token: &'a str,
    pub(super) rows: &'a [R],
    /// The row that goes before them, if there is one.
    pub(super) before: Option<&'a R>,
}

impl<'a, R> Page<'a, R> {
    pub(super) const fn new(next_page_token: &'a str, rows: &'a [R]) -> Self {
        Self { next_page_token, rows, before: None }
    }
}

/// Of an answer that is the one row.
pub(super) const fn one_row<A>(answer: &A) -> Page<'_, A> {
    Page::new("", std::slice::from_ref(answer))
}

/// The columns of a sheet.
struct Columns {
    titles: Vec<String>,
    /// How many of them are the same in each row.
    fixed: usize,
    /// Where the fields of the answer go that are in each row.
    shared: Part,
    /// Where the fields of a row go.
    row: Part,
}

impl Columns {
    fn new(rows: Rows, of: &MessageSchema, tells_time: bool) -> Self {
        let mut titles: Vec<String> = rows.asked.iter().map(|name| (*name).to_owned()).collect();
        let shared = rows.shared.iter().map(|name| {
            titles.push((*name).to_owned());
            Field { name: (*name).to_owned(), part: Part::Cell(titles.len() - 1) }
        });
        let shared = Part::Inner(shared.collect());
        let fixed = titles.len();
        let row = rows.list.and_then(|name| of.field(name)).and_then(|field| field.kind.message()).unwrap_or(of);
        let row = fields(row, None, &|name| tells_time || name != TIME, &mut titles);
        titles.extend(rows.before.map(str::to_owned));
        Self { titles, fixed, shared, row }
    }
}

/// Where the fields of a message go, those of them that `is_told`, with a title for each column: the fields of the run in
/// a row stand among its own, of a rate within it are told rate and time alone, and of the runs behind a rate what tells
/// one from another.
fn fields(of: &MessageSchema, prefix: Option<&str>, is_told: &dyn Fn(&str) -> bool, titles: &mut Vec<String>) -> Part {
    // A period says itself when it begins and ends.
    let of_rate: &[&str] = if of.field("period_end_time").is_some() { &["rate"] } else { &["rate", TIME] };
    let told = of.fields.iter().filter(|field| is_told(&field.name));
    let parts = told.map(|field| {
        let name = field.name.as_str();
        let part = match field.kind.message() {
            Some(run) if field.is_list && run.name == RUN => {
                // `leg1_pair`, `leg1_source` and so on, for both legs that there may be.
                let leg = |leg: &&str| fields(run, Some(leg), &|name| LEG_FIELDS.contains(&name), titles);
                Part::Items(LEGS.iter().map(leg).collect())
            }
            Some(run) if !field.is_list && run.name == RUN => fields(run, None, is_told, titles),
            Some(rate) if !field.is_list && rate.name == RATE => {
                let prefix = Some(name).filter(|name| *name != "rate");
                fields(rate, prefix, &|name| is_told(name) && of_rate.contains(&name), titles)
            }
            // `open_bounds` with `low` and `high` in it makes `open_low` and `open_high`.
            Some(bounds) if !field.is_list && name.ends_with(BOUNDS) => {
                fields(bounds, name.strip_suffix(BOUNDS), is_told, titles)
            }
            message => {
                titles.push(prefix.map_or(name.to_owned(), |prefix| format!("{prefix}_{name}")));
                let at = titles.len() - 1;
                if message.is_some() { Part::Json(at) } else { Part::Cell(at) }
            }
        };
        Field { name: name.to_owned(), part }
    });
    Part::Inner(parts.collect())
}

/// An answer, whose schema is `of`, as CSV. `asked` are the texts of the parameters that each row repeats; `tells_time` says
/// whether the answer says what moment it is for.
pub(super) fn write<R: Serialize>(
    rows: Rows,
    of: &MessageSchema,
    tells_time: bool,
    asked: &[String],
    answer: &impl Serialize,
    page: &Page<'_, R>,
) -> Result<Vec<u8>, CsvError> {
    let columns = Columns::new(rows, of, tells_time);
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(&columns.titles)?;

    let mut cells = asked.to_vec();
    cells.resize(columns.titles.len(), String::new());
    answer.serialize(Filler::new(&columns.shared, &mut cells))?;
    let before = page.before.map(|row| (row, true));
    for (row, is_before) in before.into_iter().chain(page.rows.iter().map(|row| (row, false))) {
        cells[columns.fixed..].iter_mut().for_each(String::clear);
        row.serialize(Filler::new(&columns.row, &mut cells))?;
        if let Some(cell) = cells.last_mut().filter(|_| rows.before.is_some()) {
            *cell = is_before.to_string();
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

    /// The lines of the sheet of an answer.
    fn check<R: Serialize>(call: Call, asked: &[&str], answer: &impl Serialize, page: &Page<'_, R>, expect: &[&str]) {
        let schema = Schema::new().unwrap();
        let asked: Vec<String> = asked.iter().map(|text| (*text).to_owned()).collect();
        let of = &schema.call(call).unwrap().response;
        let sheet = write(call.rows(), of, false, &asked, answer, page).unwrap();
        assert_eq!(String::from_utf8(sheet).unwrap().lines().collect::<Vec<_>>(), expect, "{call:?}");
    }

    fn run(rate: &str) -> v1::Run {
        v1::Run { pair: "KGS/USD".to_owned(), source: "nbkr".to_owned(), rate: rate.to_owned(), ..Default::default() }
    }

    #[test]
    fn an_empty_list_has_the_header_of_its_rows() {
        let header = "pair,source,rate,reported_change_percent,first_observed_time,last_observed_time,observation_count,recorded_time";
        let (runs, revisions) = (v1::ListRunsResponse::default(), v1::ListRevisionsResponse::default());
        check(Call::History, &[], &runs, &Page::new("", &runs.runs), &[&format!("{header},baseline")]);
        let expect = format!("{header},superseded_time");
        check(Call::Revisions, &[], &revisions, &Page::new("", &revisions.revisions), &[&expect]);
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
        let page = Page { before: answer.baseline.as_ref(), ..Page::new("", &answer.runs) };
        check(Call::History, &[], &answer, &page, &expect);
    }

    #[test]
    fn a_cell_is_quoted_as_csv_has_it_and_not_as_json_has_it() {
        let note = "a \"slip\", of 100 \\ сом";
        let tick = v1::QuarantinedTick { id: 7, note: Some(note.to_owned()), ..Default::default() };
        let expect = [
            "id,pair,source,observed_time,rate,reported_change_percent,rate_in_force,held_time,state,decided_time,note",
            r#"7,,,,,,,,,,"a ""slip"", of 100 \ сом""#,
        ];
        let answer = v1::ListQuarantineResponse { ticks: vec![tick], ..Default::default() };
        check(Call::Quarantine, &[], &answer, &Page::new("", &answer.ticks), &expect);
    }

    #[test]
    fn legs_and_bounds_have_columns_and_lists_are_json() {
        let rate = v1::GetRateResponse { legs: vec![run("1")], ..Default::default() };
        let expect = [
            "pair,rate,rate_low,rate_high,derivation,leg1_pair,leg1_source,leg1_rate,leg1_last_observed_time,leg2_pair,leg2_source,leg2_rate,leg2_last_observed_time,state,sequence,recorded_time,leg_age_difference",
            "KGS/KZT,,,,,KGS/USD,nbkr,1,,,,,,,0,,",
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
        let answer = v1::ListCandlesResponse {
            candles: vec![candle],
            derivation: v1::Derivation::Cross.into(),
            ..Default::default()
        };
        let expect = [
            "pair,derivation,start_time,end_time,complete,filled,open,open_time,high,high_time,low,low_time,close,close_time,average,move_count,observation_count,open_low,open_high,high_low,high_high,low_low,low_high,close_low,close_high,average_low,average_high,leg_age_difference",
            "KGS/KZT,CROSS,,,false,false,,,,,,,,,,0,,,,,,,,1,2,,,",
        ];
        check(Call::Candles, &["KGS/KZT"], &answer, &Page::new("", &answer.candles), &expect);
    }
}
