//! Integration tests in one binary, a module per area, with real sockets, files and processes.
//!
//! Tests that measure the memory of their process, and tests with time limits, have binaries of their own: `memory`
//! and `browser`.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a helper that panics fails its test, and numbers in tests are small"
)]

mod fixture;
mod full_export;
mod publisher;
mod random;
mod skipped;
mod strace;
mod support;
mod venv;
mod web;

mod access;
mod architecture;
mod backup;
mod cli;
mod configuration;
mod default_answers;
mod feed;
mod files;
mod grpc;
mod http;
mod overload;
mod packaging;
mod store;
