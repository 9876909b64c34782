//! Queries of URLs, read as requests.
//!
//! **Invariant**: nothing in a query is passed over. A parameter that is not known, is given twice or does not read as
//! what it should be is an error that names it and those that there are.

use std::fmt::Display;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use serde::de::value::{SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use crate::api::ServiceError;
use crate::domain::{Interval, truncate_for_display};
use crate::proto::v1;

/// Parameters of one query.
const PARAMETERS_MAX: usize = 32;

/// The enum whose values have shorter words: the names of [`Interval`].
const INTERVAL: &str = "CandleInterval";

/// What a query says, decoded, each name once, none of the values empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

pub(super) fn invalid(field: &str, problem: impl Into<String>) -> ServiceError {
    ServiceError::InvalidField { field: field.to_owned(), problem: problem.into() }
}

fn decoded(text: &str) -> Result<String, ServiceError> {
    let spaced = text.replace('+', " ");
    let text = percent_decode_str(&spaced).decode_utf8();
    Ok(text.map_err(|_| invalid("query", format!("'{}' is not UTF-8", truncate_for_display(&spaced))))?.into_owned())
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
                    &truncate_for_display(&name),
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
        Err(invalid(&truncate_for_display(name), format!("is no parameter here; there are {}", known.join(", "))))
    }

    /// The value of one, if it is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(other, _)| other == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// Gives one a value, instead of what it has.
    pub(super) fn set(&mut self, name: &str, value: String) {
        self.0.retain(|(other, _)| other != name);
        self.0.push((name.to_owned(), value));
    }

    /// As the request whose fields they are; `others` are parameters that were taken already.
    pub(super) fn read<T: DeserializeOwned>(mut self, others: &[&str]) -> Result<T, ServiceError> {
        let mut known = Vec::new();
        let request = T::deserialize(Query { parameters: &mut self, known: &mut known });
        let request = request.map_err(|Wrong { field, problem }| invalid(&field, problem))?;
        self.finish(known.into_iter().chain(others.iter().copied()))?;
        Ok(request)
    }
}

/// A request is read from its parameters in the order of its fields, by their names.
struct Query<'a> {
    parameters: &'a mut Parameters,
    /// The fields that the request has.
    known: &'a mut Vec<&'static str>,
}

/// A parameter that does not read as what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {problem}")]
struct Wrong {
    field: String,
    problem: String,
}

impl Error for Wrong {
    fn custom<T: Display>(problem: T) -> Self {
        Self { field: String::new(), problem: problem.to_string() }
    }
}

impl<'de> Deserializer<'de> for Query<'_> {
    type Error = Wrong;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.known.extend(fields);
        visitor.visit_map(Fields { parameters: self.parameters, names: fields.iter(), value: None })
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Wrong> {
        Err(Wrong::custom("a query is read as a request"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// The fields of a request that have parameters.
struct Fields<'a> {
    parameters: &'a mut Parameters,
    names: std::slice::Iter<'static, &'static str>,
    value: Option<(&'static str, String)>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        self.value = self.names.find_map(|name| Some((*name, self.parameters.take(name)?)));
        let Some((name, _)) = &self.value else { return Ok(None) };
        seed.deserialize(StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Wrong> {
        let (name, text) = self.value.take().unwrap_or_default();
        seed.deserialize(Text(&text)).map_err(|wrong| Wrong { field: name.to_owned(), ..wrong })
    }
}

/// The value of a parameter, or one of its values.
struct Text<'a>(&'a str);

impl Text<'_> {
    fn number<T: FromStr<Err: Display>>(&self) -> Result<T, Wrong> {
        let wrong = |problem| {
            Wrong::custom(format!("'{}' is no number that it can be: {problem}", truncate_for_display(self.0)))
        };
        self.0.parse().map_err(wrong)
    }
}

impl IntoDeserializer<'_, Wrong> for Text<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Text<'_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_str(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_seq(SeqDeserializer::new(self.0.split(',').map(Text)))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            text => Err(Wrong::custom(format!("'{}' is neither true nor false", truncate_for_display(text)))),
        }
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_i32(self.number()?)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_u32(self.number()?)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_u64(self.number()?)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        let interval = if name == INTERVAL { self.0.parse::<Interval>().ok() } else { None };
        let wanted = interval.map_or_else(
            || self.0.to_ascii_uppercase().replace('-', "_"),
            |interval| v1::CandleInterval::from(interval).as_str_name().to_owned(),
        );
        let wanted = wanted.strip_prefix(&prefix(name)).unwrap_or(&wanted);
        if !variants.contains(&wanted) {
            let (words, _) = words(name, variants);
            return Err(Wrong::custom(format!("'{}' is none of {}", truncate_for_display(self.0), words.join(", "))));
        }
        visitor.visit_enum(StrDeserializer::new(wanted))
    }

    forward_to_deserialize_any! {
        i8 i16 i64 i128 u8 u16 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// What the names of an enum's values begin with in the protos: `CANDLE_INTERVAL_` of `CandleInterval`.
fn prefix(of: &str) -> String {
    let mut prefix = String::new();
    for letter in of.chars() {
        if letter.is_ascii_uppercase() && !prefix.is_empty() {
            prefix.push('_');
        }
        prefix.push(letter.to_ascii_uppercase());
    }
    prefix + "_"
}

/// How the values of an enum are written: as documented, and as the protos name them.
pub(super) fn words(of: &str, names: &[impl AsRef<str>]) -> (Vec<String>, Vec<String>) {
    let names: Vec<String> = names.iter().map(|name| name.as_ref().to_owned()).collect();
    if of == INTERVAL {
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
    fn a_query_is_the_request_of_the_same_fields() {
        let request: v1::GetChangeRequest =
            read("pair=KGS/USD&leg_sources=nbkr,cbu&end_time=2025-12-08&window=24h&decimal_places=0&known_time=")
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
    fn what_does_not_read_is_named() {
        fn check<T: DeserializeOwned + std::fmt::Debug>(query: &str, expect: &str) {
            let error = read::<T>(query).expect_err(query);
            assert!(error.contains(expect), "{query}: {error}");
        }
        check::<v1::GetRateRequest>(
            "pair=KGS/USD&sources=nbkr",
            "sources: is no parameter here; there are pair, source, leg_",
        );
        check::<v1::GetLatestRatesRequest>("x=1", "since_sequence, format");
        check::<v1::GetRateRequest>("pair=KGS/USD&pair=KZT/USD", "pair: is given more than once");
        check::<v1::GetRateRequest>("p%61ir=a&pair=b", "pair: is given more than once");
        check::<v1::GetRateRequest>("time=2025-12-08T06:00:00+06:00", "a + is written %2B");
        check::<v1::GetRateRequest>("time=yesterday", "time: time 'yesterday' is not RFC 3339");
        check::<v1::GetRateRequest>("max_age=1mo", "max_age: duration '1mo' has no fixed length");
        check::<v1::GetRateRequest>("max_age=soon", "max_age: 'soon' is not a valid duration");
        check::<v1::GetChangeRequest>("window=0d", "window: duration '0d' must count from 1");
        check::<v1::ListCandlesRequest>("interval=2h", "interval: '2h' is none of 1m, 5m, 15m, 1h, 4h, 1d, 1w, 1mo");
        check::<v1::ListChangesRequest>("period=3d", "period: '3d' is none of DAY_ON_DAY, WEEK_ON_WEEK");
        check::<v1::ListCandlesRequest>("interval=unspecified", "is none of 1m");
        check::<v1::ListCandlesRequest>("fill_empty=1", "neither true nor false");
        check::<v1::ListCandlesRequest>("page_size=ten", "page_size: 'ten' is no number");
        check::<v1::ListCandlesRequest>("page_size=4294967296", "page_size: '4294967296' is no number");
        check::<v1::GetLatestRatesRequest>("since_sequence=-1", "since_sequence: '-1' is no number");
        check::<v1::GetRateRequest>("pair=%FF", "is not UTF-8");
        check::<v1::GetRateRequest>("%C3%28=a", "is not UTF-8");
        let many: Vec<String> = (0..=PARAMETERS_MAX).map(|at| format!("a{at}=1")).collect();
        check::<v1::GetRateRequest>(&many.join("&"), "more than 32 parameters");
    }

    #[test]
    fn what_is_empty_is_absent() {
        for query in ["", "&", "&&pairs=&", "pairs", "since_sequence="] {
            assert_eq!(read(query), Ok(v1::GetLatestRatesRequest::default()), "{query}");
        }
    }
}
