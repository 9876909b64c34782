//! Parsing of setting values from flags, environment variables and the configuration file.
//!
//! **Invariant**: a parsed value is within its limits. An error states what is wrong and what to write instead.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use chrono::NaiveTime;
use thiserror::Error;

use crate::domain::{Currency, DurationError, Rate, Source, Timestamp, parse_duration};

/// The longest duration of a setting: one year.
pub(super) const LONGEST_DURATION: Duration = Duration::from_hours(366 * 24);

/// The shortest collapse window or stale limit.
pub(super) const SHORTEST_DURATION: Duration = Duration::from_secs(1);
/// The largest preference.
const PREFERENCE_MAX: u32 = 1_000;

/// The listen address of the plain HTTP server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HttpListen {
    /// The server is off.
    Off,
    /// The server listens on this address and port.
    At(SocketAddr),
}

/// A duration for one source, or for all sources without a value of their own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceDuration {
    pub(super) source: Option<Source>,
    pub(super) duration: Duration,
}

/// Describes for an error message which sources a setting applies to.
pub(super) fn subject(source: Option<&Source>) -> String {
    source.map_or_else(|| "sources without a value of their own".to_owned(), |name| format!("source {name}"))
}

/// Why a setting does not accept a value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ValueError {
    /// The value is not a boolean.
    #[error("it is not a boolean; write true or false")]
    Switch,
    /// The value is not an address with a port.
    #[error("it is not an address with a port; write one like 127.0.0.1:50051 or [::1]:50051")]
    Address,
    /// The value is neither an address with a port nor `none`.
    #[error(
        "it is not an address with a port; write one like 127.0.0.1:8080 or [::1]:8080, or \"none\" for no HTTP server"
    )]
    HttpAddress,
    /// The value is not a time.
    #[error("it is not a time; write RFC 3339 like 2025-12-08T09:30:00Z, or a date like 2025-12-08")]
    Time,
    /// The value is not a duration of fixed length, or is outside the range of the setting.
    #[error(transparent)]
    Duration(#[from] DurationError),
    /// The value is not a TOML string.
    #[error(
        "it is not a string; write it in quotes, like \"90s\", \"1h\", \"16:00\" or \"https://a.org\"; a duration needs a unit"
    )]
    Quotes,
    /// The value is not a time of day.
    #[error("it is not a time of day; write hours and minutes in the bank's time zone, like \"16:00\"")]
    TimeOfDay,
    /// The value is not a number of decimal places.
    #[error("it is not an integer from 0 to {max}; write one like 2", max = Rate::PLACES_MAX)]
    Places,
    /// The value is not a preference.
    #[error("it is not an integer from 1 to {PREFERENCE_MAX}; write 1 for the most preferred source")]
    Preference,
    /// The value is not a source with a number of decimal places.
    #[error("it is not SOURCE=N with N from 0 to {max}; write one like nbk=2", max = Rate::PLACES_MAX)]
    SourcePlaces,
    /// The value is neither a number nor `none`.
    #[error("it is not a factor; write a number above 1 like 5 or 2.5, or \"none\"")]
    RatioThreshold,
    /// A domain type refused the value, with this message.
    #[error("{0}")]
    Domain(String),
}

/// Parses a boolean. clap passes `true` for a flag without a value.
pub(super) fn parse_switch(text: &str) -> Result<bool, ValueError> {
    text.parse().map_err(|_| ValueError::Switch)
}

/// Parses an address with a port. `localhost` is 127.0.0.1; other names are refused, because they could name an address
/// of another machine.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, ValueError> {
    socket_address(text).ok_or(ValueError::Address)
}

fn socket_address(text: &str) -> Option<SocketAddr> {
    let port = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    port.map(|port: u16| (Ipv4Addr::LOCALHOST, port).into()).or_else(|| text.parse().ok())
}

pub(super) fn parse_http_listen(text: &str) -> Result<HttpListen, ValueError> {
    if text == "none" {
        return Ok(HttpListen::Off);
    }
    socket_address(text).map(HttpListen::At).ok_or(ValueError::HttpAddress)
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
    Ok(SourceDuration { source, duration: parse_duration(duration, SHORTEST_DURATION, LONGEST_DURATION)? })
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

pub(super) fn parse_preference(rank: Option<u32>) -> Result<u32, ValueError> {
    rank.filter(|rank| (1..=PREFERENCE_MAX).contains(rank)).ok_or(ValueError::Preference)
}

/// Parses a time of day such as `16:00`.
pub(super) fn parse_time_of_day(text: &str) -> Result<NaiveTime, ValueError> {
    let time = NaiveTime::parse_from_str(text, "%H:%M").ok().filter(|_| text.len() == "16:00".len());
    time.ok_or(ValueError::TimeOfDay)
}
