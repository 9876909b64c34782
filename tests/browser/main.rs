//! What people see: Chromium on the page, and a web page's calls of gRPC. Apart from the other tests, since it is timed.

#![allow(clippy::unwrap_used, reason = "a helper of tests that cannot go on fails the test")]

#[path = "../it/skipped/mod.rs"]
mod skipped;
#[path = "../it/support/mod.rs"]
mod support;

mod chromium;
mod grpc_web;
mod page;
