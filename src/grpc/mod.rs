//! The services on gRPC: calls and streams, deadlines, errors to statuses.
//!
//! **Invariant**: handlers validate, convert and delegate, and do nothing else. No type of tonic is known below here,
//! except to the client in `cli`.

mod blocking_stream;
pub mod call_metrics;
mod caller_slots;
pub mod deadline;
mod encoded_rates;
mod ingest_convert;
pub mod ingest_service;
pub mod latest;
mod quarantine;
pub mod rate_service;
mod run_stream;
pub mod snapshot_service;
pub mod status;
mod tick_stream;
mod watch;

pub use caller_slots::{Caller, CallerSlots, Place};
pub use ingest_convert::BATCH_TICKS_MAX;
pub use tick_stream::UNANSWERED_BATCHES_MAX;
