//! `SnapshotService`: streams exports of the store as files.
//!
//! **Invariant**: an export reads one commit.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::blocking_stream::{StreamEnd, send_until};
use super::deadline::Deadline;
use crate::api::snapshot_request;
use crate::api::{Caller, CallerSlots, Rates, ServiceError};
use crate::export::{ReceiverGone, produce};
use crate::proto::v1;
use crate::proto::v1::snapshot_service_server::SnapshotService;

/// Maximum number of chunks that are encoded before the client reads them.
const CHUNKS_AHEAD_MAX: usize = 4;
/// How a client gets the data after the maximum age.
const TOO_OLD_REMEDY: &str = "export in parts, by pair or by start_time and end_time, with known_time set to \
                              recorded_time";

/// The implementation of `SnapshotService`, over the newest commit.
pub struct SnapshotServiceImpl {
    rates: Arc<Rates>,
    exports: CallerSlots,
}

impl SnapshotServiceImpl {
    /// Creates the service over the store that `rates` reads.
    pub fn new(rates: Arc<Rates>) -> Self {
        let exports = CallerSlots::new(rates.limits().exports_max);
        Self { rates, exports }
    }
}

#[tonic::async_trait]
impl SnapshotService for SnapshotServiceImpl {
    type ExportSnapshotStream = Pin<Box<dyn Stream<Item = Result<v1::ExportSnapshotResponse, Status>> + Send>>;

    async fn export_snapshot(
        &self,
        request: Request<v1::ExportSnapshotRequest>,
    ) -> Result<Response<Self::ExportSnapshotStream>, Status> {
        let deadline = Deadline::of(request.extensions());
        let slot = self.exports.take(Caller::current());
        let request = snapshot_request::export(request.get_ref(), self.rates.currencies())?;
        let slot = slot.ok_or(ServiceError::NoSlot { what: "exports" })?;
        let query = request.snapshot.clone();
        let cancel = CancellationToken::new();
        let cancel_on_drop = cancel.clone().drop_guard();
        // This read only opens the snapshot. The thread of the stream reads the rows, without the time limit of a read.
        let snapshot =
            self.rates.read(move |reader| reader.clone().with_cancellation(cancel).snapshot(&query)).await?.answer;
        let end = StreamEnd::of(deadline, self.rates.limits().export_age_max_s, TOO_OLD_REMEDY);
        let messages = send_until(end, CHUNKS_AHEAD_MAX, slot, move |send_message| {
            let mut send_error = None;
            let outcome = produce(&snapshot, &request, &mut |message| {
                send_message(message).map_err(|error| {
                    send_error = Some(error);
                    ReceiverGone
                })
            });
            match send_error {
                Some(error) => Err(error),
                None => outcome.map_err(ServiceError::Export),
            }
        });
        // The stream owns the guard, so even a scan that finds no rows is cancelled if the client disconnects.
        Ok(Response::new(Box::pin(messages.map(move |message| {
            let _guard = &cancel_on_drop;
            message
        }))))
    }
}
