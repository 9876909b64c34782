//! The columns of a file of polls.
//!
//! **Invariant**: a span is read exactly or refused with its column; whether it follows the one before it is not asked.

use arrow_array::types::{TimestampMicrosecondType, UInt64Type};
use arrow_array::{RecordBatch, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow_schema::DataType;

use super::{BadCell, CellProblem, Column, Row, SOURCE, column, present, primitive, strings, text, time, timestamp};
use crate::domain::{Health, PollSpan, Source, clip};

const FIRST_POLL: &str = "first_poll_time";
const LAST_POLL: &str = "last_poll_time";
const COVERED_UNTIL: &str = "covered_until_time";
const POLL_COUNT: &str = "poll_count";
const HEALTH: &str = "health";

/// A poll span, and whose.
pub(in super::super) struct NamedPollSpan {
    pub(in super::super) source: Source,
    pub(in super::super) span: PollSpan,
}

/// The columns of polls.
pub(in super::super) struct PollCells {
    source: StringArray,
    first: TimestampMicrosecondArray,
    last: TimestampMicrosecondArray,
    covered: TimestampMicrosecondArray,
    count: UInt64Array,
    health: StringArray,
}

impl Row for NamedPollSpan {
    const WHAT: &'static str = "polls";
    const COLUMNS: &'static [Column] = &[
        column(SOURCE, || DataType::Utf8),
        column(FIRST_POLL, time),
        column(LAST_POLL, time),
        column(COVERED_UNTIL, time),
        column(POLL_COUNT, || DataType::UInt64),
        column(HEALTH, || DataType::Utf8),
    ];
    type Cells = PollCells;

    fn cells(batch: &RecordBatch) -> Option<PollCells> {
        Some(PollCells {
            source: strings(batch, SOURCE)?,
            first: primitive::<TimestampMicrosecondType>(batch, FIRST_POLL)?,
            last: primitive::<TimestampMicrosecondType>(batch, LAST_POLL)?,
            covered: primitive::<TimestampMicrosecondType>(batch, COVERED_UNTIL)?,
            count: primitive::<UInt64Type>(batch, POLL_COUNT)?,
            health: strings(batch, HEALTH)?,
        })
    }

    fn series(_: &PollCells) -> Option<(&StringArray, &StringArray)> {
        None
    }

    fn read(cells: &PollCells, at: usize) -> Result<Self, BadCell> {
        let source = Source::parse(text(&cells.source, at, SOURCE)?);
        let said = text(&cells.health, at, HEALTH)?;
        let health = Health::ALL.into_iter().find(|health| health.name() == said);
        present(&cells.count, at, POLL_COUNT)?;
        let span = PollSpan {
            first_poll_time: timestamp(&cells.first, at, FIRST_POLL)?,
            last_poll_time: timestamp(&cells.last, at, LAST_POLL)?,
            covered_until: timestamp(&cells.covered, at, COVERED_UNTIL)?,
            poll_count: cells.count.value(at),
            health: health.ok_or_else(|| BadCell(HEALTH, CellProblem::Health(clip(said))))?,
        };
        Ok(Self { source: source.map_err(|problem| BadCell(SOURCE, problem.into()))?, span })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_or_its_column_named() {
        let check = |source: &str, health: &str, expect: Result<Health, &str>| {
            let at = |micros: i64| TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC");
            let cells = PollCells {
                source: vec![source].into(),
                first: at(1),
                last: at(2),
                covered: at(3),
                count: vec![2].into(),
                health: vec![health].into(),
            };
            match (NamedPollSpan::read(&cells, 0), expect) {
                (Ok(found), Ok(expect)) => {
                    assert_eq!((found.source.as_str(), found.span.health, found.span.poll_count), (source, expect, 2));
                }
                (Err(BadCell(column, problem)), Err(expect)) => assert_eq!(format!("{column} {problem}"), expect),
                (found, _) => panic!("{source} {health}: {}", found.is_ok()),
            }
        };
        for health in Health::ALL {
            check("cbu", health.name(), Ok(health));
        }
        check("cbu", "well", Err("health is 'well'; it is ok, silent, refused or unreachable"));
        check(
            "CBU",
            "ok",
            Err("source source 'CBU' is not a slug of 1 to 32 characters out of a-z, 0-9 and '-', like timesca"),
        );
    }
}
