//! The deserializer of query strings into request messages.
//!
//! **Invariant**: no parameter is ignored. An unknown, repeated or invalid parameter is an error that names the
//! parameter; for an unknown one, the error lists the known parameters.

use std::fmt::Display;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use crate::api::ServiceError;
use crate::domain::{Interval, Timestamp, TimestampError, truncate_for_display};
use crate::proto::v1;

/// Parameters that take a time or a date, with the fields of requests that hold a date.
const DATES: [(&str, &str); 3] = [("time", "date"), ("start_time", "start_date"), ("end_time", "end_date")];

/// Whether a text has the form of a date, `2025-12-08`. The request checks whether the day exists.
pub(super) fn is_date(text: &str) -> bool {
    !matches!(Timestamp::parse_date(text), Err(TimestampError::Malformed(_)))
}

/// Maximum number of parameters of a query.
const PARAMETERS_MAX: usize = 32;

/// The only enum with short names for its values. The short names are the names of [`Interval`].
const INTERVAL: &str = "CandleInterval";

/// The decoded parameters of a query. Each name occurs once. A parameter with an empty value counts as absent.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

/// Returns the error for an invalid parameter.
pub(super) fn invalid(field: &str, problem: impl Into<String>) -> ServiceError {
    ServiceError::InvalidField { field: field.to_owned(), problem: problem.into() }
}

fn decoded(text: &str) -> Result<String, ServiceError> {
    let spaced = text.replace('+', " ");
    let text = percent_decode_str(&spaced).decode_utf8();
    Ok(text.map_err(|_| invalid("query", format!("'{}' is not UTF-8", truncate_for_display(&spaced))))?.into_owned())
}

impl Parameters {
    /// Parses the query of a URL. A parameter without a value counts as absent.
    ///
    /// # Errors
    /// Returns `InvalidField` if a name is repeated, if the text is not UTF-8, or if there are too many parameters.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, ServiceError> {
        let mut found: Vec<(String, String)> = Vec::new();
        for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if found.iter().any(|(other, _)| *other == name) {
                return Err(invalid(
                    &truncate_for_display(&name),
                    "the parameter is given more than once; separate several values with commas",
                ));
            }
            if found.len() == PARAMETERS_MAX {
                let problem = format!("the query has more than {PARAMETERS_MAX} parameters; send fewer");
                return Err(invalid("query", problem));
            }
            found.push((name, value));
        }
        Ok(Self(found))
    }

    /// Removes a parameter and returns its value; none if the parameter is absent or empty.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.swap_remove(at).1).filter(|value| !value.is_empty())
    }

    /// Checks that no parameter is left after all of `known` were taken.
    ///
    /// # Errors
    /// Returns `InvalidField` that names the first unknown parameter and lists `known`.
    pub(super) fn finish<'a>(self, known: impl IntoIterator<Item = &'a str>) -> Result<(), ServiceError> {
        let Some((name, _)) = self.0.first() else { return Ok(()) };
        let known: Vec<&str> = known.into_iter().collect();
        let known = if known.is_empty() { "no parameters".to_owned() } else { known.join(", ") };
        Err(invalid(&truncate_for_display(name), format!("unknown parameter; this call takes {known}")))
    }

    /// Returns the value of a parameter; none if the parameter is absent or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(other, _)| other == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// Sets a parameter, replacing its value if it has one.
    pub(super) fn set(&mut self, name: &str, value: String) {
        self.0.retain(|(other, _)| other != name);
        self.0.push((name.to_owned(), value));
    }

    /// Replaces a parameter by one with another name.
    fn rename(&mut self, from: &str, to: &str, value: String) {
        self.0.retain(|(name, _)| name != from);
        self.set(to, value);
    }

    /// Reads a request message whose fields are the parameters. `others` names the parameters that were taken before.
    ///
    /// # Errors
    /// Returns `InvalidField` if a parameter is unknown, or if its value does not fit the field.
    pub(super) fn read<T: DeserializeOwned>(mut self, others: &[&str]) -> Result<T, ServiceError> {
        let mut known = Vec::new();
        let request = T::deserialize(QueryDeserializer { parameters: &mut self, known: &mut known });
        let request = request.map_err(|ParameterError { field, problem }| invalid(&field, problem))?;
        self.finish(known.into_iter().chain(others.iter().copied()))?;
        Ok(request)
    }
}

/// Deserializes a request message from parameters by field name, in the order of the fields.
struct QueryDeserializer<'a> {
    parameters: &'a mut Parameters,
    /// Collects the names of the request's fields.
    known: &'a mut Vec<&'static str>,
}

/// The error for a parameter whose value does not fit its field.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {problem}")]
struct ParameterError {
    field: String,
    problem: String,
}

impl Error for ParameterError {
    fn custom<T: Display>(problem: T) -> Self {
        Self { field: String::new(), problem: problem.to_string() }
    }
}

impl<'de> Deserializer<'de> for QueryDeserializer<'_> {
    type Error = ParameterError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ParameterError> {
        self.known.extend(fields);
        // A date is a day in the time zone of the request or of the source, and has a field of its own.
        for (time, date) in DATES.iter().filter(|(_, date)| fields.contains(date)) {
            if let Some(text) = self.parameters.get(time).filter(|text| is_date(text)) {
                let text = text.to_owned();
                self.parameters.rename(time, date, text);
            }
        }
        visitor.visit_map(Fields { parameters: self.parameters, names: fields.iter(), value: None })
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ParameterError> {
        Err(ParameterError::custom("a query can only be read as a request message"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The fields of a request that have a parameter, with their values.
struct Fields<'a> {
    parameters: &'a mut Parameters,
    names: std::slice::Iter<'static, &'static str>,
    value: Option<(&'static str, String)>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = ParameterError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ParameterError> {
        self.value = self.names.find_map(|name| Some((*name, self.parameters.take(name)?)));
        let Some((name, _)) = &self.value else { return Ok(None) };
        seed.deserialize(StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, ParameterError> {
        let (name, text) = self.value.take().unwrap_or_default();
        seed.deserialize(ParameterValue(&text)).map_err(|error| ParameterError { field: name.to_owned(), ..error })
    }
}

/// The value of a parameter, or one element of its list.
struct ParameterValue<'a>(&'a str);

impl ParameterValue<'_> {
    fn number<T: FromStr<Err: Display>>(&self) -> Result<T, ParameterError> {
        let error = |problem| {
            ParameterError::custom(format!("'{}' is not a valid number here: {problem}", truncate_for_display(self.0)))
        };
        self.0.parse().map_err(error)
    }
}

impl IntoDeserializer<'_, ParameterError> for ParameterValue<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for ParameterValue<'_> {
    type Error = ParameterError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        visitor.visit_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        visitor.visit_seq(SeqDeserializer::new(self.0.split(',').map(ParameterValue)))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        match self.0 {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            text => Err(ParameterError::custom(format!("'{}' is neither true nor false", truncate_for_display(text)))),
        }
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        visitor.visit_i32(self.number()?)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        visitor.visit_u32(self.number()?)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ParameterError> {
        visitor.visit_u64(self.number()?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ParameterError> {
        let interval = if name == INTERVAL { self.0.parse::<Interval>().ok() } else { None };
        let wanted = interval.map_or_else(
            || self.0.to_ascii_uppercase().replace('-', "_"),
            |interval| v1::CandleInterval::from(interval).as_str_name().to_owned(),
        );
        let wanted = wanted.strip_prefix(&prefix(name)).unwrap_or(&wanted);
        if !variants.contains(&wanted) {
            let (names, _) = value_names(name, variants);
            let problem = format!("'{}' is not one of {}", truncate_for_display(self.0), names.join(", "));
            return Err(ParameterError::custom(problem));
        }
        visitor.visit_enum(StrDeserializer::new(wanted))
    }

    forward_to_deserialize_any! {
        i8 i16 i64 i128 u8 u16 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// Returns the common prefix of the value names of an enum in the protos: `CANDLE_INTERVAL_` for `CandleInterval`.
fn prefix(enum_name: &str) -> String {
    let mut prefix = String::new();
    for letter in enum_name.chars() {
        if letter.is_ascii_uppercase() && !prefix.is_empty() {
            prefix.push('_');
        }
        prefix.push(letter.to_ascii_uppercase());
    }
    prefix + "_"
}

/// Returns the accepted names of an enum's values: the documented ones, then the names in the protos if they differ.
pub(super) fn value_names(enum_name: &str, names: &[impl AsRef<str>]) -> (Vec<String>, Vec<String>) {
    let names: Vec<String> = names.iter().map(|name| name.as_ref().to_owned()).collect();
    if enum_name == INTERVAL {
        (Interval::CANDLES.map(|interval| interval.name().to_owned()).to_vec(), names)
    } else {
        (names, Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: DeserializeOwned>(query: &str) -> Result<T, String> {
        let parameters = Parameters::parse(Some(query)).map_err(|error| error.to_string())?;
        parameters.read(&["format"]).map_err(|error| error.to_string())
    }

    #[test]
    fn query_is_read_as_request_with_the_same_fields() {
        let request: v1::GetChangeRequest =
            read("pair=KGS/USD&leg_sources=nbkr,cbu&end_time=2025-12-08&window=24h&decimal_places=0&known_time=")
                .unwrap();
        let expect = v1::GetChangeRequest {
            pair: "KGS/USD".to_owned(),
            leg_sources: vec!["nbkr".to_owned(), "cbu".to_owned()],
            end_date: "2025-12-08".to_owned(),
            window: Some(v1::Window { count: 24, unit: v1::WindowUnit::Hour.into() }),
            decimal_places: Some(0),
            ..Default::default()
        };
        assert_eq!(request, expect);

        let check = |interval: &str, expect: v1::CandleInterval| {
            let query = format!("pair=KGS%2FUSD&interval={interval}&fill_empty=true&page_size=7");
            let request: v1::ListCandlesRequest = read(&query).unwrap();
            assert_eq!((request.interval(), request.pair.as_str()), (expect, "KGS/USD"));
            assert_eq!((request.fill_empty, request.page_size), (true, 7));
        };
        check("1h", v1::CandleInterval::Hour);
        check("1mo", v1::CandleInterval::Month);
        check("day", v1::CandleInterval::Day);
        check("five-minutes", v1::CandleInterval::FiveMinutes);
        check("CANDLE_INTERVAL_WEEK", v1::CandleInterval::Week);

        let request: v1::ListQuarantineRequest = read("states=held,QUARANTINE_STATE_DISCARDED").unwrap();
        let expect = [v1::QuarantineState::Held, v1::QuarantineState::Discarded];
        assert_eq!(request.states().collect::<Vec<_>>(), expect);
    }

    #[test]
    fn invalid_parameter_is_named_in_error() {
        fn check<T: DeserializeOwned + std::fmt::Debug>(query: &str, expect: &str) {
            let error = read::<T>(query).expect_err(query);
            assert!(error.contains(expect), "{query}: {error}");
        }
        check::<v1::GetRateRequest>(
            "pair=KGS/USD&sources=nbkr",
            "sources: unknown parameter; this call takes pair, source, leg_",
        );
        check::<v1::GetLatestRatesRequest>("x=1", "since_sequence, format");
        check::<v1::GetRateRequest>("pair=KGS/USD&pair=KZT/USD", "pair: the parameter is given more than once");
        check::<v1::GetRateRequest>("p%61ir=a&pair=b", "pair: the parameter is given more than once");
        check::<v1::GetRateRequest>("time=2025-12-08T06:00:00+06:00", "a + is written %2B");
        check::<v1::GetRateRequest>("time=yesterday", "time: time 'yesterday' is not RFC 3339");
        check::<v1::GetRateRequest>("max_age=1mo", "max_age: duration '1mo' has no fixed length");
        check::<v1::GetRateRequest>("max_age=soon", "max_age: 'soon' is not a valid duration");
        check::<v1::GetChangeRequest>("window=0d", "window: duration '0d' has an invalid count");
        check::<v1::ListCandlesRequest>("interval=2h", "interval: '2h' is not one of 1m, 5m, 15m, 1h, 4h, 1d, 1w, 1mo");
        check::<v1::ListChangesRequest>("period=3d", "period: '3d' is not one of DAY_ON_DAY, WEEK_ON_WEEK");
        check::<v1::ListCandlesRequest>("interval=unspecified", "is not one of 1m");
        check::<v1::ListCandlesRequest>("fill_empty=1", "neither true nor false");
        check::<v1::ListCandlesRequest>("page_size=ten", "page_size: 'ten' is not a valid number");
        check::<v1::ListCandlesRequest>("page_size=4294967296", "page_size: '4294967296' is not a valid number");
        check::<v1::GetLatestRatesRequest>("since_sequence=-1", "since_sequence: '-1' is not a valid number");
        check::<v1::GetRateRequest>("pair=%FF", "is not UTF-8");
        check::<v1::GetRateRequest>("%C3%28=a", "is not UTF-8");
        let many: Vec<String> = (0..=PARAMETERS_MAX).map(|at| format!("a{at}=1")).collect();
        check::<v1::GetRateRequest>(&many.join("&"), "more than 32 parameters");
    }

    #[test]
    fn empty_parameter_is_absent() {
        for query in ["", "&", "&&pairs=&", "pairs", "since_sequence="] {
            assert_eq!(read(query), Ok(v1::GetLatestRatesRequest::default()), "{query}");
        }
    }
}
