//! Prints the latest rates, then each change as it is committed.
//!
//! ```sh
//! cargo run --example watch_latest
//! cargo run --example watch_latest -- http://127.0.0.1:50051 KGS/USD UZS/USD
//! ```
//!
//! If the connection breaks, the example reconnects with the last sequence that it saw, and misses no change.
//! Stop it with Ctrl-C.

use std::error::Error;
use std::time::Duration;

use silkrate::proto::v1::rate_service_client::RateServiceClient;
use silkrate::proto::v1::{WatchKind, WatchLatestRatesRequest};
use tokio::time::{sleep, timeout};

/// The server sends a message at least this often, so a longer silence means a lost connection.
const HEARTBEAT_S: i64 = 10;
const SILENCE_MAX: Duration = Duration::from_secs(15);
const RECONNECT_WAIT: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().unwrap_or_else(|| "http://127.0.0.1:50051".to_owned());
    let pairs: Vec<String> = arguments.collect();

    let mut since_sequence = 0;
    loop {
        match watch(&endpoint, &pairs, &mut since_sequence).await {
            Ok(()) => eprintln!("the server closed the stream"),
            Err(problem) => eprintln!("connection lost: {problem}"),
        }
        sleep(RECONNECT_WAIT).await;
    }
}

/// Prints messages until the stream ends. `since_sequence` is the newest sequence that was printed, 0 at first.
async fn watch(endpoint: &str, pairs: &[String], since_sequence: &mut u64) -> Result<(), Box<dyn Error>> {
    let mut client = RateServiceClient::connect(endpoint.to_owned()).await?;
    let request = WatchLatestRatesRequest {
        pairs: pairs.to_vec(),
        since_sequence: *since_sequence,
        heartbeat_interval: Some(prost_types::Duration { seconds: HEARTBEAT_S, nanos: 0 }),
        ..WatchLatestRatesRequest::default()
    };
    let mut messages = client.watch_latest_rates(request).await?.into_inner();
    while let Some(message) = timeout(SILENCE_MAX, messages.message()).await?? {
        *since_sequence = message.sequence;
        if message.kind() == WatchKind::Heartbeat {
            continue;
        }
        for latest in &message.rates {
            let run = latest.run.clone().unwrap_or_default();
            println!("{} {} {} {} {}", message.sequence, run.pair, run.source, run.rate, latest.state().as_str_name());
        }
    }
    Ok(())
}
