//! The cookie that keeps the token of a browser.
//!
//! **Invariant**: scripts cannot read the cookie (`HttpOnly`), and a browser sends it only with requests that begin on
//! the page itself (`SameSite=Strict`). Over TLS, it is never sent in plain text (`Secure`), and no other host can set it
//! (the prefix `__Host-`).

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};

/// How long a browser keeps the cookie: 30 days, in seconds. A token that expires earlier is refused earlier.
const AGE_S: u32 = 30 * 24 * 3_600;

fn name(is_tls: bool) -> &'static str {
    if is_tls { "__Host-silkrate" } else { "silkrate" }
}

/// Returns the token in the cookies of a request.
pub(super) fn token(headers: &HeaderMap, is_tls: bool) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(other, _)| *other == name(is_tls)).map(|(_, token)| token).filter(|token| !token.is_empty())
}

/// Returns the `Set-Cookie` that keeps `token`; `None` if the token has characters that no token has.
pub(super) fn keep(token: &str, is_tls: bool) -> Option<HeaderValue> {
    let is_safe = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let mut value = is_safe.then(|| set(token, is_tls, AGE_S))?;
    value.set_sensitive(true);
    Some(value)
}

/// Returns the `Set-Cookie` that removes the cookie.
pub(super) fn remove(is_tls: bool) -> HeaderValue {
    set("", is_tls, 0)
}

fn set(token: &str, is_tls: bool, age_s: u32) -> HeaderValue {
    let secure = if is_tls { "; Secure" } else { "" };
    let text = format!("{}={token}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict{secure}", name(is_tls));
    // The characters of the token are checked, so this value is always valid.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookie_is_read_from_its_own_name_only() {
        let check = |cookies: &[&'static str], is_tls: bool, expect: Option<&str>| {
            let mut headers = HeaderMap::new();
            for value in cookies {
                headers.append(COOKIE, HeaderValue::from_static(value));
            }
            assert_eq!(token(&headers, is_tls), expect, "{cookies:?}");
        };
        check(&["silkrate=abc"], false, Some("abc"));
        check(&["a=b; silkrate=abc; c=d"], false, Some("abc"));
        check(&["a=b", "silkrate=abc"], false, Some("abc"));
        check(&["__Host-silkrate=abc"], true, Some("abc"));
        // Another host of the domain could set the name without prefix.
        check(&["silkrate=abc"], true, None);
        check(&["silkrate="], false, None);
        check(&["notsilkrate=abc"], false, None);
        check(&[], false, None);
    }

    #[test]
    fn kept_cookie_has_all_flags() {
        let text = |value: Option<HeaderValue>| value.map(|value| value.to_str().unwrap().to_owned());
        let flags = "Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict";
        assert_eq!(text(keep("abc", false)), Some(format!("silkrate=abc; {flags}")));
        assert_eq!(text(keep("abc", true)), Some(format!("__Host-silkrate=abc; {flags}; Secure")));
        assert_eq!(text(keep("a; Domain=example.org", true)), None);
    }
}
