//! Prints the latest rates, then each change as it is committed.
//!
//! ```sh
//! cargo run --example watch_latest
//! cargo run --example watch_latest -- KGS/USD UZS/USD --endpoint http://127.0.0.1:50051
//! ```
//!
//! The variable `SILKRATE_ENDPOINT` has the same effect as `--endpoint`. If the connection breaks, the example reconnects
//! with the last sequence that it saw, and misses no change. Stop it with Ctrl-C.

mod client;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use silkrate::proto::v1::rate_service_client::RateServiceClient;
use silkrate::proto::v1::{WatchKind, WatchLatestRatesRequest};
use tokio::time::{sleep, timeout};
use tonic::Code;

use client::{ClientError, Server, finish};

/// The server sends a message at least this often, so a longer silence means a lost connection.
const HEARTBEAT_S: i64 = 10;
const SILENCE_MAX: Duration = Duration::from_secs(15);
const RECONNECT_WAIT: Duration = Duration::from_secs(2);

/// Prints the latest rates, then each change
#[derive(Debug, Parser)]
struct Arguments {
    /// Pairs as BASE/QUOTE, like KGS/USD; default all
    #[arg(value_name = "PAIR")]
    pairs: Vec<String>,
    #[command(flatten)]
    server: Server,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    finish(watch_and_reconnect(&Arguments::parse()).await)
}

/// Watches and reconnects, until the output fails or the server refuses the request.
async fn watch_and_reconnect(arguments: &Arguments) -> Result<(), ClientError> {
    let mut since_sequence = 0;
    loop {
        match watch(arguments, &mut since_sequence).await {
            Ok(()) => eprintln!("the server closed the stream, or sent nothing for {} s", SILENCE_MAX.as_secs()),
            Err(problem @ ClientError::Output(_)) => return Err(problem),
            Err(ClientError::Call(status)) if status.code() == Code::InvalidArgument => return Err(status.into()),
            Err(problem) => eprintln!("connection lost: {problem}"),
        }
        sleep(RECONNECT_WAIT).await;
    }
}

/// Prints messages until the stream ends. `since_sequence` is the newest sequence that was printed, 0 at first.
async fn watch(arguments: &Arguments, since_sequence: &mut u64) -> Result<(), ClientError> {
    let mut client = RateServiceClient::connect(arguments.server.url()).await?;
    let request = WatchLatestRatesRequest {
        pairs: arguments.pairs.clone(),
        since_sequence: *since_sequence,
        heartbeat_interval: Some(prost_types::Duration { seconds: HEARTBEAT_S, nanos: 0 }),
        ..WatchLatestRatesRequest::default()
    };
    let mut messages = client.watch_latest_rates(request).await?.into_inner();
    let mut stdout = io::stdout();
    while let Ok(message) = timeout(SILENCE_MAX, messages.message()).await {
        let Some(message) = message? else { break };
        for latest in message.rates.iter().filter(|_| message.kind() != WatchKind::Heartbeat) {
            let run = latest.run.clone().unwrap_or_default();
            let state = latest.state().as_str_name();
            writeln!(stdout, "{} {} {} {} {state}", message.sequence, run.pair, run.source, run.rate)?;
        }
        *since_sequence = message.sequence;
    }
    Ok(())
}
