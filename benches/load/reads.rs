//! Clients that read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use silkrate::columns::decode_runs;
use silkrate::proto::v1;
use silkrate::proto::v1::rate_service_client::RateServiceClient;

use crate::plain_call::plain_connections;
use crate::quotes::{Mantissas, PAIRS, QUOTES_START_S, rate_text};
use crate::random::Random;
use crate::{Options, bare, connect, connections, measure};

/// Reads the latest rates of the five pairs.
pub(crate) async fn latest(address: SocketAddr, options: &Options) {
    let clients = plain_connections(address, options).await;
    measure(options.callers(), options.deadline(), move |caller, _| {
        let client = clients[caller % clients.len()].clone();
        async move {
            let request = v1::GetLatestRatesRequest { sources: vec!["quotes".to_owned()], ..Default::default() };
            let path = "/silkrate.v1.RateService/GetLatestRates";
            let response: v1::GetLatestRatesResponse = client.call(path, &request).await;
            assert_eq!(response.rates.len(), PAIRS.len());
        }
    })
    .await;
}

/// Reads the latest rates of all series.
pub(crate) async fn latest_all(address: SocketAddr, options: &Options) {
    let clients = plain_connections(address, options).await;
    measure(options.callers(), options.deadline(), move |caller, _| {
        let client = clients[caller % clients.len()].clone();
        async move {
            let request = v1::GetLatestRatesRequest::default();
            let path = "/silkrate.v1.RateService/GetLatestRates";
            let response: v1::GetLatestRatesResponse = client.call(path, &request).await;
            assert!(response.rates.len() >= PAIRS.len());
        }
    })
    .await;
}

pub(crate) async fn serve_bare(address: SocketAddr) {
    let mut client = RateServiceClient::new(connect(address).await);
    let request = v1::GetLatestRatesRequest { sources: vec!["quotes".to_owned()], ..Default::default() };
    let response = client.get_latest_rates(request).await.expect("a response").into_inner();
    println!("{}", bare::serve(response).await);
    std::future::pending::<()>().await;
}

pub(crate) async fn bare_latest(address: SocketAddr, options: &Options) {
    let channels = connections(address, options).await;
    measure(options.callers(), options.deadline(), move |caller, _| {
        let channel = channels[caller % channels.len()].clone();
        async move {
            let response: v1::GetLatestRatesResponse = bare::call(&channel, Bytes::from_static(b"quotes")).await;
            assert_eq!(response.rates.len(), PAIRS.len());
        }
    })
    .await;
}

/// A random pair, and a random second in the time of the quotes.
fn random_instant(options: &Options, caller: usize, call: u64) -> (usize, u64) {
    let mut random = Random(options.number("--seed", 1) ^ ((caller as u64) << 48 | call << 8));
    let seconds = options.number("--ticks", 2_000_000) / PAIRS.len() as u64;
    (random.below(PAIRS.len() as u64) as usize, random.below(seconds))
}

fn half_a_second_after(second: u64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: QUOTES_START_S + second as i64, nanos: 500_000_000 }
}

/// Reads the rate of a random pair at a random instant, and checks it.
pub(crate) async fn as_of(address: SocketAddr, options: &Options) {
    let seconds = options.number("--ticks", 2_000_000) / PAIRS.len() as u64;
    let quotes: Vec<Vec<u32>> = (1..=PAIRS.len() as u64)
        .map(|seed| Mantissas::new(seed).take(seconds as usize).map(|mantissa| mantissa as u32).collect())
        .collect();
    let quotes = Arc::new(quotes);
    let clients = plain_connections(address, options).await;
    let known_s = options.number("--known", 0) as i64;
    let known_time = (known_s > 0).then_some(prost_types::Timestamp { seconds: known_s, nanos: 0 });
    let shared = options.clone();
    measure(options.callers(), options.deadline(), move |caller, call| {
        let (pair, second) = random_instant(&shared, caller, call);
        let request = v1::GetRateRequest {
            pair: PAIRS[pair].to_owned(),
            source: "quotes".to_owned(),
            time: Some(half_a_second_after(second)),
            known_time,
            ..Default::default()
        };
        let expected = u64::from(quotes[pair][second as usize]);
        let client = clients[caller % clients.len()].clone();
        let is_revised = shared.has("--revised");
        async move {
            let response: v1::GetRateResponse = client.call("/silkrate.v1.RateService/GetRate", &request).await;
            assert!(is_revised || response.rate == rate_text(expected), "{request:?}: {response:?}");
        }
    })
    .await;
}

/// Reads pages of runs that end at random instants.
pub(crate) async fn page(address: SocketAddr, options: &Options) {
    const PAGE_RUNS: i32 = 100;
    let clients = plain_connections(address, options).await;
    let shared = options.clone();
    measure(options.callers(), options.deadline(), move |caller, call| {
        let (pair, second) = random_instant(&shared, caller, call);
        let request = v1::ListRunsRequest {
            pair: PAIRS[pair].to_owned(),
            source: "quotes".to_owned(),
            end_time: Some(half_a_second_after(second)),
            page_size: PAGE_RUNS,
            descending: true,
            ..Default::default()
        };
        let client = clients[caller % clients.len()].clone();
        async move {
            let response: v1::ListRunsResponse = client.call("/silkrate.v1.RateService/ListRuns", &request).await;
            assert!(!response.runs.is_empty(), "{request:?}");
        }
    })
    .await;
}

pub(crate) async fn series(address: SocketAddr) {
    let mut client = RateServiceClient::new(connect(address).await).max_decoding_message_size(64 << 20);
    let request =
        v1::StreamRunsRequest { pair: PAIRS[0].to_owned(), source: "quotes".to_owned(), ..Default::default() };
    let begun = Instant::now();
    let mut responses = client.stream_runs(request).await.expect("a stream").into_inner();
    let (mut runs, mut ticks) = (0, 0);
    while let Some(response) = responses.message().await.expect("a message") {
        for run in decode_runs(&response).expect("valid columns") {
            runs += 1;
            ticks += run.observation_count;
        }
    }
    println!("{{\"seconds\": {:.6}, \"runs\": {runs}, \"ticks\": {ticks}}}", begun.elapsed().as_secs_f64());
}
