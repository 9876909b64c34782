//! Backups of a running store in a directory or in an S3 bucket, and stores restored from them.
//!
//! A backup is a set of objects: packs with the blocks of the store, one object with its small records, and a manifest that
//! names them with their checksums. Blocks never change, so a later backup of the same store sends only new blocks and
//! names the earlier packs again. Between two backups, the frames of the commit log are kept as objects, so that a restore
//! can end at any commit. `docs/STORAGE.md` specifies the objects.
//!
//! [`produce()`] reads a store and makes [`Piece`]s; [`Writer`] makes objects of them. A server that backs itself up connects
//! both directly. The command `backup` gets the pieces over gRPC.
//!
//! **Invariants**:
//!
//! - An object is complete when it appears under its name. A manifest appears after all objects that it names, and those
//!   are durable then.
//! - Only objects are deleted whose names this module writes, and never one that a manifest names.
//! - No message contains credentials.

mod bucket;
mod catalog;
mod destination;
mod directory;
mod error;
mod keep;
mod log_archive;
mod manifest;
pub mod messages;
mod names;
mod pack;
mod produce;
mod prune;
mod restore;
mod schedule;
mod verify;
mod write;

pub use catalog::{At, Catalog};
pub use destination::{Destination, Location, LocationError};
pub use error::BackupError;
pub use keep::{Keep, KeepError};
pub use manifest::Manifest;
pub use names::StoreId;
pub use produce::{Base, End, Header, Piece, ProduceError, RawBlock, produce};
pub use prune::{Pruned, prune};
pub use restore::{Restored, restore};
pub use schedule::{BackupSettings, Schedule};
pub use verify::{Verified, verify};
pub use write::{Writer, Written};
