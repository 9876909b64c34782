//! Prints the history of a pair: its runs, oldest first, page by page.
//!
//! ```sh
//! cargo run --example history -- USD/UZS
//! cargo run --example history -- USD/UZS cbu http://127.0.0.1:50051
//! ```
//!
//! All pages come from one commit, which the page token names.

use std::error::Error;

use silkrate::proto::v1::ListRunsRequest;
use silkrate::proto::v1::rate_service_client::RateServiceClient;

const PAGE_RUNS: i32 = 1_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(pair) = arguments.next() else { return Err("usage: history PAIR [SOURCE] [ENDPOINT]".into()) };
    // An empty source selects the preferred source.
    let source = arguments.next().unwrap_or_default();
    let endpoint = arguments.next().unwrap_or_else(|| "http://127.0.0.1:50051".to_owned());

    let mut client = RateServiceClient::connect(endpoint).await?;
    let mut request = ListRunsRequest { pair, source, page_size: PAGE_RUNS, ..ListRunsRequest::default() };
    loop {
        let page = client.list_runs(request.clone()).await?.into_inner();
        for run in &page.runs {
            let first = run.first_observed_time.unwrap_or_default();
            let last = run.last_observed_time.unwrap_or_default();
            println!(
                "{} {} {} from {first} to {last}, {} observations",
                run.pair, run.source, run.rate, run.observation_count
            );
        }
        if page.next_page_token.is_empty() {
            return Ok(());
        }
        request.page_token = page.next_page_token;
    }
}
