//! `SnapshotService`: the store as files.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::blocking_stream::{End, send_until};
use super::caller_slots::{Caller, CallerSlots};
use super::deadline::Deadline;
use crate::api::snapshot_request;
use crate::api::{Rates, ServiceError};
use crate::export::{ReceiverGone, produce};
use crate::proto::v1;
use crate::proto::v1::snapshot_service_server::SnapshotService;

/// Most exports at once: each keeps a thread, a version of the store and a row group.
const EXPORTS_MAX: usize = 4;
/// Most exports of one caller at once.
const CALLER_EXPORTS_MAX: usize = 3;
/// Chunks made ahead of the client.
const CHUNKS_AHEAD_MAX: usize = 4;
/// The longest that an export may last, seconds.
const EXPORT_AGE_MAX_S: u64 = 3_600;
/// What a client does then.
const WHEN_TOO_OLD: &str = "export a part at a time, by pair or by start_time and end_time, with known_time set to \
                            recorded_time";

/// Exports from the newest view, each from one commit.
pub struct SnapshotServiceImpl {
    rates: Arc<Rates>,
    exports: CallerSlots,
}

impl SnapshotServiceImpl {
    /// Of what `rates` reads.
    pub fn new(rates: Arc<Rates>) -> Self {
        Self { rates, exports: CallerSlots::new(EXPORTS_MAX, CALLER_EXPORTS_MAX) }
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
        let place = self.exports.take(Caller::of(request.extensions()));
        let request = snapshot_request::export(request.get_ref(), self.rates.currencies())?;
        let place = place.ok_or(ServiceError::NoSlot { what: "exports" })?;
        let question = request.snapshot.clone();
        let cancel = CancellationToken::new();
        let stops_when_dropped = cancel.clone().drop_guard();
        // The rows are read for longer than one read may take, on the thread of the stream.
        let snapshot = self.rates.read(move |reader| reader.clone().until(cancel).snapshot(&question)).await?.answer;
        let end = End::of(deadline, EXPORT_AGE_MAX_S, WHEN_TOO_OLD);
        let messages = send_until(end, CHUNKS_AHEAD_MAX, place, move |hand_over| {
            let mut refusal = None;
            let outcome = produce(&snapshot, &request, &mut |message| {
                hand_over(message).map_err(|error| {
                    refusal = Some(error);
                    ReceiverGone
                })
            });
            match refusal {
                Some(error) => Err(error),
                None => outcome.map_err(ServiceError::Export),
            }
        });
        // A client who leaves amid a long scan without rows ends it: the guard goes with the stream.
        Ok(Response::new(Box::pin(messages.map(move |message| {
            let _kept = &stops_when_dropped;
            message
        }))))
    }
}
