//! What backups need of the writer: the records of a commit, and the frames of later commits.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::oneshot;

use super::{Ingest, IngestError, Message};
use crate::store::{BackupPoint, Commit, FrameTail, StoreError};

/// Why the writer does not return the records of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BackupPointError {
    /// A backup begins with a checkpoint, and the disk has no room for it.
    #[error("cannot back up: the disk has no room for the checkpoint that precedes a backup; make room on the disk")]
    NoRoom,
    /// The records cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The writer has stopped, or its queue is full.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

/// From which commit on the writer keeps frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeptFrom {
    /// The id of the store.
    pub store_id: u64,
    /// The newest commit. The frames of all later commits are kept.
    pub commit: Commit,
}

pub(super) type PointReply = oneshot::Sender<Result<BackupPoint, BackupPointError>>;
pub(super) type KeptReply = oneshot::Sender<KeptFrom>;

impl Ingest {
    /// Makes a checkpoint between two commits, and returns the records of the newest commit with a view that keeps its
    /// blocks. Commits wait meanwhile.
    ///
    /// # Errors
    /// `NoRoom` if the disk has no room for the checkpoint; `Store` if the records cannot be read; `Ingest` as
    /// [`Ingest::submit`].
    pub async fn backup_point(&self) -> Result<BackupPoint, BackupPointError> {
        self.check_open()?;
        let (reply, response) = oneshot::channel();
        self.queue(Message::Backup(reply))?;
        response.await.unwrap_or_else(|_| Err(self.close_error().into()))
    }

    /// Keeps the frames of all later commits in `tail`.
    ///
    /// # Errors
    /// As [`Ingest::submit`].
    pub async fn keep_frames(&self, tail: Arc<FrameTail>) -> Result<KeptFrom, IngestError> {
        self.check_open()?;
        let (reply, response) = oneshot::channel();
        self.queue(Message::KeepFrames(tail, reply))?;
        response.await.map_err(|_| self.close_error())
    }
}
