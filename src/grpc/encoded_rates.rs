//! The encoded-rates cache: the latest rates, encoded once per commit for all clients, and messages that contain these
//! bytes.
//!
//! **Invariants**: cached bytes are used only for the latest quotes and the `since` sequence that they were encoded
//! for. A message with cached bytes decodes to the same message as one that was encoded as a whole.

use std::marker::PhantomData;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use prost::Message;
use prost::bytes::{BufMut, Bytes};
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};

use crate::api::convert::latest_rate;
use crate::api::latest_without_rates;
use crate::bytes_cache::BytesCache;
use crate::domain::Timestamp;
use crate::latest_quotes::LatestQuotes;
use crate::proto::codec::MessageDecoder;
use crate::proto::v1;
use crate::query::{SeriesFilter, latest};

/// The encoded rates that changed after a sequence.
struct Encoded {
    latest_quotes: Arc<LatestQuotes>,
    /// The sequence after which the rates changed; zero means all rates.
    since: u64,
    rates: Bytes,
}

/// Maximum size of all cached selections.
const SELECTIONS_BYTES_MAX: u64 = 4 << 20;

/// The rates that match a filter, by the sequence of their commit.
type Selections = BytesCache<(u64, SeriesFilter), Bytes>;

/// The cache: the most requested selections of rates, each encoded once per commit.
pub(super) struct EncodedRatesCache {
    /// All rates.
    all: ArcSwapOption<Encoded>,
    /// The rates that the newest commit changed, for clients that saw the commit before it.
    newest: ArcSwapOption<Encoded>,
    selections: Selections,
}

impl Default for EncodedRatesCache {
    fn default() -> Self {
        let selections = Selections::new(SELECTIONS_BYTES_MAX, |(_, filter)| {
            size_of_val(filter.pairs.as_slice()) + size_of_val(filter.sources.as_slice())
        });
        Self { all: ArcSwapOption::empty(), newest: ArcSwapOption::empty(), selections }
    }
}

impl EncodedRatesCache {
    /// Returns all rates of `latest_quotes`.
    fn all(&self, latest_quotes: &Arc<LatestQuotes>) -> Bytes {
        Self::get(&self.all, latest_quotes, 0).unwrap_or_else(|| Self::insert(&self.all, latest_quotes, 0))
    }

    /// Returns the rates of `latest_quotes` that match a filter and changed after `since`, encoded as the field `rates`
    /// of a response. Returns all rates that match if `since` is zero or above the sequence of `latest_quotes`.
    pub(super) fn selected(&self, latest_quotes: &Arc<LatestQuotes>, filter: &SeriesFilter, since: u64) -> Bytes {
        if filter.is_empty() {
            return self.changed(latest_quotes, since);
        }
        if since > 0 && since <= latest_quotes.sequence {
            // One commit changes few rates.
            return encode(latest_quotes, filter, since);
        }
        // The sequence identifies the quotes: a state changes only with a commit.
        let key = (latest_quotes.sequence, filter.clone());
        if let Some(rates) = self.selections.get(&key) {
            return rates;
        }
        let rates = encode(latest_quotes, filter, 0);
        self.selections.insert(key, rates.clone());
        rates
    }

    /// Returns the rates of `latest_quotes` that changed after `since`, encoded as the field `rates` of a response.
    /// Returns all rates if `since` is zero or above the sequence of `latest_quotes`.
    ///
    /// Only the bytes for the highest `since` are cached: one client that is behind does not evict the bytes that the
    /// other clients need.
    fn changed(&self, latest_quotes: &Arc<LatestQuotes>, since: u64) -> Bytes {
        if since == 0 || since > latest_quotes.sequence {
            return self.all(latest_quotes);
        }
        if since == latest_quotes.sequence {
            return Bytes::new();
        }
        if let Some(cached) = Self::get(&self.newest, latest_quotes, since) {
            return cached;
        }
        let is_behind = self.newest.load().as_ref().is_some_and(|cached| cached.since > since);
        if is_behind {
            return encode(latest_quotes, &SeriesFilter::default(), since);
        }
        Self::insert(&self.newest, latest_quotes, since)
    }

    /// Returns the response to a poll.
    pub(super) fn response(
        &self,
        latest_quotes: &Arc<LatestQuotes>,
        filter: &SeriesFilter,
        since_sequence: u64,
        now: Timestamp,
    ) -> LatestResponse {
        let encoded_rates = self.selected(latest_quotes, filter, since_sequence);
        LatestResponse { encoded_rates, message: latest_without_rates(latest_quotes, now) }
    }

    fn get(entry: &ArcSwapOption<Encoded>, latest_quotes: &Arc<LatestQuotes>, since: u64) -> Option<Bytes> {
        let cached = entry.load();
        let is_same =
            |cached: &&Arc<Encoded>| Arc::ptr_eq(&cached.latest_quotes, latest_quotes) && cached.since == since;
        Some(cached.as_ref().filter(is_same)?.rates.clone())
    }

    /// Encodes the rates and caches the bytes. Two concurrent calls may both encode; their bytes are equal.
    fn insert(entry: &ArcSwapOption<Encoded>, latest_quotes: &Arc<LatestQuotes>, since: u64) -> Bytes {
        let rates = encode(latest_quotes, &SeriesFilter::default(), since);
        entry.store(Some(Arc::new(Encoded { latest_quotes: Arc::clone(latest_quotes), since, rates: rates.clone() })));
        rates
    }
}

/// Encodes rates as the field `rates` of a response.
fn encode(latest_quotes: &LatestQuotes, filter: &SeriesFilter, since: u64) -> Bytes {
    let rates = latest(latest_quotes, filter, since).map(|quote| latest_rate(quote)).collect();
    // The fields of an encoded message may come in any order, so these bytes followed by the bytes of the other fields
    // are one message.
    v1::GetLatestRatesResponse { rates, ..Default::default() }.encode_to_vec().into()
}

/// A message whose field `rates` is encoded already.
#[derive(Clone, Debug, Default)]
pub(super) struct WithRates<M> {
    /// The encoded field `rates`.
    pub(super) encoded_rates: Bytes,
    /// The other fields.
    pub(super) message: M,
}

/// The response to a poll.
pub(super) type LatestResponse = WithRates<v1::GetLatestRatesResponse>;

impl<M: Message + Default> WithRates<M> {
    fn encode(&self, buffer: &mut impl BufMut) -> Result<(), prost::EncodeError> {
        buffer.put_slice(&self.encoded_rates);
        self.message.encode(buffer)
    }

    /// Returns the whole message, as a client decodes it.
    pub(super) fn decode(self) -> Result<M, Status> {
        let mut bytes = Vec::with_capacity(self.encoded_rates.len() + self.message.encoded_len());
        self.encode(&mut bytes).map_err(|error| cannot_encode(&error))?;
        M::decode(bytes.as_slice()).map_err(|error| cannot_encode(&error))
    }
}

fn cannot_encode(error: &dyn std::error::Error) -> Status {
    Status::internal(format!("cannot encode the latest rates: {error}"))
}

/// A codec that decodes requests `Q` and encodes responses `M` with their cached bytes.
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

/// Encodes a message as its cached bytes followed by its other fields.
pub(super) struct RatesEncoder<M>(PhantomData<fn() -> M>);

impl<M: Message + Default> Encoder for RatesEncoder<M> {
    type Item = WithRates<M>;
    type Error = Status;

    fn encode(&mut self, response: WithRates<M>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(response.encoded_rates.len() + response.message.encoded_len());
        response.encode(buffer).map_err(|error| cannot_encode(&error))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::api::latest as latest_message;
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
    fn cached_bytes_belong_to_their_quotes_and_sequence() {
        let cache = EncodedRatesCache::default();
        let latest_quotes_updates = [latest_quotes(7), latest_quotes(7), latest_quotes(8)];
        for latest_quotes in
            [&latest_quotes_updates[0], &latest_quotes_updates[2], &latest_quotes_updates[1], &latest_quotes_updates[2]]
        {
            for since in [6, 0, 7, 2, 3, 9, 7] {
                assert_eq!(cache.changed(latest_quotes, since), encode(latest_quotes, &SeriesFilter::default(), since));
                assert_eq!(cache.all(latest_quotes), encode(latest_quotes, &SeriesFilter::default(), 0));
            }
        }
    }

    #[test]
    fn client_that_is_behind_does_not_evict_the_bytes_of_other_clients() {
        let (cache, latest_quotes) = (EncodedRatesCache::default(), latest_quotes(8));
        let is_shared =
            |since| cache.changed(&latest_quotes, since).as_ptr() == cache.changed(&latest_quotes, since).as_ptr();
        assert!(is_shared(5), "the only client");
        assert!(is_shared(7));
        assert!(!is_shared(5), "a client that is behind");
        assert!(is_shared(7));
    }

    #[test]
    fn response_with_cached_bytes_equals_the_encoded_response() {
        let cache = EncodedRatesCache::default();
        let now = Timestamp::from_micros(6_000_000);
        let one_pair = SeriesFilter { pairs: vec![quote("KGS/USD", "timesca", 3).series.pair], sources: vec![] };
        for latest_quotes in [latest_quotes(7), latest_quotes(7), latest_quotes(8)] {
            for filter in [&SeriesFilter::default(), &one_pair] {
                for since in [0, 3, 7, 9] {
                    let slow = latest_message(&latest_quotes, filter, since, now);
                    for _ in 0..2 {
                        assert_eq!(cache.response(&latest_quotes, filter, since, now).decode().unwrap(), slow);
                    }
                }
            }
        }
    }

    #[test]
    fn poll_without_changes_gets_the_sequence_without_rates() {
        let now = Timestamp::from_micros(6_000_000);
        let count = |since| latest_message(&latest_quotes(7), &SeriesFilter::default(), since, now).rates.len();
        assert_eq!([0, 3, 7, 8].map(count), [2, 1, 0, 2]);
        let empty = latest_message(&latest_quotes(7), &SeriesFilter::default(), 7, now);
        assert_eq!(empty.sequence, 7);
        assert_eq!(empty.server_time.unwrap().seconds, 6);
        assert_eq!(empty.last_ingest_time.unwrap().seconds, 4);
    }
}
