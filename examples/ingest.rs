//! Sends one tick to a server and prints the result.
//!
//! ```sh
//! cargo run --example ingest -- KGS/USD my-source 0.01144
//! cargo run --example ingest -- KGS/USD my-source 0.01144 --endpoint http://127.0.0.1:50051
//! ```
//!
//! The variable `SILKRATE_ENDPOINT` has the same effect as `--endpoint`. The observed time is the current time. The
//! server responds after the tick is durable. If the tick is refused or held, the response says why.

mod client;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use silkrate::clock::{Clock as _, SystemClock};
use silkrate::proto::convert::timestamp;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;
use silkrate::proto::v1::{IngestTicksRequest, Tick};

use client::{ClientError, Server, finish};

/// Sends one tick to a server
#[derive(Debug, Parser)]
struct Arguments {
    /// Pair as BASE/QUOTE, like KGS/USD
    pair: String,
    /// Source of the tick: a-z, 0-9 and -
    source: String,
    /// Rate, with its digits as published
    rate: String,
    #[command(flatten)]
    server: Server,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    finish(send_tick(Arguments::parse()).await)
}

async fn send_tick(arguments: Arguments) -> Result<(), ClientError> {
    let mut client = IngestServiceClient::connect(arguments.server.url()).await?;
    let tick = Tick {
        pair: arguments.pair,
        source: arguments.source,
        // A rate is text, so that its digits arrive as published.
        rate: arguments.rate,
        observed_time: Some(timestamp(SystemClock.now())),
        reported_change_percent: None,
    };
    let request = IngestTicksRequest { ticks: vec![tick], ..IngestTicksRequest::default() };
    let response = client.ingest_ticks(request).await?.into_inner();

    let mut stdout = io::stdout();
    for refusal in &response.refusals {
        writeln!(stdout, "refused: {}", refusal.message)?;
    }
    for held in &response.held_ticks {
        writeln!(stdout, "held as {}: the rate in force is {}", held.id(), held.rate_in_force)?;
    }
    let summary = response.summary.unwrap_or_default();
    writeln!(
        stdout,
        "sequence {}: {} new runs, {} collapsed, {} known",
        response.sequence, summary.new_run_count, summary.collapsed_count, summary.known_count
    )?;
    Ok(())
}
