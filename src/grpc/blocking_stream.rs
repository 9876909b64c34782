//! Streams of messages that a dedicated thread produces, as fast as the client reads them.
//!
//! **Invariant**: a stream keeps its version of the store alive no longer than its maximum age. It ends if the client
//! leaves a message unread for [`UNREAD_TIME_MAX_S`], and soon after the client disconnects.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::api::ServiceError;
use crate::query::QueryError;

/// How long a client may leave a message unread, seconds.
const UNREAD_TIME_MAX_S: u64 = 20;

/// The messages of a stream, as tonic sends them.
pub(super) type Messages<T> = ReceiverStream<Result<T, Status>>;

/// The time at which a stream ends, and the error that the client gets then.
pub(super) struct StreamEnd {
    pub(super) at: Instant,
    pub(super) error: ServiceError,
}

impl StreamEnd {
    /// Returns the deadline of the client or the maximum age of the stream, whichever is earlier. `remedy` states
    /// how the client gets the rest after the maximum age.
    pub(super) fn of(deadline: Option<Instant>, age_max_s: u64, remedy: &'static str) -> Self {
        let too_old = Instant::now() + Duration::from_secs(age_max_s);
        match deadline.filter(|deadline| *deadline < too_old) {
            Some(at) => Self { at, error: ServiceError::DeadlineExceeded },
            None => Self { at: too_old, error: ServiceError::StreamTooOld { age_max_s, remedy } },
        }
    }
}

/// Runs `produce` on a new thread and sends its messages. At most `ahead` messages wait until the client reads them.
/// The thread holds `slot` until it ends.
///
/// The thread is not from the pool of blocking threads. The allocator reuses the memory of an ended thread for new
/// threads, but threads of the pool do not end, and each would keep tens of megabytes.
pub(super) fn send_until<T: Send + 'static>(
    end: StreamEnd,
    ahead: usize,
    slot: impl Send + 'static,
    produce: impl FnOnce(&mut (dyn FnMut(T) -> Result<(), ServiceError> + Send)) -> Result<(), ServiceError>
    + Send
    + 'static,
) -> Messages<T> {
    let (sender, receiver) = mpsc::channel(ahead + 1);
    // One slot of the channel is reserved for the final error, so that a client that does not read still gets it.
    let reserved = sender.clone().try_reserve_owned().ok();
    let error_sender = sender.clone();
    let runtime = Handle::current();
    let thread = std::thread::Builder::new().name("silkrate-stream".to_owned()).spawn(move || {
        let _slot = slot;
        let outcome = produce(&mut |message| send(&runtime, &sender, message, &end));
        if let (Err(error), Some(reserved)) = (outcome, reserved) {
            reserved.send(Err(error.into()));
        }
    });
    if let Err(problem) = thread {
        // Nothing was sent yet, so the channel has room.
        let error = ServiceError::TaskFailed(format!("cannot start a thread for the stream: {problem}"));
        let _ = error_sender.try_send(Err(error.into()));
    }
    ReceiverStream::new(receiver)
}

/// Sends a message. Waits until the channel has room, at most until the end of the stream or [`UNREAD_TIME_MAX_S`].
fn send<T>(
    runtime: &Handle,
    sender: &Sender<Result<T, Status>>,
    message: T,
    end: &StreamEnd,
) -> Result<(), ServiceError> {
    if Instant::now() >= end.at {
        return Err(end.error.clone());
    }
    let unread_deadline = Instant::now() + Duration::from_secs(UNREAD_TIME_MAX_S);
    // The timer must be created inside the runtime, so `timeout_at` is in the async block.
    match runtime.block_on(async { timeout_at(end.at.min(unread_deadline), sender.send(Ok(message))).await }) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(QueryError::Cancelled.into()),
        Err(_) if unread_deadline < end.at => Err(ServiceError::Unread { unread_max_s: UNREAD_TIME_MAX_S }),
        Err(_) => Err(end.error.clone()),
    }
}
