//! The built command: what it prints and how it exits.

#![allow(clippy::unwrap_used, reason = "a helper of tests that cannot go on fails the test")]

#[path = "../support/mod.rs"]
mod support;
#[path = "../web/mod.rs"]
mod web;

mod analysis;
mod canned;
mod client;
mod command;
mod quarantine;
mod serve;
mod serve_faults;
mod watch;
