//! A small picture of the last month of a rate, as inline SVG, for a row of the table.
//!
//! **Invariant**: like in a chart, lines are horizontal and vertical, and a silence is a gap in the line.

#![allow(clippy::float_arithmetic, reason = "only pixels are computed here, never the digits of a response")]

use std::fmt::Write as _;

use maud::{Markup, html};

use super::chart::{outside, px};
use super::labels::FormattedRate;
use super::scale::height;
use crate::domain::{Span, SpanUnit, Timestamp};
use crate::query::DownsampledSeries;

/// The length of the picture in time.
pub(super) const WINDOW: Span = Span::new(30, SpanUnit::Day);
/// Number of time columns of the picture.
pub(super) const COLUMNS: u32 = 120;

const WIDTH: f64 = 120.0;
const HEIGHT: f64 = 28.0;
/// Free space on each side, for the width of the line and the dot.
const MARGIN: f64 = 3.0;

/// Returns the picture, and its meaning for screen readers.
pub(super) fn sparkline(downsampled: &DownsampledSeries) -> Markup {
    let (Some(lowest), Some(highest), Some(last)) = (downsampled.lowest, downsampled.highest, downsampled.steps.last())
    else {
        return html! { span class="no-value" { "no data" } };
    };
    let (low, high) = (height(&lowest.rate), height(&highest.rate));
    let (start, end) = (downsampled.range.start(), downsampled.range.end());
    #[allow(clippy::cast_precision_loss, reason = "a position needs less precision than a double has")]
    let x = |time: Timestamp| {
        let part = time.micros_since(start) as f64 / end.micros_since(start).max(1) as f64;
        MARGIN + part.clamp(0.0, 1.0) * (WIDTH - 2.0 * MARGIN)
    };
    // A rate that never moved is a line in the middle.
    let y = |height: f64| {
        let part = if low < high { (height - low) / (high - low) } else { 0.5 };
        HEIGHT - MARGIN - part * (HEIGHT - 2.0 * MARGIN)
    };
    let mut path = String::new();
    let mut drawn_until = None;
    let ends = downsampled.steps.iter().skip(1).map(|step| step.from).chain([end]);
    for (step, until) in downsampled.steps.iter().zip(ends) {
        let last = px(y(height(&step.last)));
        for (from, until) in outside(step.from, until, &downsampled.silences) {
            // Writing to a String cannot fail.
            let _ = if drawn_until == Some(from) {
                write!(path, "V{last}")
            } else {
                write!(path, "M{} {last}", px(x(from)))
            };
            if from == step.from && step.lowest != step.highest {
                let _ = write!(path, "V{}V{}V{last}", px(y(height(&step.lowest))), px(y(height(&step.highest))));
            }
            let _ = write!(path, "H{}", px(x(until)));
            drawn_until = Some(until);
        }
    }
    let [low_text, high_text] = [lowest, highest].map(|extreme| FormattedRate::of(&extreme.rate).value);
    html! {
        svg class="spark" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) aria-hidden="true" {
            path d=(path) {}
            circle cx=(px(x(drawn_until.unwrap_or(last.from)))) cy=(px(y(height(&last.last)))) r="2" {}
        }
        span class="unseen" {
            @if downsampled.move_count == 0 { "no move" } @else { (low_text) " to " (high_text) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::{LegRate, Legs};
    use crate::domain::Rate;
    use crate::query::{Derivation, Extreme, Range, Silence, Step};

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn drawn(steps: &[(i64, &str)], silences: &[(i64, i64)]) -> String {
        let rate = |text: &str| Legs::One(LegRate { rate: Rate::parse(text).unwrap(), inverted: false });
        let extreme = |text: &str| Some(Extreme { time: at(0), rate: rate(text) });
        let mut sorted: Vec<&str> = steps.iter().map(|(_, rate)| *rate).collect();
        sorted.sort_unstable();
        let steps = steps.iter().map(|(from, text)| {
            let rate = rate(text);
            Step { from: at(*from), lowest: rate, highest: rate, last: rate }
        });
        sparkline(&DownsampledSeries {
            derivation: Derivation::Direct,
            legs: Vec::new(),
            range: Range::new(Some(at(0)), Some(at(114))).unwrap(),
            steps: steps.collect(),
            is_exact: true,
            move_count: u64::from(sorted.first() != sorted.last()),
            lowest: sorted.first().and_then(|text| extreme(text)),
            highest: sorted.last().and_then(|text| extreme(text)),
            silences: silences.iter().map(|(from, until)| Silence { from: at(*from), until: at(*until) }).collect(),
            stale_limits_us: vec![10],
        })
        .into_string()
    }

    #[test]
    fn silence_is_a_gap_and_flat_rate_is_in_the_middle() {
        let check = |steps: &[(i64, &str)], silences: &[(i64, i64)], path: &str, text: &str| {
            let html = drawn(steps, silences);
            assert!(html.contains(&format!("<path d=\"{path}\">")) && html.contains(text), "{html}");
        };
        check(&[(0, "1.0"), (57, "2.0")], &[], "M3 25H60V3H117", "1.0 to 2.0");
        check(&[(0, "1.0"), (57, "2.0")], &[(20, 57)], "M3 25H23M60 3H117", "1.0 to 2.0");
        check(&[(0, "1.0"), (57, "2.0")], &[(20, 77)], "M3 25H23M80 3H117", "1.0 to 2.0");
        check(&[(10, "1.0")], &[(50, 60), (100, 114)], "M13 14H53M63 14H103", "no move");
        check(&[(114, "1.0")], &[], "", "no move");
        assert!(drawn(&[], &[]).contains("no data"));
    }
}
