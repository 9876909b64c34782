//! Types of columns that are not quite those that silkrate writes, but hold the same: what other programs make of an
//! export when they write it anew.
//!
//! pyarrow writes texts for dictionaries, pandas a decimal of as few digits as there are, a double for small integers of
//! which some are absent, and no type at all for a column without a value; Spark and older pandas count time in other
//! units.
//!
//! **Invariant**: a value is converted exactly or refused with its row.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Decimal128Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array as _, ArrayRef, ArrowPrimitiveType, PrimitiveArray, StringArray, new_null_array};
use arrow_schema::DataType;

use super::error::CellProblem;

/// Why the value at an index cannot be converted.
type Problem = (usize, CellProblem);

/// Whether columns of the type `found` can be read as `expected`.
pub(super) fn accepts(expected: &DataType, found: &DataType) -> bool {
    if expected == found || *found == DataType::Null {
        return true;
    }
    if let DataType::Decimal128(_, scale) = expected {
        return matches!(found, DataType::Decimal128(_, found) if (0..=*scale).contains(found));
    }
    if let DataType::Timestamp(_, _) = expected {
        return matches!(found, DataType::Timestamp(_, Some(_)));
    }
    if *expected == DataType::Utf8 {
        return matches!(found, DataType::LargeUtf8 | DataType::Utf8View);
    }
    expected.is_integer() && (found.is_integer() || *found == DataType::Float64)
}

/// What a column must be, for whoever writes one.
pub(super) fn wanted(expected: &DataType) -> String {
    if let DataType::Decimal128(precision, scale) = expected {
        return format!("a decimal of at most {scale} places, such as DECIMAL({precision},{scale})");
    }
    if let DataType::Timestamp(_, _) = expected {
        return "a timestamp with a time zone (UTC), in whole microseconds".to_owned();
    }
    let words = match () {
        () if *expected == DataType::Utf8 => "text",
        () if *expected == DataType::Boolean => "boolean",
        () => "a whole number",
    };
    words.to_owned()
}

/// A column as `expected`, which accepts its type.
pub(super) fn converted(array: &ArrayRef, expected: &DataType) -> Result<ArrayRef, Problem> {
    if array.data_type() == expected {
        return Ok(Arc::clone(array));
    }
    if *array.data_type() == DataType::Null {
        return Ok(new_null_array(expected, array.len()));
    }
    if let DataType::Decimal128(_, scale) = expected {
        return decimals(array, *scale, expected);
    }
    if let DataType::Timestamp(_, _) = expected {
        return times(array);
    }
    match () {
        () if *expected == DataType::Utf8 => Ok(texts(array)),
        () if *expected == DataType::UInt8 => integers::<UInt8Type>(array),
        () if *expected == DataType::UInt64 => integers::<UInt64Type>(array),
        () if *expected == DataType::Int64 => integers::<Int64Type>(array),
        () => Ok(Arc::clone(array)),
    }
}

fn texts(array: &ArrayRef) -> ArrayRef {
    if let Some(texts) = array.as_string_opt::<i64>() {
        return Arc::new(texts.iter().collect::<StringArray>());
    }
    if let Some(texts) = array.as_string_view_opt() {
        return Arc::new(texts.iter().collect::<StringArray>());
    }
    Arc::clone(array)
}

fn decimals(array: &ArrayRef, scale: i8, expected: &DataType) -> Result<ArrayRef, Problem> {
    let (Some(found), DataType::Decimal128(_, found_scale)) =
        (array.as_primitive_opt::<Decimal128Type>(), array.data_type())
    else {
        return Ok(Arc::clone(array));
    };
    let unit = 10_i128.pow(u32::from(scale.saturating_sub(*found_scale).unsigned_abs()));
    let array: PrimitiveArray<Decimal128Type> =
        each(found.iter(), |value| value.checked_mul(unit).ok_or(CellProblem::Digits))?;
    Ok(Arc::new(array.with_data_type(expected.clone())))
}

fn times(array: &ArrayRef) -> Result<ArrayRef, Problem> {
    let array: PrimitiveArray<TimestampMicrosecondType> =
        if let Some(millis) = array.as_primitive_opt::<TimestampMillisecondType>() {
            let fits = |millis: i64| millis.checked_mul(1_000).ok_or_else(|| CellProblem::Number(millis.to_string()));
            each(millis.iter(), fits)?
        } else if let Some(nanos) = array.as_primitive_opt::<TimestampNanosecondType>() {
            each(nanos.iter(), |nanos| if nanos % 1_000 == 0 { Ok(nanos / 1_000) } else { Err(CellProblem::Finer) })?
        } else if let Some(micros) = array.as_primitive_opt::<TimestampMicrosecondType>() {
            micros.clone()
        } else {
            return Ok(Arc::clone(array));
        };
    Ok(Arc::new(array.with_timezone("UTC")))
}

fn integers<T: ArrowPrimitiveType>(array: &ArrayRef) -> Result<ArrayRef, Problem>
where
    T::Native: TryFrom<i128>,
{
    if let Some(doubles) = array.as_primitive_opt::<Float64Type>() {
        // Its shortest digits are those of a whole number, or it is none.
        let whole = |value: f64| {
            let digits = value.to_string();
            let number = digits.parse::<i128>().ok().and_then(|number| T::Native::try_from(number).ok());
            number.ok_or(CellProblem::Number(digits))
        };
        return Ok(Arc::new(each::<_, T>(doubles.iter(), whole)?));
    }
    let fitting = |value: i128| T::Native::try_from(value).map_err(|_| CellProblem::Number(value.to_string()));
    match wide(array) {
        Some(numbers) => Ok(Arc::new(each::<_, T>(numbers.into_iter(), fitting)?)),
        None => Ok(Arc::clone(array)),
    }
}

/// Integers of any type.
fn wide(array: &ArrayRef) -> Option<Vec<Option<i128>>> {
    fn of<T: ArrowPrimitiveType>(array: &ArrayRef) -> Option<Vec<Option<i128>>>
    where
        T::Native: Into<i128>,
    {
        Some(array.as_primitive_opt::<T>()?.iter().map(|value| value.map(Into::into)).collect())
    }
    let ways = [
        of::<Int8Type>,
        of::<Int16Type>,
        of::<Int32Type>,
        of::<Int64Type>,
        of::<UInt8Type>,
        of::<UInt16Type>,
        of::<UInt32Type>,
        of::<UInt64Type>,
    ];
    ways.iter().find_map(|way| way(array))
}

fn each<V, T: ArrowPrimitiveType>(
    values: impl Iterator<Item = Option<V>>,
    convert: impl Fn(V) -> Result<T::Native, CellProblem>,
) -> Result<PrimitiveArray<T>, Problem> {
    let convert = |(at, value): (usize, Option<V>)| value.map(&convert).transpose().map_err(|problem| (at, problem));
    values.enumerate().map(convert).collect()
}
