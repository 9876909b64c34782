//! Whether the process lives, and whether it can do its work.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse as _;

use super::Site;
use super::problem::Problem;

/// It lives.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// It reads and writes, and is not on its way down; else why not.
pub(super) async fn ready(State(site): State<Site>) -> Response<Body> {
    let problem = if site.draining.is_cancelled() {
        "the server is shutting down".to_owned()
    } else if let Some(cause) = site.ingest.poisoned() {
        format!("writing stopped after a failure: {cause}; reads go on, restart the server once its cause is gone")
    } else {
        return "ok\n".into_response();
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, problem).into_response()
}
