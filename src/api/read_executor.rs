//! Reads of the store on blocking threads: at most so many at a time, each with a deadline, and ended when its caller
//! leaves.
//!
//! gRPC, HTTP, Frankfurter, the page and exports all read through here.
//!
//! **Invariant**: a read holds its place until its thread has ended it, whether or not its caller still waits; an answer
//! of several pieces keeps the place until it is sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::error::ServiceError;
use crate::query::QueryError;

/// Reads at one time. Each has a thread and, while it is sent, its answer of up to a few megabytes.
pub const READS_MAX: usize = 32;
/// Reads that wait for a place. One more is refused at once.
pub const QUEUED_READS_MAX: usize = 256;
/// How long a read waits for a place before it is refused.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a read may take, unless its caller's deadline is sooner.
const READ_TIME_MAX: Duration = Duration::from_secs(30);

/// Runs reads. Cheap to clone; all clones share the places.
#[derive(Clone, Debug)]
pub struct ReadExecutor {
    places: Arc<Semaphore>,
    queued: Arc<AtomicUsize>,
    limits: Limits,
}

/// The limits of an executor.
#[derive(Clone, Copy, Debug)]
struct Limits {
    reads_max: usize,
    queued_max: usize,
    queue_time: Duration,
    read_time: Duration,
}

/// A read's place among those at one time, given back when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct ReadPermit {
    _permit: Arc<OwnedSemaphorePermit>,
}

#[cfg(test)]
impl ReadPermit {
    /// One of a single place.
    pub(crate) fn of_test() -> Self {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Self { _permit: Arc::new(permit) }
    }
}

/// What a read gave, and the place that it still holds.
#[derive(Clone, Debug)]
pub struct Read<T> {
    /// The answer.
    pub answer: T,
    /// To be kept for as long as a large answer waits to be sent.
    pub place: ReadPermit,
}

impl Default for ReadExecutor {
    fn default() -> Self {
        Self::new(Limits {
            reads_max: READS_MAX,
            queued_max: QUEUED_READS_MAX,
            queue_time: QUEUE_TIME_MAX,
            read_time: READ_TIME_MAX,
        })
    }
}

impl ReadExecutor {
    fn new(limits: Limits) -> Self {
        Self { places: Arc::new(Semaphore::new(limits.reads_max)), queued: Arc::default(), limits }
    }

    /// Runs `work` on a blocking thread, once there is a place for it. `work` asks its token between pieces of a long
    /// scan: it is cancelled when this future is dropped, as it is when its caller leaves, and at the deadline.
    ///
    /// # Errors
    /// Those of `work`; `TooManyReads` without a place, `ReadTooLong` at the deadline, `BrokenOff` if `work` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(CancellationToken) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<Read<T>, ServiceError> {
        let place = self.place().await?;
        let cancel = CancellationToken::new();
        let _cancels_when_dropped = cancel.clone().drop_guard();
        let task = tokio::task::spawn_blocking(move || {
            // With the thread, not with the caller: a read that nobody waits for any more still takes a thread.
            work(cancel).map(|answer| Read { answer, place })
        });
        match timeout(self.limits.read_time, task).await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(problem)) => Err(ServiceError::BrokenOff(problem.to_string())),
            Err(_) => Err(ServiceError::ReadTooLong { seconds: self.limits.read_time.as_secs() }),
        }
    }

    async fn place(&self) -> Result<ReadPermit, ServiceError> {
        let refused = ServiceError::TooManyReads { reads_max: self.limits.reads_max };
        let permit = if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            permit
        } else {
            let _waiting = Waiting::begin(&self.queued, self.limits.queued_max).ok_or_else(|| refused.clone())?;
            let permit = timeout(self.limits.queue_time, Arc::clone(&self.places).acquire_owned()).await;
            // The semaphore is never closed.
            permit.ok().and_then(Result::ok).ok_or(refused)?
        };
        Ok(ReadPermit { _permit: Arc::new(permit) })
    }
}

/// A read that waits for a place.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// None if as many wait already as may.
    fn begin(queued: &'a AtomicUsize, queued_max: usize) -> Option<Self> {
        let waiting = Self(queued);
        (queued.fetch_add(1, Ordering::Relaxed) < queued_max).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    fn executor(reads_max: usize, queued_max: usize, read_time: Duration) -> ReadExecutor {
        ReadExecutor::new(Limits { reads_max, queued_max, queue_time: SOON, read_time })
    }

    /// A read that lasts until something is sent, or its sender dropped.
    fn held(executor: &ReadExecutor) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<Read<()>, ServiceError>>) {
        let (sender, receiver) = mpsc::channel();
        let executor = executor.clone();
        let read = tokio::spawn(async move {
            executor
                .run(move |_| {
                    let _ = receiver.recv();
                    Ok(())
                })
                .await
        });
        (sender, read)
    }

    async fn until(condition: impl Fn() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < Duration::from_secs(10), "it never came true");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_read_beyond_the_limit_waits_and_is_refused() {
        let executor = executor(1, 1, Duration::from_mins(1));
        let (end, first) = held(&executor);
        until(|| executor.places.available_permits() == 0).await;
        // One may wait, and gets no place in time; one more is refused at once.
        let waiting = tokio::spawn({
            let executor = executor.clone();
            async move { executor.run(|_| Ok(())).await.map(drop) }
        });
        until(|| executor.queued.load(Ordering::Relaxed) == 1).await;
        let begun = Instant::now();
        assert!(matches!(executor.run(|_| Ok(())).await, Err(ServiceError::TooManyReads { reads_max: 1 })));
        assert!(begun.elapsed() < SOON, "it was not refused at once");
        assert!(matches!(waiting.await.unwrap(), Err(ServiceError::TooManyReads { .. })));
        end.send(()).unwrap();
        let first = first.await.unwrap().unwrap();
        assert_eq!(executor.places.available_permits(), 0, "the answer holds the place");
        drop(first);
        assert!(executor.run(|_| Ok(())).await.is_ok());
        assert_eq!(executor.queued.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_read_past_its_deadline_keeps_its_place_until_its_thread_ends() {
        let executor = executor(1, 1, SOON);
        let (end, read) = held(&executor);
        assert!(matches!(read.await.unwrap(), Err(ServiceError::ReadTooLong { .. })));
        assert_eq!(executor.places.available_permits(), 0, "its thread still works");
        drop(end);
        until(|| executor.places.available_permits() == 1).await;
    }

    #[tokio::test]
    async fn a_caller_who_leaves_cancels_the_read() {
        let executor = executor(1, 1, Duration::from_mins(1));
        let (begun, is_begun) = tokio::sync::oneshot::channel();
        let read = tokio::spawn({
            let executor = executor.clone();
            async move {
                let work = move |cancel: CancellationToken| {
                    let _ = begun.send(());
                    while !cancel.is_cancelled() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err::<(), _>(QueryError::Stopped)
                };
                executor.run(work).await.map(drop)
            }
        });
        is_begun.await.unwrap();
        read.abort();
        until(|| executor.places.available_permits() == 1).await;
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_gives_its_place_back() {
        let executor = executor(1, 1, Duration::from_mins(1));
        let error = executor.run::<()>(|_| panic!("a fault")).await.unwrap_err();
        assert!(matches!(error, ServiceError::BrokenOff(_)), "{error}");
        assert_eq!(executor.places.available_permits(), 1);
    }
}
