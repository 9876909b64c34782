//! Polls of the latest rates: with a complete response, and with an unchanged sequence.

use bytes::Bytes;
use silkrate::proto::v1;
use silkrate::proto::v1::rate_service_client::RateServiceClient;

use crate::bare;
use crate::client::{calls_per_second, connect, message, runtime, ticks};
use crate::server::TestServer;
use crate::support::{ROUNDS, keys, median, parameter, report};

pub(crate) fn latest() {
    let runtime = runtime();
    runtime.block_on(async {
        let server = TestServer::start(&[]).await;
        let batch: Vec<v1::Tick> =
            keys().iter().flat_map(|key| ticks(1, 20).into_iter().map(|(t, v)| message(key, t, v))).collect();
        server.store(&batch).await;
        let channel = connect(server.addr).await;
        let response = RateServiceClient::new(channel.clone())
            .get_latest_rates(v1::GetLatestRatesRequest::default())
            .await
            .expect("a response")
            .into_inner();
        assert_eq!(response.rates.len(), 5);
        let size = prost::Message::encoded_len(&response);
        // One baseline sends as many bytes as the response has, and the client does not decode them. The other baseline
        // sends the response itself, and the client decodes it.
        let blob = bare::Blob { bytes: Bytes::from(vec![7; size - 3]) };
        let bytes = connect(bare::serve(blob).await).await;
        let same = connect(bare::serve(response.clone()).await).await;
        let calls = parameter("SILKRATE_BENCH_CALLS", 60_000) as usize;
        let mut speeds: [Vec<f64>; 4] = Default::default();
        for _ in 0..ROUNDS {
            let channel = bytes.clone();
            let call = move || {
                let channel = channel.clone();
                async move {
                    let blob: bare::Blob = bare::call(&channel, Bytes::new()).await;
                    assert_eq!(blob.bytes.len(), size - 3);
                }
            };
            speeds[0].push(calls_per_second(16, calls, call).await);
            let channel = same.clone();
            let call = move || {
                let channel = channel.clone();
                async move {
                    let response: v1::GetLatestRatesResponse = bare::call(&channel, Bytes::new()).await;
                    assert_eq!(response.rates.len(), 5);
                }
            };
            speeds[1].push(calls_per_second(16, calls, call).await);
            for (since, count, at) in [(0, 5, 2), (response.sequence, 0, 3)] {
                let client = RateServiceClient::new(connect(server.addr).await);
                let request = v1::GetLatestRatesRequest { since_sequence: since, ..Default::default() };
                let call = move || {
                    let (mut client, request) = (client.clone(), request.clone());
                    async move {
                        let polled = client.get_latest_rates(request).await.expect("a response").into_inner();
                        assert_eq!(polled.rates.len(), count);
                    }
                };
                speeds[at].push(calls_per_second(16, calls, call).await);
            }
        }
        let [bytes, same, served, unchanged] = speeds.map(median);
        report(&format!("bare service, {size} undecoded bytes, 16 concurrent calls"), bytes, "calls/s", "-");
        report("bare service, response with the latest rates, decoded", same, "calls/s", "-");
        report("latest rates, complete response", served, "calls/s", "-");
        report("latest rates, ratio to the bare service with the decoded response", served / same, "times", ">= 0.85");
        report("latest rates, ratio to the bare service with undecoded bytes", served / bytes, "times", ">= 0.85");
        report(
            "unchanged sequence, ratio to the bare service with undecoded bytes",
            unchanged / bytes,
            "times",
            ">= 0.9",
        );
        server.stop().await;
    });
}
