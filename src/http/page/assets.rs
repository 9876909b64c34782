//! Style, script and icon, built into the program.
//!
//! **Invariant**: an asset's name holds a hash of its content, so that what a browser keeps under that name is never
//! another version's.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

/// Bytes of the hash that stand in a name.
const HASH_BYTES: usize = 8;

/// A file as it is served.
struct Asset {
    /// Under `/assets/`.
    name: String,
    kind: &'static str,
    content: &'static str,
}

struct Assets {
    style: Asset,
    script: Asset,
    icon: Asset,
}

static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    style: embed("css", "text/css; charset=utf-8", include_str!("style.css")),
    script: embed("js", "text/javascript; charset=utf-8", include_str!("page.js")),
    icon: embed("svg", "image/svg+xml", include_str!("icon.svg")),
});

fn embed(extension: &str, kind: &'static str, content: &'static str) -> Asset {
    let hash = Sha256::digest(content).iter().take(HASH_BYTES).fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    Asset { name: format!("page-{hash}.{extension}"), kind, content }
}

/// Where the style is.
pub(super) fn style_path() -> String {
    format!("/assets/{}", ASSETS.style.name)
}

/// Where the script is. It changes with the version of the page.
pub(super) fn script_path() -> String {
    format!("/assets/{}", ASSETS.script.name)
}

/// Where the icon is.
pub(super) fn icon_path() -> String {
    format!("/assets/{}", ASSETS.icon.name)
}

/// `GET /assets/{name}`.
pub(super) async fn asset(Path(name): Path<String>) -> Response {
    let all = [&ASSETS.style, &ASSETS.script, &ASSETS.icon];
    match all.into_iter().find(|asset| asset.name == name) {
        Some(asset) => {
            let headers = [
                (CONTENT_TYPE, asset.kind),
                (CACHE_CONTROL, "public, max-age=31536000, immutable"),
                (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            (headers, asset.content).into_response()
        }
        None => (StatusCode::NOT_FOUND, "no such file; load the page again\n").into_response(),
    }
}
