//! The words of silkrate as types: currencies, pairs, sources, rates, ticks and runs.
//!
//! **Invariant**: every value here was checked when it was made; nothing in this module reads a
//! clock or does I/O.

mod amount;
mod currency;
mod difference;
mod digits;
mod interval;
mod poll;
mod quarantine;
mod rate;
mod ratio_threshold;
mod run;
mod series;
mod span;
mod tick;
mod time;

pub use amount::{Amount, AmountError};
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
pub use series::{Pair, PairError, SeriesKey, Source, SourceError};
pub use span::{LengthError, Span, SpanError, SpanUnit, duration_us, exact_length, parse_length, whole_length};
pub use tick::{PublishedValue, Tick};
pub(crate) use time::truncate_for_display;
pub use time::{Timestamp, TimestampError};
