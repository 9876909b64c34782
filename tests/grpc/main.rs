//! The services, over real sockets.

#![allow(clippy::unwrap_used, reason = "a helper of tests that cannot go on fails the test")]

#[path = "../skipped/mod.rs"]
mod skipped;
#[path = "../support/mod.rs"]
mod support;
#[path = "../web/mod.rs"]
mod web;

mod deadline;
mod derived_rates;
mod grpc_web;
mod ingest;
mod quarantine;
mod rates;
mod reads;
mod server;
mod stream_runs;
mod watch;
