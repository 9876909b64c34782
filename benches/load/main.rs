//! The load client of the comparison with other databases and of the curves of cost: seeded quotes as files, and calls to
//! a server that already runs. `benches/peers/run` and `benches/growth/run` start it. Each command prints one line of
//! JSON.
//!
//! - `generate DIR --ticks N` writes `quotes` and `official`, each as `.csv` and as `.influx` (line protocol).
//! - `latest ADDR`, `as-of ADDR --ticks N` read for `--seconds S`; `as-of` checks each rate, unless quotes
//!   are `--revised`, and reads the data as known at the second of `--known`, if it is given.
//! - `ingest ADDR --batch 1000 --clients 4 --count N --from K [--messages]` stores `N` ticks from second `K` on.
//! - `tick ADDR --callers 64 --from K` stores one tick per call for `--seconds S`.
//! - `series ADDR` reads a whole series with `StreamRuns` and decodes it.
//! - `serve-bare ADDR` serves the latest rates of the server at `ADDR` as a fixed message, and `bare ADDR` reads it.
//! - `latest-all ADDR` reads the latest rates of all series.
//! - `spread ADDR --series N --count T` stores `T` ticks that are spread over `N` series.
//! - `revise ADDR --ticks N --count T --from K` replaces the rates of `T` of `N` quotes, after the first `K`.
//! - `page ADDR --ticks N` reads pages of 100 runs that end at random instants.
//! - `watch ADDR --watchers N --connections C` measures how long a change takes to reach all watchers. With `--pid P`, it
//!   also reads the resident memory of the server `P`.

#![allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "these are measurements, not rates")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "small seeded numbers"
)]

#[path = "../grpc/bare.rs"]
mod bare;

mod growth;
mod ingest;
mod plain_call;
mod quotes;
#[path = "../../tests/it/random/mod.rs"]
mod random;
mod reads;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::transport::Channel;

const USAGE: &str = "This is the load client of benches/peers/run and benches/growth/run. Start one of them instead.";

/// The arguments after the command and its first operand.
#[derive(Clone)]
struct Options(Vec<String>);

impl Options {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|argument| argument == name)
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        let at = self.0.iter().position(|argument| argument == name);
        at.map_or(default, |at| self.0[at + 1].parse().expect("a whole number"))
    }

    /// The number of calls at one time.
    fn callers(&self) -> usize {
        self.number("--callers", 16) as usize
    }

    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.number("--seconds", 2))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [command, operand, ..] = arguments.as_slice() else {
        println!("{USAGE}");
        return;
    };
    let options = Options(arguments[2..].to_vec());
    if command == "generate" {
        quotes::generate(Path::new(operand), options.number("--ticks", 2_000_000));
        return;
    }
    let address: SocketAddr = operand.parse().expect("an address such as 127.0.0.1:50051");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(options.number("--threads", 1) as usize)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        match command.as_str() {
            "latest" => reads::latest(address, &options).await,
            "latest-all" => reads::latest_all(address, &options).await,
            "bare" => reads::bare_latest(address, &options).await,
            "serve-bare" => reads::serve_bare(address).await,
            "as-of" => reads::as_of(address, &options).await,
            "page" => reads::page(address, &options).await,
            "series" => reads::series(address).await,
            "ingest" => ingest::ingest(address, &options).await,
            "tick" => ingest::tick(address, &options).await,
            "spread" => growth::spread(address, &options).await,
            "revise" => growth::revise(address, &options).await,
            "watch" => growth::watch(address, &options).await,
            _ => panic!("unknown command '{command}'. {USAGE}"),
        }
    });
}

async fn connect(address: SocketAddr) -> Channel {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.tcp_nodelay(true).connect().await.expect("a connection")
}

/// Calls from `callers` tasks until the deadline, and prints the rate and the latencies of the calls. `call` gets the
/// number of its caller, and the number of calls that this caller made before.
async fn measure<F>(callers: usize, deadline: Instant, call: impl Fn(usize, u64) -> F + Clone + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let call = call.clone();
            tokio::spawn(async move {
                let mut latencies_us = Vec::new();
                while Instant::now() < deadline {
                    let begun = Instant::now();
                    call(caller, latencies_us.len() as u64).await;
                    latencies_us.push(begun.elapsed().as_micros() as u64);
                }
                latencies_us
            })
        })
        .collect();
    let mut latencies_us = Vec::new();
    for task in tasks {
        latencies_us.extend(task.await.expect("no panic"));
    }
    let seconds = begun.elapsed().as_secs_f64();
    latencies_us.sort_unstable();
    let at = |percent: usize| latencies_us[(latencies_us.len() - 1) * percent / 100];
    let per_second = latencies_us.len() as f64 / seconds;
    println!("{{\"per_second\": {per_second:.1}, \"p50_us\": {}, \"p99_us\": {}}}", at(50), at(99));
}

async fn connections(address: SocketAddr, options: &Options) -> Arc<Vec<Channel>> {
    let mut channels = Vec::new();
    for _ in 0..options.number("--connections", 2) {
        channels.push(connect(address).await);
    }
    Arc::new(channels)
}
