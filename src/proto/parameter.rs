//! How fields of requests are read from the parameters of a query. `build.rs` names these functions in the attributes of
//! fields.
//!
//! **Invariant**: an error says what is wrong with the text; which field it is of is known to who reads the request.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::{convert, v1};
use crate::domain::{Span, Timestamp};

/// RFC 3339, or a date.
///
/// # Errors
/// The text is no time.
pub fn timestamp<'de, D: Deserializer<'de>>(text: D) -> Result<Option<prost_types::Timestamp>, D::Error> {
    let text = String::deserialize(text)?;
    let time = Timestamp::parse(&text).map_err(|problem| {
        // A plus sign stands for a blank in a query, which nobody remembers.
        let hint = if text.contains(' ') { "; a + is written %2B in a URL" } else { "" };
        D::Error::custom(format!("{problem}{hint}"))
    })?;
    Ok(Some(convert::timestamp(time)))
}

/// A span of a fixed length, like `2d`.
///
/// # Errors
/// The text is no such span.
pub fn duration<'de, D: Deserializer<'de>>(text: D) -> Result<Option<prost_types::Duration>, D::Error> {
    Ok(Some(convert::duration(span::<D>(text)?.micros().map_err(D::Error::custom)?)))
}

/// The number of an enum's value.
///
/// # Errors
/// The text names none.
pub fn number<'de, E: Deserialize<'de> + Into<i32>, D: Deserializer<'de>>(text: D) -> Result<i32, D::Error> {
    Ok(E::deserialize(text)?.into())
}

/// The numbers of several values of an enum.
///
/// # Errors
/// One of the texts names none.
pub fn numbers<'de, E: Deserialize<'de> + Into<i32>, D: Deserializer<'de>>(list: D) -> Result<Vec<i32>, D::Error> {
    Ok(Vec::<E>::deserialize(list)?.into_iter().map(Into::into).collect())
}

fn span<'de, D: Deserializer<'de>>(text: D) -> Result<Span, D::Error> {
    String::deserialize(text)?.parse().map_err(D::Error::custom)
}

impl<'de> Deserialize<'de> for v1::Window {
    /// From a span, like `1mo`.
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        Self::try_from(span::<D>(text)?).map_err(D::Error::custom)
    }
}
