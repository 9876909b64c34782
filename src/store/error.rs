//! What can go wrong with a store.

use thiserror::Error;

use super::block::{BlockError, BlockFault};
use crate::domain::{SeriesKey, Timestamp};

/// Why a store cannot be opened, read or written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("store {path} is in use by {holder}; stop that or choose another --db")]
    InUse {
        /// The store's directory.
        path: String,
        /// Who holds the lock, as it wrote itself.
        holder: String,
    },
    /// Written by a newer silkrate.
    #[error("store {path} has format {found}; this silkrate reads up to {supported}, run a newer one")]
    NewerFormat {
        /// The store's directory.
        path: String,
        /// The format found.
        found: u8,
        /// The newest one known.
        supported: u8,
    },
    /// An import into it was broken off.
    #[error("store {path} is an import that did not finish; run 'silkrate import' again, or remove the directory")]
    UnfinishedImport {
        /// The store's directory.
        path: String,
    },
    /// Something that every read depends on does not decode.
    #[error("store {path} is damaged: {problem}; restore it from a backup")]
    Damaged {
        /// The store's directory.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// Commits that were answered for are gone.
    #[error(
        "store {path} ends at sequence {sequence} but its witness saw {high_water_mark}: commits are lost; restore it from a backup"
    )]
    Behind {
        /// The store's directory.
        path: String,
        /// The newest sequence found.
        sequence: u64,
        /// The newest sequence known to have been durable.
        high_water_mark: u64,
    },
    /// One block does not decode; everything outside its range does.
    #[error("{series}: the stored {what} from {from} to {to} cannot be read: {problem}")]
    DamagedBlock {
        /// Whose block.
        series: Box<SeriesKey>,
        /// What is in it: runs, instants, revisions.
        what: &'static str,
        /// First time in it: observed time, or recorded time for revisions.
        from: Timestamp,
        /// Last time in it, inclusive.
        to: Timestamp,
        /// What is wrong.
        problem: String,
    },
    /// The same for the store's own list of commits.
    #[error("the stored commits from {from} to {to} cannot be read: {problem}")]
    DamagedCommits {
        /// First recorded time in the block.
        from: Timestamp,
        /// Last one, inclusive.
        to: Timestamp,
        /// What is wrong.
        problem: String,
    },
    /// A series was stored with another collapse window than is configured.
    #[error(
        "{series} is stored with a collapse window of {stored_s} s, but {configured_s} s is configured; configure {stored_s} s for source {source_name}, or start once with --recollapse"
    )]
    WindowDiffers {
        /// Whose window.
        series: Box<SeriesKey>,
        /// Its source, for the remedy.
        source_name: String,
        /// Seconds, as stored.
        stored_s: i64,
        /// Seconds, as configured.
        configured_s: i64,
    },
    /// The operating system or the engine refused.
    #[error("{action}: {problem}")]
    Io {
        /// What was tried.
        action: String,
        /// What came back.
        problem: String,
        /// Whether the disk is full.
        disk_full: bool,
    },
}

impl StoreError {
    /// A block of a series that cannot be read.
    pub(super) fn of_block(series: &SeriesKey, error: BlockError) -> Self {
        let BlockError { kind, from, to, fault, problem } = error;
        let what = kind.name();
        match fault {
            BlockFault::Damage => Self::DamagedBlock { series: Box::new(series.clone()), what, from, to, problem },
            BlockFault::Disk { .. } | BlockFault::NoRoom => {
                Self::unread(&format!("{what} of {series} from {from} to {to}"), fault, problem)
            }
        }
    }

    /// A block of the store's own list of commits that cannot be read.
    pub(super) fn of_commits(error: BlockError) -> Self {
        let BlockError { from, to, fault, problem, .. } = error;
        match fault {
            BlockFault::Damage => Self::DamagedCommits { from, to, problem },
            BlockFault::Disk { .. } | BlockFault::NoRoom => {
                Self::unread(&format!("commits from {from} to {to}"), fault, problem)
            }
        }
    }

    fn unread(what: &str, fault: BlockFault, problem: String) -> Self {
        Self::Io {
            action: format!("cannot read the stored {what}, which may well be sound"),
            problem,
            disk_full: fault == BlockFault::Disk { is_full: true },
        }
    }

    /// An error of the operating system while doing `action`.
    pub(crate) fn io(action: impl Into<String>, error: &std::io::Error) -> Self {
        Self::Io {
            action: action.into(),
            problem: error.to_string(),
            disk_full: error.kind() == std::io::ErrorKind::StorageFull,
        }
    }

    /// An error of sled while doing `action`.
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
