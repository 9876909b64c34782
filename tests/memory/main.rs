//! Limits of the memory that clients can use. These tests measure the memory of their own process, so they have a
//! binary of their own.

#![allow(clippy::unwrap_used, reason = "a failed helper must fail the test")]

#[path = "../it/support/mod.rs"]
mod support;
#[path = "../it/web/mod.rs"]
mod web;

mod hostile_callers;
mod listener;
