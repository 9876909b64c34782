//! Origins of web pages that may read from the server (CORS).
//!
//! **Invariant**: the text of an origin is byte for byte what a browser sends in the `Origin` header.

use std::fmt;

use http::Uri;
use thiserror::Error;

/// Longest origin: scheme, host name and port.
const ORIGIN_CHARS_MAX: usize = 300;

/// An origin of web pages, or all origins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CorsOrigin {
    /// Pages of every origin.
    Any,
    /// Pages of one origin, such as `https://dash.example.org` or `http://localhost:3000`.
    Page(String),
}

/// Why a text is not a valid origin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OriginError {
    /// The text is not an http or https scheme with a host and an optional port.
    #[error("it is not an origin; write one like https://dash.example.org or http://localhost:3000, or * for any")]
    Malformed,
    /// A path, a query or a fragment follows the origin.
    #[error("an origin has no path, query or fragment; write {0}")]
    HasPath(String),
    /// The origin is in a form that browsers do not send, so it would match no page.
    #[error("browsers send this origin in another form; write {0}")]
    Form(String),
}

impl CorsOrigin {
    /// Parses `*`, or a scheme, a host and a port. The port must be absent if it is the default port of the scheme.
    ///
    /// # Errors
    /// `Malformed` if the text is not an origin. `HasPath` and `Form` contain the correct text of the origin.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let uri: Uri = text.parse().map_err(|_| OriginError::Malformed)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(OriginError::Malformed);
        };
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return Err(OriginError::Malformed),
        };
        if text.len() > ORIGIN_CHARS_MAX || authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(OriginError::Malformed);
        }
        let host = authority.host().to_ascii_lowercase();
        let canonical = match authority.port() {
            None if authority.as_str().contains(']') || !authority.as_str().contains(':') => {
                format!("{scheme}://{host}")
            }
            // A colon without a valid port after it.
            None => return Err(OriginError::Malformed),
            Some(port) if port.as_u16() == default_port => format!("{scheme}://{host}"),
            Some(port) => format!("{scheme}://{host}:{}", port.as_u16()),
        };
        if text == canonical {
            Ok(Self::Page(canonical))
        } else if text.strip_prefix(canonical.as_str()).is_some_and(|rest| rest.starts_with(['/', '?', '#'])) {
            Err(OriginError::HasPath(canonical))
        } else {
            Err(OriginError::Form(canonical))
        }
    }

    /// Returns true if pages that send the `Origin` header `header` may read from the server.
    pub fn allows(&self, header: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Page(page) => page.as_bytes() == header,
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
    fn origin_must_be_in_the_form_that_browsers_send() {
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
        check("https://a.org/", Err("an origin has no path, query or fragment; write https://a.org"));
        check("https://a.org/page?x", Err("an origin has no path, query or fragment; write https://a.org"));
        check("https://A.org", Err("browsers send this origin in another form; write https://a.org"));
        check("https://a.org:443", Err("write https://a.org"));
        check("http://a.org:80", Err("write http://a.org"));
        check(&format!("http://{}.org", "a".repeat(300)), Err("it is not an origin"));
    }
}
