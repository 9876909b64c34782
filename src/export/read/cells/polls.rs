//! Rows of a file of poll spans.
//!
//! **Invariant**: a span is read exactly, or refused with the name of the invalid column. The order of the spans is not
//! checked here.

use polars_arrow::array::{PrimitiveArray, Utf8ViewArray};

use super::{BadCell, CellProblem, Frame, Row, SOURCE, number, text, timestamp};
use crate::domain::{Health, PollSpan, Source, truncate_for_display};
use crate::export::schema::{COVERED_UNTIL, FIRST_POLL, HEALTH, LAST_POLL, POLL_COUNT, Part};

/// A poll span and its source.
pub(in super::super) struct NamedPollSpan {
    pub(in super::super) source: Source,
    pub(in super::super) span: PollSpan,
}

/// The columns of a poll span.
pub(in super::super) struct PollCells {
    source: Utf8ViewArray,
    first: PrimitiveArray<i64>,
    last: PrimitiveArray<i64>,
    covered: PrimitiveArray<i64>,
    count: PrimitiveArray<u64>,
    health: Utf8ViewArray,
}

impl Row for NamedPollSpan {
    const WHAT: &'static str = "polls";
    const PART: Part = Part::Polls;
    type Cells = PollCells;

    fn cells(frame: &Frame<'_>) -> Option<PollCells> {
        Some(PollCells {
            source: frame.texts(SOURCE)?,
            first: frame.numbers(FIRST_POLL)?,
            last: frame.numbers(LAST_POLL)?,
            covered: frame.numbers(COVERED_UNTIL)?,
            count: frame.numbers(POLL_COUNT)?,
            health: frame.texts(HEALTH)?,
        })
    }

    fn series(_: &PollCells) -> Option<(&Utf8ViewArray, &Utf8ViewArray)> {
        None
    }

    fn read(cells: &PollCells, at: usize) -> Result<Self, BadCell> {
        let source = Source::parse(text(&cells.source, at, SOURCE)?);
        let name = text(&cells.health, at, HEALTH)?;
        let health = Health::ALL.into_iter().find(|health| health.name() == name);
        let span = PollSpan {
            first_poll_time: timestamp(&cells.first, at, FIRST_POLL)?,
            last_poll_time: timestamp(&cells.last, at, LAST_POLL)?,
            covered_until: timestamp(&cells.covered, at, COVERED_UNTIL)?,
            poll_count: number(&cells.count, at, POLL_COUNT)?,
            health: health.ok_or_else(|| BadCell::new(HEALTH, CellProblem::Health(truncate_for_display(name))))?,
        };
        Ok(Self { source: source.map_err(|problem| BadCell::new(SOURCE, problem))?, span })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_poll_span_names_its_column() {
        let check = |source: &str, health: &str, expect: Result<Health, &str>| {
            let at = |micros: i64| PrimitiveArray::from_vec(vec![micros]);
            let cells = PollCells {
                source: Utf8ViewArray::from_slice_values([source]),
                first: at(1),
                last: at(2),
                covered: at(3),
                count: PrimitiveArray::from_vec(vec![2]),
                health: Utf8ViewArray::from_slice_values([health]),
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
        check("cbu", "well", Err("health is 'well'; it must be ok, silent, refused or unreachable"));
        check(
            "CBU",
            "ok",
            Err(
                "source source 'CBU' is not a slug of 1 to 32 characters from a-z, 0-9 and '-'; write one like timesca",
            ),
        );
    }
}
