//! Quarantine over a real socket: which ticks are held, and the effect of decisions.

use silkrate::proto::v1;
use silkrate::proto::v1::{
    ConflictPolicy, QuarantineOutcome as Outcome, QuarantineRefusal as Refusal, QuarantineState,
};
use tonic::Code;

use crate::support::{TestServer, assert_invalid, tick, time};
use crate::web;

/// Counts in this order: new, collapsed, known, revised, refused, quarantined.
fn counts(summary: Option<v1::IngestSummary>) -> [u32; 6] {
    let s = summary.unwrap();
    [s.new_run_count, s.collapsed_count, s.known_count, s.revised_count, s.refused_count, s.quarantined_count]
}

async fn send(server: &TestServer, request: v1::IngestTicksRequest) -> v1::IngestTicksResponse {
    let count = u32::try_from(request.ticks.len()).unwrap();
    let response = server.ingest().ingest_ticks(request).await.unwrap().into_inner();
    assert_eq!(counts(response.summary).iter().sum::<u32>(), count, "the counts must add up to the batch size");
    response
}

async fn send_ticks(server: &TestServer, ticks: &[v1::Tick]) -> [u32; 6] {
    let request = v1::IngestTicksRequest { ticks: ticks.to_vec(), ..Default::default() };
    counts(send(server, request).await.summary)
}

/// Builds a tick of USD/UZS from `source`.
fn uzs_tick(source: &str, seconds: i64, rate: &str) -> v1::Tick {
    v1::Tick { source: source.to_owned(), ..tick("USD/UZS", seconds, rate) }
}

async fn list(server: &TestServer, request: v1::ListQuarantineRequest) -> v1::ListQuarantineResponse {
    server.ingest().list_quarantine(request).await.unwrap().into_inner()
}

async fn all(server: &TestServer) -> Vec<v1::QuarantinedTick> {
    list(server, v1::ListQuarantineRequest { states: vec![1, 2, 3], ..Default::default() }).await.ticks
}

/// Returns the rates held from a source, by id.
async fn held_rates(server: &TestServer, source: &str) -> Vec<String> {
    let request = v1::ListQuarantineRequest { sources: vec![source.to_owned()], ..Default::default() };
    list(server, request).await.ticks.into_iter().map(|tick| tick.rate).collect()
}

async fn release(server: &TestServer, ids: &[u64], policy: ConflictPolicy) -> v1::ReleaseQuarantineResponse {
    let request = v1::ReleaseQuarantineRequest {
        ids: ids.to_vec(),
        note: "checked with the bank".to_owned(),
        conflict_policy: policy.into(),
    };
    server.ingest().release_quarantine(request).await.unwrap().into_inner()
}

async fn discard(server: &TestServer, ids: &[u64]) -> v1::DiscardQuarantineResponse {
    let request = v1::DiscardQuarantineRequest { ids: ids.to_vec(), note: String::new() };
    server.ingest().discard_quarantine(request).await.unwrap().into_inner()
}

/// Returns the value of a metric in `/metrics`.
async fn metric(server: &TestServer, sample: &str) -> Option<u64> {
    let text = web::get(server.http_addr, "/metrics").await.body;
    text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test]
async fn metrics_count_decisions_and_their_commits() {
    let server = TestServer::start(&[]).await;
    let commits = async || metric(&server, "silkrate_commit_seconds_count").await.unwrap();
    let decided = async |outcome: &str| {
        let sample = format!("silkrate_quarantine_decisions_total{{outcome=\"{outcome}\"}}");
        metric(&server, &sample).await.unwrap_or(0)
    };
    send_ticks(&server, &[uzs_tick("cbu", -10, "12000"), uzs_tick("cbu", -5, "120"), uzs_tick("cbu", -4, "121")]).await;
    assert_eq!(commits().await, 1);
    release(&server, &[1], ConflictPolicy::Refuse).await;
    discard(&server, &[2]).await;
    assert_eq!((decided("released").await, decided("discarded").await, commits().await), (1, 1, 3));
    // Id 2 is already decided and id 7 does not exist: neither makes a commit.
    discard(&server, &[2, 7]).await;
    assert_eq!((decided("discarded").await, decided("refused").await, commits().await), (1, 1, 3));
    server.stop().await;
}

fn outcomes(decisions: &[v1::QuarantineDecision]) -> Vec<(u64, Outcome, Refusal)> {
    decisions.iter().map(|decision| (decision.id, decision.outcome(), decision.reason())).collect()
}

async fn runs(server: &TestServer, source: &str) -> Vec<String> {
    let request = v1::ListRunsRequest { pair: "USD/UZS".to_owned(), source: source.to_owned(), ..Default::default() };
    server.rates().list_runs(request).await.unwrap().into_inner().runs.into_iter().map(|run| run.rate).collect()
}

#[tokio::test]
async fn tick_is_compared_with_the_rate_in_force_at_its_own_time() {
    let server = TestServer::start(&[]).await;
    // Stores the ticks of `before` one by one, then sends `batch` and compares the held rates with `held`.
    let check = async |source: &str, before: &[(i64, &str)], batch: &[(i64, &str)], held: &[&str]| {
        for (seconds, rate) in before {
            assert_eq!(
                send_ticks(&server, &[uzs_tick(source, *seconds, rate)]).await[5],
                0,
                "{source}: {rate} must not be held"
            );
        }
        let ticks: Vec<v1::Tick> = batch.iter().map(|(seconds, rate)| uzs_tick(source, *seconds, rate)).collect();
        let counts = send_ticks(&server, &ticks).await;
        assert_eq!(counts[5] as usize, held.len(), "{source}: {counts:?}");
        assert_eq!(held_rates(&server, source).await, held, "{source}");
    };
    check("first", &[], &[(-100, "42103500")], &[]).await;
    check("near", &[(-100, "4210.35")], &[(-90, "21051.74"), (-80, "4210.35"), (-70, "842.08")], &[]).await;
    check("five-times", &[(-100, "4210.35")], &[(-90, "21051.75")], &["21051.75"]).await;
    check("a-fifth", &[(-100, "4210.35")], &[(-90, "842.07")], &["842.07"]).await;
    check("digits", &[(-100, "4210.35")], &[(-90, "21051.750000"), (-80, "842.0700")], &["21051.750000", "842.0700"])
        .await;
    // A held tick is not in force, and the other ticks of the batch are stored.
    let outliers = [(-90, "42103.5"), (-80, "4211.00"), (-70, "4.21"), (-60, "4212.00")];
    check("amid", &[(-100, "4210.35")], &outliers, &["42103.5", "4.21"]).await;
    // A tick is also compared with earlier ticks of the same batch, whatever their order in the batch.
    check("batch", &[], &[(-80, "100"), (-100, "10"), (-90, "30"), (-70, "1000")], &["1000"]).await;
    // A late tick is compared with the rate of its own time, not with the newest rate.
    let steps = [(-100, "10"), (-80, "40"), (-60, "160"), (-40, "640")];
    let late = [(-95, "11"), (-75, "640.5"), (-70, "41"), (-45, "11.5"), (-110, "640")];
    check("late", &steps, &late, &["640.5", "11.5"]).await;
    // A rate with a future observed time is in force from that time on.
    check("ahead", &[(-100, "10"), (3_600, "40")], &[(-50, "60"), (3_700, "60")], &["60"]).await;
}

#[tokio::test]
async fn known_and_conflicting_ticks_are_not_held_but_revising_ticks_may_be() {
    let server = TestServer::start(&[]).await;
    let good = uzs_tick("cbu", -100, "4210.35");
    let outlier = uzs_tick("cbu", -100, "421.035");
    send_ticks(&server, &[good.clone(), uzs_tick("cbu", -50, "4300.00")]).await;
    assert_eq!(send_ticks(&server, std::slice::from_ref(&good)).await, [0, 0, 1, 0, 0, 0]);
    let refused = send(&server, v1::IngestTicksRequest { ticks: vec![outlier.clone()], ..Default::default() }).await;
    assert_eq!(refused.refusals[0].reason(), v1::RefusalReason::Conflict);
    assert_eq!(refused.refusals[0].stored_rate.as_deref(), Some("4210.35"));
    let revise = v1::IngestTicksRequest {
        ticks: vec![outlier],
        conflict_policy: ConflictPolicy::Revise.into(),
        ..Default::default()
    };
    assert_eq!(counts(send(&server, revise).await.summary), [0, 0, 0, 0, 0, 1]);
    assert_eq!(runs(&server, "cbu").await, ["4210.35", "4300.00"]);
    // Two values for one instant within a batch are refused as usual.
    let twice = [uzs_tick("cbu", -40, "4301"), uzs_tick("cbu", -40, "43010")];
    assert_eq!(send_ticks(&server, &twice).await, [0, 0, 0, 0, 2, 0]);
}

#[tokio::test]
async fn resent_held_tick_is_not_held_twice() {
    let server = TestServer::start(&[]).await;
    send_ticks(&server, &[uzs_tick("cbu", -100, "4210.35")]).await;
    let outlier = v1::IngestTicksRequest { ticks: vec![uzs_tick("cbu", -90, "42103.5"); 2], ..Default::default() };
    let validated = send(&server, v1::IngestTicksRequest { validate_only: true, ..outlier.clone() }).await;
    assert_eq!((counts(validated.summary), validated.sequence), ([0, 0, 0, 0, 0, 2], 1));
    assert_eq!(all(&server).await, []);
    let first = send(&server, outlier.clone()).await;
    assert_eq!((counts(first.summary), first.sequence), ([0, 0, 0, 0, 0, 2], 2));
    let again = send(&server, outlier.clone()).await;
    assert_eq!(
        (counts(again.summary), again.sequence, again.recorded_time),
        (counts(first.summary), 2, first.recorded_time)
    );
    // Another value at the same instant is another held tick; a value near enough is stored.
    assert_eq!(send_ticks(&server, &[uzs_tick("cbu", -90, "421035")]).await, [0, 0, 0, 0, 0, 1]);
    assert_eq!(send_ticks(&server, &[uzs_tick("cbu", -90, "4210.35")]).await, [0, 1, 0, 0, 0, 0]);
    let held = all(&server).await;
    let expect = v1::QuarantinedTick {
        id: 1,
        pair: "USD/UZS".to_owned(),
        source: "cbu".to_owned(),
        observed_time: Some(time(-90)),
        rate: "42103.5".to_owned(),
        reported_change_percent: None,
        rate_in_force: "4210.35".to_owned(),
        held_time: first.recorded_time,
        state: QuarantineState::Held.into(),
        decided_time: None,
        note: None,
    };
    assert_eq!(held[0], expect);
    assert_eq!(held.iter().map(|tick| tick.id).collect::<Vec<_>>(), [1, 2]);
    // The instant of both held ticks now has another value: that is a conflict.
    assert_eq!(send_ticks(&server, &[uzs_tick("cbu", -90, "42103.5")]).await, [0, 0, 0, 0, 1, 0]);
}

#[tokio::test]
async fn released_ticks_are_stored_and_discarded_ticks_are_not() {
    let server = TestServer::start(&[]).await;
    send_ticks(&server, &[uzs_tick("cbu", -100, "10")]).await;
    let outliers: Vec<v1::Tick> = [(-90, "100"), (-80, "100"), (-70, "1"), (-60, "1000"), (-50, "0.1")]
        .map(|(s, rate)| uzs_tick("cbu", s, rate))
        .into();
    assert_eq!(send_ticks(&server, &outliers).await[5], 5);
    // The instant of the last tick gets its correct value meanwhile.
    assert_eq!(send_ticks(&server, &[uzs_tick("cbu", -50, "10")]).await[..2], [0, 1]);
    let released = release(&server, &[2, 1, 5, 77], ConflictPolicy::Refuse).await;
    assert_eq!(
        outcomes(&released.decisions),
        [
            (2, Outcome::Collapsed, Refusal::Unspecified),
            (1, Outcome::NewRun, Refusal::Unspecified),
            (5, Outcome::Refused, Refusal::Conflict),
            (77, Outcome::Refused, Refusal::UnknownId),
        ]
    );
    assert_eq!(released.decisions[2].stored_rate.as_deref(), Some("10"));
    assert!(
        released.decisions[2].message.contains("is stored as 10, not 0.1; discard the tick, or use the"),
        "{:?}",
        released.decisions[2]
    );
    assert!(released.decisions[3].message.contains("no held tick has id 77"), "{:?}", released.decisions[3]);
    assert_eq!(runs(&server, "cbu").await, ["10", "100", "10"]);
    let discarded = discard(&server, &[3, 1]).await;
    assert_eq!(
        outcomes(&discarded.decisions),
        [(3, Outcome::Discarded, Refusal::Unspecified), (1, Outcome::Refused, Refusal::DecidedOtherwise)]
    );
    assert_eq!(discarded.sequence, released.sequence + 1);
    // Repeating a decision is harmless; the opposite decision is refused.
    let again = release(&server, &[1, 2, 3], ConflictPolicy::Refuse).await;
    assert_eq!(
        outcomes(&again.decisions),
        [
            (1, Outcome::AlreadyDecided, Refusal::Unspecified),
            (2, Outcome::AlreadyDecided, Refusal::Unspecified),
            (3, Outcome::Refused, Refusal::DecidedOtherwise),
        ]
    );
    assert_eq!((again.sequence, again.recorded_time), (discarded.sequence, discarded.recorded_time));
    assert_eq!(outcomes(&discard(&server, &[3]).await.decisions)[0].1, Outcome::AlreadyDecided);
    // With revising allowed, the conflicting tick is stored.
    let revised = release(&server, &[5], ConflictPolicy::Revise).await;
    assert_eq!(outcomes(&revised.decisions), [(5, Outcome::Revised, Refusal::Unspecified)]);
    assert_eq!(runs(&server, "cbu").await, ["10", "100", "0.1"]);
    // If the ticks are sent again, a released tick is known, and a discarded tick stays discarded.
    assert_eq!(send_ticks(&server, &outliers[..3]).await, [0, 0, 2, 0, 0, 1]);
    let states: Vec<(u64, QuarantineState, Option<String>)> =
        all(&server).await.into_iter().map(|tick| (tick.id, tick.state(), tick.note)).collect();
    let note = Some("checked with the bank".to_owned());
    assert_eq!(
        states,
        [
            (1, QuarantineState::Released, note.clone()),
            (2, QuarantineState::Released, note.clone()),
            (3, QuarantineState::Discarded, None),
            (4, QuarantineState::Held, None),
            (5, QuarantineState::Released, note),
        ]
    );
}

#[tokio::test]
async fn response_lists_held_ticks() {
    let server = TestServer::start(&[]).await;
    let named = |held: &[v1::HeldTick]| -> Vec<(u32, Option<u64>, QuarantineState, String)> {
        held.iter().map(|held| (held.index, held.id, held.state(), held.rate_in_force.clone())).collect()
    };
    let (held, discarded) = (QuarantineState::Held, QuarantineState::Discarded);
    let force = |text: &str| text.to_owned();
    // The batch is not in order of time. Its earliest tick is stored, and the tick with rate 0 is refused.
    let ticks = vec![
        uzs_tick("cbu", -80, "1000"),
        uzs_tick("cbu", -100, "10.5"),
        uzs_tick("cbu", -70, "0"),
        uzs_tick("cbu", -90, "100"),
    ];
    let batch = v1::IngestTicksRequest { ticks, ..Default::default() };
    let validated = send(&server, v1::IngestTicksRequest { validate_only: true, ..batch.clone() }).await;
    assert_eq!(counts(validated.summary), [1, 0, 0, 0, 1, 2]);
    assert_eq!(named(&validated.held_ticks), [(0, None, held, force("10.5")), (3, None, held, force("10.5"))]);
    let sent = send(&server, batch.clone()).await;
    assert_eq!(named(&sent.held_ticks), [(0, Some(2), held, force("10.5")), (3, Some(1), held, force("10.5"))]);
    discard(&server, &[2]).await;
    let again = send(&server, batch).await;
    assert_eq!(named(&again.held_ticks), [(0, Some(2), discarded, force("10.5")), (3, Some(1), held, force("10.5"))]);
    // In the response to a page, the index counts the pairs.
    let page = |at: &str, rate: &str| v1::IngestPageRequest {
        content: format!("{at}\n• KZT/USD = 0.00196 0%\n• KGS/USD = {rate} 0%\n").into_bytes().into(),
        ..Default::default()
    };
    for (at, rate, expect) in [
        ("06 December 2025", "0.01144", vec![]),
        ("07 December 2025", "1.144", vec![(1, Some(3), held, force("0.01144"))]),
    ] {
        let response = server.ingest().ingest_page(page(at, rate)).await.unwrap().into_inner();
        assert_eq!(named(&response.held_ticks), expect);
    }
}

#[tokio::test]
async fn first_thousand_held_ticks_are_listed_in_full() {
    let server = TestServer::start(&[]).await;
    let near =
        |series: i64| v1::Tick { pair: "USD/KGS".to_owned(), ..uzs_tick(&format!("bank-{series}"), -2_000, "10") };
    let far = |at: i64| v1::Tick { rate: "1000".to_owned(), observed_time: Some(time(at - 1_900)), ..near(at % 2) };
    assert_eq!(send_ticks(&server, &[near(0), near(1)]).await[0], 2);
    let ticks = (0..1_200).map(far).collect();
    let held = send(&server, v1::IngestTicksRequest { ticks, ..Default::default() }).await.held_ticks;
    assert!((0..1_200).eq(held.iter().map(|held| held.index)));
    assert!(held.iter().all(|held| held.id.is_some() && held.state() == QuarantineState::Held));
    assert!(held[..1_000].iter().all(|held| held.rate_in_force == "10"));
    assert!(held[1_000..].iter().all(|held| held.rate_in_force.is_empty()));
}

#[tokio::test]
async fn redenomination_passes_after_its_first_rate_is_released() {
    let server = TestServer::start(&[]).await;
    send_ticks(&server, &[uzs_tick("cbu", -100, "12000.50"), uzs_tick("cbu", -90, "12001.00")]).await;
    let new = [uzs_tick("cbu", -80, "12.01"), uzs_tick("cbu", -70, "12.02"), uzs_tick("cbu", -60, "12.03")];
    assert_eq!(send_ticks(&server, &new).await, [0, 0, 0, 0, 0, 3]);
    release(&server, &[1], ConflictPolicy::Refuse).await;
    assert_eq!(send_ticks(&server, &[uzs_tick("cbu", -50, "12.04")]).await, [1, 0, 0, 0, 0, 0]);
    // Ticks held in between still wait for their own decision.
    assert_eq!(held_rates(&server, "cbu").await, ["12.02", "12.03"]);
    // They wait even if they are sent again and are now near the rate in force: a tick is compared only when it is
    // first received.
    assert_eq!(send_ticks(&server, &new).await, [0, 0, 1, 0, 0, 2]);
    assert_eq!(held_rates(&server, "cbu").await, ["12.02", "12.03"]);
    let released = release(&server, &[3, 2], ConflictPolicy::Refuse).await;
    assert!(released.decisions.iter().all(|decision| decision.outcome() == Outcome::NewRun));
    assert_eq!(runs(&server, "cbu").await, ["12000.50", "12001.00", "12.01", "12.02", "12.03", "12.04"]);
}

#[tokio::test]
async fn wrongly_released_tick_can_be_corrected() {
    let server = TestServer::start(&[]).await;
    send_ticks(&server, &[uzs_tick("cbu", -100, "10"), uzs_tick("cbu", -90, "100")]).await;
    release(&server, &[1], ConflictPolicy::Refuse).await;
    let too_late = &discard(&server, &[1]).await.decisions[0];
    assert_eq!(too_late.reason(), Refusal::DecidedOtherwise);
    assert!(too_late.message.contains("with the conflict policy revise, then release the new tick"), "{too_late:?}");
    // The correct rates are now beyond the threshold.
    assert_eq!(send_ticks(&server, &[uzs_tick("cbu", -80, "11")]).await[5], 1);
    let correction = vec![uzs_tick("cbu", -90, "10")];
    let revise = v1::IngestTicksRequest { ticks: correction, conflict_policy: 2, ..Default::default() };
    let held = send(&server, revise).await.held_ticks;
    assert_eq!((held[0].id, held[0].rate_in_force.as_str()), (Some(3), "100"));
    let released = release(&server, &[2, 3], ConflictPolicy::Revise).await;
    assert_eq!(
        outcomes(&released.decisions),
        [(2, Outcome::NewRun, Refusal::Unspecified), (3, Outcome::Revised, Refusal::Unspecified)]
    );
    assert_eq!(runs(&server, "cbu").await, ["10", "11"]);
}

#[tokio::test]
async fn discarded_tick_stays_discarded_after_the_rate_in_force_changes() {
    let server = TestServer::start(&[]).await;
    let ticks = [uzs_tick("cbu", -100, "10"), uzs_tick("cbu", -90, "100"), uzs_tick("cbu", -80, "101")];
    assert_eq!(send_ticks(&server, &ticks).await[5], 2);
    discard(&server, &[2]).await;
    release(&server, &[1], ConflictPolicy::Refuse).await;
    assert_eq!(send_ticks(&server, &ticks).await, [0, 0, 2, 0, 0, 1]);
    let revise = v1::IngestTicksRequest { ticks: ticks.to_vec(), conflict_policy: 2, ..Default::default() };
    assert_eq!(counts(send(&server, revise).await.summary), [0, 0, 2, 0, 0, 1]);
    assert_eq!(runs(&server, "cbu").await, ["10", "100"]);
}

#[tokio::test]
async fn held_ticks_are_excluded_from_reads_until_released() {
    let server = TestServer::start(&[]).await;
    send_ticks(&server, &[uzs_tick("cbu", -100, "10")]).await;
    let before =
        send(&server, v1::IngestTicksRequest { ticks: vec![uzs_tick("cbu", -90, "100")], ..Default::default() }).await;
    let latest = |rates: v1::GetLatestRatesResponse| -> Vec<String> {
        rates.rates.into_iter().filter_map(|rate| Some(rate.run?.rate)).collect()
    };
    let seen = async |known: Option<prost_types::Timestamp>| {
        let request = v1::GetRateRequest { pair: "USD/UZS".to_owned(), known_time: known, ..Default::default() };
        server.rates().get_rate(request).await.unwrap().into_inner().rate
    };
    let all_latest =
        async || server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap().into_inner();
    assert_eq!(latest(all_latest().await), ["10"]);
    assert_eq!(seen(None).await, "10");
    let series = server.rates().list_series(v1::ListSeriesRequest::default()).await.unwrap().into_inner().series;
    assert_eq!((series[0].run_count, series[0].observation_count), (1, 1));
    assert_eq!(series[0].last_observed_time, Some(time(-100)));
    let released = release(&server, &[1], ConflictPolicy::Refuse).await;
    assert_eq!((latest(all_latest().await), seen(None).await), (vec!["100".to_owned()], "100".to_owned()));
    // An as-of read before the release sees a held tick, and the old rate in force.
    assert_eq!(seen(before.recorded_time).await, "10");
    let known_then = |known_time| v1::ListQuarantineRequest { known_time, states: vec![1, 2], ..Default::default() };
    let then = list(&server, known_then(before.recorded_time)).await;
    assert_eq!(
        (then.ticks[0].state(), then.ticks[0].decided_time, &then.ticks[0].note),
        (QuarantineState::Held, None, &None)
    );
    assert_eq!((then.sequence, then.recorded_time), (before.sequence, before.recorded_time));
    let now = list(&server, known_then(released.recorded_time)).await;
    assert_eq!((now.ticks[0].state(), now.ticks[0].decided_time), (QuarantineState::Released, released.recorded_time));
    let mut rates = server.rates();
    let first = rates.list_runs(v1::ListRunsRequest { pair: "USD/UZS".to_owned(), ..Default::default() });
    let first = first.await.unwrap().into_inner().runs[0].recorded_time;
    assert_eq!(list(&server, known_then(first)).await.ticks, []);
}

#[tokio::test]
async fn held_ticks_are_filtered_and_all_pages_of_a_list_read_one_commit() {
    let server = TestServer::start(&[]).await;
    for source in ["cbu", "nbt"] {
        send_ticks(
            &server,
            &[uzs_tick(source, -100, "10"), uzs_tick(source, -90, "100"), uzs_tick(source, -80, "1000")],
        )
        .await;
    }
    let ids =
        |response: &v1::ListQuarantineResponse| -> Vec<u64> { response.ticks.iter().map(|tick| tick.id).collect() };
    let check = async |request: v1::ListQuarantineRequest, expect: &[u64]| {
        assert_eq!(ids(&list(&server, request.clone()).await), expect, "{request:?}");
    };
    let every = v1::ListQuarantineRequest::default();
    check(every.clone(), &[1, 2, 3, 4]).await;
    check(v1::ListQuarantineRequest { sources: vec!["nbt".to_owned()], ..every.clone() }, &[3, 4]).await;
    check(v1::ListQuarantineRequest { pairs: vec!["KGS/USD".to_owned()], ..every.clone() }, &[]).await;
    check(v1::ListQuarantineRequest { start_time: Some(time(-80)), ..every.clone() }, &[2, 4]).await;
    check(v1::ListQuarantineRequest { end_time: Some(time(-80)), ..every.clone() }, &[1, 3]).await;
    check(v1::ListQuarantineRequest { states: vec![3], ..every.clone() }, &[]).await;
    let paged = v1::ListQuarantineRequest { page_size: 3, ..every.clone() };
    let first = list(&server, paged.clone()).await;
    assert_eq!(ids(&first), [1, 2, 3]);
    discard(&server, &[4]).await;
    let second = list(&server, v1::ListQuarantineRequest { page_token: first.next_page_token.clone(), ..paged }).await;
    assert_eq!((ids(&second), second.next_page_token.as_str(), second.sequence), (vec![4], "", first.sequence));
    check(every.clone(), &[1, 2, 3]).await;
    let foreign = v1::ListQuarantineRequest {
        page_token: first.next_page_token,
        sources: vec!["cbu".to_owned()],
        ..every.clone()
    };
    assert_invalid(&server.ingest().list_quarantine(foreign).await.unwrap_err(), "page_token", "another request");
    let unknown = v1::ListQuarantineRequest { states: vec![9], ..every.clone() };
    assert_invalid(&server.ingest().list_quarantine(unknown).await.unwrap_err(), "states[0]", "9 is not a state");
    let too_early = v1::ListQuarantineRequest { known_time: Some(time(-1_000)), ..every };
    assert_eq!(server.ingest().list_quarantine(too_early).await.unwrap_err().code(), Code::NotFound);
    let none = v1::DiscardQuarantineRequest::default();
    assert_invalid(&server.ingest().discard_quarantine(none).await.unwrap_err(), "ids", "0 ids; give 1 to 1000");
    let policy = v1::ReleaseQuarantineRequest { ids: vec![1], conflict_policy: 9, ..Default::default() };
    assert_invalid(&server.ingest().release_quarantine(policy).await.unwrap_err(), "conflict_policy", "9 is no");
}

#[tokio::test]
async fn quarantine_factor_is_set_per_source() {
    let server = TestServer::start(&["--quarantine-factor", "2,cbu=none,nbt=1.5"]).await;
    for (source, near, far, held) in
        [("timesca", "19.99", "40", 1), ("nbt", "14.99", "22.5", 1), ("cbu", "19.99", "10000", 0)]
    {
        let ticks = [uzs_tick(source, -100, "10"), uzs_tick(source, -90, near), uzs_tick(source, -80, far)];
        assert_eq!(send_ticks(&server, &ticks).await[5], held, "{source}");
    }
}

#[tokio::test]
async fn held_ticks_are_limited_per_series() {
    let server = TestServer::start(&[]).await;
    send_ticks(&server, &[uzs_tick("cbu", -2_000, "10")]).await;
    let outliers: Vec<v1::Tick> = (0..1_003).map(|at| uzs_tick("cbu", at - 1_900, "1000")).collect();
    let response = send(&server, v1::IngestTicksRequest { ticks: outliers.clone(), ..Default::default() }).await;
    assert_eq!(counts(response.summary), [0, 0, 0, 0, 3, 1_000]);
    assert_eq!(response.refusals[0].index, 1_000);
    assert_eq!(response.refusals[0].reason(), v1::RefusalReason::QuarantineFull);
    assert!(response.refusals[0].message.contains("1000 ticks of this series are held"), "{:?}", response.refusals[0]);
    assert!(response.refusals[0].message.contains("release or discard some"), "{:?}", response.refusals[0]);
    // Another series has its own limit. This series has room again after some ticks are decided.
    assert_eq!(send_ticks(&server, &[uzs_tick("nbt", -100, "10"), uzs_tick("nbt", -90, "100")]).await[5], 1);
    discard(&server, &[1, 2]).await;
    assert_eq!(send_ticks(&server, &outliers).await, [0, 0, 0, 0, 1, 1_002]);
}

#[tokio::test]
async fn held_ticks_and_decisions_survive_a_restart() {
    let server = TestServer::start(&[]).await;
    send_ticks(
        &server,
        &[
            uzs_tick("cbu", -100, "10"),
            uzs_tick("cbu", -90, "100"),
            uzs_tick("cbu", -80, "1"),
            uzs_tick("cbu", -70, "0.1"),
        ],
    )
    .await;
    release(&server, &[1], ConflictPolicy::Refuse).await;
    discard(&server, &[2]).await;
    let before = all(&server).await;
    assert_eq!(before.len(), 3);
    let server = server.restart().await;
    assert_eq!(all(&server).await, before);
    // A held tick that is sent again after the restart keeps its id, and the next held tick gets the next id.
    assert_eq!(send_ticks(&server, &[uzs_tick("cbu", -70, "0.1"), uzs_tick("cbu", -80, "1")]).await[5], 2);
    assert_eq!(send_ticks(&server, &[uzs_tick("cbu", -60, "0.2")]).await[5], 1);
    assert_eq!(all(&server).await.last().unwrap().id, 4);
    let (dir, _) = server.stop().await;
    let report = silkrate::store::verify(&dir.path().join("db")).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}

/// Returns date, pair and rate of each row. `data/history-sample.csv` has the columns of `ingest`; the other file has
/// date, base, quote and rate.
fn history(name: &str) -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let row = |line: &str| match line.split(',').collect::<Vec<_>>()[..] {
        [date, base, quote, rate] if base.len() == 3 => (date.to_owned(), format!("{base}/{quote}"), rate.to_owned()),
        [pair, _, date, rate, ..] => (date.to_owned(), pair.to_owned(), rate.to_owned()),
        _ => panic!("{line}"),
    };
    text.lines().skip(1).map(row).collect()
}

fn dated(date: &str, seconds: i64) -> prost_types::Timestamp {
    let (at, nanos) = silkrate::domain::Timestamp::parse(date).unwrap().to_parts();
    prost_types::Timestamp { seconds: at + seconds, nanos }
}

/// Moves the decimal point of a rate to the left by the given number of digits, or to the right if the number is
/// negative.
fn with_shifted_point(rate: &str, to_left: i32) -> String {
    let (whole, fraction) = rate.split_once('.').unwrap_or((rate, ""));
    let zeros = "0".repeat(to_left.unsigned_abs() as usize);
    let digits = format!("{zeros}{whole}{fraction}{zeros}");
    let point = (zeros.len() + whole.len()).checked_add_signed(-to_left as isize).unwrap();
    let (whole, fraction) = digits.split_at(point);
    format!(
        "{}.{fraction}0",
        whole.trim_start_matches('0').to_owned() + if whole.trim_matches('0').is_empty() { "0" } else { "" }
    )
}

#[tokio::test]
async fn real_histories_pass_and_every_shifted_decimal_point_is_held() {
    let server = TestServer::start(&["--currency", "EUR"]).await;
    server.clock.set(silkrate::domain::Timestamp::parse("2026-12-01").unwrap());
    for (source, file) in
        [("cbu", "data/history-sample.csv"), ("fawazahmed0", "tests/data/history/fawazahmed0_samples_2024_2026.csv")]
    {
        let rows = history(file);
        let tick = |(date, pair, rate): &(String, String, String), seconds: i64| v1::Tick {
            pair: pair.clone(),
            source: source.to_owned(),
            observed_time: Some(dated(date, seconds)),
            rate: rate.clone(),
            reported_change_percent: None,
        };
        let ticks: Vec<v1::Tick> = rows.iter().map(|row| tick(row, 0)).collect();
        assert_eq!(send_ticks(&server, &ticks).await[4..], [0, 0], "{file}");
        for (by, seconds) in [(1, 1), (2, 2), (3, 3), (-1, 4), (-2, 5), (-3, 6)] {
            let outliers: Vec<v1::Tick> = rows
                .iter()
                .map(|row| v1::Tick { rate: with_shifted_point(&row.2, by), ..tick(row, seconds) })
                .collect();
            for piece in outliers.chunks(500) {
                let count = u32::try_from(piece.len()).unwrap();
                assert_eq!(send_ticks(&server, piece).await, [0, 0, 0, 0, 0, count], "{file}: 10^{by}");
                let ids: Vec<u64> = list(&server, v1::ListQuarantineRequest::default())
                    .await
                    .ticks
                    .iter()
                    .map(|tick| tick.id)
                    .collect();
                discard(&server, &ids).await;
            }
        }
    }
    // USD/UZS rose from 4210.35 to 8100 overnight.
    let request = v1::GetRateRequest {
        pair: "USD/UZS".to_owned(),
        source: "cbu".to_owned(),
        time: Some(dated("2017-09-05", 0)),
        ..Default::default()
    };
    assert_eq!(server.rates().get_rate(request).await.unwrap().into_inner().rate, "8100");
}
