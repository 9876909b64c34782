//! Dependencies between the modules of `src/`, and conventions of every file. The code map in `docs/ARCHITECTURE.md`
//! repeats the table [`MODULE_DEPENDENCIES`], and states what each module owns.
//!
//! Files are read as Rust tokens: the arguments of macros are checked, comments and strings are not. Items behind
//! `#[cfg(test)]` are ignored, since tests may use every module.

mod documents;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use source::{Source, Token, files, is_in, is_test_module};

/// Each module and the modules that it may use. All of them precede it in this table, so there are no cycles.
const MODULE_DEPENDENCIES: [(&str, &[&str]); 32] = [
    ("domain", &[]),
    ("analysis", &["domain"]),
    ("latest_quotes", &["domain"]),
    ("clock", &["domain"]),
    ("sources", &["analysis", "domain"]),
    ("proto", &["domain"]),
    ("telemetry", &[]),
    ("backoff", &[]),
    ("bytes_cache", &[]),
    ("causes", &[]),
    ("catch_panic", &[]),
    ("callers", &[]),
    ("incoming", &["callers"]),
    ("metrics", &[]),
    ("access", &["clock", "domain", "metrics", "callers"]),
    ("tls", &["metrics"]),
    ("columns", &["domain", "proto"]),
    ("store", &["latest_quotes", "catch_panic", "domain"]),
    ("feed", &["analysis", "domain"]),
    ("ingest", &["callers", "latest_quotes", "clock", "domain", "feed", "metrics", "store"]),
    ("backup", &["backoff", "causes", "clock", "domain", "ingest", "metrics", "proto", "store"]),
    ("audit", &["access", "clock", "domain", "ingest", "metrics", "store"]),
    ("follow", &["analysis", "audit", "backoff", "causes", "clock", "domain", "feed", "ingest", "metrics"]),
    ("query", &["analysis", "latest_quotes", "domain", "sources", "store"]),
    ("export", &["analysis", "latest_quotes", "catch_panic", "domain", "proto", "query", "store"]),
    (
        "api",
        &[
            "access",
            "analysis",
            "callers",
            "latest_quotes",
            "clock",
            "columns",
            "domain",
            "export",
            "ingest",
            "proto",
            "query",
            "sources",
            "store",
        ],
    ),
    (
        "grpc",
        &[
            "access",
            "api",
            "backup",
            "bytes_cache",
            "audit",
            "latest_quotes",
            "clock",
            "columns",
            "domain",
            "export",
            "feed",
            "ingest",
            "metrics",
            "proto",
            "query",
            "store",
        ],
    ),
    (
        "http",
        &[
            "access",
            "analysis",
            "api",
            "bytes_cache",
            "latest_quotes",
            "domain",
            "incoming",
            "ingest",
            "metrics",
            "proto",
            "query",
            "sources",
            "store",
            "tls",
        ],
    ),
    ("fuzz", &["api", "columns", "domain", "export", "feed", "http", "proto", "store"]),
    (
        "config",
        &[
            "access",
            "analysis",
            "api",
            "backup",
            "latest_quotes",
            "domain",
            "follow",
            "incoming",
            "ingest",
            "sources",
            "store",
            "telemetry",
            "tls",
        ],
    ),
    (
        "server",
        &[
            "access",
            "api",
            "audit",
            "backup",
            "latest_quotes",
            "clock",
            "config",
            "domain",
            "feed",
            "follow",
            "grpc",
            "http",
            "incoming",
            "ingest",
            "metrics",
            "proto",
            "store",
            "telemetry",
            "tls",
        ],
    ),
    (
        "cli",
        &[
            "access", "analysis", "backoff", "backup", "causes", "clock", "columns", "config", "domain", "export",
            "feed", "follow", "proto", "server", "store",
        ],
    ),
];

/// Crates that only some modules may use. An entry is a module with all modules inside it, or one file.
const CRATES: [(&str, &[&str]); 51] = [
    ("sled", &["store"]),
    ("pco", &["store"]),
    ("quick_cache", &["bytes_cache", "store::run_cache"]),
    ("memchr", &["feed::tick_csv"]),
    ("rayon", &["cli::ingest"]),
    ("crc32c", &["api::page_token", "export::checksum_trailer", "store"]),
    ("postcard", &["api::page_token", "store"]),
    ("object_store", &["backup::bucket"]),
    ("zstd", &["backup"]),
    ("polars", &["export"]),
    ("polars_arrow", &["export"]),
    ("polars_arrow_format", &["export::ipc"]),
    ("polars_buffer", &["export::read::row_groups"]),
    ("polars_core", &[]),
    ("polars_parquet", &["export"]),
    ("rust_decimal", &["domain"]),
    ("tokio_rustls", &["tls"]),
    ("x509_parser", &["tls::subject"]),
    ("sha2", &["access::tokens", "backup::manifest", "export", "http::page::assets"]),
    ("subtle", &["access::tokens"]),
    ("getrandom", &["access::tokens"]),
    ("chrono_tz", &["analysis"]),
    (
        "rustix",
        &[
            "export::read",
            "cli::atomic_write",
            "cli::watch::reader",
            "config::limits",
            "http::listener",
            "server",
            "store",
        ],
    ),
    (
        "tonic",
        &["cli::backup", "cli::client", "cli::credentials", "cli::error", "cli::export", "grpc", "proto", "server"],
    ),
    ("tonic_health", &["cli::health", "server"]),
    ("tonic_reflection", &["server"]),
    ("tonic_types", &["cli::error", "grpc"]),
    ("tonic_prost", &["proto::codec"]),
    (
        "tokio_util",
        &["access", "api", "audit", "backup", "cli", "follow", "grpc", "http", "incoming", "query", "server"],
    ),
    ("form_urlencoded", &["http::calls", "http::page::login"]),
    ("tonic_web", &["server"]),
    ("tower_http", &["server"]),
    ("prost", &["api", "cli::export", "columns", "export", "fuzz", "grpc", "http", "proto", "server"]),
    ("prost_types", &["api", "cli", "columns", "export", "grpc", "http::descriptors", "proto"]),
    ("reqwest", &["follow"]),
    ("toml", &["config::file"]),
    ("rustls", &["backup::bucket", "follow", "tls"]),
    ("tokio", &["api", "audit", "backup", "cli", "follow", "grpc", "http", "incoming", "ingest", "server", "tls"]),
    ("clap", &["cli", "config", "telemetry"]),
    ("comfy_table", &["cli", "server"]),
    ("crossterm", &["cli::watch"]),
    ("indicatif", &["cli"]),
    ("axum", &["http"]),
    ("maud", &["http::page"]),
    ("hyper", &["http"]),
    ("hyper_util", &["http"]),
    ("prometheus", &["http::metrics", "metrics", "server"]),
    ("html5gum", &["feed"]),
    ("quick_xml", &["feed::bank"]),
    ("encoding_rs", &["feed::bank"]),
    ("arc_swap", &["access", "grpc::encoded_rates", "http", "ingest", "tls"]),
];

/// The crates that the project must use. `docs/ARCHITECTURE.md` states the purpose of each crate.
const REQUIRED: [&str; 8] = ["tokio", "tonic", "prost", "rust_decimal", "polars", "chrono", "sled", "tracing"];
/// Other crates for tabular files. Only tests may use them, as a second implementation.
const OTHER_TABLE_CRATES: [&str; 4] = ["arrow", "parquet", "parquet2", "arrow2"];

/// Functions of `Decimal` that may be called outside `domain::digits`: `Decimal` stores digits and computes nothing.
const DECIMAL_CALLS: [&str; 2] = ["try_from_i128_with_scale", "from"];

/// Modules that use neither time sources nor I/O.
const PURE: [&str; 2] = ["domain", "analysis"];
/// Names that such modules may not use: parts of `std`, and time sources.
const IMPURE_STD: [&str; 7] = ["env", "fs", "io", "net", "os", "process", "thread"];
const TIME_SOURCES: [&str; 4] = ["Instant", "Local", "SystemTime", "Utc"];
/// This module needs the name `Utc`, but may not call `now`.
const CALENDAR: &str = "domain::time";

const FILE_LINES_MAX: usize = 500;
/// Files that may be longer, each with a reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// Returns the violations of the rules above by a file.
fn problems(source: &Source) -> Vec<String> {
    let module = &source.module;
    let mut problems = Vec::new();
    let allowed = MODULE_DEPENDENCIES.iter().find(|(name, _)| *name == source.top()).map(|(_, allowed)| *allowed);
    if allowed.is_none() && module != "main" && module != "lib" {
        problems.push(format!("{module}: the module is missing in MODULE_DEPENDENCIES"));
    }
    for path in source.inner_paths() {
        let is_module = MODULE_DEPENDENCIES.iter().any(|(name, _)| *name == path);
        if is_module && path != source.top() && !allowed.unwrap_or(&[]).contains(&path.as_str()) {
            problems.push(format!("{module} depends on {path}"));
        }
    }
    for (name, modules) in CRATES {
        if source.names_crate(name) && !modules.iter().any(|place| is_in(module, place)) {
            problems.push(format!("{module} depends on the crate {name}"));
        }
    }
    if PURE.contains(&source.top()) {
        problems.extend(impurities(source).into_iter().map(|what| format!("{module} depends on {what}")));
    }
    if source.has(&[Token::Mark('.'), Token::Name("unwrap".to_owned()), Token::Open, Token::Close]) {
        problems.push(format!("{module} calls unwrap"));
    }
    problems.dedup();
    problems
}

fn impurities(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut std_paths = Vec::new();
    for at in source.path_starts().filter(|at| source.name(*at) == Some("std") && source.continues_path(*at)) {
        source.members(at + 3, &mut std_paths);
    }
    found.extend(std_paths.into_iter().filter(|part| IMPURE_STD.contains(&part.as_str())).map(|p| format!("std::{p}")));
    for token in TIME_SOURCES {
        let is_named = source.tokens.contains(&Token::Name(token.to_owned()));
        if is_named && !(token == "Utc" && source.module == CALENDAR) {
            found.push(token.to_owned());
        }
    }
    if source.has(&[Token::Mark(':'), Token::Mark(':'), Token::Name("now".to_owned())]) {
        found.push("now".to_owned());
    }
    found
}

#[test]
fn modules_depend_only_on_modules_above_them_in_the_table() {
    for (at, (name, allowed)) in MODULE_DEPENDENCIES.iter().enumerate() {
        for other in *allowed {
            let above = MODULE_DEPENDENCIES[..at].iter().any(|(above, _)| above == other);
            assert!(above, "{name} may use {other}, which does not precede it in the table");
        }
    }
}

#[test]
fn every_file_uses_only_allowed_modules_and_crates() {
    let found: Vec<String> = files()
        .iter()
        .filter(|(_, module, _)| !is_test_module(module))
        .flat_map(|(_, module, text)| problems(&Source::new(module, text)))
        .collect();
    assert_eq!(found, Vec::<String>::new());
}

/// Returns the dependency cycles between the parts of each module. A part is a file, or a directory with everything in
/// it.
fn cycles(sources: &[Source]) -> Vec<String> {
    let modules: Vec<String> = sources.iter().map(|source| source.module.clone()).collect();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        for used in source.used_files(&modules) {
            // The shared prefix of two paths is the module that contains both parts.
            let pairs = source.module.split("::").zip(used.split("::"));
            let shared = pairs.take_while(|(own, other)| own == other).count();
            let part = |path: &str| path.split("::").take(shared + 1).collect::<Vec<_>>().join("::");
            if shared > 0 {
                edges.entry(part(&source.module)).or_default().insert(part(used));
            }
        }
    }
    let reached = |from: &str| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(part) = next.pop() {
            for used in edges.get(part).into_iter().flatten() {
                if reached.insert(used.clone()) {
                    next.push(used);
                }
            }
        }
        reached
    };
    let is_in_cycle = |part: &&String| reached(part).contains(*part);
    let describe = |part: &String| {
        let back = edges[part].iter().filter(|used| reached(used).contains(part));
        format!("{part} depends on {}", back.map(String::as_str).collect::<Vec<_>>().join(", "))
    };
    edges.keys().filter(is_in_cycle).map(describe).collect()
}

#[test]
fn files_of_a_module_have_no_dependency_cycles() {
    let sources: Vec<Source> = files()
        .iter()
        .filter(|(_, module, _)| !is_test_module(module))
        .map(|(_, module, text)| Source::new(module, text))
        .collect();
    assert_eq!(cycles(&sources), Vec::<String>::new());
}

#[test]
fn dependency_cycles_are_detected() {
    let check = |files: &[(&str, &str)], expect: &[&str]| {
        let sources: Vec<Source> = files.iter().map(|(module, text)| Source::new(module, text)).collect();
        assert_eq!(cycles(&sources), expect, "{files:?}");
    };
    check(&[("m", ""), ("m::a", "use super::b::B;"), ("m::b", "use super::M;")], &[]);
    check(
        &[("m", ""), ("m::a", "use super::b::B;"), ("m::b", "fn f() { crate::m::a::g(); }")],
        &["m::a depends on m::b", "m::b depends on m::a"],
    );
    check(
        &[
            ("m", ""),
            ("m::a", "use super::{x::{Y, Z}, b::{self, B}};"),
            ("m::b", "use super::c;"),
            ("m::c", "use super::a::A;"),
        ],
        &["m::a depends on m::b", "m::b depends on m::c", "m::c depends on m::a"],
    );
    // A directory counts as one part.
    check(
        &[("m", ""), ("m::a", ""), ("m::a::x", "use super::super::b::B;"), ("m::b", "use super::a::A;")],
        &["m::a depends on m::b", "m::b depends on m::a"],
    );
    check(&[("m", ""), ("m::a", "use super::b::B;"), ("m::b", "#[cfg(test)] mod tests { use super::super::a; }")], &[]);
}

#[test]
fn every_allowed_dependency_is_used() {
    let sources: Vec<Source> = files().iter().map(|(_, module, text)| Source::new(module, text)).collect();
    for (name, allowed) in MODULE_DEPENDENCIES {
        for other in allowed {
            let mut paths = sources.iter().filter(|source| source.top() == name).flat_map(Source::inner_paths);
            assert!(
                paths.any(|path| path == *other),
                "{name} does not use {other} any more: remove it from MODULE_DEPENDENCIES"
            );
        }
    }
}

#[test]
fn every_file_has_a_module_doc_and_a_limited_length() {
    for (path, _, text) in files() {
        let path = path.display().to_string();
        assert!(text.starts_with("//! "), "{path} does not begin with a module doc");
        let lines = text.lines().count();
        let is_listed = LONG_FILES.iter().any(|(long, _)| *long == path);
        assert!(lines <= FILE_LINES_MAX || is_listed, "{path} has {lines} lines; the limit is {FILE_LINES_MAX}");
    }
}

/// Returns the names of the crates in a section of `Cargo.toml`.
fn dependencies(section: &str) -> Vec<String> {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("Cargo.toml is readable");
    let lines = text.lines().skip_while(|line| *line != format!("[{section}]")).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| Some(line.split_once(" = ")?.0.to_owned())).collect()
}

#[test]
fn required_crates_are_used_and_other_crates_for_tables_are_not() {
    let normal = dependencies("dependencies");
    let sources: Vec<Source> = files().iter().map(|(_, module, text)| Source::new(module, text)).collect();
    for name in REQUIRED {
        assert!(normal.iter().any(|other| other == name), "{name} is not a dependency");
        assert!(sources.iter().any(|source| source.names_crate(name)), "no module uses {name}");
    }
    let is_other = |name: &&String| {
        OTHER_TABLE_CRATES.iter().any(|other| *name == other || name.starts_with(&format!("{other}-")))
    };
    assert_eq!(normal.iter().filter(is_other).collect::<Vec<_>>(), Vec::<&String>::new());
}

/// Returns the uses of `Decimal` that are allowed only in `domain::digits`.
fn decimal_problems(source: &Source) -> Vec<String> {
    let decimal = Token::Name("Decimal".to_owned());
    let mut problems = Vec::new();
    for at in (0..source.tokens.len()).filter(|at| source.tokens[*at] == decimal) {
        let is_parsed = source.tokens.get(at.wrapping_sub(4)..at)
            == Some(&[Token::Name("parse".to_owned()), Token::Mark(':'), Token::Mark(':'), Token::Mark('<')]);
        let call = if source.continues_path(at) { source.name(at + 3) } else { None };
        // An enum of this crate may have a variant `Decimal`.
        let is_call = call.is_some_and(|call| call.starts_with(char::is_lowercase) && !DECIMAL_CALLS.contains(&call));
        if is_parsed || is_call {
            problems.push(format!("{} calls Decimal::{}", source.module, call.unwrap_or("parse")));
        }
    }
    // If a file names the type, a `parse` without a type argument could parse a decimal.
    let names_type = source.tokens.windows(2).any(|tokens| tokens[1] == decimal && tokens[0] != Token::Mark(':'))
        || source.tokens.windows(4).any(|tokens| {
            let owner = matches!(&tokens[0], Token::Name(name) if ["domain", "rust_decimal"].contains(&name.as_str()));
            owner && tokens[1..3] == [Token::Mark(':'), Token::Mark(':')] && tokens[3] == decimal
        });
    let bare = [Token::Mark('.'), Token::Name("parse".to_owned()), Token::Open];
    if names_type && source.tokens.windows(3).any(|tokens| tokens == bare) {
        problems.push(format!("{} may parse a Decimal", source.module));
    }
    problems
}

#[test]
fn decimal_is_used_for_storage_only() {
    for (_, module, text) in files().iter().filter(|(_, module, _)| !is_test_module(module)) {
        let source = Source::new(module, text);
        // Two modules are exempt: the parser, and a setting that is printed without trailing zeros.
        if module != "domain::digits" && module != "domain::ratio_threshold" {
            assert_eq!(decimal_problems(&source), Vec::<String>::new());
        }
        // No struct of the domain stores a mantissa itself.
        for at in 0..source.tokens.len() {
            if source.top() != "domain" || source.name(at) != Some("struct") {
                continue;
            }
            let body = source.tokens[at..].iter().scan(0_i32, |depth, token| {
                let ends = *depth == 1 && *token == Token::Close || *depth == 0 && *token == Token::Mark(';');
                *depth += i32::from(*token == Token::Open) - i32::from(*token == Token::Close);
                (!ends).then_some(token)
            });
            let stores_mantissa = body.into_iter().any(|token| *token == Token::Name("u128".to_owned()));
            assert!(!stores_mantissa, "{module}: struct {:?} stores a u128", source.name(at + 1));
        }
    }
    let check = |text: &str, expect: &[&str]| assert_eq!(decimal_problems(&Source::new("m", text)), expect, "{text}");
    check("fn f() { Decimal::try_from_i128_with_scale(1, 2); Decimal::from(rate); Cell::Decimal(x); }", &[]);
    check("use crate::domain::Decimal; fn f() { let d: Decimal = s.parse()?; }", &["m may parse a Decimal"]);
    check("use crate::domain::{Decimal, Rate}; fn f() { s.parse::<u8>(); }", &[]);
    check("fn f() { Cell::Decimal(s.parse()?); }", &[]);
    check("fn f() { Decimal::from_str_exact(x); }", &["m calls Decimal::from_str_exact"]);
    check("fn f() { x.parse::<Decimal>(); }", &["m calls Decimal::parse"]);
}

/// Checks that the rules detect violations and accept correct code.
#[test]
fn rules_detect_violations() {
    let check = |module: &str, text: &str, expect: &[&str]| {
        assert_eq!(problems(&Source::new(module, text)), expect, "{module}: {text}");
    };
    check("domain::rate", "use std::fmt; use super::time::Timestamp; fn f() { crate::domain::x(); }", &[]);
    check("domain::rate", "use crate::store::Store;", &["domain::rate depends on store"]);
    check("domain::rate", "use super::super::store::Store;", &["domain::rate depends on store"]);
    check("store::block", "use super::super::feed;", &["store::block depends on feed"]);
    check("store::a::b", "use super::super::feed; use super::super::super::grpc;", &["store::a::b depends on grpc"]);
    check("store", "use crate::{domain::Run, query::{self, latest}};", &["store depends on query"]);
    check(
        "store",
        "fn f() -> crate::ingest::Batch { tracing::info!(x = crate::grpc::x()) }",
        &["store depends on ingest", "store depends on grpc"],
    );
    check("store", "// crate::grpc\n/// crate::grpc\nconst X: &str = \"crate::grpc\";", &[]);
    check("store", "#[cfg(test)]\nmod tests { use crate::grpc::x; fn f() { x.unwrap(); } }", &[]);
    check("store", "#[cfg(test)] mod tests; use crate::grpc::x;", &["store depends on grpc"]);
    check("query", "fn f(t: sled::Tree) {}", &["query depends on the crate sled"]);
    check("query", "use ::sled::Tree;", &["query depends on the crate sled"]);
    check(
        "query",
        "use sled; extern crate pco;",
        &["query depends on the crate sled", "query depends on the crate pco"],
    );
    check("query", "let sled = a.sled; b::sled::c();", &[]);
    check("ingest", "use tonic::Status;", &["ingest depends on the crate tonic"]);
    check("cli::rate", "use tonic::Status;", &["cli::rate depends on the crate tonic"]);
    check("cli::client", "use tonic::Status;", &[]);
    check("analysis::change", "use std::{fmt, fs::File};", &["analysis::change depends on std::fs"]);
    check(
        "analysis::change",
        "let t = std::time::Instant::now();",
        &["analysis::change depends on Instant", "analysis::change depends on now"],
    );
    check("domain::time", "use chrono::Utc; fn f() { Utc::now(); }", &["domain::time depends on now"]);
    check("domain", "fn f() { x.unwrap(); }", &["domain calls unwrap"]);
    check("domain", "fn f() { x.unwrap_or(1); }", &[]);
    check("novelty", "fn f() {}", &["novelty: the module is missing in MODULE_DEPENDENCIES"]);
}
