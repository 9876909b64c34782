//! Values of settings, read from text: of flags, variables and the configuration file alike.
//!
//! **Invariant**: a value is within its limits, or refused with what is wrong and what to write instead.

use std::net::SocketAddr;
use std::time::Duration;

use chrono::NaiveTime;
use thiserror::Error;

use crate::domain::{Currency, LengthError, Rate, Source, Timestamp, parse_length};

pub(super) const YEAR: Duration = Duration::from_hours(366 * 24);

/// The shortest window or limit.
pub(super) const LENGTH_MIN: Duration = Duration::from_secs(1);
/// The last place among sources of one pair.
const PREFERENCE_MAX: u32 = 1_000;

/// Where to listen for plain HTTP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpListen {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

/// A duration for one source, or for all that are not named.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceDuration {
    pub(super) source: Option<Source>,
    pub(super) duration: Duration,
}

/// For whom a setting is.
pub(super) fn subject(source: Option<&Source>) -> String {
    source.map_or_else(|| "all other sources".to_owned(), |name| format!("source {name}"))
}

/// A value that a flag does not take.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Neither yes nor no.
    #[error("it is no switch; write true or false")]
    Switch,
    /// No address with a port.
    #[error("it is no address with a port; write one like 127.0.0.1:50051 or [::1]:50051")]
    Address,
    /// The same, where none is an answer too.
    #[error("it is no address with a port; write one like 127.0.0.1:8080 or [::1]:8080, or none")]
    HttpAddress,
    /// No time.
    #[error("it is no time; write RFC 3339 like 2025-12-08T09:30:00Z, or a date like 2025-12-08")]
    Time,
    /// Not a duration of fixed length, or one outside the limits of the setting.
    #[error(transparent)]
    Length(#[from] LengthError),
    /// A text without quotes, or no text at all.
    #[error("it is no text; write one in quotes, with its unit, like \"90s\", \"1h\", \"16:00\" or \"https://a.org\"")]
    Quotes,
    /// No time of day.
    #[error("it is no time of day; write hours and minutes of the bank's clocks, like \"16:00\"")]
    TimeOfDay,
    /// No count of places.
    #[error("it is no whole number from 0 to {max}; write one like 2", max = Rate::PLACES_MAX)]
    Places,
    /// No place among sources.
    #[error("it is no whole number from 1 to {PREFERENCE_MAX}; write 1 for the source that goes first")]
    Preference,
    /// No source with a count of places.
    #[error("it is not SOURCE=N with N from 0 to {max}; write one like nbk=2", max = Rate::PLACES_MAX)]
    SourcePlaces,
    /// Neither a number nor `none`.
    #[error("it is no factor; write a number above 1 like 5 or 2.5, or \"none\"")]
    RatioThreshold,
    /// Whatever a domain type has against it.
    #[error("{0}")]
    Domain(String),
}

/// Flags come as "true"; what a variable says must be plain.
pub(super) fn parse_switch(text: &str) -> Result<bool, ValueError> {
    text.parse().map_err(|_| ValueError::Switch)
}

pub(super) fn parse_address(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().map_err(|_| ValueError::Address)
}

pub(super) fn parse_http_listen(text: &str) -> Result<HttpListen, ValueError> {
    if text == "none" {
        return Ok(HttpListen::Off);
    }
    text.parse().map(HttpListen::At).map_err(|_| ValueError::HttpAddress)
}

pub(super) fn parse_source(text: &str) -> Result<Source, ValueError> {
    Source::parse(text).map_err(|error| ValueError::Domain(error.to_string()))
}

pub(super) fn parse_currency(text: &str) -> Result<Currency, ValueError> {
    Currency::parse(text).map_err(|error| ValueError::Domain(error.to_string()))
}

pub(super) fn parse_time(text: &str) -> Result<Timestamp, ValueError> {
    Timestamp::parse(text).map_err(|_| ValueError::Time)
}

pub(super) fn parse_source_duration(text: &str) -> Result<SourceDuration, ValueError> {
    let (source, duration) = match text.split_once('=') {
        Some((source, duration)) => (Some(parse_source(source)?), duration),
        None => (None, text),
    };
    Ok(SourceDuration { source, duration: parse_length(duration, LENGTH_MIN, YEAR)? })
}

pub(super) fn parse_source_places(text: &str) -> Result<(Source, u8), ValueError> {
    let (source, places) = text.split_once('=').ok_or(ValueError::SourcePlaces)?;
    match places.parse::<u8>() {
        Ok(places) if places <= Rate::PLACES_MAX => Ok((parse_source(source)?, places)),
        _ => Err(ValueError::SourcePlaces),
    }
}

pub(super) fn parse_places(places: Option<u32>) -> Result<u8, ValueError> {
    let places = places.and_then(|places| u8::try_from(places).ok());
    places.filter(|places| *places <= Rate::PLACES_MAX).ok_or(ValueError::Places)
}

pub(super) fn parse_preference(place: Option<u32>) -> Result<u32, ValueError> {
    place.filter(|place| (1..=PREFERENCE_MAX).contains(place)).ok_or(ValueError::Preference)
}

/// Of the form `16:00`.
pub(super) fn parse_time_of_day(text: &str) -> Result<NaiveTime, ValueError> {
    let time = NaiveTime::parse_from_str(text, "%H:%M").ok().filter(|_| text.len() == "16:00".len());
    time.ok_or(ValueError::TimeOfDay)
}
