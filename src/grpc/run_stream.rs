//! The call `StreamRuns`: packs runs from the store into messages, as fast as the client reads them.
//!
//! **Invariant**: the messages contain all runs in order. A stream without runs has one empty message.

use tokio::time::Instant;

use super::blocking_stream::{Messages, StreamEnd, send_until};
use crate::api::{ServiceError, leg_message};
use crate::columns::RunPacker;
use crate::proto::convert::timestamp;
use crate::proto::v1::StreamRunsResponse;
use crate::query::RunStream;

/// Maximum number of runs in one message: about 160 KiB, so that the overhead of a message is small.
const MESSAGE_RUNS_MAX: usize = 4_096;
/// Maximum number of messages that are packed before the client reads them.
const MESSAGES_AHEAD_MAX: usize = 3;
/// How a client gets the rest after the maximum age.
const TOO_OLD_REMEDY: &str = "continue with start_time set to the first_observed_time of the last run, and known_time \
                              set to recorded_time";

/// The messages of a stream of runs.
pub(super) type RunMessages = Messages<StreamRunsResponse>;

/// Sends `runs` from a dedicated thread, which holds `slot` until it ends, for at most `age_max_s` seconds.
pub(super) fn send(
    runs: RunStream,
    deadline: Option<Instant>,
    age_max_s: u64,
    slot: impl Send + 'static,
) -> RunMessages {
    send_runs_until(runs, StreamEnd::of(deadline, age_max_s, TOO_OLD_REMEDY), slot)
}

fn send_runs_until(runs: RunStream, end: StreamEnd, slot: impl Send + 'static) -> RunMessages {
    send_until(end, MESSAGES_AHEAD_MAX, slot, move |send_message| pack(runs, send_message))
}

/// Packs the pieces into messages of [`MESSAGE_RUNS_MAX`] runs; the last message may have fewer. Sends at least one
/// message.
fn pack(
    runs: RunStream,
    mut send_message: impl FnMut(StreamRunsResponse) -> Result<(), ServiceError>,
) -> Result<(), ServiceError> {
    let RunStream { commit, leg, pieces } = runs;
    let leg = leg_message(&leg);
    let mut send = |packer: RunPacker| {
        send_message(StreamRunsResponse {
            sequence: commit.sequence,
            recorded_time: Some(timestamp(commit.recorded_time)),
            pair: leg.pair.clone(),
            source: leg.source.clone(),
            leg: Some(leg.clone()),
            ..packer.finish()
        })
    };
    let mut packer = RunPacker::new(MESSAGE_RUNS_MAX);
    let mut is_first = true;
    for piece in pieces {
        let piece = piece?;
        let mut rest = piece.as_slice();
        while !rest.is_empty() {
            if packer.room() == 0 {
                send(std::mem::replace(&mut packer, RunPacker::new(MESSAGE_RUNS_MAX)))?;
                is_first = false;
            }
            let (fitting, left) = rest.split_at(rest.len().min(packer.room()));
            packer.extend(fitting);
            rest = left;
        }
    }
    if is_first || !packer.is_empty() { send(packer) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::{OwnedSemaphorePermit, Semaphore};
    use tokio::time::Instant;
    use tokio_stream::StreamExt as _;
    use tonic::Code;

    use super::*;

    const AGE_MAX_S: u64 = 600;
    use crate::columns::decode_runs;
    use crate::domain::{PublishedValue, Rate, Run, Timestamp};
    use crate::query::AnsweringLeg;
    use crate::query::latest_tests::key;
    use crate::store::{Commit, StoreError};

    fn runs(range: std::ops::Range<usize>) -> Vec<Run> {
        let value = PublishedValue { rate: Rate::parse("0.5").unwrap(), reported_change: None };
        let time = |number: usize| Timestamp::from_micros(i64::try_from(number).unwrap());
        range.map(|number| Run::single(time(number), value, time(1))).collect()
    }

    fn stream(pieces: impl Iterator<Item = Result<Vec<Run>, StoreError>> + Send + 'static) -> RunStream {
        let commit = Commit { sequence: 7, recorded_time: Timestamp::from_micros(9) };
        let leg = AnsweringLeg { series: key("KGS/USD", "timesca"), is_stale: true, is_archived: false };
        RunStream { commit, leg, pieces: Box::new(pieces) }
    }

    async fn permit() -> (Arc<Semaphore>, OwnedSemaphorePermit) {
        let streams = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&streams).acquire_owned().await.unwrap();
        (streams, permit)
    }

    /// Waits until the stream has released its slot.
    async fn wait_for_end(streams: &Semaphore) {
        let wait = tokio::time::timeout(Duration::from_secs(10), streams.acquire());
        assert!(wait.await.is_ok(), "the stream did not end");
    }

    #[test]
    fn messages_contain_all_runs_in_order_and_at_least_one_message_is_sent() {
        let check = |pieces: &[usize], expect: &[u32]| {
            let mut begin = 0;
            let pieces: Vec<_> = pieces
                .iter()
                .map(|len| {
                    begin += len;
                    Ok(runs(begin - len..begin))
                })
                .collect();
            let (mut counts, mut read) = (Vec::new(), Vec::new());
            pack(stream(pieces.into_iter()), |message| {
                assert_eq!((message.sequence, message.pair.as_str()), (7, "KGS/USD"));
                let leg = message.leg.clone().unwrap();
                assert_eq!((leg.source.as_str(), leg.stale, leg.archived), ("timesca", true, false));
                counts.push(message.run_count);
                read.extend(decode_runs(&message)?);
                Ok(())
            })
            .unwrap();
            assert_eq!(counts, expect);
            assert_eq!(read, runs(0..begin));
        };
        check(&[], &[0]);
        check(&[1], &[1]);
        check(&[4_096], &[4_096]);
        check(&[4_097], &[4_096, 1]);
        check(&[3_000, 3_000, 3_000], &[4_096, 4_096, 808]);
        check(&[2_048, 2_048, 2_048, 2_048], &[4_096, 4_096]);
        check(&[10_000], &[4_096, 4_096, 1_808]);
    }

    #[tokio::test]
    async fn runs_before_a_damaged_block_are_sent_before_the_error() {
        let damaged = Err(StoreError::Damaged { path: "db".to_owned(), problem: "a block".to_owned() });
        let (streams, permit) = permit().await;
        let mut messages = send(stream([Ok(runs(0..5_000)), damaged].into_iter()), None, AGE_MAX_S, permit);
        assert_eq!(messages.next().await.unwrap().unwrap().run_count, 4_096);
        assert_eq!(messages.next().await.unwrap().unwrap_err().code(), Code::DataLoss);
        assert!(messages.next().await.is_none());
        wait_for_end(&streams).await;
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(40)
    }

    fn endless(read: &Arc<AtomicUsize>) -> RunStream {
        let read = Arc::clone(read);
        stream(std::iter::repeat_with(move || {
            read.fetch_add(1, Ordering::SeqCst);
            Ok(runs(0..4_096))
        }))
    }

    #[tokio::test]
    async fn disconnected_client_ends_the_stream() {
        let (streams, permit) = permit().await;
        let mut messages = send(endless(&Arc::default()), None, AGE_MAX_S, permit);
        assert!(messages.next().await.unwrap().is_ok());
        drop(messages);
        wait_for_end(&streams).await;
    }

    #[tokio::test]
    async fn unread_stream_stops_packing_and_ends_at_its_deadline_or_maximum_age() {
        let check = async |end: StreamEnd, expect: Code| {
            let (streams, permit) = permit().await;
            let read = Arc::default();
            let messages = send_runs_until(endless(&read), end, permit);
            wait_for_end(&streams).await;
            assert!(read.load(Ordering::SeqCst) <= MESSAGES_AHEAD_MAX + 2, "{read:?}");
            let last = messages.collect::<Vec<_>>().await.pop().unwrap();
            assert_eq!(last.unwrap_err().code(), expect);
        };
        check(StreamEnd::of(Some(soon()), AGE_MAX_S, TOO_OLD_REMEDY), Code::DeadlineExceeded).await;
        let too_old = StreamEnd {
            at: Instant::now() + Duration::from_millis(30),
            error: ServiceError::StreamTooOld { age_max_s: AGE_MAX_S, remedy: TOO_OLD_REMEDY },
        };
        check(too_old, Code::Aborted).await;
    }

    #[tokio::test]
    async fn deadline_ends_a_stream_that_is_read() {
        let (streams, permit) = permit().await;
        let mut messages = send(endless(&Arc::default()), Some(soon()), AGE_MAX_S, permit);
        let error = loop {
            match messages.next().await.unwrap() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.code(), Code::DeadlineExceeded);
        wait_for_end(&streams).await;
    }
}
