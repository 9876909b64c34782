//! The style sheet, script and icon of the page, built into the program.
//!
//! **Invariant**: the name of an asset contains a hash of its content, so that a browser never uses the cached asset of
//! another version.

use std::borrow::Cow;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse as _, Response};
use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use crate::domain::{AGE_STEPS, AgeStep};

/// Number of bytes of the hash in a name.
const HASH_BYTES: usize = 8;

/// A file under `/assets/`.
struct Asset {
    /// The file name in the path.
    name: String,
    kind: &'static str,
    content: Cow<'static, str>,
}

struct Assets {
    style: Asset,
    script: Asset,
    icon: Asset,
}

/// The script: several files in one scope.
const SCRIPT: &str = concat!(
    include_str!("script/status.js"),
    include_str!("script/stream.js"),
    include_str!("script/table.js"),
    include_str!("script/cursor.js"),
    include_str!("script/chart.js"),
    include_str!("script/page.js"),
);

/// Returns the script with the units of ages, which the command uses too.
fn script() -> String {
    let steps = AGE_STEPS.map(|AgeStep { end_s, unit_s, name }| format!("[{end_s},{unit_s},\"{name}\"]"));
    format!("\"use strict\";\n(() => {{\nconst AGE_STEPS = [{}];\n{SCRIPT}}})();\n", steps.join(","))
}

static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    style: embed("css", "text/css; charset=utf-8", include_str!("style.css").into()),
    script: embed("js", "text/javascript; charset=utf-8", script().into()),
    icon: embed("svg", "image/svg+xml", include_str!("icon.svg").into()),
});

fn embed(extension: &str, kind: &'static str, content: Cow<'static, str>) -> Asset {
    let hash = HEXLOWER.encode(&Sha256::digest(&*content)[..HASH_BYTES]);
    Asset { name: format!("page-{hash}.{extension}"), kind, content }
}

/// Returns the path of the style sheet.
pub(super) fn style_path() -> String {
    format!("/assets/{}", ASSETS.style.name)
}

/// Returns the path of the script. The path changes whenever the script changes.
pub(super) fn script_path() -> String {
    format!("/assets/{}", ASSETS.script.name)
}

/// Returns the path of the icon.
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
            (headers, &*asset.content).into_response()
        }
        None => (StatusCode::NOT_FOUND, "there is no such file; reload the page\n").into_response(),
    }
}
