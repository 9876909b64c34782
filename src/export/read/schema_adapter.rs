//! Converts columns that have the exported values but other types than the schema. Such types occur when another
//! program rewrites an export.
//!
//! pyarrow writes plain text instead of dictionaries. pandas writes decimals with the fewest possible digits, doubles
//! for small integers with nulls, and no type for a column without values. Spark and older pandas use other time units.
//!
//! **Invariant**: a value is converted exactly, or refused with its row.

use polars::prelude::{
    ArrowDataType, ChunkedArray, Column as FrameColumn, DataType, Int64Type, Int128Type, IntoSeries as _,
    NewChunkedArray as _, PolarsError, PolarsNumericType, Series, TimeUnit, TimeZone, UInt8Type, UInt64Type,
};
use polars_arrow::datatypes::TimeUnit as ArrowTimeUnit;

use super::error::CellProblem;
use crate::export::schema::Kind;

/// Maximum number of digits in a 128-bit decimal.
const DECIMAL_DIGITS_MAX: usize = 38;

/// Why a column cannot be converted.
#[derive(Debug)]
pub(super) enum Problem {
    /// The value at this index is invalid.
    Cell(usize, CellProblem),
    /// The library cannot convert the column.
    Polars(PolarsError),
}

impl From<PolarsError> for Problem {
    fn from(error: PolarsError) -> Self {
        Self::Polars(error)
    }
}

/// Returns true if a column of the Arrow type `found` can be converted to the kind `expected`.
pub(super) fn is_compatible(expected: Kind, found: &ArrowDataType) -> bool {
    if *found == ArrowDataType::Null {
        return true;
    }
    match expected {
        Kind::Name | Kind::Text => *found == ArrowDataType::Utf8View,
        Kind::Time => matches!(found, ArrowDataType::Timestamp(_, Some(_))),
        Kind::Date => *found == ArrowDataType::Date32,
        Kind::Decimal { scale, .. } => matches!(
            found,
            ArrowDataType::Decimal(precision, places)
                if *precision <= DECIMAL_DIGITS_MAX && *places <= usize::from(scale)
        ),
        Kind::Double => *found == ArrowDataType::Float64,
        Kind::Places | Kind::Count | Kind::Micros => matches!(
            found,
            ArrowDataType::Int8
                | ArrowDataType::Int16
                | ArrowDataType::Int32
                | ArrowDataType::Int64
                | ArrowDataType::UInt8
                | ArrowDataType::UInt16
                | ArrowDataType::UInt32
                | ArrowDataType::UInt64
                | ArrowDataType::Float64
        ),
        Kind::Flag => *found == ArrowDataType::Boolean,
    }
}

/// Describes the type that a column must have, for error messages.
pub(super) fn expected_type(expected: Kind) -> String {
    match expected {
        Kind::Name | Kind::Text => "text".to_owned(),
        Kind::Time => "a timestamp with a time zone (UTC), in whole microseconds".to_owned(),
        Kind::Date => "a date".to_owned(),
        Kind::Decimal { precision, scale } => {
            format!("a decimal of at most {scale} places, such as DECIMAL({precision},{scale})")
        }
        Kind::Double => "a double".to_owned(),
        Kind::Places | Kind::Count | Kind::Micros => "a whole number".to_owned(),
        Kind::Flag => "boolean".to_owned(),
    }
}

/// Names an Arrow type as the Arrow documentation does.
#[allow(clippy::wildcard_enum_match_arm, reason = "Arrow has dozens of types; their debug names are readable")]
pub(super) fn type_name(found: &ArrowDataType) -> String {
    match found {
        ArrowDataType::Decimal(precision, scale) => format!("Decimal128({precision}, {scale})"),
        ArrowDataType::Timestamp(unit, None) => {
            let unit = match unit {
                ArrowTimeUnit::Second => "s",
                ArrowTimeUnit::Millisecond => "ms",
                ArrowTimeUnit::Microsecond => "\u{b5}s",
                ArrowTimeUnit::Nanosecond => "ns",
            };
            format!("Timestamp({unit})")
        }
        ArrowDataType::Utf8View => "Utf8".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Converts a column to the kind `expected`. The types must be compatible; see [`is_compatible`].
pub(super) fn converted(column: &FrameColumn, expected: Kind) -> Result<Series, Problem> {
    let series = column.as_materialized_series();
    let wanted = expected.data_type();
    if *series.dtype() == wanted {
        return Ok(series.clone());
    }
    if series.dtype().is_null() {
        return Ok(Series::full_null(series.name().clone(), series.len(), &wanted));
    }
    match expected {
        Kind::Decimal { precision, scale } => decimals(series, precision, scale),
        Kind::Time => times(series),
        Kind::Places => integers::<UInt8Type>(series),
        Kind::Count => integers::<UInt64Type>(series),
        Kind::Micros => integers::<Int64Type>(series),
        Kind::Name | Kind::Text | Kind::Date | Kind::Double | Kind::Flag => Ok(series.clone()),
    }
}

fn decimals(series: &Series, precision: usize, scale: u8) -> Result<Series, Problem> {
    let found = series.decimal()?;
    let missing = usize::from(scale).saturating_sub(found.scale());
    let unit = 10_i128.pow(u32::try_from(missing).unwrap_or(0));
    let widened = |value: i128| value.checked_mul(unit).ok_or(CellProblem::Digits);
    let units = each::<_, Int128Type>(series, found.physical().iter(), widened)?;
    Ok(units.into_decimal_unchecked(precision, usize::from(scale)).into_series())
}

fn times(series: &Series) -> Result<Series, Problem> {
    let found = series.datetime()?;
    let micros = |time: i64| match found.time_unit() {
        TimeUnit::Nanoseconds if time % 1_000 != 0 => Err(CellProblem::Finer),
        TimeUnit::Nanoseconds => Ok(time / 1_000),
        TimeUnit::Microseconds => Ok(time),
        TimeUnit::Milliseconds => time.checked_mul(1_000).ok_or_else(|| CellProblem::Number(time.to_string())),
    };
    let micros = each::<_, Int64Type>(series, found.physical().iter(), micros)?;
    Ok(micros.into_datetime(TimeUnit::Microseconds, Some(TimeZone::UTC)).into_series())
}

fn integers<T: PolarsNumericType>(series: &Series) -> Result<Series, Problem>
where
    T::Native: TryFrom<i128>,
    ChunkedArray<T>: polars::prelude::IntoSeries,
{
    if let Ok(doubles) = series.f64() {
        // A double is a whole number if its shortest decimal form is an integer.
        let whole = |value: f64| {
            let digits = value.to_string();
            let number = digits.parse::<i128>().ok().and_then(|number| T::Native::try_from(number).ok());
            number.ok_or(CellProblem::Number(digits))
        };
        return Ok(each::<_, T>(series, doubles.iter(), whole)?.into_series());
    }
    // Every integer type fits 128 bits.
    let wide = series.cast(&DataType::Int128)?;
    let fitting = |value: i128| T::Native::try_from(value).map_err(|_| CellProblem::Number(value.to_string()));
    Ok(each::<_, T>(series, wide.i128()?.iter(), fitting)?.into_series())
}

/// Converts each value of `series`.
fn each<V, T: PolarsNumericType>(
    series: &Series,
    values: impl Iterator<Item = Option<V>>,
    convert: impl Fn(V) -> Result<T::Native, CellProblem>,
) -> Result<ChunkedArray<T>, Problem> {
    let convert =
        |(at, value): (usize, Option<V>)| value.map(&convert).transpose().map_err(|problem| Problem::Cell(at, problem));
    let converted = values.enumerate().map(convert).collect::<Result<Vec<_>, _>>()?;
    Ok(ChunkedArray::from_slice_options(series.name().clone(), &converted))
}
