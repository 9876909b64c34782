//! The command `backfill`, with a real server and a local copy of a bank's site.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use silkrate::domain::Timestamp;
use silkrate::proto::v1;

use crate::publisher::{Publisher, Reply, recorded};
use crate::support::TestServer;

/// Exit status, summary from standard output, and standard error.
struct Ran {
    code: Option<i32>,
    summary: Value,
    stderr: String,
}

/// Starts a server with its clock at the end of May 2026.
async fn server() -> TestServer {
    let server = TestServer::start(&[]).await;
    server.clock.set(Timestamp::parse("2026-05-30").unwrap());
    server
}

async fn backfill(server: &TestServer, bank: &Publisher, line: &str) -> Ran {
    let source = line.split(' ').next().unwrap().to_owned();
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    command.args(["backfill", "--pace", "100ms", "--output", "json", "--source"]).args(line.split(' '));
    command.arg("--feed-url").arg(format!("{source}={}", bank.base_url));
    command.env("SILKRATE_ENDPOINT", server.addr.to_string()).env_remove("SILKRATE_FEED_URL").stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let summary = summary.get(0).cloned().unwrap_or_default();
    Ran { code: output.status.code(), summary, stderr: String::from_utf8(output.stderr).unwrap() }
}

#[track_caller]
fn check(ran: &Ran, code: i32, expect: &[(&str, Value)]) {
    assert_eq!(ran.code, Some(code), "{}", ran.stderr);
    for (field, expect) in expect {
        assert_eq!(&ran.summary[field], expect, "{field} of {}\n{}", ran.summary, ran.stderr);
    }
}

/// Replies like NBT, which serves its newest table for a day without a table.
fn nbt(path: &str) -> Reply {
    Reply::Body(recorded(if path.contains("2026-05-18") {
        "nbt/export-2026-05-18.xml"
    } else {
        "nbt/export-2026-05-19.xml"
    }))
}

#[tokio::test]
async fn table_of_another_day_is_skipped_and_second_run_fetches_missing_days() {
    let (server, bank) = (server().await, Publisher::start(nbt).await);
    let line = "nbt --from 2026-05-17 --to 2026-05-20";
    let others = json!([
        { "asked": "2026-05-17", "found": "2026-05-19" },
        { "asked": "2026-05-20", "found": "2026-05-19" }
    ]);
    let validated = backfill(&server, &bank, &format!("{line} --dry-run")).await;
    check(&validated, 0, &[("table_count", json!(2)), ("known_count", json!(0))]);
    let first = backfill(&server, &bank, line).await;
    check(
        &first,
        0,
        &[
            ("known_day_count", json!(0)),
            ("table_count", json!(2)),
            ("absent_day_count", json!(0)),
            ("other_dates", others.clone()),
            ("known_count", json!(0)),
            ("refused_count", json!(0)),
        ],
    );
    let tick_count =
        first.summary["new_run_count"].as_u64().unwrap() + first.summary["collapsed_count"].as_u64().unwrap();
    assert!(tick_count >= 8, "{}", first.summary);
    let before = bank.requests().len();
    let second = backfill(&server, &bank, line).await;
    check(&second, 0, &[("known_day_count", json!(2)), ("table_count", json!(0)), ("other_dates", others)]);
    let requests: Vec<String> = bank.requests().split_off(before);
    assert!(
        requests.len() == 2 && requests[0].contains("2026-05-17") && requests[1].contains("2026-05-20"),
        "{requests:?}"
    );
    let again = backfill(&server, &bank, &format!("{line} --again")).await;
    check(&again, 0, &[("table_count", json!(2)), ("known_count", json!(tick_count)), ("new_run_count", json!(0))]);
}

/// The dollar rate of CBT is pegged, and CBT has no table on Sundays: all days are one run, and one day in it is
/// missing.
#[tokio::test]
async fn second_run_skips_known_days_of_a_pegged_rate() {
    let days = [18, 19, 20, 21, 22, 23, 25, 26];
    let bank = Publisher::start(move |path| {
        let day = days.iter().find(|day| path == format!("/kurs/2026/{day}052026.xml"));
        let Some(day) = day else { return Reply::ABSENT };
        let body = String::from_utf8(recorded("cbt/20052026.xml")).unwrap();
        Reply::Body(body.replace("<date>20.05.2026", &format!("<date>{day}.05.2026")).into_bytes())
    })
    .await;
    let server = server().await;
    let first = backfill(&server, &bank, "cbt --from 2026-05-18 --to 2026-05-25").await;
    check(&first, 0, &[("table_count", json!(7)), ("absent_day_count", json!(1))]);
    let before = bank.requests().len();
    let second = backfill(&server, &bank, "cbt --from 2026-05-19 --to 2026-05-26").await;
    check(&second, 0, &[("known_day_count", json!(6)), ("table_count", json!(1)), ("absent_day_count", json!(1))]);
    assert_eq!(bank.requests().split_off(before), ["/kurs/2026/24052026.xml", "/kurs/2026/26052026.xml"]);
}

/// CBU with a missing day, a day that fails at first, and a day that is refused until `is_open` is set.
#[tokio::test]
async fn refusal_by_the_bank_stops_backfill_and_next_run_resumes() {
    let (tries, is_open) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let switch = Arc::clone(&is_open);
    let bank = Publisher::start(move |path| match path {
        path if path.ends_with("2026-03-31/") => Reply::ABSENT,
        path if path.ends_with("2026-04-01/") && tries.fetch_add(1, Ordering::SeqCst) < 2 => {
            Reply::Status("503 Service Unavailable", "")
        }
        path if path.ends_with("2026-04-01/") => Reply::recorded("cbu/json-all-2026-04-01.json"),
        _ if switch.load(Ordering::SeqCst) == 0 => Reply::Status("403 Forbidden", ""),
        _ => Reply::recorded("cbu/json-all-2026-04-02.json"),
    })
    .await;
    let server = server().await;
    let line = "cbu --from 2026-03-31 --to 2026-04-02";
    let stopped = backfill(&server, &bank, line).await;
    check(&stopped, 1, &[("absent_day_count", json!(1)), ("table_count", json!(1)), ("new_run_count", json!(5))]);
    assert!(stopped.stderr.contains("error: 2026-04-02: 127.0.0.1 answered 403 Forbidden"), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("to resume from that day, run the same command later"), "{}", stopped.stderr);
    assert_eq!(bank.requests().len(), 5);
    is_open.store(1, Ordering::SeqCst);
    let resumed = backfill(&server, &bank, line).await;
    check(&resumed, 0, &[("known_day_count", json!(1)), ("table_count", json!(1)), ("absent_day_count", json!(1))]);
}

#[tokio::test]
async fn unreadable_and_refused_tables_are_reported_and_others_stored() {
    let bank = Publisher::start(|path| match path {
        path if path.contains("2026-05-18") => Reply::Body(b"<html><title>Busy</title></html>".to_vec()),
        path => nbt(path),
    })
    .await;
    let server = server().await;
    let ran = backfill(&server, &bank, "nbt --from 2026-05-18 --to 2026-05-19").await;
    check(&ran, 3, &[("unreadable_day_count", json!(1)), ("table_count", json!(1))]);
    let remark = ran.summary["remarks"][0].as_str().unwrap();
    assert!(remark.starts_with("2026-05-18: the bank answered with a web page"), "{remark}");
    // A corrected table conflicts with the stored one.
    let corrected = Publisher::start(|path| {
        let Reply::Body(body) = nbt(path) else { unreachable!("NBT always has a table") };
        Reply::Body(String::from_utf8(body).unwrap().replace("<Value>9.", "<Value>8.").into_bytes())
    })
    .await;
    let line = "nbt --from 2026-05-19 --to 2026-05-19 --again";
    check(&backfill(&server, &corrected, line).await, 3, &[("refused_count", json!(1)), ("table_count", json!(1))]);
    let revised = backfill(&server, &corrected, &format!("{line} --revise")).await;
    check(&revised, 0, &[("refused_count", json!(0)), ("revised_count", json!(1))]);
}

/// A CBU table in which the USD rate has its decimal point two places too far left.
#[tokio::test]
async fn shifted_decimal_point_is_held_and_reported() {
    let bank = Publisher::start(|path| {
        if path.ends_with("2026-04-01/") {
            return Reply::recorded("cbu/json-all-2026-04-01.json");
        }
        let body = String::from_utf8(recorded("cbu/json-all-2026-04-02.json")).unwrap();
        let at = body.find("\"Ccy\":\"USD\"").unwrap();
        let (before, after) = body.split_at(at);
        let dollar = after.split_once("\"Rate\":\"").unwrap().1.split_once('"').unwrap().0;
        let (whole, places) = dollar.split_at(dollar.len() - 5);
        let outlier = format!("{whole}.{}", places.replace('.', ""));
        Reply::Body(format!("{before}{}", after.replacen(dollar, &outlier, 1)).into_bytes())
    })
    .await;
    let server = server().await;
    let line = "cbu --from 2026-04-01 --to 2026-04-02";
    let ran = backfill(&server, &bank, line).await;
    check(&ran, 3, &[("table_count", json!(2)), ("quarantined_count", json!(1)), ("refused_count", json!(0))]);
    // The tick is not served, and it is still held when fetched again.
    let again = backfill(&server, &bank, &format!("{line} --again")).await;
    check(&again, 3, &[("quarantined_count", json!(1)), ("new_run_count", json!(0))]);
}

/// The command pads rates in the same way as a follower of the server.
#[tokio::test]
async fn rates_are_padded_to_the_minimum_places_of_the_server() {
    let bank = Publisher::start(|path| match path {
        "/kurs/2026/20052026.xml" => Reply::recorded("cbt/20052026.xml"),
        _ => Reply::ABSENT,
    })
    .await;
    for (flags, expect) in [
        ([].as_slice(), "3.5000"),
        (&["--minimum-places", "cbt=1"], "3.5"),
        (&["--minimum-places", "cbt=6"], "3.500000"),
    ] {
        let server = TestServer::start(flags).await;
        server.clock.set(Timestamp::parse("2026-05-30").unwrap());
        check(&backfill(&server, &bank, "cbt --from 2026-05-20 --to 2026-05-20").await, 0, &[]);
        let request = v1::GetRateRequest { pair: "USD/TMT".to_owned(), ..v1::GetRateRequest::default() };
        let rate = server.rates().get_rate(request).await.unwrap().into_inner().rate;
        assert_eq!(rate, expect, "{flags:?}");
        server.stop().await;
    }
}

#[tokio::test]
async fn wrong_usage_exits_with_2_before_any_request() {
    let (server, bank) = (server().await, Publisher::start(nbt).await);
    for (line, expect) in [
        ("nbkr --from 2026-05-01", "nbkr publishes only its newest table, at an address without a date"),
        ("timesca --from 2026-05-01", "timesca publishes only its newest"),
        ("nbt --from 2026-05-02 --to 2026-05-01", "it must have 1 to 20000 days"),
        ("nbt --from 1989-05-02 --to 2026-05-01", "before 1990"),
        ("nbt --from yesterday", "not a calendar day"),
    ] {
        let ran = backfill(&server, &bank, line).await;
        assert_eq!(ran.code, Some(2), "{line}: {}", ran.stderr);
        assert!(ran.stderr.contains(expect), "{line}: {}", ran.stderr);
    }
    assert_eq!(bank.requests(), Vec::<String>::new());
}
