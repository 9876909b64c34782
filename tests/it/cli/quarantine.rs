//! The command `quarantine`, and the reports of held ticks by commands that ingest, with a real server.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use silkrate::proto::v1;
use silkrate::proto::v1::stream_ticks_request::Batch;

use crate::cli::command::Ran;
use crate::support;
use crate::support::{TestServer, tick};
use crate::web;

/// Runs a command; its arguments are separated by single spaces, and `input` goes to standard input.
async fn run(server: &TestServer, line: &str, input: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    command.args(line.split(' ')).env("SILKRATE_ENDPOINT", server.addr.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_owned();
    let run_command = move || {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(run_command).await.unwrap().into()
}

const CSV: &str = "\
pair,source,observed_time,rate
USD/UZS,cbu,2025-12-01,12000.50
USD/UZS,cbu,2025-12-02,120.01
USD/UZS,cbu,2025-12-03,12002.00
USD/UZS,cbu,2025-12-04,120020
KGS/USD,nbkr,2025-12-01,0.01144
KGS/USD,nbkr,2025-12-02,1.144
";

#[tokio::test(flavor = "multi_thread")]
async fn held_ticks_are_reported_listed_released_and_discarded() {
    let server = TestServer::start(&[]).await;
    let validated = run(&server, "ingest - --format csv --dry-run --output json", CSV).await;
    assert_eq!(
        (validated.code, &validated.json()[0]["quarantined_count"]),
        (Some(3), &json!(3)),
        "{}",
        validated.stderr
    );
    let held = json!({ "line": 3, "index": null, "id": null, "state": "HELD", "rate_in_force": "12000.50" });
    assert_eq!(validated.json()[0]["held_ticks"][0], held);
    assert_eq!(run(&server, "quarantine list", "").await.stderr, "no held ticks\n");
    let sent = run(&server, "ingest - --format csv", CSV).await;
    assert_eq!(sent.code, Some(3), "{}", sent.stderr);
    assert!(sent.stderr.contains("-: 3 ticks held (too far from the rate in force); see 'silkrate quarantine list'"));
    assert!(!sent.stderr.contains("refused"), "{}", sent.stderr);

    let table = run(&server, "quarantine list --source cbu", "").await;
    assert_eq!(table.code, Some(0), "{}", table.stderr);
    let titles = "id  pair     source  observed";
    assert!(table.stdout.starts_with(titles) && !table.stdout.contains("decided"), "{}", table.stdout);
    assert!(table.stdout.contains("120.01  12000.50") && !table.stdout.contains("KGS/USD"), "{}", table.stdout);
    let csv = run(&server, "quarantine list --output csv", "").await.stdout;
    let header =
        "id,pair,source,observed_time,rate,rate_in_force,reported_change_percent,held_time,state,decided_time,note\n";
    assert!(csv.starts_with(header), "{csv}");
    assert!(csv.contains("\n2,USD/UZS,cbu,2025-12-04T00:00:00Z,120020,12002.00,,2025-12-08T"), "{csv}");
    assert_eq!(csv.lines().count(), 4, "{csv}");
    let ids = async |flags: &str| -> Vec<u64> {
        let listed = run(&server, &format!("quarantine list --output json {flags}"), "").await.json();
        listed.as_array().unwrap().iter().map(|tick| tick["id"].as_u64().unwrap()).collect()
    };
    assert_eq!(ids("--limit 2").await, [2, 3]);
    assert_eq!(ids("--limit 2 --desc").await, [3, 2]);
    assert_eq!(ids("--limit 2 --asc").await, [1, 2]);
    let of_pair = run(&server, "quarantine list KGS/USD", "").await;
    assert_eq!(
        of_pair.stdout.lines().skip(1).filter(|line| line.contains("  KGS/USD  ")).count(),
        1,
        "{}",
        of_pair.stdout
    );
    for command in ["list --source nosuch", "list --pair TMT/USD", "list tmt-usd", "discard --all --source nosuch"] {
        let unknown = run(&server, &format!("quarantine {command}"), "").await;
        assert_eq!(unknown.stderr.lines().count(), 1, "{command}: {}", unknown.stderr);
        assert_eq!(unknown.code, Some(1), "{command}");
        assert!(unknown.stderr.contains("error: there is no series"), "{command}: {}", unknown.stderr);
    }

    let released = run(&server, "quarantine release 1 99 --note checked", "").await;
    assert_eq!(released.code, Some(3), "{}", released.stderr);
    assert!(released.stdout.contains("1  NEW_RUN") && released.stdout.contains("99  REFUSED"), "{}", released.stdout);
    assert!(released.stderr.contains("99: no held tick has id 99; list the held ticks"), "{}", released.stderr);
    let discarded = run(&server, "quarantine discard --all --source cbu --output json", "").await;
    assert_eq!(discarded.code, Some(0), "{}", discarded.stderr);
    let expect = json!([{ "id": 2, "outcome": "DISCARDED", "reason": null, "message": null, "stored_rate": null,
        "stored_reported_change_percent": null }]);
    assert_eq!(discarded.json(), expect);
    let all = run(&server, "quarantine list --state all --output json", "").await.json();
    let states: Vec<&Value> = all.as_array().unwrap().iter().map(|tick| &tick["state"]).collect();
    assert_eq!(states, [&json!("RELEASED"), &json!("DISCARDED"), &json!("HELD")]);
    assert_eq!(
        (&all[0]["note"], &all[0]["rate"], &all[2]["decided_time"]),
        (&json!("checked"), &json!("120.01"), &json!(null))
    );
    // When the file is sent again, discarded and held ticks keep their state, and the other ticks are known.
    let again = run(&server, "ingest - --format csv --output json", CSV).await.json();
    assert_eq!((&again[0]["known_count"], &again[0]["quarantined_count"]), (&json!(4), &json!(2)));
    let named = |line: u32, id: u32, state: &str, rate: &str| json!({ "line": line, "index": null, "id": id, "state": state, "rate_in_force": rate });
    let expect = json!([named(5, 2, "DISCARDED", "12002.00"), named(7, 3, "HELD", "0.01144")]);
    assert_eq!(again[0]["held_ticks"], expect);
    let stderr = run(&server, "ingest - --format csv", CSV).await.stderr;
    assert!(stderr.contains("-: 1 tick already discarded, 1 tick held (too far"), "{stderr}");
    let rest = run(&server, "quarantine release --all", "").await;
    assert_eq!((rest.code, rest.stdout.contains("3  NEW_RUN")), (Some(0), true), "{}{}", rest.stdout, rest.stderr);
    assert_eq!(run(&server, "quarantine release --all", "").await.stderr, "no held ticks\n");
}

/// Follows the steps of `docs/OPERATIONS.md`, section Quarantine, for a wrong value in force.
#[tokio::test(flavor = "multi_thread")]
async fn series_with_a_wrong_first_rate_can_be_corrected() {
    let server = TestServer::start(&[]).await;
    let header = "pair,source,observed_time,rate";
    let wrong_first = "USD/KZT,nbk,2025-12-01,5.105\nUSD/KZT,nbk,2025-12-02,511.20\nUSD/KZT,nbk,2025-12-03,512.30";
    let sent = run(&server, "ingest - --format csv --output json", &format!("{header}\n{wrong_first}\n")).await.json();
    assert_eq!((&sent[0]["new_run_count"], &sent[0]["quarantined_count"]), (&json!(1), &json!(2)));
    let correction = format!("{header}\nUSD/KZT,nbk,2025-12-01,510.50\n");
    let revised = run(&server, "ingest - --format csv --revise", &correction).await;
    assert_eq!(revised.code, Some(3), "{}", revised.stderr);
    assert!(revised.stderr.contains("1 tick held"), "{}", revised.stderr);
    let released = run(&server, "quarantine release --all --source nbk --revise --output csv", "").await;
    assert_eq!(released.code, Some(0), "{}", released.stderr);
    let outcomes: Vec<&str> = released.stdout.lines().skip(1).map(|line| line.trim_end_matches(',')).collect();
    assert_eq!(outcomes, ["3,REVISED", "1,NEW_RUN", "2,NEW_RUN"]);
    let history = run(&server, "history USD/KZT --output json", "").await.json();
    let rates: Vec<&Value> = history.as_array().unwrap().iter().map(|run| &run["rate"]).collect();
    assert_eq!(rates, ["510.50", "511.20", "512.30"]);
    // The next correct tick passes, and the replaced rate is still readable as a revision.
    let next = format!("{header}\nUSD/KZT,nbk,2025-12-04,513.00\nUSD/KZT,nbk,2025-12-01,510.50\n");
    assert_eq!(run(&server, "ingest - --format csv", &next).await.code, Some(0));
    let before = run(&server, "revisions USD/KZT --output json", "").await.json();
    assert_eq!(before[0]["rate"], "5.105");
}

/// A decision is permanent. The test stores a discarded tick nevertheless, in the way that `docs/OPERATIONS.md`,
/// section Quarantine, describes.
#[tokio::test(flavor = "multi_thread")]
async fn discarded_tick_is_stored_if_the_quarantine_is_off() {
    let server = TestServer::start(&[]).await;
    let csv = "pair,source,observed_time,rate\nUSD/KZT,nbk,2025-12-01,511.20\nUSD/KZT,nbk,2025-12-02,5.113\n";
    run(&server, "ingest - --format csv", csv).await;
    assert_eq!(run(&server, "quarantine discard 1", "").await.code, Some(0));
    let released = run(&server, "quarantine release 1", "").await;
    assert!(released.stderr.contains("set --quarantine-factor of its source to none and send the tick again"));
    let server = TestServer::start_with_store(server.stop().await.0, &["--quarantine-factor", "nbk=none"]).await;
    let sent = run(&server, "ingest - --format csv --output json", csv).await;
    assert_eq!((sent.code, &sent.json()[0]["new_run_count"]), (Some(0), &json!(1)));
    // After the quarantine is on again, the stored tick is known, with and without --revise.
    let server = TestServer::start_with_store(server.stop().await.0, &[]).await;
    for line in ["ingest - --format csv --output json", "ingest - --format csv --revise --output json"] {
        let again = run(&server, line, csv).await;
        assert_eq!((again.code, &again.json()[0]["known_count"]), (Some(0), &json!(2)), "{}", again.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantine_applies_to_pages_columns_and_load_files() {
    let page = |rate: &str| format!("08 December 2025\n• KGS/USD = {rate} 0%\n• KZT/USD = 0.00196 0%\n");
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<String> = [("good", "0.01144"), ("slip", "1.144")]
        .into_iter()
        .map(|(name, rate)| {
            let path = dir.path().join(name);
            let text = page(rate).replace("08 December", if name == "good" { "07 December" } else { "08 December" });
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        })
        .collect();
    let server = TestServer::start(&["--load", &files[0], &files[1]]).await;
    let held = async || {
        server.ingest().list_quarantine(v1::ListQuarantineRequest::default()).await.unwrap().into_inner().ticks
    };
    let of_page = held().await;
    assert_eq!((of_page.len(), of_page[0].rate.as_str(), of_page[0].source.as_str()), (1, "1.144", "timesca"));
    let request = v1::IngestPageRequest { content: page("1.144").into_bytes().into(), ..Default::default() };
    let response = server.ingest().ingest_page(request).await.unwrap().into_inner().summary.unwrap();
    assert_eq!((response.known_count, response.quarantined_count), (1, 1));
    assert_eq!(held().await.len(), 1);

    let columns = v1::TickColumns {
        pair: "KGS/USD".to_owned(),
        source: "timesca".to_owned(),
        places: 5,
        base_time: Some(support::time(-10)),
        observed_time_deltas: [0_i64, 1_000_000]
            .iter()
            .flat_map(|delta| delta.to_le_bytes())
            .collect::<Vec<u8>>()
            .into(),
        rate_mantissas: [1_145_u64, 114_500]
            .iter()
            .flat_map(|mantissa| mantissa.to_le_bytes())
            .collect::<Vec<u8>>()
            .into(),
        ..Default::default()
    };
    let ticks = v1::TickBatch { ticks: vec![tick("KGS/USD", -8, "0.0001"), tick("KGS/USD", -7, "0.01145")] };
    let batches = [Batch::Columns(columns), Batch::Ticks(ticks)]
        .map(|batch| v1::StreamTicksRequest { batch: Some(batch), ..Default::default() });
    let mut responses = server.ingest().stream_ticks(tokio_stream::iter(batches)).await.unwrap().into_inner();
    let named =
        |held: &[v1::HeldTick]| -> Vec<(u32, Option<u64>)> { held.iter().map(|held| (held.index, held.id)).collect() };
    for (expect, held) in [([1, 0, 1], [(1, Some(2))]), ([0, 1, 1], [(0, Some(3))])] {
        let result = responses.message().await.unwrap().unwrap().result.unwrap();
        let summary = result.summary.unwrap();
        assert_eq!([summary.new_run_count, summary.collapsed_count, summary.quarantined_count], expect);
        assert_eq!(named(&result.held_ticks), held);
    }
    assert_eq!(held().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_lists_held_ticks_and_metrics_count_them() {
    let server = TestServer::start(&[]).await;
    let ticks = vec![tick("KGS/USD", -60, "0.01144"), tick("KGS/USD", -50, "1.144"), tick("KGS/USD", -40, "0.00001")];
    server.store(&ticks).await;
    let list = web::get(server.http_addr, "/v1/quarantine?sources=timesca&states=held,released").await;
    assert_eq!(list.status, 200, "{list:?}");
    let ticks = &list.json()["ticks"];
    assert_eq!((&ticks[0]["id"], &ticks[0]["rate"], &ticks[0]["state"]), (&json!(1), &json!("1.144"), &json!("HELD")));
    assert_eq!((&ticks[0]["rate_in_force"], &ticks[1]["note"]), (&json!("0.01144"), &json!(null)));
    let tag = list.header("etag").unwrap().to_owned();
    let same = web::get_with(
        server.http_addr,
        "/v1/quarantine?sources=timesca&states=held,released",
        &[("if-none-match", &tag)],
    )
    .await;
    assert_eq!(same.status, 304);
    let csv = web::get(server.http_addr, "/v1/quarantine?format=csv&end_time=2025-12-08T11:59:20Z").await;
    assert!(csv.body.starts_with("id,pair,source,observed_time,rate,"), "{}", csv.body);
    assert_eq!(csv.csv().len(), 1);
    let page = web::get(server.http_addr, "/v1/quarantine?page_size=1").await;
    assert!(page.header("link").unwrap().contains("page_token="), "{page:?}");
    assert_eq!(web::get(server.http_addr, "/v1/quarantine?states=open").await.status, 400);
    let metric = async |name: &str| {
        let text = web::get(server.http_addr, "/metrics").await.body;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))
    };
    assert_eq!(metric("silkrate_quarantined_ticks{source=\"timesca\"}").await.as_deref(), Some("2"));
    assert_eq!(metric("silkrate_ingest_ticks_total{outcome=\"quarantined\"}").await.as_deref(), Some("2"));
    assert_eq!(metric("silkrate_rate{pair=\"KGS/USD\",source=\"timesca\"}").await.as_deref(), Some("0.01144"));
    assert_eq!(run(&server, "quarantine discard --all", "").await.code, Some(0));
    assert_eq!(metric("silkrate_quarantined_ticks{source=\"timesca\"}").await.as_deref(), Some("0"));
}
