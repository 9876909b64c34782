//! Backups that a server makes by itself: at an interval, and the frames of the log between them.
//!
//! **Invariants**:
//!
//! - The archived frames continue the newest backup without a gap. If frames are missing, a backup is due at once.
//! - A failure changes nothing for readers and for ingest. It is logged and counted, and repeated with backoff.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::catalog::Catalog;
use super::destination::{Destination, Location};
use super::error::BackupError;
use super::keep::Keep;
use super::log_archive;
use super::names::StoreId;
use super::produce::{ProduceError, produce};
use super::prune::prune;
use super::write::{Writer, Written};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::domain::{Timestamp, duration_us};
use crate::ingest::{BackupPointError, Ingest};
use crate::metrics::BackupMetrics;
use crate::store::{Commit, FrameTail, TailFrames};

/// Largest size of the frames that wait for the archive, in bytes. Beyond it, a backup is due at once.
const FRAMES_BYTES_MAX: usize = 64 << 20;
/// Pieces of a backup that wait for the destination.
const PIECES_AHEAD_MAX: usize = 4;
/// How long a server that stops waits until its last frames are archived.
const LAST_FRAMES_TIMEOUT: Duration = Duration::from_secs(5);
/// The shortest wait between two looks at what is due.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// The wait after a failure.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(10), longest: Duration::from_mins(10) };

/// The settings of `[backup]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackupSettings {
    /// Where the backups are kept.
    pub to: Location,
    /// The time from one backup to the next.
    pub every: Duration,
    /// Which backups are kept; all if absent.
    pub keep: Option<Keep>,
    /// The time from one archive of frames to the next.
    pub log_every: Duration,
}

/// The backups of a running server.
pub struct Schedule {
    settings: BackupSettings,
    destination: Destination,
    ingest: Ingest,
    clock: Arc<dyn Clock>,
    metrics: BackupMetrics,
    tail: Arc<FrameTail>,
    backup: Attempts,
    frames: Attempts,
    archived: Option<Archived>,
}

/// What the destination has of the running store.
#[derive(Clone, Copy)]
struct Archived {
    store: StoreId,
    /// When the newest backup was taken.
    taken_time: Timestamp,
    /// The newest commit in the backup or in the archived frames.
    sequence: u64,
}

/// Consecutive failures, and when the next attempt may begin.
#[derive(Default)]
struct Attempts {
    failures: u32,
    next: Option<Instant>,
}

impl Attempts {
    fn may_begin(&self) -> bool {
        self.next.is_none_or(|next| next <= Instant::now())
    }

    fn succeeded(&mut self) {
        *self = Self::default();
    }

    fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = BACKOFF.wait_after(self.failures);
        self.next = Instant::now().checked_add(wait);
        wait
    }
}

impl Schedule {
    /// Prepares backups of the store behind `ingest`. Reads and writes nothing yet.
    ///
    /// # Errors
    /// `Bucket` if the settings of the bucket in the environment are invalid.
    pub fn new(
        settings: BackupSettings,
        ingest: Ingest,
        clock: Arc<dyn Clock>,
        metrics: BackupMetrics,
    ) -> Result<Self, BackupError> {
        let destination = Destination::open(settings.to.clone())?;
        metrics.set_interval(settings.every.as_secs());
        let tail = Arc::new(FrameTail::new(FRAMES_BYTES_MAX));
        let (backup, frames) = (Attempts::default(), Attempts::default());
        Ok(Self { settings, destination, ingest, clock, metrics, tail, backup, frames, archived: None })
    }

    /// Makes backups until `stop` is cancelled. A backup in progress is then given up, and the last frames are archived.
    pub async fn run(mut self, stop: CancellationToken) {
        let kept_from = match self.ingest.keep_frames(Arc::clone(&self.tail)).await {
            Ok(kept_from) => kept_from,
            Err(error) => return tracing::warn!("no backups are made: {error}"),
        };
        let store = StoreId(kept_from.store_id);
        tokio::select! {
            () = stop.cancelled() => return,
            found = self.find_archived(store, kept_from.commit) => self.archived = found,
        }
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.tick() => {}
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(self.wait()) => {}
            }
        }
        if timeout(LAST_FRAMES_TIMEOUT, self.archive_frames()).await.is_err() {
            tracing::warn!("the last commits are not in the archived log: {} is too slow", self.destination.location());
        }
    }

    /// Returns what the destination has, if its newest backup is of the commit at which the server starts. Otherwise the
    /// frames of commits before the start are missing, and a backup is due.
    async fn find_archived(&mut self, store: StoreId, commit: Commit) -> Option<Archived> {
        let catalog = match Catalog::read(&self.destination).await {
            Ok(catalog) => catalog,
            Err(error) => {
                tracing::warn!("cannot read the backups: {error}");
                return None;
            }
        };
        let newest = catalog.backups().iter().rev().find(|manifest| manifest.store_id == store)?;
        self.metrics.set_succeeded("backup", seconds(newest.taken_time));
        let taken_time = newest.taken_time;
        (newest.commit() == commit).then_some(Archived { store, taken_time, sequence: commit.sequence })
    }

    /// The wait until the next archive of frames or the next backup.
    fn wait(&self) -> Duration {
        let now = self.clock.now();
        let due = self.archived.map_or(Duration::ZERO, |archived| {
            let due = archived.taken_time.saturating_add_us(duration_us(self.settings.every));
            Duration::from_micros(due.micros_since(now).max(0).unsigned_abs())
        });
        self.settings.log_every.min(due).max(SHORTEST_WAIT)
    }

    async fn tick(&mut self) {
        if self.frames.may_begin() {
            self.archive_frames().await;
        }
        if self.is_due() && self.backup.may_begin() {
            match self.back_up().await {
                Ok(()) => self.backup.succeeded(),
                Err(error) => {
                    self.metrics.count("backup", "failed");
                    let wait = self.backup.failed();
                    tracing::error!("the backup failed, next attempt in {} s: {error}", wait.as_secs());
                }
            }
        }
    }

    fn is_due(&self) -> bool {
        self.archived.is_none_or(|archived| {
            let age_us = self.clock.now().micros_since(archived.taken_time);
            age_us >= duration_us(self.settings.every) || self.tail.has_gap_after(archived.sequence)
        })
    }

    /// Archives the frames of the commits after the newest archived one.
    async fn archive_frames(&mut self) {
        let Some(archived) = self.archived else { return };
        let frames = match self.tail.after(archived.sequence) {
            TailFrames::All(frames) => frames,
            TailFrames::Gap => return,
        };
        let Some(last) = frames.last().map(|frame| frame.commit) else { return };
        match log_archive::write(&self.destination, archived.store, &frames).await {
            Ok(bytes) => {
                self.frames.succeeded();
                self.archived = Some(Archived { sequence: last.sequence, ..archived });
                self.metrics.count("log", "succeeded");
                self.metrics.add_bytes("log", bytes);
                self.metrics.set_succeeded("log", seconds(self.clock.now()));
            }
            Err(error) => {
                self.metrics.count("log", "failed");
                let wait = self.frames.failed();
                tracing::error!("the log is not archived, next attempt in {} s: {error}", wait.as_secs());
            }
        }
    }

    async fn back_up(&mut self) -> Result<(), BackupError> {
        let (begun, now) = (Instant::now(), self.clock.now());
        let Written { manifest, sent_blocks } = self.write(now).await?;
        self.archived =
            Some(Archived { store: manifest.store_id, taken_time: manifest.taken_time, sequence: manifest.sequence });
        self.metrics.count("backup", "succeeded");
        self.metrics.add_bytes("backup", manifest.sent_bytes);
        self.metrics.set_succeeded("backup", seconds(now));
        tracing::info!(
            "backed up commit {} to {}: {sent_blocks} blocks, {} bytes, {} ms",
            manifest.sequence,
            self.destination.location(),
            manifest.sent_bytes,
            begun.elapsed().as_millis()
        );
        if let Some(keep) = &self.settings.keep {
            // The backup is complete, whatever happens to earlier ones.
            match prune(&self.destination, keep, now).await {
                Ok(pruned) if pruned.object_count > 0 => {
                    tracing::info!("deleted {} backups, {} objects", pruned.backup_count, pruned.object_count);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!("cannot delete earlier backups: {error}"),
            }
        }
        Ok(())
    }

    async fn write(&self, now: Timestamp) -> Result<Written, BackupError> {
        let mut writer = Writer::begin(self.destination.clone(), now).await?;
        let point = self.ingest.backup_point().await?;
        let bases = writer.bases();
        let (sender, mut receiver) = mpsc::channel(PIECES_AHEAD_MAX);
        let producing = spawn_blocking(move || {
            let source = point.open()?;
            produce(&source, &bases, &mut |piece| sender.blocking_send(piece).is_ok())
        });
        while let Some(piece) = receiver.recv().await {
            writer.accept(piece).await?;
        }
        match producing.await? {
            Ok(()) => writer.finish().await,
            Err(ProduceError::Store(error)) => Err(error.into()),
            Err(ProduceError::ReceiverGone) => Err(BackupPointError::Ingest(self.ingest.close_error()).into()),
        }
    }
}

fn seconds(time: Timestamp) -> i64 {
    time.to_parts().0
}
