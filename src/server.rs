//! Wiring of the server.

use std::process::ExitCode;

use crate::config::ServeArgs;

/// Serves until told to stop.
#[allow(clippy::unused_async, reason = "listening waits")]
pub async fn serve(_args: ServeArgs) -> ExitCode {
    ExitCode::FAILURE
}
