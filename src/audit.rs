//! The audit log: one line of JSON for each change, with who made it, what changed, from where, and its commit.
//!
//! A line is written after the commit and before the response of the call, so a process that is killed loses no line of
//! an answered call. The file is synced once a second, so a power cut loses at most the lines of the last second; the
//! changes themselves are durable.
//!
//! **Invariants**: a line is appended whole. A line contains no secret. A file that was renamed or removed is not
//! written any more: the next line goes to a new file at the configured path.

use std::fs::{self, File};
use std::future::Future;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::TaskTracker;

use crate::access::Principal;
use crate::clock::Clock;
use crate::domain::{Source, Timestamp, Verdict};
use crate::ingest::{
    ArchiveReport, ArchiveRequest, Batch, ConflictPolicy, DecisionReport, DecisionRequest, Ingest, IngestError,
    IngestReport,
};
use crate::metrics::AccessMetrics;
use crate::store::Decided;

/// Interval at which the file is synced.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum time that a stopping server waits for the last lines.
const FINISH_TIME_MAX: Duration = Duration::from_secs(5);
/// Number of sources that a line names.
const LINE_SOURCES_MAX: usize = 100;
/// The permissions of a new file: only its owner reads and writes it.
const FILE_MODE: u32 = 0o600;

/// A change that was committed.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Change {
    /// Ticks were stored or held.
    Ticks {
        /// The sources of the ticks, the first 100.
        sources: Vec<String>,
        /// The number of sources.
        source_count: usize,
        /// The policy for instants with another stored value.
        conflict_policy: &'static str,
        /// The results, by kind.
        counts: Counts,
    },
    /// Held ticks were released or discarded.
    Decision {
        /// The ids that were decided now.
        ids: Vec<u64>,
        /// The decision: `released` or `discarded`.
        verdict: &'static str,
        /// The policy for released ticks.
        conflict_policy: &'static str,
        /// The note.
        note: Option<String>,
    },
    /// A source was archived or unarchived.
    Archive {
        /// The source.
        source: String,
        /// Whether the source is archived now.
        archived: bool,
        /// The note.
        note: Option<String>,
    },
}

/// The results of a batch.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Counts {
    new_runs: u32,
    collapsed: u32,
    known: u32,
    revised: u32,
    refused: u32,
    held: u32,
    late: u32,
}

const fn policy_name(policy: ConflictPolicy) -> &'static str {
    match policy {
        ConflictPolicy::Refuse => "refuse",
        ConflictPolicy::Revise => "revise",
    }
}

/// The part of a batch that a line shows. It is taken before the batch goes to the writer.
#[derive(Clone, Debug)]
pub struct BatchOutline {
    sources: Vec<Source>,
    conflict_policy: ConflictPolicy,
}

impl BatchOutline {
    /// Returns the outline of a batch; `None` if the batch is only validated.
    pub fn of(batch: &Batch) -> Option<Self> {
        if batch.validate_only {
            return None;
        }
        let mut sources: Vec<Source> = batch.groups.iter().map(|group| group.series.source.clone()).collect();
        sources.sort_unstable();
        sources.dedup();
        Some(Self { sources, conflict_policy: batch.conflict_policy })
    }

    /// Returns the change of a stored batch; `None` if the batch changed nothing.
    pub fn change(&self, report: &IngestReport) -> Option<Change> {
        let summary = report.summary;
        let changed =
            [summary.new_run_count, summary.collapsed_count, summary.revised_count, summary.quarantined_count];
        if changed == [0; 4] {
            return None;
        }
        Some(Change::Ticks {
            sources: self.sources.iter().take(LINE_SOURCES_MAX).map(Source::to_string).collect(),
            source_count: self.sources.len(),
            conflict_policy: policy_name(self.conflict_policy),
            counts: Counts {
                new_runs: summary.new_run_count,
                collapsed: summary.collapsed_count,
                known: summary.known_count,
                revised: summary.revised_count,
                refused: summary.refused_count,
                held: summary.quarantined_count,
                late: summary.late_count,
            },
        })
    }
}

impl Change {
    /// Returns the change of a decision; `None` if no tick was decided.
    pub fn of_decision(request: &DecisionRequest, report: &DecisionReport) -> Option<Self> {
        let is_new = |decided: &Decided| matches!(decided, Decided::Released(_) | Decided::Discarded);
        let ids: Vec<u64> = request
            .ids
            .iter()
            .zip(&report.decided)
            .filter(|(_, (decided, _))| is_new(decided))
            .map(|(id, _)| *id)
            .collect();
        if ids.is_empty() {
            return None;
        }
        Some(Self::Decision {
            ids,
            verdict: match request.verdict {
                Verdict::Released => "released",
                Verdict::Discarded => "discarded",
            },
            conflict_policy: policy_name(request.conflict_policy),
            note: request.note.as_ref().map(ToString::to_string),
        })
    }

    /// Returns the change of an archived or unarchived source; `None` if the source was in that state before.
    pub fn of_archive(request: &ArchiveRequest, report: &ArchiveReport) -> Option<Self> {
        report.is_changed.then(|| Self::Archive {
            source: request.source.to_string(),
            archived: request.is_archived,
            note: request.note.as_ref().map(ToString::to_string),
        })
    }
}

/// A line of the log.
#[derive(Serialize)]
struct Line<'a> {
    /// The time at which the line was written.
    time: String,
    /// The name of the token, the subject of the certificate, `anonymous` or `server`.
    who: &'a str,
    /// `token`, `certificate`, `anonymous` or `server`.
    kind: &'static str,
    /// The address that the connection came from.
    address: Option<IpAddr>,
    /// The name of the gRPC method, `poll` or `load`.
    call: &'static str,
    #[serde(flatten)]
    change: &'a Change,
    /// The commit of the change.
    sequence: u64,
    recorded_time: String,
}

/// The audit log. Cheap to clone.
#[derive(Clone)]
pub struct Audit(Arc<Inner>);

struct Inner {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    metrics: AccessMetrics,
    open: Mutex<Open>,
    /// The turn to use the disk.
    turn: Arc<Semaphore>,
    /// The changes whose line is not written yet.
    changes: TaskTracker,
}

struct Open {
    file: File,
    /// Device and inode of the file, to notice that it was renamed.
    identity: (u64, u64),
    /// Whether lines were written since the last sync.
    is_dirty: bool,
    /// Whether the last write failed, so that the file may end in the middle of a line.
    is_torn: bool,
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).append(true).create(true).mode(FILE_MODE).open(path)?;
        let metadata = file.metadata()?;
        let mut last = [b'\n'];
        if let Some(at) = metadata.len().checked_sub(1) {
            file.read_exact_at(&mut last, at)?;
        }
        let is_torn = last != [b'\n'];
        Ok(Self { file, identity: (metadata.dev(), metadata.ino()), is_dirty: false, is_torn })
    }

    fn is_at(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity)
    }
}

impl Audit {
    /// Opens the log at `path`, and creates it if it does not exist.
    ///
    /// # Errors
    /// Returns the I/O error.
    pub fn open(path: &Path, clock: Arc<dyn Clock>, metrics: AccessMetrics) -> io::Result<Self> {
        let open = Mutex::new(Open::at(path)?);
        let (turn, changes) = (Arc::new(Semaphore::new(1)), TaskTracker::new());
        Ok(Self(Arc::new(Inner { path: path.to_owned(), clock, metrics, open, turn, changes })))
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // A panic leaves at most a torn line.
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change and writes its line before it returns, also if the returned future is dropped. `line` returns what
    /// changed, if anything, and the commit. `principal` is `None` for a change of the server itself.
    ///
    /// # Errors
    /// Those of `change`.
    pub async fn run<R: Send + 'static, E: Send + 'static>(
        &self,
        principal: Option<&Principal>,
        call: &'static str,
        change: impl Future<Output = Result<R, E>> + Send + 'static,
        line: impl FnOnce(&R) -> (Option<Change>, (u64, Timestamp)) + Send + 'static,
    ) -> Result<R, E> {
        let (audit, principal) = (self.clone(), principal.cloned());
        let with_line = async move {
            let report = change.await?;
            if let (Some(changed), commit) = line(&report) {
                audit.write(move |audit| audit.record(principal.as_ref(), call, &changed, commit)).await;
            }
            Ok(report)
        };
        Completed::new(self.0.changes.track_future(with_line)).await
    }

    /// Syncs the lines at an interval until the future is dropped.
    pub async fn sync_regularly(self) {
        let mut ticks = interval(SYNC_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sync_lines().await;
        }
    }

    /// Waits for the changes in progress, and syncs their lines. Gives up after 5 s, because the disk may
    /// hang.
    pub async fn finish(&self) {
        self.0.changes.close();
        let finished = async {
            self.0.changes.wait().await;
            self.sync_lines().await;
        };
        if timeout(FINISH_TIME_MAX, finished).await.is_err() {
            self.0.metrics.count_audit_failure();
            tracing::error!("the audit log {} is not complete: it could not be written in time", self.0.path.display());
        }
    }

    /// Syncs the lines written so far. Lines can be written meanwhile.
    async fn sync_lines(&self) {
        let audit = self.clone();
        // A panic has been logged.
        let _ = task::spawn_blocking(move || audit.sync()).await;
    }

    /// Runs `work` on a blocking thread, one at a time: a disk that hangs must not take the threads of reads.
    async fn write(&self, work: impl FnOnce(&Self) + Send + 'static) {
        // The semaphore is never closed.
        let Ok(turn) = Arc::clone(&self.0.turn).acquire_owned().await else { return };
        let audit = self.clone();
        let work = move || {
            work(&audit);
            drop(turn);
        };
        // A panic has been logged. The change is committed, so the call succeeds.
        let _ = task::spawn_blocking(work).await;
    }

    /// Appends the line of a change. The change is committed already, so a failure is logged and counted, and does not
    /// fail the call. Blocks the thread.
    fn record(&self, principal: Option<&Principal>, call: &'static str, change: &Change, commit: (u64, Timestamp)) {
        let (sequence, recorded_time) = commit;
        let who = principal.map(|principal| principal.identity.who());
        let line = Line {
            time: self.0.clock.now().to_string(),
            who: who.map_or("server", |who| who.name()),
            kind: who.map_or("server", |who| who.kind()),
            address: principal.and_then(|principal| principal.address),
            call,
            change,
            sequence,
            recorded_time: recorded_time.to_string(),
        };
        let appended = serde_json::to_vec(&line).map_err(io::Error::from).and_then(|line| self.append(line));
        if let Err(error) = appended {
            self.0.metrics.count_audit_failure();
            let path = self.0.path.display();
            tracing::error!(%error, sequence, "cannot write the audit log {path}; the change itself is stored");
        }
    }

    fn append(&self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        let mut open = self.lock();
        if !open.is_at(&self.0.path) {
            let renamed = std::mem::replace(&mut *open, Open::at(&self.0.path)?);
            // The disk of the earlier file may be the reason why it was renamed.
            if let Err(error) = renamed.file.sync_data() {
                self.0.metrics.count_audit_failure();
                tracing::error!(%error, "cannot sync the audit log that was renamed");
            }
        }
        if open.is_torn {
            line.insert(0, b'\n');
        }
        let written = open.file.write_all(&line);
        open.is_torn = written.is_err();
        open.is_dirty = true;
        written
    }

    /// Syncs the lines written since the last sync. Blocks the thread.
    fn sync(&self) {
        let synced = {
            let mut open = self.lock();
            if !std::mem::take(&mut open.is_dirty) {
                return;
            }
            open.file.try_clone()
        };
        if let Err(error) = synced.and_then(|file| file.sync_data()) {
            self.0.metrics.count_audit_failure();
            tracing::error!(%error, "cannot sync the audit log {}", self.0.path.display());
        }
    }
}

/// Stores a batch of the server itself (`call` is `poll` or `load`), and records its change in `audit`.
///
/// # Errors
/// See [`Ingest::submit`].
pub async fn submit_own(
    audit: Option<&Audit>,
    ingest: &Ingest,
    call: &'static str,
    batch: Batch,
) -> Result<IngestReport, IngestError> {
    let (Some(audit), Some(outline)) = (audit, BatchOutline::of(&batch)) else { return ingest.submit(batch).await };
    let ingest = ingest.clone();
    let submit = async move { ingest.submit(batch).await };
    audit.run(None, call, submit, move |report| (outline.change(report), (report.sequence, report.recorded_time))).await
}

/// A future that runs to its end even if it is dropped earlier, since a dropped call must not lose its line.
struct Completed<T: Send + 'static>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T: Send + 'static> Completed<T> {
    /// Wraps a future. Nothing happens before the first poll.
    fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Box::pin(future)))
    }
}

impl<T: Send + 'static> Future for Completed<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // The future is polled only until it is ready.
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let output = ready!(future.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(output)
    }
}

impl<T: Send + 'static> Drop for Completed<T> {
    fn drop(&mut self) {
        if let (Some(future), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(future);
        }
    }
}
