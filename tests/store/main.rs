//! The store and what it keeps, through kills, power cuts, faults and full disks.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a test that cannot go on is to fail, and its numbers are small"
)]

#[path = "../fixture/mod.rs"]
mod fixture;
#[path = "../random/mod.rs"]
mod random;
#[path = "../skipped/mod.rs"]
mod skipped;
#[path = "../strace/mod.rs"]
mod strace;

mod as_of;
mod crash;
mod damage;
mod durable;
mod faults;
mod fixture_store;
mod full_disk;
mod model;
mod opening;
mod poll_records;
mod power_cut;
mod quarantine_model;
mod state_rules;
