//! The services: proto to domain and back, errors to statuses.
//!
//! **Invariant**: handlers validate, convert and delegate, and do nothing else. No type of tonic is known below here,
//! except to the client in `cli`.

pub mod convert;
pub mod deadline;
mod ingest_convert;
pub mod ingest_service;
pub mod latest;
mod page_token;
mod rate_request;
mod rate_response;
pub mod rate_service;
mod run_stream;
pub mod status;
mod tick_stream;

pub use ingest_convert::BATCH_TICKS_MAX;
pub use tick_stream::UNANSWERED_BATCHES_MAX;
pub(crate) use tick_stream::told;
