//! Health checks: `/healthz` (the process is alive) and `/readyz` (the server can read and write).

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse as _;

use super::Site;
use super::problem::Problem;

/// `GET /healthz`: always 200.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: 200 if the server can read and write; 503 with the reason if it shuts down or if the writer has
/// failed.
pub(super) async fn ready(State(site): State<Site>) -> Response<Body> {
    let problem = if site.draining.is_cancelled() {
        "the server is shutting down".to_owned()
    } else if let Some(cause) = site.ingest.poisoned() {
        format!("writing stopped after a failure: {cause}; reads continue; remove the cause, then restart the server")
    } else {
        return "ok\n".into_response();
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, problem).into_response()
}
