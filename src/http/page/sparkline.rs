//! A small picture of a rate over time, as inline SVG, for a row of the table.
//!
//! **Invariant**: like in a chart, lines are horizontal and vertical, and the line of a silence is dotted.

#![allow(clippy::float_arithmetic, reason = "only pixels are computed here, never the digits of a response")]

use std::fmt::Write as _;

use maud::{Markup, html};

use super::chart_silences::{confirmed, unconfirmed};
use super::labels::FormattedRate;
use super::scale::{height, px};
use crate::domain::{Span, SpanUnit, Timestamp};
use crate::query::DownsampledSeries;

/// The length of the picture in time, unless it spans the whole series.
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
    let path = |is_confirmed: bool| {
        let split = if is_confirmed { confirmed } else { unconfirmed };
        let (mut path, mut drawn_until) = (String::new(), None);
        let next = downsampled.steps.iter().skip(1).map(Some).chain([None]);
        for (step, next) in downsampled.steps.iter().zip(next) {
            let (last, until) = (px(y(height(&step.last))), next.map_or(end, |next| next.from));
            for (from, part_until) in split(step.from, until, &downsampled.silences) {
                // Writing to a String cannot fail.
                let _ = if drawn_until != Some(from) {
                    write!(path, "M{} {last}", px(x(from)))
                } else if path.ends_with(&format!("V{last}")) {
                    Ok(())
                } else {
                    write!(path, "V{last}")
                };
                if from == step.from && step.lowest != step.highest {
                    let _ = write!(path, "V{}V{}V{last}", px(y(height(&step.lowest))), px(y(height(&step.highest))));
                }
                let _ = write!(path, "H{}", px(x(part_until)));
                // A silence ends with an observation, which may have another rate.
                if let Some(next) = next.filter(|next| !is_confirmed && next.from == part_until) {
                    let _ = write!(path, "V{}", px(y(height(&next.last))));
                }
                drawn_until = Some(part_until);
            }
        }
        path
    };
    let last_observed =
        downsampled.silences.last().filter(|silence| silence.until >= end).map_or(end, |last| last.from);
    let dotted = path(false);
    let [low_text, high_text] = [lowest, highest].map(|extreme| FormattedRate::of(&extreme.rate).value);
    html! {
        svg class="spark" viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) aria-hidden="true" {
            @if !dotted.is_empty() { path class="dotted" d=(dotted) {} }
            path d=(path(true)) {}
            circle cx=(px(x(last_observed))) cy=(px(y(height(&last.last)))) r="2" {}
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
    fn line_of_a_silence_is_dotted_and_flat_rate_is_in_the_middle() {
        let check = |steps: &[(i64, &str)], silences: &[(i64, i64)], [path, dotted]: [&str; 2], text: &str| {
            let html = drawn(steps, silences);
            assert!(html.contains(&format!("<path d=\"{path}\">")) && html.contains(text), "{html}");
            let expect = format!("<path class=\"dotted\" d=\"{dotted}\">");
            assert_eq!(html.contains(&expect), !dotted.is_empty(), "{html}");
        };
        check(&[(0, "1.0"), (57, "2.0")], &[], ["M3 25H60V3H117", ""], "1.0 to 2.0");
        check(&[(0, "1.0"), (57, "2.0")], &[(20, 57)], ["M3 25H23M60 3H117", "M23 25H60V3"], "1.0 to 2.0");
        check(&[(0, "1.0"), (57, "2.0")], &[(20, 77)], ["M3 25H23M80 3H117", "M23 25H60V3H80"], "1.0 to 2.0");
        check(&[(0, "1.0"), (57, "2.0")], &[(0, 57), (57, 114)], ["", "M3 25H60V3H117"], "1.0 to 2.0");
        let silences = [(50, 60), (100, 114)];
        check(&[(10, "1.0")], &silences, ["M13 14H53M63 14H103", "M53 14H63M103 14H117"], "no move");
        check(&[(114, "1.0")], &[], ["", ""], "no move");
        assert!(drawn(&[], &[]).contains("no data"));
    }
}
