//! Exports: the command `export` reads runs from a server over gRPC and writes a Parquet file. `DuckDB` copies the same
//! file for a comparison of sizes.
//!
//! `cargo bench --bench export`; `SILKRATE_BENCH_RUNS` sets the number of runs.

#![allow(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "these are measurements, not rates")]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{ROUNDS, filled, median, parameter, per_second, report};

/// A server process with a store. Dropping this value kills the process.
struct Program {
    child: Child,
    endpoint: String,
}

impl Program {
    fn start(db: &Path) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
        command
            .args(["serve", "--listen", &free.to_string(), "--http-listen", "none", "--reserve-mib", "0", "--db"])
            .arg(db);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program");
        let this = Self { child, endpoint: free.to_string() };
        let begun = Instant::now();
        while !this.run(&["latest"], Path::new(".")) {
            assert!(begun.elapsed() < Duration::from_secs(30), "the program does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        this
    }

    /// Runs a client command, and returns true if it succeeds.
    fn run(&self, arguments: &[&str], directory: &Path) -> bool {
        let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
        command.args(arguments).current_dir(directory).env("SILKRATE_ENDPOINT", &self.endpoint);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// Returns a value of `/proc/PID/status` in megabytes.
    fn memory(&self, what: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running program");
        let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("a line of memory");
        line.trim().trim_end_matches("kB").trim().parse::<f64>().expect("kilobytes") / 1024.0
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The process has already exited if it failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bytes(path: &Path) -> f64 {
    std::fs::metadata(path).expect("a file").len() as f64
}

/// Makes `DuckDB` copy the file, and returns the number of rows. Returns `None` if `DuckDB` is not installed.
fn copied_by_duckdb(directory: &Path) -> Option<u64> {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?.join("analysts-venv/bin/python");
    let script = "import duckdb\n\
                  duckdb.sql('SET enable_progress_bar = false')\n\
                  duckdb.sql(\"COPY (FROM 'runs.parquet') TO 'duckdb.parquet' (FORMAT parquet, COMPRESSION zstd)\")\n\
                  print(duckdb.sql(\"SELECT count(*) FROM 'duckdb.parquet'\").fetchall()[0][0])";
    let ran = Command::new(python).args(["-c", script]).current_dir(directory).output().ok()?;
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    Some(String::from_utf8_lossy(&ran.stdout).trim().parse().expect("the number of rows alone"))
}

fn main() {
    let runs = parameter("SILKRATE_BENCH_RUNS", 10_000_000);
    let store = filled(runs);
    let program = Program::start(&store.path().join("db"));
    let idle = program.memory("RssAnon:");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut times = Vec::new();
    let is_over = AtomicBool::new(false);
    let peak = std::thread::scope(|scope| {
        // Memory mapped from files does not belong to the export, and Linux records no peak of anonymous memory.
        let watching = scope.spawn(|| {
            let mut peak = idle;
            while !is_over.load(Ordering::Relaxed) {
                peak = peak.max(program.memory("RssAnon:"));
                std::thread::sleep(Duration::from_millis(5));
            }
            peak
        });
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            assert!(program.run(&["export", "runs.parquet", "--force"], directory.path()), "the export failed");
            times.push(begun.elapsed());
        }
        is_over.store(true, Ordering::Relaxed);
        watching.join().expect("figures")
    });
    let exported = directory.path().join("runs.parquet");
    let rows = silkrate::export::count_rows(&exported, silkrate::export::Format::Parquet).expect("complete Parquet");
    assert!(rows * 100 >= runs * 95, "only {rows} of about {runs} runs were exported");
    let speed = median(times.into_iter().map(|time| per_second(rows, time)).collect());
    report(&format!("export of {rows} runs to Parquet, start to synced file"), speed, "rows/s", ">= 2,000,000");
    report("server, peak of anonymous memory above idle", peak - idle, "MB", "<= 96");
    report("size on disk", bytes(&exported) / rows as f64, "B/row", "-");
    match copied_by_duckdb(directory.path()) {
        Some(copied) => {
            assert_eq!(copied, rows);
            let ratio = bytes(&exported) / bytes(&directory.path().join("duckdb.parquet"));
            report("size on disk, ratio to a copy by DuckDB with zstd", ratio, "times", "<= 1.05");
        }
        None => println!("no DuckDB in target/analysts-venv; `cargo test --test it analysts` installs it"),
    }
}
