//! A file of ticks to the server: batches over one stream, several under way.
//!
//! A thread of its own reads ahead, since standard input may block for ever and must not keep the command from ending.
//!
//! **Invariant**: a row counts as in only when the server has answered for its batch, which means durable. At most
//! [`IN_FLIGHT_MAX`] and [`READ_AHEAD_BATCHES`] batches are in memory, however large the file is.

use std::collections::VecDeque;
use std::thread;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::progress::Progress;
use super::report::{FileReport, Held, Refused};
use super::source::{Row, TickRows};
use crate::cli::client::Client;
use crate::cli::error::{CliError, Problem};
use crate::feed::TickCsvRowError;
use crate::proto::v1::{
    ConflictPolicy, StreamTicksRequest, StreamTicksResponse, Tick, TickBatch, stream_ticks_request,
};

/// Ticks of a batch.
const BATCH_TICKS: usize = 5_000;
/// Batches sent and not yet answered; the server takes twice as many.
const IN_FLIGHT_MAX: usize = 8;
/// Batches read and not yet sent.
const READ_AHEAD_BATCHES: usize = 2;

/// What the server is to do with ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) conflict: ConflictPolicy,
    pub(super) validate_only: bool,
}

/// Rows that travel together.
#[derive(Debug, Default)]
struct Batch {
    ticks: Vec<Tick>,
    /// The line of each tick.
    lines: Vec<u64>,
    malformed: Vec<(u64, TickCsvRowError)>,
    /// Bytes of the file up to the end of this batch.
    end_bytes: u64,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.ticks.len() >= BATCH_TICKS || self.malformed.len() >= BATCH_TICKS
    }

    fn is_empty(&self) -> bool {
        self.ticks.is_empty() && self.malformed.is_empty()
    }
}

/// Sends every row of what `open` opens, adding up in `report` what became of them. When it fails, `report` tells how far it
/// came.
///
/// # Errors
/// What `open` and the rows end in; whatever ends the stream.
pub(super) async fn upload<R: TickRows>(
    client: &Client,
    open: impl FnOnce() -> Result<R, CliError> + Send + 'static,
    policy: Policy,
    report: &mut FileReport,
    progress: &Progress,
) -> Result<(), CliError> {
    let mut batches = read_ahead(open);
    let (to_server, requests) = mpsc::channel(IN_FLIGHT_MAX);
    let mut sender = Sender { to_server: Some(to_server), in_flight: VecDeque::new(), answer_count: 0, failure: None };
    // A batch goes in before the call, since a server may wait for one before it opens its side of the stream.
    while sender.is_open() && sender.in_flight.is_empty() {
        sender.offer(batches.recv().await, policy, report).await;
    }
    if !sender.in_flight.is_empty() {
        let mut service = client.ingest();
        let mut answers = client.within(service.stream_ticks(ReceiverStream::new(requests))).await?.into_inner();
        while sender.is_open() || !sender.in_flight.is_empty() {
            tokio::select! {
                batch = batches.recv(), if sender.has_room() => sender.offer(batch, policy, report).await,
                answer = client.within(answers.message()), if !sender.in_flight.is_empty() => {
                    sender.take(answer?, report)?;
                    progress.update(report.answered_bytes, report.row_count());
                }
            }
        }
    }
    report.refusals.sort_by_key(|refused| refused.line);
    sender.failure.map_or(Ok(()), Err)
}

/// The side of the stream that speaks, and what it waits to hear.
struct Sender {
    /// None once the file has ended.
    to_server: Option<mpsc::Sender<StreamTicksRequest>>,
    /// Lines and end of each batch that has no answer yet, in order.
    in_flight: VecDeque<(Vec<u64>, u64)>,
    answer_count: u64,
    /// Why the file was not read to its end. What was read is sent all the same.
    failure: Option<CliError>,
}

impl Sender {
    fn is_open(&self) -> bool {
        self.to_server.is_some()
    }

    fn has_room(&self) -> bool {
        self.is_open() && self.in_flight.len() < IN_FLIGHT_MAX
    }

    /// Sends what was read; closes this side at the end of the file.
    async fn offer(&mut self, batch: Option<Result<Batch, CliError>>, policy: Policy, report: &mut FileReport) {
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
        let (Some(to_server), false) = (&self.to_server, batch.ticks.is_empty()) else { return };
        let request = StreamTicksRequest {
            batch: Some(stream_ticks_request::Batch::Ticks(TickBatch { ticks: batch.ticks })),
            conflict_policy: policy.conflict.into(),
            validate_only: policy.validate_only,
        };
        self.in_flight.push_back((batch.lines, batch.end_bytes));
        // It fails only when the server has ended the stream; why, its side of the stream tells.
        let _ = to_server.send(request).await;
    }

    /// Puts an answer to its batch.
    fn take(&mut self, answer: Option<StreamTicksResponse>, report: &mut FileReport) -> Result<(), CliError> {
        let Some(StreamTicksResponse { batch_index, result: Some(result) }) = answer else {
            return Err(Problem::Protocol("the stream ended before every batch was answered").into());
        };
        let Some((lines, end_bytes)) = self.in_flight.pop_front().filter(|_| batch_index == self.answer_count) else {
            return Err(Problem::Protocol("batches answered out of order").into());
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

/// Reads batches on a thread of their own. The channel's bound is the bound of what is read ahead.
fn read_ahead<R: TickRows>(
    open: impl FnOnce() -> Result<R, CliError> + Send + 'static,
) -> mpsc::Receiver<Result<Batch, CliError>> {
    let (to_sender, batches) = mpsc::channel(READ_AHEAD_BATCHES);
    thread::spawn(move || {
        if let Err(failure) = open().and_then(|rows| read_batches(rows, &to_sender)) {
            // Nobody listens any more when the stream has failed first.
            let _ = to_sender.blocking_send(Err(failure));
        }
    });
    batches
}

fn read_batches(mut rows: impl TickRows, to_sender: &mpsc::Sender<Result<Batch, CliError>>) -> Result<(), CliError> {
    let mut batch = Batch::default();
    loop {
        let row = rows.next();
        if batch.is_full() || !batch.is_empty() && !matches!(row, Ok(Some(_))) {
            let full = std::mem::take(&mut batch);
            if to_sender.blocking_send(Ok(full)).is_err() {
                return Ok(());
            }
        }
        let Some(Row { line, tick }) = row? else { return Ok(()) };
        match tick {
            Ok(tick) => {
                batch.ticks.push(tick);
                batch.lines.push(line);
            }
            Err(problem) => batch.malformed.push((line, problem)),
        }
        batch.end_bytes = rows.bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ingest::source::CsvRows;
    use std::io::{BufReader, Cursor, Read};
    use std::path::Path;

    /// Fails where the file would go on.
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("unplugged"))
        }
    }

    #[tokio::test]
    async fn what_was_read_before_a_failure_is_still_sent() {
        let file = "pair,source,observed_time,rate\nKGS/USD,nbkr,2025-12-08,0.01144\nbad\n";
        let input = BufReader::new(file.as_bytes().chain(Broken));
        let mut batches = read_ahead(|| CsvRows::open(Path::new("a.csv"), input));
        let batch = batches.recv().await.unwrap().unwrap();
        assert_eq!((batch.lines, batch.malformed.len(), batch.end_bytes), (vec![2], 1, file.len() as u64));
        let failure = batches.recv().await.unwrap().unwrap_err();
        assert_eq!(failure.to_string(), "a.csv: unplugged");
        assert!(batches.recv().await.is_none());
    }

    #[tokio::test]
    async fn batches_are_full_but_for_the_last() {
        let mut file = "pair,source,observed_time,rate\n".to_owned();
        for _ in 0..=BATCH_TICKS * 2 {
            file.push_str("KGS/USD,nbkr,2025-12-08,0.01144\n");
        }
        let total = file.len() as u64;
        let mut batches = read_ahead(|| CsvRows::open(Path::new("a.csv"), Cursor::new(file)));
        let (mut sizes, mut end_bytes) = (Vec::new(), 0);
        while let Some(batch) = batches.recv().await {
            let batch = batch.unwrap();
            sizes.push(batch.ticks.len());
            end_bytes = batch.end_bytes;
        }
        assert_eq!((sizes, end_bytes), (vec![BATCH_TICKS, BATCH_TICKS, 1], total));
    }

    #[test]
    fn an_answer_for_another_batch_is_not_believed() {
        let mut sender = Sender { to_server: None, in_flight: VecDeque::new(), answer_count: 0, failure: None };
        sender.in_flight.push_back((vec![2], 10));
        let answer =
            StreamTicksResponse { batch_index: 1, result: Some(crate::proto::v1::IngestTicksResponse::default()) };
        let problem = sender.take(Some(answer), &mut FileReport::default()).unwrap_err();
        assert!(problem.to_string().contains("out of order"));
    }
}
