//! Pairs, sources and series. A series is one pair from one source.
//!
//! **Invariant**: a pair has two different currencies, and a source is a valid slug.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::currency::{Currency, CurrencyError, CurrencySet};
use super::time::truncate_for_display;

/// A base and a quote currency, which differ. A rate is the number of units of quote for one unit of base.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair {
    base: Currency,
    quote: Currency,
}

/// Why a text or two currencies are not a pair.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PairError {
    /// The text is not two codes separated by a slash.
    #[error("pair '{0}' is not two currencies separated by a slash; write it like KGS/USD")]
    Malformed(String),
    /// One of the codes is invalid or not served.
    #[error("pair '{text}': {problem}")]
    Currency {
        /// The text of the pair, truncated for display.
        text: String,
        /// What is wrong with the code.
        problem: CurrencyError,
    },
    /// Base and quote are the same currency.
    #[error("pair '{0}' has the same currency twice")]
    Same(String),
}

impl Pair {
    /// Makes a pair of two different currencies.
    ///
    /// # Errors
    /// Returns `PairError::Same` if base and quote are equal.
    pub fn new(base: Currency, quote: Currency) -> Result<Self, PairError> {
        if base == quote {
            return Err(PairError::Same(format!("{base}/{quote}")));
        }
        Ok(Self { base, quote })
    }

    /// Parses a pair such as `KGS/USD`, with both currencies in `served`.
    ///
    /// # Errors
    /// `Malformed` if the text is not two codes separated by a slash; `Currency` if a code is invalid or not served;
    /// `Same` if both codes are equal.
    pub fn parse(text: &str, served: &CurrencySet) -> Result<Self, PairError> {
        Self::parse_with(text, |code| served.parse(code))
    }

    /// Parses a pair as people write it: also `kgs/usd`, `KGS-USD` or `KGSUSD`; see [`Self::respell`].
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_spelling(text: &str, served: &CurrencySet) -> Result<Self, PairError> {
        Self::parse(&Self::respell(text), served)
    }

    /// Returns `KGS/USD` for `kgs/usd`, `KGS-USD`, `kgsusd` and the like. Any other text is returned unchanged.
    pub fn respell(text: &str) -> Cow<'_, str> {
        let (base, quote) = match text.split_once(['/', '-']) {
            Some(codes) => codes,
            None if text.is_ascii() && text.len() == 6 => text.split_at(3),
            None => return Cow::Borrowed(text),
        };
        let is_code = |code: &str| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_alphabetic());
        let is_canonical =
            text.len() == 7 && text.as_bytes()[3] == b'/' && !text.bytes().any(|byte| byte.is_ascii_lowercase());
        if is_canonical || !is_code(base) || !is_code(quote) {
            return Cow::Borrowed(text);
        }
        Cow::Owned(format!("{}/{}", base.to_ascii_uppercase(), quote.to_ascii_uppercase()))
    }

    /// Parses a pair of any two currencies of ISO 4217, served or not.
    ///
    /// # Errors
    /// `Malformed` if the text is not two codes separated by a slash; `Currency` if a code is invalid; `Same` if both
    /// codes are equal.
    pub fn parse_iso(text: &str) -> Result<Self, PairError> {
        Self::parse_with(text, Currency::parse)
    }

    fn parse_with(text: &str, currency: impl Fn(&str) -> Result<Currency, CurrencyError>) -> Result<Self, PairError> {
        let (base, quote) = text.split_once('/').ok_or_else(|| PairError::Malformed(truncate_for_display(text)))?;
        let currency =
            |code| currency(code).map_err(|problem| PairError::Currency { text: truncate_for_display(text), problem });
        Self::new(currency(base)?, currency(quote)?)
    }

    /// The base currency. A rate is the price of one unit of this currency.
    pub const fn base(self) -> Currency {
        self.base
    }

    /// The quote currency. A rate is a number of units of this currency.
    pub const fn quote(self) -> Currency {
        self.quote
    }

    /// Returns the pair with base and quote exchanged.
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

/// The publisher of a quote: a slug of 1 to 32 characters from a-z, 0-9 and `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(Arc<str>);

/// The error for a text that is not a valid slug.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("source '{0}' is not a slug of 1 to 32 characters from a-z, 0-9 and '-'; write one like timesca")]
pub struct SourceError(String);

impl Source {
    /// Largest number of characters of a slug.
    pub const LENGTH_MAX: usize = 32;

    /// Parses a slug.
    ///
    /// # Errors
    /// Returns a [`SourceError`], which contains the text, if the text is not a valid slug.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=Self::LENGTH_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(SourceError(truncate_for_display(text)))
        }
    }

    /// Returns the slug.
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

/// The key of a series: one pair from one source. Each series has its own order of ticks and its own storage.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SeriesKey {
    /// The pair of currencies.
    pub pair: Pair,
    /// The publisher of the quotes.
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
    fn usual_spellings_of_a_pair_are_one_pair() {
        for text in ["KGS/USD", "kgs/usd", "KGS-USD", "kgs-Usd", "KGSUSD", "kgsusd"] {
            assert_eq!(Pair::respell(text), "KGS/USD", "{text}");
        }
        for text in
            ["", "KGS", "KGSUSDX", "KGS USD", "KGS/US", "KGS--USD", "K1S/USD", "KGS/USD/KZT", "сомусд", "КГСUSD"]
        {
            assert_eq!(Pair::respell(text), text);
        }
    }

    #[test]
    fn pair_is_two_different_served_currencies() {
        let served = CurrencySet::central_asia();
        let check = |text: &str, expect: &str| {
            let answer = Pair::parse(text, &served).map_or_else(|error| error.to_string(), |pair| pair.to_string());
            assert!(answer.contains(expect), "{text}: {answer}");
        };
        check("KGS/USD", "KGS/USD");
        check("KGS/KGS", "has the same currency twice");
        check("XXX/USD", "'XXX' is not in ISO 4217");
        check("kgs/usd", "three upper-case letters");
        check("KGSUSD", "separated by a slash");
        check("KGS/USD/KZT", "three upper-case letters");
    }

    #[test]
    fn source_is_a_slug() {
        for good in ["timesca", "a", "nbk-2", &"x".repeat(32)] {
            assert_eq!(Source::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "Timesca", "a b", "ä", &"x".repeat(33), "a/b"] {
            assert!(Source::parse(bad).is_err(), "{bad}");
        }
    }
}
