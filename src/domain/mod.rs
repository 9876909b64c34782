//! The types of the domain: currencies, pairs, sources, decimals, times, ticks and runs.
//!
//! **Invariant**: every value is validated when it is constructed. No code in this module reads a clock or does I/O.

mod age;
mod amount;
mod archive;
mod currency;
mod difference;
mod digits;
mod interval;
mod poll;
mod quarantine;
mod rate;
mod ratio_threshold;
mod run;
mod scan_order;
mod series;
mod span;
mod spreadsheet;
mod text;
mod tick;
mod time;

pub use age::{AGE_STEPS, AgeStep, format_rounded_duration, relative_age};
pub use amount::{Amount, AmountError};
pub use archive::ArchiveDecision;
pub use currency::{Currency, CurrencyError, CurrencySet};
pub use difference::{RateDifference, RateDifferenceError};
pub use digits::DecimalError;
pub use interval::{Interval, IntervalError};
pub use poll::{Health, Poll, PollSpan};
pub use quarantine::{Decision, HeldTick, Note, NoteError, Verdict};
pub use rate::{Rate, RateError, ReportedChange, ReportedChangeError};
pub use ratio_threshold::{RatioThreshold, RatioThresholdError};
pub use run::{RateSpan, Revision, Run};
pub use rust_decimal::Decimal;
pub use scan_order::ScanOrder;
pub use series::{Pair, PairError, SeriesKey, Source, SourceError};
pub use span::{
    DurationError, Span, SpanError, SpanUnit, duration_us, format_duration, format_seconds, parse_duration,
};
pub use spreadsheet::without_formula;
pub use text::is_unprintable;
pub use tick::{PublishedValue, Tick};
pub(crate) use time::truncate_for_display;
pub use time::{Timestamp, TimestampError};
