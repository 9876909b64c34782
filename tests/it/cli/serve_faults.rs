//! A server with a disk that fails or stalls: writes return errors, reads still work, and calls in progress are
//! completed.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use silkrate::proto::v1;
use silkrate::proto::v1::QuarantineOutcome as Outcome;
use silkrate::store::{DiskFault, DiskOperation};
use tokio::time::sleep;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::support::{TestServer, tick};

fn request(pair: &str, seconds: i64) -> v1::IngestTicksRequest {
    v1::IngestTicksRequest { ticks: vec![tick(pair, seconds, "0.01144")], ..Default::default() }
}

async fn rate_count(server: &TestServer) -> usize {
    server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap().into_inner().rates.len()
}

#[track_caller]
fn assert_retry(status: &Status, code: Code, part: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(part), "{}", status.message());
    assert!(status.get_error_details().retry_info().is_some_and(|retry| retry.retry_delay.is_some()), "{status:?}");
}

/// Returns a disk fault that is active while `broken` is true.
fn failing(broken: &Arc<AtomicBool>) -> DiskFault {
    let switch = Arc::clone(broken);
    Arc::new(move |operation| match operation {
        DiskOperation::Sync if switch.load(Ordering::SeqCst) => Err(io::Error::other("injected disk fault")),
        DiskOperation::Write | DiskOperation::Flush | DiskOperation::Sync => Ok(()),
    })
}

#[tokio::test]
async fn failed_sync_makes_writes_unavailable_and_leaves_reads_available() {
    let broken = Arc::new(AtomicBool::new(false));
    let server = TestServer::start_with_fault(failing(&broken), &[]).await;
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;

    broken.store(true, Ordering::SeqCst);
    let failed = server.ingest().ingest_ticks(request("KZT/USD", -60)).await.unwrap_err();
    assert_retry(&failed, Code::Unavailable, "injected disk fault");
    broken.store(false, Ordering::SeqCst);
    let later = server.ingest().ingest_ticks(request("TJS/USD", -60)).await.unwrap_err();
    assert_retry(&later, Code::Unavailable, "restart the server");
    assert_eq!(rate_count(&server).await, 1);

    let mut health = HealthClient::new(server.channel.clone());
    let mut status = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        health.check(request).await.unwrap().into_inner().status()
    };
    while status("silkrate.v1.IngestService").await == ServingStatus::Serving {
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(status("silkrate.v1.RateService").await, ServingStatus::Serving);
    assert_eq!(status("").await, ServingStatus::Serving);

    let (_dir, shutdown) = server.begin_stop();
    let ended = shutdown.await.unwrap().0.unwrap_err();
    assert!(ended.to_string().contains("injected disk fault"), "the server must end with the disk error: {ended}");
}

/// A disk that blocks while `active` is true.
#[derive(Default)]
struct Stall {
    active: Mutex<bool>,
    changed: Condvar,
    /// True after the writer has blocked.
    blocked: AtomicBool,
}

impl Stall {
    fn set_active(&self, active: bool) {
        *self.active.lock().unwrap() = active;
        self.changed.notify_all();
    }

    /// Waits until the writer blocks.
    async fn wait(&self) {
        while !self.blocked.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(2)).await;
        }
    }

    fn fault(self: &Arc<Self>) -> DiskFault {
        let stall = Arc::clone(self);
        Arc::new(move |_| {
            let active = stall.active.lock().unwrap();
            stall.blocked.fetch_or(*active, Ordering::SeqCst);
            drop(stall.changed.wait_while(active, |active| *active).unwrap());
            Ok(())
        })
    }
}

#[tokio::test]
async fn full_queue_refuses_with_retry_info_and_completes_waiting_calls() {
    let stall = Arc::new(Stall::default());
    let server = TestServer::start_with_fault(stall.fault(), &["--queue-batches", "1"]).await;
    server.store(&[tick("KGS/USD", -100, "0.01144")]).await;
    stall.set_active(true);
    let call = |n: i64| {
        let mut client = server.ingest();
        tokio::spawn(async move { client.ingest_ticks(request("KGS/USD", n - 90)).await })
    };
    let mut calls = vec![call(0)];
    stall.wait().await;
    calls.extend((1..8).map(call));
    // One call is being written and one waits; all others are refused immediately.
    while calls.iter().filter(|call| call.is_finished()).count() < 6 {
        sleep(Duration::from_millis(5)).await;
    }
    stall.set_active(false);
    let mut stored = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => stored += 1,
            Err(status) => assert_retry(&status, Code::ResourceExhausted, "queue is full"),
        }
    }
    assert_eq!(stored, 2);
}

#[tokio::test]
async fn call_in_progress_at_shutdown_is_completed() {
    let stall = Arc::new(Stall::default());
    let server = TestServer::start_with_fault(stall.fault(), &[]).await;
    server.store(&[tick("KGS/USD", -100, "0.01144")]).await;
    stall.set_active(true);
    let mut client = server.ingest();
    let call = tokio::spawn(async move { client.ingest_ticks(request("KGS/USD", -90)).await });
    stall.wait().await;
    let (_dir, shutdown) = server.begin_stop();
    sleep(Duration::from_millis(100)).await;
    assert!(!call.is_finished() && !shutdown.is_finished());
    stall.set_active(false);
    assert_eq!(call.await.unwrap().unwrap().into_inner().summary.unwrap().collapsed_count, 1);
    shutdown.await.unwrap().0.unwrap();
}

#[tokio::test]
async fn decision_is_not_reported_before_it_is_durable() {
    let broken = Arc::new(AtomicBool::new(false));
    let server = TestServer::start_with_fault(failing(&broken), &[]).await;
    server
        .store(&[tick("KGS/USD", -60, "0.01144"), tick("KGS/USD", -50, "1.144"), tick("KGS/USD", -40, "1.145")])
        .await;
    let release = async |server: &TestServer, id: u64| {
        let request = v1::ReleaseQuarantineRequest { ids: vec![id], ..Default::default() };
        server.ingest().release_quarantine(request).await.map(|response| response.into_inner().decisions[0].outcome())
    };
    let held = async |server: &TestServer| -> Vec<u64> {
        let request = v1::ListQuarantineRequest::default();
        server.ingest().list_quarantine(request).await.unwrap().into_inner().ticks.iter().map(|tick| tick.id).collect()
    };
    broken.store(true, Ordering::SeqCst);
    assert_retry(&release(&server, 1).await.unwrap_err(), Code::Unavailable, "injected disk fault");
    assert_retry(&release(&server, 2).await.unwrap_err(), Code::Unavailable, "restart the server");
    assert_eq!(held(&server).await, [1, 2]);
    let (dir, shutdown) = server.begin_stop();
    shutdown.await.unwrap().0.unwrap_err();

    // The first decision may be stored or not, as after any failed write. The second was never written.
    let server = TestServer::start_with_store(dir, &[]).await;
    let waiting = held(&server).await;
    assert!(waiting == [1, 2] || waiting == [2], "{waiting:?}");
    let again = if waiting.contains(&1) { Outcome::NewRun } else { Outcome::AlreadyDecided };
    assert_eq!(release(&server, 1).await.unwrap(), again);
    assert_eq!(release(&server, 2).await.unwrap(), Outcome::NewRun);
}
