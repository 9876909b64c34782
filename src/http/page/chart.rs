//! The chart of a rate over time, as inline SVG.
//!
//! **Invariant**: a rate is in force until the next rate, so lines are horizontal and vertical, never diagonal.
//! During a silence of the feed, the line is replaced by a hatched area, so that a silence never looks like an
//! unchanged rate.

#![allow(clippy::float_arithmetic, reason = "only pixels are computed here, never the digits of a response")]

use std::fmt::Write as _;

use maud::{Markup, html};

use super::labels::millis;
use super::scale::{Frame, Scale, band, height, number};
use crate::domain::Timestamp;
use crate::query::{CandleRow, DownsampledSeries, Silence, Step};

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
    /// The series of a second line, over the same range.
    pub(super) other: Option<&'a DownsampledSeries>,
    /// The candles to draw instead of steps.
    pub(super) candles: Option<&'a [CandleRow]>,
    /// The accessible name of the chart.
    pub(super) title: &'a str,
    /// The accessible description of the chart.
    pub(super) summary: &'a str,
}

/// A step of the chart, with its rates as heights; see [`height`].
struct Level {
    from: Timestamp,
    until: Timestamp,
    lowest: f64,
    highest: f64,
    last: f64,
    /// The lower bound of the lowest rate and the upper bound of the highest rate.
    band: (f64, f64),
    /// The bounds of the last rate.
    last_band: (f64, f64),
}

impl Level {
    fn new(step: &Step, until: Timestamp) -> Self {
        Self {
            from: step.from,
            until,
            lowest: height(&step.lowest),
            highest: height(&step.highest),
            last: height(&step.last),
            band: (band(&step.lowest).0, band(&step.highest).1),
            last_band: band(&step.last),
        }
    }

    /// Returns true if the step has a single rate.
    fn is_single(&self) -> bool {
        self.lowest >= self.highest
    }
}

fn levels(downsampled: &DownsampledSeries) -> Vec<Level> {
    let ends = downsampled.steps.iter().skip(1).map(|step| step.from).chain([downsampled.range.end()]);
    downsampled.steps.iter().zip(ends).map(|(step, until)| Level::new(step, until)).collect()
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
    let levels = levels(drawing.downsampled);
    let other = drawing.other.map(self::levels).unwrap_or_default();
    let bars = drawing.candles.map(bars);
    let scale = Scale::new(frame, range, heights(&levels, &other, bars.as_deref()).into_iter());
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
            @match &bars {
                Some(bars) => {
                    (silences(&scale, drawing.downsampled, None, name))
                    (second_line(&scale, &other, drawing.other))
                    (candles(&scale, bars, name))
                },
                None => {
                    path class="band" d=(band_path(&scale, &levels)) {}
                    path class="band second" d=(band_path(&scale, &other)) {}
                    path class="line" d=(line_path(&scale, &levels)) {}
                    (silences(&scale, drawing.downsampled, Some(&levels), name))
                    // The second line is above the silences of the first.
                    (second_line(&scale, &other, drawing.other))
                },
            }
        }
    }
}

/// Returns the parts of a time range outside the silences, which are sorted and do not overlap.
pub(super) fn outside(from: Timestamp, until: Timestamp, silences: &[Silence]) -> Vec<(Timestamp, Timestamp)> {
    let mut parts = Vec::new();
    let mut start = from;
    for silence in silences.iter().filter(|silence| silence.until > from && silence.from < until) {
        if silence.from > start {
            parts.push((start, silence.from));
        }
        start = silence.until;
    }
    if start < until {
        parts.push((start, until));
    }
    parts
}

/// Returns the second line, over a wider line in the colour of the ground, so that it stays visible where two lines
/// meet. A silence of its source is a gap, because the hatched areas are the silences of the first line.
fn second_line(scale: &Scale, levels: &[Level], series: Option<&DownsampledSeries>) -> Markup {
    let silences = series.map_or(&[][..], |series| &series.silences);
    let mut parts = Vec::new();
    for level in levels {
        for (from, until) in outside(level.from, level.until, silences) {
            // After a silence, a merged step has its last rate only.
            let is_whole = from == level.from;
            let (lowest, highest) = if is_whole { (level.lowest, level.highest) } else { (level.last, level.last) };
            parts.push(Level { from, until, lowest, highest, ..*level });
        }
    }
    // Parts that follow each other without a gap are one path.
    let paths = parts.chunk_by(|before, after| before.until == after.from).map(|parts| line_path(scale, parts));
    let path: String = paths.collect();
    html! {
        @if !path.is_empty() {
            path class="halo" d=(path) {}
            path class="line second" d=(path) {}
        }
    }
}

/// Formats a coordinate with one decimal place.
pub(super) fn px(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
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

fn line_path(scale: &Scale, levels: &[Level]) -> String {
    let mut path = String::new();
    for (at, level) in levels.iter().enumerate() {
        let start = if at == 0 { format!("M{} ", px(scale.x(level.from))) } else { "V".to_owned() };
        // Writing to a String cannot fail.
        let _ = if level.is_single() {
            write!(path, "{start}{}", px(scale.y(level.last)))
        } else {
            let y = |height| px(scale.y(height));
            write!(path, "{start}{}V{}V{}", y(level.lowest), y(level.highest), y(level.last))
        };
        let _ = write!(path, "H{}", px(scale.x(level.until)));
    }
    path
}

fn band_path(scale: &Scale, levels: &[Level]) -> String {
    let mut path = String::new();
    let mut block = |from: f64, until: f64, (low, high): (f64, f64)| {
        let (x0, x1, y0, y1) = (px(from), px(until), px(scale.y(high)), px(scale.y(low)));
        let _ = write!(path, "M{x0} {y0}H{x1}V{y1}H{x0}Z");
    };
    for level in levels {
        let (from, until) = (scale.x(level.from), scale.x(level.until));
        if level.is_single() {
            block(from, until, level.last_band);
        } else {
            // The range of an aggregated step is drawn one pixel wide.
            block(from, (from + 1.0).min(until), level.band);
            block((from + 1.0).min(until), until, level.last_band);
        }
    }
    path
}

/// Draws each silence as a hatched area over the line of the rate, and the unconfirmed rate of the silence as a dotted
/// line.
fn silences(scale: &Scale, downsampled: &DownsampledSeries, levels: Option<&[Level]>, name: &str) -> Markup {
    let (top, bottom) = (scale.frame.top, scale.frame.plot_bottom());
    let draw_silence = |silence: &Silence| {
        let (from, until) = (scale.x(silence.from), scale.x(silence.until));
        let unconfirmed = levels.and_then(|levels| levels.iter().rev().find(|level| level.from <= silence.from));
        let (x, y, width, height) = (px(from), px(top), px(until - from), px(bottom - top));
        html! {
            @if levels.is_some() { rect class="cover" x=(x) y=(y) width=(width) height=(height) {} }
            rect fill=(format!("url(#hatch-{name})")) x=(x) y=(y) width=(width) height=(height) {}
            @if let Some(level) = unconfirmed {
                path class="unconfirmed" d=(format!("M{x} {}H{}", px(scale.y(level.last)), px(until))) {}
            }
            @if until - from > LABEL_WIDTH {
                text class="mark middle silent" x=(px(f64::midpoint(from, until))) y=(px(top + 16.0)) { "silent" }
            }
        }
    };
    html! { @for silence in &downsampled.silences { (draw_silence(silence)) } }
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
    use super::*;
    use crate::analysis::{LegRate, Legs};
    use crate::domain::Rate;
    use crate::query::{Derivation, Range};

    fn level(from: i64, until: i64, rates: [&str; 3]) -> Level {
        let rate = |text| Legs::One(LegRate { rate: Rate::parse(text).unwrap(), inverted: false });
        let [lowest, highest, last] = rates.map(rate);
        let step = Step { from: Timestamp::from_micros(from), lowest, highest, last };
        Level::new(&step, Timestamp::from_micros(until))
    }

    #[test]
    fn lines_are_horizontal_and_vertical() {
        let levels = [level(0, 50, ["1.0"; 3]), level(50, 80, ["2.0"; 3]), level(80, 100, ["1.0", "3.0", "2.0"])];
        let frame = Frame { width: 100.0, height: 100.0, left: 0.0, right: 0.0, top: 0.0, bottom: 0.0, ..Frame::WIDE };
        let times = (Timestamp::from_micros(0), Timestamp::from_micros(100));
        let path = line_path(&Scale::new(frame, times, [1.0, 3.0].into_iter()), &levels);
        // Only horizontal and vertical commands. An aggregated column shows its lowest and its highest rate.
        assert_eq!(path, "M0 93.1H50V50H80V93.1V6.9V50H100");
        let band = band_path(&Scale::new(frame, times, [1.0, 3.0].into_iter()), &levels[..1]);
        assert_eq!(band, "M0 90.9H50V95.3H0Z");
    }

    #[test]
    fn second_line_has_a_gap_for_each_silence_of_its_source() {
        let levels = [level(0, 50, ["1.0"; 3]), level(50, 100, ["1.0", "3.0", "2.0"])];
        let at = Timestamp::from_micros;
        let check = |silences: &[(i64, i64)], expect: &str| {
            let frame =
                Frame { width: 100.0, height: 100.0, left: 0.0, right: 0.0, top: 0.0, bottom: 0.0, ..Frame::WIDE };
            let scale = Scale::new(frame, (at(0), at(100)), [1.0, 3.0].into_iter());
            let silences = silences.iter().map(|(from, until)| Silence { from: at(*from), until: at(*until) });
            let series = DownsampledSeries {
                derivation: Derivation::Direct,
                legs: Vec::new(),
                range: Range::new(Some(at(0)), Some(at(100))).unwrap(),
                steps: Vec::new(),
                is_exact: false,
                move_count: 0,
                lowest: None,
                highest: None,
                silences: silences.collect(),
                stale_limits_us: Vec::new(),
            };
            let html = second_line(&scale, &levels, Some(&series)).into_string();
            assert!(html.contains(&format!("line second\" d=\"{expect}\"")), "{html}");
        };
        check(&[], "M0 93.1H50V93.1V6.9V50H100");
        check(&[(20, 40)], "M0 93.1H20M40 93.1H50V93.1V6.9V50H100");
        check(&[(20, 60), (90, 100)], "M0 93.1H20M60 50H90");
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
        check(&[level(0, 100, ["87.4500"; 3])], &[], &["87.0", "87.2", "87.4", "87.6", "87.8"]);
        let pegged = [level(0, 50, ["0.28490"; 3]), level(50, 100, ["0.28490"; 3])];
        check(&pegged, &[], &["0.2835", "0.2840", "0.2845", "0.2850", "0.2855", "0.2860", "0.2865"]);
        // The possible true rates of few digits are wider than that.
        check(&[level(0, 100, ["0.00008"; 3])], &[], &["0.000076", "0.000078", "0.000080", "0.000082", "0.000084"]);
        // A second line with another rate gives a scale for both.
        check(
            &[level(0, 100, ["87.4500"; 3])],
            &[level(0, 100, ["88.0"; 3])],
            &["87.5", "87.6", "87.7", "87.8", "87.9", "88.0"],
        );
    }
}
