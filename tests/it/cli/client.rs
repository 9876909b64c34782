//! The program `silkrate` with a server of canned responses: output and exit status.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::canned::{Mock, RUN_COUNT};
use crate::cli::command::{Ran, assert_contains, run};

const COMMANDS: [&str; 19] = [
    "serve",
    "ingest",
    "backfill",
    "latest",
    "rate",
    "convert",
    "history",
    "change",
    "changes",
    "compare",
    "candles",
    "series",
    "revisions",
    "sources",
    "gaps",
    "quarantine",
    "export",
    "import",
    "verify",
];
const CSV_HEADER: &str = "pair,source,observed_time,rate,reported_change_percent\n";

struct TestDir(tempfile::TempDir);

impl TestDir {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).expect("a writable file");
        path
    }
}

fn name(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn help_lists_commands_and_examples() {
    assert_contains("help", &run("--help").stdout, &COMMANDS);
    for command in COMMANDS.iter().filter(|command| **command != "serve") {
        let help = run(&format!("{command} --help"));
        assert_eq!(help.code, Some(0), "{command}");
        assert_contains(command, &help.stdout, &["Examples:", &format!("silkrate {command}"), "--output"]);
    }
    assert_eq!(run("--version").stdout, format!("silkrate {} (debug build)\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_and_manual_pages_cover_every_command() {
    let directory = TestDir::new();
    let script = run("completions bash");
    let ran = run(&format!("man {}", directory.0.path().display()));
    assert_eq!((script.code, ran.code, ran.stdout.as_str()), (Some(0), Some(0), ""), "{}", ran.stderr);
    for command in ["serve", "latest", "convert", "quarantine", "completions"] {
        assert!(script.stdout.contains(&format!("silkrate__subcmd__{command}")), "{command}: {}", script.stdout);
        let page = std::fs::read_to_string(directory.0.path().join(format!("silkrate-{command}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{command}: {page}");
    }
    let failed = run("man /nowhere");
    assert_eq!(failed.code, Some(1));
    assert_contains("man", &failed.stderr, &["cannot write manual pages to /nowhere"]);
}

#[test]
fn unknown_name_given_to_a_list_is_an_error_after_the_known_ones() {
    let mock = Mock::start();
    let check = |line: &str, problem: &str| {
        let ran = mock.run(line);
        assert_eq!(ran.code, Some(1), "{line}: {}", ran.stderr);
        assert!(ran.stdout.lines().count() >= 2, "{line}: {}", ran.stdout);
        assert_contains(line, &ran.stderr, &[problem]);
    };
    check("latest KGS/USD TMT/USD", "error: there is no rate of TMT/USD; 'silkrate series' lists");
    check("latest --source timesca --source nosuch --output csv", "error: there is no rate from nosuch;");
    check("series KGS/USD TMT/USD --output json", "error: there is no series of TMT/USD;");
}

#[test]
fn wrong_usage_exits_with_2_before_any_request() {
    let check = |line: &str, parts: &[&str]| {
        let ran = run(line);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{line}: {}", ran.stderr);
        assert_contains(line, &ran.stderr, parts);
    };
    check("", &["Usage"]);
    check("fetch", &["unrecognized subcommand 'fetch'"]);
    check("rate", &["<PAIR>"]);
    for line in ["rate KGSUSDX", "latest KGS/", "compare KGS --sources a,b"] {
        check(line, &["PAIR"]);
    }
    check("convert 100 kgs", &["pair 'kgs'"]);
    check("convert 1 KGS USD TJS", &["unexpected value 'TJS'"]);
    check("convert abc KGS/USD", &["<AMOUNT>", "abc"]);
    check("latest --json --output csv", &["cannot be used with"]);
    check("rate KGS/USD --at yesterday", &["invalid time 'yesterday': use RFC 3339 like 2025-12-08T00:00:00Z"]);
    check("rate KGS/USD --at -7x", &["invalid time '-7x'", "m minutes"]);
    check("rate KGS/USD --at -4000y", &["invalid time '-4000y': it is before the year 0001"]);
    check("rate KGS/USD --at 2025-02-30", &["not in the calendar"]);
    check("rate KGS/USD --max-age 1mo", &["no fixed length; write days"]);
    check("history KGS/USD --limit 0", &["--limit"]);
    check("history KGS/USD --baseline", &["--from"]);
    check("change KGS/USD", &["--from", "--over"]);
    check("convert 100", &["<PAIR>"]);
    check("changes KGS/USD --period decade", &["day, week, month, year, ytd"]);
    check("candles KGS/USD --interval 2h", &["1m, 5m, 15m, 1h, 4h, 1d, 1w, 1mo"]);
    check("candles KGS/USD --from yesterday", &["invalid time 'yesterday'"]);
    check("ingest", &["<FILE>"]);
    check("latest --output yaml", &["table, json, csv"]);
    check("latest --timeout 0s", &["--timeout"]);
    check("latest --endpoint nowhere", &["invalid endpoint 'nowhere': its port is missing", "127.0.0.1:50051"]);
    check("latest --endpoint ftp://127.0.0.1:1", &["its scheme is neither http nor https"]);
}

#[test]
fn command_exits_with_1_and_names_serve_if_no_server_is_reachable() {
    // The port was bound and released, so nothing listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
    for line in ["latest", "rate KGS/USD", "history KGS/USD", "change KGS/USD --over 7d", "series", "ingest -"] {
        let ran = run(&format!("{line} --endpoint {closed}"));
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{line}");
        let parts = [&format!("cannot reach a silkrate server at http://{closed}"), "refused", "silkrate serve"];
        assert_contains(line, &ran.stderr, &parts);
    }
}

#[test]
fn other_protocol_on_the_port_is_reported() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let http1 = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").unwrap();
    });
    let ran = run(&format!("latest --endpoint {address} --timeout 10s"));
    http1.join().unwrap();
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert_contains("http 1", &ran.stderr, &[&address.to_string(), "a silkrate server"]);
}

#[test]
fn tables_have_the_expected_cells() {
    let mock = Mock::start();
    let check = |line: &str, parts: &[&str], stderr: &str| {
        let ran = mock.run(line);
        assert_eq!(ran.code, Some(0), "{line}: {}", ran.stderr);
        assert_contains(line, &ran.stdout, parts);
        assert_contains(line, &ran.stderr, &[stderr]);
        assert!(!ran.stdout.contains('\u{1b}'), "{line}: the output contains an escape sequence");
    };
    check(
        "latest KGS/USD --wide",
        &[
            "previous",
            "last observed",
            "0.01144   0.01143  2025-12-08T00:00:00Z (",
            " ago)",
            "MOVING",
            "evil\\u{1b}[2J",
            "FLAT",
        ],
        "sequence 7; last ingest 2025-12-09T00:00:00Z (",
    );
    check(
        "rate KGS/USD --at -7d",
        &[
            "low       0.0114405",
            "KGS/USD 0.01144 by timesca, 3 observations, last 2025-12-08T00:00:00Z",
            "age       2 h",
        ],
        "",
    );
    // The move from 0.01143 to 0.01144 can be a matter of rounding.
    check(
        "latest kgs-usd",
        &["pair     source            rate  change       state   age\n", "0.01144  cannot tell  MOVING  "],
        "sequence 7",
    );
    check("series", &["revisions", "40", "FLAT", "1 h"], "");
    check("revisions KGS/USD", &["superseded", "0.01143", "0.01142", "2025-12-10T00:00:00Z"], "");
    check(
        "gaps",
        &["last observed", "24 h", "unreachable", "unreachable 21 h; asked and silent 3 h", "not yet", "2 d"],
        "",
    );
    check(
        "change UZS/USD --over 7d",
        &["0.00008 -> 0.00008  0 %  (-11.764706 % .. 13.333334 %)  below resolution: the bounds include 0 %\n"],
        "",
    );
    check("change KGS/USD --over 7d", &["? -> 0.01144\n", "no quote yet at that time"], "");
    check("history KGS/USD --from -1mo --baseline --limit 2", &["9.99999", "baseline", "0.00001"], "");
}

#[test]
fn json_has_the_fields_of_the_messages() {
    let mock = Mock::start();
    let check = |line: &str, at: &str, expect: Value| mock.check_json(line, at, &expect);
    check("latest", "/0/rate", json!("0.01144"));
    check("latest", "/0/moved_time", json!("2025-12-08T00:00:00Z"));
    check("latest", "/0/state", json!("MOVING"));
    check("latest", "/1/previous_rate", json!(null));
    check("latest", "/1/source", json!("evil\u{1b}[2J"));
    check("rate KGS/USD", "/rate_high", json!("0.0114415"));
    check("rate KGS/USD", "/legs/0/observation_count", json!(3));
    check("rate KGS/USD", "/age", json!("7200s"));
    check("series", "/0/collapse_window", json!("3600s"));
    check("revisions KGS/USD", "/1/superseded_time", json!("2025-12-10T00:00:00Z"));
    check("gaps", "/0/unreachable_length", json!("75600s"));
    check("gaps TMT/USD", "/1/open", json!(true));
    check("gaps", "/1/stretches/0/reason", json!("ASKED_SILENT"));
    check("change UZS/USD --over 7d", "/percent_change", json!("0.000000"));
    check("change UZS/USD --over 7d", "/start/legs/0/rate", json!("0.00008"));
    check("change UZS/USD --over 7d", "/below_resolution", json!(true));
    check("change KGS/USD --over 7d", "/start", json!(null));
    check("change KGS/USD --over 7d", "/start_missing_reason", json!("NO_QUOTE_YET"));
    check("history KGS/USD --from -1mo --baseline", "/0/baseline", json!(true));
    check("history KGS/USD --limit 1", "/0/reported_change_percent", json!("-0"));
}

#[test]
fn csv_has_the_expected_columns() {
    let mock = Mock::start();
    let check = |line: &str, expect: &str| mock.check_csv(line, expect);
    check(
        "history KGS/USD --limit 1",
        "pair,source,rate,reported_change_percent,first_observed_time,last_observed_time,observation_count,recorded_time,stale,archived,baseline\n\
         KGS/USD,timesca,0.00001,-0,2025-12-08T00:00:00Z,2025-12-08T00:00:00Z,3,2025-12-09T00:00:00Z,false,false,false\n",
    );
    check(
        "series",
        "pair,source,first_observed_time,last_observed_time,run_count,observation_count,revision_count,state,archived,collapse_window\n\
         KGS/USD,timesca,2025-12-08T00:00:00Z,2025-12-11T00:00:00Z,2,40,1,FLAT,false,3600s\n",
    );
    check(
        "change UZS/USD --over 7d",
        "pair,start_rate,start_time,end_rate,end_time,start_missing_reason,end_missing_reason,absolute_change,percent_change,\
         percent_change_low,percent_change_high,below_resolution,observed,start_derivation,start_legs,start_age,start_stale,start_archived,\
         end_derivation,end_legs,end_age,end_stale,end_archived,sequence,recorded_time\n\
         UZS/USD,0.00008,2025-12-08T00:00:00Z,0.00008,2025-12-08T00:00:00Z,,,0.00000,0.000000,-11.764706,13.333334,true,,\
         DIRECT,\"[{\"\"pair\"\":\"\"UZS/USD\"\",\"\"source\"\":\"\"timesca\"\",\"\"rate\"\":\"\"0.00008\"\",\"\"reported_change_percent\"\":\"\"-0\"\",\"\"first_observed_time\"\":\"\"2025-12-08T00:00:00Z\"\",\"\"last_observed_time\"\":\"\"2025-12-08T00:00:00Z\"\",\"\"observation_count\"\":3,\"\"recorded_time\"\":\"\"2025-12-09T00:00:00Z\"\"}]\",7200s,false,false,\
         DIRECT,\"[{\"\"pair\"\":\"\"UZS/USD\"\",\"\"source\"\":\"\"timesca\"\",\"\"rate\"\":\"\"0.00008\"\",\"\"reported_change_percent\"\":\"\"-0\"\",\"\"first_observed_time\"\":\"\"2025-12-08T00:00:00Z\"\",\"\"last_observed_time\"\":\"\"2025-12-08T00:00:00Z\"\",\"\"observation_count\"\":3,\"\"recorded_time\"\":\"\"2025-12-09T00:00:00Z\"\"}]\",7200s,false,false,7,2025-12-09T00:00:00Z\n",
    );
    for line in ["latest", "rate KGS/USD", "revisions KGS/USD"] {
        let ran = mock.run(&format!("{line} --output csv"));
        let mut reader = csv::Reader::from_reader(ran.stdout.as_bytes());
        assert!(reader.headers().unwrap().iter().any(|field| field == "rate"), "{line}");
        assert!(
            reader
                .records()
                .all(|record| record.is_ok_and(|record| record.iter().any(|field| field.starts_with("0.0")))),
            "{line}"
        );
    }
}

#[test]
fn arguments_reach_the_server() {
    let mock = Mock::start();
    let check = |line: &str, parts: &[&str]| {
        assert_eq!(mock.run(line).code, Some(0), "{line}");
        assert_contains(line, &mock.requests().join("\n"), parts);
    };
    // The mock has no rate from nbkr, which is an error, but the server was asked.
    assert_eq!(mock.run("latest KGS/USD UZS/USD --source timesca --source nbkr").code, Some(1));
    assert_contains("latest", &mock.requests().join("\n"), &["[\"KGS/USD\", \"UZS/USD\"]", "[\"timesca\", \"nbkr\"]"]);
    check(
        "rate KGS/USD --source nbkr --at 2025-12-08 --max-age 2d --known-time 2025-12-09T00:00:00.5Z",
        &["source: \"nbkr\"", "date: \"2025-12-08\"", "seconds: 172800", "nanos: 500000000"],
    );
    check(
        "change UZS/USD --over 1mo --decimal-places 3",
        &["Window { count: 1, unit: Month }", "decimal_places: Some(3)", "end_time: None"],
    );
    check(
        "history KGS/USD --from -7d --to now --desc --limit 3",
        &["descending: true", "page_size: 3", "start_time: Some"],
    );
    check("series --known-time 2025-12-08", &["known_time: Some(Timestamp { seconds: 1765152000"]);
    // The second page is requested with the token of the first.
    check("revisions KGS/USD --from 2025-12-08", &["page_token: \"\"", "page_token: \"2\""]);
}

#[test]
fn history_reads_pages_up_to_its_limit() {
    let mock = Mock::start();
    let check = |line: &str, rows: usize, stderr: &str| {
        let ran = mock.run(line);
        assert_eq!(ran.code, Some(0), "{line}");
        assert_eq!(ran.stdout.lines().count(), rows + 1, "{line}");
        assert_eq!(ran.stderr, stderr, "{line}");
    };
    let more = |which| format!("showing the {which} 50 runs; use --limit ROWS for more, or --from for others\n");
    check("history KGS/USD", 50, &more("newest"));
    check("history KGS/USD --asc", 50, &more("first"));
    check("history KGS/USD --from -7d", 50, &more("first"));
    check("history KGS/USD --limit 60", 60, "");
    check("history KGS/USD --limit 1000", RUN_COUNT, "");
    check("history KGS/USD --output csv", RUN_COUNT, "");
    // Without a limit, CSV comes from a stream of columns, and is the same.
    let listed = mock.run("history KGS/USD --output csv --asc --limit 1000").stdout;
    assert_eq!(mock.run("history KGS/USD --output csv").stdout, listed);
    assert_eq!(mock.run("history KGS/USD --output json").json().as_array().map(Vec::len), Some(RUN_COUNT));
}

#[test]
fn lists_show_the_newest_rows_unless_a_start_or_an_order_is_given() {
    let mock = Mock::start();
    for list in [
        "history KGS/USD",
        "candles KGS/USD",
        "changes KGS/USD",
        "compare KGS/USD --sources timesca,nbkr",
        "revisions KGS/USD",
        "gaps KGS/USD",
    ] {
        let check = |flags: &str, descending: bool| {
            let line = format!("{list} {flags}");
            assert_eq!(mock.run(&line).code, Some(0), "{line}");
            assert_contains(&line, &mock.requests().join("\n"), &[&format!("descending: {descending}")]);
        };
        check("", true);
        check("--limit 3 --output csv", true);
        check("--desc", true);
        check("--desc --from 2025-12-01", true);
        check("--asc", false);
        check("--from 2025-12-01", false);
        // All rows are written as they arrive; those of history come from a stream.
        if list.starts_with("history") {
            mock.run(&format!("{list} --output csv"));
            assert_contains(list, &mock.requests().join("\n"), &["StreamRunsRequest"]);
        } else {
            check("--output csv", false);
        }
    }
}

#[test]
fn server_errors_exit_with_1_and_print_their_details() {
    let mock = Mock::start();
    let check = |line: &str, expect: &str| {
        let ran = mock.run(line);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), expect), "{line}");
    };
    check("rate TMT/USD", "error: not found: no quote of TMT/USD yet \\u{1b}[2J\n  reason: NO_QUOTE_YET\n");
    check(
        "rate TJS/USD --output json",
        "error: the server cannot serve this request now: the server is starting\n  try again in 3 s\n",
    );
    // Rows before the damage are printed, and the exit status shows that rows are missing.
    for line in ["history UZS/USD --asc", "history UZS/USD --output csv", "history UZS/USD --output json"] {
        let ran = mock.run(line);
        assert_eq!((ran.code, ran.stdout.lines().count()), (Some(1), 41), "{line}");
        assert_contains(line, &ran.stderr, &["stored data is damaged: a block cannot be read"]);
        assert!(!ran.stdout.contains(']'), "{line}: the array looks complete");
    }
}

#[test]
fn unresponsive_server_ends_the_command_after_the_timeout() {
    let mock = Mock::start();
    let begun = Instant::now();
    let ran = mock.run("rate KZT/USD --timeout 1s");
    assert_eq!(ran.code, Some(1));
    assert_contains("timeout", &ran.stderr, &["within 1s", "--timeout"]);
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn csv_file_is_sent_in_batches_and_refusals_name_lines() {
    let (mock, dir) = (Mock::start(), TestDir::new());
    let good = "KGS/USD,nbkr,2025-12-08,0.01144,-0\n";
    let zero = "KGS/USD,nbkr,2025-12-08,0,\n";
    let path = dir.file("a.csv", format!("{CSV_HEADER}{good}nonsense\n{zero}\n{good}"));
    let ran = mock.run(&format!("ingest {}", name(&path)));
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert_contains("summary", &ran.stdout, &["new runs", "collapsed", "malformed", "sequence"]);
    let expect = [
        "line 3: refused (MALFORMED_ROW): the header has 5 fields, this row has 1\n",
        "line 4: refused (INVALID_RATE): rate '0' is zero\\u{1b}[2J\n",
    ];
    assert_contains("refusals", &ran.stderr, &expect);
    assert_eq!(mock.requests(), ["(3, 1, false)"]);

    let ran = mock.run(&format!("ingest {} --output json --revise --dry-run", name(&path)));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(3), ""));
    let report = &ran.json()[0];
    assert_eq!((&report["new_run_count"], &report["refused_count"]), (&json!(2), &json!(1)));
    assert_eq!((&report["malformed_count"], &report["sequence"]), (&json!(1), &json!(9)));
    let lines: Vec<_> = report["refusals"].as_array().into_iter().flatten().map(|one| &one["line"]).collect();
    assert_eq!(lines, [&json!(3), &json!(4)]);
    assert_eq!(mock.requests(), ["(3, 2, true)"]);

    let all_good = dir.file("b.csv", format!("{CSV_HEADER}{good}"));
    assert_eq!(mock.run(&format!("ingest {}", name(&all_good))).code, Some(0));
    assert_eq!(mock.run(&format!("ingest {} --time now", name(&all_good))).code, Some(2));
}

#[test]
fn line_numbers_are_correct_across_batches() {
    let (mock, dir) = (Mock::start(), TestDir::new());
    let mut file = CSV_HEADER.replace('\n', "\r\n");
    for line in 2..=200_001 {
        let rate = if line % 50_000 == 1 { "0" } else { "0.01144" };
        file.extend(["KGS/USD,nbkr,2025-12-08,", rate, ",\r\n"]);
    }
    let ran = mock.run(&format!("ingest {} --output json", name(&dir.file("a.csv", file))));
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    let report = &ran.json()[0];
    assert_eq!(report["new_run_count"], json!(199_996));
    let lines: Vec<_> = report["refusals"].as_array().into_iter().flatten().map(|one| &one["line"]).collect();
    assert_eq!(lines, [&json!(50_001), &json!(100_001), &json!(150_001), &json!(200_001)]);
    // The rows of 2 MiB are a batch; a row that only the server can refuse is in a batch of its own.
    assert_eq!(mock.requests().len(), 8);
}

#[test]
fn table_output_lists_at_most_twenty_refusals() {
    let mock = Mock::start();
    let file = format!("{CSV_HEADER}{}", "KGS/USD,nbkr,2025-12-08,0,\n".repeat(100));
    let ran = mock.run_with_input("ingest -", &file);
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(3), 21));
    assert_contains("rest", &ran.stderr, &["80 more refused"]);
}

#[test]
fn ticker_page_is_sent_as_one_request() {
    let (mock, dir) = (Mock::start(), TestDir::new());
    let page = "08 December 2025\n• KGS/USD = 0.01144 -0%\n";
    let ran = mock.run_with_input("ingest -", page);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_contains("page", &ran.stdout, &["-: read 40 quotes in 8 cycles: 1 tick\n", "0.01144", "new runs"]);
    assert_eq!(mock.requests(), [format!("(\"timesca\", {}, None, 1, false)", page.len())]);

    let path = dir.file("page.txt", "ambiguous");
    let ran = mock.run(&format!("ingest {} --source kase --time 2025-12-08 --output json", name(&path)));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(3), ""));
    let report = &ran.json()[0];
    assert_eq!((&report["quote_count"], &report["ticks"][0]["source"]), (&json!(40), &json!("kase")));
    let refusal = json!({
        "line": null, "index": 1, "reason": "AMBIGUOUS", "message": "UZS/USD: the cycles disagree",
        "stored_rate": null, "stored_reported_change_percent": null,
    });
    assert_eq!(report["refusals"], json!([refusal]));
    assert_contains("time", &mock.requests()[0], &["kase", "seconds: 1765152000"]);
}

#[test]
fn failed_file_does_not_stop_the_next() {
    let (mock, dir) = (Mock::start(), TestDir::new());
    let check = |bad: &Path, parts: &[&str]| {
        let good = dir.file("good.txt", "08 December 2025");
        let ran = mock.run(&format!("ingest {} {} --output csv", name(bad), name(&good)));
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert_contains(name(bad), &ran.stderr, &[&[name(bad)], parts].concat());
        assert_contains(name(bad), &ran.stdout, &["good.txt,page,1,"]);
    };
    check(&dir.0.path().join("absent"), &["No such file"]);
    check(dir.0.path(), &["directory"]);
    check(
        &dir.file("undated", "no date"),
        &["observed_time: the page shows no date; give the time", "set the observed time with --time TIME"],
    );
    check(&dir.file("huge", vec![b'x'; 10 << 20]), &["over 4 MiB"]);
    check(&dir.file("header", "pair,rate\n"), &["no column 'source'"]);
    check(&dir.file("other.csv", "date,base,quote,rate\n"), &["column 'date' is not known; the columns are pair"]);
}

#[test]
fn broken_stream_reports_the_rows_processed() {
    let mock = Mock::start();
    let good = "KGS/USD,nbkr,2025-12-08,0.01144,\n";
    let file = format!("{CSV_HEADER}{}END/USD,nbkr,2025-12-08,1,\n", good.repeat(5_000));
    let ran = mock.run_with_input("ingest - --output csv", &file);
    assert_eq!(ran.code, Some(1));
    let parts =
        ["5000 rows processed before this error; sending the file again does not change these rows", "shutting down"];
    assert_contains("break", &ran.stderr, &parts);
    assert_contains("summary", &ran.stdout, &["-,csv,5000,"]);
}

#[test]
fn closed_stdout_is_no_failure() {
    let mock = Mock::start();
    for line in ["history KGS/USD --output csv", "history KGS/USD", "latest --output json", "rate KGS/USD"] {
        let mut child = mock.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{line}");
    }
}

#[test]
fn interrupt_ends_the_command_immediately() {
    let mock = Mock::start();
    // The first command waits for its server, the second for its input.
    for line in ["rate KZT/USD", "ingest - --format csv"] {
        let mut child =
            mock.command(line).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        if line.starts_with("ingest") {
            let row = "KGS/USD,nbkr,2025-12-08,0.01144,\n".repeat(5_001);
            child.stdin.as_mut().unwrap().write_all(format!("{CSV_HEADER}{row}").as_bytes()).unwrap();
        }
        while mock.requests().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let killed = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
        assert!(killed.success());
        assert_eq!(child.wait().unwrap().code(), Some(130), "{line}");
    }
}
