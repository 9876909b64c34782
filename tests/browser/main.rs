//! Tests with Chromium: the page, and gRPC-Web calls of a page. They have a binary of their own because of their time
//! limits.

#![allow(clippy::unwrap_used, reason = "a failed helper must fail the test")]

#[path = "../it/skipped/mod.rs"]
mod skipped;
#[path = "../it/support/mod.rs"]
mod support;

mod chromium;
mod grpc_web;
mod latest;
mod page;
mod windows;
