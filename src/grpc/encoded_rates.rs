//! Rates of a latest quotes in the bytes that were written once for all who ask for them, and messages that carry such bytes.
//!
//! **Invariants**: the bytes kept are those of the latest quotes, and of the sequence since, that they are kept with; another
//! never meets them. A message with bytes reads as one that was encoded whole.

use std::marker::PhantomData;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use prost::Message;
use prost::bytes::{BufMut, Bytes};
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};

use crate::api::convert::latest_rate;
use crate::api::{latest as latest_message, latest_without_rates};
use crate::domain::Timestamp;
use crate::latest_quotes::LatestQuotes;
use crate::proto::codec::MessageDecoder;
use crate::proto::v1;
use crate::query::{SeriesFilter, latest};

/// Those rates of a latest quotes that changed after a sequence, encoded; all of them after zero.
struct Encoded {
    latest_quotes: Arc<LatestQuotes>,
    since: u64,
    rates: Bytes,
}

/// The rates that most are asked for, each encoded once a latest quotes: their digits do not change until the next commit.
#[derive(Default)]
pub(super) struct EncodedRatesCache {
    all: ArcSwapOption<Encoded>,
    /// What the newest commit changed for those who saw the one before it.
    newest: ArcSwapOption<Encoded>,
}

impl EncodedRatesCache {
    /// All rates of `latest_quotes`.
    fn all(&self, latest_quotes: &Arc<LatestQuotes>) -> Bytes {
        Self::kept(&self.all, latest_quotes, 0).unwrap_or_else(|| Self::keep(&self.all, latest_quotes, 0))
    }

    /// The rates of `latest_quotes` that changed after `since`, as the field `rates` of an answer; zero and what is above the latest quotes's sequence mean all.
    ///
    /// Kept for who is furthest on: one that fell behind does not take the bytes from the many that did not.
    pub(super) fn changed(&self, latest_quotes: &Arc<LatestQuotes>, since: u64) -> Bytes {
        if since == 0 || since > latest_quotes.sequence {
            return self.all(latest_quotes);
        }
        if since == latest_quotes.sequence {
            return Bytes::new();
        }
        if let Some(kept) = Self::kept(&self.newest, latest_quotes, since) {
            return kept;
        }
        let is_behind = self.newest.load().as_ref().is_some_and(|kept| kept.since > since);
        if is_behind { encode(latest_quotes, since) } else { Self::keep(&self.newest, latest_quotes, since) }
    }

    /// The answer to a poll, of kept bytes where all series are asked for.
    pub(super) fn answer(
        &self,
        latest_quotes: &Arc<LatestQuotes>,
        filter: &SeriesFilter,
        since_sequence: u64,
        now: Timestamp,
    ) -> LatestAnswer {
        if filter.is_empty() {
            let encoded_rates = self.changed(latest_quotes, since_sequence);
            LatestAnswer { encoded_rates, message: latest_without_rates(latest_quotes, now) }
        } else {
            let message = latest_message(latest_quotes, filter, since_sequence, now);
            LatestAnswer { encoded_rates: Bytes::new(), message }
        }
    }

    fn kept(place: &ArcSwapOption<Encoded>, latest_quotes: &Arc<LatestQuotes>, since: u64) -> Option<Bytes> {
        let kept = place.load();
        let kept =
            kept.as_ref().filter(|kept| Arc::ptr_eq(&kept.latest_quotes, latest_quotes) && kept.since == since)?;
        Some(kept.rates.clone())
    }

    /// Two callers at once may both encode; either's bytes will do.
    fn keep(place: &ArcSwapOption<Encoded>, latest_quotes: &Arc<LatestQuotes>, since: u64) -> Bytes {
        let rates = encode(latest_quotes, since);
        place.store(Some(Arc::new(Encoded { latest_quotes: Arc::clone(latest_quotes), since, rates: rates.clone() })));
        rates
    }
}

fn encode(latest_quotes: &LatestQuotes, since: u64) -> Bytes {
    let rates = latest(latest_quotes, &SeriesFilter::default(), since).map(|quote| latest_rate(quote)).collect();
    // Fields of a message may come in any order and in pieces: these bytes and those of the other fields make one.
    v1::GetLatestRatesResponse { rates, ..Default::default() }.encode_to_vec().into()
}

/// A message whose `rates` are either in it, or encoded already.
#[derive(Clone, Debug, Default)]
pub(super) struct WithRates<M> {
    /// The encoded `rates`, if they are not in the message.
    pub(super) encoded_rates: Bytes,
    pub(super) message: M,
}

/// An answer to a poll.
pub(super) type LatestAnswer = WithRates<v1::GetLatestRatesResponse>;

impl<M: Message + Default> WithRates<M> {
    fn encode(&self, buffer: &mut impl BufMut) -> Result<(), prost::EncodeError> {
        buffer.put_slice(&self.encoded_rates);
        self.message.encode(buffer)
    }

    /// The message as whoever reads it has it.
    pub(super) fn whole(self) -> Result<M, Status> {
        let mut bytes = Vec::with_capacity(self.encoded_rates.len() + self.message.encoded_len());
        self.encode(&mut bytes).map_err(|error| cannot_encode(&error))?;
        M::decode(bytes.as_slice()).map_err(|error| cannot_encode(&error))
    }
}

fn cannot_encode(error: &dyn std::error::Error) -> Status {
    Status::internal(format!("cannot encode the latest rates: {error}"))
}

/// Requests `Q` as prost reads them; answers `M` as they are kept.
pub(super) struct RatesCodec<Q, M>(PhantomData<fn() -> (Q, M)>);

impl<Q, M> Default for RatesCodec<Q, M> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<Q: Message + Default + 'static, M: Message + Default + 'static> Codec for RatesCodec<Q, M> {
    type Encode = WithRates<M>;
    type Decode = Q;
    type Encoder = RatesEncoder<M>;
    type Decoder = MessageDecoder<Q>;

    fn encoder(&mut self) -> RatesEncoder<M> {
        RatesEncoder(PhantomData)
    }

    fn decoder(&mut self) -> MessageDecoder<Q> {
        MessageDecoder::default()
    }
}

/// Writes kept bytes and what is beside them.
pub(super) struct RatesEncoder<M>(PhantomData<fn() -> M>);

impl<M: Message + Default> Encoder for RatesEncoder<M> {
    type Item = WithRates<M>;
    type Error = Status;

    fn encode(&mut self, answer: WithRates<M>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(answer.encoded_rates.len() + answer.message.encoded_len());
        answer.encode(buffer).map_err(|error| cannot_encode(&error))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::query::latest_tests::quote;

    pub(in crate::grpc) fn latest_quotes(sequence: u64) -> Arc<LatestQuotes> {
        Arc::new(LatestQuotes {
            sequence,
            recorded_time: Timestamp::from_micros(5_000_000),
            last_ingest_time: Some(Timestamp::from_micros(4_000_000)),
            quotes: vec![quote("KGS/USD", "timesca", 3), quote("KZT/USD", "timesca", sequence)],
        })
    }

    #[test]
    fn cached_bytes_are_those_of_their_quotes_and_sequence() {
        let kept = EncodedRatesCache::default();
        let latest_quotes_updates = [latest_quotes(7), latest_quotes(7), latest_quotes(8)];
        for latest_quotes in
            [&latest_quotes_updates[0], &latest_quotes_updates[2], &latest_quotes_updates[1], &latest_quotes_updates[2]]
        {
            for since in [6, 0, 7, 2, 3, 9, 7] {
                assert_eq!(
                    kept.changed(latest_quotes, since),
                    encode(latest_quotes, if since > latest_quotes.sequence { 0 } else { since })
                );
                assert_eq!(kept.all(latest_quotes), encode(latest_quotes, 0));
            }
        }
    }

    #[test]
    fn one_that_fell_behind_does_not_displace_the_others() {
        let (kept, latest_quotes) = (EncodedRatesCache::default(), latest_quotes(8));
        let is_shared =
            |since| kept.changed(&latest_quotes, since).as_ptr() == kept.changed(&latest_quotes, since).as_ptr();
        assert!(is_shared(5), "the only one");
        assert!(is_shared(7));
        assert!(!is_shared(5), "behind");
        assert!(is_shared(7));
    }

    #[test]
    fn the_kept_answer_equals_the_written_one() {
        let kept = EncodedRatesCache::default();
        let now = Timestamp::from_micros(6_000_000);
        let one_pair = SeriesFilter { pairs: vec![quote("KGS/USD", "timesca", 3).series.pair], sources: vec![] };
        for latest_quotes in [latest_quotes(7), latest_quotes(7), latest_quotes(8)] {
            for filter in [&SeriesFilter::default(), &one_pair] {
                for since in [0, 3, 7, 9] {
                    let slow = latest_message(&latest_quotes, filter, since, now);
                    for _ in 0..2 {
                        assert_eq!(kept.answer(&latest_quotes, filter, since, now).whole().unwrap(), slow);
                    }
                }
            }
        }
    }

    #[test]
    fn a_poll_that_saw_it_all_gets_the_sequence_alone() {
        let now = Timestamp::from_micros(6_000_000);
        let count = |since| latest_message(&latest_quotes(7), &SeriesFilter::default(), since, now).rates.len();
        assert_eq!([0, 3, 7, 8].map(count), [2, 1, 0, 2]);
        let empty = latest_message(&latest_quotes(7), &SeriesFilter::default(), 7, now);
        assert_eq!(empty.sequence, 7);
        assert_eq!(empty.server_time.unwrap().seconds, 6);
        assert_eq!(empty.last_ingest_time.unwrap().seconds, 4);
    }
}
