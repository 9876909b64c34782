//! Plain HTTP over loopback, including the client: the latest quotes, and conditional requests with an unchanged
//! response.
//!
//! `cargo bench --bench http`.

#![allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "these are measurements, not rates")]

mod support;

#[path = "../tests/it/support/mod.rs"]
mod server;
#[path = "../tests/it/web/mod.rs"]
mod web;

use std::net::SocketAddr;
use std::time::Instant;

use server::{TestServer, tick};
use support::{ROUNDS, median, parameter, per_second, report};
use web::Connection;

const CONNECTIONS: u64 = 16;

/// Sends requests for `target` on [`CONNECTIONS`] connections, and checks that every response has the status `status`.
/// Returns the number of requests per second.
async fn requests_per_second(address: SocketAddr, target: &'static str, tag: &str, status: u16, requests: u64) -> f64 {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let tag = tag.to_owned();
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                for _ in 0..requests / CONNECTIONS {
                    let response = connection.get(target, &[("if-none-match", &tag)]).await;
                    assert_eq!(response.status, status);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    per_second(requests, begun.elapsed())
}

fn main() {
    let requests = parameter("SILKRATE_BENCH_CALLS", 60_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let server = TestServer::start(&[]).await;
        let pairs = ["KGS/USD", "KZT/USD", "TJS/USD", "TMT/USD", "UZS/USD"];
        server.store(&pairs.map(|pair| tick(pair, 0, "0.01144"))).await;
        let targets = [("/v1/latest", "GET /v1/latest"), ("/v1/rate?pair=KGS/KZT", "GET /v1/rate of a cross rate")];
        for (target, what) in targets {
            let tag = web::get(server.http_addr, target).await.header("etag").expect("a tag").to_owned();
            let (mut complete, mut unchanged) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                complete.push(requests_per_second(server.http_addr, target, "", 200, requests).await);
                unchanged.push(requests_per_second(server.http_addr, target, &tag, 304, requests).await);
            }
            report(what, median(complete), "requests/s", ">= 10,000");
            report(&format!("{what}, unchanged"), median(unchanged), "requests/s", ">= 10,000");
        }
        server.stop().await;
    });
}
