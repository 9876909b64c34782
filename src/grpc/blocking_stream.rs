//! Messages made on a thread of their own, at the pace of the client who takes them.
//!
//! **Invariant**: a stream holds its version of the store no longer than its age limit, ends when its client leaves a
//! message unread for [`UNREAD_TIME_MAX_S`], and ends soon after its client has gone.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::api::ServiceError;
use crate::query::QueryError;

/// How long a client may leave the messages that were made for it unread, seconds.
const UNREAD_TIME_MAX_S: u64 = 20;

/// What a client gets.
pub(super) type Messages<T> = ReceiverStream<Result<T, Status>>;

/// Until when messages may be handed over, and what is said then.
pub(super) struct End {
    pub(super) at: Instant,
    pub(super) error: ServiceError,
}

impl End {
    /// At the caller's deadline, or at the age limit if that is sooner; `remedy` is what a caller does then.
    pub(super) fn of(deadline: Option<Instant>, age_max_s: u64, remedy: &'static str) -> Self {
        let too_old = Instant::now() + Duration::from_secs(age_max_s);
        match deadline.filter(|deadline| *deadline < too_old) {
            Some(at) => Self { at, error: ServiceError::DeadlineExceeded },
            None => Self { at: too_old, error: ServiceError::StreamTooOld { age_max_s, remedy } },
        }
    }
}

/// Sends what `produce` hands over, at most `ahead` messages before the client takes them, from a thread that keeps
/// `place` until it is through.
///
/// The thread is a new one, not one of the pool of blocking threads: the allocator keeps what a thread freed for the
/// threads that begin after its end, while streams on one pooled thread after the other would each leave their tens of
/// megabytes there.
pub(super) fn send_until<T: Send + 'static>(
    end: End,
    ahead: usize,
    place: impl Send + 'static,
    produce: impl FnOnce(&mut (dyn FnMut(T) -> Result<(), ServiceError> + Send)) -> Result<(), ServiceError>
    + Send
    + 'static,
) -> Messages<T> {
    let (sender, receiver) = mpsc::channel(ahead + 1);
    // One place is kept for the closing word: a client that does not read still finds out why the stream ended.
    let closing = sender.clone().try_reserve_owned().ok();
    let failed = sender.clone();
    let runtime = Handle::current();
    let thread = std::thread::Builder::new().name("silkrate-stream".to_owned()).spawn(move || {
        let _place = place;
        let outcome = produce(&mut |message| hand_over(&runtime, &sender, message, &end));
        if let (Err(error), Some(closing)) = (outcome, closing) {
            closing.send(Err(error.into()));
        }
    });
    if let Err(problem) = thread {
        // Nothing was sent yet, so that there is room.
        let _ = failed.try_send(Err(ServiceError::BrokenOff(format!("no thread for it: {problem}")).into()));
    }
    ReceiverStream::new(receiver)
}

/// Waits for the client to make room for a message, though not for ever.
fn hand_over<T>(
    runtime: &Handle,
    sender: &Sender<Result<T, Status>>,
    message: T,
    end: &End,
) -> Result<(), ServiceError> {
    if Instant::now() >= end.at {
        return Err(end.error.clone());
    }
    let unread = Instant::now() + Duration::from_secs(UNREAD_TIME_MAX_S);
    // Timers are made inside the runtime.
    match runtime.block_on(async { timeout_at(end.at.min(unread), sender.send(Ok(message))).await }) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(QueryError::Stopped.into()),
        Err(_) if unread < end.at => Err(ServiceError::Unread { unread_max_s: UNREAD_TIME_MAX_S }),
        Err(_) => Err(end.error.clone()),
    }
}
