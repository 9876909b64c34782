//! Floods of HTTP/2 frames by one client: other clients are served, and the memory of the server stays small.

use std::fs;
use std::time::Duration;

use silkrate::proto::v1;
use silkrate::proto::v1::rate_service_client::RateServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::Endpoint;

use crate::cli::serve::{Serving, serve};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames (RFC 9113).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// Frames of one flood.
const FRAMES: u32 = 20_000;
/// The memory that a server with an empty store may take during a flood.
const RESIDENT_KIB_MAX: u64 = 200 * 1_024;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a gRPC call, by the static table of HPACK (RFC 7541) and literals.
fn call_headers() -> Vec<u8> {
    let path = b"/silkrate.v1.RateService/GetLatestRates";
    let mut block = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path);
    block.extend(b"\x01\x01a\x0f\x10\x10application/grpc\x00\x02te\x08trailers");
    block
}

/// Returns the frames of a flood for a number that counts up.
fn flood(kind: &str, number: u32) -> Vec<u8> {
    let stream = number * 2 + 1;
    let begin = || frame(HEADERS, END_HEADERS, stream, &call_headers());
    match kind {
        "rapid reset" => [begin(), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat(),
        // The server resets the stream because of the increment 0.
        "made you reset" => [begin(), frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes())].concat(),
        "settings" => frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
        "ping" => frame(PING, 0, 0, &[7; 8]),
        "priority" => frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 16]),
        "window update" => frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
        "continuation" if number == 0 => frame(HEADERS, 0, 1, &call_headers()),
        "continuation" => frame(CONTINUATION, 0, 1, &[0; 1_024]),
        "empty data" if number == 0 => frame(HEADERS, END_HEADERS, 1, &call_headers()),
        "empty data" => frame(DATA, 0, 1, &[]),
        other => unreachable!("{other}"),
    }
}

#[tokio::test]
async fn floods_of_frames_leave_other_clients_served_and_memory_small() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(serve(&dir.path().join("db")));
    let address = serving.log.concat().split("serving on ").nth(1).unwrap().trim().to_owned();
    let other = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let floods = [
        "rapid reset",
        "made you reset",
        "settings",
        "ping",
        "priority",
        "window update",
        "continuation",
        "empty data",
    ];
    for kind in floods {
        let stream = TcpStream::connect(&address).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        // Reads what the server sends, so that it is not the unread answers that slow the flood down.
        let reading = tokio::spawn(async move {
            let mut sink = [0; 1 << 12];
            while read.read(&mut sink).await.is_ok_and(|length| length > 0) {}
        });
        let flooding = tokio::spawn(async move {
            let _ = write.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
            for number in 0..FRAMES {
                // The server may end the connection.
                if write.write_all(&flood(kind, number)).await.is_err() {
                    return number;
                }
            }
            FRAMES
        });
        let mut calls = 0;
        while !flooding.is_finished() {
            let latest = RateServiceClient::new(other.clone());
            let call = async { latest.clone().get_latest_rates(v1::GetLatestRatesRequest::default()).await };
            timeout(Duration::from_secs(10), call).await.unwrap_or_else(|_| panic!("{kind}: no answer")).unwrap();
            calls += 1;
            // A flood that the server does not read must not last for ever.
            if calls > 100_000 {
                break;
            }
        }
        flooding.abort();
        reading.abort();
        let latest = RateServiceClient::new(other.clone()).get_latest_rates(v1::GetLatestRatesRequest::default()).await;
        assert!(latest.is_ok(), "{kind}: {latest:?}");
        let status = fs::read_to_string(format!("/proc/{}/status", serving.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak < RESIDENT_KIB_MAX, "{kind}: {peak} KiB");
    }
}
