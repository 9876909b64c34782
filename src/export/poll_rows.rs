//! Poll spans by column, on their way into Arrow or CSV.
//!
//! **Invariant**: a row is a span of one source; what the polls of a source found reads in order of time.

use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, TimestampMicrosecondArray, UInt64Array};
use arrow_schema::DataType;

use super::layout::time_type;
use crate::domain::{PollSpan, Source, Timestamp};

/// A column that only polls have; that of the source is read like any other's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PollColumn {
    Source,
    FirstPoll,
    LastPoll,
    CoveredUntil,
    PollCount,
    Health,
}

impl PollColumn {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::FirstPoll => "first_poll_time",
            Self::LastPoll => "last_poll_time",
            Self::CoveredUntil => "covered_until_time",
            Self::PollCount => "poll_count",
            Self::Health => "health",
        }
    }

    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Source | Self::Health => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            Self::FirstPoll | Self::LastPoll | Self::CoveredUntil => time_type(),
            Self::PollCount => DataType::UInt64,
        }
    }
}

/// Rows of polls.
#[derive(Default)]
pub(super) struct PollRows(Vec<(Source, PollSpan)>);

impl PollRows {
    pub(super) fn push(&mut self, source: &Source, span: PollSpan) {
        self.0.push((source.clone(), span));
    }

    pub(super) fn array(&self, column: PollColumn) -> ArrayRef {
        let times = |time: fn(&PollSpan) -> Timestamp| -> ArrayRef {
            let times: Vec<i64> = self.0.iter().map(|(_, span)| time(span).micros()).collect();
            Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
        };
        match column {
            PollColumn::Source => {
                let sources = self.0.iter().map(|(source, _)| source.as_str());
                Arc::new(sources.collect::<DictionaryArray<Int32Type>>())
            }
            PollColumn::FirstPoll => times(|span| span.first_poll_time),
            PollColumn::LastPoll => times(|span| span.last_poll_time),
            PollColumn::CoveredUntil => times(|span| span.covered_until),
            PollColumn::PollCount => Arc::new(self.0.iter().map(|(_, span)| span.poll_count).collect::<UInt64Array>()),
            PollColumn::Health => {
                let healths = self.0.iter().map(|(_, span)| span.health.name());
                Arc::new(healths.collect::<DictionaryArray<Int32Type>>())
            }
        }
    }

    /// As text; of a row that is there.
    pub(super) fn cell(&self, column: PollColumn, row: usize) -> String {
        let (source, span) = &self.0[row];
        match column {
            PollColumn::Source => source.to_string(),
            PollColumn::FirstPoll => span.first_poll_time.to_string(),
            PollColumn::LastPoll => span.last_poll_time.to_string(),
            PollColumn::CoveredUntil => span.covered_until.to_string(),
            PollColumn::PollCount => span.poll_count.to_string(),
            PollColumn::Health => span.health.to_string(),
        }
    }
}
