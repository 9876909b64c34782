//! Candles by column, on their way into Arrow or CSV.
//!
//! **Invariant**: as of runs, decimals go through integers and text. A double is the one nearest to the decimal beside
//! it, and only the average was ever rounded: to [`RATE_SCALE`] places, half-even.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Decimal128Array, Float64Array, TimestampMicrosecondArray, UInt64Array};
use arrow_schema::{ArrowError, DataType};

use super::layout::{RATE_PRECISION, RATE_SCALE, rate_type, time_type};
use super::rows::{nearest_double, scaled};
use crate::analysis::{Bucket, Candle, CandlePoint};
use crate::domain::Timestamp;
use crate::query::CandleRow;

/// Which rate of a candle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Point {
    Open,
    High,
    Low,
    Close,
}

/// A column that only candles have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CandleColumn {
    Start,
    End,
    Rate(Point),
    RateDouble(Point),
    Time(Point),
    Average,
    AverageDouble,
    Moves,
    Complete,
    Filled,
}

impl CandleColumn {
    /// In the order of the file.
    pub(super) const ALL: [Self; 19] = [
        Self::Start,
        Self::End,
        Self::Rate(Point::Open),
        Self::RateDouble(Point::Open),
        Self::Time(Point::Open),
        Self::Rate(Point::High),
        Self::RateDouble(Point::High),
        Self::Time(Point::High),
        Self::Rate(Point::Low),
        Self::RateDouble(Point::Low),
        Self::Time(Point::Low),
        Self::Rate(Point::Close),
        Self::RateDouble(Point::Close),
        Self::Time(Point::Close),
        Self::Average,
        Self::AverageDouble,
        Self::Moves,
        Self::Complete,
        Self::Filled,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Start => "start_time",
            Self::End => "end_time",
            Self::Rate(Point::Open) => "open",
            Self::RateDouble(Point::Open) => "open_double",
            Self::Time(Point::Open) => "open_time",
            Self::Rate(Point::High) => "high",
            Self::RateDouble(Point::High) => "high_double",
            Self::Time(Point::High) => "high_time",
            Self::Rate(Point::Low) => "low",
            Self::RateDouble(Point::Low) => "low_double",
            Self::Time(Point::Low) => "low_time",
            Self::Rate(Point::Close) => "close",
            Self::RateDouble(Point::Close) => "close_double",
            Self::Time(Point::Close) => "close_time",
            Self::Average => "average",
            Self::AverageDouble => "average_double",
            Self::Moves => "move_count",
            Self::Complete => "complete",
            Self::Filled => "filled",
        }
    }

    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Start | Self::End | Self::Time(_) => time_type(),
            Self::Rate(_) | Self::Average => rate_type(),
            Self::RateDouble(_) | Self::AverageDouble => DataType::Float64,
            Self::Moves => DataType::UInt64,
            Self::Complete | Self::Filled => DataType::Boolean,
        }
    }
}

/// A candle without its exact average, which may be a long fraction.
struct Row {
    bucket: Bucket,
    open: CandlePoint,
    high: CandlePoint,
    low: CandlePoint,
    close: CandlePoint,
    /// Units of 10^-18.
    average_units: u128,
    move_count: u64,
    complete: bool,
    filled: bool,
}

impl Row {
    const fn at(&self, point: Point) -> CandlePoint {
        match point {
            Point::Open => self.open,
            Point::High => self.high,
            Point::Low => self.low,
            Point::Close => self.close,
        }
    }

    /// The digits of a published rate and how many are places: 0 to 18.
    fn digits(&self, point: Point) -> (u128, u8) {
        let rate = self.at(point).rate;
        (rate.mantissa(), u8::try_from(rate.places()).unwrap_or(0))
    }

    fn double(&self, point: Point) -> f64 {
        let (mantissa, places) = self.digits(point);
        nearest_double(mantissa, places)
    }

    fn average_double(&self) -> f64 {
        nearest_double(self.average_units, RATE_SCALE.unsigned_abs())
    }
}

/// Some candles.
#[derive(Default)]
pub(super) struct CandleRows(Vec<Row>);

impl CandleRows {
    pub(super) fn push(&mut self, CandleRow { candle, complete, .. }: CandleRow) {
        // An average is at most the highest rate, below 10^38 of these units.
        let average_units = candle.average_units(RATE_SCALE.unsigned_abs()).unwrap_or(u128::MAX);
        let Candle { bucket, open, high, low, close, move_count, filled, .. } = candle;
        self.0.push(Row { bucket, open, high, low, close, average_units, move_count, complete, filled });
    }

    pub(super) fn array(&self, column: CandleColumn) -> Result<ArrayRef, ArrowError> {
        let times = |time: &dyn Fn(&Row) -> Timestamp| -> ArrayRef {
            let micros = self.0.iter().map(|row| time(row).micros());
            Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC"))
        };
        let decimals = |units: &dyn Fn(&Row) -> i128| -> Result<ArrayRef, ArrowError> {
            let array = Decimal128Array::from_iter_values(self.0.iter().map(units));
            Ok(Arc::new(array.with_precision_and_scale(RATE_PRECISION, RATE_SCALE)?))
        };
        let doubles = |double: &dyn Fn(&Row) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(self.0.iter().map(double)))
        };
        let flags = |flag: &dyn Fn(&Row) -> bool| -> ArrayRef {
            Arc::new(self.0.iter().map(|row| Some(flag(row))).collect::<BooleanArray>())
        };
        Ok(match column {
            CandleColumn::Start => times(&|row| row.bucket.start),
            CandleColumn::End => times(&|row| row.bucket.end),
            CandleColumn::Time(point) => times(&|row| row.at(point).time),
            CandleColumn::Rate(point) => decimals(&|row| {
                let (mantissa, places) = row.digits(point);
                scaled(mantissa, RATE_SCALE.unsigned_abs(), places)
            })?,
            CandleColumn::RateDouble(point) => doubles(&|row| row.double(point)),
            CandleColumn::Average => decimals(&|row| i128::try_from(row.average_units).unwrap_or(i128::MAX))?,
            CandleColumn::AverageDouble => doubles(&Row::average_double),
            CandleColumn::Moves => Arc::new(UInt64Array::from_iter_values(self.0.iter().map(|row| row.move_count))),
            CandleColumn::Complete => flags(&|row| row.complete),
            CandleColumn::Filled => flags(&|row| row.filled),
        })
    }

    pub(super) fn cell(&self, column: CandleColumn, row: usize) -> String {
        let row = &self.0[row];
        match column {
            CandleColumn::Start => row.bucket.start.to_string(),
            CandleColumn::End => row.bucket.end.to_string(),
            CandleColumn::Time(point) => row.at(point).time.to_string(),
            CandleColumn::Rate(point) => row.at(point).rate.to_string(),
            CandleColumn::RateDouble(point) => row.double(point).to_string(),
            CandleColumn::Average => {
                let unit = 10_u128.pow(u32::from(RATE_SCALE.unsigned_abs()));
                format!("{}.{:018}", row.average_units / unit, row.average_units % unit)
            }
            CandleColumn::AverageDouble => row.average_double().to_string(),
            CandleColumn::Moves => row.move_count.to_string(),
            CandleColumn::Complete => row.complete.to_string(),
            CandleColumn::Filled => row.filled.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::Decimal128Type;

    use super::*;
    use crate::analysis::{Buckets, CandlePlan, Candles, Interval, Spell, WrittenRate, Zone};
    use crate::domain::Rate;

    /// The candle of the first day of 1970 in which these rates came at these hours.
    fn day_of(rates: &[(i64, &str)]) -> CandleRows {
        let at = |hour: i64| Timestamp::from_micros(hour * Timestamp::HOUR_US);
        let buckets = Buckets { zone: Zone::UTC, interval: Interval::Day };
        let plan = CandlePlan { buckets, first: at(0), end: at(24), now: at(48), fill: false };
        let spells = rates.iter().map(|(hour, rate)| {
            let rate = WrittenRate::published(Rate::parse(rate).unwrap());
            Ok::<_, ()>(vec![Spell { from: at(*hour), seen_until: at(*hour), rate }])
        });
        let mut rows = CandleRows::default();
        for candle in Candles::new(plan, spells) {
            rows.push(CandleRow { candle: candle.unwrap(), observation_count: None, complete: true });
        }
        rows
    }

    #[test]
    fn averages_are_rounded_once_half_to_even() {
        let check = |rates: &[(i64, &str)], expect: &str, double: f64| {
            let rows = day_of(rates);
            assert_eq!(rows.cell(CandleColumn::Average, 0), expect);
            assert_eq!(rows.cell(CandleColumn::AverageDouble, 0), double.to_string());
            let units = rows.array(CandleColumn::Average).unwrap().as_primitive::<Decimal128Type>().value(0);
            assert_eq!(units.to_string(), expect.replace('.', "").trim_start_matches('0'));
        };
        check(&[(0, "0.01"), (8, "0.02")], "0.016666666666666667", 0.016_666_666_666_666_667);
        check(&[(0, "0.01"), (16, "0.02")], "0.013333333333333333", 0.013_333_333_333_333_333);
        check(&[(6, "0.00008")], "0.000080000000000000", 0.000_08);
        // From the middle to the even digit, down and up.
        check(&[(0, "0.000000000000000002"), (12, "0.000000000000000003")], "0.000000000000000002", 2e-18);
        check(&[(0, "0.000000000000000003"), (12, "0.000000000000000004")], "0.000000000000000004", 4e-18);
        check(&[(0, "99999999999999999999.99999999")], "99999999999999999999.999999990000000000", 1e20);
    }

    #[test]
    fn rates_keep_their_digits_and_times() {
        let rows = day_of(&[(1, "0.28490"), (2, "12345678901234567890.12345678"), (3, "0.1"), (4, "0.10")]);
        let cells = |columns: &[CandleColumn]| columns.iter().map(|column| rows.cell(*column, 0)).collect::<Vec<_>>();
        let rates = [Point::Open, Point::High, Point::Low, Point::Close];
        assert_eq!(cells(&rates.map(CandleColumn::Rate)), ["0.28490", "12345678901234567890.12345678", "0.1", "0.10"]);
        assert_eq!(cells(&rates.map(CandleColumn::RateDouble)), ["0.2849", "12345678901234567000", "0.1", "0.1"]);
        assert_eq!(
            cells(&rates.map(CandleColumn::Time)),
            [1, 2, 3, 4].map(|hour| format!("1970-01-01T0{hour}:00:00Z"))
        );
        let exact = rows.array(CandleColumn::Rate(Point::High)).unwrap();
        let exact = exact.as_primitive::<Decimal128Type>().value_as_string(0);
        assert_eq!(exact, "12345678901234567890.123456780000000000");
        assert_eq!(cells(&[CandleColumn::Moves, CandleColumn::Complete, CandleColumn::Filled]), ["2", "true", "false"]);
        for column in CandleColumn::ALL {
            assert_eq!(rows.array(column).unwrap().data_type(), &column.data_type(), "{}", column.name());
        }
    }
}
