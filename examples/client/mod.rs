//! What the example clients share: the option `--endpoint`, their errors and their exit status.

use std::io;
use std::process::ExitCode;

use clap::Args;
use silkrate::causes::causes;
use thiserror::Error;
use tonic::{Status, transport};

/// The option for the address of the server.
#[derive(Debug, Args)]
pub(crate) struct Server {
    /// Server address: http://host:port or host:port
    #[arg(long, value_name = "URL", env = "SILKRATE_ENDPOINT", default_value = "http://127.0.0.1:50051")]
    endpoint: String,
}

impl Server {
    /// Returns the address as a URL.
    pub(crate) fn url(&self) -> String {
        if self.endpoint.contains("://") { self.endpoint.clone() } else { format!("http://{}", self.endpoint) }
    }
}

/// The reason why a call or the output of its answer failed.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// The message of a transport error is in its innermost cause.
    #[error("cannot connect: {}", causes(.0).last().map_or_else(String::new, ToString::to_string))]
    Connect(#[from] transport::Error),
    #[error("{}", .0.message())]
    Call(#[from] Status),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Prints an error and returns the exit status. A closed standard output counts as success: its reader, such as `head`,
/// needs no more.
pub(crate) fn finish(result: Result<(), ClientError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(ClientError::Output(problem)) if problem.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}
