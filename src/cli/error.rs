//! Errors of commands: their messages and exit statuses.
//!
//! **Invariant**: every message names the operation, what went wrong and, if there is one, the remedy.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error as ThisError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::credentials::CredentialError;
use super::flags::{FlagNames, with_flags};
use super::text::clean;
use super::time_argument::TimeArgumentError;
use crate::causes::causes;
use crate::config::ConfigError;
use crate::domain::{SpanError, duration_us, format_duration, format_rounded_duration};
use crate::export::read::ReadError;
use crate::feed::TickCsvHeaderError;
use crate::store::StoreError;

/// The result of a command that ran to its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Outcome {
    /// Everything succeeded: exit status 0.
    Done,
    /// Some input was refused or is held: exit status 3.
    PartlyRefused,
    /// Some part failed, and the command printed why: exit status 1.
    Failed,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::SUCCESS,
            Outcome::Failed => Self::FAILURE,
            Outcome::PartlyRefused => Self::from(PARTLY_REFUSED_STATUS),
        }
    }
}

/// The exit status of wrong usage. clap uses the same status.
pub(super) const USAGE_STATUS: u8 = 2;
/// The exit status if some input was stored and some was refused or is held.
pub(super) const PARTLY_REFUSED_STATUS: u8 = 3;

/// The category of an error. It decides the exit status and whether to retry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ErrorKind {
    /// The command line is wrong.
    Usage,
    /// The requested object does not exist.
    NotFound,
    /// The request or the input is invalid.
    Refused,
    /// The server cannot be reached, does not respond or is busy.
    Unreachable,
    /// A file, pipe or disk operation failed.
    Io,
    /// A bug, a protocol violation or damaged data.
    Internal,
}

/// The error that stopped a command.
#[derive(Debug)]
pub(super) struct CliError {
    kind: ErrorKind,
    source: Box<dyn Error + Send + Sync>,
}

/// Errors that commands raise themselves. Other modules' errors are stored in [`CliError`] unchanged.
#[derive(Debug, ThisError)]
pub(super) enum Problem {
    /// The endpoint is not a valid address.
    #[error(
        "invalid endpoint '{endpoint}': {problem}; use http://127.0.0.1:50051, 127.0.0.1:50051 or https://rates.example.org:50051"
    )]
    Endpoint {
        /// The endpoint as given.
        endpoint: String,
        /// What is wrong with the endpoint.
        problem: &'static str,
    },
    /// An option that applies only to ticker pages was given for a file of ticks.
    #[error(
        "{path}: {flag} applies only to ticker pages; a file of ticks has this value in every row",
        path = path.display()
    )]
    PageOnly {
        /// The file.
        path: PathBuf,
        /// The option.
        flag: &'static str,
    },
    /// The connection could not be opened.
    #[error(
        "cannot reach a silkrate server at {endpoint}: {problem}\n  \
         start a server with 'silkrate serve', or set another address with --endpoint or SILKRATE_ENDPOINT"
    )]
    Unreachable {
        /// The address of the server.
        endpoint: String,
        /// The message of the innermost cause.
        problem: String,
    },
    /// The connection broke during a request.
    #[error("the connection to {endpoint} failed: {problem}\n  check that a silkrate server is running there")]
    Lost {
        /// The address of the server.
        endpoint: String,
        /// The message of the innermost cause.
        problem: String,
    },
    /// The server closed the stream of a watch.
    #[error("{endpoint} closed the watch stream")]
    Ended {
        /// The address of the server.
        endpoint: String,
    },
    /// Neither a change nor a heartbeat arrived in time.
    #[error("no message from {endpoint} for {} s", silence.as_secs())]
    Silent {
        /// The address of the server.
        endpoint: String,
        /// The time without a message.
        silence: Duration,
    },
    /// The server did not respond within `--timeout`.
    #[error("no response from {endpoint} within {}; increase --timeout", format_duration(duration_us(*timeout)))]
    Timeout {
        /// The address of the server.
        endpoint: String,
        /// The value of `--timeout`.
        timeout: Duration,
    },
    /// The server responded with an error status.
    #[error("{}", describe(.0, &[]))]
    Status(Box<Status>),
    /// The response violates the protocol.
    #[error("invalid response from the server: {0}; check that server and command have compatible versions")]
    Protocol(&'static str),
    /// The file cannot be read.
    #[error("{path}: {problem}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        problem: io::Error,
    },
    /// The ticker page is larger than the limit.
    #[error(
        "{path}: over {limit_mib} MiB, too large for a ticker page; send only the part with the ticker",
        path = path.display()
    )]
    PageTooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in MiB.
        limit_mib: u64,
    },
    /// The CSV file has no usable header.
    #[error("{path}: {problem}", path = path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with the header.
        problem: TickCsvHeaderError,
    },
    /// An error in the processing of one file.
    #[error("{path}: {problem}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error.
        problem: Box<CliError>,
    },
    /// The answer cannot be written to standard output.
    #[error("cannot write the answer: {0}")]
    Output(io::Error),
    /// Parquet was given on standard input.
    #[error(
        "cannot read Parquet from a pipe, because the metadata is at the end of the data; \
         save the data to a file and pass the file"
    )]
    ParquetPipe,
    /// The flags and the configuration file do not make valid settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The token or a file of TLS cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The file of tokens cannot be changed.
    #[error("cannot change the tokens in {path}: {problem}", path = path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// The error, with its remedy.
        problem: String,
    },
    /// An option that applies only to files of ticks was given for a full export.
    #[error("{flag} applies only to files of ticks; a full export is imported unchanged into an empty store")]
    TicksOnly {
        /// The option.
        flag: &'static str,
    },
}

impl Problem {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Endpoint { .. }
            | Self::PageOnly { .. }
            | Self::TicksOnly { .. }
            | Self::Config(_)
            | Self::Credentials(_) => ErrorKind::Usage,
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::Ended { .. }
            | Self::Silent { .. }
            | Self::Timeout { .. } => ErrorKind::Unreachable,
            Self::Status(status) => match status.code() {
                Code::NotFound => ErrorKind::NotFound,
                Code::Unavailable
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Cancelled
                | Code::Aborted => ErrorKind::Unreachable,
                Code::InvalidArgument | Code::OutOfRange => ErrorKind::Usage,
                Code::FailedPrecondition
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::Unimplemented => ErrorKind::Refused,
                Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => ErrorKind::Internal,
            },
            Self::Protocol(_) => ErrorKind::Internal,
            Self::PageTooLarge { .. } | Self::Header { .. } | Self::ParquetPipe | Self::Tokens { .. } => {
                ErrorKind::Refused
            }
            Self::Read { .. } | Self::Output(_) => ErrorKind::Io,
            // The content of a file is not an argument.
            Self::File { problem, .. } if problem.kind == ErrorKind::Usage && problem.status().is_some() => {
                ErrorKind::Refused
            }
            Self::File { problem, .. } => problem.kind,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl Error for CliError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.source()
    }
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        Self::new(problem.kind(), problem)
    }
}

impl From<io::Error> for CliError {
    fn from(problem: io::Error) -> Self {
        Problem::Output(problem).into()
    }
}

impl From<TimeArgumentError> for CliError {
    fn from(problem: TimeArgumentError) -> Self {
        Self::new(ErrorKind::Usage, problem)
    }
}

impl From<SpanError> for CliError {
    fn from(problem: SpanError) -> Self {
        Self::new(ErrorKind::Usage, problem)
    }
}

impl From<ReadError> for CliError {
    fn from(problem: ReadError) -> Self {
        Self::new(ErrorKind::Refused, problem)
    }
}

impl From<StoreError> for CliError {
    fn from(problem: StoreError) -> Self {
        Self::new(ErrorKind::Io, problem)
    }
}

impl From<tokio::task::JoinError> for CliError {
    fn from(problem: tokio::task::JoinError) -> Self {
        Self::new(ErrorKind::Internal, format!("an internal task ended early: {problem}"))
    }
}

impl CliError {
    /// Creates an error of kind `kind`.
    pub(super) fn new(kind: ErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, source: source.into() }
    }

    /// Returns the exit status. If the reader closed the pipe, as `| head` does, the status is success.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self.kind {
            ErrorKind::Usage => ExitCode::from(USAGE_STATUS),
            ErrorKind::Io if self.is_closed_pipe() => ExitCode::SUCCESS,
            ErrorKind::NotFound | ErrorKind::Refused | ErrorKind::Unreachable | ErrorKind::Io | ErrorKind::Internal => {
                ExitCode::FAILURE
            }
        }
    }

    /// Returns the message. An error of the server names the arguments of the command by `names`.
    pub(super) fn message(&self, names: FlagNames) -> String {
        match self.problem() {
            Some(Problem::Status(status)) => describe(status, names),
            Some(_) | None => self.to_string(),
        }
    }

    fn problem(&self) -> Option<&Problem> {
        self.source.downcast_ref()
    }

    /// Returns the error status of the server, if the server sent one.
    fn status(&self) -> Option<&Status> {
        let problem = self.problem()?;
        if let Problem::File { problem, .. } = problem {
            return problem.status();
        }
        if let Problem::Status(status) = problem { Some(status) } else { None }
    }

    /// Returns true if the server refused a ticker page because its observed time is missing or invalid.
    pub(super) fn is_about_observed_time(&self) -> bool {
        let details = self.status().map(Status::get_error_details);
        let is_about = |details: ErrorDetails| {
            let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
            violations.iter().any(|violation| violation.field == "observed_time")
        };
        details.is_some_and(is_about)
    }

    /// Returns true if a later retry would fail with the same error.
    pub(super) fn is_permanent(&self) -> bool {
        match self.status() {
            Some(status) => matches!(status.code(), Code::InvalidArgument | Code::Unimplemented),
            None => self.kind != ErrorKind::Unreachable,
        }
    }

    /// Returns true if the requested object does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// Returns how long the server asks the client to wait before a retry (`RetryInfo`).
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.status()?.get_error_details().retry_info().and_then(|info| info.retry_delay)
    }

    /// Returns true if the reader of standard output closed the pipe, so that no error needs to be printed.
    pub(super) fn is_closed_pipe(&self) -> bool {
        matches!(self.problem(), Some(Problem::Output(problem)) if problem.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Returns true if the error concerns one input file and its message names the file.
    pub(super) fn names_input_file(&self) -> bool {
        match self.problem() {
            Some(Problem::File { problem, .. }) => problem.names_input_file(),
            Some(
                Problem::Read { .. } | Problem::PageTooLarge { .. } | Problem::Header { .. } | Problem::ParquetPipe,
            ) => true,
            Some(_) => false,
            None => self.source.is::<ReadError>(),
        }
    }

    /// Returns true if the error does not depend on the input file. The command then skips the remaining files.
    pub(super) fn stops_all(&self) -> bool {
        match self.status() {
            Some(status) => !matches!(
                status.code(),
                Code::InvalidArgument | Code::OutOfRange | Code::NotFound | Code::FailedPrecondition
            ),
            None => !self.names_input_file(),
        }
    }
}

/// Returns the message of the innermost cause: "connection refused" instead of "transport error".
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(|cause| clean(&cause.to_string()).into_owned()).unwrap_or_default()
}

/// Formats a status: its message, then each of its `google.rpc` details on its own line. Fields of requests have the
/// names of their arguments; see [`with_flags`].
fn describe(status: &Status, names: FlagNames) -> String {
    let kind = match status.code() {
        Code::InvalidArgument => "invalid argument",
        Code::NotFound => "not found",
        Code::ResourceExhausted => "the server is busy",
        Code::Unavailable => "the server cannot serve this request now",
        Code::DataLoss => "stored data is damaged",
        Code::DeadlineExceeded => "deadline exceeded",
        Code::OutOfRange => "out of range",
        Code::FailedPrecondition => "not possible in the current state",
        Code::Unimplemented => "the server does not support this request",
        Code::Cancelled => "the server cancelled this request",
        Code::Unauthenticated => "not authenticated",
        Code::PermissionDenied => "not allowed",
        Code::Ok | Code::Unknown | Code::AlreadyExists | Code::Aborted | Code::Internal => "the server failed",
    };
    let mut lines = vec![match status.message() {
        "" => kind.to_owned(),
        message => format!("{kind}: {}", with_flags(&clean(message), names)),
    }];
    lines.extend(detail_lines(status.message(), &status.get_error_details(), names));
    lines.join("\n  ")
}

/// Returns the details that the message does not contain already.
fn detail_lines(message: &str, details: &ErrorDetails, names: FlagNames) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(bad_request) = details.bad_request() {
        let missing = bad_request.field_violations.iter().filter(|v| !message.contains(&v.description));
        lines.extend(missing.map(|v| with_flags(&format!("{}: {}", clean(&v.field), clean(&v.description)), names)));
    }
    if let Some(info) = details.error_info() {
        lines.push(format!("reason: {}", clean(&info.reason)));
        let mut metadata: Vec<_> = info.metadata.iter().collect();
        metadata.sort();
        lines.extend(metadata.iter().map(|(key, value)| format!("{}: {}", clean(key), clean(value))));
    }
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
        let micros = duration_us(delay);
        lines.push(format!("try again in {}", format_rounded_duration(micros)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn status_message_lists_error_details() {
        let check = |status: Status, expect: &str| assert_eq!(describe(&status, &[]), expect);
        check(Status::not_found("no quote"), "not found: no quote");
        check(Status::internal(""), "the server failed");
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("pair", "'KGS' is not two currencies\u{1b}[2J");
        check(
            Status::with_error_details(Code::InvalidArgument, "bad request", details),
            "invalid argument: bad request\n  PAIR: 'KGS' is not two currencies\\u{1b}[2J",
        );
        // The message already contains the violation, so it is not repeated.
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("end_time", "is before start_time");
        check(
            Status::with_error_details(Code::InvalidArgument, "end_time: is before start_time", details),
            "invalid argument: --to: is before --from",
        );
        let mut details = ErrorDetails::new();
        let metadata = HashMap::from([("pair".to_owned(), "KGS/USD".to_owned())]);
        details.set_error_info("NO_QUOTE_YET", "silkrate", metadata).set_retry_info(Some(Duration::from_secs(2)));
        check(
            Status::with_error_details(Code::NotFound, "nothing yet", details),
            "not found: nothing yet\n  reason: NO_QUOTE_YET\n  pair: KGS/USD\n  try again in 2 s",
        );
    }

    #[test]
    fn exit_status_depends_on_error_kind() {
        let check = |error: CliError, expect: ExitCode| assert_eq!(error.exit_code(), expect, "{error}");
        check(TimeArgumentError::Malformed("x".to_owned()).into(), ExitCode::from(2));
        check(Problem::Endpoint { endpoint: "x y".to_owned(), problem: "not an address" }.into(), ExitCode::from(2));
        check(Problem::Output(io::ErrorKind::BrokenPipe.into()).into(), ExitCode::SUCCESS);
        check(Problem::Output(io::ErrorKind::StorageFull.into()).into(), ExitCode::FAILURE);
        check(CliError::from(StoreError::Damaged { path: "x".to_owned(), problem: "y".to_owned() }), ExitCode::FAILURE);
        check(Problem::Status(Box::new(Status::not_found("x"))).into(), ExitCode::FAILURE);
        assert_eq!(ExitCode::from(Outcome::PartlyRefused), ExitCode::from(3));
    }
}
