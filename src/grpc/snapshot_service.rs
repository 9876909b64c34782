//! `SnapshotService`: the store as files.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::blocking_stream::{End, send_until};
use super::deadline::Deadline;
use crate::api::ServiceError;
use crate::api::snapshot_request;
use crate::board::StateRules;
use crate::clock::Clock;
use crate::domain::CurrencySet;
use crate::export::{Unwanted, produce};
use crate::ingest::Ingest;
use crate::proto::v1;
use crate::proto::v1::snapshot_service_server::SnapshotService;
use crate::query::{Reader, Stop};

/// Most exports at once: each keeps a thread, a version of the store and a row group.
const EXPORTS_MAX: usize = 4;
/// Chunks made ahead of the client.
const CHUNKS_AHEAD_MAX: usize = 4;
/// The longest that an export may last, seconds.
const EXPORT_AGE_MAX_S: u64 = 3_600;
/// What a client does then.
const WHEN_TOO_OLD: &str = "export a part at a time, by pair or by start_time and end_time, with known_time set to \
                            recorded_time";

/// Exports from the newest view, each from one commit.
pub struct SnapshotServiceImpl {
    ingest: Ingest,
    clock: Arc<dyn Clock>,
    currencies: CurrencySet,
    rules: Arc<StateRules>,
    exports: Arc<Semaphore>,
}

impl SnapshotServiceImpl {
    /// Over what `ingest` makes visible. `currencies` are those that may be asked for.
    pub fn new(ingest: Ingest, clock: Arc<dyn Clock>, currencies: CurrencySet, rules: StateRules) -> Self {
        let exports = Arc::new(Semaphore::new(EXPORTS_MAX));
        Self { ingest, clock, currencies, rules: Arc::new(rules), exports }
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
        let request = snapshot_request::export(request.get_ref(), &self.currencies)?;
        let permit = Arc::clone(&self.exports)
            .try_acquire_owned()
            .map_err(|_| ServiceError::TooManyExports { exports_max: EXPORTS_MAX })?;
        let stop = Stop::default();
        let stops_when_dropped = stop.on_drop();
        let reader = Reader::new(self.ingest.view(), self.clock.now(), Arc::clone(&self.rules), stop);
        let question = request.snapshot.clone();
        let pinned = tokio::task::spawn_blocking(move || reader.snapshot(&question));
        // Past the caller's deadline this call is dropped, and the reader stops.
        let snapshot = match pinned.await {
            Ok(snapshot) => snapshot.map_err(ServiceError::from)?,
            Err(problem) => return Err(ServiceError::BrokenOff(problem.to_string()).into()),
        };
        let end = End::of(deadline, EXPORT_AGE_MAX_S, WHEN_TOO_OLD);
        let messages = send_until(end, CHUNKS_AHEAD_MAX, permit, move |hand_over| {
            let mut refusal = None;
            let outcome = produce(&snapshot, &request, &mut |message| {
                hand_over(message).map_err(|error| {
                    refusal = Some(error);
                    Unwanted
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
