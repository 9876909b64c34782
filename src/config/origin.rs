//! Origins of pages, as browsers name them.

use std::fmt;

use http::Uri;
use thiserror::Error;

/// The most characters of a scheme, a host name and a port together.
const ORIGIN_CHARS_MAX: usize = 300;

/// A page's origin, in the very form in which browsers send it; or any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CorsOrigin {
    /// Whatever page.
    Any,
    /// `https://dash.example.org`, `http://localhost:3000`.
    Page(String),
}

/// Why a text is no origin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OriginError {
    /// No scheme and host.
    #[error("it is no origin; write one like https://dash.example.org or http://localhost:3000, or * for any")]
    Malformed,
    /// More than an origin.
    #[error("an origin ends with its host or port; write {0} without what follows")]
    TooLong(String),
    /// A form that no browser sends, so that it would allow nobody.
    #[error("browsers send another form of it; write {0}")]
    Form(String),
}

impl CorsOrigin {
    /// Reads `*`, or scheme, host and, where it is not the scheme's own, port.
    ///
    /// # Errors
    /// [`OriginError`], with the form that would be right where it can be told.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let uri: Uri = text.parse().map_err(|_| OriginError::Malformed)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(OriginError::Malformed);
        };
        let own_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(OriginError::Malformed),
        };
        if text.len() > ORIGIN_CHARS_MAX || authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(OriginError::Malformed);
        }
        let host = authority.host().to_ascii_lowercase();
        let sent = match authority.port() {
            None if authority.as_str().contains(']') || !authority.as_str().contains(':') => {
                format!("{scheme}://{host}")
            }
            // A colon with nothing sensible after it.
            None => return Err(OriginError::Malformed),
            Some(port) if port.as_u16() == own_port => format!("{scheme}://{host}"),
            Some(port) => format!("{scheme}://{host}:{}", port.as_u16()),
        };
        if text == sent {
            Ok(Self::Page(sent))
        } else if text.strip_prefix(sent.as_str()).is_some_and(|rest| rest.starts_with(['/', '?', '#'])) {
            Err(OriginError::TooLong(sent))
        } else {
            Err(OriginError::Form(sent))
        }
    }

    /// Whether a page of this origin, as its browser sends it, is meant.
    pub fn allows(&self, sent: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Page(page) => page.as_bytes() == sent,
        }
    }
}

impl fmt::Display for CorsOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "*",
            Self::Page(page) => page,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_browsers_send() {
        let check = |text: &str, expect: Result<&str, &str>| match (CorsOrigin::parse(text), expect) {
            (Ok(origin), Ok(shown)) => assert_eq!(origin.to_string(), shown),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
            (found, _) => panic!("{text}: {found:?}"),
        };
        for good in
            ["*", "https://dash.example.org", "http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:8080"]
        {
            check(good, Ok(good));
        }
        for bad in [
            "",
            "null",
            "dash.example.org",
            "localhost:3000",
            "ftp://a",
            "http://",
            "http://a:",
            "http://a:b",
            "http://me@a",
            "a b",
        ] {
            check(bad, Err("write one like https://dash.example.org"));
        }
        check("https://a.org/", Err("write https://a.org without what follows"));
        check("https://a.org/page?x", Err("write https://a.org without what follows"));
        check("https://A.org", Err("browsers send another form of it; write https://a.org"));
        check("https://a.org:443", Err("write https://a.org"));
        check("http://a.org:80", Err("write http://a.org"));
        check(&format!("http://{}.org", "a".repeat(300)), Err("no origin"));
    }
}
