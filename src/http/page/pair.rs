//! The page of one pair: the latest rate and a chart.
//!
//! **Invariant**: a page is read from one commit. Its controls are links, each with the address of a chart, so that
//! they work without script, and every chart can be bookmarked and shared.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use maud::{Markup, html};

use super::chart::{Drawing, draw};
use super::chart_controls::controls;
use super::chart_data::{ChartData, read};
use super::chart_parameters::{QueryFields, Sources, Until, chart_parameters};
use super::chart_points::points;
use super::chart_silences::is_sparse;
use super::data_table::{data_table, silence_text};
use super::downloads::downloads;
use super::grouping::Freshness;
use super::labels::{FormattedRate, clock_text, day_text, digits_word, millis, time_then_age};
use super::{Page, failure, layout, problem, respond, table};
use crate::api::Read;
use crate::domain::{Currency, Pair};
use crate::latest_quotes::RateState;
use crate::query::{Derivation, DownsampledSeries, RateAnswer};

/// `GET /pair/{base}/{quote}`.
pub(super) async fn pair(
    State(page): State<Arc<Page>>,
    Path((base, quote)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    fields: Result<Query<QueryFields>, QueryRejection>,
) -> Response {
    let currencies = page.site.rates.currencies();
    let path = format!("{base}/{quote}");
    let Ok(pair) = Pair::parse(&path, currencies) else { return redirect(&page, &path, query.as_deref()) };
    let fields = match fields {
        Ok(Query(fields)) => fields,
        Err(rejection) => return problem(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let chart = match chart_parameters(pair, &fields) {
        Ok(chart) => chart,
        Err(error) => return failure(&error.into()),
    };
    let Ok(_permit) = page.charts.acquire().await else {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "the server is shutting down; try again after it has restarted",
        );
    };
    let drawn = page.site.rates.read(move |reader| {
        let data = read(reader, &chart)?;
        Ok(layout::page(&title(&data), &body(&data)))
    });
    match drawn.await {
        Ok(Read { answer: page, .. }) => respond(StatusCode::OK, &page),
        Err(error) => failure(&error),
    }
}

/// `GET /pair/{spelling}`: a pair that is written as in the parameters of `/v1`, such as `KGSUSD` or `kgs-usd`.
pub(super) async fn other_spelling(
    State(page): State<Arc<Page>>,
    Path(spelling): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    redirect(&page, &spelling, query.as_deref())
}

/// Redirects from another spelling of a pair to its address, with the same parameters. The pair is part of the path, so
/// an invalid pair is a 404.
fn redirect(page: &Page, spelling: &str, query: Option<&str>) -> Response {
    match Pair::parse_spelling(spelling, page.site.rates.currencies()) {
        Ok(pair) => {
            let query = query.map_or(String::new(), |query| format!("?{query}"));
            Redirect::permanent(&format!("/pair/{}/{}{query}", pair.base(), pair.quote())).into_response()
        }
        Err(error) => problem(StatusCode::NOT_FOUND, &error.to_string()),
    }
}

/// Returns where the rates come from, in the direction of the chart.
fn origin(downsampled: &DownsampledSeries) -> String {
    Sources::of_legs(downsampled.legs.iter().map(|leg| &leg.series.source)).label()
}

fn title(data: &ChartData) -> String {
    format!("{} from {}", data.pair, origin(&data.downsampled))
}

fn body(data: &ChartData) -> Markup {
    let downsampled = &data.downsampled;
    let all = std::iter::once(downsampled).chain(data.other.as_ref().map(|(_, other)| other));
    let rows: Vec<String> = all.flat_map(|series| &series.legs).map(|leg| table::row_id(&leg.series)).collect();
    let now = data.rate.as_ref().map_or(downsampled.range.end(), |rate| rate.time);
    html! {
        section id="chart" data-rows=(rows.join(" ")) data-now=(millis(now))
            class=[(data.freshness != Freshness::Fresh).then_some("none-fresh")] {
            p class="crumb" { a href="/" { "All latest rates" } }
            (table::none_fresh(data.freshness, now))
            h1 { (data.pair) " " span class="source" { "from " (origin(downsampled)) } }
            (latest_rate(data))
            (controls(data))
            (figure(data))
            (downloads(data))
            (crosses(&data.crosses))
            (data_table(downsampled, data.candles.as_deref()))
        }
    }
}

/// Returns links to the other pairs of a currency.
fn crosses(pairs: &[Pair]) -> Markup {
    html! {
        @if !pairs.is_empty() {
            nav class="crosses" aria-label="Other pairs" {
                "Other pairs: "
                @for pair in pairs { a href=(format!("/pair/{}/{}", pair.base(), pair.quote())) { (pair) } " " }
            }
        }
    }
}

/// Returns where the digits of a rate come from.
fn digits(rate: &RateAnswer) -> Markup {
    html! {
        " " (if rate.derivation == Derivation::Direct { "Published by " } else { "Derived from " })
        @for (at, (series, run)) in rate.legs.iter().enumerate() {
            @if at > 0 { " and " }
            @if rate.derivation == Derivation::Direct { (series.source) } @else {
                (series.pair) " " (run.value.rate) " of " (series.source)
            }
        }
        @if rate.is_archived { ", archived" }
        "."
    }
}

/// Returns the latest rate with its state and changes.
fn latest_rate(data: &ChartData) -> Markup {
    let (Some(rate), pair) = (&data.rate, data.pair) else {
        return html! { p class="notice" { "No rate of this pair is in force yet." } };
    };
    let formatted = match (&data.quote, rate.derivation) {
        (Some(quote), Derivation::Direct | Derivation::Inverse) => {
            FormattedRate::new(quote.run.value.rate, quote.series.pair != pair)
        }
        _ => FormattedRate::of_derived(&rate.rate),
    };
    let state = match &data.quote {
        Some(quote) => table::state(quote),
        None => table::state_of(rate.state.unwrap_or(RateState::Stale), None),
    };
    html! {
        p class=(if rate.is_stale { "worth is-stale" } else { "worth" }) {
            "1 " (pair.base()) " = " strong class="rate" { (formatted.value) } " " (pair.quote())
            span class="sub" {
                "The true rate is between " (formatted.low) " and " (formatted.high) "." (digits(rate))
            }
        }
        dl class="facts" {
            div { dt { "State" } dd { (state) } }
            @for (series, run) in &rate.legs {
                div {
                    dt { "Last confirmed" @if rate.legs.len() > 1 { ", " (series.pair) " " (series.source) } }
                    dd { (time_then_age(run.last_observed_time)) }
                }
            }
            @if let Some(quote) = &data.quote {
                div { dt { "Last move" } dd {
                    @match quote.moved_time {
                        Some(time) => { (table::last_move(time, data.silent_before_move)) },
                        None => "never",
                    }
                } }
            }
            div { dt { "Change over the range" } dd { (table::window_change(&data.change)) } }
        }
    }
}

fn figure(data: &ChartData) -> Markup {
    let downsampled = &data.downsampled;
    if downsampled.steps.is_empty() {
        return html! { p class="notice" { "No rate was in force in this range." } };
    }
    let title = format!("{}, {}", title(data), data.address.range.text);
    let other = data.other.as_ref().map(|(_, other)| other);
    let summary = summary(data);
    let drawing = Drawing {
        downsampled,
        // A run of each leg begins at the start of the range.
        starts_observed: downsampled.legs.iter().all(|leg| {
            let start = downsampled.range.start();
            data.published.iter().any(|(series, run_start)| *series == leg.series && *run_start == start)
        }),
        other,
        candles: data.candles.as_deref(),
        title: &title,
        summary: &summary,
    };
    html! {
        figure {
            div class="plot" { (draw(&drawing)) }
            (points(data))
            figcaption {
                p { (summary) }
                (legend(data))
            }
        }
    }
}

/// Returns what a mark of a chart is.
fn observation_text(series: &DownsampledSeries) -> &'static str {
    if series.legs.len() > 1 { "observation of both legs" } else { "observation" }
}

fn legend(data: &ChartData) -> Markup {
    let downsampled = &data.downsampled;
    let name = |series: &DownsampledSeries| format!("{}, {}", origin(series), digits_word(series.derivation));
    let is_rarely_observed = is_sparse(downsampled);
    let is_silent = |series: &DownsampledSeries| !series.silences.is_empty();
    html! {
        ul class="legend" {
            @if data.candles.is_some() {
                li { span class="key up" {} "close at or above open" }
                li { span class="key down" {} "close below open" }
                li { span class="key open" {} "so far: not complete yet" }
            } @else {
                li {
                    span class=(if is_rarely_observed { "key observed" } else { "key line" }) {}
                    @if data.other.is_some() { (name(downsampled)) @if is_rarely_observed { ": " } }
                    @if is_rarely_observed { (observation_text(downsampled)) }
                    @else if data.other.is_none() { "rate; in force until the next rate" }
                }
                li { span class="key band" {} "possible true rate" }
                @if is_silent(downsampled) {
                    li {
                        span class="key unconfirmed" {}
                        @if is_rarely_observed { "last rate, not confirmed: " (silence_text(&downsampled.stale_limits_us)) }
                        @else { "last rate before a silence, not confirmed since" }
                    }
                }
            }
            @if let Some((_, other)) = &data.other {
                li {
                    span class=(if is_sparse(other) { "key observed second" } else { "key line second" }) {}
                    (name(other)) @if is_sparse(other) { ": " (observation_text(other)) }
                }
                @if is_silent(other) {
                    li {
                        span class="key unconfirmed second" {}
                        (origin(other)) ", not confirmed: " (silence_text(&other.stale_limits_us))
                    }
                }
            }
            @if !is_rarely_observed { li { span class="key silent" {} "silent: " (silence_text(&downsampled.stale_limits_us)) } }
        }
    }
}

/// Returns a summary of the chart in words.
fn summary(data: &ChartData) -> String {
    let downsampled = &data.downsampled;
    let formatted = |rate| FormattedRate::of(rate).value;
    let moves = match downsampled.move_count {
        0 => "The rate did not move".to_owned(),
        1 => "The rate moved once".to_owned(),
        many => format!("The rate moved {many} times"),
    };
    let extremes = match (downsampled.lowest, downsampled.highest) {
        (Some(low), Some(high)) if low != high => format!(
            ": lowest {} on {}, highest {} on {} UTC",
            formatted(&low.rate),
            clock_text(low.time),
            formatted(&high.rate),
            clock_text(high.time)
        ),
        (Some(low), _) => format!(": {}", formatted(&low.rate)),
        (None, _) => String::new(),
    };
    let feed = if downsampled.legs.len() > 1 { "A feed" } else { "The feed" };
    let silences = match downsampled.silences.as_slice() {
        [] => String::new(),
        _ if is_sparse(downsampled) && data.candles.is_some() => format!(" {feed} was silent for most of this time."),
        [only] if (only.from, only.until) == (downsampled.range.start(), downsampled.range.end()) => {
            format!(" {feed} was silent for all of this time: the dotted line is not confirmed.")
        }
        _ if is_sparse(downsampled) => format!(
            " {feed} was silent for most of this time: observations are marked, and the dotted line between them is not \
             confirmed."
        ),
        [_] => format!(" {feed} was silent once."),
        many => format!(" {feed} was silent {} times.", many.len()),
    };
    let end = match data.address.until {
        Until::Now => String::new(),
        Until::LastObservation => {
            let last = data.rate.iter().flat_map(|rate| &rate.legs).map(|(_, run)| run.last_observed_time).max();
            last.map_or(String::new(), |last| {
                format!(" The chart ends after the last observation, {}.", day_text(last))
            })
        }
    };
    let second = match &data.other {
        None => String::new(),
        Some((_, other)) => format!(" The second line is the rate from {}.", origin(other)),
    };
    let through = match downsampled.derivation {
        Derivation::Cross => format!(" The rate is a cross through {}.", Currency::USD),
        Derivation::Direct | Derivation::Inverse => String::new(),
    };
    let pair = data.pair;
    let candles =
        data.address.candles.map_or(String::new(), |length| format!(" Candles of {} each, UTC.", length.text));
    let what = format!("{} per {}.", pair.quote(), pair.base());
    format!("{what}{candles} {moves}{extremes}.{silences}{end}{second}{through}")
}
