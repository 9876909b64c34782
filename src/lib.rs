//! silkrate: exchange-rate time series for five Central Asian currencies.
//!
//! The code map and the invariants that hold it together stand in `docs/ARCHITECTURE.md`.

pub mod board;
pub mod cli;
pub mod clock;
pub mod config;
pub mod domain;
pub mod feed;
pub mod ingest;
pub mod proto;
pub mod server;
pub mod store;
