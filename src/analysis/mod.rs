//! Arithmetic of rates: derived rates, percent changes, conversions, candles, comparisons, and the bounds of each.
//!
//! **Invariant**: this module is pure arithmetic with exact fractions. It reads no clock, does no I/O and uses no
//! float. A number is rounded only once, in the last step of its computation.

mod bucket;
mod candle;
mod change;
mod compare;
mod conversion;
mod cross;
mod derived;
mod fraction;
mod gap;
mod rounded;
mod rounded_rate;
mod rounding;
mod weighted;

pub use bucket::{Bucket, Buckets, Zone, ZoneError};
pub use candle::{Candle, CandleBounds, CandlePlan, CandlePoint, Candles};
pub use change::{DECIMAL_PLACES_DEFAULT, DECIMAL_PLACES_MAX, PercentChange, absolute_change};
pub use compare::{Apart, ApartStretch, ComparisonSummary, Comparisons, Difference, LAG_DAYS_MAX, Sides, end_stretch};
pub use conversion::{Conversion, product};
pub use cross::{LegInterval, LegRate, Legs, LegsInterval, Merged, MergedLegs, RateBound, RateInterval};
pub use derived::Derived;
pub use gap::{GapReason, GapStretch, ReasonLengths, split_gap};
pub use rounded::Rounded;
pub use rounded_rate::RoundedRate;
pub use rounding::{Rounding, SIGNIFICANT_DIGITS, fixed, significant};
