//! Plain HTTP for whatever speaks no gRPC: dashboards, spreadsheets, curl.
//!
//! **Invariant**: nothing is written by a request here, and no request has a body. What is answered is what
//! [`Rates`] answers to the call of the same name.

mod body;
mod calls;
mod csv;
mod csv_cells;
mod descriptors;
mod entity_tag;
mod frankfurter;
mod health;
mod listener;
mod metrics;
mod openapi;
mod page;
mod parameters;
mod problem;
mod schema;
mod security;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse as _;
use axum::routing::get;

use crate::api::Rates;
use crate::domain::{Source, truncate_for_display};
use crate::ingest::Ingest;
use crate::latest_quotes::LatestQuotes;

pub use descriptors::SchemaError;
pub use listener::{Limits, serve};
pub use metrics::Scraped;
use problem::Problem;
use schema::{Call, Schema};
pub use security::Origins;
use tokio_util::sync::CancellationToken;

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Pages of which origins may read.
    pub origins: Origins,
    /// Which source answers under `/frankfurter` where several have a pair.
    pub frankfurter_source: Option<Source>,
}

/// What the routes answer from. Cheap to clone.
#[derive(Clone)]
pub struct Site {
    rates: Arc<Rates>,
    ingest: Ingest,
    /// What is counted.
    scraped: Arc<Scraped>,
    draining: CancellationToken,
    settings: Arc<Settings>,
    /// Of every setting that an answer depends on: another server over the same store may have others.
    settings_hash: u64,
    schema: Arc<Schema>,
    /// What `/v1` and `/openapi.json` say, which does not change.
    documents: Documents,
    /// The whole latest quotes as JSON, with the latest quotes that it is of.
    latest: Arc<ArcSwapOption<(Arc<LatestQuotes>, Bytes)>>,
}

#[derive(Clone)]
struct Documents {
    index: Bytes,
    openapi: Bytes,
}

impl Site {
    /// Answers from `rates`; `ingest` says whether writing goes on, and `draining` becomes true once the server is on
    /// its way down.
    ///
    /// # Errors
    /// The descriptors built into this program are of no use.
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
            latest: Arc::default(),
        })
    }
}

/// Every route there is.
pub fn router(site: Site) -> Router {
    let mut router = Router::new().route("/healthz", get(health::live)).route("/readyz", get(health::ready));
    router = router.route("/metrics", get(metrics::scrape));
    for call in Call::ALL {
        let answer =
            async move |State(site): State<Site>, RawQuery(query): RawQuery, headers: HeaderMap| match calls::answer(
                &site,
                call,
                query.as_deref(),
                &headers,
            )
            .await
            {
                Ok(response) => response,
                Err(problem) => problem.into_response(),
            };
        router = router.route(&format!("/v1/{}", call.name()), get(answer));
    }
    for path in frankfurter::PATHS {
        router = router.route(path, get(frankfurter::answer));
    }
    router = router.route("/v1", get(index)).route("/openapi.json", get(document));
    let origins = site.settings.origins.clone();
    router
        .fallback(nothing_here)
        .method_not_allowed_fallback(only_reads)
        .with_state(site.clone())
        .merge(page::routes(site.clone()))
        .layer(from_fn_with_state(origins, security::secure))
        .layer(from_fn_with_state(site, metrics::measure))
}

async fn index(State(site): State<Site>) -> Response<Body> {
    ([(CONTENT_TYPE, "application/json")], site.documents.index).into_response()
}

async fn document(State(site): State<Site>) -> Response<Body> {
    ([(CONTENT_TYPE, "application/json")], site.documents.openapi).into_response()
}

async fn nothing_here(uri: Uri) -> Response<Body> {
    let problem = format!("there is nothing at {}; /v1 says what there is", truncate_for_display(uri.path()));
    Problem::new(StatusCode::NOT_FOUND, problem).into_response()
}

async fn only_reads() -> Response<Body> {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this can only be read, with GET or HEAD").into_response()
}
