//! The commands `backup` and `restore` with a real server: their output, and kills at every step.

use std::fs;
use std::path::Path;
use std::process::Command;

use silkrate::backup::{At, restore, verify};

use super::{directory, files};
use crate::cli::command::Ran;
use crate::skipped::skipped;
use crate::strace;
use crate::support::{TestServer, nineteen_series, tick};

fn command(server: &TestServer, line: &str, path: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    command.args(line.split(' ').map(|part| if part == "TO" { path.to_str().unwrap() } else { part }));
    command.env("SILKRATE_ENDPOINT", server.addr.to_string()).env_remove("SILKRATE_DB");
    command
}

async fn output(mut command: Command) -> Ran {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap().into()
}

async fn run(server: &TestServer, line: &str, path: &Path) -> Ran {
    output(command(server, line, path)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_list_verify_and_restore_report_what_they_did() {
    let server = TestServer::start(&[]).await;
    server.store(&nineteen_series()).await;
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("backup");
    let ran = run(&server, "backup TO --output json", &to).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let created = ran.json();
    assert_eq!(created["sent_block_count"], created["block_count"], "{created}");
    assert!(created["base_sequence"].is_null(), "{created}");
    server.store(&[tick("KGS/USD", 30, "0.01199")]).await;
    let ran = run(&server, "backup TO --keep 24h,30d,12mo", &to).await;
    assert!(ran.code == Some(0) && ran.stdout.contains("deleted backups  1"), "{}{}", ran.stdout, ran.stderr);
    let ran = run(&server, "backup list TO --output json", &to).await;
    let listed = ran.json();
    assert_eq!((ran.code, listed.as_array().unwrap().len()), (Some(0), 1), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(listed[0]["base_sequence"], created["sequence"], "{listed}");
    let ran = run(&server, "backup verify TO", &to).await;
    assert!(ran.code == Some(0) && ran.stdout.contains("problems  0"), "{}{}", ran.stdout, ran.stderr);

    let db = dir.path().join("restored");
    let line = format!("restore TO --db {} --output json", db.display());
    let ran = run(&server, &line, &to).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.json()["content_sha256"], listed[0]["content_sha256"]);
    // Again, into the restored store.
    let ran = run(&server, &line, &to).await;
    assert!(ran.code == Some(1) && ran.stderr.contains("is not empty"), "{}", ran.stderr);
    for (line, code, part) in [
        ("backup", 2, "<TO>"),
        ("backup s3:///x", 2, "has no valid bucket"),
        ("backup TO --keep 24", 2, "write the rule like 24h,30d,12mo"),
        ("backup list TO/missing", 1, "has no backup"),
        ("backup verify TO --at 999", 1, "these commits can be restored: "),
        ("restore TO --db x --at yesterday", 2, "invalid time 'yesterday'"),
        ("restore TO --db x --at 1", 1, "commit 1 cannot be restored from"),
        ("restore TO --db x --store-id 12", 2, "16 hexadecimal digits"),
    ] {
        let line = line.replace("TO/missing", dir.path().join("missing").to_str().unwrap());
        let ran = run(&server, &line, &to).await;
        assert_eq!(ran.code, Some(code), "{line}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(part), "{line}: no '{part}' in {}", ran.stderr);
    }
    // The original and the restored store answer alike.
    let original = answers(&server).await;
    let (original_dir, _) = server.stop().await;
    drop(original_dir);
    let restored = TestServer::start_with_store(moved(&db), &[]).await;
    assert_eq!(answers(&restored).await, original);
    restored.stop().await;
}

/// Moves a store to the place where a test server expects it.
fn moved(db: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::rename(db, dir.path().join("db")).unwrap();
    dir
}

/// What the commands print about a server.
async fn answers(server: &TestServer) -> Vec<String> {
    let mut found = Vec::new();
    for line in [
        "latest --output json",
        "series --output json",
        "history KGS/USD --source timesca --output json",
        "history USD/KGS --source nbkr --known-time 2025-12-01 --output json",
        "candles KGS/USD --source timesca --interval 1h --from 2025-12-06 --output json",
        "rate KGS/USD --source timesca --at 2025-12-07T12:00:00Z --output json",
        "change KGS/USD --source timesca --from 2025-12-06T12:00:00Z --to 2025-12-08 --output json",
        "compare KGS/USD --sources timesca,nbkr --from 2025-12-06 --output json",
        "gaps KGS/USD --from 2025-12-06 --output json",
        "revisions KGS/USD --output json",
        "quarantine list --state all --output json",
        "sources --output json",
    ] {
        let ran = run(server, line, Path::new("")).await;
        found.push(format!("{line}: {:?} {}{}", ran.code, ran.stdout, ran.stderr));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_backup_leaves_the_earlier_ones_and_the_next_one_succeeds() {
    if !strace::can_trace() {
        skipped("the test of killed backups needs strace and permission to trace");
        return;
    }
    let server = TestServer::start(&[]).await;
    server.store(&nineteen_series()).await;
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("backup");
    let mut kills = 0;
    // Before and after a file gets its name, and before its bytes are durable.
    for call in ["fsync", "rename"] {
        for nth in 1..40 {
            server.store(&[tick("KGS/USD", kills * 60 + 60, "0.01150")]).await;
            let before = files_of(&to, "manifests/");
            let mut strace = Command::new("strace");
            strace.args(["-f", "-q", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"]);
            strace.arg(format!("inject={call}:signal=KILL:when={nth}"));
            strace.args([env!("CARGO_BIN_EXE_silkrate"), "backup"]).arg(&to);
            strace.env("SILKRATE_ENDPOINT", server.addr.to_string());
            if output(strace).await.code == Some(0) {
                break;
            }
            kills += 1;
            assert!(files_of(&to, "manifests/").len() <= before.len() + 1);
            if before.is_empty() && files_of(&to, "manifests/").is_empty() {
                continue;
            }
            let verified = verify(&directory(&to), None, None, &mut |_, _| {}).await.unwrap();
            assert_eq!(verified.problems, [], "{call} {nth}");
        }
    }
    assert!(kills >= 6, "only {kills} backups were killed");
    let ran = run(&server, "backup TO", &to).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let db = dir.path().join("restored");
    restore(&directory(&to), At::Newest, None, &db, &mut |_, _| {}).await.unwrap();
    let original = answers(&server).await;
    server.stop().await;
    let restored = TestServer::start_with_store(moved(&db), &[]).await;
    assert_eq!(answers(&restored).await, original);
    restored.stop().await;
}

fn files_of(to: &Path, folder: &str) -> Vec<String> {
    let all = if to.exists() { files(to) } else { Vec::new() };
    all.into_iter().filter(|name| name.starts_with(folder) && !name.ends_with(".unfinished")).collect()
}

/// The manifest gets its name after all objects are durable.
#[tokio::test(flavor = "multi_thread")]
async fn every_object_is_durable_before_the_manifest_appears() {
    if !strace::can_trace() {
        skipped("the test of synced backups needs strace and permission to trace");
        return;
    }
    let server = TestServer::start(&[]).await;
    server.store(&nineteen_series()).await;
    let dir = tempfile::tempdir().unwrap();
    let (to, log) = (dir.path().join("backup"), dir.path().join("strace.log"));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-q", "-e", "trace=rename,fsync,mkdir", "-o"]).arg(&log);
    strace.args([env!("CARGO_BIN_EXE_silkrate"), "backup"]).arg(&to);
    strace.env("SILKRATE_ENDPOINT", server.addr.to_string());
    assert_eq!(output(strace).await.code, Some(0));
    let log = fs::read_to_string(log).unwrap();
    let position = |part: &str| log.lines().position(|line| line.contains(part));
    let last = |part: &str| log.lines().collect::<Vec<_>>().iter().rposition(|line| line.contains(part));
    let manifest = last("rename(").unwrap();
    assert!(log.lines().nth(manifest).unwrap().contains("manifests/"), "{log}");
    let renames: Vec<&str> = log.lines().filter(|line| line.contains("rename(")).collect();
    assert!(renames.len() >= 3, "{log}");
    for rename in &renames {
        let names: Vec<&str> = rename.split('"').collect();
        let (unfinished, object) = (names[1], Path::new(names[3]));
        let renamed = position(rename).unwrap();
        let synced = log.lines().position(|line| line.contains("fsync(") && line.contains(unfinished));
        assert!(synced.is_some_and(|synced| synced < renamed), "{unfinished} was not synced: {log}");
        let folder = format!("{}>", object.parent().unwrap().display());
        let after = log.lines().skip(renamed).position(|line| line.contains("fsync(") && line.contains(&folder));
        let named = after.unwrap_or_else(|| panic!("{folder} was not synced: {log}")) + renamed;
        assert!(named < manifest || renamed == manifest, "{folder} was synced after the manifest: {log}");
    }
    server.stop().await;
}
