//! Runs reads of the store on blocking threads, with a limit on concurrent reads, a time limit for each read, and
//! cancellation if the client disconnects.
//!
//! gRPC, HTTP, the Frankfurter API, the page and exports all read through [`ReadExecutor`].
//!
//! **Invariant**: a read holds its permit until its thread ends, even if nobody waits for the result. A large response
//! holds the permit until it is sent. Expensive reads hold only a few of the permits ([`ServiceLimits::expensive_reads_max`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::caller_permits::{CallerPermit, CallerPermits};
use super::caller_slots::Caller;
use super::error::ServiceError;
use super::limits::ServiceLimits;
use crate::query::QueryError;

/// Maximum number of reads that wait for a permit. Further reads are refused at once.
pub const QUEUED_READS_MAX: usize = 256;
/// Maximum number of expensive reads that wait. They take no place of cheap reads that wait.
const QUEUED_EXPENSIVE_READS_MAX: usize = 32;
/// How long a read waits for a permit before it is refused.
const QUEUE_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a read may take. The deadline of the call may end it earlier.
const READ_TIME_MAX: Duration = Duration::from_secs(30);

/// Runs reads within the limits. Cheap to clone; all clones share the permits.
#[derive(Clone, Debug)]
pub struct ReadExecutor {
    permits: CallerPermits,
    /// Permits that expensive reads take first.
    expensive: CallerPermits,
    limits: Limits,
}

/// What a read costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cost {
    /// The read takes milliseconds.
    Cheap,
    /// The read may use a core for seconds.
    Expensive,
}

/// The limits of an executor.
#[derive(Clone, Copy, Debug)]
struct Limits {
    reads_max: usize,
    queued_max: usize,
    queue_time: Duration,
    read_time: Duration,
}

/// A permit for one of the concurrent reads. Dropping the last clone releases it.
#[derive(Clone, Debug)]
pub struct ReadPermit {
    _permit: Arc<CallerPermit>,
}

#[cfg(test)]
impl ReadPermit {
    /// Creates a permit that does not belong to an executor.
    pub(crate) fn of_test() -> Self {
        Self { _permit: Arc::new(CallerPermit::of_test()) }
    }
}

/// The result of a read, and the permit that the read still holds.
#[derive(Clone, Debug)]
pub struct Read<T> {
    /// The result.
    pub answer: T,
    /// The permit of the read. Keep it until a large response is sent.
    pub permit: ReadPermit,
}

impl ReadExecutor {
    /// Creates the executor with the permits of `limits`.
    pub fn new(limits: &ServiceLimits) -> Self {
        let ServiceLimits { reads_max, expensive_reads_max, .. } = *limits;
        let (queued_max, queue_time, read_time) = (QUEUED_READS_MAX, QUEUE_TIME_MAX, READ_TIME_MAX);
        Self::with_limits(Limits { reads_max, queued_max, queue_time, read_time }, expensive_reads_max)
    }

    fn with_limits(limits: Limits, expensive_reads_max: usize) -> Self {
        Self {
            permits: CallerPermits::new(limits.reads_max, limits.queued_max),
            expensive: CallerPermits::new(expensive_reads_max, QUEUED_EXPENSIVE_READS_MAX),
            limits,
        }
    }

    /// Waits for a permit and runs `task` on a blocking thread. An expensive read first waits for one of the permits for
    /// expensive reads. `task` checks its cancellation token between the pieces
    /// of a long scan. The token is cancelled at the time limit, and when this future is dropped, which happens if the
    /// client disconnects.
    ///
    /// # Errors
    /// The errors of `task`; `TooManyReads` if no permit becomes free in time; `ReadTooLong` at the time limit;
    /// `TaskFailed` if `task` panics.
    pub async fn run<T: Send + 'static>(
        &self,
        cost: Cost,
        task: impl FnOnce(CancellationToken) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<Read<T>, ServiceError> {
        let expensive = self.acquire_expensive(cost).await?;
        let permit = self.acquire().await?;
        let cancel = CancellationToken::new();
        let _cancel_on_drop = cancel.clone().drop_guard();
        let thread = tokio::task::spawn_blocking(move || {
            // The thread owns the permit: a read that nobody waits for still uses a thread.
            let read = task(cancel).map(|answer| Read { answer, permit });
            // Sending the response costs no more than sending the response of a cheap read.
            drop(expensive);
            read
        });
        match timeout(self.limits.read_time, thread).await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(problem)) => Err(ServiceError::TaskFailed(problem.to_string())),
            Err(_) => Err(ServiceError::ReadTooLong { seconds: self.limits.read_time.as_secs() }),
        }
    }

    async fn acquire(&self) -> Result<ReadPermit, ServiceError> {
        let permit = self.permits.acquire(Caller::current(), self.limits.queue_time).await;
        let permit = permit.ok_or(ServiceError::TooManyReads { reads_max: self.limits.reads_max })?;
        Ok(ReadPermit { _permit: Arc::new(permit) })
    }

    /// Waits for a permit for expensive reads; none for a cheap read.
    async fn acquire_expensive(&self, cost: Cost) -> Result<Option<CallerPermit>, ServiceError> {
        if cost == Cost::Cheap {
            return Ok(None);
        }
        let permit = self.expensive.acquire(Caller::current(), self.limits.queue_time).await;
        permit.map(Some).ok_or(ServiceError::TooManyExpensiveReads)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    const SOON: Duration = Duration::from_millis(50);

    fn executor(reads_max: usize, queued_max: usize, read_time: Duration) -> ReadExecutor {
        ReadExecutor::with_limits(Limits { reads_max, queued_max, queue_time: SOON, read_time }, 1)
    }

    /// Starts a read that lasts until something is sent or the sender is dropped.
    fn start_read(
        executor: &ReadExecutor,
    ) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<Read<()>, ServiceError>>) {
        let (sender, receiver) = mpsc::channel();
        let executor = executor.clone();
        let read = tokio::spawn(async move {
            executor
                .run(Cost::Cheap, move |_| {
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
            assert!(begun.elapsed() < Duration::from_secs(10), "the condition did not become true");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn read_beyond_the_limit_waits_and_is_then_refused() {
        let executor = executor(1, 1, Duration::from_mins(1));
        let (end, first) = start_read(&executor);
        until(|| executor.permits.available() == 0).await;
        // One read may wait, and gets no permit in time. A further read is refused at once.
        let waiting = tokio::spawn({
            let executor = executor.clone();
            async move { executor.run(Cost::Cheap, |_| Ok(())).await.map(drop) }
        });
        until(|| executor.permits.waiting() == 1).await;
        let begun = Instant::now();
        assert!(matches!(
            executor.run(Cost::Cheap, |_| Ok(())).await,
            Err(ServiceError::TooManyReads { reads_max: 1 })
        ));
        assert!(begun.elapsed() < SOON, "the read was not refused at once");
        assert!(matches!(waiting.await.unwrap(), Err(ServiceError::TooManyReads { .. })));
        end.send(()).unwrap();
        let first = first.await.unwrap().unwrap();
        assert_eq!(executor.permits.available(), 0, "the result holds the permit");
        drop(first);
        assert!(executor.run(Cost::Cheap, |_| Ok(())).await.is_ok());
        assert_eq!(executor.permits.waiting(), 0);
    }

    #[tokio::test]
    async fn expensive_reads_leave_permits_for_cheap_reads() {
        let executor = executor(2, 1, Duration::from_mins(1));
        let (end, receiver) = mpsc::channel::<()>();
        let running = tokio::spawn({
            let executor = executor.clone();
            let task = move |_| {
                let _ = receiver.recv();
                Ok(())
            };
            async move { executor.run(Cost::Expensive, task).await.map(drop) }
        });
        until(|| executor.permits.available() == 1).await;
        let refused = executor.run(Cost::Expensive, |_| Ok(())).await.map(drop).unwrap_err();
        assert!(matches!(refused, ServiceError::TooManyExpensiveReads), "{refused}");
        assert!(executor.run(Cost::Cheap, |_| Ok(())).await.is_ok());
        drop(end);
        running.await.unwrap().unwrap();
        assert!(executor.run(Cost::Expensive, |_| Ok(())).await.is_ok());
    }

    #[tokio::test]
    async fn one_client_leaves_reads_to_the_others() {
        let executor = executor(2, 1, Duration::from_mins(1));
        let (end, receiver) = mpsc::channel::<()>();
        let caller = |last: u8| Some(Caller::at(std::net::IpAddr::from([192, 0, 2, last])));
        let running = tokio::spawn({
            let executor = executor.clone();
            let task = move |_| {
                let _ = receiver.recv();
                Ok(())
            };
            Caller::scope(caller(1), async move { executor.run(Cost::Cheap, task).await.map(drop) })
        });
        until(|| executor.permits.available() == 1).await;
        let read = |last| Caller::scope(caller(last), executor.run(Cost::Cheap, |_| Ok(())));
        assert!(matches!(read(1).await, Err(ServiceError::TooManyReads { reads_max: 2 })));
        assert!(read(2).await.is_ok());
        drop(end);
        running.await.unwrap().unwrap();
        assert!(read(1).await.is_ok());
    }

    #[tokio::test]
    async fn read_past_its_time_limit_holds_its_permit_until_its_thread_ends() {
        let executor = executor(1, 1, SOON);
        let (end, read) = start_read(&executor);
        assert!(matches!(read.await.unwrap(), Err(ServiceError::ReadTooLong { .. })));
        assert_eq!(executor.permits.available(), 0, "the thread still runs");
        drop(end);
        until(|| executor.permits.available() == 1).await;
    }

    #[tokio::test]
    async fn disconnected_client_cancels_the_read() {
        let executor = executor(1, 1, Duration::from_mins(1));
        let (start_sender, start_receiver) = tokio::sync::oneshot::channel();
        let read = tokio::spawn({
            let executor = executor.clone();
            async move {
                let task = move |cancel: CancellationToken| {
                    let _ = start_sender.send(());
                    while !cancel.is_cancelled() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err::<(), _>(QueryError::Cancelled)
                };
                executor.run(Cost::Cheap, task).await.map(drop)
            }
        });
        start_receiver.await.unwrap();
        read.abort();
        until(|| executor.permits.available() == 1).await;
    }

    #[tokio::test]
    async fn panic_is_an_error_and_releases_the_permit() {
        let executor = executor(1, 1, Duration::from_mins(1));
        let error = executor.run::<()>(Cost::Cheap, |_| panic!("a fault")).await.unwrap_err();
        assert!(matches!(error, ServiceError::TaskFailed(_)), "{error}");
        assert_eq!(executor.permits.available(), 1);
    }
}
