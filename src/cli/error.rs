//! What can go wrong in a command, in words, and the exit status that says so to a script.
//!
//! **Invariant**: every message names what was tried, what happened and, where there is one, the remedy.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error as ThisError;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::text::clean;
use super::time_argument::TimeArgumentError;
use crate::causes::causes;
use crate::domain::{SpanError, duration_us, whole_length};
use crate::export::read::ReadError;
use crate::feed::TickCsvHeaderError;
use crate::store::StoreError;

/// How a command ended when nothing stopped it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Outcome {
    /// All of it: 0.
    Done,
    /// Some input was refused: 3.
    PartlyRefused,
    /// Some of it failed, and why was said: 1.
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

/// The exit status of wrong usage; clap's own.
pub(super) const USAGE_STATUS: u8 = 2;
/// The exit status when some input went in and some was refused.
pub(super) const PARTLY_REFUSED_STATUS: u8 = 3;

/// What errors are told apart by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ErrorKind {
    /// The command line says what cannot be done.
    Usage,
    /// What was asked for is not there.
    NotFound,
    /// The request, or the input, is not taken as it is.
    Refused,
    /// Nobody answers, or not now.
    Unreachable,
    /// A file, a pipe or a disk.
    Io,
    /// What must not happen.
    Internal,
}

/// Why a command stopped.
#[derive(Debug)]
pub(super) struct CliError {
    kind: ErrorKind,
    source: Box<dyn Error + Send + Sync>,
}

/// What goes wrong in commands themselves.
#[derive(Debug, ThisError)]
pub(super) enum Problem {
    /// An endpoint that is no address.
    #[error("endpoint '{endpoint}' {problem}; write it like http://127.0.0.1:50051 or 127.0.0.1:50051")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An option that only a page takes, with a file of ticks.
    #[error("{path}: {flag} is for ticker pages; every row of a file of ticks has its own", path = path.display())]
    PageOnly {
        /// The file.
        path: PathBuf,
        /// The option.
        flag: &'static str,
    },
    /// Nobody answers there.
    #[error(
        "cannot reach a silkrate server at {endpoint}: {problem}\n  start one with 'silkrate serve', or name another with --endpoint or SILKRATE_ENDPOINT"
    )]
    Unreachable {
        /// Where.
        endpoint: String,
        /// The innermost cause.
        problem: String,
    },
    /// The connection broke under a request.
    #[error("the connection to {endpoint} failed: {problem}\n  is it a silkrate server, and still running?")]
    Lost {
        /// Where.
        endpoint: String,
        /// The innermost cause.
        problem: String,
    },
    /// A stream without an end ended.
    #[error("{endpoint} ended the watch")]
    Ended {
        /// Where.
        endpoint: String,
    },
    /// Not even heartbeats came.
    #[error("nothing from {endpoint} for {} s", silence.as_secs())]
    Silent {
        /// Where.
        endpoint: String,
        /// Longer than it may be silent.
        silence: Duration,
    },
    /// No answer within `--timeout`.
    #[error("no answer from {endpoint} within {}; give it longer with --timeout", whole_length(duration_us(*timeout)))]
    Timeout {
        /// Where.
        endpoint: String,
        /// As asked for.
        timeout: Duration,
    },
    /// The server answered with an error.
    #[error("{}", describe(.0))]
    Status(Box<Status>),
    /// The server answered what the protocol does not allow.
    #[error("the server's answer is wrong: {0}; does its version fit this command's?")]
    Protocol(&'static str),
    /// A file that cannot be read.
    #[error("{path}: {problem}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: io::Error,
    },
    /// A page over the limit.
    #[error("{path}: over {limit_mib} MiB, too large for a ticker page; cut out the part with the ticker", path = path.display())]
    PageTooLarge {
        /// The file.
        path: PathBuf,
        /// In MiB.
        limit_mib: u64,
    },
    /// A CSV file without a usable header.
    #[error("{path}: {problem}", path = path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: TickCsvHeaderError,
    },
    /// An error that concerns one file.
    #[error("{path}: {problem}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong with it.
        problem: Box<CliError>,
    },
    /// The answer could not be written.
    #[error("cannot write the answer: {0}")]
    Output(io::Error),
    /// Parquet where only a stream is.
    #[error("Parquet is read from its end and cannot come through a pipe; save it to a file and name that")]
    ParquetPipe,
    /// An option that only ticks take, with a full export.
    #[error("{flag} is for ticks; a full export goes into an empty store as it is")]
    TicksOnly {
        /// The option.
        flag: &'static str,
    },
}

impl Problem {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Endpoint { .. } | Self::PageOnly { .. } | Self::TicksOnly { .. } => ErrorKind::Usage,
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
                Code::InvalidArgument
                | Code::OutOfRange
                | Code::FailedPrecondition
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::Unimplemented => ErrorKind::Refused,
                Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => ErrorKind::Internal,
            },
            Self::Protocol(_) => ErrorKind::Internal,
            Self::PageTooLarge { .. } | Self::Header { .. } | Self::ParquetPipe => ErrorKind::Refused,
            Self::Read { .. } | Self::Output(_) => ErrorKind::Io,
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
    /// An error of a kind.
    pub(super) fn new(kind: ErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, source: source.into() }
    }

    /// The exit status. A reader that went away, as `| head` does, is no failure.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self.kind {
            ErrorKind::Usage => ExitCode::from(USAGE_STATUS),
            ErrorKind::Io if self.is_closed_pipe() => ExitCode::SUCCESS,
            ErrorKind::NotFound | ErrorKind::Refused | ErrorKind::Unreachable | ErrorKind::Io | ErrorKind::Internal => {
                ExitCode::FAILURE
            }
        }
    }

    fn problem(&self) -> Option<&Problem> {
        self.source.downcast_ref()
    }

    /// What the server answered, if it did.
    fn status(&self) -> Option<&Status> {
        let problem = self.problem()?;
        if let Problem::File { problem, .. } = problem {
            return problem.status();
        }
        if let Problem::Status(status) = problem { Some(status) } else { None }
    }

    /// Whether the server misses the time at which a page showed its quotes, or doubts it.
    pub(super) fn is_about_observed_time(&self) -> bool {
        let details = self.status().map(Status::get_error_details);
        let is_about = |details: ErrorDetails| {
            let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
            violations.iter().any(|violation| violation.field == "observed_time")
        };
        details.is_some_and(is_about)
    }

    /// Whether asking again, later, would end the same way.
    pub(super) fn is_hopeless(&self) -> bool {
        match self.status() {
            Some(status) => matches!(status.code(), Code::InvalidArgument | Code::Unimplemented),
            None => self.kind != ErrorKind::Unreachable,
        }
    }

    /// Whether what was asked for is not there.
    pub(super) fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// When the server wants to be asked again.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.status()?.get_error_details().retry_info().and_then(|info| info.retry_delay)
    }

    /// Whether nobody is there to be told.
    pub(super) fn is_closed_pipe(&self) -> bool {
        matches!(self.problem(), Some(Problem::Output(problem)) if problem.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Whether it is of one input, which it names.
    pub(super) fn names_its_input(&self) -> bool {
        match self.problem() {
            Some(Problem::File { problem, .. }) => problem.names_its_input(),
            Some(
                Problem::Read { .. } | Problem::PageTooLarge { .. } | Problem::Header { .. } | Problem::ParquetPipe,
            ) => true,
            Some(_) => false,
            None => self.source.is::<ReadError>(),
        }
    }

    /// Whether the next file has no better chance than this one had.
    pub(super) fn stops_all(&self) -> bool {
        match self.status() {
            Some(status) => !matches!(
                status.code(),
                Code::InvalidArgument | Code::OutOfRange | Code::NotFound | Code::FailedPrecondition
            ),
            None => !self.names_its_input(),
        }
    }
}

/// The words at the bottom of a chain of errors: "connection refused" rather than "transport error".
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map(|cause| clean(&cause.to_string()).into_owned()).unwrap_or_default()
}

/// A status with its google.rpc details, a line each.
fn describe(status: &Status) -> String {
    let kind = match status.code() {
        Code::InvalidArgument => "invalid argument",
        Code::NotFound => "not found",
        Code::ResourceExhausted => "the server is busy",
        Code::Unavailable => "the server cannot serve this now",
        Code::DataLoss => "stored data is damaged",
        Code::DeadlineExceeded => "the server ran out of time",
        Code::OutOfRange => "out of range",
        Code::FailedPrecondition => "not possible as things stand",
        Code::Unimplemented => "the server does not know this request",
        Code::Cancelled => "the server gave up on this request",
        Code::Ok
        | Code::Unknown
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Aborted
        | Code::Internal
        | Code::Unauthenticated => "the server failed",
    };
    let mut lines = vec![match status.message() {
        "" => kind.to_owned(),
        message => format!("{kind}: {}", clean(message)),
    }];
    lines.extend(detail_lines(status.message(), &status.get_error_details()));
    lines.join("\n  ")
}

/// The details that the message does not say already.
fn detail_lines(message: &str, details: &ErrorDetails) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(bad_request) = details.bad_request() {
        let unsaid = bad_request.field_violations.iter().filter(|v| !message.contains(&v.description));
        lines.extend(unsaid.map(|v| format!("{}: {}", clean(&v.field), clean(&v.description))));
    }
    if let Some(info) = details.error_info() {
        lines.push(format!("reason: {}", clean(&info.reason)));
        let mut metadata: Vec<_> = info.metadata.iter().collect();
        metadata.sort();
        lines.extend(metadata.iter().map(|(key, value)| format!("{}: {}", clean(key), clean(value))));
    }
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
        let micros = duration_us(delay);
        lines.push(format!("try again in {}", super::text::length(micros)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn a_status_is_told_with_its_details() {
        let check = |status: Status, expect: &str| assert_eq!(describe(&status), expect);
        check(Status::not_found("no quote"), "not found: no quote");
        check(Status::internal(""), "the server failed");
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("pair", "'KGS' is not two currencies\u{1b}[2J");
        check(
            Status::with_error_details(Code::InvalidArgument, "bad request", details),
            "invalid argument: bad request\n  pair: 'KGS' is not two currencies\\u{1b}[2J",
        );
        // As the server writes it: once is enough.
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("end_time", "is before start_time");
        check(
            Status::with_error_details(Code::InvalidArgument, "end_time: is before start_time", details),
            "invalid argument: end_time: is before start_time",
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
    fn exit_statuses() {
        let check = |error: CliError, expect: ExitCode| assert_eq!(error.exit_code(), expect, "{error}");
        check(TimeArgumentError::Malformed("x".to_owned()).into(), ExitCode::from(2));
        check(Problem::Endpoint { endpoint: "x y".to_owned(), problem: "is no address" }.into(), ExitCode::from(2));
        check(Problem::Output(io::ErrorKind::BrokenPipe.into()).into(), ExitCode::SUCCESS);
        check(Problem::Output(io::ErrorKind::StorageFull.into()).into(), ExitCode::FAILURE);
        check(CliError::from(StoreError::Damaged { path: "x".to_owned(), problem: "y".to_owned() }), ExitCode::FAILURE);
        check(Problem::Status(Box::new(Status::not_found("x"))).into(), ExitCode::FAILURE);
        assert_eq!(ExitCode::from(Outcome::PartlyRefused), ExitCode::from(3));
    }
}
