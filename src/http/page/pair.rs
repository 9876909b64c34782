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
use serde::Deserialize;

use super::chart::{Drawing, chart};
use super::words::{Shown, clock_text, length, millis, moment, moment_and_age, percent};
use super::{Page, failure, layout, problem, respond, table};
use crate::analysis::{Buckets, Interval, PercentChange, Zone};
use crate::board::{LatestQuote, RateState};
use crate::domain::{Pair, SeriesKey, Source};
use crate::query::{
    BucketsRequest, CandleRow, CandlesRequest, ChangeRequest, ChangeStart, Outline, OutlineRequest, QueryError, Range,
    Reader, Step, Window, WindowUnit,
};

/// Into so many columns of time a chart is cut: no screen shows more.
const COLUMNS: u32 = 480;
/// Candles of one chart; more would touch each other.
const CANDLES_MAX: usize = 400;
/// Rows of the table beneath a chart, newest first.
const ROWS_MAX: usize = 100;

/// What may follow the path.
#[derive(Deserialize)]
pub(super) struct Fields {
    source: Option<String>,
    range: Option<String>,
    invert: Option<String>,
    candles: Option<String>,
}

/// How far back a chart goes, and which candles suit that.
struct Span {
    name: &'static str,
    text: &'static str,
    window: Option<Window>,
    candles: &'static str,
}

const fn window(count: u32, unit: WindowUnit) -> Window {
    Window { count, unit }
}

const SPANS: [Span; 5] = [
    Span { name: "1d", text: "1 day", window: Some(window(1, WindowUnit::Day)), candles: "1h" },
    Span { name: "7d", text: "7 days", window: Some(window(7, WindowUnit::Day)), candles: "4h" },
    Span { name: "30d", text: "30 days", window: Some(window(30, WindowUnit::Day)), candles: "1d" },
    Span { name: "1y", text: "1 year", window: Some(window(1, WindowUnit::Year)), candles: "1w" },
    Span { name: "all", text: "All", window: None, candles: "1mo" },
];
/// The span of an address that names none.
const SPAN_DEFAULT: usize = 2;

const INTERVALS: [(&str, Interval); 6] = [
    ("15m", Interval::FifteenMinutes),
    ("1h", Interval::Hour),
    ("4h", Interval::FourHours),
    ("1d", Interval::Day),
    ("1w", Interval::Week),
    ("1mo", Interval::Month),
];

/// A view that was asked for, checked.
struct View {
    /// As in the address.
    pair: Pair,
    invert: bool,
    source: Source,
    span: &'static Span,
    candles: Option<(&'static str, Interval)>,
    /// Sources that have the pair, this one included.
    sources: Vec<Source>,
}

impl View {
    /// The pair as it is shown.
    fn shown(&self) -> Pair {
        if self.invert { self.pair.inverse() } else { self.pair }
    }

    /// The address of this view, changed as told.
    fn link(&self, source: &Source, span: &str, invert: bool, candles: Option<&str>) -> String {
        let mut link = format!("/pair/{}/{}?source={source}&range={span}", self.pair.base(), self.pair.quote());
        if invert {
            link.push_str("&invert=1");
        }
        if let Some(candles) = candles {
            link.push_str("&candles=");
            link.push_str(candles);
        }
        link
    }
}

/// All that a page shows, of one commit.
struct Reading {
    outline: Outline,
    candles: Option<Vec<CandleRow>>,
    change: Option<PercentChange>,
    quote: Option<Arc<LatestQuote>>,
}

fn bad(field: &str, text: &str, remedy: &str) -> QueryError {
    let shown: String = text.chars().take(32).flat_map(char::escape_debug).collect();
    QueryError::invalid(field, format!("'{shown}' is none of {remedy}"))
}

/// One of `known` by its name, which `text` must be.
fn choose<'a, T>(field: &str, text: &str, known: &'a [T], name: fn(&T) -> &str) -> Result<&'a T, QueryError> {
    let names = || known.iter().map(name).collect::<Vec<_>>().join(", ");
    known.iter().find(|item| name(item) == text).ok_or_else(|| bad(field, text, &names()))
}

/// The view of `fields`, with the first source that has the pair where none is named.
fn view(pair: Pair, fields: &Fields, keys: impl Iterator<Item = SeriesKey>) -> Result<View, QueryError> {
    let sources: Vec<Source> =
        keys.filter(|key| key.pair == pair || key.pair == pair.inverse()).map(|key| key.source).collect();
    let wanted = match fields.source.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => Some(Source::parse(text).map_err(|problem| QueryError::invalid("source", problem.to_string()))?),
        None => sources.first().cloned(),
    };
    let span = match fields.range.as_deref() {
        Some(text) => choose("range", text, &SPANS, |span| span.name)?,
        None => &SPANS[SPAN_DEFAULT],
    };
    let invert = match fields.invert.as_deref() {
        None | Some("0" | "false") => false,
        Some("1" | "true") => true,
        Some(text) => return Err(bad("invert", text, "1, 0")),
    };
    let candles = match fields.candles.as_deref() {
        None => None,
        Some(text) => Some(*choose("candles", text, &INTERVALS, |(name, _)| name)?),
    };
    let Some(source) = wanted.filter(|source| sources.contains(source)) else {
        let wanted_source = fields.source.as_deref().and_then(|text| Source::parse(text).ok());
        let there_are = "the latest rates list what there is".to_owned();
        return Err(QueryError::UnknownSeries { pair, wanted_source, missing_legs: Vec::new(), there_are });
    };
    let mut view = View { pair, invert, source, span, candles, sources };
    view.sources.dedup();
    Ok(view)
}

fn read(reader: &Reader, view: &View) -> Result<Reading, QueryError> {
    let (pair, source) = (view.shown(), Some(view.source.clone()));
    let window = view.span.window;
    let request = OutlineRequest { pair, source: source.clone(), window, columns: COLUMNS };
    let outline = reader.outline(&request)?.body;
    let (start, end) = (outline.range.start(), outline.range.end());
    let candles = match view.candles {
        None => None,
        Some((name, interval)) => {
            let buckets = Buckets { zone: Zone::UTC, interval };
            let first = buckets.at(start).start;
            if buckets.count_between(first, end) > u64::try_from(CANDLES_MAX).unwrap_or(u64::MAX) {
                let problem = format!("'{name}' makes more than {CANDLES_MAX} candles of this range; take longer ones");
                return Err(QueryError::invalid("candles", problem));
            }
            let range = Range::new(Some(first), None)?;
            let list = BucketsRequest {
                pair,
                source: source.clone(),
                leg_sources: Vec::new(),
                range,
                known_time: None,
                after: None,
                limit: CANDLES_MAX + 1,
            };
            let request = CandlesRequest { list, buckets, fill: false, count_observations: false };
            Some(reader.candles(&request)?.body.rows)
        }
    };
    let change = ChangeRequest {
        pair,
        source,
        leg_sources: Vec::new(),
        start: ChangeStart::Time(start),
        end_time: Some(end),
        known_time: None,
    };
    let change = reader.change(&change)?.body.percent;
    let quote = reader.board().quotes.iter().find(|quote| quote.series == outline.series).cloned();
    Ok(Reading { outline, candles, change, quote })
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
    let keys = site.rates.view().board.quotes.iter().map(|quote| quote.series.clone()).collect::<Vec<_>>();
    let view = match view(pair, &fields, keys.into_iter()) {
        Ok(view) => Arc::new(view),
        Err(error) => return failure(&error.into()),
    };
    let Ok(_turn) = page.charts.acquire().await else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down; try again once it is back");
    };
    let of_view = Arc::clone(&view);
    match site.rates.read(move |reader| read(reader, &of_view)).await {
        Ok(reading) => {
            let title = format!("{} from {}", view.shown(), view.source);
            respond(StatusCode::OK, &layout::page(&title, &body(&view, &reading)))
        }
        Err(error) => failure(&error),
    }
}

fn body(view: &View, reading: &Reading) -> Markup {
    let outline = &reading.outline;
    let now = outline.range.end();
    html! {
        section id="chart" data-row=(table::row_id(&outline.series)) data-now=(millis(now)) {
            p class="crumb" { a href="/" { "All latest rates" } }
            h1 { (view.shown()) " " span class="source" { "from " (view.source) } }
            (worth(view, reading))
            (controls(view))
            (figure(view, reading))
            (numbers(outline))
        }
    }
}

/// What it is worth, and whether that is fresh.
fn worth(view: &View, reading: &Reading) -> Markup {
    let (Some(quote), shown) = (&reading.quote, view.shown()) else {
        return html! { p class="notice" { "No rate of it is in force yet." } };
    };
    let rate = Shown::new(quote.run.value.rate, reading.outline.inverted);
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
                    Some(time) => { (moment_and_age(time)) },
                    None => "never",
                }
            } }
            div { dt { "Change over the range" } dd {
                @match &reading.change {
                    Some(change) => { (percent(change, None)) },
                    None => "no quote at its start",
                }
            } }
        }
    }
}

/// One of a group of links; the present one is marked, and says so.
fn choice(link: &str, text: &str, present: bool) -> Markup {
    html! { a class="choice" href=(link) data-swap aria-current=[present.then_some("true")] { (text) } }
}

fn controls(view: &View) -> Markup {
    let candles = view.candles.map(|(name, _)| name);
    let (pair, span) = (view.pair, view.span);
    html! {
        nav class="controls" aria-label="Chart" {
            div role="group" aria-label="Range" {
                @for other in &SPANS {
                    // Candles that suit one range are too many or too few for another.
                    @let suited = candles.map(|_| other.candles);
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
                (choice(&view.link(&view.source, span.name, view.invert, Some(candles.unwrap_or(span.candles))), "Candles",
                        candles.is_some()))
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
    let outline = &reading.outline;
    if outline.steps.is_empty() {
        return html! { p class="notice" { "There was no rate yet in this range." } };
    }
    let title = format!("{} from {}, {}", view.shown(), view.source, view.span.text);
    let summary = summary(view, outline);
    let drawing = Drawing { outline, candles: reading.candles.as_deref(), title: &title, summary: &summary };
    html! {
        figure {
            (chart(&drawing))
            figcaption {
                p { (summary) }
                ul class="legend" {
                    @if view.candles.is_some() {
                        li { span class="key up" {} "closed higher or equal" }
                        li { span class="key down" {} "closed lower" }
                    } @else {
                        li { span class="key line" {} "the rate; it holds until the next" }
                        li { span class="key band" {} "what its published digits allow" }
                    }
                    li { span class="key silent" {} "silent: nothing observed for over " (length(outline.stale_limit_us)) }
                }
            }
        }
    }
}

/// What the picture says, in words.
fn summary(view: &View, outline: &Outline) -> String {
    let turned = |rate| Shown::new(rate, outline.inverted).value;
    // The lowest rate turned round is the highest.
    let (lowest, highest) =
        if outline.inverted { (outline.highest, outline.lowest) } else { (outline.lowest, outline.highest) };
    let moves = match outline.move_count {
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
    let silences = match outline.silences.as_slice() {
        [] => String::new(),
        [_] => " The feed was silent once.".to_owned(),
        many => format!(" The feed was silent {} times.", many.len()),
    };
    let unit = view.shown();
    format!("{} per {}. {moves}{extremes}.{silences}", unit.quote(), unit.base())
}

/// The same as a table.
fn numbers(outline: &Outline) -> Markup {
    let range = |step: &Step| {
        let (low, high) = if outline.inverted { (step.highest, step.lowest) } else { (step.lowest, step.highest) };
        (Shown::new(low, outline.inverted).value, Shown::new(high, outline.inverted).value)
    };
    let last = |step: &Step| Shown::new(step.last, outline.inverted);
    let steps = outline.steps.iter().rev().take(ROWS_MAX);
    html! {
        details id="numbers" {
            summary { "The same as a table" }
            div class="scroll" {
                table class="plain" {
                    caption {
                        @if outline.is_exact { "Every rate of the range, newest first." }
                        @else { "Rates put together by stretches of time, newest first." }
                        @if outline.steps.len() > ROWS_MAX { " These are the newest " (ROWS_MAX) " of " (outline.steps.len()) "." }
                    }
                    thead { tr {
                        th scope="col" { "From (UTC)" }
                        @if !outline.is_exact { th scope="col" { "Lowest" } th scope="col" { "Highest" } }
                        th scope="col" { @if outline.is_exact { "Rate" } @else { "Last" } }
                        th scope="col" { "At least" }
                        th scope="col" { "At most" }
                    } }
                    tbody {
                        @for step in steps {
                            @let shown = last(step);
                            tr {
                                th scope="row" { (moment(step.from)) }
                                @if !outline.is_exact {
                                    @let (low, high) = range(step);
                                    td { (low) } td { (high) }
                                }
                                td { (shown.value) } td { (shown.low) } td { (shown.high) }
                            }
                        }
                    }
                }
                @if !outline.silences.is_empty() {
                    table class="plain" {
                        caption { "Silences: nothing observed for over " (length(outline.stale_limit_us)) ", newest first." }
                        thead { tr { th scope="col" { "From (UTC)" } th scope="col" { "Until" } } }
                        tbody {
                            @for silence in outline.silences.iter().rev().take(ROWS_MAX) {
                                tr { th scope="row" { (moment(silence.from)) } td { (moment(silence.until)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CurrencySet;

    fn key(pair: &str, source: &str) -> SeriesKey {
        SeriesKey {
            pair: Pair::parse(pair, &CurrencySet::central_asia()).unwrap(),
            source: Source::parse(source).unwrap(),
        }
    }

    #[test]
    fn an_address_is_checked_and_made_again() {
        let there = [key("KGS/USD", "timesca"), key("KZT/USD", "nbk"), key("USD/KGS", "nbkr")];
        let check = |pair: &str, fields: [Option<&str>; 4], expect: &str| {
            let [source, range, invert, candles] = fields.map(|field| field.map(str::to_owned));
            let fields = Fields { source, range, invert, candles };
            let link = view(key(pair, "x").pair, &fields, there.iter().cloned()).map_or_else(
                |error| error.to_string(),
                |view| view.link(&view.source, view.span.name, view.invert, view.candles.map(|(name, _)| name)),
            );
            assert!(link.contains(expect), "{link}");
        };
        check("KGS/USD", [None; 4], "/pair/KGS/USD?source=timesca&range=30d");
        // Published the other way round by another source.
        check("KGS/USD", [Some("nbkr"), None, None, None], "/pair/KGS/USD?source=nbkr&range=30d");
        let all = [Some("timesca"), Some("all"), Some("1"), Some("1mo")];
        check("KGS/USD", all, "/pair/KGS/USD?source=timesca&range=all&invert=1&candles=1mo");
        check("KGS/USD", [None, Some("2d"), None, None], "range: '2d' is none of 1d, 7d, 30d, 1y, all");
        check("KGS/USD", [None, None, Some("yes"), None], "invert: 'yes' is none of 1, 0");
        check("KGS/USD", [None, None, None, Some("1s")], "candles: '1s' is none of 15m, 1h, 4h, 1d, 1w, 1mo");
        check("KGS/USD", [Some("A"), None, None, None], "source: source 'A' is not a slug");
        check("KGS/USD", [Some("nbk"), None, None, None], "there is no series of KGS/USD from nbk");
        check("TMT/USD", [None; 4], "there is no series of TMT/USD");
        // The dollar has both, and neither of them is a cross.
        check("KGS/KZT", [None; 4], "there is no series of KGS/KZT");
    }
}
