//! The control flow of one `StreamTicks` call: reads batches, limits unanswered batches, and sends responses in order.
//!
//! **Invariants**: responses are sent in the order of the batches. No batch is read while [`UNANSWERED_BATCHES_MAX`]
//! batches wait for their responses. After a batch that ends the stream no further batch is read, and the responses to
//! earlier batches are sent first. Each batch is submitted before the next one is read, so the writer gets them in the
//! order of the stream.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Maximum number of batches of one stream that were read and are not yet answered.
pub const UNANSWERED_BATCHES_MAX: usize = 16;

/// The response to a batch.
enum BatchResponse<F, T> {
    /// The batch is being stored.
    Pending(Pin<Box<F>>),
    /// The response, until it is taken.
    Ready(Option<Result<T, Status>>),
}

impl<F: Future<Output = Result<T, Status>>, T> BatchResponse<F, T> {
    /// Starts to store a batch. After one poll the batch is in the queue of the writer, or it was refused.
    async fn begin(store: F) -> Self {
        let mut store = Box::pin(store);
        poll_fn(|context| match store.as_mut().poll(context) {
            Poll::Ready(response) => Poll::Ready(Some(response)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
        .map_or_else(|| Self::Pending(store), |response| Self::Ready(Some(response)))
    }

    fn ends_stream(&self) -> bool {
        matches!(self, Self::Ready(Some(Err(_))))
    }
}

/// Waits for the oldest response, or forever if there is none. Cancel-safe: dropping the future loses no response.
async fn oldest<F, T>(responses: &mut VecDeque<BatchResponse<F, T>>) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    match responses.front_mut() {
        Some(BatchResponse::Pending(store)) => store.as_mut().await,
        Some(BatchResponse::Ready(response)) => match response.take() {
            Some(response) => response,
            None => pending().await,
        },
        None => pending().await,
    }
}

/// Reads `requests` and sends a response to each. Ends when the requests end, when a batch ends the stream, when the
/// client disconnects, or when `draining` is cancelled. `begin` gets each request with its index, counted from 0.
/// `drained` returns the final status for the index of the first batch that was not read.
pub(super) async fn run<Q, R, B, F, T>(
    mut requests: R,
    begin: B,
    to_client: mpsc::Sender<Result<T, Status>>,
    draining: CancellationToken,
    drained: impl Fn(u64) -> Status,
) where
    R: Stream<Item = Result<Q, Status>> + Unpin,
    B: Fn(u64, Q) -> Result<F, Status>,
    F: Future<Output = Result<T, Status>>,
{
    let mut responses: VecDeque<BatchResponse<F, T>> = VecDeque::with_capacity(UNANSWERED_BATCHES_MAX);
    let mut next_index = 0;
    let mut reading = true;
    while reading || !responses.is_empty() {
        tokio::select! {
            biased;
            () = to_client.closed() => return,
            response = oldest(&mut responses) => {
                responses.pop_front();
                let is_last = response.is_err();
                if to_client.send(response).await.is_err() || is_last {
                    return;
                }
            }
            () = draining.cancelled(), if reading => {
                reading = false;
                responses.push_back(BatchResponse::Ready(Some(Err(drained(next_index)))));
            }
            request = requests.next(), if reading && responses.len() < UNANSWERED_BATCHES_MAX => {
                let response = match request {
                    None => {
                        reading = false;
                        continue;
                    }
                    // A request that cannot be read, for example one over the size limit, counts as a batch, too.
                    Some(Err(status)) => {
                        let message = format!("batch {next_index}: {}", status.message());
                        BatchResponse::Ready(Some(Err(Status::new(status.code(), message))))
                    }
                    Some(Ok(request)) => match begin(next_index, request) {
                        Ok(store) => BatchResponse::begin(store).await,
                        Err(status) => BatchResponse::Ready(Some(Err(status))),
                    },
                };
                reading = !response.ends_stream();
                responses.push_back(response);
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

    /// A call under test. A request is a number, and its response is the same number. Each response needs a permit of
    /// `work_done`. Request 13 is invalid.
    struct Call {
        requests: mpsc::Sender<Result<u64, Status>>,
        responses: mpsc::Receiver<Result<u64, Status>>,
        work_done: Arc<Semaphore>,
        begun: Arc<AtomicUsize>,
        drain: CancellationToken,
        running: tokio::task::JoinHandle<()>,
    }

    impl Call {
        fn start(work_done: usize) -> Self {
            let (requests, inbound) = mpsc::channel(100);
            let (to_client, responses) = mpsc::channel(100);
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
            let running = tokio::spawn(run(ReceiverStream::new(inbound), begin, to_client, drain.clone(), |index| {
                Status::unavailable(format!("before batch {index}"))
            }));
            Self { requests, responses, work_done, begun, drain, running }
        }

        async fn send(&self, requests: impl IntoIterator<Item = u64>) {
            for request in requests {
                self.requests.send(Ok(request)).await.unwrap();
            }
        }

        /// Ends the requests and returns all remaining responses as text, the final status included.
        async fn rest(mut self) -> Vec<String> {
            drop(self.requests);
            let mut texts = Vec::new();
            while let Some(response) = self.responses.recv().await {
                texts.push(response.map_or_else(|status| status.message().to_owned(), |number| number.to_string()));
            }
            self.running.await.unwrap();
            texts
        }
    }

    /// Lets every other task run until it waits.
    async fn settle() {
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn half_closed_stream_gets_all_responses_in_order() {
        let call = Call::start(Semaphore::MAX_PERMITS);
        call.send(100..150).await;
        assert_eq!(call.rest().await, (100..150).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn at_most_sixteen_unanswered_batches_are_read() {
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
    async fn invalid_batch_ends_the_stream_after_the_earlier_responses() {
        let call = Call::start(0);
        call.send([100, 101, 13, 102]).await;
        settle().await;
        assert_eq!(call.begun.load(Ordering::SeqCst), 3, "no batch is read after the invalid one");
        call.work_done.add_permits(10);
        assert_eq!(call.rest().await, ["100", "101", "batch 2"]);
    }

    #[tokio::test]
    async fn draining_answers_earlier_batches_and_reports_the_first_unread_batch() {
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
    async fn disconnected_client_ends_the_call() {
        let call = Call::start(0);
        call.send([100]).await;
        settle().await;
        drop(call.responses);
        call.running.await.unwrap();
    }
}
