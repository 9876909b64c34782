//! Collects rows into data frames.
//!
//! **Invariant**: a frame has the columns of its part, with the types of the schema, in one chunk each.

use std::fmt;

use polars::prelude::{
    BooleanChunkedBuilder, Categorical32Chunked, ChunkedBuilder as _, Column as FrameColumn, DataFrame, Float64Type,
    Int32Type, Int64Type, Int128Type, IntoColumn as _, PolarsResult, PrimitiveChunkedBuilder, StringChunkedBuilder,
    TimeUnit, TimeZone, UInt8Type, UInt32Type, UInt64Type,
};

use super::names::Names;
use super::row::Cells;
use super::schema::{CHANGE_SCALE, Column, Kind, RATE_SCALE};
use crate::domain::{ReportedChange, Timestamp};

/// Collects rows cell by cell into the columns of a frame.
pub(super) struct FrameBuilder {
    columns: &'static [Column],
    builders: Vec<Builder>,
    /// Maximum number of rows.
    capacity: usize,
    /// Index of the next cell's column.
    at: usize,
    rows: usize,
}

/// The values of one column.
enum Builder {
    Name(PrimitiveChunkedBuilder<UInt32Type>),
    Text(StringChunkedBuilder),
    Time(PrimitiveChunkedBuilder<Int64Type>),
    Date(PrimitiveChunkedBuilder<Int32Type>),
    Decimal { units: PrimitiveChunkedBuilder<Int128Type>, precision: usize, scale: u8 },
    Double(PrimitiveChunkedBuilder<Float64Type>),
    Places(PrimitiveChunkedBuilder<UInt8Type>),
    Count(PrimitiveChunkedBuilder<UInt64Type>),
    Micros(PrimitiveChunkedBuilder<Int64Type>),
    Flag(BooleanChunkedBuilder),
}

impl Builder {
    fn new(column: &Column, capacity: usize) -> Self {
        let name = column.name.into();
        match column.kind {
            Kind::Name => Self::Name(PrimitiveChunkedBuilder::new(name, capacity)),
            Kind::Text => Self::Text(StringChunkedBuilder::new(name, capacity)),
            Kind::Time => Self::Time(PrimitiveChunkedBuilder::new(name, capacity)),
            Kind::Date => Self::Date(PrimitiveChunkedBuilder::new(name, capacity)),
            Kind::Decimal { precision, scale } => {
                Self::Decimal { units: PrimitiveChunkedBuilder::new(name, capacity), precision, scale }
            }
            Kind::Double => Self::Double(PrimitiveChunkedBuilder::new(name, capacity)),
            Kind::Places => Self::Places(PrimitiveChunkedBuilder::new(name, capacity)),
            Kind::Count => Self::Count(PrimitiveChunkedBuilder::new(name, capacity)),
            Kind::Micros => Self::Micros(PrimitiveChunkedBuilder::new(name, capacity)),
            Kind::Flag => Self::Flag(BooleanChunkedBuilder::new(name, capacity)),
        }
    }

    fn finish(self, column: &Column, names: &Names) -> FrameColumn {
        match self {
            Self::Name(numbers) => {
                let data_type = names.list(column).data_type().clone();
                Categorical32Chunked::from_cats_and_dtype(numbers.finish(), data_type).into_column()
            }
            Self::Text(texts) => texts.finish().into_column(),
            Self::Time(times) => {
                times.finish().into_datetime(TimeUnit::Microseconds, Some(TimeZone::UTC)).into_column()
            }
            Self::Date(days) => days.finish().into_date().into_column(),
            // The types of rates and changes guarantee units below 10^38, so no check is needed.
            Self::Decimal { units, precision, scale } => {
                units.finish().into_decimal_unchecked(precision, usize::from(scale)).into_column()
            }
            Self::Double(doubles) => doubles.finish().into_column(),
            Self::Places(places) => places.finish().into_column(),
            Self::Count(counts) => counts.finish().into_column(),
            Self::Micros(micros) => micros.finish().into_column(),
            Self::Flag(flags) => flags.finish().into_column(),
        }
    }
}

impl FrameBuilder {
    /// Creates a builder for frames of at most `capacity` rows.
    pub(super) fn new(columns: &'static [Column], capacity: usize) -> Self {
        let builders = columns.iter().map(|column| Builder::new(column, capacity)).collect();
        Self { columns, builders, capacity, at: 0, rows: 0 }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows >= self.capacity
    }

    /// Ends the current row after its last cell.
    pub(super) fn end_row(&mut self) {
        debug_assert_eq!(self.at, self.columns.len(), "a row must have one cell for each column");
        self.at = 0;
        self.rows += 1;
    }

    /// Takes the collected rows as a frame and clears the builder.
    ///
    /// # Errors
    /// Never fails in practice, because all columns have the same number of values.
    pub(super) fn take(&mut self, names: &Names) -> PolarsResult<DataFrame> {
        let empty = Self::new(self.columns, self.capacity);
        let Self { columns, builders, rows, .. } = std::mem::replace(self, empty);
        let columns = columns.iter().zip(builders).map(|(column, builder)| builder.finish(column, names));
        DataFrame::new(rows, columns.collect())
    }

    /// Returns the builder for the next cell and advances to the column after it.
    fn next(&mut self) -> Option<&mut Builder> {
        self.at += 1;
        self.builders.get_mut(self.at - 1)
    }
}

/// Appends a value to the next column. A cell of another kind than its column is a bug in `row.rs`, which tests detect.
macro_rules! push {
    ($self:ident, $kind:pat => $push:expr) => {
        match $self.next() {
            Some($kind) => $push,
            _ => debug_assert!(false, "column {} has another kind", $self.columns[$self.at - 1].name),
        }
    };
}

impl Cells for FrameBuilder {
    fn name(&mut self, number: u32) {
        push!(self, Builder::Name(numbers) => numbers.append_value(number));
    }

    fn text(&mut self, text: Option<&str>) {
        push!(self, Builder::Text(texts) => texts.append_option(text));
    }

    fn time(&mut self, time: Option<Timestamp>) {
        push!(self, Builder::Time(times) => times.append_option(time.map(Timestamp::micros)));
    }

    fn date(&mut self, day: i32) {
        push!(self, Builder::Date(days) => days.append_value(day));
    }

    fn decimal(&mut self, mantissa: u128, places: u8, _: &impl fmt::Display) {
        push!(self, Builder::Decimal { units, .. } => units.append_value(scaled(mantissa, RATE_SCALE, places)));
    }

    fn change(&mut self, change: Option<ReportedChange>) {
        push!(self, Builder::Decimal { units, .. } => units.append_option(change.map(change_units)));
    }

    fn double(&mut self, double: f64) {
        push!(self, Builder::Double(doubles) => doubles.append_value(double));
    }

    fn places(&mut self, places: Option<u8>) {
        push!(self, Builder::Places(all) => all.append_option(places));
    }

    fn count(&mut self, count: u64) {
        push!(self, Builder::Count(counts) => counts.append_value(count));
    }

    fn micros(&mut self, micros: i64) {
        push!(self, Builder::Micros(all) => all.append_value(micros));
    }

    fn flag(&mut self, flag: Option<bool>) {
        push!(self, Builder::Flag(flags) => flags.append_option(flag));
    }
}

/// Converts a change to units of 10^-12. `-0` becomes 0, which is why the sign has its own column.
fn change_units(change: ReportedChange) -> i128 {
    let units = scaled(u128::from(change.mantissa()), CHANGE_SCALE, change.places());
    if change.is_negative() { -units } else { units }
}

/// Converts `mantissa / 10^places` to units of `10^-scale`.
fn scaled(mantissa: u128, scale: u8, places: u8) -> i128 {
    /// Powers of ten for every scale in use.
    const POWERS: [u128; 19] = {
        let mut powers = [1; 19];
        let mut at = 1;
        while at < powers.len() {
            powers[at] = powers[at - 1] * 10;
            at += 1;
        }
        powers
    };
    let power = POWERS.get(usize::from(scale.saturating_sub(places))).copied().unwrap_or(1);
    // The types of rates and changes guarantee units below 10^38.
    i128::try_from(mantissa.saturating_mul(power)).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Rate;

    #[test]
    fn rates_scale_exactly_at_both_ends_of_the_range() {
        let check = |text: &str, units: i128| {
            let rate = Rate::parse(text).unwrap();
            assert_eq!(scaled(rate.mantissa(), RATE_SCALE, rate.places()), units, "{text}");
        };
        check("0.01144", 11_440_000_000_000_000);
        check("0.28490", 284_900_000_000_000_000);
        check("0.000000000000000001", 1);
        check("12345678901234567890.12345678", 12_345_678_901_234_567_890_123_456_780_000_000_000);
        check("99999999999999999999.99999999", 99_999_999_999_999_999_999_999_999_990_000_000_000);
        check("9007199254740993", 9_007_199_254_740_993_000_000_000_000_000_000);
    }

    #[test]
    fn reported_change_of_minus_zero_keeps_its_sign() {
        let check = |text: &str, units: i128, places: u8, negative: bool| {
            let change = ReportedChange::parse(text).unwrap();
            assert_eq!((change_units(change), change.places(), change.is_negative()), (units, places, negative));
        };
        check("-0", 0, 0, true);
        check("-0.00", 0, 2, true);
        check("0", 0, 0, false);
        check("-1.50", -1_500_000_000_000, 2, true);
        check("999999999999", 999_999_999_999_000_000_000_000, 0, false);
        check("0.000000000001", 1, 12, false);
    }
}
