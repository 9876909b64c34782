//! Errors of a real server, as the command prints them: they name arguments, not fields of requests.

use std::process::Command;

use silkrate::proto::v1;

use crate::cli::command::Ran;
use crate::support::{TestServer, tick};

#[tokio::test(flavor = "multi_thread")]
async fn error_of_the_server_names_the_arguments() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -3 * 366 * 86_400, "0.01144"), tick("KGS/USD", -86_400, "0.01150")]).await;
    let other = v1::Tick { source: "nbkr".to_owned(), ..tick("KZT/USD", -60, "0.00196") };
    server.store(&[other]).await;
    let check = |line: &str, status: i32, parts: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
        command.args(line.split(' ')).env("SILKRATE_ENDPOINT", server.addr.to_string());
        let ran = Ran::from(tokio::task::block_in_place(|| command.output()).unwrap());
        assert_eq!(ran.code, Some(status), "{line}: {}", ran.stderr);
        for part in parts {
            assert!(ran.stderr.contains(part), "{line}: no '{part}' in {}", ran.stderr);
        }
        for field in ["known_time", "leg_sources", "max_age", "sources:", "interval: "] {
            let mut words = ran.stderr.split([' ', ';', '\n']);
            assert!(words.all(|word| word != field.trim()), "{line} names {field}: {}", ran.stderr);
        }
    };
    check("compare KGS/USD --sources nbkr", 2, &["--sources: has 1 of the two sources"]);
    check("compare --pair EUR/USD --sources nbkr,timesca", 2, &["--pair: pair 'EUR/USD'"]);
    check("compare EUR/USD --sources nbkr,timesca", 2, &["PAIR: pair 'EUR/USD'"]);
    check("rate KGS/USD --known-time 2020-01-01", 1, &["use a --known-time at or after the first commit"]);
    check("rate KGS/USD --max-age 30m", 1, &["was last confirmed 1d before", "the --max-age of 30m"]);
    check("candles KGS/USD --interval 1m --from 2022-12-08", 2, &["--interval: gives about"]);
    check("rate KGS/KZT --source timesca --leg-source x --leg-source y", 2, &["contradicts --source 'timesca'"]);
    check("series --source Nbkr", 2, &["--source: source 'Nbkr'"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_conflict_names_the_flag() {
    let server = TestServer::start(&[]).await;
    server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.csv");
    // The time of the stored tick.
    std::fs::write(&file, "pair,source,observed_time,rate\nkgs-usd,timesca,2025-12-08T11:59:00Z,0.01150\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    command.arg("ingest").arg(&file).env("SILKRATE_ENDPOINT", server.addr.to_string());
    let ran = Ran::from(tokio::task::block_in_place(|| command.output()).unwrap());
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains("refused (CONFLICT)") && ran.stderr.contains("or use --revise"), "{}", ran.stderr);
}
