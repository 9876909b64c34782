//! The course of one `StreamTicks` call, apart from what its batches mean.
//!
//! **Invariant**: answers come in the order of the batches; no batch is read while as many as allowed
//! wait for theirs; after a batch that ends the stream no further one is read, and the answers before
//! it are sent first. Each batch is handed on before the next one is read, so that the writer sees
//! them in the order of the stream.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Most batches of a stream that were read and are not yet answered.
pub const UNANSWERED_BATCHES_MAX: usize = 16;

enum Answer<F, T> {
    Coming(Pin<Box<F>>),
    Here(Option<Result<T, Status>>),
}

impl<F: Future<Output = Result<T, Status>>, T> Answer<F, T> {
    /// Sets the work going: polled once, a submitted batch is in the writer's queue, or was turned away.
    async fn begin(work: F) -> Self {
        let mut work = Box::pin(work);
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
        .map_or_else(|| Self::Coming(work), |answer| Self::Here(Some(answer)))
    }

    fn ends_stream(&self) -> bool {
        matches!(self, Self::Here(Some(Err(_))))
    }
}

/// Waits for the oldest answer; without one, for ever. May be dropped and called again.
async fn oldest<F, T>(answers: &mut VecDeque<Answer<F, T>>) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    match answers.front_mut() {
        Some(Answer::Coming(work)) => work.as_mut().await,
        Some(Answer::Here(answer)) => match answer.take() {
            Some(answer) => answer,
            None => pending().await,
        },
        None => pending().await,
    }
}

/// Reads `requests` and sends an answer to each, until they end, one ends the stream, the caller is
/// gone, or `draining` becomes true. `begin` gets each request with its index from 0.
pub(super) async fn run<Q, R, B, F, T>(
    mut requests: R,
    begin: B,
    to_caller: mpsc::Sender<Result<T, Status>>,
    draining: CancellationToken,
    drained: impl Fn(u64) -> Status,
) where
    R: Stream<Item = Result<Q, Status>> + Unpin,
    B: Fn(u64, Q) -> Result<F, Status>,
    F: Future<Output = Result<T, Status>>,
{
    let mut answers: VecDeque<Answer<F, T>> = VecDeque::with_capacity(UNANSWERED_BATCHES_MAX);
    let mut next_index = 0;
    let mut reading = true;
    while reading || !answers.is_empty() {
        tokio::select! {
            biased;
            () = to_caller.closed() => return,
            answer = oldest(&mut answers) => {
                answers.pop_front();
                let last = answer.is_err();
                if to_caller.send(answer).await.is_err() || last {
                    return;
                }
            }
            () = draining.cancelled(), if reading => {
                reading = false;
                answers.push_back(Answer::Here(Some(Err(drained(next_index)))));
            }
            request = requests.next(), if reading && answers.len() < UNANSWERED_BATCHES_MAX => {
                let answer = match request {
                    None => {
                        reading = false;
                        continue;
                    }
                    // One that cannot be read at all, such as one over the size limit, is named like any other.
                    Some(Err(status)) => {
                        let message = format!("batch {next_index}: {}", status.message());
                        Answer::Here(Some(Err(Status::new(status.code(), message))))
                    }
                    Some(Ok(request)) => match begin(next_index, request) {
                        Ok(work) => Answer::begin(work).await,
                        Err(status) => Answer::Here(Some(Err(status))),
                    },
                };
                reading = !answer.ends_stream();
                answers.push_back(answer);
                next_index += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    /// A call whose work ends as permits are given; a request is answered by itself, and one of 13 is bad.
    struct Call {
        requests: mpsc::Sender<Result<u64, Status>>,
        answers: mpsc::Receiver<Result<u64, Status>>,
        work_done: Arc<Semaphore>,
        begun: Arc<AtomicUsize>,
        drain: CancellationToken,
        course: tokio::task::JoinHandle<()>,
    }

    impl Call {
        fn start(work_done: usize) -> Self {
            let (requests, inbound) = mpsc::channel(100);
            let (to_caller, answers) = mpsc::channel(100);
            let drain = CancellationToken::new();
            let work_done = Arc::new(Semaphore::new(work_done));
            let begun = Arc::new(AtomicUsize::new(0));
            let (gate, counter) = (Arc::clone(&work_done), Arc::clone(&begun));
            let begin = move |index: u64, request: u64| {
                counter.fetch_add(1, Ordering::SeqCst);
                if request == 13 {
                    return Err(Status::invalid_argument(format!("batch {index}")));
                }
                let gate = Arc::clone(&gate);
                Ok(async move {
                    gate.acquire().await.unwrap().forget();
                    Ok(request)
                })
            };
            let course = tokio::spawn(run(ReceiverStream::new(inbound), begin, to_caller, drain.clone(), |index| {
                Status::unavailable(format!("before batch {index}"))
            }));
            Self { requests, answers, work_done, begun, drain, course }
        }

        async fn send(&self, requests: impl IntoIterator<Item = u64>) {
            for request in requests {
                self.requests.send(Ok(request)).await.unwrap();
            }
        }

        /// Everything answered until the end, the last status among it.
        async fn rest(mut self) -> Vec<String> {
            drop(self.requests);
            let mut said = Vec::new();
            while let Some(answer) = self.answers.recv().await {
                said.push(answer.map_or_else(|status| status.message().to_owned(), |answer| answer.to_string()));
            }
            self.course.await.unwrap();
            said
        }
    }

    /// Lets every other task run until it waits.
    async fn settle() {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn half_closing_brings_all_answers_in_order() {
        let call = Call::start(Semaphore::MAX_PERMITS);
        call.send(100..150).await;
        assert_eq!(call.rest().await, (100..150).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn at_most_sixteen_are_read_ahead_of_their_answers() {
        let call = Call::start(0);
        call.send(100..150).await;
        settle().await;
        assert_eq!(call.begun.load(Ordering::SeqCst), UNANSWERED_BATCHES_MAX);
        call.work_done.add_permits(3);
        settle().await;
        assert_eq!(call.begun.load(Ordering::SeqCst), UNANSWERED_BATCHES_MAX + 3);
        call.work_done.add_permits(100);
        assert_eq!(call.rest().await.len(), 50);
    }

    #[tokio::test]
    async fn a_bad_batch_ends_the_stream_after_the_answers_before_it() {
        let call = Call::start(0);
        call.send([100, 101, 13, 102]).await;
        settle().await;
        assert_eq!(call.begun.load(Ordering::SeqCst), 3, "nothing is read after it");
        call.work_done.add_permits(10);
        assert_eq!(call.rest().await, ["100", "101", "batch 2"]);
    }

    #[tokio::test]
    async fn draining_answers_what_was_read_and_says_where_it_stopped() {
        let call = Call::start(0);
        call.send([100, 101]).await;
        settle().await;
        call.drain.cancel();
        settle().await;
        call.send([102]).await;
        call.work_done.add_permits(10);
        assert_eq!(call.rest().await, ["100", "101", "before batch 2"]);
    }

    #[tokio::test]
    async fn a_caller_who_is_gone_ends_the_work() {
        let call = Call::start(0);
        call.send([100]).await;
        settle().await;
        drop(call.answers);
        call.course.await.unwrap();
    }
}
