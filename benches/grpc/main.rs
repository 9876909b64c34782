//! The gRPC services over loopback, including the clients, compared with bare services in the same run. Each file
//! answers one question.
//!
//! `cargo bench --bench grpc [-- program|latest|watch|ingest|single|stream|point|late]`.

#![allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "these are measurements, not rates")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "small seeded numbers"
)]

mod bare;
mod client;
mod ingest;
mod late;
mod latest;
mod point;
mod program;
mod single;
mod stream;
mod watch;

#[path = "../support/mod.rs"]
mod support;

#[path = "../../tests/it/support/mod.rs"]
mod server;

use support::is_selected;

fn main() {
    let parts: [(&str, fn()); 8] = [
        ("program", program::program),
        ("latest", latest::latest),
        ("watch", watch::watch),
        ("ingest", ingest::ingest),
        ("single", single::single),
        ("stream", stream::stream),
        ("point", point::point),
        ("late", late::late),
    ];
    for (name, part) in parts {
        if is_selected(name) {
            println!("# {name}");
            part();
        }
    }
}
