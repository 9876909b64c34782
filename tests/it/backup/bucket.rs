//! Backups in a bucket of moto, an implementation of S3 in Python, behind a proxy that injects faults.
//!
//! moto is installed once from `PyPI` into `target/moto-venv`, in the version of `moto-requirements.txt`. Without Python or
//! `PyPI` the tests report that they are skipped.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::proxy::{Fault, Proxy};
use crate::cli::command::Ran;
use crate::skipped::skipped;
use crate::support::{TestServer, nineteen_series, tick};
use crate::venv;

const REQUIREMENTS: &str = include_str!("../../moto-requirements.txt");
const SECRET: &str = "secret-of-this-test";

/// Returns the program of moto, or the reason why there is none.
fn moto() -> Result<PathBuf, String> {
    venv::python("moto-venv", REQUIREMENTS).map(|python| python.with_file_name("moto_server"))
}

/// A server with a store, and moto with an empty bucket behind a proxy.
struct Setup {
    server: TestServer,
    moto: Child,
    proxy: Proxy,
    dir: tempfile::TempDir,
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = self.moto.kill();
        let _ = self.moto.wait();
    }
}

impl Setup {
    /// Starts both. Without moto, reports that the test is skipped and returns `None`.
    async fn start() -> Option<Self> {
        let program = match tokio::task::spawn_blocking(moto).await.unwrap() {
            Ok(program) => program,
            Err(why) => {
                skipped(&format!("there is no moto for the tests of buckets: {why}"));
                return None;
            }
        };
        // The port is free now. moto has no option to choose one itself.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let moto = command.spawn().unwrap();
        let target: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
        let setup = Self {
            server: TestServer::start(&[]).await,
            moto,
            proxy: Proxy::start(target).await,
            dir: tempfile::tempdir().unwrap(),
        };
        let began = Instant::now();
        while request(target, "PUT /rates HTTP/1.1").await.is_none_or(|response| !response.contains(" 200 ")) {
            assert!(began.elapsed() < Duration::from_mins(1), "moto does not start");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        setup.server.store(&nineteen_series()).await;
        Some(setup)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
        command.args(line.split(' ')).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env("SILKRATE_ENDPOINT", self.server.addr.to_string()).env_remove("SILKRATE_DB");
        command.env("AWS_ENDPOINT_URL", format!("http://{}", self.proxy.address)).env("AWS_ALLOW_HTTP", "true");
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", SECRET).env("AWS_REGION", "us-east-1");
        command
    }

    async fn run(&self, line: &str) -> Ran {
        let mut command = self.command(line);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap().into()
    }

    /// Runs a command that must succeed.
    async fn check(&self, line: &str) -> Ran {
        let ran = self.run(line).await;
        assert_eq!(ran.code, Some(0), "{line}: {}{}", ran.stdout, ran.stderr);
        ran
    }

    /// Restores the newest backup, and compares the answers of the restored store with those of the server.
    async fn check_restore(&self) {
        let db = self.dir.path().join("restored");
        let _ = fs::remove_dir_all(&db);
        self.check("restore s3://rates/silkrate --db restored").await;
        // In a process of its own, because the lock of a store outlives its closing while this process starts another one.
        self.check("verify --db restored").await;
        let moved = tempfile::tempdir().unwrap();
        fs::rename(&db, moved.path().join("db")).unwrap();
        let restored = TestServer::start_with_store(moved, &[]).await;
        for line in ["latest --output json", "history KGS/USD --source timesca --output json", "series --output json"] {
            let expected = self.check(line).await.stdout;
            let mut command = self.command(line);
            command.env("SILKRATE_ENDPOINT", restored.addr.to_string());
            let found = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
            assert_eq!(String::from_utf8(found.stdout).unwrap(), expected, "{line}");
        }
        restored.stop().await;
    }
}

/// Sends a request without a body, and returns the response.
async fn request(address: SocketAddr, line: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let text = format!("{line}\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.ok()?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.ok()?;
    Some(String::from_utf8_lossy(&response).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_in_a_bucket_is_listed_verified_pruned_and_restored() {
    let Some(setup) = Setup::start().await else { return };
    setup.check("backup s3://rates/silkrate").await;
    setup.server.store(&[tick("KGS/USD", 30, "0.01199")]).await;
    let ran = setup.check("backup s3://rates/silkrate --keep 1h --output json").await;
    assert_eq!(ran.json()["deleted_backup_count"], 1, "{}", ran.stdout);
    let ran = setup.check("backup list s3://rates/silkrate/ --output json").await;
    assert_eq!(ran.json().as_array().unwrap().len(), 1);
    let ran = setup.check("backup verify s3://rates/silkrate").await;
    assert!(ran.stdout.contains("problems  0"), "{}", ran.stdout);
    setup.check_restore().await;
    for (line, part) in [
        ("backup list s3://rates/other", "has no backup"),
        ("backup s3://missing/silkrate", "cannot list s3://missing/silkrate/manifests"),
        ("restore s3://rates/silkrate --db x --at 1", "these commits can be restored"),
    ] {
        let ran = setup.run(line).await;
        assert!(ran.code == Some(1) && ran.stderr.contains(part), "{line}: {}{}", ran.stdout, ran.stderr);
        assert!(!ran.stderr.contains(SECRET), "{}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failed_request_is_repeated() {
    let Some(setup) = Setup::start().await else { return };
    let faults = [Fault::Drop, Fault::DropResponse, Fault::Cut, Fault::Status(500), Fault::Status(503)];
    setup.check("backup s3://rates/silkrate").await;
    for (at, fault) in faults.into_iter().enumerate() {
        setup.server.store(&[tick("KGS/USD", 60 * at as i64 + 30, "0.01199")]).await;
        // Every request fails once.
        setup.proxy.set(move |seen| if seen.number % 2 == 0 { fault } else { Fault::None });
        setup.check("backup s3://rates/silkrate").await;
        assert!(setup.proxy.count() > 8, "{fault:?}: {} requests", setup.proxy.count());
        setup.check("backup verify s3://rates/silkrate").await;
        setup.check_restore().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn store_that_fails_for_long_is_an_error_that_names_the_object() {
    let Some(setup) = Setup::start().await else { return };
    setup
        .proxy
        .set(|seen| if seen.method == "PUT" && seen.path.contains("packs") { Fault::Status(403) } else { Fault::None });
    let ran = setup.run("backup s3://rates/silkrate").await;
    assert_eq!(ran.code, Some(1));
    for part in ["error: cannot write s3://rates/silkrate/packs/", "403", "AWS_"] {
        assert!(ran.stderr.contains(part), "no '{part}' in {}", ran.stderr);
    }
    assert!(!ran.stderr.contains(SECRET), "{}", ran.stderr);
    // Nothing is a backup without its manifest.
    setup.proxy.set(|_| Fault::None);
    assert!(setup.run("backup list s3://rates/silkrate").await.stderr.contains("has no backup"));
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_killed_at_every_object_leaves_the_earlier_ones() {
    let Some(mut setup) = Setup::start().await else { return };
    let mut kills = 0;
    for fault in [Fault::Hold, Fault::HoldResponse] {
        for nth in 0.. {
            setup.server.store(&[tick("KGS/USD", 60 * kills + 30, "0.01199")]).await;
            let puts = std::sync::atomic::AtomicU64::new(0);
            setup.proxy.set(move |seen| {
                let is_nth = seen.method == "PUT" && puts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == nth;
                if is_nth { fault } else { Fault::None }
            });
            let mut child = setup.command("backup s3://rates/silkrate").stdout(Stdio::null()).spawn().unwrap();
            let held = loop {
                if let Ok(path) = setup.proxy.held.try_recv() {
                    break Some(path);
                }
                if child.try_wait().unwrap().is_some() {
                    break None;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            };
            let _ = child.kill();
            child.wait().unwrap();
            setup.proxy.set(|_| Fault::None);
            let Some(held) = held else { break };
            kills += 1;
            let ran = setup.run("backup verify s3://rates/silkrate --output json").await;
            // Before the first backup is complete, there is none.
            let is_whole = ran.code == Some(0) || ran.stderr.contains("has no backup");
            assert!(is_whole, "{fault:?} at {held}: {}{}", ran.stdout, ran.stderr);
        }
    }
    assert!(kills >= 6, "only {kills} backups were killed");
    setup.check("backup s3://rates/silkrate").await;
    setup.check("backup verify s3://rates/silkrate").await;
    setup.check_restore().await;
}
