//! The built command: what it prints and how it exits.

mod analysis;
mod canned;
mod client;
mod command;
mod examples;
mod quarantine;
mod serve;
mod serve_faults;
mod watch;
