//! Deserialization of request fields from the parameters of an HTTP query. `build.rs` names these functions in the
//! serde attributes of the fields.
//!
//! **Invariant**: an error states what is wrong with the text. The caller adds the name of the parameter.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::{convert, v1};
use crate::domain::{Span, Timestamp};

/// Parses a time: RFC 3339, or a date, which means its start in UTC.
///
/// # Errors
/// Returns an error if the text is not a valid time.
pub fn timestamp<'de, D: Deserializer<'de>>(text: D) -> Result<Option<prost_types::Timestamp>, D::Error> {
    let text = String::deserialize(text)?;
    let time = Timestamp::parse(&text).map_err(|problem| {
        // Decoding a URL query turns `+` into a space, so a space was often the plus sign of a UTC offset.
        let hint = if text.contains(' ') { "; a + is written %2B in a URL" } else { "" };
        D::Error::custom(format!("{problem}{hint}"))
    })?;
    Ok(Some(convert::timestamp(time)))
}

/// Parses a duration of fixed length, such as `2d`.
///
/// # Errors
/// Returns an error if the text is not a valid duration, or is in months or years.
pub fn duration<'de, D: Deserializer<'de>>(text: D) -> Result<Option<prost_types::Duration>, D::Error> {
    Ok(Some(convert::duration(span::<D>(text)?.micros().map_err(D::Error::custom)?)))
}

/// Parses the name of an enum value to its number.
///
/// # Errors
/// Returns an error if no value has this name.
pub fn number<'de, E: Deserialize<'de> + Into<i32>, D: Deserializer<'de>>(text: D) -> Result<i32, D::Error> {
    Ok(E::deserialize(text)?.into())
}

/// Parses the names of enum values to their numbers.
///
/// # Errors
/// Returns an error if a text is not the name of a value.
pub fn numbers<'de, E: Deserialize<'de> + Into<i32>, D: Deserializer<'de>>(list: D) -> Result<Vec<i32>, D::Error> {
    Ok(Vec::<E>::deserialize(list)?.into_iter().map(Into::into).collect())
}

fn span<'de, D: Deserializer<'de>>(text: D) -> Result<Span, D::Error> {
    String::deserialize(text)?.parse().map_err(D::Error::custom)
}

impl<'de> Deserialize<'de> for v1::Window {
    /// Parses a window from a span, such as `1mo`.
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        Self::try_from(span::<D>(text)?).map_err(D::Error::custom)
    }
}
