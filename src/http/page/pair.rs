//! The page of one pair: what it is worth, and a chart of what it did.
//!
//! **Invariant**: all of a page is read from one commit. Its controls are links with an address each, so that they work
//! without script, and every view can be kept and sent on.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::chart::{Drawing, chart};
use super::chart_parameters::{CANDLES_MAX, Fields, Length, SPANS, View, view};
use super::data_table::numbers;
use super::labels::{FormattedRate, clock_text, length, millis, moment_and_age};
use super::{Page, failure, layout, problem, respond, table};
use crate::api::Read;
use crate::domain::{Pair, Timestamp};
use crate::latest_quotes::{LatestQuote, RateState};
use crate::query::{
    BucketsRequest, CandleRow, CandlesRequest, DownsampleRequest, DownsampledSeries, QueryError, Range, Reader,
    WindowChange,
};

/// Into so many columns of time a chart is cut: no screen shows more.
const COLUMNS: u32 = 480;

/// All that a page shows, of one commit.
struct Reading {
    downsampled: DownsampledSeries,
    candles: Option<Vec<CandleRow>>,
    doing: Option<Doing>,
}

/// The latest quote, and what it did.
struct Doing {
    quote: Arc<LatestQuote>,
    /// Over the range.
    change: WindowChange,
    /// The last observation before a silence in which it moved.
    silent_before_move: Option<Timestamp>,
}

fn read(reader: &Reader, view: &View) -> Result<Reading, QueryError> {
    let (pair, source) = (view.shown(), Some(view.source.clone()));
    let window = view.span.window;
    let request = DownsampleRequest { pair, source: source.clone(), window, columns: COLUMNS };
    let downsampled = reader.downsample(&request)?.body;
    let (start, end) = (downsampled.range.start(), downsampled.range.end());
    let candles = match view.candles {
        None => None,
        Some(length) => {
            if !length.is_legible(start, end) {
                let name = length.name();
                let problem = format!("'{name}' makes more than {CANDLES_MAX} candles of this range; take longer ones");
                return Err(QueryError::invalid("candles", problem));
            }
            let buckets = length.buckets();
            let range = Range::new(Some(buckets.at(start).start), None)?;
            let list = BucketsRequest {
                pair,
                source: source.clone(),
                leg_sources: Vec::new(),
                range,
                known_time: None,
                after: None,
                limit: usize::try_from(CANDLES_MAX).unwrap_or(usize::MAX),
            };
            let request = CandlesRequest { list, buckets, fill: false, count_observations: false, find_bounds: false };
            Some(reader.candles(&request)?.body.rows)
        }
    };
    let quote = reader.latest_quotes().quotes.iter().find(|quote| quote.series == downsampled.series).cloned();
    let doing = match quote {
        None => None,
        Some(quote) => Some(Doing {
            change: reader.change_since(&quote, start, downsampled.inverted)?,
            silent_before_move: reader.silent_before_move(&quote)?,
            quote,
        }),
    };
    Ok(Reading { downsampled, candles, doing })
}

/// `GET /pair/{base}/{quote}`.
pub(super) async fn pair(
    State(page): State<Arc<Page>>,
    Path((base, quote)): Path<(String, String)>,
    fields: Result<Query<Fields>, QueryRejection>,
) -> Response {
    let pair = match Pair::parse(&format!("{base}/{quote}"), page.site.rates.currencies()) {
        Ok(pair) => pair,
        // An address names a thing: what is none is not there.
        Err(error) => return problem(StatusCode::NOT_FOUND, &error.to_string()),
    };
    let fields = match fields {
        Ok(Query(fields)) => fields,
        Err(rejection) => return problem(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let site = &page.site;
    let keys = site.rates.view().latest_quotes.quotes.iter().map(|quote| quote.series.clone()).collect::<Vec<_>>();
    let view = match view(pair, &fields, keys.into_iter(), site.rates.sources().preferences()) {
        Ok(view) => view,
        Err(error) => return failure(&error.into()),
    };
    let Ok(_turn) = page.charts.acquire().await else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down; try again once it is back");
    };
    let drawn = site.rates.read(move |reader| {
        let reading = read(reader, &view)?;
        let title = format!("{} from {}", view.shown(), view.source);
        Ok(layout::page(&title, &body(&view, &reading)))
    });
    match drawn.await {
        Ok(Read { answer: page, .. }) => respond(StatusCode::OK, &page),
        Err(error) => failure(&error),
    }
}

fn body(view: &View, reading: &Reading) -> Markup {
    let downsampled = &reading.downsampled;
    let now = downsampled.range.end();
    html! {
        section id="chart" data-row=(table::row_id(&downsampled.series)) data-now=(millis(now)) {
            p class="crumb" { a href="/" { "All latest rates" } }
            h1 { (view.shown()) " " span class="source" { "from " (view.source) } }
            (worth(view, reading))
            (controls(view, downsampled.range))
            (figure(view, reading))
            (numbers(downsampled, reading.candles.as_deref()))
        }
    }
}

/// What it is worth, and whether that is fresh.
fn worth(view: &View, reading: &Reading) -> Markup {
    let (Some(Doing { quote, change, silent_before_move }), shown) = (&reading.doing, view.shown()) else {
        return html! { p class="notice" { "No rate of it is in force yet." } };
    };
    let rate = FormattedRate::new(quote.run.value.rate, reading.downsampled.inverted);
    html! {
        p class=(if quote.state == RateState::Stale { "worth is-stale" } else { "worth" }) {
            "1 " (shown.base()) " = " strong class="rate" { (rate.value) } " " (shown.quote())
            span class="sub" { "Its published digits allow " (rate.low) " to " (rate.high) "." }
        }
        dl class="facts" {
            div { dt { "State" } dd { (table::state(quote)) } }
            div { dt { "Last confirmed" } dd { (moment_and_age(quote.run.last_observed_time)) } }
            div { dt { "Last move" } dd {
                @match quote.moved_time {
                    Some(time) => { (table::moved(time, *silent_before_move)) },
                    None => "never",
                }
            } }
            div { dt { "Change over the range" } dd { (table::over(change)) } }
        }
    }
}

/// One of a group of links; the present one is marked, and says so.
fn choice(link: &str, text: &str, present: bool) -> Markup {
    html! { a class="choice" href=(link) data-swap aria-current=[present.then_some("true")] { (text) } }
}

fn controls(view: &View, range: Range) -> Markup {
    let candles = view.candles.map(Length::name);
    let (pair, span) = (view.pair, view.span);
    html! {
        nav class="controls" aria-label="Chart" {
            div role="group" aria-label="Range" {
                @for other in &SPANS {
                    // Candles that suit one range are too many or too few for another.
                    @let suited = candles.map(|_| other.candles.name());
                    (choice(&view.link(&view.source, other.name, view.invert, suited), other.text, other.name == span.name))
                }
            }
            div role="group" aria-label="Direction" {
                @for invert in [false, true] {
                    @let shown = if invert { pair.inverse() } else { pair };
                    @let text = format!("{} per {}", shown.quote(), shown.base());
                    (choice(&view.link(&view.source, span.name, invert, candles), &text, invert == view.invert))
                }
            }
            div role="group" aria-label="Drawn as" {
                (choice(&view.link(&view.source, span.name, view.invert, None), "Steps", candles.is_none()))
                (choice(&view.link(&view.source, span.name, view.invert, Some(candles.unwrap_or(span.candles.name()))), "Candles",
                        candles.is_some()))
            }
            @if let Some(present) = view.candles {
                div role="group" aria-label="Each candle" {
                    @for length in present.suiting(range.start(), range.end()) {
                        (choice(&view.link(&view.source, span.name, view.invert, Some(length.name())), length.text,
                                length.name() == present.name()))
                    }
                }
            }
            @if view.sources.len() > 1 {
                div role="group" aria-label="Source" {
                    @for source in &view.sources {
                        (choice(&view.link(source, span.name, view.invert, candles), source.as_str(), *source == view.source))
                    }
                }
            }
        }
    }
}

fn figure(view: &View, reading: &Reading) -> Markup {
    let downsampled = &reading.downsampled;
    if downsampled.steps.is_empty() {
        return html! { p class="notice" { "There was no rate yet in this range." } };
    }
    let title = format!("{} from {}, {}", view.shown(), view.source, view.span.text);
    let summary = summary(view, downsampled);
    let drawing = Drawing { downsampled, candles: reading.candles.as_deref(), title: &title, summary: &summary };
    html! {
        figure {
            (chart(&drawing))
            figcaption {
                p { (summary) }
                ul class="legend" {
                    @if view.candles.is_some() {
                        li { span class="key up" {} "closed higher or equal" }
                        li { span class="key down" {} "closed lower" }
                        li { span class="key open" {} "not over yet" }
                    } @else {
                        li { span class="key line" {} "the rate; it holds until the next" }
                        li { span class="key band" {} "what its published digits allow" }
                    }
                    li { span class="key silent" {} "silent: nothing observed for over " (length(downsampled.stale_limit_us)) }
                }
            }
        }
    }
}

/// What the picture says, in words.
fn summary(view: &View, downsampled: &DownsampledSeries) -> String {
    let turned = |rate| FormattedRate::new(rate, downsampled.inverted).value;
    // The lowest rate turned round is the highest.
    let (lowest, highest) = if downsampled.inverted {
        (downsampled.highest, downsampled.lowest)
    } else {
        (downsampled.lowest, downsampled.highest)
    };
    let moves = match downsampled.move_count {
        0 => "It did not move".to_owned(),
        1 => "It moved once".to_owned(),
        many => format!("It moved {many} times"),
    };
    let extremes = match (lowest, highest) {
        (Some(low), Some(high)) if low != high => format!(
            ": lowest {} on {}, highest {} on {} UTC",
            turned(low.rate),
            clock_text(low.time),
            turned(high.rate),
            clock_text(high.time)
        ),
        (Some(low), _) => format!(": {}", turned(low.rate)),
        (None, _) => String::new(),
    };
    let silences = match downsampled.silences.as_slice() {
        [] => String::new(),
        [_] => " The feed was silent once.".to_owned(),
        many => format!(" The feed was silent {} times.", many.len()),
    };
    let unit = view.shown();
    let candles = view.candles.map_or(String::new(), |length| format!(" Candles of {} each, UTC.", length.text));
    format!("{} per {}.{candles} {moves}{extremes}.{silences}", unit.quote(), unit.base())
}
