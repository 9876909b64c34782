//! silkrate: exchange-rate time series for five Central Asian currencies.
//!
//! The code map and the invariants that hold it together stand in `docs/ARCHITECTURE.md`.

pub mod analysis;
pub mod api;
pub mod backoff;
pub mod catch_panic;
pub mod causes;
pub mod cli;
pub mod clock;
pub mod columns;
pub mod config;
pub mod domain;
pub mod export;
pub mod feed;
pub mod follow;
pub mod grpc;
pub mod http;
pub mod incoming;
pub mod ingest;
pub mod latest_quotes;
pub mod metrics;
pub mod proto;
pub mod query;
pub mod server;
pub mod sources;
pub mod store;
pub mod telemetry;
