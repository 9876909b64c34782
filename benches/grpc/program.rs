//! The server program with a large store: time until the first response, and memory.

use std::time::{Duration, Instant};

use silkrate::proto::v1;
use silkrate::proto::v1::rate_service_client::RateServiceClient;

use crate::client::runtime;
use crate::support::{filled, keys, parameter, report};

pub(crate) fn program() {
    let runs = parameter("SILKRATE_BENCH_RUNS", 10_000_000);
    let directory = filled(runs);
    let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let begun = Instant::now();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_silkrate"))
        .args(["serve", "--listen", &address.to_string(), "--http-listen", "none", "--reserve-mib", "0", "--db"])
        .arg(directory.path().join("db"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program");
    let memory = |what: &str| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("a running program");
        let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("a line of memory");
        line.trim().trim_end_matches("kB").trim().parse::<f64>().expect("kilobytes") / 1024.0
    };
    runtime().block_on(async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let channel = loop {
            assert!(begun.elapsed() < Duration::from_secs(30), "the program does not answer");
            match endpoint.connect().await {
                Ok(channel) => break channel,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let mut client = RateServiceClient::new(channel).max_decoding_message_size(64 << 20);
        let latest = client.get_latest_rates(v1::GetLatestRatesRequest::default()).await.expect("a response");
        assert_eq!(latest.into_inner().rates.len(), 5);
        report(&format!("start with {runs} runs until the first response"), begun.elapsed().as_secs_f64(), "s", "< 2");
        report("resident memory after start", memory("VmRSS:"), "MB", "< 250");
        for _ in 0..2 {
            for key in keys() {
                let request = v1::StreamRunsRequest {
                    pair: key.pair.to_string(),
                    source: key.source.to_string(),
                    ..Default::default()
                };
                let mut responses = client.stream_runs(request).await.expect("a stream").into_inner();
                while responses.message().await.expect("a message").is_some() {}
            }
        }
        report("peak of resident memory while reading everything twice", memory("VmHWM:"), "MB", "< 250");
    });
    child.kill().and_then(|()| child.wait()).expect("an end");
}
