//! `ArchiveSource` and `UnarchiveSource`: which rates answer, what polls see, and what the lists show.

use silkrate::proto::v1;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::TestServer;

async fn archive(server: &TestServer, source: &str, note: &str) -> Result<v1::ArchiveSourceResponse, tonic::Status> {
    let request = v1::ArchiveSourceRequest { source: source.to_owned(), note: note.to_owned() };
    server.ingest().archive_source(request).await.map(tonic::Response::into_inner)
}

async fn server() -> TestServer {
    let server = TestServer::start(&[]).await;
    let tick = |source: &str, rate: &str| v1::Tick {
        pair: "KGS/USD".to_owned(),
        source: source.to_owned(),
        rate: rate.to_owned(),
        observed_time: Some(prost_types::Timestamp { seconds: 1_765_195_000, nanos: 0 }),
        ..Default::default()
    };
    server.store(&[tick("timesca", "0.01144"), tick("tymesca", "0.01145")]).await;
    server
}

#[tokio::test]
async fn archived_source_is_listed_and_polled_with_its_mark() {
    let server = server().await;
    let before = server.rates().get_latest_rates(v1::GetLatestRatesRequest::default()).await.unwrap().into_inner();
    assert!(before.rates.iter().all(|rate| !rate.archived));
    let first = archive(&server, "tymesca", "a misspelled name").await.unwrap();
    assert_eq!((first.changed, first.sequence), (true, before.sequence + 1));
    // A poll gets the mark as a change of the rate.
    let request = v1::GetLatestRatesRequest { since_sequence: before.sequence, ..Default::default() };
    let changed = server.rates().get_latest_rates(request).await.unwrap().into_inner().rates;
    let changed: Vec<_> =
        changed.iter().map(|rate| (rate.run.as_ref().unwrap().source.as_str(), rate.archived)).collect();
    assert_eq!(changed, [("tymesca", true)]);

    let sources = server.rates().list_sources(v1::ListSourcesRequest { sources: vec!["tymesca".to_owned()] }).await;
    let info = sources.unwrap().into_inner().sources.remove(0);
    assert_eq!(
        (info.archived, info.archived_changed_time, info.archived_note()),
        (true, first.recorded_time, "a misspelled name")
    );
    let listed = |known_time| v1::ListSeriesRequest { known_time, ..Default::default() };
    let series = async |known_time| -> Vec<bool> {
        let response = server.rates().list_series(listed(known_time)).await.unwrap().into_inner();
        response.series.iter().map(|series| series.archived).collect()
    };
    assert_eq!(series(None).await, [false, true]);
    assert_eq!(series(before.recorded_time).await, [false, false], "as known before the decision");

    let again = archive(&server, "tymesca", "").await.unwrap();
    assert_eq!((again.changed, again.sequence), (false, first.sequence));
    let request = v1::UnarchiveSourceRequest { source: "tymesca".to_owned(), note: String::new() };
    let reversed = server.ingest().unarchive_source(request.clone()).await.unwrap().into_inner();
    assert_eq!((reversed.changed, reversed.sequence), (true, first.sequence + 1));
    assert_eq!(series(None).await, [false, false]);
    assert!(!server.ingest().unarchive_source(request).await.unwrap().into_inner().changed);
    server.stop().await;
}

#[tokio::test]
async fn invalid_decision_names_the_field_or_the_known_sources() {
    let server = server().await;
    let check = async |source: &str, note: &str, code: Code, expect: &str| {
        let status = archive(&server, source, note).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, expect));
        status
    };
    check("", "", Code::InvalidArgument, "source: is empty; name a source like nbkr").await;
    check(
        "Tymes",
        "",
        Code::InvalidArgument,
        "source: source 'Tymes' is not a slug of 1 to 32 characters from a-z, 0-9 and '-'; write one like timesca",
    )
    .await;
    check(
        "timesca",
        "two\nlines",
        Code::InvalidArgument,
        "note: note 'two\\nlines' contains control characters or invisible characters; write one line of plain text",
    )
    .await;
    let unknown = check(
        "timeska",
        "",
        Code::NotFound,
        "no series has the source 'timeska'; sources with series: timesca, tymesca",
    )
    .await;
    let details = unknown.get_error_details();
    assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("UNKNOWN_SERIES"));
    server.stop().await;
}
