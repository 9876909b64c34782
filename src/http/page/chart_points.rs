//! The rates of a chart as text, for the readout under the pointer. The script shows these digits and makes none.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::chart_data::ChartData;
use super::labels::{FormattedRate, candle_digits, millis};
use crate::query::{CandleRow, Derivation, DownsampledSeries, Silence};

/// Returns the rates of each line in hidden elements. A point is a time in milliseconds and its numbers, separated by
/// spaces: the rate and its bounds, and the lowest and the highest rate of merged steps; or open, high, low and close of
/// a candle.
pub(super) fn points(data: &ChartData) -> Markup {
    let (pair, downsampled) = (data.pair, &data.downsampled);
    let name = |series: &DownsampledSeries| {
        let names: Vec<&str> = series.legs.iter().map(|leg| leg.series.source.as_str()).collect();
        names.join(" and ")
    };
    let main = match &data.candles {
        Some(candles) => candle_points(candles, downsampled.derivation),
        None => step_points(downsampled),
    };
    let kind = if data.candles.is_some() { "candles" } else { "steps" };
    html! {
        div class="points" hidden data-unit=(format!("{} per {}", pair.quote(), pair.base())) {
            div data-name=(name(downsampled)) data-kind=(kind) data-points=(main)
                data-silences=(silence_text(&downsampled.silences)) {}
            @if let Some((_, other)) = &data.other {
                div data-name=(name(other)) data-kind="steps" data-points=(step_points(other))
                    data-silences=(silence_text(&other.silences)) {}
            }
        }
    }
}

fn step_points(downsampled: &DownsampledSeries) -> String {
    let mut text = String::new();
    for step in &downsampled.steps {
        let rate = FormattedRate::of(&step.last);
        let separator = if text.is_empty() { "" } else { ";" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{} {} {} {}", millis(step.from), rate.value, rate.low, rate.high);
        if step.lowest != step.highest {
            let [lowest, highest] = [&step.lowest, &step.highest].map(|rate| FormattedRate::of(rate).value);
            let _ = write!(text, " {lowest} {highest}");
        }
    }
    text
}

fn candle_points(candles: &[CandleRow], derivation: Derivation) -> String {
    let point = |CandleRow { candle, complete, .. }: &CandleRow| {
        let rates = [candle.open, candle.high, candle.low, candle.close];
        let [open, high, low, close] = rates.map(|point| candle_digits(point.rate, derivation));
        let mark = if *complete { "" } else { " +" };
        format!("{} {open} {high} {low} {close}{mark}", millis(candle.bucket.start))
    };
    candles.iter().map(point).collect::<Vec<_>>().join(";")
}

fn silence_text(silences: &[Silence]) -> String {
    let silence = |silence: &Silence| format!("{} {}", millis(silence.from), millis(silence.until));
    silences.iter().map(silence).collect::<Vec<_>>().join(";")
}
