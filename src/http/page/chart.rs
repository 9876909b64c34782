//! The chart of a rate over time, as inline SVG.
//!
//! **Invariant**: a silence of the feed never looks like an unchanged rate. During a silence the line is dotted, over a
//! hatched area. If silences cover almost all of the chart, hatching shows nothing: then the observations have marks.

#![allow(clippy::float_arithmetic, reason = "only pixels are computed here, never the digits of a response")]

use maud::{Markup, html};

use super::chart_line::{Level, Line};
use super::chart_silences::is_sparse;
use super::labels::millis;
use super::scale::{Frame, Scale, number, px};
use crate::domain::Timestamp;
use crate::query::{CandleRow, DownsampledSeries, Silence};

/// Minimum width of a silence with a label, in pixels.
const LABEL_WIDTH: f64 = 64.0;
/// Width of a candle's body as a fraction of its bucket.
const BODY_PART: f64 = 0.64;
/// The scale of a rate that never moved shows this part of the rate above and below it, so that the line is in the
/// middle and the marks of the axis are not finer than the rate.
const FLAT_PART: f64 = 0.005;

/// The input of a chart.
pub(super) struct Drawing<'a> {
    /// Steps, silences and range.
    pub(super) downsampled: &'a DownsampledSeries,
    /// Whether the range starts at an observation.
    pub(super) starts_observed: bool,
    /// The series of a second line, over the same range.
    pub(super) other: Option<&'a DownsampledSeries>,
    /// The candles to draw instead of steps.
    pub(super) candles: Option<&'a [CandleRow]>,
    /// The accessible name of the chart.
    pub(super) title: &'a str,
    /// The accessible description of the chart.
    pub(super) summary: &'a str,
}

/// A candle with its rates as heights.
struct Bar {
    from: Timestamp,
    until: Timestamp,
    open: f64,
    high: f64,
    low: f64,
    close: f64,
    complete: bool,
}

fn bars(candles: &[CandleRow]) -> Vec<Bar> {
    let bar = |CandleRow { candle, complete, .. }: &CandleRow| Bar {
        from: candle.bucket.start,
        until: candle.bucket.end,
        open: number(candle.open.rate),
        high: number(candle.high.rate),
        low: number(candle.low.rate),
        close: number(candle.close.rate),
        complete: *complete,
    };
    candles.iter().map(bar).collect()
}

/// Returns the heights that the scale of a chart must show.
fn heights(levels: &[Level], other: &[Level], bars: Option<&[Bar]>) -> Vec<f64> {
    let bounds = |levels: &[Level]| levels.iter().flat_map(|level| [level.band.0, level.band.1]).collect::<Vec<_>>();
    let rates = |levels: &[Level]| levels.iter().flat_map(|level| [level.lowest, level.highest]).collect::<Vec<_>>();
    let (mut shown, mut values) = match bars {
        Some(bars) => {
            let heights: Vec<f64> = bars.iter().flat_map(|bar| [bar.low, bar.high]).collect();
            (heights.clone(), heights)
        }
        None => (bounds(levels), rates(levels)),
    };
    shown.extend(bounds(other));
    values.extend(rates(other));
    if let Some(first) = values.first().copied()
        && values.iter().all(|value| (value - first).abs() <= f64::EPSILON * first)
    {
        shown.extend(bounds(levels));
        shown.extend([first * (1.0 - FLAT_PART), first * (1.0 + FLAT_PART)]);
    }
    shown
}

/// Returns the chart twice, for wide and for narrow screens. The style sheet shows the chart that fits the screen.
pub(super) fn draw(drawing: &Drawing<'_>) -> Markup {
    html! {
        (svg(drawing, Frame::WIDE, "wide"))
        (svg(drawing, Frame::NARROW, "narrow"))
    }
}

fn svg(drawing: &Drawing<'_>, frame: Frame, name: &str) -> Markup {
    let range = (drawing.downsampled.range.start(), drawing.downsampled.range.end());
    let is_rarely_observed = is_sparse(drawing.downsampled);
    let line = Line::new(drawing.downsampled, drawing.starts_observed);
    let other = drawing.other.map(|series| Line::new(series, false)).unwrap_or_default();
    let bars = drawing.candles.map(bars);
    let scale = Scale::new(frame, range, heights(&line.levels, &other.levels, bars.as_deref()).into_iter());
    let (title_id, text_id) = (format!("title-{name}"), format!("text-{name}"));
    let (low, high) = scale.heights();
    html! {
        svg class={ "chart " (name) } viewBox=(format!("0 0 {} {}", frame.width, frame.height)) role="img"
            aria-labelledby={ (title_id) " " (text_id) } xmlns="http://www.w3.org/2000/svg"
            data-start=(millis(range.0)) data-end=(millis(range.1)) data-low=(low) data-high=(high)
            data-left=(frame.left) data-right=(frame.plot_right()) data-top=(frame.top)
            data-bottom=(frame.plot_bottom()) {
            title id=(title_id) { (drawing.title) }
            desc id=(text_id) { (drawing.summary) }
            defs {
                pattern id={ "hatch-" (name) } width="7" height="7" patternUnits="userSpaceOnUse"
                    patternTransform="rotate(45)" {
                    path class="hatch" d="M0 0V7" {}
                }
                pattern id={ "dots-" (name) } width="4" height="4" patternUnits="userSpaceOnUse" {
                    circle class="dot" cx="2" cy="2" r="1" {}
                }
            }
            (axes(&scale))
            @if !is_rarely_observed { (silences(&scale, &drawing.downsampled.silences, name)) }
            @match &bars {
                Some(bars) => {
                    (second_line(&scale, &other, drawing.other))
                    (candles(&scale, bars, name))
                },
                None => {
                    path class="band second" d=(other.band_path(&scale)) {}
                    @if drawing.other.is_some_and(is_sparse) {
                        path class="band second" d=(other.mark_bands_path(&scale)) {}
                    }
                    (first_line(&scale, &line, is_rarely_observed))
                    (second_line(&scale, &other, drawing.other))
                },
            }
        }
    }
}

/// Returns the line with its bounds. A part during a silence is dotted. If silences cover almost all of the chart, each
/// observation beside a silence has a mark.
fn first_line(scale: &Scale, line: &Line, is_rarely_observed: bool) -> Markup {
    let unconfirmed = line.unconfirmed_path(scale);
    html! {
        path class="band" d=(line.band_path(scale)) {}
        @if is_rarely_observed { path class="band" d=(line.mark_bands_path(scale)) {} }
        @if !unconfirmed.is_empty() { path class="unconfirmed" d=(unconfirmed) {} }
        path class="line" d=(line.confirmed_path(scale)) {}
        @if is_rarely_observed { path class="marks" d=(line.marks_path(scale)) {} }
    }
}

/// Returns the second line, over a wider line in the colour of the ground, so that it stays visible where two lines
/// meet. A silence of its source is a thin dotted line, because the hatched areas are the silences of the first line.
fn second_line(scale: &Scale, line: &Line, series: Option<&DownsampledSeries>) -> Markup {
    let (confirmed, unconfirmed) = (line.confirmed_path(scale), line.unconfirmed_path(scale));
    html! {
        @if !unconfirmed.is_empty() { path class="unconfirmed second" d=(unconfirmed) {} }
        @if !confirmed.is_empty() {
            path class="halo" d=(confirmed) {}
            path class="line second" d=(confirmed) {}
        }
        @if series.is_some_and(is_sparse) { path class="marks second" d=(line.marks_path(scale)) {} }
    }
}

fn axes(scale: &Scale) -> Markup {
    let frame = scale.frame;
    let (right, bottom) = (frame.plot_right(), frame.plot_bottom());
    html! {
        @for (text, at) in scale.rate_marks() {
            @let y = scale.y(at);
            path class="grid" d=(format!("M{} {}H{}", px(frame.left), px(y), px(right))) {}
            text class="mark" x=(px(right + 7.0)) y=(px(y + 4.0)) { (text) }
        }
        @for (text, time) in scale.time_marks() {
            @let x = scale.x(time);
            path class="tick" d=(format!("M{} {}v5", px(x), px(bottom))) {}
            // There is no room for a label at the edges.
            @if x > frame.left + 14.0 && x < right - 16.0 {
                text class="mark middle" x=(px(x)) y=(px(bottom + 19.0)) { (text) }
            }
        }
        path class="tick" d=(format!("M{} {}H{}", px(frame.left), px(bottom), px(right))) {}
        text class="mark zone" x=(px(right + 7.0)) y=(px(bottom + 19.0)) { "UTC" }
    }
}

/// Draws each silence as a hatched area.
fn silences(scale: &Scale, silences: &[Silence], name: &str) -> Markup {
    let (top, bottom) = (scale.frame.top, scale.frame.plot_bottom());
    let draw_silence = |silence: &Silence| {
        let (from, until) = (scale.x(silence.from), scale.x(silence.until));
        let (x, y, width, height) = (px(from), px(top), px(until - from), px(bottom - top));
        html! {
            rect fill=(format!("url(#hatch-{name})")) x=(x) y=(y) width=(width) height=(height) {}
            @if until - from > LABEL_WIDTH {
                text class="mark middle silent" x=(px(f64::midpoint(from, until))) y=(px(top + 16.0)) { "silent" }
            }
        }
    };
    html! { @for silence in silences { (draw_silence(silence)) } }
}

fn candles(scale: &Scale, bars: &[Bar], name: &str) -> Markup {
    let draw_candle = |bar: &Bar| {
        let (from, until) = (scale.x(bar.from), scale.x(bar.until));
        let middle = f64::midpoint(from, until);
        let half = ((until - from) * BODY_PART / 2.0).max(0.5);
        let (top, bottom) = (scale.y(bar.open.max(bar.close)), scale.y(bar.open.min(bar.close)));
        let direction = if bar.close < bar.open { "down" } else { "up" };
        // An unfinished candle may be a fraction of a pixel wide. It is drawn wide enough for its dashed outline.
        let half = if bar.complete { half } else { half.max(4.0) };
        let (height, label) = ((bottom - top).max(1.5), scale.y(bar.high) - 6.0);
        html! {
            path class="wick" d=(format!("M{} {}V{}", px(middle), px(scale.y(bar.high)), px(scale.y(bar.low)))) {}
            @if bar.complete {
                rect class=(format!("body {direction}")) x=(px(middle - half)) y=(px(top)) width=(px(half * 2.0))
                    height=(px(height)) {}
            } @else {
                // At least as high as its outline needs.
                @let height = height.max(5.0);
                @let y = f64::midpoint(top, bottom) - height / 2.0;
                rect class="cover" x=(px(middle - half)) y=(px(y)) width=(px(half * 2.0)) height=(px(height)) {}
                @if bar.close < bar.open {
                    rect fill=(format!("url(#dots-{name})")) x=(px(middle - half)) y=(px(y)) width=(px(half * 2.0))
                        height=(px(height)) {}
                }
                rect class="body open" x=(px(middle - half)) y=(px(y)) width=(px(half * 2.0)) height=(px(height)) {}
                text class="mark so-far" x=(px(middle + half)) y=(px(label.max(scale.frame.top + 12.0))) { "so far" }
            }
        }
    };
    html! { @for bar in bars { (draw_candle(bar)) } }
}

#[cfg(test)]
mod tests {
    use super::super::chart_line::tests::line;
    use super::*;

    fn levels(steps: &[(i64, &'static str)]) -> Vec<Level> {
        let steps: Vec<(i64, [&str; 3])> = steps.iter().map(|(from, rate)| (*from, [*rate; 3])).collect();
        line(&steps, &[]).levels
    }

    #[test]
    fn rate_that_never_moved_is_in_the_middle_of_a_sensible_scale() {
        let times = (Timestamp::from_micros(0), Timestamp::from_micros(100));
        let check = |levels: &[Level], other: &[Level], expect: &[&str]| {
            let scale = Scale::new(Frame::WIDE, times, heights(levels, other, None).into_iter());
            let marks: Vec<String> = scale.rate_marks().into_iter().map(|(text, _)| text).collect();
            assert_eq!(marks, expect);
            let middle = f64::midpoint(Frame::WIDE.top, Frame::WIDE.plot_bottom());
            if other.is_empty() {
                assert!((scale.y(levels[0].last) - middle).abs() < 2.0, "{}", scale.y(levels[0].last));
            }
        };
        check(&levels(&[(0, "87.4500")]), &[], &["87.0", "87.2", "87.4", "87.6", "87.8"]);
        let pegged = levels(&[(0, "0.28490"), (50, "0.28490")]);
        check(&pegged, &[], &["0.2835", "0.2840", "0.2845", "0.2850", "0.2855", "0.2860", "0.2865"]);
        // The possible true rates of few digits are wider than that.
        check(&levels(&[(0, "0.00008")]), &[], &["0.000076", "0.000078", "0.000080", "0.000082", "0.000084"]);
        // A second line with another rate gives a scale for both.
        check(&levels(&[(0, "87.4500")]), &levels(&[(0, "88.0")]), &["87.5", "87.6", "87.7", "87.8", "87.9", "88.0"]);
    }
}
