//! ISO 4217 codes, and which of them are served.

use std::fmt;

use thiserror::Error;

use super::time::truncate_for_display;

/// An ISO 4217 code, three upper-case letters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

/// Why a text names no currency that is served.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CurrencyError {
    /// Not three upper-case letters.
    #[error("currency '{0}' is not a code of three upper-case letters, like KGS")]
    Malformed(String),
    /// Not in ISO 4217.
    #[error("currency '{0}' is not in ISO 4217")]
    NotIso(String),
    /// A currency, but none that this server takes.
    #[error("currency '{code}' is not served here; served are {served}")]
    NotServed {
        /// As given.
        code: Currency,
        /// The codes that are.
        served: String,
    },
}

impl Currency {
    /// The United States dollar, through which crosses go.
    pub const USD: Self = Self(*b"USD");

    /// The code of an ISO currency.
    ///
    /// # Errors
    /// `Malformed` or `NotIso`.
    pub fn parse(text: &str) -> Result<Self, CurrencyError> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_uppercase) => match iso_currency::Currency::from_code(text) {
                // The codes for tests and for no currency at all are in the standard's list.
                Some(iso_currency::Currency::XXX | iso_currency::Currency::XTS) | None => {
                    Err(CurrencyError::NotIso(truncate_for_display(text)))
                }
                Some(_) => Ok(Self(code)),
            },
            _ => Err(CurrencyError::Malformed(truncate_for_display(text))),
        }
    }

    /// The three letters.
    pub fn code(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("???")
    }

    /// Its name in English, as ISO has it.
    pub fn name(&self) -> String {
        iso_currency::Currency::from_code(self.code()).map_or(String::new(), |currency| currency.name().to_owned())
    }

    /// The three letters as bytes.
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

/// The currencies that a server takes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurrencySet(Vec<Currency>);

impl CurrencySet {
    /// The five currencies of Central Asia and the dollar.
    pub fn central_asia() -> Self {
        Self([*b"KGS", *b"KZT", *b"TJS", *b"TMT", *b"USD", *b"UZS"].map(Currency).to_vec())
    }

    /// These and no others.
    pub fn new(mut currencies: Vec<Currency>) -> Self {
        currencies.sort_unstable();
        currencies.dedup();
        Self(currencies)
    }

    /// With more of them.
    #[must_use]
    pub fn with(mut self, more: impl IntoIterator<Item = Currency>) -> Self {
        self.0.extend(more);
        Self::new(self.0)
    }

    /// A currency of this set.
    ///
    /// # Errors
    /// Any [`CurrencyError`].
    pub fn parse(&self, text: &str) -> Result<Currency, CurrencyError> {
        // Served codes were checked when the set was made: the common case needs no look at ISO's table.
        if let Some(known) = self.0.iter().find(|known| known.code() == text) {
            return Ok(*known);
        }
        let code = Currency::parse(text)?;
        Err(CurrencyError::NotServed { code, served: self.to_string() })
    }
}

impl CurrencySet {
    /// All of them, by code.
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
    fn only_served_currencies_pass() {
        let served = CurrencySet::central_asia();
        let check = |text: &str, expect: &str| {
            let answer = served.parse(text).map_or_else(|error| error.to_string(), |code| code.to_string());
            assert!(answer.contains(expect), "{text}: {answer}");
        };
        check("KGS", "KGS");
        check("kgs", "three upper-case letters");
        check("XXX", "not in ISO 4217");
        check("QQQ", "not in ISO 4217");
        check("EUR", "not served here; served are KGS, KZT, TJS, TMT, USD, UZS");
        check("", "three upper-case letters");
        check("ÄS", "three upper-case letters");
        assert!(served.with([Currency::parse("EUR").unwrap()]).parse("EUR").is_ok());
    }
}
