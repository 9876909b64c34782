//! The writer thread, with group commit: all queued batches and polls become one commit.
//!
//! **Invariant**: a reply is sent after the commit of its request is durable and its view is published. After a failed
//! commit or checkpoint nothing is written any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tokio::sync::{oneshot, watch};

use super::apply::{Applied, apply};
use super::fan_out::notify;
use super::group::Group;
use super::new_series::{NewSeriesCounts, NewSeriesLimits};
use super::quarantine::{explain_decision, held_lines};
use super::{
    ArchiveError, ArchiveReport, ArchiveRequest, BackupPointError, ConflictPolicy, DecisionReport, IngestError,
    IngestReport, KeptFrom, Message, PendingArchive, PendingDecision, PendingPoll, Refusal, Shared, Summary,
};
use crate::clock::Clock;
use crate::domain::Verdict;
use crate::latest_quotes::LatestQuotes;
use crate::metrics::{IngestMetrics, TickCounts};
use crate::store::{
    BackupPoint, Commit, Decided, FrameTail, PollRefused, Quarantine, Store, StoreError, Upkeep, WriteTransaction,
};

/// A group commit takes no more batches once it has this many ticks, so that no request waits long.
const COMMIT_TICKS_MAX: usize = 65_536;
/// Once the batches of a commit have made this many segments mutable, further batches wait for the next commit. A
/// request therefore reaches [`WriteTransaction::MUTABLE_SEGMENTS_MAX`] only by its own ticks.
const COMMIT_MUTABLE_SEGMENTS: usize = WriteTransaction::MUTABLE_SEGMENTS_MAX / 8;
/// Longest sleep of the writer after writing has stopped.
const SLEEP_MAX: Duration = Duration::from_mins(1);
/// Interval at which the writer checks the store's files, and reads the clock again because an operator may set the
/// clock forward.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Starts the writer thread.
pub(super) fn start(
    store: Store,
    queue: Receiver<Message>,
    shared: Arc<Shared>,
    (watchers, clock, new_series): (watch::Sender<Arc<LatestQuotes>>, Arc<dyn Clock>, NewSeriesLimits),
) -> std::io::Result<JoinHandle<Result<(), StoreError>>> {
    let poison = PoisonOnPanic(Arc::clone(&shared));
    let writer = Writer {
        _poison: poison,
        store,
        queue,
        shared,
        watchers: Some(watchers),
        clock,
        new_series: NewSeriesCounts::new(new_series),
        failure: None,
        lacks_checkpoint_room: false,
        files_checked: Instant::now(),
    };
    Builder::new().name("silkrate-writer".to_owned()).spawn(move || writer.run())
}

/// If the writer thread panics, records that writing has stopped.
struct PoisonOnPanic(Arc<Shared>);

impl Drop for PoisonOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Keeps the cause of an earlier failure, if there was one.
            let _ = self.0.poisoned.set("the writer thread panicked".to_owned());
        }
    }
}

struct Writer {
    /// Dropped at the end of the thread, also after a panic. This field is dropped before `watchers`, so that the cause
    /// of the failure is recorded when watchers see the end of their channel.
    _poison: PoisonOnPanic,
    store: Store,
    queue: Receiver<Message>,
    shared: Arc<Shared>,
    /// Sender to the fan-out; none after writing has stopped.
    watchers: Option<watch::Sender<Arc<LatestQuotes>>>,
    clock: Arc<dyn Clock>,
    new_series: NewSeriesCounts,
    /// The error after which writing stopped.
    failure: Option<StoreError>,
    /// Whether the last due checkpoint was skipped because the disk was nearly full.
    lacks_checkpoint_room: bool,
    /// Time of the last check of the store's files.
    files_checked: Instant,
}

type Reply = oneshot::Sender<Result<IngestReport, IngestError>>;
type PollReply = oneshot::Sender<Result<(), IngestError>>;

impl Writer {
    fn run(mut self) -> Result<(), StoreError> {
        // The message after a group, which could not join the group.
        let mut next = None;
        loop {
            self.check_files();
            match next.take().map_or_else(|| self.queue.recv_timeout(self.longest_wait()), Ok) {
                Ok(Message::Batch(first)) => next = self.commit_group(Group::of(*first)),
                Ok(Message::Poll(first)) => next = self.commit_group(Group::of_poll(first)),
                Ok(Message::Decide(pending)) => self.decide(*pending),
                Ok(Message::Archive(pending)) => self.archive(*pending),
                // Sending a reply fails if the caller has dropped its future.
                Ok(Message::Backup(reply)) => drop(reply.send(self.backup_point())),
                Ok(Message::KeepFrames(tail, reply)) => drop(reply.send(self.keep_frames(tail))),
                Ok(Message::Wake) | Err(RecvTimeoutError::Timeout) => self.commit_due_changes(),
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.write_changes(next.is_some());
        }
        if self.failure.is_none() {
            self.checkpoint();
        }
        self.failure.map_or(Ok(()), Err)
    }

    /// Returns the longest wait for a message: until the next quote is due to change, or the next check of the files.
    fn longest_wait(&self) -> Duration {
        if self.failure.is_some() {
            return SLEEP_MAX;
        }
        let Some(due) = self.store.next_due() else { return CHECK_INTERVAL };
        let micros = due.micros_since(self.clock.now()).max(0);
        Duration::from_micros(micros.unsigned_abs()).min(CHECK_INTERVAL)
    }

    /// Stops writing if the files of the store were removed or replaced.
    fn check_files(&mut self) {
        if self.failure.is_some() || self.files_checked.elapsed() < CHECK_INTERVAL {
            return;
        }
        self.files_checked = Instant::now();
        if let Err(error) = self.store.check_files() {
            self.poison(error);
        }
    }

    /// Commits a group together with the batches and polls in the queue. Returns the first message that cannot join the
    /// group.
    fn commit_group(&mut self, mut group: Group) -> Option<Message> {
        let mut next = None;
        while group.ticks < COMMIT_TICKS_MAX {
            match self.queue.try_recv() {
                Ok(Message::Batch(more)) => group.add(*more),
                Ok(Message::Poll(poll)) => group.polls.push(poll),
                Ok(Message::Wake) => {}
                Ok(
                    other @ (Message::Decide(_)
                    | Message::Archive(_)
                    | Message::Backup(_)
                    | Message::KeepFrames(..)
                    | Message::Close),
                ) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        self.shared.queued_ticks.fetch_sub(group.ticks, Ordering::AcqRel);
        while !group.is_empty() {
            self.commit(&mut group);
        }
        next
    }

    /// Commits the polls and batches of a group. Batches that would make too many segments mutable together stay in the
    /// group for the next commit.
    fn commit(&mut self, group: &mut Group) {
        if let Some(failure) = &self.failure {
            let error = IngestError::Poisoned(failure.to_string());
            // Sending a reply fails if the caller has dropped its future.
            for pending in group.batches.drain(..) {
                let _ = pending.reply.send(Err(error.clone()));
            }
            for pending in group.polls.drain(..) {
                let _ = pending.reply.send(Err(error.clone()));
            }
            return;
        }
        let started = Instant::now();
        let held_before = self.store.quarantine().last_id();
        let now = self.clock.now();
        let mut transaction = self.store.begin(now);
        let mut batches: Vec<(Reply, Applied)> = Vec::with_capacity(group.batches.len());
        while transaction.mutable_segment_count() < COMMIT_MUTABLE_SEGMENTS
            && let Some(pending) = group.batches.pop_front()
        {
            let mut allowance = self.new_series.allowance(pending.batch.caller.clone(), now);
            let is_stored = !pending.batch.validate_only;
            batches.push((pending.reply, apply(&mut transaction, pending.batch, &mut allowance)));
            if is_stored {
                self.new_series.keep(&allowance);
            }
        }
        let record = |pending: PendingPoll| (pending.reply, transaction.record_poll(&pending.poll));
        let polls: Vec<(PollReply, Result<(), PollRefused>)> = group.polls.drain(..).map(record).collect();
        let result = transaction.commit();
        if let Ok(Some(_)) = result {
            self.publish();
            log_held(self.store.quarantine(), held_before);
        }
        match &result {
            Ok(Some(_)) => self.shared.metrics.record_commit(started.elapsed()),
            Ok(None) => {}
            Err(error) => self.poison(error.clone()),
        }
        let commit = self.store.newest_commit();
        for (reply, Applied { summary, refusals, held }) in batches {
            if result.is_ok() {
                count(&self.shared.metrics, summary, &refusals);
            }
            let report = match &result {
                Err(error) => Err(IngestError::Poisoned(error.to_string())),
                Ok(_) => Ok(IngestReport {
                    sequence: commit.sequence,
                    recorded_time: commit.recorded_time,
                    summary,
                    refusals,
                    held,
                }),
            };
            let _ = reply.send(report);
        }
        for (reply, recorded) in polls {
            let response = match &result {
                Err(error) => Err(IngestError::Poisoned(error.to_string())),
                Ok(_) => recorded.map_err(IngestError::from),
            };
            let _ = reply.send(response);
        }
        if !group.is_empty() {
            self.write_changes(true);
        }
    }

    /// Commits decisions about held ticks.
    fn decide(&mut self, PendingDecision { request, reply }: PendingDecision) {
        if let Some(failure) = &self.failure {
            // Sending a reply fails if the caller has dropped its future.
            let _ = reply.send(Err(IngestError::Poisoned(failure.to_string())));
            return;
        }
        let started = Instant::now();
        let mut transaction = self.store.begin(self.clock.now());
        let revise = request.conflict_policy == ConflictPolicy::Revise;
        let decided = transaction.decide(&request.ids, request.verdict, request.note.as_ref(), revise);
        let explained = request.ids.iter().zip(decided).map(|(id, decided)| {
            let message = explain_decision(*id, &decided, transaction.quarantine());
            (decided, message)
        });
        let decided: Vec<(Decided, String)> = explained.collect();
        let result = transaction.commit();
        let report = match result {
            Err(error) => {
                let response = IngestError::Poisoned(error.to_string());
                self.poison(error);
                Err(response)
            }
            Ok(commit) => {
                if commit.is_some() {
                    self.publish();
                    self.shared.metrics.record_commit(started.elapsed());
                }
                count_decided(&self.shared.metrics, request.verdict, &decided);
                let Commit { sequence, recorded_time } = self.store.newest_commit();
                Ok(DecisionReport { sequence, recorded_time, decided })
            }
        };
        let _ = reply.send(report);
    }

    /// Commits a decision to archive or unarchive a source.
    fn archive(&mut self, PendingArchive { request, reply }: PendingArchive) {
        // Sending a reply fails if the caller has dropped its future.
        let _ = reply.send(self.commit_archive(request));
    }

    fn commit_archive(&mut self, request: ArchiveRequest) -> Result<ArchiveReport, ArchiveError> {
        if let Some(failure) = &self.failure {
            return Err(IngestError::Poisoned(failure.to_string()).into());
        }
        let ArchiveRequest { source, is_archived, note } = request;
        let started = Instant::now();
        let mut transaction = self.store.begin(self.clock.now());
        let is_changed = transaction.set_archived(&source, is_archived, note)?;
        match transaction.commit() {
            Err(error) => {
                let response = IngestError::Poisoned(error.to_string());
                self.poison(error);
                return Err(response.into());
            }
            Ok(Some(_)) => {
                self.publish();
                self.shared.metrics.record_commit(started.elapsed());
            }
            Ok(None) => {}
        }
        if is_changed {
            tracing::info!("source {source} is {}", if is_archived { "archived" } else { "no longer archived" });
        }
        let Commit { sequence, recorded_time } = self.store.newest_commit();
        Ok(ArchiveReport { sequence, recorded_time, is_changed })
    }

    /// Makes a checkpoint, and reads the records of the newest commit from sled.
    fn backup_point(&mut self) -> Result<BackupPoint, BackupPointError> {
        if self.failure.is_none() && self.store.has_changes() {
            if !self.has_room() {
                return Err(BackupPointError::NoRoom);
            }
            self.checkpoint();
        }
        match &self.failure {
            Some(failure) => Err(IngestError::Poisoned(failure.to_string()).into()),
            None => Ok(self.store.backup_point()?),
        }
    }

    fn keep_frames(&mut self, tail: Arc<FrameTail>) -> KeptFrom {
        self.store.keep_frames(tail);
        KeptFrom { store_id: self.store.id(), commit: self.store.newest_commit() }
    }

    /// Commits changes of quotes that are due, without ticks.
    fn commit_due_changes(&mut self) {
        if self.failure.is_some() {
            return;
        }
        match self.store.begin(self.clock.now()).commit() {
            Ok(None) => {}
            Ok(Some(_)) => self.publish(),
            Err(error) => self.poison(error),
        }
    }

    /// Writes changes from memory to the blocks, in slices or with a checkpoint. Slices end when they are not needed, or
    /// early if a caller waits: if `callers_wait`, or if the queue has a message.
    fn write_changes(&mut self, callers_wait: bool) {
        let mut slices = 0;
        while self.failure.is_none() {
            match self.store.upkeep() {
                Upkeep::None => return,
                Upkeep::Checkpoint => return self.checkpoint(),
                Upkeep::Slices { before_next_commit } => {
                    let may_stop = slices >= before_next_commit && (callers_wait || !self.queue.is_empty());
                    if may_stop || !self.has_room() || !self.seal_slice() {
                        return;
                    }
                    slices += 1;
                }
            }
        }
    }

    /// Seals a slice. Returns false if there was nothing to seal.
    fn seal_slice(&mut self) -> bool {
        let started = Instant::now();
        match self.store.seal_slice() {
            Ok(is_sealed) => {
                if is_sealed {
                    self.shared.metrics.record_slice(started.elapsed());
                    self.publish();
                }
                is_sealed
            }
            Err(error) => {
                self.poison(error);
                false
            }
        }
    }

    /// Returns true if the disk has room for a checkpoint or a slice.
    fn has_room(&mut self) -> bool {
        if !self.store.has_room_for_checkpoint() {
            if !self.lacks_checkpoint_room {
                tracing::warn!(
                    "the disk is nearly full: no checkpoint is made; commits go to the log until the disk is full"
                );
            }
            self.lacks_checkpoint_room = true;
            // Late ticks need little room in the log but much memory, so memory can reach its limit before the disk
            // does.
            if self.store.checkpoint_is_overdue() {
                self.poison(StoreError::Io {
                    action: "cannot make a checkpoint, and uncheckpointed data has reached its memory limit".to_owned(),
                    problem: "the disk is nearly full".to_owned(),
                    disk_full: true,
                });
            }
            return false;
        }
        self.lacks_checkpoint_room = false;
        true
    }

    fn checkpoint(&mut self) {
        if !self.has_room() {
            return;
        }
        let started = Instant::now();
        match self.store.checkpoint() {
            Ok(()) => {
                self.shared.metrics.record_checkpoint(started.elapsed());
                self.publish();
            }
            Err(error) => self.poison(error),
        }
    }

    /// Publishes the view of the newest commit, and notifies watchers.
    fn publish(&self) {
        let view = Arc::new(self.store.view());
        let latest_quotes = Arc::clone(&view.latest_quotes);
        self.shared.view.store(view);
        if let Some(watchers) = &self.watchers {
            notify(watchers, &latest_quotes);
        }
    }

    /// Stops writing after a failure. The store in memory may be ahead of the disk, so its view is not published:
    /// readers keep the last view.
    fn poison(&mut self, error: StoreError) {
        tracing::error!("writing stops: {error}");
        let _ = self.shared.poisoned.set(error.to_string());
        self.watchers = None;
        self.failure = Some(error);
    }
}

fn count(metrics: &IngestMetrics, summary: Summary, refusals: &[Refusal]) {
    metrics.count_admitted(TickCounts {
        new_run: summary.new_run_count.into(),
        collapsed: summary.collapsed_count.into(),
        known: summary.known_count.into(),
        revised: summary.revised_count.into(),
        quarantined: summary.quarantined_count.into(),
    });
    for refusal in refusals {
        metrics.count_refused(refusal.reason.label());
    }
}

fn count_decided(metrics: &IngestMetrics, verdict: Verdict, decided: &[(Decided, String)]) {
    let label = match verdict {
        Verdict::Released => "released",
        Verdict::Discarded => "discarded",
    };
    for (decided, _) in decided {
        match decided {
            Decided::Released(_) | Decided::Discarded => metrics.count_decision(label),
            Decided::Refused(_) => metrics.count_decision("refused"),
            Decided::Already => {}
        }
    }
}

/// Logs the ticks that a commit put into quarantine. `before` is the greatest id before the commit.
fn log_held(quarantine: &Quarantine, before: u64) {
    if quarantine.last_id() == before {
        return;
    }
    for line in held_lines(quarantine, before) {
        tracing::warn!("{line}");
    }
}
