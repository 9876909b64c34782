//! Inverse and cross rates, conversions, period changes and candles, over a real socket and a real store.

use prost_types::{Duration, Timestamp as ProtoTimestamp};
use silkrate::proto::v1;
use tonic::{Code, Status};

use crate::grpc::reads::{DAY_S, HOUR_S, NOON_S, Service, assert_refused, at, instant, proto, start};

/// Midnight of the day at which the test clock starts, in seconds from noon.
const TODAY_S: i64 = -12 * HOUR_S;

fn rate_of(pair: &str) -> v1::GetRateRequest {
    v1::GetRateRequest { pair: pair.to_owned(), ..Default::default() }
}

fn convert_of(amount: &str, pair: &str) -> v1::ConvertRequest {
    v1::ConvertRequest { pair: pair.to_owned(), amount: amount.to_owned(), ..Default::default() }
}

fn changes_of(pair: &str, period: v1::ChangePeriod) -> v1::ListChangesRequest {
    v1::ListChangesRequest { pair: pair.to_owned(), period: period.into(), ..Default::default() }
}

fn candles_of(pair: &str, interval: v1::CandleInterval) -> v1::ListCandlesRequest {
    v1::ListCandlesRequest { pair: pair.to_owned(), interval: interval.into(), ..Default::default() }
}

async fn convert(service: &Service, request: v1::ConvertRequest) -> Result<v1::ConvertResponse, Status> {
    service.client.clone().convert(request).await.map(tonic::Response::into_inner)
}

async fn changes(service: &Service, request: v1::ListChangesRequest) -> Result<v1::ListChangesResponse, Status> {
    service.client.clone().list_changes(request).await.map(tonic::Response::into_inner)
}

async fn candles(service: &Service, request: v1::ListCandlesRequest) -> Result<v1::ListCandlesResponse, Status> {
    service.client.clone().list_candles(request).await.map(tonic::Response::into_inner)
}

/// Returns the seconds from noon.
fn seconds(time: Option<&ProtoTimestamp>) -> i64 {
    time.unwrap().seconds - NOON_S
}

/// Formats a candle as "seconds from noon: open high low close = average, moves of observations". The observations are
/// omitted if they were not counted. `*` marks a filled candle, `...` an incomplete candle.
fn candle_text(candle: &v1::Candle) -> String {
    format!(
        "{}: {} {} {} {} = {}, {}{}{}{}",
        seconds(candle.start_time.as_ref()),
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        candle.average,
        candle.move_count,
        candle.observation_count.map_or(String::new(), |count| format!(" of {count}")),
        if candle.filled { "*" } else { "" },
        if candle.complete { "" } else { "..." }
    )
}

fn candle_texts(page: &v1::ListCandlesResponse) -> Vec<String> {
    page.candles.iter().map(candle_text).collect()
}

/// Formats a change as "seconds from noon: start rate -> end rate percent (low high)", `...` if incomplete.
fn change_text(change: &v1::PeriodChange) -> String {
    let rate = |end: Option<&v1::GetRateResponse>| end.map_or("?".to_owned(), |end| end.rate.clone());
    let text = |text: &Option<String>| text.clone().unwrap_or("?".to_owned());
    format!(
        "{}: {} -> {} {} ({} {}){}",
        seconds(change.period_start_time.as_ref()),
        rate(change.start.as_ref()),
        rate(change.end.as_ref()),
        text(&change.percent_change),
        text(&change.percent_change_low),
        text(&change.percent_change_high),
        if change.complete { "" } else { "..." }
    )
}

fn change_texts(page: &v1::ListChangesResponse) -> Vec<String> {
    page.changes.iter().map(change_text).collect()
}

#[tokio::test]
async fn cross_rate_goes_through_usd_and_lists_its_legs() {
    let service = start().await;
    service.commit("KGS/USD timesca", &[(-2 * HOUR_S, "0.01144")]).await;
    service.commit("KZT/USD timesca", &[(-HOUR_S, "0.00196")]).await;
    let cross = service.rate(rate_of("KGS/KZT")).await.unwrap();
    assert_eq!(
        [cross.rate_low.as_str(), &cross.rate, &cross.rate_high],
        ["5.81933842239185", "5.83673469387755", "5.85421994884911"]
    );
    assert_eq!(cross.derivation(), v1::Derivation::Cross);
    let legs: Vec<String> = cross.legs.iter().map(|leg| format!("{} {} {}", leg.pair, leg.source, leg.rate)).collect();
    assert_eq!(legs, ["KGS/USD timesca 0.01144", "KZT/USD timesca 0.00196"]);
    // The age of the older leg, and the difference of the two ages.
    let duration = |seconds: i64| Some(Duration { seconds, nanos: 0 });
    assert_eq!((cross.age, cross.leg_age_difference), (duration(2 * HOUR_S), duration(HOUR_S)));
    assert_eq!(cross.state(), v1::RateState::Flat);
    // The inverse of a cross rate is computed from the same fraction.
    assert_eq!(service.rate(rate_of("KZT/KGS")).await.unwrap().rate, "0.171328671328671");

    // With legs of equal age there is no age difference. A moving leg makes the cross rate moving.
    service.commit("KGS/USD timesca", &[(-HOUR_S, "0.01145")]).await;
    let even = service.rate(rate_of("KGS/KZT")).await.unwrap();
    assert_eq!((even.age, even.leg_age_difference), (duration(HOUR_S), None));
    assert_eq!(even.state(), v1::RateState::Moving);
    let strict = |seconds: i64| v1::GetRateRequest { max_age: duration(seconds), ..rate_of("KGS/KZT") };
    assert!(service.rate(strict(HOUR_S)).await.is_ok());
    assert_refused(service.rate(strict(HOUR_S - 1)).await, Code::NotFound, "STALE");
    // A stale leg makes the cross rate stale, whatever the state of the other leg.
    service.clock.set(instant(3 * DAY_S));
    service.commit("KGS/USD timesca", &[(3 * DAY_S - 5, "0.01146")]).await;
    assert_eq!(service.rate(rate_of("KGS/KZT")).await.unwrap().state(), v1::RateState::Stale);
    // Before the first quote of a leg there is no cross rate, and the error names that leg.
    let early = service.rate(v1::GetRateRequest { time: at(-90 * 60), ..rate_of("KGS/KZT") }).await;
    assert!(early.as_ref().unwrap_err().message().starts_with("no quote of KZT/USD from timesca"), "{early:?}");
    assert_refused(early, Code::NotFound, "NO_QUOTE_YET");
}

#[tokio::test]
async fn usd_quote_of_a_bank_serves_as_inverse_leg() {
    let service = start().await;
    let before = service.commit("USD/KGS nbkr", &[(-HOUR_S, "87.4")]).await;
    service.commit("KZT/USD timesca", &[(-HOUR_S, "0.00196")]).await;
    let cross = service.rate(rate_of("KGS/KZT")).await.unwrap();
    assert_eq!((cross.rate.as_str(), cross.legs[0].pair.as_str()), ("5.83757530472143", "USD/KGS"));
    service.commit("KZT/USD nbk", &[(-HOUR_S, "0.00197")]).await;
    service.commit("KGS/USD timesca", &[(-HOUR_S, "0.01144")]).await;

    // Each leg is chosen alone. KGS/USD has more digits than USD/KGS; the rates of KZT/USD differ only by their names.
    let chosen = service.rate(rate_of("KGS/KZT")).await.unwrap();
    let chosen: Vec<&str> = chosen.legs.iter().map(|leg| leg.source.as_str()).collect();
    assert_eq!(chosen, ["timesca", "nbk"]);
    let by = |source: &str, legs: &[&str]| v1::GetRateRequest {
        source: source.to_owned(),
        leg_sources: legs.iter().map(|leg| (*leg).to_owned()).collect(),
        ..rate_of("KGS/KZT")
    };
    let from = async |source: &str, legs: &[&str]| {
        let response = service.rate(by(source, legs)).await.unwrap();
        response.legs.iter().map(|leg| format!("{} {}", leg.pair, leg.source)).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(from("timesca", &[]).await, "KGS/USD timesca, KZT/USD timesca");
    assert_eq!(from("", &["nbkr", "nbk"]).await, "USD/KGS nbkr, KZT/USD nbk");
    assert_refused(service.rate(by("", &["timesca"])).await, Code::InvalidArgument, "leg_sources");
    assert_refused(service.rate(by("nbk", &["nbk", "timesca"])).await, Code::InvalidArgument, "leg_sources");
    assert_refused(service.rate(by("nbk", &[])).await, Code::NotFound, "UNKNOWN_SERIES");
    // A published rate with more digits than a leg answers before the cross; two leg sources still request the cross.
    service.commit("KZT/KGS nbk", &[(-HOUR_S, "0.17100")]).await;
    assert_eq!(from("", &[]).await, "KZT/KGS nbk");
    assert_eq!(from("", &["nbkr", "nbk"]).await, "USD/KGS nbkr, KZT/USD nbk");
    // An as-of read before the second leg existed finds no cross rate.
    let known = v1::GetRateRequest { known_time: proto(before.recorded_time), ..rate_of("KGS/KZT") };
    assert_refused(service.rate(known).await, Code::NotFound, "UNKNOWN_SERIES");
}

#[tokio::test]
async fn every_read_serves_derived_pairs() {
    let service = start().await;
    service.commit("UZS/USD timesca", &[(TODAY_S - DAY_S, "0.00008"), (TODAY_S + HOUR_S, "0.00009")]).await;
    service.commit("KGS/USD timesca", &[(TODAY_S - DAY_S, "0.01144"), (TODAY_S + 2 * HOUR_S, "0.01145")]).await;
    assert_eq!(service.rate(rate_of("USD/UZS")).await.unwrap().rate, "11111.1111111111");
    let change = v1::GetChangeRequest { pair: "USD/UZS".to_owned(), start_time: at(-DAY_S), ..Default::default() };
    let change = service.change(change).await.unwrap();
    // Computed from the leg: 100 * (0.000075 / 0.000095 - 1) to 100 * (0.000085 / 0.000085 - 1).
    assert_eq!(change.percent_change.as_deref(), Some("-11.111111"));
    assert_eq!(change.percent_change_low.as_deref(), Some("-21.052632"));
    assert_eq!((change.percent_change_high.as_deref(), change.below_resolution), (Some("0.000000"), Some(true)));
    let inverse = candles(&service, candles_of("USD/UZS", v1::CandleInterval::Day)).await.unwrap();
    assert_eq!((inverse.derivation(), inverse.legs.len()), (v1::Derivation::Inverse, 1));
    // One hour of 12500, and eleven hours of 1 / 0.00009 with 15 digits.
    assert_eq!(
        candle_texts(&inverse),
        [
            "-129600: 12500 12500 12500 12500 = 12500, 0",
            "-43200: 12500 12500 11111.1111111111 11111.1111111111 = 11226.8518518518, 1..."
        ]
    );
    let rows = changes(&service, changes_of("USD/UZS", v1::ChangePeriod::DayOnDay)).await.unwrap();
    assert_eq!(change_texts(&rows)[1], "-43200: 12500 -> 11111.1111111111 -11.111111 (-21.052632 0.000000)...");
    // A cross rate changes when either leg changes.
    let cross = candles(&service, candles_of("KGS/UZS", v1::CandleInterval::Hour)).await.unwrap();
    assert_eq!(cross.legs.iter().map(|leg| leg.pair.as_str()).collect::<Vec<_>>(), ["KGS/USD", "UZS/USD"]);
    assert_eq!(
        candle_texts(&cross),
        [
            "-129600: 143 143 143 143 = 143, 0",
            "-39600: 127.111111111111 127.111111111111 127.111111111111 127.111111111111 = 127.111111111111, 1",
            "-36000: 127.222222222222 127.222222222222 127.222222222222 127.222222222222 = 127.222222222222, 1",
        ]
    );
    let rows = changes(&service, changes_of("KGS/UZS", v1::ChangePeriod::DayOnDay)).await.unwrap();
    assert_eq!(rows.changes[1].end.as_ref().unwrap().legs.len(), 2);
    // The low bound is 100 * (0.000075 / 0.000095 - 1), with both ends of KGS/USD equal; the high bound is 100 *
    // (0.011455 / 0.011435 - 1), with both ends of UZS/USD equal.
    assert_eq!(change_texts(&rows)[1], "-43200: 143 -> 127.222222222222 -11.033411 (-21.052632 0.174902)...");
}

#[tokio::test]
async fn convert_returns_amount_with_bounds_and_its_rate() {
    let service = start().await;
    let first = service.commit("KGS/USD timesca", &[(-HOUR_S, "0.01144")]).await;
    let response = convert(&service, convert_of("100", "KGS/USD")).await.unwrap();
    assert_eq!(
        [response.converted_amount_low.as_str(), &response.converted_amount, &response.converted_amount_high],
        ["1.143500", "1.14400", "1.144500"]
    );
    assert_eq!(response.rate, Some(service.rate(rate_of("KGS/USD")).await.unwrap()));
    assert_eq!(response.recorded_time, proto(first.recorded_time));
    service.commit("KZT/USD timesca", &[(-HOUR_S, "0.00196")]).await;
    service.commit("KGS/USD timesca", &[(-60, "0.01150")]).await;
    let cross = convert(&service, convert_of("1000", "KGS/KZT")).await.unwrap();
    assert_eq!((cross.converted_amount.as_str(), cross.rate.unwrap().legs.len()), ("5867.34693877551", 2));
    let then = v1::ConvertRequest { time: at(-120), ..convert_of("100", "KGS/USD") };
    assert_eq!(convert(&service, then).await.unwrap().converted_amount, "1.14400");
    let known = v1::ConvertRequest { known_time: proto(first.recorded_time), ..convert_of("100", "KGS/USD") };
    assert_eq!(convert(&service, known).await.unwrap().converted_amount, "1.14400");

    for bad in ["", "-1", "1e3", "NaN", "1,000", "12345678901234567890.123456789", "1.2345678901234567890"] {
        assert_refused(convert(&service, convert_of(bad, "KGS/USD")).await, Code::InvalidArgument, "amount");
    }
    assert_refused(convert(&service, convert_of("1", "KGS/KGS")).await, Code::InvalidArgument, "pair");
    assert_refused(convert(&service, convert_of("1", "TJS/USD")).await, Code::NotFound, "UNKNOWN_SERIES");
    let strict = v1::ConvertRequest { max_age: Some(Duration::default()), ..convert_of("1", "KGS/USD") };
    assert_refused(convert(&service, strict).await, Code::NotFound, "STALE");
}

#[tokio::test]
async fn daily_candles_are_filled_on_request_and_begin_at_local_midnight() {
    let service = start().await;
    let day = |days: i64, hours: i64| TODAY_S + days * DAY_S + hours * HOUR_S;
    let ticks = [(day(-4, 6), "2"), (day(-4, 12), "5"), (day(-4, 18), "3"), (day(-1, 0), "4"), (day(0, 6), "8")];
    service.commit("KGS/USD timesca", &ticks).await;
    // The last rate is confirmed once within the collapse window, and once after it, which begins another run.
    service.commit("KGS/USD timesca", &[(day(0, 6) + 60, "8"), (day(0, 9), "8")]).await;
    let request = v1::ListCandlesRequest { count_observations: true, ..candles_of("KGS/USD", v1::CandleInterval::Day) };
    let page = candles(&service, request.clone()).await.unwrap();
    assert_eq!(
        candle_texts(&page),
        [
            // Six hours each of 2, 5 and 3. The time before the first quote does not count.
            format!("{}: 2 5 2 3 = 3.33333333333333, 2 of 3", day(-4, 0)),
            format!("{}: 4 4 4 4 = 4, 1 of 1", day(-1, 0)),
            // The day is half over.
            format!("{}: 4 8 4 8 = 6, 1 of 3...", day(0, 0)),
        ]
    );
    let first = &page.candles[0];
    let times = [&first.open_time, &first.high_time, &first.low_time, &first.close_time];
    assert_eq!(times.map(|time| seconds(time.as_ref()) - day(-4, 0)), [6, 12, 6, 18].map(|hours| hours * HOUR_S));
    let last = &page.candles[2];
    assert_eq!((seconds(last.open_time.as_ref()), seconds(last.close_time.as_ref())), (day(0, 0), day(0, 9)));

    let filled = v1::ListCandlesRequest { fill_empty: true, start_time: at(day(-3, 0)), ..request.clone() };
    assert_eq!(
        candle_texts(&candles(&service, filled.clone()).await.unwrap())[..3],
        [
            format!("{}: 3 3 3 3 = 3, 0 of 0*", day(-3, 0)),
            format!("{}: 3 3 3 3 = 3, 0 of 0*", day(-2, 0)),
            format!("{}: 4 4 4 4 = 4, 1 of 1", day(-1, 0)),
        ]
    );
    // Days in Bishkek begin six hours before days in UTC.
    let local = v1::ListCandlesRequest { time_zone: "Asia/Bishkek".to_owned(), ..request.clone() };
    let page = candles(&service, local).await.unwrap();
    assert_eq!(candle_text(&page.candles[0]), format!("{}: 2 5 2 5 = 3.5, 1 of 2", day(-4, -6)));
    // A bucket that begins before the range, or at its end, is excluded.
    let part = v1::ListCandlesRequest { start_time: at(day(-4, 1)), end_time: at(day(0, 0)), ..request };
    assert_eq!(candles(&service, part).await.unwrap().candles.len(), 1);
}

/// Formats bounds as "low..high".
fn bounds(bounds: Option<&v1::RateBounds>) -> String {
    bounds.map_or("?".to_owned(), |bounds| format!("{}..{}", bounds.low, bounds.high))
}

#[tokio::test]
async fn candles_carry_rounding_bounds() {
    let service = start().await;
    service.commit("KGS/USD timesca", &[(TODAY_S, "0.01144"), (TODAY_S + 6 * HOUR_S, "0.01146")]).await;
    let page = candles(&service, candles_of("KGS/USD", v1::CandleInterval::Day)).await.unwrap();
    let all = |candle: &v1::Candle| {
        [&candle.open_bounds, &candle.high_bounds, &candle.low_bounds, &candle.close_bounds, &candle.average_bounds]
            .map(|one| bounds(one.as_ref()))
    };
    let (lower, upper) = ("0.011435..0.011445", "0.011455..0.011465");
    assert_eq!(all(&page.candles[0]), [lower, upper, lower, upper, "0.011445..0.011455"]);

    // A published 2 may be 2.5, which is above the whole range of 2.1. So the bounds of the high cover both quotes.
    service.commit("TJS/USD timesca", &[(TODAY_S, "2"), (TODAY_S + 6 * HOUR_S, "2.1")]).await;
    let page = candles(&service, candles_of("TJS/USD", v1::CandleInterval::Day)).await.unwrap();
    assert_eq!(page.candles[0].high, "2.1");
    assert_eq!(all(&page.candles[0]), ["1.5..2.5", "2.05..2.5", "1.5..2.15", "2.05..2.15", "1.775..2.325"]);

    // A cross rate has the same close, bounds and leg ages as in GetRate.
    service.commit("UZS/USD timesca", &[(TODAY_S - DAY_S, "0.00008"), (TODAY_S + HOUR_S, "0.00009")]).await;
    let page = candles(&service, candles_of("KGS/UZS", v1::CandleInterval::Hour)).await.unwrap();
    assert_eq!(page.candles.len(), 3);
    for candle in &page.candles {
        let end = candle.end_time.unwrap().seconds - 1;
        let time = Some(ProtoTimestamp { seconds: end, nanos: 0 });
        let rate = service.rate(v1::GetRateRequest { time, ..rate_of("KGS/UZS") }).await.unwrap();
        assert_eq!(candle.close, rate.rate);
        assert_eq!(bounds(candle.close_bounds.as_ref()), format!("{}..{}", rate.rate_low, rate.rate_high));
        assert_eq!(candle.leg_age_difference, rate.leg_age_difference);
    }
    let apart = |candle: &v1::Candle| candle.leg_age_difference.map(|apart| apart.seconds / HOUR_S);
    assert_eq!(page.candles.iter().map(apart).collect::<Vec<_>>(), [Some(24), Some(1), Some(5)]);
    let inverse = candles(&service, candles_of("USD/UZS", v1::CandleInterval::Hour)).await.unwrap();
    assert_eq!(bounds(inverse.candles[0].open_bounds.as_ref()), "11764.7058823529..13333.3333333334");
}

#[tokio::test]
async fn all_candle_pages_see_one_commit_and_one_time() {
    let service = start().await;
    let texts: Vec<String> = (0..40).map(|number| format!("0.0{}", 1_100 + number * 7 % 40)).collect();
    let ticks: Vec<(i64, &str)> = (0..).zip(&texts).map(|(at, text)| (at * 450 - 18_000, text.as_str())).collect();
    service.commit("KGS/USD timesca", &ticks).await;
    service.clock.set(instant(40));
    let whole = v1::ListCandlesRequest {
        fill_empty: true,
        count_observations: true,
        ..candles_of("KGS/USD", v1::CandleInterval::FifteenMinutes)
    };
    let expect = candles(&service, whole.clone()).await.unwrap();
    assert_eq!((expect.candles.len(), expect.next_page_token.as_str()), (21, ""));
    let changed = v1::ListChangesRequest { end_time: at(DAY_S), ..changes_of("KGS/USD", v1::ChangePeriod::DayOnDay) };
    let mut request = v1::ListCandlesRequest { page_size: 4, ..whole };
    let mut seen = Vec::new();
    loop {
        let page = candles(&service, request.clone()).await.unwrap();
        assert!(page.candles.len() <= 4);
        seen.extend(page.candles);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        // Later commits and the passing of time do not change the remaining pages.
        service.clock.set(instant(40 + i64::try_from(seen.len()).unwrap()));
        service.commit("KGS/USD timesca", &[(10 + i64::try_from(seen.len()).unwrap(), "0.5"), (-18_100, "0.5")]).await;
    }
    assert_eq!(seen, expect.candles);
    // A token is valid only for the same request of the same method.
    let other = v1::ListCandlesRequest { fill_empty: false, ..request.clone() };
    assert_refused(candles(&service, other).await, Code::InvalidArgument, "page_token");
    let other = v1::ListChangesRequest { page_token: request.page_token, ..changed };
    assert_refused(changes(&service, other).await, Code::InvalidArgument, "page_token");
}

#[tokio::test]
async fn candles_as_known_earlier_ignore_later_ticks() {
    let service = start().await;
    let first = service.commit("KGS/USD timesca", &[(-7_200, "2"), (-3_600, "4")]).await;
    let of = |known_time| v1::ListCandlesRequest {
        known_time,
        count_observations: true,
        ..candles_of("KGS/USD", v1::CandleInterval::Hour)
    };
    service.clock.set(instant(1_800));
    // A late tick, and other ticks that begin runs elsewhere.
    service.commit("KGS/USD timesca", &[(-5_400, "8"), (-4_000, "8"), (60, "9")]).await;
    assert_eq!(
        candle_texts(&candles(&service, of(None)).await.unwrap()),
        ["-7200: 2 8 2 8 = 5, 1 of 3", "-3600: 4 4 4 4 = 4, 1 of 1", "0: 4 9 4 9 = 8.83333333333333, 1 of 1..."]
    );
    let then = candles(&service, of(proto(first.recorded_time))).await.unwrap();
    assert_eq!(candle_texts(&then), ["-7200: 2 2 2 2 = 2, 0 of 1", "-3600: 4 4 4 4 = 4, 1 of 1"]);
    assert_eq!(then.sequence, first.sequence);
}

#[tokio::test]
async fn period_changes_compare_ends_of_periods() {
    let service = start().await;
    // Noon is on Monday, 8 December 2025.
    let day = |days: i64| TODAY_S + days * DAY_S;
    let ticks = [(day(-400), "0.01100"), (day(-8), "0.01144"), (day(-1), "0.01145"), (day(0) + 60, "0.01146")];
    service.commit("KGS/USD timesca", &ticks).await;
    let list = async |period, from: i64| {
        let request = v1::ListChangesRequest { start_time: at(from), ..changes_of("KGS/USD", period) };
        change_texts(&changes(&service, request).await.unwrap())
    };
    assert_eq!(
        list(v1::ChangePeriod::DayOnDay, day(-2)).await,
        [
            format!("{}: 0.01144 -> 0.01144 0.000000 (-0.087375 0.087451)", day(-2)),
            format!("{}: 0.01144 -> 0.01145 0.087413 (0.000000 0.174902)", day(-1)),
            format!("{}: 0.01145 -> 0.01146 0.087336 (0.000000 0.174749)...", day(0)),
        ]
    );
    assert_eq!(
        list(v1::ChangePeriod::WeekOnWeek, day(-10)).await,
        [
            format!("{}: 0.01144 -> 0.01145 0.087413 (0.000000 0.174902)", day(-7)),
            format!("{}: 0.01145 -> 0.01146 0.087336 (0.000000 0.174749)...", day(0)),
        ]
    );
    assert_eq!(
        list(v1::ChangePeriod::MonthOnMonth, day(-20)).await,
        [format!("{}: 0.01144 -> 0.01146 0.174825 (0.087374 0.262353)...", day(-7))]
    );
    // The first year has no earlier rate to compare with.
    assert_eq!(
        list(v1::ChangePeriod::YearOnYear, day(-2_000)).await,
        [
            format!("{}: ? -> 0.01100 ? (? ?)", day(-341 - 366)),
            format!("{}: 0.01100 -> 0.01146 4.181818 (4.089050 4.274671)...", day(-341)),
        ]
    );
    let to_date = list(v1::ChangePeriod::YearToDate, day(-1)).await;
    assert_eq!(to_date[1], format!("{}: 0.01100 -> 0.01146 4.181818 (4.089050 4.274671)...", day(-341)));
    assert_eq!(to_date[0], format!("{}: 0.01100 -> 0.01145 4.090909 (3.998182 4.183720)", day(-341)));

    // `start` and `end` are GetRate responses for the instants just before the start and the end of the period.
    let request = v1::ListChangesRequest {
        start_time: at(day(-1)),
        decimal_places: Some(2),
        time_zone: "Asia/Bishkek".to_owned(),
        ..changes_of("KGS/USD", v1::ChangePeriod::DayOnDay)
    };
    let page = changes(&service, request).await.unwrap();
    let row = &page.changes[0];
    assert_eq!(
        (seconds(row.period_start_time.as_ref()), row.percent_change.as_deref()),
        (day(-1) + 18 * HOUR_S, Some("0.09"))
    );
    let ends = [&row.start, &row.end].map(|end| end.as_ref().unwrap().time.unwrap());
    assert_eq!((ends[0].seconds - NOON_S, ends[0].nanos), (day(-1) + 18 * HOUR_S - 1, 999_999_000));
    assert_eq!(Some(ends[1]), at(0), "the current period ends now");
    assert_eq!((row.complete, page.changes.len()), (false, 1));

    // All pages together have the rows of one large page.
    let mut request = v1::ListChangesRequest {
        page_size: 3,
        start_time: at(day(-9)),
        ..changes_of("KGS/USD", v1::ChangePeriod::DayOnDay)
    };
    let whole = changes(&service, v1::ListChangesRequest { page_size: 0, ..request.clone() }).await.unwrap();
    let mut seen = Vec::new();
    loop {
        let page = changes(&service, request.clone()).await.unwrap();
        seen.extend(change_texts(&page));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        service.clock.set(instant(60));
        service.commit("KGS/USD timesca", &[(30, "0.5")]).await;
    }
    assert_eq!(seen, change_texts(&whole));
    let other = v1::ListChangesRequest { time_zone: "Asia/Almaty".to_owned(), ..request };
    assert_refused(changes(&service, other).await, Code::InvalidArgument, "page_token");
}

#[tokio::test]
async fn lists_of_buckets_refuse_invalid_requests() {
    let service = start().await;
    service.commit("KGS/USD timesca", &[(-100 * DAY_S, "0.01144"), (-10, "0.01145")]).await;
    let day = || candles_of("KGS/USD", v1::CandleInterval::Day);
    let refused = async |invalidate: fn(&mut v1::ListCandlesRequest), code: Code, detail: &str| {
        let mut request = day();
        invalidate(&mut request);
        assert_refused(candles(&service, request).await, code, detail);
    };
    refused(|r| r.interval = 0, Code::InvalidArgument, "interval").await;
    refused(|r| r.interval = 99, Code::InvalidArgument, "interval").await;
    refused(|r| r.time_zone = "Mars/Olympus".to_owned(), Code::InvalidArgument, "time_zone").await;
    refused(|r| (r.start_time, r.end_time) = (at(0), at(-1)), Code::InvalidArgument, "end_time").await;
    refused(|r| r.page_size = -1, Code::InvalidArgument, "page_size").await;
    refused(|r| r.page_token = "AAAA".to_owned(), Code::InvalidArgument, "page_token").await;
    refused(|r| r.pair = "TMT/USD".to_owned(), Code::NotFound, "UNKNOWN_SERIES").await;
    refused(|r| r.known_time = at(-DAY_S), Code::NotFound, "NO_QUOTE_YET").await;
    refused(|r| r.leg_sources = vec!["a".to_owned(), "b".to_owned()], Code::InvalidArgument, "leg_sources").await;
    // 100 days have 144,000 minutes.
    refused(|r| r.interval = v1::CandleInterval::Minute.into(), Code::InvalidArgument, "interval").await;
    let enough =
        v1::ListCandlesRequest { start_time: at(-69 * DAY_S), ..candles_of("KGS/USD", v1::CandleInterval::Minute) };
    assert_eq!(candles(&service, enough).await.unwrap().candles.len(), 1);
    let ahead = v1::ListCandlesRequest { start_time: at(DAY_S), ..day() };
    assert_eq!(candles(&service, ahead).await.unwrap().candles, []);

    let day = || changes_of("KGS/USD", v1::ChangePeriod::DayOnDay);
    let refused = async |invalidate: fn(&mut v1::ListChangesRequest), code: Code, detail: &str| {
        let mut request = day();
        invalidate(&mut request);
        assert_refused(changes(&service, request).await, code, detail);
    };
    refused(|r| r.period = 0, Code::InvalidArgument, "period").await;
    refused(|r| r.time_zone = "Asia".to_owned(), Code::InvalidArgument, "time_zone").await;
    refused(|r| (r.start_time, r.end_time) = (at(0), at(-1)), Code::InvalidArgument, "end_time").await;
    refused(|r| r.decimal_places = Some(13), Code::InvalidArgument, "decimal_places").await;
    refused(|r| r.page_token = "AAAA".to_owned(), Code::InvalidArgument, "page_token").await;
    refused(|r| r.pair = "KGS/TMT".to_owned(), Code::NotFound, "UNKNOWN_SERIES").await;
    let ahead = v1::ListChangesRequest { start_time: at(DAY_S), ..day() };
    assert_eq!(changes(&service, ahead).await.unwrap().changes, []);
}
