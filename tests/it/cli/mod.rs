//! Tests of the program `silkrate`: output and exit status.

mod analysis;
mod canned;
mod client;
pub(crate) mod command;
mod examples;
mod messages;
mod quarantine;
pub(crate) mod serve;
mod serve_faults;
mod watch;
