//! Pairs, sources, and the series that the two make.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::currency::{Currency, CurrencyError, CurrencySet};
use super::time::truncate_for_display;

/// Base and quote, two different currencies. A rate is units of quote for one unit of base.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    base: Currency,
    quote: Currency,
}

/// Why a text is no pair.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PairError {
    /// Not two codes around a slash.
    #[error("pair '{0}' is not two currencies around a slash, like KGS/USD")]
    Malformed(String),
    /// One of the codes is bad.
    #[error("pair '{text}': {problem}")]
    Currency {
        /// As given, clipped.
        text: String,
        /// What is wrong with the code.
        problem: CurrencyError,
    },
    /// A currency with itself.
    #[error("pair '{0}' is of one currency with itself")]
    Same(String),
}

impl Pair {
    /// Two different currencies.
    ///
    /// # Errors
    /// `Same`.
    pub fn new(base: Currency, quote: Currency) -> Result<Self, PairError> {
        if base == quote {
            return Err(PairError::Same(format!("{base}/{quote}")));
        }
        Ok(Self { base, quote })
    }

    /// Reads `KGS/USD`, of currencies in `served`.
    ///
    /// # Errors
    /// Any [`PairError`].
    pub fn parse(text: &str, served: &CurrencySet) -> Result<Self, PairError> {
        let (base, quote) = text.split_once('/').ok_or_else(|| PairError::Malformed(truncate_for_display(text)))?;
        let currency = |code| {
            served.parse(code).map_err(|problem| PairError::Currency { text: truncate_for_display(text), problem })
        };
        Self::new(currency(base)?, currency(quote)?)
    }

    /// What one unit of is priced.
    pub const fn base(self) -> Currency {
        self.base
    }

    /// What it is priced in.
    pub const fn quote(self) -> Currency {
        self.quote
    }

    /// Quote and base changed round.
    #[must_use]
    pub const fn inverse(self) -> Self {
        Self { base: self.quote, quote: self.base }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.quote)
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who published a quote: a slug of 1 to 32 characters out of a-z, 0-9 and `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(Arc<str>);

/// A text that is no slug.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("source '{0}' is not a slug of 1 to 32 characters out of a-z, 0-9 and '-', like timesca")]
pub struct SourceError(String);

impl Source {
    /// Most characters of a slug.
    pub const LENGTH_MAX: usize = 32;

    /// Checks a slug.
    ///
    /// # Errors
    /// [`SourceError`] naming the text.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=Self::LENGTH_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(SourceError(truncate_for_display(text)))
        }
    }

    /// The slug.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One pair from one source: the unit of order and storage.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SeriesKey {
    /// The pair.
    pub pair: Pair,
    /// Who published it.
    pub source: Source,
}

impl fmt::Display for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.pair, self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        let served = CurrencySet::central_asia();
        let check = |text: &str, expect: &str| {
            let answer = Pair::parse(text, &served).map_or_else(|error| error.to_string(), |pair| pair.to_string());
            assert!(answer.contains(expect), "{text}: {answer}");
        };
        check("KGS/USD", "KGS/USD");
        check("KGS/KGS", "one currency with itself");
        check("XXX/USD", "'XXX' is not in ISO 4217");
        check("kgs/usd", "three upper-case letters");
        check("KGSUSD", "around a slash");
        check("KGS/USD/KZT", "three upper-case letters");
    }

    #[test]
    fn sources() {
        for good in ["timesca", "a", "nbk-2", &"x".repeat(32)] {
            assert_eq!(Source::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "Timesca", "a b", "ä", &"x".repeat(33), "a/b"] {
            assert!(Source::parse(bad).is_err(), "{bad}");
        }
    }
}
