//! Access middleware: authorises each request by its header or its cookie, and ends the streams of a token that ends.
//!
//! **Invariant**: a request reaches a route only if its client may make it. A route without an entry in the table of
//! needs is refused.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, SET_COOKIE};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderValue, Response};
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use http_body::{Body as _, Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::problem::Problem;
use super::{cookie, page};
use crate::access::needs::{self, Need};
use crate::access::{Access, Peer, Presented, Refusal, Role};
use crate::api::ServiceError;

/// The routes of pages, which people open in a browser.
const PAGES: [&str; 3] = ["/", "/pair/{base}/{quote}", "/pair/{spelling}"];

/// Refuses requests that their client may not make.
pub(super) async fn check(State(access): State<Access>, mut request: Request, next: Next) -> Response<Body> {
    let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
    let need = match request.extensions().get::<MatchedPath>() {
        Some(route) => needs::route(route.as_str()),
        // The answer is 404. Only clients that may read learn which paths exist.
        None => Some(Need::Role(Role::Read)),
    };
    let header = request.headers_mut().remove(AUTHORIZATION);
    let kept = cookie::token(request.headers(), peer.is_tls).filter(|_| header.is_none());
    let presented = match kept {
        Some(token) => Presented::Secret(token),
        None => Presented::from_header(header.as_ref().map(HeaderValue::as_bytes)),
    };
    let principal = match access.authorize(need, &peer, presented) {
        Ok(principal) => principal,
        Err(refusal) => {
            let is_invalid = refusal.is_unauthenticated() || matches!(refusal, Refusal::TooManyFailures { .. });
            let mut response = refuse(&request, refusal);
            if kept.is_some() && is_invalid {
                // So that the browser does not send the invalid token again and again.
                response.headers_mut().insert(SET_COOKIE, cookie::remove(peer.is_tls));
            }
            return response;
        }
    };
    request.headers_mut().remove(COOKIE);
    let response = next.run(request).await;
    match principal.identity.ended() {
        // Other responses end by themselves.
        Some(ended) if response.body().size_hint().exact().is_none() => {
            let ended = Box::pin(ended.clone().cancelled_owned());
            response.map(|inner| Body::new(EndingBody { inner, ended }))
        }
        _ => response,
    }
}

/// Returns the answer to a refused request: the login form in place of a page, and a problem in place of anything else.
fn refuse(request: &Request, refusal: Refusal) -> Response<Body> {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    if route.is_some_and(|route| PAGES.contains(&route)) {
        let next = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        return page::refused(&refusal, next);
    }
    Problem::from(ServiceError::from(refusal)).into_response()
}

/// A stream that ends with the token of its request.
struct EndingBody {
    inner: Body,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl http_body::Body for EndingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
