//! The gRPC services: calls, streams, watches, deadlines, metrics of calls, and the status of each error.
//!
//! **Invariant**: handlers only validate, convert and delegate. Apart from `server` and the client in `cli`, no other
//! module uses types of tonic.

pub mod backup_service;
mod blocking_stream;
pub mod call_metrics;
mod changes;
pub mod deadline;
mod encoded_rates;
mod ending_body;
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

pub use changes::Changes;
pub use ending_body::EndingBody;
pub use ingest_convert::BATCH_TICKS_MAX;
pub use tick_stream::UNANSWERED_BATCHES_MAX;
