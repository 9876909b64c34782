//! The API as proto messages, independent of the protocol: validates a request, reads one commit, and builds the
//! response.
//!
//! **Invariant**: a request is validated before the store is read. This module does not know gRPC or HTTP: each
//! protocol passes a proto message in, and gets a proto message or a [`ServiceError`] back.

mod caller_permits;
mod caller_slots;
mod compare;
pub mod convert;
mod error;
mod gaps;
mod limits;
mod moments;
mod page_token;
mod quarantine;
mod rate_request;
mod rate_response;
mod rates;
mod read_executor;
pub(crate) mod snapshot_request;
mod sources;
mod watch;

pub use caller_slots::{Caller, CallerScope, CallerSlot, CallerSlots};
pub use error::{ErrorCode, ErrorDetail, REASON_NO_QUOTE_YET, REASON_STALE, REASON_UNKNOWN_SERIES, ServiceError};
pub use limits::ServiceLimits;
#[cfg(any(test, fuzzing))]
pub use page_token::fuzz as fuzz_page_token;
#[cfg(test)]
pub(crate) use page_token::fuzz_corpus;
pub use quarantine::{DECISION_IDS_MAX, decision_messages, decision_request};
pub use rate_response::{latest, latest_without_rates, leg_message};
pub use rates::{PointReadTask, Rates, ReadTask};
pub use read_executor::{Cost, QUEUED_READS_MAX, Read, ReadExecutor, ReadPermit};
pub use sources::archive_request;
pub use watch::{WatchRequest, WatchStep, Watcher};
