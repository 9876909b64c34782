//! The connection of a command to its server.
//!
//! **Invariant**: no call waits longer than `--timeout` for an answer, and none ends in an error that does not say
//! whether the server answered, was lost or was never there.

use std::error::Error;
use std::time::{Duration, Instant};

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use super::error::{CliError, Problem, innermost};
use crate::causes::causes;
use crate::proto::v1::ingest_service_client::IngestServiceClient;
use crate::proto::v1::rate_service_client::RateServiceClient;
use crate::proto::v1::snapshot_service_client::SnapshotServiceClient;
use crate::proto::v1::{WatchLatestRatesRequest, WatchLatestRatesResponse};

/// Largest message taken or sent; the server's own limit on what it decodes.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes under way before the server waits for this side: enough for a fast link over a long way.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// What tonic's own server says, as CANCELLED, of a call whose deadline is over.
const TONIC_TIMEOUT: &str = "Timeout expired";

/// A connected server.
#[derive(Clone, Debug)]
pub(super) struct Client {
    endpoint: String,
    timeout: Duration,
    channel: Channel,
}

impl Client {
    /// Connects to `endpoint`, `http://host:port` or `host:port`.
    ///
    /// # Errors
    /// `Endpoint` where it is no address, `Unreachable` where nobody answers, `Timeout`.
    pub(super) async fn connect(endpoint: &str, timeout: Duration) -> Result<Self, CliError> {
        let endpoint = normalize(endpoint)?;
        let unusable = Problem::Endpoint { endpoint: endpoint.clone(), problem: "is no address" };
        let target = Endpoint::from_shared(endpoint.clone())
            .map_err(|_| unusable)?
            .connect_timeout(timeout)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        match tokio::time::timeout(timeout, target.connect()).await {
            Ok(Ok(channel)) => Ok(Self { endpoint, timeout, channel }),
            Ok(Err(problem)) => Err(Problem::Unreachable { endpoint, problem: innermost(&problem) }.into()),
            Err(_) => Err(Problem::Timeout { endpoint, timeout }.into()),
        }
    }

    /// The reading service.
    pub(super) fn rates(&self) -> RateServiceClient<Channel> {
        RateServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The writing service.
    pub(super) fn ingest(&self) -> IngestServiceClient<Channel> {
        IngestServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The service of snapshots.
    pub(super) fn snapshots(&self) -> SnapshotServiceClient<Channel> {
        SnapshotServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Begins to watch. The call has no deadline; the wait for its beginning has.
    ///
    /// # Errors
    /// As [`Client::answer`].
    pub(super) async fn watch(
        &self,
        request: WatchLatestRatesRequest,
    ) -> Result<Streaming<WatchLatestRatesResponse>, CliError> {
        self.answer(self.rates().watch_latest_rates(Request::new(request))).await
    }

    /// Waits for the next message of a watch, at most for the silence that it may keep.
    ///
    /// # Errors
    /// `Silent`, `Ended`, `Lost`, or `Status` where the server said why.
    pub(super) async fn next_of(
        &self,
        messages: &mut Streaming<WatchLatestRatesResponse>,
        silence_max: Duration,
    ) -> Result<WatchLatestRatesResponse, CliError> {
        match tokio::time::timeout(silence_max, messages.message()).await {
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Ok(None)) => Err(Problem::Ended { endpoint: self.endpoint.clone() }.into()),
            Ok(Err(status)) => Err(self.status(status)),
            Err(_) => Err(Problem::Silent { endpoint: self.endpoint.clone(), silence: silence_max }.into()),
        }
    }

    /// A request that tells the server how long its answer is waited for.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    /// Waits for an answer to a [`Client::request`].
    ///
    /// # Errors
    /// `Timeout`, `Lost`, or `Status` where the server refused.
    pub(super) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CliError> {
        self.within(call).await.map(Response::into_inner)
    }

    /// Waits for one step of a stream, no longer than for an answer.
    ///
    /// # Errors
    /// As [`Client::answer`].
    pub(super) async fn within<T>(&self, step: impl Future<Output = Result<T, Status>>) -> Result<T, CliError> {
        let begun = Instant::now();
        match tokio::time::timeout(self.timeout, step).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) if is_timeout(status.code(), begun.elapsed() >= self.timeout) => Err(self.timed_out()),
            Ok(Err(status)) => Err(self.status(status)),
            Err(_) => Err(self.timed_out()),
        }
    }

    fn timed_out(&self) -> CliError {
        Problem::Timeout { endpoint: self.endpoint.clone(), timeout: self.timeout }.into()
    }

    /// Tells what the server said from what happened on the way: only the latter has a cause on this side.
    fn status(&self, status: Status) -> CliError {
        let Some(cause) = status.source() else {
            // The server knows the deadline too, and may be the first to see that it is over.
            let is_over = status.code() == Code::DeadlineExceeded
                || (status.code() == Code::Cancelled && status.message() == TONIC_TIMEOUT);
            return if is_over { self.timed_out() } else { Problem::Status(Box::new(status)).into() };
        };
        if causes(cause).any(<dyn Error>::is::<tonic::TimeoutExpired>) {
            return self.timed_out();
        }
        Problem::Lost { endpoint: self.endpoint.clone(), problem: innermost(cause) }.into()
    }
}

/// Whether a status only says that the time given was too short. The server was told of it and may notice first; ours
/// says so, and servers that cut calls off without a word of their own say that they were cancelled.
fn is_timeout(code: Code, time_is_up: bool) -> bool {
    code == Code::DeadlineExceeded || code == Code::Cancelled && time_is_up
}

fn normalize(endpoint: &str) -> Result<String, CliError> {
    let refuse =
        |problem| CliError::from(Problem::Endpoint { endpoint: super::text::clean(endpoint).into_owned(), problem });
    let address = match endpoint.split_once("://") {
        None => endpoint,
        Some(("http", address)) => address,
        Some(("https", _)) => return Err(refuse("asks for TLS, which silkrate does not speak")),
        Some(_) => return Err(refuse("is no http address")),
    };
    let address = address.strip_suffix('/').unwrap_or(address);
    let (host, port) = address.rsplit_once(':').ok_or_else(|| refuse("has no port"))?;
    if host.is_empty() || host.contains(['/', '@', '?', '#']) {
        return Err(refuse("is no address"));
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(format!("http://{address}")),
        Ok(_) | Err(_) => Err(refuse("has no port from 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_notices_the_timeout_first_is_told_as_a_timeout() {
        let check = |code, time_is_up, expect| assert_eq!(is_timeout(code, time_is_up), expect, "{code:?}");
        check(Code::DeadlineExceeded, true, true);
        // Of a stream, whose time began before its last step did.
        check(Code::DeadlineExceeded, false, true);
        check(Code::Cancelled, true, true);
        check(Code::Cancelled, false, false);
        check(Code::NotFound, true, false);
    }

    #[test]
    fn endpoints() {
        let check = |endpoint: &str, expect: Result<&str, &str>| match (normalize(endpoint), expect) {
            (Ok(found), Ok(expect)) => assert_eq!(found, expect),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{endpoint}: {error}"),
            (found, expect) => panic!("{endpoint}: {found:?}, expected {expect:?}"),
        };
        check("http://127.0.0.1:50051", Ok("http://127.0.0.1:50051"));
        check("127.0.0.1:50051", Ok("http://127.0.0.1:50051"));
        check("localhost:1/", Ok("http://localhost:1"));
        check("[::1]:50051", Ok("http://[::1]:50051"));
        check("https://example.org:443", Err("does not speak"));
        check("ftp://example.org:21", Err("no http address"));
        check("localhost", Err("has no port"));
        check("localhost:0", Err("no port from 1"));
        check("localhost:x", Err("no port from 1"));
        check(":50051", Err("is no address"));
        check("", Err("has no port"));
        check("a/b:1", Err("is no address"));
    }
}
