//! The built-in page: the table of latest rates with their states, and a chart for each pair.
//!
//! **Invariants**: a page loads resources only from this server and runs only its own script; the
//! Content-Security-Policy enforces this. All content except ages is in the HTML. The script only updates the content.

mod assets;
mod chart;
mod chart_controls;
mod chart_data;
mod chart_line;
mod chart_parameters;
mod chart_points;
mod chart_silences;
mod data_table;
mod downloads;
mod event;
mod grouping;
mod labels;
mod latest;
mod layout;
mod live;
mod login;
mod pair;
mod scale;
mod sections;
mod sparkline;
mod table;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use maud::{Markup, html};
use tokio::sync::Semaphore;

pub(super) use login::refused;

use super::Site;
use super::problem::status_of;
use crate::api::{ErrorDetail, ServiceError};
use latest::RenderingCache;

/// Maximum number of charts that are read and drawn at the same time. Further requests wait.
const CHARTS_MAX: usize = 2;

/// The Content-Security-Policy: no resources of other origins, no inline code, no forms, no frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// The shared state of the pages.
struct Page {
    site: Site,
    latest: RenderingCache,
    charts: Semaphore,
}

/// Returns the routes of the page.
pub(super) fn routes(site: Site) -> Router {
    let page = Page { site, latest: RenderingCache::default(), charts: Semaphore::new(CHARTS_MAX) };
    Router::new()
        .route("/", get(index))
        .route("/pair/{base}/{quote}", get(pair::pair))
        .route("/pair/{spelling}", get(pair::other_spelling))
        .route("/live", get(live::live))
        .route("/login", get(login::show).post(login::submit))
        .route("/logout", post(login::logout))
        .route("/assets/{name}", get(assets::asset))
        .with_state(Arc::new(page))
}

async fn index(State(page): State<Arc<Page>>) -> Response {
    match page.latest.newest(&page.site).await {
        Ok(latest) => respond(StatusCode::OK, &layout::page("Latest rates", &latest.page())),
        Err(error) => failure(&error),
    }
}

/// Returns a page that caches must revalidate, because its content changes at any time.
fn respond(status: StatusCode, markup: &Markup) -> Response {
    let headers = [
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    ];
    (status, headers, axum::response::Html(markup.0.clone())).into_response()
}

/// Returns the page of an error, with its HTTP status and `Retry-After`.
fn failure(error: &ServiceError) -> Response {
    let (code, detail) = error.log_and_describe();
    let (status, _) = status_of(code);
    let mut response = problem(status, &error.to_string());
    if let ErrorDetail::RetryAfter(after) = detail {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    response
}

/// Returns a page with an error text and a link to the latest rates.
fn problem(status: StatusCode, text: &str) -> Response {
    let title = match status {
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::BAD_REQUEST => "Invalid address",
        StatusCode::SERVICE_UNAVAILABLE => "Service unavailable",
        _ => "Error",
    };
    let body = html! {
        h1 { (title) }
        p class="problem" { (text) }
        p { a href="/" { "All latest rates" } }
    };
    respond(status, &layout::page(title, &body))
}
