//! Uploads a file of ticks in batches over one stream, with several batches in flight.
//!
//! A separate thread reads the file in advance, because a read of standard input may block forever. The command can end
//! while that read blocks.
//!
//! **Invariant**: a row counts as processed only after the server has responded to its batch. The server responds when
//! the batch is durable. At most [`IN_FLIGHT_MAX`] plus [`READ_AHEAD_BATCHES`] batches are in memory, whatever the size
//! of the file.

use std::collections::VecDeque;
use std::thread;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::batches::Batch;
use super::progress::Progress;
use super::report::{FileReport, Held, Refused};
use super::source::TickBatches;
use crate::cli::client::Client;
use crate::cli::error::{CliError, Problem};
use crate::proto::v1::{ConflictPolicy, StreamTicksRequest, StreamTicksResponse};

/// Maximum number of batches sent and not yet answered. The server accepts twice as many.
const IN_FLIGHT_MAX: usize = 8;
/// Number of batches read and not yet sent.
const READ_AHEAD_BATCHES: usize = 2;

/// How the server handles the ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) conflict: ConflictPolicy,
    pub(super) validate_only: bool,
}

/// Sends every row of the file that `open` opens and adds the results to `report`. After a failure, `report` has the
/// results so far.
///
/// # Errors
/// Returns any error of `open`, of reading the rows, or of the stream.
pub(super) async fn upload<R: TickBatches>(
    client: &Client,
    open: impl FnOnce() -> Result<R, CliError> + Send + 'static,
    policy: Policy,
    report: &mut FileReport,
    progress: &Progress,
) -> Result<(), CliError> {
    let mut batches = read_ahead(open);
    let (to_server, requests) = mpsc::channel(IN_FLIGHT_MAX);
    let mut sender = Sender { to_server: Some(to_server), in_flight: VecDeque::new(), answer_count: 0, failure: None };
    // The first batch is queued before the call, because a server may wait for this batch before it accepts the stream.
    while sender.is_open() && sender.in_flight.is_empty() {
        sender.send_batch(batches.recv().await, policy, report).await;
    }
    if !sender.in_flight.is_empty() {
        let mut service = client.ingest();
        let mut answers = client.with_timeout(service.stream_ticks(ReceiverStream::new(requests))).await?.into_inner();
        while sender.is_open() || !sender.in_flight.is_empty() {
            tokio::select! {
                batch = batches.recv(), if sender.has_room() => sender.send_batch(batch, policy, report).await,
                answer = client.with_timeout(answers.message()), if !sender.in_flight.is_empty() => {
                    sender.add_response(answer?, report)?;
                    progress.update(report.answered_bytes, report.row_count());
                }
            }
        }
    }
    report.refusals.sort_by_key(|refused| refused.line);
    sender.failure.map_or(Ok(()), Err)
}

/// The sending side of the stream, and the batches that wait for a response.
struct Sender {
    /// `None` after the end of the file.
    to_server: Option<mpsc::Sender<StreamTicksRequest>>,
    /// Lines and [`Batch::end_bytes`] of each batch without a response, in order.
    in_flight: VecDeque<(Vec<u64>, u64)>,
    answer_count: u64,
    /// Why the file was not read to its end. The rows read before are still sent.
    failure: Option<CliError>,
}

impl Sender {
    fn is_open(&self) -> bool {
        self.to_server.is_some()
    }

    fn has_room(&self) -> bool {
        self.is_open() && self.in_flight.len() < IN_FLIGHT_MAX
    }

    /// Sends a batch. Closes the sending side at the end of the file.
    async fn send_batch(&mut self, batch: Option<Result<Batch, CliError>>, policy: Policy, report: &mut FileReport) {
        let batch = match batch {
            Some(Ok(batch)) => batch,
            Some(Err(failure)) => {
                self.failure = Some(failure);
                self.to_server = None;
                return;
            }
            None => {
                self.to_server = None;
                return;
            }
        };
        report.malformed_count += batch.malformed.len() as u64;
        for (line, problem) in batch.malformed {
            report.refuse(Refused::malformed(line, problem.to_string()));
        }
        let (Some(to_server), Some(content)) = (&self.to_server, batch.content) else { return };
        let request = StreamTicksRequest {
            batch: Some(content),
            conflict_policy: policy.conflict.into(),
            validate_only: policy.validate_only,
        };
        self.in_flight.push_back((batch.lines, batch.end_bytes));
        // Sending fails only after the server has ended the stream; the receiving side then returns the error.
        let _ = to_server.send(request).await;
    }

    /// Adds the response for the oldest batch in flight to the report.
    fn add_response(&mut self, answer: Option<StreamTicksResponse>, report: &mut FileReport) -> Result<(), CliError> {
        let Some(StreamTicksResponse { batch_index, result: Some(result) }) = answer else {
            return Err(Problem::Protocol("the stream ended before the last response").into());
        };
        let Some((lines, end_bytes)) = self.in_flight.pop_front().filter(|_| batch_index == self.answer_count) else {
            return Err(Problem::Protocol("the responses to batches are out of order").into());
        };
        self.answer_count += 1;
        report.answered_bytes = end_bytes;
        report.add(&result.summary.unwrap_or_default(), result.sequence, result.recorded_time);
        for refusal in result.refusals {
            let line = usize::try_from(refusal.index).ok().and_then(|index| lines.get(index));
            report.refuse(Refused::from_server(refusal, line.copied()));
        }
        for held in result.held_ticks {
            let line = usize::try_from(held.index).ok().and_then(|index| lines.get(index));
            report.hold(Held::from_server(held, line.copied()));
        }
        Ok(())
    }
}

/// Reads batches in a separate thread. The capacity of the channel limits how far the thread reads ahead.
fn read_ahead<R: TickBatches>(
    open: impl FnOnce() -> Result<R, CliError> + Send + 'static,
) -> mpsc::Receiver<Result<Batch, CliError>> {
    let (to_sender, batches) = mpsc::channel(READ_AHEAD_BATCHES);
    thread::spawn(move || {
        if let Err(failure) = open().and_then(|file| read_batches(file, &to_sender)) {
            // The receiver is gone if the stream failed first.
            let _ = to_sender.blocking_send(Err(failure));
        }
    });
    batches
}

fn read_batches(mut file: impl TickBatches, to_sender: &mpsc::Sender<Result<Batch, CliError>>) -> Result<(), CliError> {
    loop {
        let (batches, failure) = file.next();
        let is_end = batches.is_empty();
        for batch in batches {
            if to_sender.blocking_send(Ok(batch)).is_err() {
                return Ok(());
            }
        }
        match failure {
            Some(failure) => return Err(failure),
            None if is_end => return Ok(()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ingest::source::CsvBatches;
    use std::io::{BufReader, Read};
    use std::path::Path;

    /// A reader that always fails.
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("unplugged"))
        }
    }

    #[tokio::test]
    async fn rows_before_a_read_error_are_still_sent() {
        let file = "pair,source,observed_time,rate\nKGS/USD,nbkr,2025-12-08,0.01144\nbad\n";
        let input = BufReader::new(file.as_bytes().chain(Broken));
        let mut batches = read_ahead(|| CsvBatches::open(Path::new("a.csv"), input));
        let batch = batches.recv().await.unwrap().unwrap();
        assert_eq!((batch.lines, batch.malformed.len(), batch.end_bytes), (vec![2], 1, file.len() as u64));
        let failure = batches.recv().await.unwrap().unwrap_err();
        assert_eq!(failure.to_string(), "a.csv: unplugged");
        assert!(batches.recv().await.is_none());
    }

    #[test]
    fn response_for_another_batch_is_a_protocol_error() {
        let mut sender = Sender { to_server: None, in_flight: VecDeque::new(), answer_count: 0, failure: None };
        sender.in_flight.push_back((vec![2], 10));
        let answer =
            StreamTicksResponse { batch_index: 1, result: Some(crate::proto::v1::IngestTicksResponse::default()) };
        let problem = sender.add_response(Some(answer), &mut FileReport::default()).unwrap_err();
        assert!(problem.to_string().contains("out of order"));
    }
}
