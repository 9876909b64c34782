//! Queries of URLs, read as requests.
//!
//! **Invariant**: nothing in a query is passed over. A parameter that is not known, is given twice or does not read as
//! what it should be is an error that names it and those that there are.

use std::fmt::Display;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::schema::{DURATION, TIMESTAMP, short_names};
use crate::api::ServiceError;
use crate::domain::{Span, Timestamp, clip};
use crate::proto::convert::duration;
use crate::proto::v1;

/// Parameters of one query.
const PARAMETERS_MAX: usize = 32;
const WINDOW: &str = "silkrate.v1.Window";

/// Shorter words for lengths of candles, as the command line has them.
const INTERVALS: [(&str, &str); 8] = [
    ("1m", "MINUTE"),
    ("5m", "FIVE_MINUTES"),
    ("15m", "FIFTEEN_MINUTES"),
    ("1h", "HOUR"),
    ("4h", "FOUR_HOURS"),
    ("1d", "DAY"),
    ("1w", "WEEK"),
    ("1mo", "MONTH"),
];
const INTERVAL: &str = "silkrate.v1.CandleInterval";

/// What a query says, decoded, each name once, none of the values empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

pub(super) fn invalid(field: &str, problem: impl Into<String>) -> ServiceError {
    ServiceError::InvalidField { field: field.to_owned(), problem: problem.into() }
}

fn decoded(text: &str) -> Result<String, ServiceError> {
    let spaced = text.replace('+', " ");
    let text = percent_decode_str(&spaced).decode_utf8();
    Ok(text.map_err(|_| invalid("query", format!("'{}' is not UTF-8", clip(&spaced))))?.into_owned())
}

impl Parameters {
    /// Of a URL's query; one without a value is as good as absent.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, ServiceError> {
        let mut found: Vec<(String, String)> = Vec::new();
        for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if found.iter().any(|(other, _)| *other == name) {
                return Err(invalid(
                    &clip(&name),
                    "is given more than once; write several values as one list with commas",
                ));
            }
            if found.len() == PARAMETERS_MAX {
                return Err(invalid("query", format!("has more than {PARAMETERS_MAX} parameters")));
            }
            found.push((name, value));
        }
        Ok(Self(found))
    }

    /// The value of one, which is then no longer there; none if it is empty.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(at).1).filter(|value| !value.is_empty())
    }

    /// Nothing may be left when all of `known` were taken.
    pub(super) fn finish<'a>(self, known: impl IntoIterator<Item = &'a str>) -> Result<(), ServiceError> {
        let Some((name, _)) = self.0.first() else { return Ok(()) };
        let known: Vec<&str> = known.into_iter().collect();
        Err(invalid(&clip(name), format!("is no parameter here; there are {}", known.join(", "))))
    }

    /// As the request that `request` describes; `others` are parameters that were taken already.
    pub(super) fn into_message(
        mut self,
        request: &MessageDescriptor,
        others: &[&str],
    ) -> Result<DynamicMessage, ServiceError> {
        let mut message = DynamicMessage::new(request.clone());
        for field in request.fields() {
            if let Some(text) = self.take(field.name()) {
                let value = value(&field, &text)?;
                message.try_set_field(&field, value).map_err(|problem| invalid(field.name(), problem.to_string()))?;
            }
        }
        let fields: Vec<FieldDescriptor> = request.fields().collect();
        self.finish(fields.iter().map(FieldDescriptor::name).chain(others.iter().copied()))?;
        Ok(message)
    }
}

fn number<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, ServiceError> {
    text.parse().map_err(|problem| invalid(name, format!("'{}' is no number that it can be: {problem}", clip(text))))
}

/// How the values of an enum are written: as documented, and as the protos name them.
pub(super) fn words(of: &EnumDescriptor) -> (Vec<String>, Vec<String>) {
    let names: Vec<String> = short_names(of).into_iter().map(|(_, name)| name).collect();
    if of.full_name() == INTERVAL {
        (INTERVALS.iter().map(|(short, _)| (*short).to_owned()).collect(), names)
    } else {
        (names, Vec::new())
    }
}

fn value(field: &FieldDescriptor, text: &str) -> Result<Value, ServiceError> {
    if field.is_list() {
        return text.split(',').map(|part| single(field, part)).collect::<Result<_, _>>().map(Value::List);
    }
    single(field, text)
}

fn single(field: &FieldDescriptor, text: &str) -> Result<Value, ServiceError> {
    let name = field.name();
    match field.kind() {
        Kind::String => Ok(Value::String(text.to_owned())),
        Kind::Int32 => number(name, text).map(Value::I32),
        Kind::Uint32 => number(name, text).map(Value::U32),
        Kind::Uint64 => number(name, text).map(Value::U64),
        Kind::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(invalid(name, format!("'{}' is neither true nor false", clip(text)))),
        },
        Kind::Enum(of) => {
            let wanted = text.to_ascii_uppercase().replace('-', "_");
            let long = INTERVALS.iter().find(|(short, _)| *short == text && of.full_name() == INTERVAL);
            let wanted = long.map_or(wanted.as_str(), |(_, long)| long);
            let names = short_names(&of);
            let number = names.iter().find(|(_, name)| name == wanted).map(|(number, _)| *number);
            let number = number.or_else(|| of.get_value_by_name(wanted).map(|value| value.number()));
            let number = number
                .ok_or_else(|| invalid(name, format!("'{}' is none of {}", clip(text), words(&of).0.join(", "))))?;
            Ok(Value::EnumNumber(number))
        }
        Kind::Message(of) => part(name, &of, text).map(Value::Message),
        Kind::Double
        | Kind::Float
        | Kind::Int64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Fixed32
        | Kind::Fixed64
        | Kind::Sfixed32
        | Kind::Sfixed64
        | Kind::Bytes => Err(invalid(name, "cannot be given over HTTP; ask by gRPC")),
    }
}

/// Times, lengths and windows, as people write them.
fn part(name: &str, of: &MessageDescriptor, text: &str) -> Result<DynamicMessage, ServiceError> {
    let span = |text: &str| text.parse::<Span>().map_err(|problem| invalid(name, problem.to_string()));
    let mut message = DynamicMessage::new(of.clone());
    let mut set = |number: u32, value: Value| {
        message.try_set_field_by_number(number, value).map_err(|problem| invalid(name, problem.to_string()))
    };
    match of.full_name() {
        TIMESTAMP => {
            let time = Timestamp::parse(text).map_err(|problem| {
                // A plus sign stands for a blank in a query, which nobody remembers.
                let hint = if text.contains(' ') { "; a + is written %2B in a URL" } else { "" };
                invalid(name, format!("{problem}{hint}"))
            })?;
            let (seconds, nanos) = time.to_parts();
            set(1, Value::I64(seconds))?;
            set(2, Value::I32(nanos))?;
        }
        DURATION => {
            let micros = span(text)?.micros().map_err(|problem| invalid(name, problem.to_string()))?;
            let length = duration(micros);
            set(1, Value::I64(length.seconds))?;
            set(2, Value::I32(length.nanos))?;
        }
        WINDOW => {
            let window = v1::Window::try_from(span(text)?).map_err(|problem| invalid(name, problem.to_string()))?;
            set(1, Value::U32(window.count))?;
            set(2, Value::EnumNumber(window.unit))?;
        }
        _ => return Err(invalid(name, "cannot be given over HTTP; ask by gRPC")),
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::schema::{Call, Schema};
    use crate::proto::v1;

    fn read(call: Call, query: &str) -> Result<DynamicMessage, String> {
        let schema = Schema::new().unwrap();
        let parameters = Parameters::parse(Some(query)).map_err(|error| error.to_string())?;
        parameters.into_message(&schema.call(call).unwrap().request, &["format"]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_query_is_the_request_of_the_same_fields() {
        let request: v1::GetChangeRequest = read(
            Call::Change,
            "pair=KGS/USD&leg_sources=nbkr,cbu&end_time=2025-12-08&window=24h&decimal_places=0&known_time=",
        )
        .unwrap()
        .transcode_to()
        .unwrap();
        let expect = v1::GetChangeRequest {
            pair: "KGS/USD".to_owned(),
            leg_sources: vec!["nbkr".to_owned(), "cbu".to_owned()],
            end_time: Some(prost_types::Timestamp { seconds: 1_765_152_000, nanos: 0 }),
            window: Some(v1::Window { count: 24, unit: v1::WindowUnit::Hour.into() }),
            decimal_places: Some(0),
            ..Default::default()
        };
        assert_eq!(request, expect);

        let check = |interval: &str, expect: v1::CandleInterval| {
            let query = format!("pair=KGS%2FUSD&interval={interval}&fill_empty=true&page_size=7");
            let request: v1::ListCandlesRequest = read(Call::Candles, &query).unwrap().transcode_to().unwrap();
            assert_eq!((request.interval(), request.pair.as_str()), (expect, "KGS/USD"));
            assert_eq!((request.fill_empty, request.page_size), (true, 7));
        };
        check("1h", v1::CandleInterval::Hour);
        check("1mo", v1::CandleInterval::Month);
        check("day", v1::CandleInterval::Day);
        check("five-minutes", v1::CandleInterval::FiveMinutes);
        check("CANDLE_INTERVAL_WEEK", v1::CandleInterval::Week);
    }

    #[test]
    fn what_does_not_read_is_named() {
        let check = |call: Call, query: &str, expect: &str| {
            let error = read(call, query).expect_err(query);
            assert!(error.contains(expect), "{query}: {error}");
        };
        check(Call::Rate, "pair=KGS/USD&sources=nbkr", "sources: is no parameter here; there are pair, source, leg_");
        check(Call::Latest, "x=1", "since_sequence, format");
        check(Call::Rate, "pair=KGS/USD&pair=KZT/USD", "pair: is given more than once");
        check(Call::Rate, "p%61ir=a&pair=b", "pair: is given more than once");
        check(Call::Rate, "time=2025-12-08T06:00:00+06:00", "a + is written %2B");
        check(Call::Rate, "time=yesterday", "time: time 'yesterday' is not RFC 3339");
        check(Call::Rate, "max_age=1mo", "max_age: duration '1mo' has no fixed length");
        check(Call::Rate, "max_age=soon", "max_age: 'soon' is not a valid duration");
        check(Call::Change, "window=0d", "window: duration '0d' must count from 1");
        check(Call::Candles, "interval=2h", "interval: '2h' is none of 1m, 5m, 15m, 1h, 4h, 1d, 1w, 1mo");
        check(Call::Changes, "period=3d", "period: '3d' is none of DAY_ON_DAY, WEEK_ON_WEEK");
        check(Call::Candles, "interval=unspecified", "is none of 1m");
        check(Call::Candles, "fill_empty=1", "neither true nor false");
        check(Call::Candles, "page_size=ten", "page_size: 'ten' is no number");
        check(Call::Candles, "page_size=4294967296", "page_size: '4294967296' is no number");
        check(Call::Latest, "since_sequence=-1", "since_sequence: '-1' is no number");
        check(Call::Rate, "pair=%FF", "is not UTF-8");
        check(Call::Rate, "%C3%28=a", "is not UTF-8");
        let many: Vec<String> = (0..=PARAMETERS_MAX).map(|at| format!("a{at}=1")).collect();
        check(Call::Rate, &many.join("&"), "more than 32 parameters");
    }

    #[test]
    fn what_is_empty_is_absent() {
        for query in ["", "&", "&&pairs=&", "pairs", "since_sequence="] {
            assert_eq!(read(Call::Latest, query).unwrap().fields().count(), 0, "{query}");
        }
    }
}
