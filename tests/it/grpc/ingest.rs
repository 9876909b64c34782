//! `IngestService` over a real socket: every method, and the refusal of invalid input.

use prost_types::Timestamp;
use silkrate::proto::v1;
use silkrate::proto::v1::RefusalReason as Reason;
use silkrate::proto::v1::ingest_service_client::IngestServiceClient;
use silkrate::proto::v1::stream_ticks_request::Batch;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{TestServer, assert_invalid, tick, time};

fn request(ticks: Vec<v1::Tick>) -> v1::IngestTicksRequest {
    v1::IngestTicksRequest { ticks, ..Default::default() }
}

/// Counts in this order: new, collapsed, known, revised, refused, late.
fn counts(summary: Option<v1::IngestSummary>) -> [u32; 6] {
    let s = summary.unwrap();
    [s.new_run_count, s.collapsed_count, s.known_count, s.revised_count, s.refused_count, s.late_count]
}

#[tokio::test]
async fn ticks_collapse_into_runs_and_resent_ticks_are_known() {
    let server = TestServer::start(&[]).await;
    let ticks = [
        tick("KGS/USD", -60, "0.01144"),
        tick("KGS/USD", -50, "0.01144"),
        tick("KZT/USD", -60, "0.00196"),
        tick("KGS/USD", -40, "0.01145"),
    ];
    let first = server.store(&ticks).await;
    assert_eq!(counts(first.summary), [3, 1, 0, 0, 0, 0]);
    let again = server.store(&ticks).await;
    assert_eq!(counts(again.summary), [0, 0, 4, 0, 0, 0]);
    assert_eq!((again.sequence, again.recorded_time), (first.sequence, first.recorded_time));
    let late = server.store(&[tick("KGS/USD", -45, "0.01150")]).await;
    assert_eq!(counts(late.summary), [1, 0, 0, 0, 0, 1]);
    assert_eq!(late.sequence, first.sequence + 1);
}

#[tokio::test]
async fn invalid_ticks_are_refused_and_valid_ticks_of_the_batch_are_stored() {
    let server = TestServer::start(&[]).await;
    let at = |observed_time| v1::Tick { observed_time, ..tick("KGS/USD", 0, "0.01144") };
    let bad: Vec<(v1::Tick, Reason)> = vec![
        (tick("KGS/USD", 0, "0"), Reason::InvalidRate),
        (tick("KGS/USD", 0, "-1"), Reason::InvalidRate),
        (tick("KGS/USD", 0, "1e3"), Reason::InvalidRate),
        (tick("KGS/USD", 0, "NaN"), Reason::InvalidRate),
        (tick("KGS/USD", 0, "12345678901234567890.123456789"), Reason::InvalidRate),
        (tick("KGS/USD", 0, "0.1234567890123456789"), Reason::InvalidRate),
        (tick("KGS/KGS", 0, "1"), Reason::InvalidPair),
        (tick("kgs/usd", 0, "1"), Reason::InvalidPair),
        (tick("XXX/USD", 0, "1"), Reason::UnknownCurrency),
        (v1::Tick { source: "Times CA".to_owned(), ..tick("KGS/USD", 0, "1") }, Reason::InvalidSource),
        (
            v1::Tick { reported_change_percent: Some("0%".to_owned()), ..tick("KGS/USD", 0, "1") },
            Reason::InvalidReportedChange,
        ),
        (at(Some(Timestamp { seconds: 0, nanos: 0 })), Reason::TimeTooOld),
        (at(Some(Timestamp { seconds: 4_102_444_800, nanos: 0 })), Reason::TimeTooFarAhead),
        (at(Some(Timestamp { seconds: 1_765_195_200, nanos: 1 })), Reason::InvalidTime),
        (at(None), Reason::InvalidTime),
    ];
    let good = |index: usize| tick("KGS/USD", -1_000 + i64::try_from(index).unwrap(), &format!("0.01{index:03}"));
    let ticks = bad.iter().enumerate().flat_map(|(index, (tick, _))| [good(index), tick.clone()]).collect();
    let response = server.ingest().ingest_ticks(request(ticks)).await.unwrap().into_inner();
    let count = u32::try_from(bad.len()).unwrap();
    assert_eq!(counts(response.summary), [count, 0, 0, 0, count, 0]);
    for ((position, (bad, reason)), refusal) in (0_u32..).zip(&bad).zip(&response.refusals) {
        assert_eq!(refusal.index, 2 * position + 1, "{bad:?}");
        assert_eq!(refusal.reason(), *reason, "{bad:?}: {}", refusal.message);
        assert!(!refusal.message.is_empty(), "{bad:?}");
    }
    assert_eq!(response.refusals.len(), bad.len());
}

#[tokio::test]
async fn invalid_request_names_the_field() {
    let server = TestServer::start(&[]).await;
    let check = async |request: v1::IngestTicksRequest, field: &str, part: &str| {
        assert_invalid(&server.ingest().ingest_ticks(request).await.unwrap_err(), field, part);
    };
    check(request(vec![]), "ticks", "0 ticks; send 1 to 10000").await;
    check(request(vec![tick("KGS/USD", 0, "1"); 10_001]), "ticks", "10001 ticks; send 1 to 10000").await;
    let unknown = v1::IngestTicksRequest { conflict_policy: 7, ..request(vec![tick("KGS/USD", 0, "1")]) };
    check(unknown, "conflict_policy", "7 is not a conflict policy").await;
}

#[tokio::test]
async fn request_over_size_limit_is_refused() {
    for (flags, mib) in [(&[][..], 16), (&["--max-request-mib", "2"], 2)] {
        let server = TestServer::start(flags).await;
        let page = |bytes: usize| v1::IngestPageRequest { content: vec![b' '; bytes].into(), ..Default::default() };
        let send = async |bytes| server.ingest().ingest_page(page(bytes)).await.unwrap_err().code();
        assert_eq!(send(mib * 1024 * 1024 + 1).await, Code::OutOfRange);
        // A page of spaces has no ticks.
        assert_ne!(send(mib * 1024 * 1024 - 100).await, Code::OutOfRange);
    }
}

#[tokio::test]
async fn conflict_is_refused_with_stored_value_unless_policy_is_revise() {
    let server = TestServer::start(&[]).await;
    let with_change = |rate: &str, change: &str| v1::Tick {
        reported_change_percent: Some(change.to_owned()),
        ..tick("KGS/USD", -60, rate)
    };
    server.store(&[with_change("0.01144", "-0")]).await;
    let refused =
        server.ingest().ingest_ticks(request(vec![with_change("0.01150", "0.5")])).await.unwrap().into_inner();
    assert_eq!(counts(refused.summary), [0, 0, 0, 0, 1, 0]);
    let [refusal] = refused.refusals.as_slice() else { panic!("{refused:?}") };
    assert_eq!(refusal.reason(), Reason::Conflict);
    assert_eq!(refusal.stored_rate.as_deref(), Some("0.01144"));
    assert_eq!(refusal.stored_reported_change_percent.as_deref(), Some("-0"));

    let revise = v1::IngestTicksRequest {
        conflict_policy: v1::ConflictPolicy::Revise.into(),
        ..request(vec![with_change("0.01150", "0.5")])
    };
    let revised = server.ingest().ingest_ticks(revise).await.unwrap().into_inner();
    assert_eq!(counts(revised.summary)[3], 1);
    assert_eq!(revised.sequence, refused.sequence + 1);
}

#[tokio::test]
async fn two_values_for_one_instant_in_a_batch_are_both_refused() {
    let server = TestServer::start(&[]).await;
    let ticks = vec![tick("KGS/USD", -60, "0.01"), tick("KGS/USD", -30, "0.02"), tick("KGS/USD", -60, "0.03")];
    let response = server.ingest().ingest_ticks(request(ticks)).await.unwrap().into_inner();
    assert_eq!(counts(response.summary), [1, 0, 0, 0, 2, 0]);
    let refused: Vec<_> = response.refusals.iter().map(|refusal| (refusal.index, refusal.reason())).collect();
    assert_eq!(refused, [(0, Reason::Ambiguous), (2, Reason::Ambiguous)]);
}

#[tokio::test]
async fn series_with_only_refused_ticks_is_not_created() {
    let server = TestServer::start(&[]).await;
    let ticks = vec![tick("KGS/USD", 0, "0.01144"), tick("KGS/USD", 0, "0.01145"), tick("KZT/USD", 0, "0.00196")];
    let response = server.ingest().ingest_ticks(request(ticks)).await.unwrap().into_inner();
    assert_eq!(counts(response.summary), [1, 0, 0, 0, 2, 0]);
    let (dir, _) = server.stop().await;
    // The series does not count towards the series limit of the store either.
    assert_eq!(silkrate::store::verify(&dir.path().join("db")).unwrap().series_count, 1);
}

#[tokio::test]
async fn validate_only_reports_the_result_and_stores_nothing() {
    let server = TestServer::start(&[]).await;
    let stored = server.store(&[tick("KGS/USD", -60, "0.01144")]).await;
    let ticks = vec![tick("KGS/USD", -50, "0.01144"), tick("KGS/USD", -40, "0.01150"), tick("KGS/USD", -30, "0")];
    let validation = v1::IngestTicksRequest { validate_only: true, ..request(ticks.clone()) };
    let validated = server.ingest().ingest_ticks(validation).await.unwrap().into_inner();
    assert_eq!(counts(validated.summary), [1, 1, 0, 0, 1, 0]);
    assert_eq!(validated.sequence, stored.sequence);
    let stored_response = server.ingest().ingest_ticks(request(ticks)).await.unwrap().into_inner();
    assert_eq!(counts(stored_response.summary), counts(validated.summary));
    assert_eq!(stored_response.sequence, stored.sequence + 1);
}

#[tokio::test]
async fn all_refusals_have_an_index_and_the_first_thousand_a_message() {
    let server = TestServer::start(&[]).await;
    // Every second tick is refused, so that an index differs from a running count.
    let ticks = (0..4_000).map(|second| tick("KGS/USD", -second, if second % 2 == 0 { "0.01144" } else { "0" }));
    let response = server.ingest().ingest_ticks(request(ticks.collect())).await.unwrap().into_inner();
    assert_eq!(counts(response.summary)[4], 2_000);
    let indices: Vec<u32> = response.refusals.iter().map(|refusal| refusal.index).collect();
    assert_eq!(indices, (1..4_000).step_by(2).collect::<Vec<u32>>());
    for (position, refusal) in response.refusals.iter().enumerate() {
        assert_eq!(refusal.reason(), v1::RefusalReason::InvalidRate);
        assert_eq!(refusal.message.is_empty(), position >= 1_000, "{position}");
    }
}

#[tokio::test]
async fn response_to_a_fully_refused_largest_batch_fits_the_default_message_limit() {
    let server = TestServer::start(&[]).await;
    let mantissas = vec![0; 100_000];
    let requests = tokio_stream::iter([batch_of_columns(columns(-200_000, &mantissas))]);
    // A client with the default message limit of gRPC libraries.
    let mut client = IngestServiceClient::new(server.channel.clone()).max_encoding_message_size(usize::MAX);
    let mut responses = client.stream_ticks(requests).await.unwrap().into_inner();
    let result = responses.message().await.unwrap().unwrap().result.unwrap();
    assert_eq!(result.refusals.len(), 100_000);
    assert_eq!(result.refusals.last().unwrap().index, 99_999);
}

#[tokio::test]
async fn rates_are_padded_to_minimum_places() {
    let server = TestServer::start(&["--minimum-places", "nbk=2"]).await;
    let bank = |seconds, rate: &str| v1::Tick { source: "nbk".to_owned(), ..tick("USD/KZT", seconds, rate) };
    let response = server.store(&[bank(-60, "179.50"), bank(-50, "179.5")]).await;
    assert_eq!(counts(response.summary), [1, 1, 0, 0, 0, 0]);
}

#[tokio::test]
async fn configured_currencies_are_accepted() {
    let server = TestServer::start(&["--currency", "EUR,RUB"]).await;
    server.store(&[tick("EUR/USD", -60, "1.1"), tick("RUB/USD", -60, "0.0125")]).await;
}

// StreamTicks

fn batch_of(ticks: Vec<v1::Tick>) -> v1::StreamTicksRequest {
    v1::StreamTicksRequest { batch: Some(Batch::Ticks(v1::TickBatch { ticks })), ..Default::default() }
}

fn columns(first_seconds: i64, mantissas: &[u64]) -> v1::TickColumns {
    let deltas = (0..mantissas.len()).flat_map(|row| if row == 0 { 0_i64 } else { 1_000_000 }.to_le_bytes());
    v1::TickColumns {
        pair: "KGS/USD".to_owned(),
        source: "timesca".to_owned(),
        places: 5,
        base_time: Some(time(first_seconds)),
        observed_time_deltas: deltas.collect::<Vec<u8>>().into(),
        rate_mantissas: mantissas.iter().flat_map(|mantissa| mantissa.to_le_bytes()).collect::<Vec<u8>>().into(),
        ..Default::default()
    }
}

fn batch_of_columns(columns: v1::TickColumns) -> v1::StreamTicksRequest {
    v1::StreamTicksRequest { batch: Some(Batch::Columns(columns)), ..Default::default() }
}

/// Sends all requests, half-closes, and collects the responses and the final error status, if any.
async fn stream(
    server: &TestServer,
    requests: Vec<v1::StreamTicksRequest>,
) -> (Vec<v1::StreamTicksResponse>, Option<Status>) {
    let mut responses = match server.ingest().stream_ticks(tokio_stream::iter(requests)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return (vec![], Some(status)),
    };
    let mut received = Vec::new();
    loop {
        match responses.message().await {
            Ok(Some(response)) => received.push(response),
            Ok(None) => return (received, None),
            Err(status) => return (received, Some(status)),
        }
    }
}

#[tokio::test]
async fn stream_answers_batches_of_both_forms_in_order() {
    let server = TestServer::start(&[]).await;
    let requests: Vec<_> = (0..60_i64)
        .map(|n| match n % 2 {
            0 => batch_of(vec![tick("KZT/USD", n - 1_000, "0.00196")]),
            _ => batch_of_columns(columns(n * 10 - 10_000, &[1_144, 1_144, 1_145])),
        })
        .collect();
    let (responses, status) = stream(&server, requests).await;
    assert!(status.is_none(), "{status:?}");
    let indices: Vec<u64> = responses.iter().map(|response| response.batch_index).collect();
    assert_eq!(indices, (0..60).collect::<Vec<u64>>());
    let sequences: Vec<u64> = responses.iter().map(|response| response.result.as_ref().unwrap().sequence).collect();
    assert!(sequences.is_sorted(), "{sequences:?}");
    let counted: u32 = responses
        .iter()
        .map(|response| counts(response.result.as_ref().unwrap().summary)[..5].iter().sum::<u32>())
        .sum();
    assert_eq!(counted, 30 + 30 * 3);
}

#[tokio::test]
async fn open_stream_gets_a_response_after_each_durable_batch() {
    let server = TestServer::start(&[]).await;
    let (requests, inbound) = mpsc::channel(1);
    let sent = requests.clone();
    sent.send(batch_of(vec![tick("KGS/USD", -60, "0.01144")])).await.unwrap();
    let mut responses = server.ingest().stream_ticks(ReceiverStream::new(inbound)).await.unwrap().into_inner();
    assert_eq!(responses.message().await.unwrap().unwrap().batch_index, 0);
    requests.send(batch_of(vec![tick("KGS/USD", -50, "0.01145")])).await.unwrap();
    assert_eq!(responses.message().await.unwrap().unwrap().batch_index, 1);
}

#[tokio::test]
async fn invalid_column_rows_are_refused_individually() {
    let server = TestServer::start(&[]).await;
    let (responses, status) = stream(&server, vec![batch_of_columns(columns(-60, &[1_144, 0, 1_145]))]).await;
    assert!(status.is_none(), "{status:?}");
    let result = responses[0].result.as_ref().unwrap();
    assert_eq!(counts(result.summary), [2, 0, 0, 0, 1, 0]);
    assert_eq!((result.refusals[0].index, result.refusals[0].reason()), (1, Reason::InvalidRate));

    let unknown = v1::TickColumns { pair: "EUR/USD".to_owned(), ..columns(-60, &[1, 2, 3]) };
    let (responses, _) = stream(&server, vec![batch_of_columns(unknown)]).await;
    let result = responses[0].result.as_ref().unwrap();
    assert_eq!(counts(result.summary), [0, 0, 0, 0, 3, 0]);
    assert!(result.refusals.iter().all(|refusal| refusal.reason() == Reason::UnknownCurrency));
}

#[tokio::test]
async fn invalid_batch_ends_the_stream_with_its_index_after_earlier_responses() {
    let server = TestServer::start(&[]).await;
    let check = async |bad: v1::StreamTicksRequest, field: &str, part: &str| {
        let good = |n: i64| batch_of(vec![tick("KGS/USD", n, "0.01144")]);
        let (responses, status) = stream(&server, vec![good(-3), good(-2), bad, good(-1)]).await;
        assert_eq!(responses.iter().map(|response| response.batch_index).collect::<Vec<_>>(), [0, 1], "{field}");
        let status = status.expect("the stream must end with an error status");
        assert_invalid(&status, field, "batch 2: ");
        assert_invalid(&status, field, part);
    };
    check(v1::StreamTicksRequest::default(), "batch", "neither ticks nor columns").await;
    check(batch_of(vec![]), "ticks", "0 ticks").await;
    check(batch_of(vec![tick("KGS/USD", 0, "1"); 10_001]), "ticks", "10001 ticks").await;
    check(batch_of_columns(columns(0, &[])), "columns.observed_time_deltas", "0 rows").await;
    check(batch_of_columns(columns(-200_000, &vec![1_144; 100_001])), "columns", "100001 rows").await;
    let uneven = v1::TickColumns { rate_mantissas: vec![0; 8].into(), ..columns(0, &[1, 2]) };
    check(batch_of_columns(uneven), "columns.rate_mantissas", "8 bytes").await;
    let undated = v1::TickColumns { base_time: None, ..columns(0, &[1]) };
    check(batch_of_columns(undated), "columns.base_time", "missing").await;
    let policy = v1::StreamTicksRequest { conflict_policy: -1, ..batch_of(vec![tick("KGS/USD", 0, "1")]) };
    check(policy, "conflict_policy", "-1 is not a conflict policy").await;
}

#[tokio::test]
async fn batch_over_size_limit_ends_the_stream_with_its_index() {
    let server = TestServer::start(&[]).await;
    let large = v1::TickColumns { rate_mantissas: vec![0; 17 * 1024 * 1024].into(), ..columns(0, &[1]) };
    let requests = vec![batch_of(vec![tick("KGS/USD", -60, "0.01144")]), batch_of_columns(large)];
    let (responses, status) = stream(&server, requests).await;
    assert_eq!(responses.len(), 1);
    let status = status.unwrap();
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(status.message().starts_with("batch 1: "), "{}", status.message());
}

#[tokio::test]
async fn largest_batch_of_columns_is_accepted() {
    let server = TestServer::start(&[]).await;
    let (responses, status) = stream(&server, vec![batch_of_columns(columns(-200_000, &vec![1_144; 100_000]))]).await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(counts(responses[0].result.as_ref().unwrap().summary), [1, 99_999, 0, 0, 0, 0]);
}

#[tokio::test]
async fn stream_open_at_shutdown_names_the_first_batch_not_stored() {
    let server = TestServer::start(&[]).await;
    let (requests, inbound) = mpsc::channel(1);
    requests.send(batch_of(vec![tick("KGS/USD", -60, "0.01144")])).await.unwrap();
    let mut responses = server.ingest().stream_ticks(ReceiverStream::new(inbound)).await.unwrap().into_inner();
    assert_eq!(responses.message().await.unwrap().unwrap().batch_index, 0);
    let (_dir, shutdown) = server.begin_stop();
    let status = responses.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("batches from 1 on were not stored"), "{}", status.message());
    assert!(status.get_error_details().retry_info().is_some());
    shutdown.await.unwrap().0.unwrap();
}

// IngestPage

const PAGE: &str = "Prices rose by 4.5% in 2025, to $1,200.\n08 December 2025\n\
    \u{2022} KGS/USD = 0.01144 0%\n\u{2022} KZT/USD = 0.00196 -0%\n\u{2022} TJS/USD = 0.10848 0.14%\n\
    \u{2022} KGS/USD = 0.01144 0%\n\u{2022} KZT/USD = 0.00196 -0%\n\u{2022} TJS/USD = 0.10848 0.14%\n";

fn page(content: impl Into<Vec<u8>>) -> v1::IngestPageRequest {
    v1::IngestPageRequest { content: content.into().into(), ..Default::default() }
}

#[tokio::test]
async fn page_gives_one_tick_per_pair_at_its_date() {
    let server = TestServer::start(&[]).await;
    let response = server.ingest().ingest_page(page(PAGE)).await.unwrap().into_inner();
    assert_eq!((response.quote_count, response.cycle_count), (6, 2));
    assert_eq!(counts(response.summary), [3, 0, 0, 0, 0, 0]);
    let read: Vec<_> = response
        .ticks
        .iter()
        .map(|tick| {
            (tick.pair.as_str(), tick.source.as_str(), tick.rate.as_str(), tick.reported_change_percent.clone())
        })
        .collect();
    assert_eq!(
        read,
        [
            ("KGS/USD", "timesca", "0.01144", Some("0".to_owned())),
            ("KZT/USD", "timesca", "0.00196", Some("-0".to_owned())),
            ("TJS/USD", "timesca", "0.10848", Some("0.14".to_owned())),
        ]
    );
    let midnight = Timestamp { seconds: 1_765_152_000, nanos: 0 };
    assert!(response.ticks.iter().all(|tick| tick.observed_time == Some(midnight)));
}

#[tokio::test]
async fn second_page_of_a_day_conflicts_and_message_asks_for_observed_time() {
    let server = TestServer::start(&[]).await;
    server.ingest().ingest_page(page(PAGE)).await.unwrap();
    let moved = PAGE.replace("0.00196", "0.00197");
    let response = server.ingest().ingest_page(page(moved.as_str())).await.unwrap().into_inner();
    assert_eq!(counts(response.summary), [0, 0, 2, 0, 1, 0]);
    assert_eq!(response.refusals[0].reason(), Reason::Conflict);
    assert!(response.refusals[0].message.contains("give observed_time"), "{}", response.refusals[0].message);
    let timed = v1::IngestPageRequest { observed_time: Some(time(-60)), ..page(moved.as_str()) };
    let response = server.ingest().ingest_page(timed).await.unwrap().into_inner();
    assert_eq!(counts(response.summary)[4], 0);
}

#[tokio::test]
async fn pair_with_different_values_between_cycles_is_refused() {
    let server = TestServer::start(&[]).await;
    let inconsistent = PAGE.replacen("0.00196", "0.00197", 1);
    let response = server.ingest().ingest_page(page(inconsistent)).await.unwrap().into_inner();
    assert_eq!(counts(response.summary), [2, 0, 0, 0, 1, 0]);
    assert_eq!((response.refusals[0].index, response.refusals[0].reason()), (2, Reason::Ambiguous));
}

#[tokio::test]
async fn unreadable_or_undated_page_names_the_field() {
    let server = TestServer::start(&[]).await;
    let check = async |request: v1::IngestPageRequest, field: &str, part: &str| {
        assert_invalid(&server.ingest().ingest_page(request).await.unwrap_err(), field, part);
    };
    check(page(""), "content", "no quotes").await;
    check(page("an article of 08 December 2025: prices = 5 10%\n"), "content", "no quotes").await;
    check(page(vec![b' '; 10_000_000]), "content", "at most 4194304").await;
    check(page(b"\x7fELF\0\x01\x02".as_slice()), "content", "binary").await;
    check(page(b"KGS/USD = 0.01144 0% \xff\xfe".as_slice()), "content", "not UTF-8").await;
    check(page(PAGE.replace("08 December 2025", "")), "observed_time", "give the observed time").await;
    check(page(format!("09 December 2025\n{PAGE}")), "observed_time", "differ").await;
    check(v1::IngestPageRequest { source: "Times CA".to_owned(), ..page(PAGE) }, "source", "not a slug").await;
    let too_precise = Timestamp { seconds: 1_765_152_000, nanos: 7 };
    check(v1::IngestPageRequest { observed_time: Some(too_precise), ..page(PAGE) }, "observed_time", "microsecond")
        .await;
    check(v1::IngestPageRequest { conflict_policy: 9, ..page(PAGE) }, "conflict_policy", "9 is no").await;
}
