//! Prints the history of a pair: its runs, oldest first, page by page.
//!
//! ```sh
//! cargo run --example history -- USD/UZS
//! cargo run --example history -- USD/UZS cbu --endpoint http://127.0.0.1:50051
//! ```
//!
//! The variable `SILKRATE_ENDPOINT` has the same effect as `--endpoint`. All pages come from one commit, which the page
//! token names.

mod client;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use silkrate::proto::v1::ListRunsRequest;
use silkrate::proto::v1::rate_service_client::RateServiceClient;

use client::{ClientError, Server, finish};

const PAGE_RUNS: i32 = 1_000;

/// Prints the history of a pair
#[derive(Debug, Parser)]
struct Arguments {
    /// Pair as BASE/QUOTE, like USD/UZS
    pair: String,
    /// Source of the rates; default the source that the server prefers
    #[arg(default_value = "", hide_default_value = true)]
    source: String,
    #[command(flatten)]
    server: Server,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    finish(print_history(Arguments::parse()).await)
}

async fn print_history(arguments: Arguments) -> Result<(), ClientError> {
    let mut client = RateServiceClient::connect(arguments.server.url()).await?;
    let mut request = ListRunsRequest {
        pair: arguments.pair,
        source: arguments.source,
        page_size: PAGE_RUNS,
        ..ListRunsRequest::default()
    };
    let mut stdout = io::stdout();
    loop {
        let page = client.list_runs(request.clone()).await?.into_inner();
        for run in &page.runs {
            let first = run.first_observed_time.unwrap_or_default();
            let last = run.last_observed_time.unwrap_or_default();
            writeln!(
                stdout,
                "{} {} {} from {first} to {last}, {} observations",
                run.pair, run.source, run.rate, run.observation_count
            )?;
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}
