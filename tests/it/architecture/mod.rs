//! The arrows between the modules of `src/`, and the habits that every file keeps. The same table
//! stands in `docs/ARCHITECTURE.md`, with what each module owns.
//!
//! Files are read as Rust tokens, so that comments and strings do not count and what macros are given
//! does; items behind `#[cfg(test)]` are left out, since tests may look anywhere.

mod documents;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use source::{Source, Word, files, is_in};

/// Each module and the modules that it may know, all of which stand above it: arrows point up this
/// table, so that it has no cycles.
const ARROWS: [(&str, &[&str]); 25] = [
    ("domain", &[]),
    ("analysis", &["domain"]),
    ("latest_quotes", &["domain"]),
    ("clock", &["domain"]),
    ("sources", &["domain"]),
    ("proto", &["domain"]),
    ("telemetry", &[]),
    ("backoff", &[]),
    ("causes", &[]),
    ("catch_panic", &[]),
    ("incoming", &[]),
    ("metrics", &[]),
    ("columns", &["domain", "proto"]),
    ("store", &["latest_quotes", "catch_panic", "domain"]),
    ("feed", &["analysis", "domain"]),
    ("ingest", &["latest_quotes", "clock", "domain", "feed", "metrics", "store"]),
    ("follow", &["analysis", "backoff", "causes", "clock", "domain", "feed", "ingest", "metrics"]),
    ("query", &["analysis", "latest_quotes", "domain", "sources", "store"]),
    ("export", &["analysis", "latest_quotes", "catch_panic", "domain", "proto", "query", "store"]),
    ("config", &["latest_quotes", "domain", "follow", "ingest", "sources", "store", "telemetry"]),
    (
        "api",
        &[
            "analysis",
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
            "api",
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
            "analysis",
            "api",
            "latest_quotes",
            "domain",
            "incoming",
            "ingest",
            "metrics",
            "proto",
            "query",
            "sources",
            "store",
        ],
    ),
    (
        "server",
        &[
            "api",
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
        ],
    ),
    (
        "cli",
        &[
            "analysis", "backoff", "causes", "clock", "config", "domain", "export", "feed", "follow", "proto",
            "server", "store",
        ],
    ),
];

/// Crates that only some places may name: a module with all below it, or one file.
const CRATES: [(&str, &[&str]); 42] = [
    ("sled", &["store"]),
    ("pco", &["store"]),
    ("crc32c", &["api::page_token", "export::checksum_trailer", "store"]),
    ("postcard", &["api::page_token", "store"]),
    ("polars", &["export"]),
    ("polars_arrow", &["export"]),
    ("polars_arrow_format", &["export::ipc"]),
    ("polars_buffer", &["export::read::row_groups"]),
    ("polars_core", &[]),
    ("polars_parquet", &["export"]),
    ("rust_decimal", &["domain"]),
    ("sha2", &["export", "http::page::assets"]),
    ("chrono_tz", &["analysis"]),
    ("rustix", &["cli::atomic_write", "http::listener", "server", "store"]),
    ("tonic", &["cli::client", "cli::error", "cli::export", "grpc", "proto", "server"]),
    ("tonic_health", &["server"]),
    ("tonic_reflection", &["server"]),
    ("tonic_types", &["cli::error", "grpc"]),
    ("tonic_prost", &["proto::codec"]),
    ("tokio_util", &["api", "cli", "follow", "grpc", "http", "query", "server"]),
    ("form_urlencoded", &["http::calls"]),
    ("tonic_web", &["server"]),
    ("tower_http", &["server"]),
    ("prost", &["api", "cli::export", "columns", "export", "grpc", "http", "proto", "server"]),
    ("prost_types", &["api", "cli", "columns", "export", "grpc", "http::descriptors", "proto"]),
    ("reqwest", &["follow"]),
    ("toml", &["config::file"]),
    ("rustls", &["follow"]),
    ("tokio", &["api", "cli", "follow", "grpc", "http", "incoming", "ingest", "server"]),
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
    ("arc_swap", &["grpc::encoded_rates", "http", "ingest"]),
];

/// The crates that the project was asked for on. Each does real work: see the table in the document.
const REQUESTED: [&str; 8] = ["tokio", "tonic", "prost", "rust_decimal", "polars", "chrono", "sled", "tracing"];
/// Other crates for tables in files. Tests may use them, as a second implementation.
const OTHER_TABLES: [&str; 4] = ["arrow", "parquet", "parquet2", "arrow2"];

/// What a `Decimal` may be asked for outside `domain::digits`: it stores digits and computes nothing.
const DECIMAL_CALLS: [&str; 2] = ["try_from_i128_with_scale", "from"];

/// Modules that know neither time sources nor I/O.
const PURE: [&str; 2] = ["domain", "analysis"];
/// What such modules may not name: parts of `std`, and anything that asks for the time.
const IMPURE_STD: [&str; 7] = ["env", "fs", "io", "net", "os", "process", "thread"];
const TIME_SOURCES: [&str; 4] = ["Instant", "Local", "SystemTime", "Utc"];
/// A calendar needs the name of UTC, and never its `now`.
const CALENDAR: &str = "domain::time";

const FILE_LINES_MAX: usize = 500;
/// Files that may be longer, each with its reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// What a file does against the rules above.
fn problems(source: &Source) -> Vec<String> {
    let module = &source.module;
    let mut problems = Vec::new();
    let allowed = ARROWS.iter().find(|(name, _)| *name == source.top()).map(|(_, allowed)| *allowed);
    if allowed.is_none() && module != "main" && module != "lib" {
        problems.push(format!("{module}: its module has no place in the table of arrows"));
    }
    for path in source.inner_paths() {
        let is_module = ARROWS.iter().any(|(name, _)| *name == path);
        if is_module && path != source.top() && !allowed.unwrap_or(&[]).contains(&path.as_str()) {
            problems.push(format!("{module} knows {path}"));
        }
    }
    for (name, places) in CRATES {
        if source.names_crate(name) && !places.iter().any(|place| is_in(module, place)) {
            problems.push(format!("{module} knows the crate {name}"));
        }
    }
    if PURE.contains(&source.top()) {
        problems.extend(impurities(source).into_iter().map(|what| format!("{module} knows {what}")));
    }
    if source.has(&[Word::Mark('.'), Word::Name("unwrap".to_owned()), Word::Open, Word::Close]) {
        problems.push(format!("{module} unwraps"));
    }
    problems.dedup();
    problems
}

fn impurities(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut std_paths = Vec::new();
    for at in source.path_starts().filter(|at| source.name(*at) == Some("std") && source.is_path_on(*at)) {
        source.members(at + 3, &mut std_paths);
    }
    found.extend(std_paths.into_iter().filter(|part| IMPURE_STD.contains(&part.as_str())).map(|p| format!("std::{p}")));
    for word in TIME_SOURCES {
        let is_named = source.words.contains(&Word::Name(word.to_owned()));
        if is_named && !(word == "Utc" && source.module == CALENDAR) {
            found.push(word.to_owned());
        }
    }
    if source.has(&[Word::Mark(':'), Word::Mark(':'), Word::Name("now".to_owned())]) {
        found.push("now".to_owned());
    }
    found
}

#[test]
fn arrows_point_one_way() {
    for (at, (name, allowed)) in ARROWS.iter().enumerate() {
        for other in *allowed {
            let above = ARROWS[..at].iter().any(|(above, _)| above == other);
            assert!(above, "{name} may know {other}, which does not stand above it in the table");
        }
    }
}

#[test]
fn every_file_keeps_to_the_table() {
    let found: Vec<String> = files()
        .iter()
        .filter(|(_, module, _)| !module.ends_with("::tests"))
        .flat_map(|(_, module, text)| problems(&Source::new(module, text)))
        .collect();
    assert_eq!(found, Vec::<String>::new());
}

/// What knows itself by way of others, among the parts of each module: a file, or a directory with all in it.
fn cycles(sources: &[Source]) -> Vec<String> {
    let modules: Vec<String> = sources.iter().map(|source| source.module.clone()).collect();
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources {
        for known in source.known_files(&modules) {
            // Where two paths part: what they share is the module whose parts these are.
            let pairs = source.module.split("::").zip(known.split("::"));
            let shared = pairs.take_while(|(own, other)| own == other).count();
            let part = |path: &str| path.split("::").take(shared + 1).collect::<Vec<_>>().join("::");
            if shared > 0 {
                arrows.entry(part(&source.module)).or_default().insert(part(known));
            }
        }
    }
    let reached = |from: &str| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(part) = next.pop() {
            for known in arrows.get(part).into_iter().flatten() {
                if reached.insert(known.clone()) {
                    next.push(known);
                }
            }
        }
        reached
    };
    let is_in_cycle = |part: &&String| reached(part).contains(*part);
    let told = |part: &String| {
        let back = arrows[part].iter().filter(|known| reached(known).contains(part));
        format!("{part} knows {}", back.map(String::as_str).collect::<Vec<_>>().join(", "))
    };
    arrows.keys().filter(is_in_cycle).map(told).collect()
}

#[test]
fn no_file_of_a_module_knows_itself_by_way_of_others() {
    let sources: Vec<Source> = files()
        .iter()
        .filter(|(_, module, _)| !module.ends_with("::tests"))
        .map(|(_, module, text)| Source::new(module, text))
        .collect();
    assert_eq!(cycles(&sources), Vec::<String>::new());
}

#[test]
fn cycles_are_found() {
    let check = |files: &[(&str, &str)], expect: &[&str]| {
        let sources: Vec<Source> = files.iter().map(|(module, text)| Source::new(module, text)).collect();
        assert_eq!(cycles(&sources), expect, "{files:?}");
    };
    check(&[("m", ""), ("m::a", "use super::b::B;"), ("m::b", "use super::M;")], &[]);
    check(
        &[("m", ""), ("m::a", "use super::b::B;"), ("m::b", "fn f() { crate::m::a::g(); }")],
        &["m::a knows m::b", "m::b knows m::a"],
    );
    check(
        &[
            ("m", ""),
            ("m::a", "use super::{x::{Y, Z}, b::{self, B}};"),
            ("m::b", "use super::c;"),
            ("m::c", "use super::a::A;"),
        ],
        &["m::a knows m::b", "m::b knows m::c", "m::c knows m::a"],
    );
    // A directory is one part.
    check(
        &[("m", ""), ("m::a", ""), ("m::a::x", "use super::super::b::B;"), ("m::b", "use super::a::A;")],
        &["m::a knows m::b", "m::b knows m::a"],
    );
    check(&[("m", ""), ("m::a", "use super::b::B;"), ("m::b", "#[cfg(test)] mod tests { use super::super::a; }")], &[]);
}

#[test]
fn every_arrow_of_the_table_is_used() {
    let sources: Vec<Source> = files().iter().map(|(_, module, text)| Source::new(module, text)).collect();
    for (name, allowed) in ARROWS {
        for other in allowed {
            let mut paths = sources.iter().filter(|source| source.top() == name).flat_map(Source::inner_paths);
            assert!(paths.any(|path| path == *other), "{name} does not know {other} any more: strike it");
        }
    }
}

#[test]
fn every_file_says_what_it_owns_and_ends_in_time() {
    for (path, _, text) in files() {
        let path = path.display().to_string();
        assert!(text.starts_with("//! "), "{path} does not open with what it owns");
        let lines = text.lines().count();
        let is_listed = LONG_FILES.iter().any(|(long, _)| *long == path);
        assert!(lines <= FILE_LINES_MAX || is_listed, "{path} has {lines} lines; {FILE_LINES_MAX} are allowed");
    }
}

/// The names of the crates that a section of `Cargo.toml` asks for.
fn dependencies(section: &str) -> Vec<String> {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("Cargo.toml is there");
    let lines = text.lines().skip_while(|line| *line != format!("[{section}]")).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| Some(line.split_once(" = ")?.0.to_owned())).collect()
}

#[test]
fn the_requested_crates_are_in_use_and_no_other_makes_tables() {
    let normal = dependencies("dependencies");
    let sources: Vec<Source> = files().iter().map(|(_, module, text)| Source::new(module, text)).collect();
    for name in REQUESTED {
        assert!(normal.iter().any(|other| other == name), "{name} is not a dependency");
        assert!(sources.iter().any(|source| source.names_crate(name)), "no module uses {name}");
    }
    let is_other =
        |name: &&String| OTHER_TABLES.iter().any(|other| *name == other || name.starts_with(&format!("{other}-")));
    assert_eq!(normal.iter().filter(is_other).collect::<Vec<_>>(), Vec::<&String>::new());
}

/// What `source` does with a `Decimal` that only `domain::digits` may.
fn decimal_problems(source: &Source) -> Vec<String> {
    let decimal = Word::Name("Decimal".to_owned());
    let mut problems = Vec::new();
    for at in (0..source.words.len()).filter(|at| source.words[*at] == decimal) {
        let is_parsed = source.words.get(at.wrapping_sub(4)..at)
            == Some(&[Word::Name("parse".to_owned()), Word::Mark(':'), Word::Mark(':'), Word::Mark('<')]);
        let call = if source.is_path_on(at) { source.name(at + 3) } else { None };
        // An enum of this crate may have a variant of that name.
        let is_call = call.is_some_and(|call| call.starts_with(char::is_lowercase) && !DECIMAL_CALLS.contains(&call));
        if is_parsed || is_call {
            problems.push(format!("{} calls Decimal::{}", source.module, call.unwrap_or("parse")));
        }
    }
    // Where the type is named, a parse that does not say of what could be of a decimal.
    let names_type = source.words.windows(2).any(|words| words[1] == decimal && words[0] != Word::Mark(':'))
        || source.words.windows(4).any(|words| {
            let owner = matches!(&words[0], Word::Name(name) if ["domain", "rust_decimal"].contains(&name.as_str()));
            owner && words[1..3] == [Word::Mark(':'), Word::Mark(':')] && words[3] == decimal
        });
    let bare = [Word::Mark('.'), Word::Name("parse".to_owned()), Word::Open];
    if names_type && source.words.windows(3).any(|words| words == bare) {
        problems.push(format!("{} parses what may be a Decimal", source.module));
    }
    problems
}

#[test]
fn decimals_are_stored_and_not_computed_with() {
    for (_, module, text) in files().iter().filter(|(_, module, _)| !module.ends_with("::tests")) {
        let source = Source::new(module, text);
        // The parser, and a setting that is shown without the zeros that it gained.
        if module != "domain::digits" && module != "domain::factor" {
            assert_eq!(decimal_problems(&source), Vec::<String>::new());
        }
        // No struct of the domain stores a mantissa of its own.
        for at in 0..source.words.len() {
            if source.top() != "domain" || source.name(at) != Some("struct") {
                continue;
            }
            let body = source.words[at..].iter().scan(0_i32, |depth, word| {
                let ends = *depth == 1 && *word == Word::Close || *depth == 0 && *word == Word::Mark(';');
                *depth += i32::from(*word == Word::Open) - i32::from(*word == Word::Close);
                (!ends).then_some(word)
            });
            let stores_mantissa = body.into_iter().any(|word| *word == Word::Name("u128".to_owned()));
            assert!(!stores_mantissa, "{module}: struct {:?} stores a u128", source.name(at + 1));
        }
    }
    let check = |text: &str, expect: &[&str]| assert_eq!(decimal_problems(&Source::new("m", text)), expect, "{text}");
    check("fn f() { Decimal::try_from_i128_with_scale(1, 2); Decimal::from(rate); Cell::Decimal(x); }", &[]);
    check("use crate::domain::Decimal; fn f() { let d: Decimal = s.parse()?; }", &["m parses what may be a Decimal"]);
    check("use crate::domain::{Decimal, Rate}; fn f() { s.parse::<u8>(); }", &[]);
    check("fn f() { Cell::Decimal(s.parse()?); }", &[]);
    check("fn f() { Decimal::from_str_exact(x); }", &["m calls Decimal::from_str_exact"]);
    check("fn f() { x.parse::<Decimal>(); }", &["m calls Decimal::parse"]);
}

/// The rules find what they are for, and nothing where there is nothing.
#[test]
fn rules_find_what_they_are_for() {
    let check = |module: &str, text: &str, expect: &[&str]| {
        assert_eq!(problems(&Source::new(module, text)), expect, "{module}: {text}");
    };
    check("domain::rate", "use std::fmt; use super::time::Timestamp; fn f() { crate::domain::x(); }", &[]);
    check("domain::rate", "use crate::store::Store;", &["domain::rate knows store"]);
    check("domain::rate", "use super::super::store::Store;", &["domain::rate knows store"]);
    check("store::block", "use super::super::feed;", &["store::block knows feed"]);
    check("store::a::b", "use super::super::feed; use super::super::super::grpc;", &["store::a::b knows grpc"]);
    check("store", "use crate::{domain::Run, query::{self, latest}};", &["store knows query"]);
    check(
        "store",
        "fn f() -> crate::ingest::Batch { tracing::info!(x = crate::grpc::x()) }",
        &["store knows ingest", "store knows grpc"],
    );
    check("store", "// crate::grpc\n/// crate::grpc\nconst X: &str = \"crate::grpc\";", &[]);
    check("store", "#[cfg(test)]\nmod tests { use crate::grpc::x; fn f() { x.unwrap(); } }", &[]);
    check("store", "#[cfg(test)] mod tests; use crate::grpc::x;", &["store knows grpc"]);
    check("query", "fn f(t: sled::Tree) {}", &["query knows the crate sled"]);
    check("query", "use ::sled::Tree;", &["query knows the crate sled"]);
    check("query", "use sled; extern crate pco;", &["query knows the crate sled", "query knows the crate pco"]);
    check("query", "let sled = a.sled; b::sled::c();", &[]);
    check("ingest", "use tonic::Status;", &["ingest knows the crate tonic"]);
    check("cli::rate", "use tonic::Status;", &["cli::rate knows the crate tonic"]);
    check("cli::client", "use tonic::Status;", &[]);
    check("analysis::change", "use std::{fmt, fs::File};", &["analysis::change knows std::fs"]);
    check(
        "analysis::change",
        "let t = std::time::Instant::now();",
        &["analysis::change knows Instant", "analysis::change knows now"],
    );
    check("domain::time", "use chrono::Utc; fn f() { Utc::now(); }", &["domain::time knows now"]);
    check("domain", "fn f() { x.unwrap(); }", &["domain unwraps"]);
    check("domain", "fn f() { x.unwrap_or(1); }", &[]);
    check("novelty", "fn f() {}", &["novelty: its module has no place in the table of arrows"]);
}
