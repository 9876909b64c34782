//! Currencies: ISO 4217 codes, and the set of currencies that a server accepts.
//!
//! **Invariant**: a [`Currency`] is the ISO 4217 code of a currency.

use std::fmt;

use thiserror::Error;

use super::time::truncate_for_display;

/// An ISO 4217 code: three upper-case letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

/// Why a text is not a currency that the server accepts.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CurrencyError {
    /// The text is not three upper-case letters.
    #[error("currency '{0}' is not a code of three upper-case letters; write one like KGS")]
    Malformed(String),
    /// The code is not in ISO 4217, or does not mean a currency: XTS is for tests, and XXX is for no currency.
    #[error("currency '{0}' is not in ISO 4217")]
    NotIso(String),
    /// The code is valid, but this server does not accept the currency.
    #[error("currency '{code}' is not served here; the served currencies are {served}")]
    NotServed {
        /// The code of the currency.
        code: Currency,
        /// The codes of the served currencies, separated by commas.
        served: String,
    },
}

impl Currency {
    /// The United States dollar. Cross rates are derived through it.
    pub const USD: Self = Self(*b"USD");

    /// Parses an ISO 4217 code.
    ///
    /// # Errors
    /// `Malformed` if the text is not three upper-case letters; `NotIso` if it is not the code of a currency.
    pub fn parse(text: &str) -> Result<Self, CurrencyError> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_uppercase) => match iso_currency::Currency::from_code(text) {
                // The standard's list also has codes for testing (XTS) and for no currency (XXX).
                Some(iso_currency::Currency::XXX | iso_currency::Currency::XTS) | None => {
                    Err(CurrencyError::NotIso(truncate_for_display(text)))
                }
                Some(_) => Ok(Self(code)),
            },
            _ => Err(CurrencyError::Malformed(truncate_for_display(text))),
        }
    }

    /// Returns the code.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }

    /// Returns the English name of the currency in ISO 4217.
    pub fn name(&self) -> String {
        iso_currency::Currency::from_code(self.code()).map_or(String::new(), |currency| currency.name().to_owned())
    }

    /// Returns the code as ASCII bytes.
    pub const fn bytes(self) -> [u8; 3] {
        self.0
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// The currencies that a server accepts, without duplicates, sorted by code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrencySet(Vec<Currency>);

impl CurrencySet {
    /// Returns the default set: KGS, KZT, TJS, TMT, USD and UZS.
    pub fn central_asia() -> Self {
        Self([*b"KGS", *b"KZT", *b"TJS", *b"TMT", *b"USD", *b"UZS"].map(Currency).to_vec())
    }

    /// Makes a set of exactly these currencies.
    pub fn new(mut currencies: Vec<Currency>) -> Self {
        currencies.sort_unstable();
        currencies.dedup();
        Self(currencies)
    }

    /// Returns the set with the currencies of `more` added.
    #[must_use]
    pub fn with(mut self, more: impl IntoIterator<Item = Currency>) -> Self {
        self.0.extend(more);
        Self::new(self.0)
    }

    /// Parses the code of a currency in this set.
    ///
    /// # Errors
    /// `Malformed` or `NotIso` if the text is not the code of a currency; `NotServed` if it is not in the set.
    pub fn parse(&self, text: &str) -> Result<Currency, CurrencyError> {
        // The codes of the set are valid, so the common case needs no lookup in the table of ISO 4217.
        if let Some(known) = self.0.iter().find(|known| known.code() == text) {
            return Ok(*known);
        }
        let code = Currency::parse(text)?;
        Err(CurrencyError::NotServed { code, served: self.to_string() })
    }
}

impl CurrencySet {
    /// Iterates over the currencies, sorted by code.
    pub fn iter(&self) -> impl Iterator<Item = Currency> + '_ {
        self.0.iter().copied()
    }
}

impl fmt::Display for CurrencySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes: Vec<&str> = self.0.iter().map(Currency::code).collect();
        f.write_str(&codes.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn currency_set_refuses_currencies_that_are_not_served() {
        let served = CurrencySet::central_asia();
        let check = |text: &str, expect: &str| {
            let answer = served.parse(text).map_or_else(|error| error.to_string(), |code| code.to_string());
            assert!(answer.contains(expect), "{text}: {answer}");
        };
        check("KGS", "KGS");
        check("kgs", "three upper-case letters");
        check("XXX", "not in ISO 4217");
        check("QQQ", "not in ISO 4217");
        check("EUR", "not served here; the served currencies are KGS, KZT, TJS, TMT, USD, UZS");
        check("", "three upper-case letters");
        check("ÄS", "three upper-case letters");
        assert!(served.with([Currency::parse("EUR").unwrap()]).parse("EUR").is_ok());
    }
}
