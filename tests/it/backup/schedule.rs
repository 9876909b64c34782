//! Backups by `serve`: the table `[backup]` of the configuration file, metrics, failures and shutdown.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::files;
use crate::cli::command::Ran;
use crate::support::{TestServer, tick};
use crate::web::get;

fn configuration(dir: &TempDir, text: &str) -> String {
    let path = dir.path().join("silkrate.toml");
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

async fn wait_for(what: &str, is_done: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_done() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn count(to: &Path, folder: &str) -> usize {
    if to.exists() { files(to).iter().filter(|name| name.starts_with(folder)).count() } else { 0 }
}

async fn run(line: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    command.args(line).env_remove("SILKRATE_DB");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn server_backs_itself_up_and_its_last_commits_can_be_restored() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("backup");
    let config = configuration(
        &dir,
        &format!("[backup]\nto = \"{}\"\nevery = \"1h\"\nkeep = \"24h\"\nlog_every = \"1s\"\n", to.display()),
    );
    let server = TestServer::start(&["--config", &config]).await;
    wait_for("the first backup", || count(&to, "manifests/") == 1).await;
    let stored = server.store(&[tick("KGS/USD", -60, "0.01144"), tick("KGS/USD", -30, "0.01145")]).await;
    wait_for("the archive", || count(&to, "log/") > 0).await;
    let metrics = get(server.http_addr, "/metrics").await.body;
    for line in [
        "silkrate_backup_attempts_total{kind=\"backup\",outcome=\"succeeded\"} 1",
        "silkrate_backup_interval_seconds 3600",
        "silkrate_backup_last_success_timestamp_seconds{kind=\"backup\"} 1765195200",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    let last = server.store(&[tick("KGS/USD", -10, "0.01146")]).await;
    assert!(last.sequence > stored.sequence);
    server.stop().await;
    let (from, db) = (to.display().to_string(), dir.path().join("restored"));
    let ran = run(&["restore", &from, "--db", db.to_str().unwrap(), "--output", "json"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.json()["sequence"], last.sequence, "{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_backups_are_counted_and_change_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("file");
    fs::write(&blocked, "").unwrap();
    let config = configuration(&dir, &format!("[backup]\nto = \"{}/backup\"\n", blocked.display()));
    let server = TestServer::start(&["--config", &config]).await;
    let began = Instant::now();
    loop {
        let metrics = get(server.http_addr, "/metrics").await.body;
        if metrics.contains("silkrate_backup_attempts_total{kind=\"backup\",outcome=\"failed\"} 1") {
            assert!(metrics.contains("silkrate_backup_last_success_timestamp_seconds{kind=\"backup\"} 0"));
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    assert_eq!(get(server.http_addr, "/readyz").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn invalid_table_is_refused_at_start_with_all_problems() {
    let dir = tempfile::tempdir().unwrap();
    for (text, parts) in [
        ("[backup]\n", &["1: backup: it has no destination"][..]),
        (
            "[backup]\nto = \"gs://a/b\"\n",
            &["2: backup.to = \"gs://a/b\"", "neither a directory nor s3://bucket/prefix"],
        ),
        ("[backup]\nto = \"x\"\nkeep = \"24\"\n", &["3: backup.keep = \"24\"", "write the rule like 24h,30d,12mo"]),
        ("[backup]\nto = \"x\"\nevery = \"0s\"\nlog_every = \"2h\"\n", &["3: backup.every", "4: backup.log_every"]),
        (
            "[backup]\nto = \"x\"\nhow = 1\n",
            &["3: backup.how: unknown setting; the settings are to, every, keep and log_every"],
        ),
    ] {
        let config = configuration(&dir, text);
        let db = dir.path().join("db");
        let ran = run(&["serve", "--config", &config, "--db", db.to_str().unwrap(), "--listen", "127.0.0.1:0"]).await;
        assert_eq!(ran.code, Some(2), "{text}: {}", ran.stderr);
        for part in parts {
            assert!(ran.stderr.contains(part), "{text}: no '{part}' in {}", ran.stderr);
        }
        assert!(!db.exists());
    }
}
