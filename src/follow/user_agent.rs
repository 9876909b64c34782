//! The `User-Agent` header of fetches.

use reqwest::header::HeaderValue;
use thiserror::Error;

use crate::domain::truncate_for_display;

/// Maximum length of the header, in bytes.
const USER_AGENT_BYTES_MAX: usize = 200;

/// The `User-Agent` header of requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UserAgent(HeaderValue);

impl UserAgent {
    /// Parses the value of the header.
    ///
    /// # Errors
    /// Returns [`UserAgentError`] if the text is empty, too long, or has other characters than visible ASCII and spaces.
    pub fn parse(text: &str) -> Result<Self, UserAgentError> {
        let is_valid = (1..=USER_AGENT_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
            && text.trim() == text;
        let value = HeaderValue::from_str(text).ok().filter(|_| is_valid);
        value.map(Self).ok_or_else(|| UserAgentError(truncate_for_display(text)))
    }

    /// Returns the value of the header.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl Default for UserAgent {
    /// Returns `silkrate/VERSION`.
    fn default() -> Self {
        Self(HeaderValue::from_static(concat!("silkrate/", env!("CARGO_PKG_VERSION"))))
    }
}

/// The error for a text that cannot be a `User-Agent` header.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "'{0}' is not a user agent: write 1 to {max} visible ASCII characters, like 'my-bank-rates/1.0 (ops@example.org)'",
    max = USER_AGENT_BYTES_MAX
)]
pub struct UserAgentError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_agent_is_a_line_of_visible_characters() {
        let check = |text: &str, is_valid: bool| assert_eq!(UserAgent::parse(text).is_ok(), is_valid, "{text:?}");
        check("my-bank-rates/1.0 (ops@example.org)", true);
        check(&"a".repeat(USER_AGENT_BYTES_MAX), true);
        for bad in ["", " a", "a ", "a\nb", "a\tb", "сом", &"a".repeat(USER_AGENT_BYTES_MAX + 1)] {
            check(bad, false);
        }
    }
}
