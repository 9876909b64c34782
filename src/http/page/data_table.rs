//! What a chart shows, as a table for those who read rather than see.
//!
//! **Invariant**: the table is of the same reading as the picture above it, candles where that has candles.

use maud::{Markup, html};

use super::labels::{FormattedRate, candle_digits, length, moment};
use crate::query::{CandleRow, DownsampledSeries, Step};

/// Rows of a table beneath a chart, newest first.
const ROWS_MAX: usize = 100;

/// The same as the chart, as a table, and the silences.
pub(super) fn numbers(downsampled: &DownsampledSeries, candles: Option<&[CandleRow]>) -> Markup {
    html! {
        details id="numbers" {
            summary { "The same as a table" }
            div class="scroll" {
                @match candles {
                    Some(candles) => { (candle_table(candles, downsampled.inverted)) },
                    None => { (step_table(downsampled)) },
                }
                (silence_table(downsampled))
            }
        }
    }
}

/// What a caption adds if not all of `count` rows are shown.
fn newest_of(count: usize) -> Markup {
    html! { @if count > ROWS_MAX { " These are the newest " (ROWS_MAX) " of " (count) "." } }
}

fn candle_table(candles: &[CandleRow], inverted: bool) -> Markup {
    html! {
        table class="plain" {
            caption { "Every candle, newest first; one without a rate is left out." (newest_of(candles.len())) }
            thead { tr {
                @for heading in ["From (UTC)", "Open", "High", "Low", "Close"] { th scope="col" { (heading) } }
            } }
            tbody {
                @for CandleRow { candle, complete, .. } in candles.iter().rev().take(ROWS_MAX) {
                    tr {
                        th scope="row" { (moment(candle.bucket.start)) @if !complete { " so far" } }
                        @for point in [candle.open, candle.high, candle.low, candle.close] {
                            td { (candle_digits(point.rate, inverted)) }
                        }
                    }
                }
            }
        }
    }
}

fn step_table(downsampled: &DownsampledSeries) -> Markup {
    let range = |step: &Step| {
        let (low, high) = if downsampled.inverted { (step.highest, step.lowest) } else { (step.lowest, step.highest) };
        (FormattedRate::new(low, downsampled.inverted).value, FormattedRate::new(high, downsampled.inverted).value)
    };
    html! {
        table class="plain" {
            caption {
                @if downsampled.is_exact { "Every rate of the range, newest first." }
                @else { "Rates put together by stretches of time, newest first." }
                (newest_of(downsampled.steps.len()))
            }
            thead { tr {
                th scope="col" { "From (UTC)" }
                @if !downsampled.is_exact { th scope="col" { "Lowest" } th scope="col" { "Highest" } }
                th scope="col" { @if downsampled.is_exact { "Rate" } @else { "Last" } }
                th scope="col" { "At least" }
                th scope="col" { "At most" }
            } }
            tbody {
                @for step in downsampled.steps.iter().rev().take(ROWS_MAX) {
                    @let shown = FormattedRate::new(step.last, downsampled.inverted);
                    tr {
                        th scope="row" { (moment(step.from)) }
                        @if !downsampled.is_exact {
                            @let (low, high) = range(step);
                            td { (low) } td { (high) }
                        }
                        td { (shown.value) } td { (shown.low) } td { (shown.high) }
                    }
                }
            }
        }
    }
}

fn silence_table(downsampled: &DownsampledSeries) -> Markup {
    html! {
        @if !downsampled.silences.is_empty() {
            table class="plain" {
                caption { "Silences: nothing observed for over " (length(downsampled.stale_limit_us)) ", newest first." }
                thead { tr { th scope="col" { "From (UTC)" } th scope="col" { "Until" } } }
                tbody {
                    @for silence in downsampled.silences.iter().rev().take(ROWS_MAX) {
                        tr { th scope="row" { (moment(silence.from)) } td { (moment(silence.until)) } }
                    }
                }
            }
        }
    }
}
