//! The services on gRPC: calls and streams, deadlines, errors to statuses.
//!
//! **Invariant**: handlers validate, convert and delegate, and do nothing else. No type of tonic is known below here,
//! except to the client in `cli`.

mod blocking_stream;
mod caller_places;
pub mod deadline;
mod ingest_convert;
pub mod ingest_service;
mod kept_rates;
pub mod latest;
pub mod measure;
mod quarantine;
pub mod rate_service;
mod run_stream;
pub mod snapshot_service;
pub mod status;
mod tick_stream;
mod watch;

pub use caller_places::{Caller, CallerPlaces, Place};
pub use ingest_convert::BATCH_TICKS_MAX;
pub use tick_stream::UNANSWERED_BATCHES_MAX;
