//! The built-in page: what each currency is worth, whether that is fresh, and whether it moves.
//!
//! **Invariants**: a page loads nothing but what this server sends, and runs no script but its own: the
//! Content-Security-Policy says so. It says all it has to say without script; script keeps it live.

mod assets;
mod chart;
mod chart_parameters;
mod data_table;
mod event;
mod labels;
mod latest;
mod layout;
mod live;
mod pair;
mod scale;
mod table;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use maud::{Markup, html};
use tokio::sync::Semaphore;

use super::Site;
use super::problem::status_of;
use crate::api::{ErrorDetail, ServiceError};
use latest::LatestCache;

/// Browsers that are kept live at one time.
const LIVE_STREAMS_MAX: usize = 1_000;
/// Charts read and drawn at one time; more wait.
const CHARTS_MAX: usize = 2;

/// Nothing from elsewhere, nothing inline, no forms, no frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// What the pages share.
struct Page {
    site: Site,
    latest: LatestCache,
    live_streams: Arc<Semaphore>,
    charts: Semaphore,
}

/// The routes of the page.
pub(super) fn routes(site: Site) -> Router {
    let page = Page {
        site,
        latest: LatestCache::default(),
        live_streams: Arc::new(Semaphore::new(LIVE_STREAMS_MAX)),
        charts: Semaphore::new(CHARTS_MAX),
    };
    Router::new()
        .route("/", get(index))
        .route("/pair/{base}/{quote}", get(pair::pair))
        .route("/live", get(live::live))
        .route("/assets/{name}", get(assets::asset))
        .with_state(Arc::new(page))
}

async fn index(State(page): State<Arc<Page>>) -> Response {
    match page.latest.newest(&page.site).await {
        Ok(latest) => respond(StatusCode::OK, &layout::page("Latest rates", &latest.page())),
        Err(error) => failure(&error),
    }
}

/// A page that no cache may show again, since it is true for a moment only.
fn respond(status: StatusCode, markup: &Markup) -> Response {
    let headers = [
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    ];
    (status, headers, axum::response::Html(markup.0.clone())).into_response()
}

/// An error as a page, with the status that says the same.
fn failure(error: &ServiceError) -> Response {
    let (code, detail) = error.answered();
    let (status, _) = status_of(code);
    let mut response = problem(status, &error.to_string());
    if let ErrorDetail::RetryAfter(after) = detail {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    response
}

/// A small page that says what is wrong and where to go on.
fn problem(status: StatusCode, text: &str) -> Response {
    let title = match status {
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::BAD_REQUEST => "This address does not work",
        StatusCode::SERVICE_UNAVAILABLE => "Not now",
        _ => "Something failed",
    };
    let body = html! {
        h1 { (title) }
        p class="problem" { (text) }
        p { a href="/" { "All latest rates" } }
    };
    respond(status, &layout::page(title, &body))
}
