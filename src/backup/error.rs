//! Errors of backups and restores.

use std::fmt;

use thiserror::Error;

use crate::ingest::BackupPointError;
use crate::store::{RebuildError, RecordsError, StoreError};

/// Why a backup or a restore fails.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BackupError {
    /// The destination refused an operation, or cannot be reached.
    #[error("cannot {action} {object}: {problem}; {}", remedy(*.is_bucket))]
    Object {
        /// The operation: read, write, list or delete.
        action: &'static str,
        /// The object, with its destination.
        object: String,
        /// The cause.
        problem: String,
        /// Whether the destination is a bucket.
        is_bucket: bool,
    },
    /// The destination cannot be used at all.
    #[error("cannot use {destination}: {problem}; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION")]
    Bucket {
        /// The destination.
        destination: String,
        /// The cause.
        problem: String,
    },
    /// An object that a manifest names is missing.
    #[error("{object} is missing; restore or verify another backup, and make a new one")]
    Missing {
        /// The object, with its destination.
        object: String,
    },
    /// An object is not what its manifest or its name states.
    #[error("{object} is damaged: {problem}; restore or verify another backup, and make a new one")]
    Damaged {
        /// The object, with its destination.
        object: String,
        /// How it is damaged.
        problem: String,
    },
    /// A newer version of silkrate wrote a manifest.
    #[error("{object} has format {found}, but this silkrate reads format {supported}; run a newer silkrate")]
    NewerFormat {
        /// The manifest, with its destination.
        object: String,
        /// Its format.
        found: u64,
        /// The format that this version reads.
        supported: u64,
    },
    /// The destination has no backup.
    #[error("{0} has no backup; name the directory or the bucket and prefix that were given to silkrate backup")]
    NoBackup(String),
    /// No backup contains the wanted commit.
    #[error("{at} cannot be restored from {destination}: {problem}")]
    NotCovered {
        /// The wanted commit or time.
        at: String,
        /// The destination.
        destination: String,
        /// Which commits can be restored.
        problem: String,
    },
    /// Another process removed an object that the new backup needs.
    #[error("{object} was removed while the backup was written; back up one store with one process, then try again")]
    Removed {
        /// The object, with its destination.
        object: String,
    },
    /// The pieces of a backup are out of order, or do not fit together.
    #[error("the backup that the server sent is invalid: {0}; check that server and command have the same version")]
    Pieces(String),
    /// The records of a backup are invalid.
    #[error("the records that the server sent are invalid: {0}")]
    Records(#[from] RecordsError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The writer does not return the records of a commit.
    #[error(transparent)]
    Point(#[from] BackupPointError),
    /// The store cannot be rebuilt.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// A task of the backup panicked. The log has the message.
    #[error("a task of the backup failed: {0}")]
    Task(String),
}

fn remedy(is_bucket: bool) -> impl fmt::Display {
    if is_bucket {
        "check the bucket, its prefix, AWS_ENDPOINT_URL and the rights of the AWS_ credentials"
    } else {
        "check that the directory is mounted, that it is writable and that the disk has room"
    }
}

impl From<tokio::task::JoinError> for BackupError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Task(error.to_string())
    }
}
