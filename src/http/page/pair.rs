//! The page of one pair: the latest rate and a chart.
//!
//! **Invariant**: a page is read from one commit. Its controls are links, each with the address of a chart, so that
//! they work without script, and every chart can be bookmarked and shared.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::chart::{Drawing, draw};
use super::chart_parameters::{CANDLES_MAX, CandleLength, ChartParameters, QueryFields, RANGES, chart_parameters};
use super::data_table::data_table;
use super::labels::{FormattedRate, clock_text, duration, millis, time_then_age};
use super::{Page, failure, layout, problem, respond, table};
use crate::api::Read;
use crate::domain::{Pair, Timestamp};
use crate::latest_quotes::{LatestQuote, RateState};
use crate::query::{
    BucketsRequest, CandleRow, CandlesRequest, DownsampleRequest, DownsampledSeries, QueryError, Range, Reader,
    WindowChange,
};

/// The number of time columns of a chart: no screen shows more.
const COLUMNS: u32 = 480;

/// The data of a page, all from one commit.
struct PageData {
    downsampled: DownsampledSeries,
    candles: Option<Vec<CandleRow>>,
    latest: Option<Latest>,
}

/// The latest quote and its changes.
struct Latest {
    quote: Arc<LatestQuote>,
    /// The change over the range of the chart.
    change: WindowChange,
    /// The last observation before a silence, if the last move happened during the silence.
    silent_before_move: Option<Timestamp>,
}

fn read(reader: &Reader, chart: &ChartParameters) -> Result<PageData, QueryError> {
    let (pair, source) = (chart.displayed_pair(), Some(chart.source.clone()));
    let window = chart.range.window;
    let request = DownsampleRequest { pair, source: source.clone(), window, columns: COLUMNS };
    let downsampled = reader.downsample(&request)?.body;
    let (start, end) = (downsampled.range.start(), downsampled.range.end());
    let candles = match chart.candles {
        None => None,
        Some(length) => {
            if !length.is_legible(start, end) {
                let name = length.name();
                let problem =
                    format!("'{name}' gives more than {CANDLES_MAX} candles for this range; choose longer candles");
                return Err(QueryError::invalid("candles", problem));
            }
            let buckets = length.buckets();
            let range = Range::new(Some(buckets.at(start).start), None)?;
            let list = BucketsRequest {
                pair,
                source: source.clone(),
                leg_sources: Vec::new(),
                range: range.into(),
                zone: Some(buckets.zone),
                known_time: None,
                after: None,
                limit: usize::try_from(CANDLES_MAX).unwrap_or(usize::MAX),
            };
            let request = CandlesRequest {
                list,
                interval: buckets.interval,
                fill: false,
                count_observations: false,
                find_bounds: false,
            };
            Some(reader.candles(&request)?.body.rows)
        }
    };
    let quote = reader.latest_quotes().quotes.iter().find(|quote| quote.series == downsampled.series).cloned();
    let latest = match quote {
        None => None,
        Some(quote) => Some(Latest {
            change: reader.change_since(&quote, start, downsampled.inverted)?,
            silent_before_move: reader.silent_before_move(&quote)?,
            quote,
        }),
    };
    Ok(PageData { downsampled, candles, latest })
}

/// `GET /pair/{base}/{quote}`.
pub(super) async fn pair(
    State(page): State<Arc<Page>>,
    Path((base, quote)): Path<(String, String)>,
    fields: Result<Query<QueryFields>, QueryRejection>,
) -> Response {
    let pair = match Pair::parse(&format!("{base}/{quote}"), page.site.rates.currencies()) {
        Ok(pair) => pair,
        // The pair is part of the path, so an invalid pair is a 404.
        Err(error) => return problem(StatusCode::NOT_FOUND, &error.to_string()),
    };
    let fields = match fields {
        Ok(Query(fields)) => fields,
        Err(rejection) => return problem(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let site = &page.site;
    let keys = site.rates.view().latest_quotes.quotes.iter().map(|quote| quote.series.clone()).collect::<Vec<_>>();
    let chart = match chart_parameters(pair, &fields, keys.into_iter(), site.rates.sources().preferences()) {
        Ok(chart) => chart,
        Err(error) => return failure(&error.into()),
    };
    let Ok(_permit) = page.charts.acquire().await else {
        return problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "the server is shutting down; try again after it has restarted",
        );
    };
    let drawn = site.rates.read(move |reader| {
        let data = read(reader, &chart)?;
        let title = format!("{} from {}", chart.displayed_pair(), chart.source);
        Ok(layout::page(&title, &body(&chart, &data)))
    });
    match drawn.await {
        Ok(Read { answer: page, .. }) => respond(StatusCode::OK, &page),
        Err(error) => failure(&error),
    }
}

fn body(chart: &ChartParameters, data: &PageData) -> Markup {
    let downsampled = &data.downsampled;
    let now = downsampled.range.end();
    html! {
        section id="chart" data-row=(table::row_id(&downsampled.series)) data-now=(millis(now)) {
            p class="crumb" { a href="/" { "All latest rates" } }
            h1 { (chart.displayed_pair()) " " span class="source" { "from " (chart.source) } }
            (latest_rate(chart, data))
            (controls(chart, downsampled.range))
            (figure(chart, data))
            (data_table(downsampled, data.candles.as_deref()))
        }
    }
}

/// Returns the latest rate with its state and changes.
fn latest_rate(chart: &ChartParameters, data: &PageData) -> Markup {
    let (Some(Latest { quote, change, silent_before_move }), pair) = (&data.latest, chart.displayed_pair()) else {
        return html! { p class="notice" { "No rate of this pair is in force yet." } };
    };
    let rate = FormattedRate::new(quote.run.value.rate, data.downsampled.inverted);
    html! {
        p class=(if quote.state == RateState::Stale { "worth is-stale" } else { "worth" }) {
            "1 " (pair.base()) " = " strong class="rate" { (rate.value) } " " (pair.quote())
            span class="sub" { "The true rate is between " (rate.low) " and " (rate.high) "." }
        }
        dl class="facts" {
            div { dt { "State" } dd { (table::state(quote)) } }
            div { dt { "Last confirmed" } dd { (time_then_age(quote.run.last_observed_time)) } }
            div { dt { "Last move" } dd {
                @match quote.moved_time {
                    Some(time) => { (table::last_move(time, *silent_before_move)) },
                    None => "never",
                }
            } }
            div { dt { "Change over the range" } dd { (table::window_change(change)) } }
        }
    }
}

/// Returns a link of a group of choices. The current choice is marked, also for screen readers.
fn choice(link: &str, text: &str, is_current: bool) -> Markup {
    html! { a class="choice" href=(link) data-swap aria-current=[is_current.then_some("true")] { (text) } }
}

fn controls(chart: &ChartParameters, times: Range) -> Markup {
    let candles = chart.candles.map(CandleLength::name);
    let (pair, range) = (chart.pair, chart.range);
    html! {
        nav class="controls" aria-label="Chart" {
            div role="group" aria-label="Range" {
                @for other in &RANGES {
                    // Each range has its own default candle length.
                    @let length = candles.map(|_| other.candles.name());
                    @let link = chart.link(&chart.source, other.name, chart.invert, length);
                    (choice(&link, other.text, other.name == range.name))
                }
            }
            div role="group" aria-label="Direction" {
                @for invert in [false, true] {
                    @let displayed = if invert { pair.inverse() } else { pair };
                    @let text = format!("{} per {}", displayed.quote(), displayed.base());
                    (choice(&chart.link(&chart.source, range.name, invert, candles), &text, invert == chart.invert))
                }
            }
            div role="group" aria-label="Chart type" {
                (choice(&chart.link(&chart.source, range.name, chart.invert, None), "Steps", candles.is_none()))
                @let length = candles.unwrap_or(range.candles.name());
                @let link = chart.link(&chart.source, range.name, chart.invert, Some(length));
                (choice(&link, "Candles", candles.is_some()))
            }
            @if let Some(current) = chart.candles {
                div role="group" aria-label="Candle length" {
                    @for length in current.suitable(times.start(), times.end()) {
                        (choice(&chart.link(&chart.source, range.name, chart.invert, Some(length.name())), length.text,
                                length.name() == current.name()))
                    }
                }
            }
            @if chart.sources.len() > 1 {
                div role="group" aria-label="Source" {
                    @for source in &chart.sources {
                        @let link = chart.link(source, range.name, chart.invert, candles);
                        (choice(&link, source.as_str(), *source == chart.source))
                    }
                }
            }
        }
    }
}

fn figure(chart: &ChartParameters, data: &PageData) -> Markup {
    let downsampled = &data.downsampled;
    if downsampled.steps.is_empty() {
        return html! { p class="notice" { "No rate was in force in this range." } };
    }
    let title = format!("{} from {}, {}", chart.displayed_pair(), chart.source, chart.range.text);
    let summary = summary(chart, downsampled);
    let drawing = Drawing { downsampled, candles: data.candles.as_deref(), title: &title, summary: &summary };
    html! {
        figure {
            (draw(&drawing))
            figcaption {
                p { (summary) }
                ul class="legend" {
                    @if chart.candles.is_some() {
                        li { span class="key up" {} "close at or above open" }
                        li { span class="key down" {} "close below open" }
                        li { span class="key open" {} "not complete yet" }
                    } @else {
                        li { span class="key line" {} "rate; in force until the next rate" }
                        li { span class="key band" {} "possible true rate" }
                    }
                    li {
                        span class="key silent" {}
                        "silent: no observation for over " (duration(downsampled.stale_limit_us))
                    }
                }
            }
        }
    }
}

/// Returns a summary of the chart in words.
fn summary(chart: &ChartParameters, downsampled: &DownsampledSeries) -> String {
    let formatted = |rate| FormattedRate::new(rate, downsampled.inverted).value;
    // The inverse of the lowest rate is the highest.
    let (lowest, highest) = if downsampled.inverted {
        (downsampled.highest, downsampled.lowest)
    } else {
        (downsampled.lowest, downsampled.highest)
    };
    let moves = match downsampled.move_count {
        0 => "The rate did not move".to_owned(),
        1 => "The rate moved once".to_owned(),
        many => format!("The rate moved {many} times"),
    };
    let extremes = match (lowest, highest) {
        (Some(low), Some(high)) if low != high => format!(
            ": lowest {} on {}, highest {} on {} UTC",
            formatted(low.rate),
            clock_text(low.time),
            formatted(high.rate),
            clock_text(high.time)
        ),
        (Some(low), _) => format!(": {}", formatted(low.rate)),
        (None, _) => String::new(),
    };
    let silences = match downsampled.silences.as_slice() {
        [] => String::new(),
        [_] => " The feed was silent once.".to_owned(),
        many => format!(" The feed was silent {} times.", many.len()),
    };
    let pair = chart.displayed_pair();
    let candles = chart.candles.map_or(String::new(), |length| format!(" Candles of {} each, UTC.", length.text));
    format!("{} per {}.{candles} {moves}{extremes}.{silences}", pair.quote(), pair.base())
}
