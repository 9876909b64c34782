//! Sends one tick to a server and prints the result.
//!
//! ```sh
//! cargo run --example ingest -- KGS/USD my-source 0.01144
//! cargo run --example ingest -- KGS/USD my-source 0.01144 http://127.0.0.1:50051
//! ```
//!
//! The observed time is the current time. The server responds after the tick is durable. If the tick is refused or
//! held, the response says why.

use std::error::Error;

use silkrate::clock::{Clock as _, SystemClock};
use silkrate::proto::convert::timestamp;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;
use silkrate::proto::v1::{IngestTicksRequest, Tick};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(pair), Some(source), Some(rate)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: ingest PAIR SOURCE RATE [ENDPOINT]".into());
    };
    let endpoint = arguments.next().unwrap_or_else(|| "http://127.0.0.1:50051".to_owned());

    let mut client = IngestServiceClient::connect(endpoint).await?;
    // A rate is text, so that its digits arrive as published.
    let tick =
        Tick { pair, source, rate, observed_time: Some(timestamp(SystemClock.now())), reported_change_percent: None };
    let request = IngestTicksRequest { ticks: vec![tick], ..IngestTicksRequest::default() };
    let response = client.ingest_ticks(request).await?.into_inner();

    for refusal in &response.refusals {
        println!("refused: {}", refusal.message);
    }
    for held in &response.held_ticks {
        println!("held as {}: the rate in force is {}", held.id(), held.rate_in_force);
    }
    let summary = response.summary.unwrap_or_default();
    println!(
        "sequence {}: {} new runs, {} collapsed, {} known",
        response.sequence, summary.new_run_count, summary.collapsed_count, summary.known_count
    );
    Ok(())
}
