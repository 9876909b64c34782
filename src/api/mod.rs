//! Requests and answers as messages of the protos, whatever wire they come by: checked, turned into questions, asked
//! of one commit, and answered.
//!
//! **Invariant**: a question that is asked is well formed. Nothing here knows of gRPC or HTTP: each wire hands over a
//! message and gets a message, or a [`ServiceError`].

mod compare;
pub mod convert;
mod error;
mod gaps;
mod page_token;
mod quarantine;
mod rate_request;
mod rate_response;
mod rates;
mod read_executor;
pub(crate) mod snapshot_request;
mod sources;
mod watch;

pub use error::{ErrorCode, ErrorDetail, REASON_NO_QUOTE_YET, REASON_STALE, REASON_UNKNOWN_SERIES, ServiceError};
pub use quarantine::{DECISION_IDS_MAX, decision_messages, decision_request};
pub use rate_response::{latest, latest_without_rates};
pub use rates::{Rates, Work};
pub use read_executor::{QUEUED_READS_MAX, READS_MAX, Read, ReadExecutor, ReadPermit};
pub use watch::{WatchQuestion, WatchStep, Watcher};
