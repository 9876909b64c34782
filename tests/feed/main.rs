//! Feeds: publishers of every kind, followed on a clock that is set.

#![allow(clippy::unwrap_used, reason = "a helper of tests that cannot go on fails the test")]

#[path = "../publisher/mod.rs"]
mod publisher;
#[path = "../support/mod.rs"]
mod support;
#[path = "../web/mod.rs"]
mod web;

mod backfill_command;
mod feed_tls;
mod follow;
mod gaps;
mod month;
mod source_settings;
mod ticker_pages;
