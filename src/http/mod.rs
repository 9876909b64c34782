//! The plain HTTP API for clients without gRPC, such as dashboards, spreadsheets and curl. This module also serves the
//! built-in page.
//!
//! **Invariant**: no HTTP request changes the store, and requests with a body are refused, except the form of the login. Responses under `/v1` have the
//! content that [`Rates`] returns for the gRPC call of the same name.

mod access;
mod body;
mod calls;
mod connection;
mod cookie;
mod counted;
mod csv;
mod csv_cells;
mod descriptors;
mod entity_tag;
mod frankfurter;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod health;
mod latest_bodies;
mod listener;
mod metrics;
mod openapi;
mod page;
mod parameters;
mod problem;
mod responses;
mod schema;
mod security;
mod short_forms;
mod streaming;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Response, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse as _;
use axum::routing::get;

use crate::access::Access;
use crate::api::{CallerSlots, Rates};
use crate::domain::{Source, truncate_for_display};
use crate::ingest::Ingest;

pub use connection::Limits;
pub use descriptors::SchemaError;
use latest_bodies::LatestBodies;
pub use listener::serve;
pub use metrics::Scraped;
use problem::Problem;
use schema::{Call, Schema};
pub use security::Origins;
pub use streaming::STREAM_HEADERS;
use tokio_util::sync::CancellationToken;

/// The settings of plain HTTP.
#[derive(Clone)]
pub struct Settings {
    /// The origins whose pages may read responses.
    pub origins: Origins,
    /// The access control.
    pub access: Access,
    /// The source that answers under `/frankfurter` if several sources have a pair.
    pub frankfurter_source: Option<Source>,
}

/// The shared state of all routes. Cheap to clone.
#[derive(Clone)]
pub struct Site {
    rates: Arc<Rates>,
    ingest: Ingest,
    /// The metrics of `/metrics`.
    scraped: Arc<Scraped>,
    draining: CancellationToken,
    settings: Arc<Settings>,
    /// Hash of the settings that responses depend on. Part of every `ETag`, since another server over the same store
    /// may have other settings.
    settings_hash: u64,
    schema: Arc<Schema>,
    /// The constant responses of `/v1` and `/openapi.json`.
    documents: Documents,
    latest_bodies: Arc<LatestBodies>,
    /// A permit for each stream of live updates that may be opened.
    live_streams: CallerSlots,
}

#[derive(Clone)]
struct Documents {
    index: Bytes,
    openapi: Bytes,
}

impl Site {
    /// Creates the state of the routes. `rates` answers calls, `ingest` reports whether the writer has failed, and
    /// `draining` is cancelled when the server shuts down.
    ///
    /// # Errors
    /// Returns [`SchemaError`] if the descriptors built into this program are invalid.
    pub fn new(
        rates: Arc<Rates>,
        ingest: Ingest,
        scraped: Scraped,
        draining: CancellationToken,
        settings: Settings,
    ) -> Result<Self, SchemaError> {
        let schema = Schema::new()?;
        let mut hasher = DefaultHasher::new();
        (&settings.frankfurter_source, rates.rules(), rates.sources()).hash(&mut hasher);
        rates.currencies().iter().for_each(|currency| currency.hash(&mut hasher));
        let live_streams = CallerSlots::new(rates.limits().live_pages_max);
        Ok(Self {
            rates,
            ingest,
            scraped: Arc::new(scraped),
            draining,
            settings: Arc::new(settings),
            settings_hash: hasher.finish(),
            documents: Documents {
                index: openapi::index(&schema).to_string().into(),
                openapi: openapi::document(&schema).to_string().into(),
            },
            schema: Arc::new(schema),
            latest_bodies: Arc::default(),
            live_streams,
        })
    }
}

/// Returns the router with all routes.
pub fn router(site: Site) -> Router {
    let mut router = Router::new().route("/healthz", get(health::live)).route("/readyz", get(health::ready));
    router = router.route("/metrics", get(metrics::scrape));
    for call in Call::ALL {
        let answer = async move |State(site): State<Site>, request: Request| {
            calls::answer(&site, call, &request.into_parts().0).await.unwrap_or_else(Problem::into_response)
        };
        router = router.route(&format!("/v1/{}", call.name()), get(answer));
    }
    for path in frankfurter::PATHS {
        router = router.route(path, get(frankfurter::answer));
    }
    router = router.route("/v1", get(index)).route("/openapi.json", get(document));
    let (origins, access) = (site.settings.origins.clone(), site.settings.access.clone());
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(site.clone())
        .merge(page::routes(site.clone()))
        .layer(from_fn_with_state(access, access::check))
        .layer(from_fn_with_state(origins, security::secure))
        .layer(from_fn_with_state(site, metrics::measure))
}

async fn index(State(site): State<Site>) -> Response<Body> {
    ([(CONTENT_TYPE, "application/json")], site.documents.index).into_response()
}

async fn document(State(site): State<Site>) -> Response<Body> {
    ([(CONTENT_TYPE, "application/json")], site.documents.openapi).into_response()
}

async fn not_found(uri: Uri) -> Response<Body> {
    let problem = format!("there is no resource at {}; see /v1 for all calls", truncate_for_display(uri.path()));
    Problem::new(StatusCode::NOT_FOUND, problem).into_response()
}

async fn method_not_allowed() -> Response<Body> {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed; use GET or HEAD").into_response()
}
