//! `StreamRuns` of a long history.

use std::time::Instant;

use silkrate::columns::decode_runs;
use silkrate::proto::v1;
use silkrate::proto::v1::rate_service_client::RateServiceClient;

use crate::client::{connect, runtime};
use crate::server::TestServer;
use crate::support::{ROUNDS, filled, keys, median, parameter, per_second, report};

pub(crate) fn stream() {
    let runs = parameter("SILKRATE_BENCH_RUNS", 10_000_000);
    let directory = filled(runs);
    let runtime = runtime();
    runtime.block_on(async {
        let server = TestServer::start_with_store(directory, &[]).await;
        let mut client = RateServiceClient::new(connect(server.addr).await).max_decoding_message_size(64 << 20);
        let mut speeds = Vec::new();
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let mut read = 0;
            for key in keys() {
                let request = v1::StreamRunsRequest {
                    pair: key.pair.to_string(),
                    source: key.source.to_string(),
                    ..Default::default()
                };
                let mut responses = client.stream_runs(request).await.expect("a stream").into_inner();
                while let Some(response) = responses.message().await.expect("a message") {
                    let decoded = decode_runs(&response).expect("valid columns");
                    assert_eq!(decoded.len(), response.run_count as usize);
                    read += decoded.len() as u64;
                }
            }
            speeds.push(per_second(read, begun.elapsed()));
            assert!(read * 100 >= runs * 95, "only {read} of about {runs} runs were read");
        }
        report(&format!("StreamRuns of {runs} runs, decoded"), median(speeds), "runs/s", ">= 5,000,000");
        server.stop().await;
    });
}
