//! The page and the calls over plain HTTP.

#![allow(clippy::unwrap_used, reason = "a helper of tests that cannot go on fails the test")]

#[path = "../publisher/mod.rs"]
mod publisher;
#[path = "../skipped/mod.rs"]
mod skipped;
#[path = "../support/mod.rs"]
mod support;
#[path = "../web/mod.rs"]
mod web;

mod calls;
mod compare;
mod frankfurter;
mod frankfurter_client;
mod metrics;
mod page;
