//! silkrate stores and serves exchange rates of five Central Asian currencies: KGS, KZT, TJS, UZS and TMT.
//!
//! The crate is the `silkrate` program: a server that keeps rates in an embedded store and answers over gRPC and HTTP,
//! and the commands that are its clients. It is not published as a library, and its Rust API has no stability promise.
//! Modules are public so that integration tests, benchmarks, examples and other programs of this repository can use them.
//!
//! # Modules
//!
//! | modules | what they own | public for |
//! |---|---|---|
//! | [`domain`], [`analysis`] | currencies, rates, ticks and runs; exact percent changes, cross rates and candles | programs that compute with published rates |
//! | [`proto`], [`columns`] | messages, clients and services of `silkrate.v1`; runs and ticks packed in columns | gRPC clients in Rust: see the examples |
//! | [`feed`] | parsers for the ticker page, the tables of five central banks and ticks in CSV | programs that read those formats |
//! | [`store`], [`latest_quotes`], [`query`] | the commit log, segments and blocks; the latest quotes; reads, each answered from one commit | tests and benchmarks |
//! | [`ingest`], [`follow`], [`export`], [`backup`], [`sources`] | the writer; polling of publishers; snapshots; backups; settings of sources | tests and benchmarks |
//! | [`api`], [`grpc`], [`http`], [`server`], [`cli`], [`config`] | requests and responses; the two servers; the command | tests |
//! | [`backoff`], [`bytes_cache`], [`catch_panic`], [`causes`], [`clock`], [`incoming`], [`metrics`], [`telemetry`] | shared parts of a running server | tests |
//!
//! Dependencies between modules form no cycle. `docs/ARCHITECTURE.md` has the table of allowed dependencies, which a test
//! compares with the code.
//!
//! # Example
//!
//! A published rate has few digits, so a percent change has bounds:
//!
//! ```
//! use silkrate::analysis::{Derived, PercentChange};
//! use silkrate::domain::Rate;
//!
//! // Two quotes of UZS/USD. Each stands for the interval from 0.000075 to 0.000085.
//! let start = Derived::direct(Rate::parse("0.00008")?);
//! let end = Derived::direct(Rate::parse("0.00008")?);
//!
//! let change = PercentChange::between(&start, &end);
//! assert_eq!(change.value(6).to_string(), "0.000000");
//! // The true change lies between these bounds, so the published digits cannot tell whether the rate moved.
//! assert_eq!(change.low(6).to_string(), "-11.764706");
//! assert_eq!(change.high(6).to_string(), "13.333334");
//! assert!(change.below_resolution());
//! # Ok::<(), silkrate::domain::RateError>(())
//! ```

pub mod access;
pub mod analysis;
pub mod api;
pub mod audit;
pub mod backoff;
pub mod backup;
pub mod bytes_cache;
pub mod callers;
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
#[cfg(any(test, fuzzing))]
pub mod fuzz;
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
pub mod tls;
