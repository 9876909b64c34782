//! Restores to any commit between two backups, from the archived frames of the log.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use silkrate::backup::{At, BackupSettings, Location, Schedule, restore, verify};
use silkrate::clock::ManualClock;
use silkrate::metrics::BackupMetrics;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Fixture, directory, files};

/// Starts the backups of a server.
fn start(fixture: &Fixture, to: &Path, every: Duration) -> (JoinHandle<()>, CancellationToken) {
    let settings = BackupSettings {
        to: Location::Directory(to.to_owned()),
        every,
        keep: None,
        log_every: Duration::from_millis(100),
    };
    let clock = Arc::<ManualClock>::clone(&fixture.clock);
    let schedule = Schedule::new(settings, fixture.ingest().clone(), clock, BackupMetrics::default()).unwrap();
    let stop = CancellationToken::new();
    (tokio::spawn(schedule.run(stop.clone())), stop)
}

/// The last commit of the archived frames; 0 if there are none.
fn archived(to: &Path) -> u64 {
    let last = |name: &str| name.strip_prefix("log/")?.split(['/', '-']).nth(2)?.parse().ok();
    if to.exists() { files(to).iter().filter_map(|name| last(name)).max().unwrap_or(0) } else { 0 }
}

async fn wait_for(what: &str, mut is_done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_done() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn manifest_count(to: &Path) -> usize {
    if to.exists() { files(to).iter().filter(|name| name.starts_with("manifests/")).count() } else { 0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_commit_after_a_backup_can_be_restored() {
    let mut fixture = Fixture::start(40);
    let to = fixture.path("backup");
    fixture.steps(2, 200).await;
    let (task, stop) = start(&fixture, &to, Duration::from_secs(1_000_000));
    wait_for("the first backup", || manifest_count(&to) == 1).await;
    for _ in 0..4 {
        fixture.steps(2, 100).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let newest = fixture.view().commit.sequence;
    wait_for("the archive", || archived(&to) == newest).await;
    // The commits after the last archive are written when the server stops.
    fixture.steps(1, 100).await;
    let newest = fixture.view().commit.sequence;
    stop.cancel();
    task.await.unwrap();
    assert_eq!((archived(&to), manifest_count(&to)), (newest, 1));

    let from = directory(&to);
    let backed_up: u64 =
        files(&to).iter().find_map(|name| name.strip_prefix("manifests/")?.split('-').next()?.parse().ok()).unwrap();
    assert!(newest > backed_up + 10);
    for sequence in backed_up..=newest {
        let restored = fixture.check_restore(&from, At::Sequence(sequence), sequence).await;
        assert_eq!(restored.replayed_count, sequence - backed_up);
    }
    fixture.check_restore(&from, At::Newest, newest).await;
    for sequence in [backed_up, backed_up + 3, newest - 1] {
        let time = fixture.views[&sequence].commit.recorded_time;
        fixture.check_restore(&from, At::Time(time), sequence).await;
        let before_next = fixture.views[&(sequence + 1)].commit.recorded_time.saturating_add_us(-1);
        fixture.check_restore(&from, At::Time(before_next), sequence).await;
    }
    assert_eq!(verify(&from, None, None, &mut |_, _| {}).await.unwrap().problems, []);

    // Without one object in between, the commits after it cannot be restored, and nothing is created.
    let logs: Vec<String> = files(&to).into_iter().filter(|name| name.starts_with("log/")).collect();
    assert!(logs.len() >= 3, "{logs:?}");
    let whole = fs::read(to.join(&logs[1])).unwrap();
    fs::remove_file(to.join(&logs[1])).unwrap();
    let db = fixture.path("nothing");
    let error = restore(&from, At::Sequence(newest), None, &db, &mut |_, _| {}).await.unwrap_err().to_string();
    assert!(error.contains(&format!("these commits can be restored: {backed_up} to ")) && !db.exists(), "{error}");
    // A changed byte is damage, and is named.
    let mut changed = whole;
    changed[20] ^= 1;
    fs::write(to.join(&logs[1]), changed).unwrap();
    let error = restore(&from, At::Newest, None, &db, &mut |_, _| {}).await.unwrap_err().to_string();
    assert!(error.contains(&logs[1]) && !db.exists(), "{error}");
    let problems = verify(&from, None, None, &mut |_, _| {}).await.unwrap().problems;
    assert!(problems.len() == 1 && problems[0].to_string().contains(&logs[1]), "{problems:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_starts_with_unknown_commits_backs_up_at_once() {
    let mut fixture = Fixture::start(41);
    let to = fixture.path("backup");
    fixture.steps(1, 100).await;
    let every = Duration::from_secs(1_000_000);
    let (task, stop) = start(&fixture, &to, every);
    wait_for("the first backup", || manifest_count(&to) == 1).await;
    stop.cancel();
    task.await.unwrap();
    // No commit follows the backup, so none is due.
    let (task, stop) = start(&fixture, &to, every);
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.cancel();
    task.await.unwrap();
    assert_eq!(manifest_count(&to), 1);
    // The frames of these commits are not kept.
    fixture.steps(1, 100).await;
    let (task, stop) = start(&fixture, &to, every);
    wait_for("the second backup", || manifest_count(&to) == 2).await;
    fixture.steps(1, 100).await;
    stop.cancel();
    task.await.unwrap();
    let newest = fixture.view().commit.sequence;
    fixture.check_restore(&directory(&to), At::Newest, newest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_follow_at_the_interval() {
    let mut fixture = Fixture::start(42);
    let to = fixture.path("backup");
    let (task, stop) = start(&fixture, &to, Duration::from_mins(10));
    for count in 1..=3 {
        wait_for("a backup", || manifest_count(&to) == count).await;
        fixture.steps(1, 50).await;
        fixture.clock.advance_us(601 * super::SECOND_US);
    }
    wait_for("the last backup", || manifest_count(&to) == 4).await;
    stop.cancel();
    task.await.unwrap();
    let newest = fixture.view().commit.sequence;
    fixture.check_restore(&directory(&to), At::Newest, newest).await;
}
