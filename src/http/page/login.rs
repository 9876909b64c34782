//! The login form: a browser sends its token once, and keeps it in a cookie.
//!
//! **Invariants**: the form works without a script. A form of another site can neither log a browser in nor out. The
//! page after a login is on this server.

use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, LOCATION, ORIGIN, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE,
    WWW_AUTHENTICATE,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, html};

use super::{Page, layout};
use crate::access::needs::Need;
use crate::access::tokens::SECRET_CHARS_MAX;
use crate::access::{Peer, Presented, Refusal, Role};
use crate::api::{ErrorDetail, ServiceError};
use crate::http::cookie;
use crate::http::problem::{CHALLENGE, status_of};
use crate::http::security::LOGIN_BYTES_MAX;

/// The policy of the form: it loads only the style sheet, and is sent only to this server.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";
/// Browsers state here whether a request begins on a page of this server.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Length of the path to which a login leads.
const NEXT_BYTES_MAX: usize = 2_048;

/// `GET /login`: the form, or the page if no token is needed.
pub(super) async fn show(
    State(page): State<Arc<Page>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    if page.site.settings.access.is_open() {
        return redirect("/");
    }
    form(StatusCode::OK, "", "/", cookie::token(&headers, peer.is_tls).is_some())
}

/// `POST /login`: checks the token, and keeps it in a cookie.
pub(super) async fn submit(
    State(page): State<Arc<Page>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    if !is_same_origin(request.headers(), request.uri()) {
        return form(StatusCode::FORBIDDEN, "The form was sent from another site. Send it from this page.", "/", false);
    }
    let Ok(body) = to_bytes(request.into_body(), LOGIN_BYTES_MAX).await else {
        return form(StatusCode::PAYLOAD_TOO_LARGE, "The form is too large.", "/", false);
    };
    let field = |name: &str| form_urlencoded::parse(&body).find(|(other, _)| other == name).map(|(_, value)| value);
    let (token, next) = (field("token").unwrap_or_default(), field("next").unwrap_or_default());
    let next = own_path(&next);
    let token = token.trim();
    let access = &page.site.settings.access;
    if let Err(refusal) = access.authorize(Some(Need::Role(Role::Read)), &peer, Presented::Secret(token)) {
        return refused(&refusal, next);
    }
    let mut response = redirect(next);
    if let Some(kept) = cookie::keep(token, peer.is_tls) {
        response.headers_mut().insert(SET_COOKIE, kept);
    }
    response
}

/// `POST /logout`: removes the cookie. The token stays valid.
pub(super) async fn logout(Extension(peer): Extension<Peer>, request: Request) -> Response {
    if !is_same_origin(request.headers(), request.uri()) {
        return form(StatusCode::FORBIDDEN, "The form was sent from another site. Send it from this page.", "/", false);
    }
    let mut response = redirect("/login");
    response.headers_mut().insert(SET_COOKIE, cookie::remove(peer.is_tls));
    response
}

/// Returns the form in place of a page that the client may not read. `next` is the path of the page.
pub(in crate::http) fn refused(refusal: &Refusal, next: &str) -> Response {
    let (code, detail) = ServiceError::from(refusal.clone()).describe();
    let text = if matches!(refusal, Refusal::Missing { .. }) {
        // The form itself asks for a token.
        String::new()
    } else if matches!(refusal, Refusal::UnknownToken | Refusal::Malformed) {
        "This token is unknown or was revoked.".to_owned()
    } else {
        refusal.to_string()
    };
    let mut response = form(status_of(code).0, &text, own_path(next), false);
    if let ErrorDetail::RetryAfter(after) = detail {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    response
}

/// Returns true if a form was sent from a page of this server.
fn is_same_origin(headers: &HeaderMap, uri: &Uri) -> bool {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text(&FETCH_SITE) {
        return site == "same-origin";
    }
    // Older browsers, and pages without TLS. The host is in the path of HTTP/2 requests.
    let host = uri.authority().map(Authority::as_str).or_else(|| text(&HOST));
    let origin = text(&ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    origin.is_some() && origin == host
}

/// Returns `path` if it is a path on this server, else `/`.
fn own_path(path: &str) -> &str {
    let is_own = path.starts_with('/')
        && !path.starts_with("//")
        && path.len() <= NEXT_BYTES_MAX
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_own { path } else { "/" }
}

fn redirect(path: &str) -> Response {
    let location = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(LOCATION, location), (CACHE_CONTROL, HeaderValue::from_static("no-store"))])
        .into_response()
}

fn form(status: StatusCode, problem: &str, next: &str, has_cookie: bool) -> Response<Body> {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            // Without a script.
            (layout::head("Sign in", &html! {}))
            body {
                header { span class="brand" { "silkrate" } }
                main id="main" {
                    h1 { "Sign in" }
                    @if !problem.is_empty() { p class="problem" role="alert" { (problem) } }
                    form class="login" method="post" action="/login" {
                        input type="hidden" name="next" value=(next);
                        label for="token" { "Token" }
                        input id="token" name="token" type="password" autocomplete="current-password" required
                            maxlength=(SECRET_CHARS_MAX) autofocus;
                        button type="submit" { "Sign in" }
                    }
                    p { "The operator of this server creates tokens with " code { "silkrate token create" } "." }
                    @if has_cookie {
                        form class="login" method="post" action="/logout" { button type="submit" { "Sign out" } }
                    }
                }
            }
        }
    };
    let mut response = (status, axum::response::Html(markup.0)).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // With `no-referrer`, browsers would not state the origin of the form.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, CHALLENGE);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_leads_only_to_this_server() {
        for own in ["/", "/pair/KGS/USD?from=2025-12-01"] {
            assert_eq!(own_path(own), own);
        }
        for other in ["", "https://evil.example", "//evil.example", "/\\evil.example", "/a\r\nset-cookie: x", "pair"] {
            assert_eq!(own_path(other), "/", "{other}");
        }
    }

    #[test]
    fn form_of_another_site_is_refused() {
        let check = |headers: &[(&'static str, &'static str)], expect: bool| {
            let headers =
                headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            let found = is_same_origin(&headers.collect(), &Uri::from_static("/login"));
            assert_eq!(found, expect);
        };
        check(&[("host", "a:8080"), ("origin", "http://a:8080")], true);
        check(&[("host", "a:8080"), ("sec-fetch-site", "same-origin")], true);
        check(&[("host", "a:8080"), ("origin", "http://evil.example")], false);
        check(&[("host", "a:8080"), ("origin", "http://a:9090")], false);
        check(&[("host", "a:8080"), ("origin", "null")], false);
        check(&[("host", "a:8080")], false);
        check(&[("host", "a:8080"), ("origin", "http://a:8080"), ("sec-fetch-site", "same-site")], false);
    }
}
