//! Plain HTTP for whatever speaks no gRPC: dashboards, spreadsheets, curl.
//!
//! **Invariant**: nothing is written by a request here, and no request has a body. What is answered is what
//! [`Rates`] answers to the call of the same name.

mod listener;
mod page;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use tokio::sync::watch;

use crate::api::Rates;
use crate::ingest::Ingest;

pub use listener::serve;

/// What the routes answer from. Cheap to clone.
#[derive(Clone)]
pub struct Site {
    /// Reads.
    pub rates: Arc<Rates>,
    /// Whether writing goes on, and what is visible.
    pub ingest: Ingest,
    /// True once the server is on its way down.
    pub draining: watch::Receiver<bool>,
}

/// Every route there is.
pub fn router(site: Site) -> Router {
    let page = page::routes(site.clone());
    Router::new().route("/healthz", get(async || "ok\n")).with_state(site).merge(page)
}
