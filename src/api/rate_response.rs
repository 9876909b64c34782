//! Converts the answers of queries into the response messages of `RateService`.
//!
//! **Invariant**: this module only converts. It reads no clock and no store.

use super::convert::{latest_rate, run, state};
use super::page_token::{Cursor, Fingerprint, PageToken};
use crate::analysis::{
    CandleBounds, CandlePoint, Conversion, PercentChange, Rounded, RoundedRate, Zone, absolute_change,
};
use crate::domain::{Amount, Revision, Timestamp};
use crate::latest_quotes::LatestQuotes;
use crate::proto::convert::{duration, timestamp};
use crate::proto::v1;
use crate::query::{
    self, Answer, AnsweringLeg, CandleRow, CandlesPage, Change, ChangesPage, Derivation, Page, RateAnswer,
    RevisionCursor, RunsPage, SeriesFilter, SeriesInfo,
};
use crate::store::Commit;

/// Returns the token of the next page, or an empty text on the last page.
pub(super) fn next_token(commit: Commit, cursor: Option<Cursor>, fingerprint: Fingerprint) -> String {
    cursor.map_or(String::new(), |cursor| PageToken { known_time: commit.recorded_time, cursor }.encode(fingerprint))
}

/// Returns the latest rates that changed after the commit `since_sequence`. `now` is the time of the server.
pub fn latest(
    latest_quotes: &LatestQuotes,
    filter: &SeriesFilter,
    since_sequence: u64,
    now: Timestamp,
) -> v1::GetLatestRatesResponse {
    let rates = query::latest(latest_quotes, filter, since_sequence).map(|quote| latest_rate(quote)).collect();
    v1::GetLatestRatesResponse { rates, ..latest_without_rates(latest_quotes, now) }
}

/// Returns the same response as [`latest`], but without the rates.
pub fn latest_without_rates(latest_quotes: &LatestQuotes, now: Timestamp) -> v1::GetLatestRatesResponse {
    v1::GetLatestRatesResponse {
        rates: Vec::new(),
        sequence: latest_quotes.sequence,
        recorded_time: Some(timestamp(latest_quotes.recorded_time)),
        server_time: Some(timestamp(now)),
        last_ingest_time: latest_quotes.last_ingest_time.map(timestamp),
    }
}

pub(super) fn series(answer: &Answer<Vec<SeriesInfo>>) -> v1::ListSeriesResponse {
    let series = answer.body.iter().map(|info| v1::Series {
        pair: info.key.pair.to_string(),
        source: info.key.source.to_string(),
        first_observed_time: Some(timestamp(info.totals.first_observed_time)),
        last_observed_time: Some(timestamp(info.totals.last_observed_time)),
        run_count: info.totals.run_count,
        observation_count: info.totals.observation_count,
        revision_count: info.totals.revision_count,
        state: state(info.state).into(),
        collapse_window: Some(duration(info.collapse_window_us)),
        archived: info.is_archived,
    });
    v1::ListSeriesResponse {
        series: series.collect(),
        sequence: answer.commit.sequence,
        recorded_time: Some(timestamp(answer.commit.recorded_time)),
    }
}

fn derivation(derivation: Derivation) -> i32 {
    match derivation {
        Derivation::Direct => v1::Derivation::Direct,
        Derivation::Inverse => v1::Derivation::Inverse,
        Derivation::Cross => v1::Derivation::Cross,
    }
    .into()
}

pub(super) fn rate(commit: Commit, answer: &RateAnswer) -> v1::GetRateResponse {
    v1::GetRateResponse {
        rate: answer.rate.rounded_value().to_string(),
        rate_low: answer.rate.rounded_low().to_string(),
        rate_high: answer.rate.rounded_high().to_string(),
        derivation: derivation(answer.derivation),
        legs: answer.legs.iter().map(|(series, leg)| run(series, leg)).collect(),
        age: Some(duration(answer.age_us)),
        state: state(answer.state).into(),
        time: Some(timestamp(answer.time)),
        sequence: commit.sequence,
        recorded_time: Some(timestamp(commit.recorded_time)),
        stale: answer.is_stale,
        archived: answer.is_archived,
        date: answer.day.map_or(String::new(), |(date, _)| date.to_string()),
        time_zone: answer.day.map_or(String::new(), |(_, zone)| zone.to_string()),
        leg_age_difference: (answer.leg_age_difference_us > 0).then(|| duration(answer.leg_age_difference_us)),
    }
}

pub(super) fn convert(answer: &Answer<RateAnswer>, amount: Amount) -> v1::ConvertResponse {
    let Answer { commit, body } = answer;
    let converted = Conversion::new(amount, &body.rate);
    v1::ConvertResponse {
        converted_amount: converted.value.to_string(),
        converted_amount_low: converted.low.to_string(),
        converted_amount_high: converted.high.to_string(),
        rate: Some(rate(*commit, body)),
        sequence: commit.sequence,
        recorded_time: Some(timestamp(commit.recorded_time)),
    }
}

/// Returns the reason why a rate is absent; unspecified if the rate is present.
pub(super) fn missing(end: Option<&RateAnswer>) -> i32 {
    match end {
        Some(_) => v1::MissingReason::Unspecified,
        None => v1::MissingReason::NoQuoteYet,
    }
    .into()
}

pub(super) fn change(commit: Commit, change: &Change, decimal_places: u32) -> v1::GetChangeResponse {
    let Change { start, end, percent } = change;
    let percent = percent.as_ref();
    let absolute = start.as_ref().zip(end.as_ref()).map(|(start, end)| absolute_change(&start.rate, &end.rate));
    let text =
        |pick: fn(&PercentChange, u32) -> Rounded| percent.map(|percent| pick(percent, decimal_places).to_string());
    v1::GetChangeResponse {
        start: start.as_ref().map(|start| rate(commit, start)),
        end: end.as_ref().map(|end| rate(commit, end)),
        start_missing_reason: missing(start.as_ref()),
        end_missing_reason: missing(end.as_ref()),
        absolute_change: absolute.map(|change| change.to_string()),
        percent_change: text(PercentChange::value),
        percent_change_low: text(PercentChange::low),
        percent_change_high: text(PercentChange::high),
        below_resolution: percent.map(PercentChange::below_resolution),
        observed: start.as_ref().zip(end.as_ref()).map(|(start, end)| !start.is_stale && !end.is_stale),
        sequence: commit.sequence,
        recorded_time: Some(timestamp(commit.recorded_time)),
    }
}

pub(super) fn changes(
    answer: &Answer<ChangesPage>,
    decimal_places: u32,
    fingerprint: Fingerprint,
) -> v1::ListChangesResponse {
    let Answer { commit, body: page } = answer;
    let changes = page.rows.iter().map(|row| {
        let change = change(*commit, &row.change, decimal_places);
        v1::PeriodChange {
            period_start_time: Some(timestamp(row.period.start)),
            period_end_time: Some(timestamp(row.period.end)),
            complete: row.complete,
            start: change.start,
            end: change.end,
            start_missing_reason: change.start_missing_reason,
            end_missing_reason: change.end_missing_reason,
            absolute_change: change.absolute_change,
            percent_change: change.percent_change,
            percent_change_low: change.percent_change_low,
            percent_change_high: change.percent_change_high,
            below_resolution: change.below_resolution,
            observed: change.observed,
            period_start_date: page.zone.local(row.bucket_start).date().to_string(),
        }
    });
    v1::ListChangesResponse {
        changes: changes.collect(),
        derivation: derivation(page.derivation),
        legs: page.legs.iter().map(leg_message).collect(),
        time_zone: page.zone.to_string(),
        next_page_token: next_token(*commit, page.next.map(Cursor::Bucket), fingerprint),
        sequence: commit.sequence,
        recorded_time: Some(timestamp(commit.recorded_time)),
    }
}

/// Converts a series that answers.
pub fn leg_message(leg: &AnsweringLeg) -> v1::Leg {
    v1::Leg {
        pair: leg.series.pair.to_string(),
        source: leg.series.source.to_string(),
        stale: leg.is_stale,
        archived: leg.is_archived,
    }
}

/// Converts a candle. With `day_zone`, the time zone of candles of a day or more, the candle has a local date.
fn candle(row: &CandleRow, day_zone: Option<Zone>) -> v1::Candle {
    let candle = &row.candle;
    let point = |point: CandlePoint| (point.rate.to_string(), Some(timestamp(point.time)));
    let (open, open_time) = point(candle.open);
    let (high, high_time) = point(candle.high);
    let (low, low_time) = point(candle.low);
    let (close, close_time) = point(candle.close);
    let bounds = row.bounds.as_deref();
    let bounds_of = |pick: fn(&CandleBounds) -> [RoundedRate; 2]| {
        bounds.map(|bounds| rate_bounds(&pick(bounds).map(RoundedRate::rounded)))
    };
    v1::Candle {
        start_time: Some(timestamp(candle.bucket.start)),
        end_time: Some(timestamp(candle.bucket.end)),
        start_date: day_zone.map_or(String::new(), |zone| zone.local(candle.bucket.start).date().to_string()),
        complete: row.complete,
        filled: candle.filled,
        open,
        open_time,
        high,
        high_time,
        low,
        low_time,
        close,
        close_time,
        average: candle.rounded_average().to_string(),
        move_count: candle.move_count,
        observation_count: row.observation_count,
        open_bounds: bounds_of(|bounds| bounds.open),
        high_bounds: bounds_of(|bounds| bounds.high),
        low_bounds: bounds_of(|bounds| bounds.low),
        close_bounds: bounds_of(|bounds| bounds.close),
        average_bounds: bounds.map(|bounds| rate_bounds(&bounds.rounded_average())),
        leg_age_difference: (row.leg_age_difference_us > 0).then(|| duration(row.leg_age_difference_us)),
    }
}

fn rate_bounds([low, high]: &[Rounded; 2]) -> v1::RateBounds {
    v1::RateBounds { low: low.to_string(), high: high.to_string() }
}

pub(super) fn candles(answer: &Answer<CandlesPage>, fingerprint: Fingerprint) -> v1::ListCandlesResponse {
    let Answer { commit, body: page } = answer;
    v1::ListCandlesResponse {
        candles: page.rows.iter().map(|row| candle(row, page.day_zone)).collect(),
        time_zone: page.zone.to_string(),
        next_page_token: next_token(*commit, page.next.map(Cursor::Bucket), fingerprint),
        derivation: derivation(page.derivation),
        legs: page.legs.iter().map(leg_message).collect(),
        sequence: commit.sequence,
        recorded_time: Some(timestamp(commit.recorded_time)),
    }
}

pub(super) fn runs(answer: &Answer<RunsPage>, fingerprint: Fingerprint) -> v1::ListRunsResponse {
    let Answer { commit, body: RunsPage { page, baseline } } = answer;
    v1::ListRunsResponse {
        runs: page.rows.iter().map(|row| run(&page.leg.series, row)).collect(),
        baseline: baseline.as_ref().map(|baseline| run(&page.leg.series, baseline)),
        leg: Some(leg_message(&page.leg)),
        next_page_token: next_token(*commit, page.next.map(Cursor::Run), fingerprint),
        sequence: commit.sequence,
        recorded_time: Some(timestamp(commit.recorded_time)),
    }
}

pub(super) fn revisions(
    answer: &Answer<Page<Revision, RevisionCursor>>,
    fingerprint: Fingerprint,
) -> v1::ListRevisionsResponse {
    let Answer { commit, body: page } = answer;
    let revisions = page.rows.iter().map(|row| v1::Revision {
        run: Some(run(&page.leg.series, &row.run)),
        superseded_time: Some(timestamp(row.superseded_time)),
    });
    v1::ListRevisionsResponse {
        revisions: revisions.collect(),
        leg: Some(leg_message(&page.leg)),
        next_page_token: next_token(*commit, page.next.map(Cursor::Revision), fingerprint),
        sequence: commit.sequence,
        recorded_time: Some(timestamp(commit.recorded_time)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{Derived, PercentChange};
    use crate::domain::{CurrencySet, Pair, PublishedValue, Rate, Run, SeriesKey, Source, Timestamp};

    const COMMIT: Commit = Commit { sequence: 7, recorded_time: Timestamp::from_micros(9_000_000) };

    fn answer(text: &str, derivation: Derivation) -> RateAnswer {
        let rate = Rate::parse(text).unwrap();
        let series = SeriesKey {
            pair: Pair::parse("UZS/USD", &CurrencySet::central_asia()).unwrap(),
            source: Source::parse("timesca").unwrap(),
        };
        let value = PublishedValue { rate, reported_change: None };
        let direct = Derived::direct(rate);
        RateAnswer {
            is_stale: false,
            is_archived: false,
            day: None,
            rate: if derivation == Derivation::Direct { direct } else { direct.inverse() },
            derivation,
            legs: vec![(series, Run::single(Timestamp::from_micros(1_000_000), value, COMMIT.recorded_time))],
            age_us: 1_500_000,
            leg_age_difference_us: 0,
            state: None,
            time: Timestamp::from_micros(2_500_000),
        }
    }

    #[test]
    fn inverse_rate_names_its_published_leg() {
        let message = rate(COMMIT, &answer("0.00008", Derivation::Inverse));
        assert_eq!(
            (message.rate_low.as_str(), message.rate.as_str(), message.rate_high.as_str()),
            ("11764.7058823529", "12500", "13333.3333333334")
        );
        assert_eq!(message.derivation(), v1::Derivation::Inverse);
        assert_eq!((message.legs[0].pair.as_str(), message.legs[0].rate.as_str()), ("UZS/USD", "0.00008"));
        assert_eq!(message.state(), v1::RateState::Unspecified);
        assert_eq!(message.age, Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }));
        assert_eq!((message.sequence, message.recorded_time.unwrap().seconds), (7, 9));
    }

    #[test]
    fn missing_rate_is_absent_and_never_zero() {
        let end = answer("0.00008", Derivation::Direct);
        let absent = Change { start: None, end: Some(end.clone()), percent: None };
        let message = change(COMMIT, &absent, 6);
        assert_eq!(message.start_missing_reason(), v1::MissingReason::NoQuoteYet);
        assert_eq!(message.end_missing_reason(), v1::MissingReason::Unspecified);
        assert!(message.start.is_none() && message.end.is_some());
        assert_eq!((message.absolute_change, message.percent_change, message.below_resolution), (None, None, None));

        let percent = PercentChange::between(&end.rate, &end.rate);
        let body = Change { start: Some(end.clone()), end: Some(end), percent: Some(percent) };
        let message = change(COMMIT, &body, 2);
        assert_eq!(message.percent_change.as_deref(), Some("0.00"));
        assert_eq!(message.percent_change_low.as_deref(), Some("-11.77"));
        assert_eq!(message.percent_change_high.as_deref(), Some("13.34"));
        assert_eq!((message.absolute_change.as_deref(), message.below_resolution), (Some("0.00000"), Some(true)));
    }

    #[test]
    fn last_page_has_no_token() {
        let (series, leg) = answer("0.00008", Derivation::Direct).legs.remove(0);
        let fingerprint = Fingerprint::of("ListRuns", &v1::ListRunsRequest::default());
        let page = |next| {
            let leg_of_page = AnsweringLeg { series: series.clone(), is_stale: false, is_archived: true };
            let page = Page { leg: leg_of_page, rows: vec![leg.clone()], next };
            runs(&Answer { commit: COMMIT, body: RunsPage { page, baseline: None } }, fingerprint)
        };
        assert_eq!(page(None).next_page_token, "");
        let expect = v1::Leg { pair: "UZS/USD".to_owned(), source: "timesca".to_owned(), stale: false, archived: true };
        assert_eq!(page(None).leg, Some(expect));
        let token = page(Some(leg.first_observed_time)).next_page_token;
        let expect = PageToken { known_time: COMMIT.recorded_time, cursor: Cursor::Run(leg.first_observed_time) };
        assert_eq!(PageToken::decode(&token, fingerprint).unwrap(), Some(expect));
    }
}
