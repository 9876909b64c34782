//! `RateService` over a real socket and a real store: every method, range bounds, and errors.

use prost_types::{Duration, Timestamp as ProtoTimestamp};
use silkrate::columns::decode_runs;
use silkrate::proto::v1;
use tonic::Code;

use crate::grpc::reads::{DAY_S, HOUR_S, NOON_S, Service, assert_refused, at, instant, proto, start};

fn rate_of(pair: &str) -> v1::GetRateRequest {
    v1::GetRateRequest { pair: pair.to_owned(), ..Default::default() }
}

fn runs_of(pair: &str) -> v1::ListRunsRequest {
    v1::ListRunsRequest { pair: pair.to_owned(), ..Default::default() }
}

fn change_of(pair: &str, start: i64) -> v1::GetChangeRequest {
    v1::GetChangeRequest { pair: pair.to_owned(), start_time: at(start), ..Default::default() }
}

fn rates(runs: &[v1::Run]) -> Vec<&str> {
    runs.iter().map(|run| run.rate.as_str()).collect()
}

#[tokio::test]
async fn poll_returns_changed_rates_and_no_future_rate() {
    let service = start().await;
    let empty = service.latest(0).await;
    assert_eq!(empty.rates, []);
    let first = service.commit("KGS/USD timesca", &[(-20, "0.01143"), (-10, "0.01144 -0"), (HOUR_S, "0.01199")]).await;
    let second = service.commit("UZS/USD timesca", &[(-10, "0.00008")]).await;

    let all = service.latest(0).await;
    let shown: Vec<&v1::Run> = all.rates.iter().filter_map(|rate| rate.run.as_ref()).collect();
    assert_eq!(shown.iter().map(|run| run.rate.as_str()).collect::<Vec<_>>(), ["0.01144", "0.00008"]);
    assert_eq!(shown[0].reported_change_percent.as_deref(), Some("-0"));
    assert_eq!(
        (all.sequence, all.server_time, all.recorded_time),
        (second.sequence, at(0), proto(second.recorded_time))
    );
    assert_eq!(all.rates[0].state(), v1::RateState::Moving);
    assert_eq!(all.rates[0].previous_rate.as_deref(), Some("0.01143"));
    assert_eq!((all.rates[0].moved_time, all.rates[0].stale_time), (at(-10), at(2 * DAY_S - 10)));
    assert_eq!((all.rates[1].state(), all.rates[1].moved_time), (v1::RateState::Flat, None));

    let since = service.latest(first.sequence).await;
    assert_eq!(since.rates.len(), 1);
    assert_eq!(since.rates[0].run.as_ref().unwrap().pair, "UZS/USD");
    assert_eq!(service.latest(second.sequence).await.rates, []);
    assert_eq!(
        service.latest(second.sequence + 1).await.rates.len(),
        2,
        "an unknown sequence, of another store, returns every rate"
    );

    // A confirmation alone is a change.
    service.commit("UZS/USD timesca", &[(-5, "0.00008")]).await;
    assert_eq!(service.latest(second.sequence).await.rates.len(), 1);

    let filtered = v1::GetLatestRatesRequest { pairs: vec!["UZS/USD".to_owned()], ..Default::default() };
    assert_eq!(service.client.clone().get_latest_rates(filtered).await.unwrap().into_inner().rates.len(), 1);
    let absent = v1::GetLatestRatesRequest { pairs: vec!["KGS/KZT".to_owned()], ..Default::default() };
    assert_eq!(service.client.clone().get_latest_rates(absent).await.unwrap().into_inner().rates, []);
    let bad = v1::GetLatestRatesRequest { pairs: vec!["UZS/USD".to_owned(), "x".to_owned()], ..Default::default() };
    assert_refused(service.client.clone().get_latest_rates(bad).await, Code::InvalidArgument, "pairs[1]");
}

#[tokio::test]
async fn rate_in_force_is_found_directly_and_as_inverse() {
    let service = start().await;
    let commit = service.commit("UZS/USD timesca", &[(-100, "0.00007"), (-50, "0.00008"), (-40, "0.00008")]).await;

    let direct = service.rate(rate_of("UZS/USD")).await.unwrap();
    assert_eq!([direct.rate_low.as_str(), &direct.rate, &direct.rate_high], ["0.000075", "0.00008", "0.000085"]);
    assert_eq!((direct.derivation(), direct.state()), (v1::Derivation::Direct, v1::RateState::Moving));
    assert_eq!((direct.age.unwrap().seconds, direct.time, direct.sequence), (40, at(0), commit.sequence));
    assert_eq!(direct.legs[0].observation_count, 2);

    let inverse = service.rate(rate_of("USD/UZS")).await.unwrap();
    assert_eq!(inverse.rate, "12500");
    assert_eq!([inverse.rate_low.as_str(), &inverse.rate_high], ["11764.7058823529", "13333.3333333334"]);
    assert_eq!((inverse.derivation(), inverse.state()), (v1::Derivation::Inverse, v1::RateState::Moving));
    assert_eq!((&inverse.legs, inverse.age), (&direct.legs, direct.age));

    let at_time = |seconds: i64| v1::GetRateRequest { time: at(seconds), ..rate_of("UZS/USD") };
    let inside = service.rate(at_time(-45)).await.unwrap();
    assert_eq!((inside.rate.as_str(), inside.age.unwrap().seconds), ("0.00008", 0));
    assert_eq!(inside.state(), v1::RateState::Unspecified, "a state exists for the current time only");
    assert_eq!(service.rate(at_time(-51)).await.unwrap().rate, "0.00007");
    // A time finer than a microsecond rounds down, to the instant before -50 s.
    let time = Some(ProtoTimestamp { seconds: NOON_S - 51, nanos: 999_999_999 });
    assert_eq!(service.rate(v1::GetRateRequest { time, ..rate_of("UZS/USD") }).await.unwrap().rate, "0.00007");
    assert_refused(service.rate(at_time(-101)).await, Code::NotFound, "NO_QUOTE_YET");

    let max_age =
        |seconds: i64| v1::GetRateRequest { max_age: Some(Duration { seconds, nanos: 0 }), ..rate_of("UZS/USD") };
    assert!(service.rate(max_age(40)).await.is_ok());
    assert_refused(service.rate(max_age(39)).await, Code::NotFound, "STALE");
    assert_refused(service.rate(max_age(-1)).await, Code::InvalidArgument, "max_age");
    service.clock.set(instant(3 * DAY_S));
    assert_eq!(service.rate(rate_of("USD/UZS")).await.unwrap().state(), v1::RateState::Stale);
}

#[tokio::test]
async fn source_is_named_or_chosen() {
    let service = start().await;
    assert_refused(service.rate(rate_of("KGS/USD")).await, Code::NotFound, "UNKNOWN_SERIES");
    let before = service.commit("KGS/USD timesca", &[(-10, "0.01144")]).await;
    assert_eq!(service.rate(rate_of("KGS/USD")).await.unwrap().legs[0].source, "timesca");
    service.commit("USD/KGS nbkr", &[(-10, "87.45")]).await;
    assert_eq!(service.rate(rate_of("USD/KGS")).await.unwrap().derivation(), v1::Derivation::Direct);
    service.commit("KGS/USD other", &[(-10, "0.01145")]).await;

    // All rates are fresh and have four digits, and this service has no settings of sources. The name decides, in both
    // directions.
    for pair in ["KGS/USD", "USD/KGS"] {
        assert_eq!(service.rate(rate_of(pair)).await.unwrap().legs[0].source, "nbkr", "{pair}");
    }
    let from = |source: &str, legs: &[&str]| v1::GetRateRequest {
        source: source.to_owned(),
        leg_sources: legs.iter().map(|leg| (*leg).to_owned()).collect(),
        ..rate_of("KGS/USD")
    };
    assert_eq!(service.rate(from("other", &[])).await.unwrap().rate, "0.01145");
    assert_eq!(service.rate(from("", &["other"])).await.unwrap().rate, "0.01145");
    assert_eq!(service.rate(from("nbkr", &[])).await.unwrap().derivation(), v1::Derivation::Inverse);
    assert_refused(service.rate(from("other", &["timesca"])).await, Code::InvalidArgument, "leg_sources");
    assert_refused(service.rate(from("", &["other", "timesca"])).await, Code::InvalidArgument, "leg_sources");
    assert_refused(service.rate(from("unknown", &[])).await, Code::NotFound, "UNKNOWN_SERIES");
    assert_refused(service.rate(rate_of("KGS/KZT")).await, Code::NotFound, "UNKNOWN_SERIES");
    assert_refused(service.rate(rate_of("KGS/EUR")).await, Code::InvalidArgument, "pair");

    // An as-of read before the other sources existed has the only source.
    let known = v1::GetRateRequest { known_time: proto(before.recorded_time), ..rate_of("KGS/USD") };
    assert_eq!(service.rate(known).await.unwrap().rate, "0.01144");
}

#[tokio::test]
async fn known_time_repeats_an_earlier_response() {
    let service = start().await;
    let first = service.commit("KGS/USD timesca", &[(-100, "0.01144"), (-50, "0.01145")]).await;
    let seen = service.rate(v1::GetRateRequest { time: at(-60), ..rate_of("KGS/USD") }).await.unwrap();
    assert_eq!(seen.recorded_time, proto(first.recorded_time));
    service.clock.set(instant(60));
    // A late tick and a revision change the rate in force.
    service.commit("KGS/USD timesca", &[(-70, "0.01150")]).await;
    service.commit("KGS/USD timesca", &[(-100, "0.01111")]).await;

    let at_60 = |known_time| v1::GetRateRequest { time: at(-60), known_time, ..rate_of("KGS/USD") };
    assert_eq!(service.rate(at_60(None)).await.unwrap().rate, "0.01150");
    let again = service.rate(at_60(seen.recorded_time)).await.unwrap();
    assert_eq!((again.rate, again.legs, again.sequence), (seen.rate, seen.legs, seen.sequence));

    // Without a time in the request, the response has the rate at the known time. If the known time is after the newest
    // commit, the response has the rate at the recorded time of this commit.
    let known = |known_time| v1::GetRateRequest { known_time, ..rate_of("KGS/USD") };
    assert_eq!(service.rate(known(seen.recorded_time)).await.unwrap().time, seen.recorded_time);
    assert_eq!(
        service.rate(known(at(DAY_S))).await.unwrap().time,
        at(60).map(|t| ProtoTimestamp { nanos: 1_000, ..t })
    );
    assert_refused(service.rate(known(at(-DAY_S))).await, Code::NotFound, "NO_QUOTE_YET");
    // The state is returned for the newest commit, with or without a known time, and not for earlier commits.
    let state = async |known_time| service.rate(known(known_time)).await.unwrap().state();
    assert_eq!(state(None).await, v1::RateState::Moving);
    assert_eq!(state(at(DAY_S)).await, v1::RateState::Moving);
    assert_eq!(state(seen.recorded_time).await, v1::RateState::Unspecified);
    let max_age = Some(Duration { seconds: 5, nanos: 0 });
    let both = v1::GetRateRequest { max_age, ..known(seen.recorded_time) };
    assert_refused(service.rate(both).await, Code::InvalidArgument, "max_age");

    let listed = |known_time| v1::ListRunsRequest { known_time, ..runs_of("KGS/USD") };
    assert_eq!(rates(&service.runs(listed(None)).await.unwrap().runs), ["0.01111", "0.01150", "0.01145"]);
    assert_eq!(rates(&service.runs(listed(seen.recorded_time)).await.unwrap().runs), ["0.01144", "0.01145"]);
}

/// 25 moves, ten seconds apart, beginning 1,000 seconds before noon.
async fn twenty_five_moves() -> (Service, Vec<String>) {
    let service = start().await;
    let texts: Vec<String> = (0..25).map(|number| format!("0.0{}", 1_100 + number)).collect();
    let ticks: Vec<(i64, &str)> =
        (0..).zip(&texts).map(|(number, text)| (number * 10 - 1_000, text.as_str())).collect();
    service.commit("KGS/USD timesca", &ticks).await;
    (service, texts)
}

#[tokio::test]
async fn all_pages_of_list_runs_see_one_commit() {
    for descending in [false, true] {
        let (service, texts) = twenty_five_moves().await;
        let mut request = v1::ListRunsRequest {
            start_time: at(-990),
            end_time: at(-760),
            descending,
            include_baseline: true,
            page_size: 7,
            ..runs_of("KGS/USD")
        };
        let (mut seen, mut baselines, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let page = service.runs(request.clone()).await.unwrap();
            assert!(page.runs.len() <= 7);
            seen.extend(page.runs.into_iter().map(|run| run.rate));
            baselines.extend(page.baseline.map(|run| run.rate));
            sequences.push(page.sequence);
            // Later commits, at either end of the range, do not change the remaining pages.
            let pages = i64::try_from(sequences.len()).unwrap();
            service.commit("KGS/USD timesca", &[(-769 + pages, "0.5"), (-980 + pages, "0.5")]).await;
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        let mut expect = texts[1..24].to_vec();
        if descending {
            expect.reverse();
        }
        assert_eq!((seen, baselines), (expect, vec![texts[0].clone()]));
        assert_eq!(sequences, [sequences[0]; 4]);
        let other = v1::ListRunsRequest { end_time: at(0), ..request };
        assert_refused(service.runs(other).await, Code::InvalidArgument, "page_token");
    }
}

#[tokio::test]
async fn list_runs_range_is_half_open() {
    let (service, texts) = twenty_five_moves().await;
    let check = async |start: Option<i64>, end: Option<i64>, expect: &[String]| {
        let request =
            v1::ListRunsRequest { start_time: start.and_then(at), end_time: end.and_then(at), ..runs_of("KGS/USD") };
        assert_eq!(rates(&service.runs(request).await.unwrap().runs), expect);
    };
    check(None, None, &texts).await;
    check(Some(-1_000), Some(-990), &texts[..1]).await;
    check(Some(-999), Some(-980), &texts[1..2]).await;
    check(Some(-990), Some(-990), &[]).await;
    check(None, Some(-1_000), &[]).await;
    check(Some(-760), None, &texts[24..]).await;
    // A bound finer than a microsecond rounds up, so a run that begins just before the bound is excluded.
    let start_time = Some(ProtoTimestamp { nanos: 1, ..at(-990).unwrap() });
    let after_bound = service.runs(v1::ListRunsRequest { start_time, ..runs_of("KGS/USD") }).await.unwrap();
    assert_eq!(rates(&after_bound.runs), texts[2..]);
    let no_baseline = v1::ListRunsRequest { include_baseline: true, ..runs_of("KGS/USD") };
    assert_eq!(service.runs(no_baseline).await.unwrap().baseline, None);

    let reversed = v1::ListRunsRequest { start_time: at(-990), end_time: at(-991), ..runs_of("KGS/USD") };
    assert_refused(service.runs(reversed).await, Code::InvalidArgument, "end_time");
    let negative = v1::ListRunsRequest { page_size: -1, ..runs_of("KGS/USD") };
    assert_refused(service.runs(negative).await, Code::InvalidArgument, "page_size");
    let inverse = service.runs(runs_of("USD/KGS")).await;
    assert!(inverse.as_ref().unwrap_err().message().contains("ask for KGS/USD from timesca"));
    assert_refused(inverse, Code::NotFound, "UNKNOWN_SERIES");
}

#[tokio::test]
async fn stream_runs_equals_list_runs() {
    let service = start().await;
    let texts: Vec<String> = (0..9_000).map(|number| format!("0.{:05} -0.{}", 1_000 + number, number % 10)).collect();
    let ticks: Vec<(i64, &str)> = (0..).zip(&texts).map(|(number, text)| (number - 9_000, text.as_str())).collect();
    service.commit("KGS/USD timesca", &ticks).await;
    let collect = async |request: v1::StreamRunsRequest| {
        let mut stream = service.client.clone().stream_runs(request).await.unwrap().into_inner();
        let (mut runs, mut messages) = (Vec::new(), 0);
        while let Some(message) = stream.message().await.unwrap() {
            runs.extend(decode_runs(&message).unwrap());
            messages += 1;
        }
        (runs, messages)
    };
    let all = v1::StreamRunsRequest { pair: "KGS/USD".to_owned(), ..Default::default() };
    let (runs, messages) = collect(all.clone()).await;
    assert_eq!(messages, 3);
    let listed = service.runs(v1::ListRunsRequest { page_size: 10_000, ..runs_of("KGS/USD") }).await.unwrap().runs;
    assert_eq!(runs.len(), listed.len());
    for (run, row) in runs.iter().zip(&listed) {
        assert_eq!(run.value.rate.to_string(), row.rate);
        assert_eq!(run.value.reported_change.map(|change| change.to_string()), row.reported_change_percent);
        assert_eq!(
            (proto(run.first_observed_time), proto(run.recorded_time)),
            (row.first_observed_time, row.recorded_time)
        );
    }
    let part = v1::StreamRunsRequest { start_time: at(-10), end_time: at(-5), ..all.clone() };
    assert_eq!(collect(part).await.0.len(), 5);
    let nothing = v1::StreamRunsRequest { start_time: at(5), ..all.clone() };
    assert_eq!(collect(nothing).await, (Vec::new(), 1), "a stream has at least one message");
    let inverse = v1::StreamRunsRequest { pair: "USD/KGS".to_owned(), ..all };
    assert_refused(service.client.clone().stream_runs(inverse).await.map(drop), Code::NotFound, "UNKNOWN_SERIES");
}

#[tokio::test]
async fn change_has_rounding_bounds() {
    let service = start().await;
    service.commit("UZS/USD timesca", &[(-2 * DAY_S, "0.00008"), (-10, "0.00008 -0")]).await;
    service.commit("KGS/USD timesca", &[(-2 * DAY_S, "0.01144"), (-10, "0.01146")]).await;
    let texts = |change: &v1::GetChangeResponse| {
        [&change.percent_change_low, &change.percent_change, &change.percent_change_high, &change.absolute_change]
            .map(|text| text.clone().unwrap())
    };
    let flat = service.change(change_of("UZS/USD", -DAY_S)).await.unwrap();
    assert_eq!(texts(&flat), ["-11.764706", "0.000000", "13.333334", "0.00000"]);
    assert_eq!(flat.below_resolution, Some(true));
    let moved = service.change(change_of("KGS/USD", -DAY_S)).await.unwrap();
    assert_eq!(texts(&moved), ["0.087374", "0.174825", "0.262353", "0.00002"]);
    assert_eq!(moved.below_resolution, Some(false));
    assert_eq!((moved.start.unwrap().time, moved.end.unwrap().time), (at(-DAY_S), at(0)));
    let inverse = service.change(v1::GetChangeRequest { decimal_places: Some(2), ..change_of("USD/KGS", -DAY_S) });
    assert_eq!(texts(&inverse.await.unwrap())[..3], ["-0.27", "-0.17", "-0.08"]);

    let window = |count: u32, unit: v1::WindowUnit| v1::GetChangeRequest {
        start_time: None,
        window: Some(v1::Window { count, unit: unit.into() }),
        ..change_of("KGS/USD", 0)
    };
    let day = service.change(window(1, v1::WindowUnit::Day)).await.unwrap();
    assert_eq!((day.start.unwrap().time, day.percent_change.as_deref()), (at(-DAY_S), Some("0.174825")));
    let month = service.change(window(1, v1::WindowUnit::Month)).await.unwrap();
    assert_eq!(month.start_missing_reason(), v1::MissingReason::NoQuoteYet);
    assert!(month.start.is_none() && month.end.is_some() && month.percent_change.is_none());
    assert_refused(service.change(window(0, v1::WindowUnit::Day)).await, Code::InvalidArgument, "window.count");
    let reversed = v1::GetChangeRequest { end_time: at(-2), ..change_of("KGS/USD", -1) };
    assert_refused(service.change(reversed).await, Code::InvalidArgument, "end_time");
    let too_precise = v1::GetChangeRequest { decimal_places: Some(13), ..change_of("KGS/USD", -1) };
    assert_refused(service.change(too_precise).await, Code::InvalidArgument, "decimal_places");
}

#[tokio::test]
async fn list_revisions_and_list_series_respect_the_known_time() {
    let service = start().await;
    let first = service.commit("KGS/USD timesca", &[(-30, "0.01144"), (-20, "0.01145"), (-10, "0.01146")]).await;
    service.clock.set(instant(60));
    let second = service.commit("KGS/USD timesca", &[(-30, "0.01134"), (-20, "0.01135"), (-10, "0.01136")]).await;
    service.clock.set(instant(120));
    service.commit("KGS/USD timesca", &[(-30, "0.01124")]).await;
    service.commit("KZT/USD nbk", &[(-30, "0.00196")]).await;

    let all = v1::ListRevisionsRequest { pair: "KGS/USD".to_owned(), page_size: 2, ..Default::default() };
    let (mut request, mut seen) = (all.clone(), Vec::new());
    loop {
        let page = service.client.clone().list_revisions(request.clone()).await.unwrap().into_inner();
        assert!(page.revisions.len() <= 2);
        seen.extend(page.revisions.into_iter().map(|one| (one.run.unwrap().rate, one.superseded_time)));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let expect = [("0.01144", 60), ("0.01145", 60), ("0.01146", 60), ("0.01134", 120)];
    assert_eq!(seen, expect.map(|(rate, seconds)| (rate.to_owned(), at(seconds))));
    let count = async |request: v1::ListRevisionsRequest| {
        service.client.clone().list_revisions(request).await.unwrap().into_inner().revisions.len()
    };
    let all = v1::ListRevisionsRequest { page_size: 0, ..all };
    assert_eq!(count(v1::ListRevisionsRequest { start_time: at(61), ..all.clone() }).await, 1);
    assert_eq!(count(v1::ListRevisionsRequest { end_time: at(120), ..all.clone() }).await, 3);
    assert_eq!(count(v1::ListRevisionsRequest { known_time: proto(second.recorded_time), ..all.clone() }).await, 3);
    assert_eq!(count(v1::ListRevisionsRequest { known_time: proto(first.recorded_time), ..all }).await, 0);

    let list = async |request: v1::ListSeriesRequest| {
        service.client.clone().list_series(request).await.unwrap().into_inner().series
    };
    let series = list(v1::ListSeriesRequest::default()).await;
    assert_eq!(series.iter().map(|one| one.pair.as_str()).collect::<Vec<_>>(), ["KGS/USD", "KZT/USD"]);
    assert_eq!((series[0].run_count, series[0].observation_count, series[0].revision_count), (3, 3, 4));
    assert_eq!((series[0].first_observed_time, series[0].last_observed_time), (at(-30), at(-10)));
    assert_eq!((series[0].state(), series[1].state()), (v1::RateState::Moving, v1::RateState::Flat));
    assert_eq!(series[0].collapse_window, Some(Duration { seconds: HOUR_S, nanos: 0 }));
    let earlier = list(v1::ListSeriesRequest { known_time: proto(first.recorded_time), ..Default::default() }).await;
    assert_eq!((earlier.len(), earlier[0].run_count, earlier[0].revision_count), (1, 3, 0));
    assert_eq!(earlier[0].state(), v1::RateState::Unspecified);
    let from_nbk = v1::ListSeriesRequest { sources: vec!["nbk".to_owned()], ..Default::default() };
    assert_eq!(list(from_nbk).await.len(), 1);
}
