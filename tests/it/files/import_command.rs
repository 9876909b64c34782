//! The command `silkrate import`: imports of a full export into a store, and of files of ticks into a server.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, StringArray};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use silkrate::domain::{CurrencySet, Pair, PublishedValue, Rate, ReportedChange, Run, SeriesKey, Source, Timestamp};
use silkrate::proto::v1;
use silkrate::store::{Restore, Store, StoreError};

use crate::cli::command::Ran;
use crate::files::stores::{options, state_rules};
use crate::full_export;
use crate::full_export::{Named, Parts, names, run_columns, write};
use crate::support::{NOW, TestServer, tick, time};

fn run(arguments: &[&str], server: Option<&TestServer>, input: Option<&Path>) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    command.args(arguments).env_remove("SILKRATE_DB").env_remove("SILKRATE_ENDPOINT").stdin(Stdio::null());
    if let Some(server) = server {
        command.env("SILKRATE_ENDPOINT", server.addr.to_string());
    }
    if let Some(input) = input {
        command.stdin(std::fs::File::open(input).unwrap());
    }
    command.output().unwrap().into()
}

#[track_caller]
fn assert_ran(ran: &Ran, code: i32, parts: &[&str]) {
    assert_eq!(ran.code, Some(code), "{}{}", ran.stdout, ran.stderr);
    for part in parts {
        assert!(ran.stderr.contains(part), "no '{part}' in: {}", ran.stderr);
    }
}

/// Builds a run of KGS/USD from timesca; its times are seconds after [`NOW`].
fn a_run(first: i64, last: i64, rate: &str, change: Option<&str>) -> Run {
    let at = |seconds: i64| NOW.saturating_add_us(seconds * Timestamp::SECOND_US);
    Run {
        first_observed_time: at(first),
        last_observed_time: at(last),
        observation_count: 9,
        value: PublishedValue {
            rate: Rate::parse(rate).unwrap(),
            reported_change: change.map(|change| ReportedChange::parse(change).unwrap()),
        },
        recorded_time: NOW,
    }
}

fn write_runs(path: &Path, runs: &[Run]) {
    let rows: Vec<_> = runs.iter().map(|run| (("KGS/USD".to_owned(), "timesca".to_owned()), run.clone())).collect();
    write(path, [names(&rows), run_columns(&runs.iter().collect::<Vec<_>>())].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_in_parquet_are_imported_as_first_and_last_ticks() {
    let server = TestServer::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("runs.parquet");
    let file = path.to_str().unwrap();
    write_runs(
        &path,
        &[
            a_run(-900, -600, "0.01144", Some("-0")),
            a_run(-500, -500, "0.01145", None),
            a_run(-400, -100, "0.0114500", Some("-1.50")),
        ],
    );
    let validated = run(&["import", file, "--dry-run", "--output", "json"], Some(&server), None);
    assert_ran(&validated, 0, &[]);
    let ran = run(&["import", file, "--output", "json"], Some(&server), None);
    assert_ran(&ran, 0, &[]);
    assert_eq!(ran.stderr, "", "a pipe must get no progress bar");
    for report in [&validated.json()[0], &ran.json()[0]] {
        let counts = ["format", "new_run_count", "collapsed_count", "refused_count"].map(|name| report[name].clone());
        assert_eq!(counts, [json!("parquet"), json!(3), json!(2), json!(0)]);
    }
    let request = v1::ListRunsRequest {
        pair: "KGS/USD".to_owned(),
        start_time: Some(time(-1_000)),
        end_time: Some(time(0)),
        ..Default::default()
    };
    let runs = server.rates().list_runs(request).await.unwrap().into_inner().runs;
    let imported: Vec<_> = runs
        .iter()
        .map(|run| (run.rate.as_str(), run.reported_change_percent.as_deref(), run.observation_count))
        .collect();
    assert_eq!(imported, [("0.01144", Some("-0"), 2), ("0.01145", None, 1), ("0.0114500", Some("-1.50"), 2)]);

    // A second import, also with the other command, finds all ticks known.
    let ran = run(&["ingest", file, "--output", "json"], Some(&server), None);
    assert_ran(&ran, 0, &[]);
    assert_eq!(ran.json()[0]["known_count"], 5);
    // Another value at a known instant is refused with its row; the other rows are stored.
    write_runs(&path, &[a_run(-950, -950, "0.01", None), a_run(-900, -900, "0.02", None)]);
    let ran = run(&["import", file], Some(&server), None);
    assert_ran(&ran, 3, &["row 2: refused (CONFLICT)"]);
    assert_ran(&run(&["import", file, "--revise"], Some(&server), None), 0, &[]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn import_treats_csv_like_ingest_and_refuses_other_files() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", 0, "0.01144")]).await;
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let ticks = write(
        "ticks.csv",
        b"pair,source,observed_time,rate\nKGS/USD,timesca,2025-12-08T11:00:00Z,0.01143\nKGS/USD,timesca,2025-12-08T12:00:00Z,0.01\n",
    );
    let ran = run(&["import", &ticks, "--output", "json"], Some(&server), None);
    assert_ran(&ran, 3, &[]);
    let report = &ran.json()[0];
    assert_eq!((&report["format"], &report["new_run_count"]), (&json!("csv"), &json!(1)));
    let refusal = &report["refusals"][0];
    assert_eq!((&refusal["line"], &refusal["stored_rate"]), (&json!(3), &json!("0.01144")));

    let runs = dir.path().join("runs.parquet");
    write_runs(&runs, &[a_run(-900, -600, "0.01144", None)]);
    let whole = std::fs::read(&runs).unwrap();
    let check = |name: &str, bytes: &[u8], expect: &[&str]| {
        let file = write(name, bytes);
        assert_ran(&run(&["import", &file], Some(&server), None), 1, expect);
    };
    check("page.txt", "\u{2022} KZT/USD = 0.00196 -0%".as_bytes(), &["page.txt", "not known", "columns are pair"]);
    check("cut.parquet", &whole[..whole.len() / 2], &["cut.parquet cannot be read as Parquet", "the file is complete"]);
    check("empty.csv", b"", &["the file is empty"]);
    check("head.parquet", &whole[..4], &["head.parquet cannot be read as Parquet", "the file is complete"]);
    // Parquet files of other tables: a part of a full export, and a file with a wrong column type.
    let series =
        vec![("KGS/USD".to_owned(), "timesca".to_owned()); 2].into_iter().map(|key| (key, ())).collect::<Vec<_>>();
    let check = |name: &str, columns: Vec<Named>, expect: &[&str]| {
        let path = dir.path().join(name);
        full_export::write(&path, columns);
        assert_ran(&run(&["import", path.to_str().unwrap()], Some(&server), None), 1, expect);
    };
    check("series.parquet", names(&series), &["series.parquet: column 'first_observed_time' is missing"]);
    let text: ArrayRef = Arc::new(StringArray::from(vec!["0.01144", "0.01145"]));
    let two = [a_run(-900, -600, "0.01144", None), a_run(-500, -400, "0.01145", None)];
    let columns = [names(&series), run_columns(&two.iter().collect::<Vec<_>>())].concat();
    let columns = columns.into_iter().map(|(name, column)| (name, if name == "rate" { text.clone() } else { column }));
    check("text.parquet", columns.collect(), &["text.parquet: column 'rate' is Utf8; write it as a decimal"]);
    assert_ran(
        &run(&["ingest", "-"], Some(&server), Some(&runs)),
        1,
        &["cannot read Parquet from a pipe", "save the data"],
    );
    let missing = dir.path().join("none").display().to_string();
    assert_ran(&run(&["import", &missing], Some(&server), None), 1, &["none", "No such file"]);
    server.stop().await;
}

/// Makes commits of ticks of one series, one second apart in a scrambled order, nine ticks per rate.
fn fill(store: &mut Store, commits: i64, ticks_each: i64) {
    let count = commits * ticks_each;
    for commit in 0..commits {
        let mut transaction = store.begin(NOW);
        let pair = Pair::parse("KGS/USD", &CurrencySet::central_asia()).unwrap();
        let series = transaction.series(&SeriesKey { pair, source: Source::parse("timesca").unwrap() }).unwrap();
        for number in commit * ticks_each..(commit + 1) * ticks_each {
            let second = if ticks_each == 1 { number * 7 % count } else { number };
            let rate = Rate::from_parts(u128::from((1_144 + number / 9).cast_unsigned()), 5).unwrap();
            let value = PublishedValue { rate, reported_change: None };
            transaction.upsert(series, NOW.saturating_add_us(second * Timestamp::SECOND_US), value, false).unwrap();
        }
        transaction.commit().unwrap();
    }
}

/// An interrupted import is never opened as a store, and running the import again completes it.
#[test]
fn interrupted_import_can_be_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(options(&dir.path().join("from")), NOW).unwrap();
    fill(&mut store, 10, 10_000);
    let parts = Parts::of(&store.view());
    parts.write(&dir.path().join("export"));
    let (export, db) = (dir.path().join("export"), dir.path().join("db"));
    let import = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
        command.arg("import").arg(&export).arg("--db").arg(&db);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::KILL, None)] {
        // On a slow machine the import may finish before the signal; then the test tries again.
        let interrupted = (0..20).any(|_| {
            let mut child = import().spawn().unwrap();
            while !db.join("UNFINISHED-IMPORT").exists() && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            // The call fails if the process has already exited.
            let _ = kill_process(Pid::from_child(&child), signal);
            let ended = child.wait().unwrap();
            if !db.join("UNFINISHED-IMPORT").exists() {
                std::fs::remove_dir_all(&db).unwrap();
                return false;
            }
            assert_eq!(ended.code(), code, "{signal:?}");
            true
        });
        assert!(interrupted);
        let refused = Store::open(options(&db), NOW).err();
        assert!(matches!(refused, Some(StoreError::UnfinishedImport { .. })), "{refused:?}");
    }
    assert!(import().status().unwrap().success());
    assert_eq!(Parts::of(&Store::open(options(&db), NOW).unwrap().view()), parts);
}

#[test]
fn full_export_is_imported_into_an_empty_directory_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut store = Store::open(options(&path("from")), NOW).unwrap();
    fill(&mut store, 30, 1);
    let parts = Parts::of(&store.view());
    parts.write(&path("export"));
    let (export, db) = (path("export").display().to_string(), path("db").display().to_string());

    for flag in ["--revise", "--dry-run"] {
        assert_ran(&run(&["import", &export, "--db", &db, flag], None, None), 2, &[flag, "applies only to files"]);
    }
    let from = path("from").display().to_string();
    assert_ran(&run(&["import", &from, "--db", &db], None, None), 1, &["no manifest.json", "export --full"]);
    assert!(!path("db").exists());
    // The state that an interrupted import leaves.
    drop(Restore::begin(&path("db"), state_rules(), parts.commit).unwrap());
    assert_ran(
        &run(&["serve", "--listen", "127.0.0.1:0", "--http-listen", "none", "--db", &db], None, None),
        1,
        &["did not finish", "again"],
    );
    assert_ran(&run(&["verify", "--db", &db], None, None), 1, &["did not finish"]);

    let ran = run(&["import", &export, "--db", &db, "--output", "json"], None, None);
    assert_ran(&ran, 0, &[]);
    assert_eq!(ran.stderr, "", "a pipe must get no progress bar");
    let report = ran.json();
    assert_eq!((&report["sequence"], &report["observation_count"]), (&json!(30), &json!(30)));
    assert_eq!(report["run_count"], parts.runs.len());
    let verified = run(&["verify", "--db", &db, "--output", "json"], None, None);
    assert_ran(&verified, 0, &[]);
    assert_eq!(verified.json()["run_count"], parts.runs.len());
    assert_eq!(Parts::of(&Store::open(options(&path("db")), NOW).unwrap().view()), parts);
    assert_ran(&run(&["import", &export, "--db", &db], None, None), 1, &["is not empty", "--db"]);
}

#[tokio::test]
async fn full_export_of_an_imported_store_is_identical() {
    check_full_export_of_an_imported_store(&[], &[]).await;
}

#[tokio::test]
async fn import_judges_states_by_the_given_settings() {
    let limits = ["--stale-limit", "timesca=2m", "--moving-window", "1m"];
    check_full_export_of_an_imported_store(&limits, &limits).await;
    let config = "[sources.timesca]\nstale_limit = \"2m\"\n";
    let there = tempfile::tempdir().unwrap();
    let path = there.path().join("silkrate.toml");
    std::fs::write(&path, config).unwrap();
    let file = ["--config", path.to_str().unwrap()];
    check_full_export_of_an_imported_store(&file, &file).await;
}

/// Checks that a store imported from a full export with the flags `import` exports the same bytes again, if both servers
/// have the flags `serve`.
async fn check_full_export_of_an_imported_store(serve: &[&str], import: &[&str]) {
    let run = async |address: std::net::SocketAddr, args: Vec<String>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
        command.args(args).env("SILKRATE_ENDPOINT", address.to_string()).stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let argument = |path: &Path| path.display().to_string();
    let there = tempfile::tempdir().unwrap();
    let (first, again) = (there.path().join("first"), there.path().join("again"));
    let server = TestServer::start(serve).await;
    for round in 0..3_i64 {
        let ticks: Vec<_> = (0..40_i64)
            .flat_map(|n| {
                // Each round adds ticks between those of the previous round, so that runs are split and superseded.
                let second = -20_000 + n * 400 + round * 90;
                let rate = format!("0.0{}", 1_144 + (n + round) % 3);
                [tick("KGS/USD", second, &rate), tick("UZS/USD", second, "0.00008")]
            })
            .collect();
        server.store(&ticks).await;
    }
    server.store(&[tick("KGS/USD", -150, "1.144"), tick("KGS/USD", -140, "114.4")]).await;
    let note = "typing error, confirmed by the bank";
    run(server.addr, ["quarantine", "discard", "1", "--note", note].map(str::to_owned).to_vec()).await;
    run(server.addr, ["export", "--full", &argument(&first)].map(str::to_owned).to_vec()).await;
    server.stop().await;

    let other = tempfile::tempdir().unwrap();
    let db = other.path().join("db");
    let no_server = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    let mut command = ["import", &argument(&first), "--db", &argument(&db)].map(str::to_owned).to_vec();
    command.extend(import.iter().map(|&flag| flag.to_owned()));
    run(no_server, command).await;
    let found = silkrate::store::verify(&db).unwrap();
    assert_eq!(found.problems, Vec::<String>::new());
    assert_eq!(found.quarantined_count, 2);
    assert!(found.revision_count > 0, "the late ticks must supersede runs");
    let server = TestServer::start_with_store(other, serve).await;
    run(server.addr, ["export", "--full", &argument(&again)].map(str::to_owned).to_vec()).await;
    let names = ["series", "runs", "timeline", "revisions", "commits", "polls", "quarantine"]
        .map(|part| format!("{part}.parquet"));
    for name in names.into_iter().chain(["manifest.json".to_owned()]) {
        let read = |directory: &Path| std::fs::read(directory.join(&name)).unwrap();
        assert!(read(&first) == read(&again), "{name} differs");
    }
    server.stop().await;
}
