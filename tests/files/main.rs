//! Exports, imports, and the programs that analysts read them with.

#![allow(clippy::unwrap_used, reason = "a helper of tests that cannot go on fails the test")]

#[path = "../full_export/mod.rs"]
mod full_export;
#[path = "../random/mod.rs"]
mod random;
#[path = "../skipped/mod.rs"]
mod skipped;
#[path = "../strace/mod.rs"]
mod strace;
#[path = "../support/mod.rs"]
mod support;

mod analysts;
mod export_candles;
mod export_command;
mod export_service;
mod exported;
mod import;
mod import_command;
mod import_faults;
mod import_parquet;
mod stores;
mod tables;
