//! `BackupService`: streams the content of the store for backups.
//!
//! **Invariant**: a backup is of one commit. Commits wait only while the writer reads the small records.

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::blocking_stream::{Messages, StreamEnd, send_until};
use super::deadline::Deadline;
use crate::api::{Caller, CallerSlots, ServiceError};
use crate::backup::{ProduceError, messages, produce};
use crate::ingest::Ingest;
use crate::proto::v1;
use crate::proto::v1::backup_service_server::BackupService;
use crate::query::QueryError;

/// Maximum number of concurrent backups. Each holds a thread, a version of the store and its records.
const BACKUPS_MAX: usize = 2;
/// Maximum number of messages that wait until the client reads them, about 1 MiB each.
const MESSAGES_AHEAD_MAX: usize = 4;
/// Maximum age of a backup, seconds.
const BACKUP_AGE_MAX_S: u64 = 6 * 3_600;
/// How a client gets the data after the maximum age.
const TOO_OLD_REMEDY: &str = "run the backup on the machine of the server, or to a faster destination";

/// The implementation of `BackupService`.
pub struct BackupServiceImpl {
    ingest: Ingest,
    slots: CallerSlots,
    draining: CancellationToken,
}

impl BackupServiceImpl {
    /// Creates the service of the store behind `ingest`. Backups end when `draining` is cancelled.
    pub fn new(ingest: Ingest, draining: CancellationToken) -> Self {
        Self { ingest, slots: CallerSlots::new(BACKUPS_MAX), draining }
    }
}

#[tonic::async_trait]
impl BackupService for BackupServiceImpl {
    type StreamBackupStream = Messages<v1::StreamBackupResponse>;

    async fn stream_backup(
        &self,
        request: Request<v1::StreamBackupRequest>,
    ) -> Result<Response<Self::StreamBackupStream>, Status> {
        let deadline = Deadline::of(request.extensions());
        let slot = self.slots.take(Caller::current());
        let bases = messages::bases(request.get_ref())
            .map_err(|(field, problem)| ServiceError::InvalidField { field, problem })?;
        let slot = slot.ok_or(ServiceError::NoSlot { what: "backups" })?;
        let point = self.ingest.backup_point().await.map_err(ServiceError::from)?;
        let end = StreamEnd::of(deadline, BACKUP_AGE_MAX_S, TOO_OLD_REMEDY);
        let (draining, ingest) = (self.draining.clone(), self.ingest.clone());
        let sent = send_until(end, MESSAGES_AHEAD_MAX, slot, move |send_message| {
            let source = point.open()?;
            let mut send_error = None;
            let produced = produce(&source, &bases, &mut |piece| {
                if draining.is_cancelled() {
                    send_error = Some(ingest.close_error().into());
                    return false;
                }
                send_message(piece.into()).map_err(|error| send_error = Some(error)).is_ok()
            });
            match (send_error, produced) {
                (Some(error), _) => Err(error),
                (None, Ok(())) => Ok(()),
                (None, Err(ProduceError::Store(error))) => Err(error.into()),
                (None, Err(ProduceError::ReceiverGone)) => Err(QueryError::Cancelled.into()),
            }
        });
        Ok(Response::new(sent))
    }
}
