//! Errors of the store.

use thiserror::Error;

use super::block::{BlockError, BlockFault};
use crate::domain::{SeriesKey, Timestamp};

/// Why a store cannot be opened, read or written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error("store {path} is in use by {holder}; stop that process or choose another --db")]
    InUse {
        /// The store's directory.
        path: String,
        /// The process that holds the lock, as written in the lock file.
        holder: String,
    },
    /// A newer version of silkrate wrote the store.
    #[error("store {path} has format {found}, but this silkrate reads formats up to {supported}; run a newer silkrate")]
    NewerFormat {
        /// The store's directory.
        path: String,
        /// The format of the store.
        found: u8,
        /// The newest format that this version reads.
        supported: u8,
    },
    /// An import or a restore into the directory was interrupted.
    #[error(
        "store {path} is incomplete: its import or restore did not finish; run the same 'silkrate import' or 'silkrate \
         restore' again, or remove the directory"
    )]
    UnfinishedImport {
        /// The store's directory.
        path: String,
    },
    /// Data that every read depends on is missing or damaged.
    #[error("store {path} is damaged: {problem}; restore the store from a backup")]
    Damaged {
        /// The store's directory.
        path: String,
        /// What is damaged, and how.
        problem: String,
    },
    /// Acknowledged commits are lost.
    #[error(
        "store {path} ends at sequence {sequence}, but its high-water mark (file 'witness') is {high_water_mark}: commits are lost; restore the store from a backup"
    )]
    Behind {
        /// The store's directory.
        path: String,
        /// The sequence of the newest commit in the store.
        sequence: u64,
        /// The highest sequence that is known to have been durable.
        high_water_mark: u64,
    },
    /// One block is damaged. Data outside the block's time range is not affected.
    #[error("{series}: the stored {what} from {from} to {to} cannot be read: {problem}")]
    DamagedBlock {
        /// The series of the block.
        series: Box<SeriesKey>,
        /// The kind of items in the block: runs, instants or revisions.
        what: &'static str,
        /// First time of the block: observed time, or superseded time for revisions.
        from: Timestamp,
        /// Last time of the block, inclusive.
        to: Timestamp,
        /// How the block is damaged.
        problem: String,
    },
    /// One block of the list of commits is damaged.
    #[error("the stored commits from {from} to {to} cannot be read: {problem}")]
    DamagedCommits {
        /// First recorded time of the block.
        from: Timestamp,
        /// Last recorded time of the block, inclusive.
        to: Timestamp,
        /// How the block is damaged.
        problem: String,
    },
    /// The stored collapse window of a series differs from the configured window.
    #[error(
        "{series} is stored with a collapse window of {stored_s} s, but {configured_s} s is configured; configure {stored_s} s for source {source_name}, or start once with --recollapse"
    )]
    WindowDiffers {
        /// The series with that window.
        series: Box<SeriesKey>,
        /// The source of the series, quoted in the remedy.
        source_name: String,
        /// The stored window, in seconds.
        stored_s: i64,
        /// The configured window, in seconds.
        configured_s: i64,
    },
    /// A read without the disk needs a block that is not in memory.
    #[error("the read needs a block that is not in memory")]
    NotInMemory,
    /// An operation of the operating system or of sled failed.
    #[error("{action}: {problem}")]
    Io {
        /// The action that failed, such as "cannot sync the store".
        action: String,
        /// The cause.
        problem: String,
        /// True if the disk is full.
        disk_full: bool,
    },
}

impl StoreError {
    /// Converts the error of reading a block of a series.
    pub(super) fn of_block(series: &SeriesKey, error: BlockError) -> Self {
        let BlockError { kind, from, to, fault, problem } = error;
        let what = kind.name();
        match fault {
            BlockFault::NotInMemory => Self::NotInMemory,
            BlockFault::Damage => Self::DamagedBlock { series: Box::new(series.clone()), what, from, to, problem },
            BlockFault::Disk { .. } | BlockFault::LimitReached => {
                Self::not_read(&format!("{what} of {series} from {from} to {to}"), fault, problem)
            }
        }
    }

    /// Converts the error of reading a block of the list of commits.
    pub(super) fn of_commits(error: BlockError) -> Self {
        let BlockError { from, to, fault, problem, .. } = error;
        match fault {
            BlockFault::NotInMemory => Self::NotInMemory,
            BlockFault::Damage => Self::DamagedCommits { from, to, problem },
            BlockFault::Disk { .. } | BlockFault::LimitReached => {
                Self::not_read(&format!("commits from {from} to {to}"), fault, problem)
            }
        }
    }

    /// Makes the error for a block that could not be read, but is not known to be damaged.
    fn not_read(what: &str, fault: BlockFault, problem: String) -> Self {
        Self::Io {
            action: format!("cannot read the stored {what} (the data may be undamaged)"),
            problem,
            disk_full: fault == BlockFault::Disk { is_full: true },
        }
    }

    /// Converts an I/O error of the operating system. `action` is the action that failed.
    pub(crate) fn io(action: impl Into<String>, error: &std::io::Error) -> Self {
        Self::Io {
            action: action.into(),
            problem: error.to_string(),
            disk_full: error.kind() == std::io::ErrorKind::StorageFull,
        }
    }

    /// Converts an error of sled. `action` is the action that failed.
    pub(crate) fn engine(action: impl Into<String>, error: &sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::io(action, error),
            sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. } => {
                Self::Io { action: action.into(), problem: error.to_string(), disk_full: false }
            }
        }
    }
}
