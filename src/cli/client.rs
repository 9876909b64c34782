//! The gRPC client of the commands: connection, deadlines and errors.
//!
//! **Invariant**: a call waits at most `--timeout` for a response. The error of a call distinguishes an error response
//! of the server, a broken connection, and a server that cannot be reached.

use std::error::Error;
use std::time::{Duration, Instant};

use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use super::credentials::{Bearer, CredentialArgs, CredentialError};
use super::error::{CliError, Problem, innermost};
use crate::causes::causes;
use crate::proto::v1::backup_service_client::BackupServiceClient;
use crate::proto::v1::ingest_service_client::IngestServiceClient;
use crate::proto::v1::rate_service_client::RateServiceClient;
use crate::proto::v1::snapshot_service_client::SnapshotServiceClient;
use crate::proto::v1::{WatchLatestRatesRequest, WatchLatestRatesResponse};

/// The maximum size of a message in either direction. The server has the same limit for requests.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The HTTP/2 flow-control window: large enough for a connection of high bandwidth and high latency.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// The message with which tonic's server ends a call after its deadline, with code `CANCELLED`.
const TONIC_TIMEOUT: &str = "Timeout expired";

/// A client with an open connection to a server. Clones share the connection.
#[derive(Clone, Debug)]
pub(super) struct Client {
    endpoint: String,
    timeout: Duration,
    transport: Transport,
}

/// A connection that adds the token to each call.
pub(super) type Transport = InterceptedService<Channel, Bearer>;

impl Client {
    /// Connects to `endpoint`: `https://host:port`, `http://host:port` or `host:port`.
    ///
    /// # Errors
    /// `Endpoint` if `endpoint` is not an address; `Credentials` if the token or a file of TLS cannot be used;
    /// `Unreachable` if the connection fails; `Timeout` after `timeout`.
    pub(super) async fn connect(
        endpoint: &str,
        credentials: &CredentialArgs,
        timeout: Duration,
    ) -> Result<Self, CliError> {
        let endpoint = normalize(endpoint)?;
        let unusable = Problem::Endpoint { endpoint: endpoint.clone(), problem: "not an address" };
        let mut target = Endpoint::from_shared(endpoint.clone())
            .map_err(|_| unusable)?
            .connect_timeout(timeout)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let bearer = credentials.bearer().map_err(Problem::from)?;
        if endpoint.starts_with("https://") {
            let tls = credentials.tls().map_err(Problem::from)?;
            let refuse = |error: tonic::transport::Error| Problem::Credentials(CredentialError::Tls(innermost(&error)));
            target = target.tls_config(tls).map_err(refuse)?;
        } else {
            credentials.check_plain_text(&endpoint, &bearer).map_err(Problem::from)?;
        }
        match tokio::time::timeout(timeout, target.connect()).await {
            Ok(Ok(channel)) => Ok(Self { endpoint, timeout, transport: InterceptedService::new(channel, bearer) }),
            Ok(Err(problem)) => Err(Problem::Unreachable { endpoint, problem: innermost(&problem) }.into()),
            Err(_) => Err(Problem::Timeout { endpoint, timeout }.into()),
        }
    }

    /// Returns the connection, for services of other packages.
    pub(super) fn transport(&self) -> Transport {
        self.transport.clone()
    }

    /// Returns a client of `RateService`, which serves reads.
    pub(super) fn rates(&self) -> RateServiceClient<Transport> {
        RateServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Returns a client of `IngestService`, which accepts ticks.
    pub(super) fn ingest(&self) -> IngestServiceClient<Transport> {
        IngestServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Returns a client of `SnapshotService`, which serves exports.
    pub(super) fn snapshots(&self) -> SnapshotServiceClient<Transport> {
        SnapshotServiceClient::new(self.transport.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Returns a client of `BackupService`, which serves backups.
    pub(super) fn backups(&self) -> BackupServiceClient<Transport> {
        BackupServiceClient::new(self.transport.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Starts a watch. The stream has no deadline. The wait for the start of the stream is limited by `--timeout`.
    ///
    /// # Errors
    /// See [`Client::answer`].
    pub(super) async fn watch(
        &self,
        request: WatchLatestRatesRequest,
    ) -> Result<Streaming<WatchLatestRatesResponse>, CliError> {
        self.answer(self.rates().watch_latest_rates(Request::new(request))).await
    }

    /// Returns the next message of a watch, and waits at most `silence_max` for it.
    ///
    /// # Errors
    /// `Silent` after `silence_max`; `Ended` if the server closed the stream; `Lost` if the connection broke; `Status`
    /// if the server sent an error.
    pub(super) async fn next_watch_message(
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

    /// Wraps a message in a request with the deadline `--timeout`.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    /// Waits for the response to a [`Client::request`], at most `--timeout`.
    ///
    /// # Errors
    /// `Timeout` after `--timeout`; `Lost` if the connection broke; `Status` if the server sent an error.
    pub(super) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, CliError> {
        self.with_timeout(call).await.map(Response::into_inner)
    }

    /// Waits for the response to a call or the next message of a stream, at most `--timeout`.
    ///
    /// # Errors
    /// See [`Client::answer`].
    pub(super) async fn with_timeout<T>(&self, future: impl Future<Output = Result<T, Status>>) -> Result<T, CliError> {
        let start = Instant::now();
        match tokio::time::timeout(self.timeout, future).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(status)) if is_timeout(status.code(), start.elapsed() >= self.timeout) => Err(self.timed_out()),
            Ok(Err(status)) => Err(self.status(status)),
            Err(_) => Err(self.timed_out()),
        }
    }

    fn timed_out(&self) -> CliError {
        Problem::Timeout { endpoint: self.endpoint.clone(), timeout: self.timeout }.into()
    }

    /// Converts a status to an error. A status with a local cause did not come from the server: the connection broke or
    /// the local timeout expired.
    fn status(&self, status: Status) -> CliError {
        let Some(cause) = status.source() else {
            // The server enforces the deadline too, and the timer of the server may expire before the timer of the
            // client.
            let is_expired = status.code() == Code::DeadlineExceeded
                || (status.code() == Code::Cancelled && status.message() == TONIC_TIMEOUT);
            return if is_expired { self.timed_out() } else { Problem::Status(Box::new(status)).into() };
        };
        if causes(cause).any(<dyn Error>::is::<tonic::TimeoutExpired>) {
            return self.timed_out();
        }
        Problem::Lost { endpoint: self.endpoint.clone(), problem: innermost(cause) }.into()
    }
}

/// Returns true if a status means that the timeout was too short. The server enforces the timeout too, and the timer of
/// the server may expire before the timer of the client. A silkrate server then responds `DEADLINE_EXCEEDED`; other
/// servers may respond `CANCELLED`.
fn is_timeout(code: Code, timeout_has_passed: bool) -> bool {
    code == Code::DeadlineExceeded || code == Code::Cancelled && timeout_has_passed
}

/// Checks an endpoint and returns it as `http://host:port` or `https://host:port`.
fn normalize(endpoint: &str) -> Result<String, CliError> {
    let refuse =
        |problem| CliError::from(Problem::Endpoint { endpoint: super::text::clean(endpoint).into_owned(), problem });
    let (scheme, address) = match endpoint.split_once("://") {
        None => ("http", endpoint),
        Some((scheme @ ("http" | "https"), address)) => (scheme, address),
        Some(_) => return Err(refuse("its scheme is neither http nor https")),
    };
    let address = address.strip_suffix('/').unwrap_or(address);
    let (host, port) = address.rsplit_once(':').ok_or_else(|| refuse("its port is missing"))?;
    if host.is_empty() || host.contains(['/', '@', '?', '#']) {
        return Err(refuse("not an address"));
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(format!("{scheme}://{address}")),
        Ok(_) | Err(_) => Err(refuse("its port is not a number from 1 to 65535")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_error_of_server_counts_as_timeout() {
        let check = |code, has_passed, expect| assert_eq!(is_timeout(code, has_passed), expect, "{code:?}");
        check(Code::DeadlineExceeded, true, true);
        // The deadline of a stream counts from the start of the stream, not from its last message.
        check(Code::DeadlineExceeded, false, true);
        check(Code::Cancelled, true, true);
        check(Code::Cancelled, false, false);
        check(Code::NotFound, true, false);
    }

    #[test]
    fn endpoint_is_normalized_or_refused() {
        let check = |endpoint: &str, expect: Result<&str, &str>| match (normalize(endpoint), expect) {
            (Ok(found), Ok(expect)) => assert_eq!(found, expect),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{endpoint}: {error}"),
            (found, expect) => panic!("{endpoint}: {found:?}, expected {expect:?}"),
        };
        check("http://127.0.0.1:50051", Ok("http://127.0.0.1:50051"));
        check("127.0.0.1:50051", Ok("http://127.0.0.1:50051"));
        check("localhost:1/", Ok("http://localhost:1"));
        check("[::1]:50051", Ok("http://[::1]:50051"));
        check("https://example.org:443", Ok("https://example.org:443"));
        check("https://example.org", Err("its port is missing"));
        check("ftp://example.org:21", Err("its scheme is neither http nor https"));
        check("localhost", Err("its port is missing"));
        check("localhost:0", Err("not a number from 1"));
        check("localhost:x", Err("not a number from 1"));
        check(":50051", Err("not an address"));
        check("", Err("its port is missing"));
        check("a/b:1", Err("not an address"));
    }
}
