//! What callers may cost: these tests read the memory of their own process, so they have one to themselves.

#![allow(clippy::unwrap_used, reason = "a helper of tests that cannot go on fails the test")]

#[path = "../it/support/mod.rs"]
mod support;
#[path = "../it/web/mod.rs"]
mod web;

mod hostile_callers;
mod listener;
