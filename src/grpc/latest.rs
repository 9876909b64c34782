//! `GetLatestRates`: the answer that is asked for most, from memory, in the bytes that were written once a board.
//!
//! A poll costs little more than the transport, so cloning and encoding five messages of strings would be a good part
//! of it. [`LatestFront`] stands before the generated service and sends bytes kept from the poll before.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwapOption;
use prost::Message as _;
use prost::bytes::{BufMut, Bytes};
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::rate_service::RateServiceImpl;
use crate::api::convert::latest_rate;
use crate::api::{latest, latest_without_rates};
use crate::board::Board;
use crate::domain::Timestamp;
use crate::proto::v1;
use crate::query::SeriesFilter;

/// Path of the one call that the front answers.
const PATH: &str = "/silkrate.v1.RateService/GetLatestRates";

/// An answer: fields encoded before, and those that are this call's own.
#[derive(Default)]
pub(super) struct LatestAnswer {
    /// The encoded `rates`, if they are not in the message.
    encoded_rates: Bytes,
    message: v1::GetLatestRatesResponse,
}

/// All rates of a board, encoded.
struct Encoded {
    board: Arc<Board>,
    rates: Bytes,
}

/// Answers polls. What a poll without conditions gets is encoded once a board: its digits do not change until the
/// next commit.
///
/// **Invariant**: the answer kept is that of the board it is kept with; another board never meets it.
#[derive(Default)]
pub(super) struct LatestAnswers {
    all: ArcSwapOption<Encoded>,
}

impl LatestAnswers {
    /// The same as [`latest`], with the bytes kept where everything is asked for.
    pub(super) fn answer(
        &self,
        board: &Arc<Board>,
        filter: &SeriesFilter,
        since_sequence: u64,
        now: Timestamp,
    ) -> LatestAnswer {
        let everything = filter.is_empty() && (since_sequence == 0 || since_sequence > board.sequence);
        if everything {
            LatestAnswer { encoded_rates: self.all(board), message: latest_without_rates(board, now) }
        } else {
            LatestAnswer { encoded_rates: Bytes::new(), message: latest(board, filter, since_sequence, now) }
        }
    }

    fn all(&self, board: &Arc<Board>) -> Bytes {
        if let Some(kept) = self.all.load().as_ref().filter(|kept| Arc::ptr_eq(&kept.board, board)) {
            return kept.rates.clone();
        }
        let rates = board.quotes.iter().map(|quote| latest_rate(quote)).collect();
        // Fields of a message may come in any order and in pieces: these bytes and those of the other fields make one.
        let rates: Bytes = v1::GetLatestRatesResponse { rates, ..Default::default() }.encode_to_vec().into();
        self.all.store(Some(Arc::new(Encoded { board: Arc::clone(board), rates: rates.clone() })));
        rates
    }
}

impl LatestAnswer {
    fn encode(&self, buffer: &mut impl BufMut) -> Result<(), prost::EncodeError> {
        buffer.put_slice(&self.encoded_rates);
        self.message.encode(buffer)
    }
}

/// Stands before the service of rates and answers `GetLatestRates` itself.
#[derive(Clone)]
pub struct LatestFront<S> {
    inner: S,
    rates: Arc<RateServiceImpl>,
}

impl<S> LatestFront<S> {
    /// Before `inner`, the generated server of the same `rates`.
    pub fn new(inner: S, rates: Arc<RateServiceImpl>) -> Self {
        Self { inner, rates }
    }
}

impl<S: NamedService> NamedService for LatestFront<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for LatestFront<S>
where
    S: Service<
            http::Request<Body>,
            Response = http::Response<Body>,
            Error = Infallible,
            Future = BoxFuture<http::Response<Body>, Infallible>,
        >,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != PATH {
            return self.inner.call(request);
        }
        let call = LatestCall(Arc::clone(&self.rates));
        Box::pin(async move { Ok(Grpc::new(LatestCodec).unary(call, request).await) })
    }
}

struct LatestCall(Arc<RateServiceImpl>);

impl UnaryService<v1::GetLatestRatesRequest> for LatestCall {
    type Response = LatestAnswer;
    type Future = std::future::Ready<Result<Response<LatestAnswer>, Status>>;

    fn call(&mut self, request: Request<v1::GetLatestRatesRequest>) -> Self::Future {
        std::future::ready(self.0.latest_answer(request.get_ref()).map(Response::new))
    }
}

/// Requests as prost reads them; answers as they are kept.
#[derive(Clone, Copy, Debug, Default)]
struct LatestCodec;

impl Codec for LatestCodec {
    type Encode = LatestAnswer;
    type Decode = v1::GetLatestRatesRequest;
    type Encoder = LatestEncoder;
    type Decoder = LatestDecoder;

    fn encoder(&mut self) -> LatestEncoder {
        LatestEncoder
    }

    fn decoder(&mut self) -> LatestDecoder {
        LatestDecoder(ProstCodec::<(), _>::raw_decoder(BufferSettings::default()))
    }
}

struct LatestEncoder;

impl Encoder for LatestEncoder {
    type Item = LatestAnswer;
    type Error = Status;

    fn encode(&mut self, answer: LatestAnswer, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(answer.encoded_rates.len() + answer.message.encoded_len());
        answer.encode(buffer).map_err(|error| Status::internal(format!("cannot encode the latest rates: {error}")))
    }
}

struct LatestDecoder(<ProstCodec<(), v1::GetLatestRatesRequest> as Codec>::Decoder);

impl Decoder for LatestDecoder {
    type Item = v1::GetLatestRatesRequest;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        self.0.decode(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::latest_tests::quote;

    fn board(sequence: u64) -> Arc<Board> {
        Arc::new(Board {
            sequence,
            recorded_time: Timestamp::from_micros(5_000_000),
            last_ingest_time: Some(Timestamp::from_micros(4_000_000)),
            quotes: vec![quote("KGS/USD", "timesca", 3), quote("KZT/USD", "timesca", sequence)],
        })
    }

    /// As a caller reads it.
    fn read(answer: &LatestAnswer) -> v1::GetLatestRatesResponse {
        let mut bytes = Vec::new();
        answer.encode(&mut bytes).unwrap();
        v1::GetLatestRatesResponse::decode(bytes.as_slice()).unwrap()
    }

    #[test]
    fn the_kept_answer_equals_the_written_one() {
        let answers = LatestAnswers::default();
        let now = Timestamp::from_micros(6_000_000);
        let one_pair = SeriesFilter { pairs: vec![quote("KGS/USD", "timesca", 3).series.pair], sources: vec![] };
        for board in [board(7), board(7), board(8)] {
            for filter in [&SeriesFilter::default(), &one_pair] {
                for since in [0, 3, 7, 9] {
                    let slow = latest(&board, filter, since, now);
                    for _ in 0..2 {
                        assert_eq!(read(&answers.answer(&board, filter, since, now)), slow);
                    }
                }
            }
        }
    }

    #[test]
    fn a_poll_that_saw_it_all_gets_the_sequence_alone() {
        let now = Timestamp::from_micros(6_000_000);
        let count = |since| latest(&board(7), &SeriesFilter::default(), since, now).rates.len();
        assert_eq!([0, 3, 7, 8].map(count), [2, 1, 0, 2]);
        let empty = latest(&board(7), &SeriesFilter::default(), 7, now);
        assert_eq!(empty.sequence, 7);
        assert_eq!(empty.server_time.unwrap().seconds, 6);
        assert_eq!(empty.last_ingest_time.unwrap().seconds, 4);
    }
}
