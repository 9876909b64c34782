//! The data of a chart as a table, for people who cannot see the chart or want its numbers.
//!
//! **Invariant**: the table has the same data as the chart above it: candles if the chart has candles, else steps.

use maud::{Markup, html};

use super::labels::{FormattedRate, candle_digits, duration, time_element};
use crate::query::{CandleRow, Derivation, DownsampledSeries, PairRate};

/// Maximum number of rows of a table. The newest rows are shown.
const ROWS_MAX: usize = 100;

/// Returns the table of a chart's data and the table of its silences.
pub(super) fn data_table(downsampled: &DownsampledSeries, candles: Option<&[CandleRow]>) -> Markup {
    html! {
        details id="numbers" {
            summary { "Data as a table" }
            div class="scroll" {
                @match candles {
                    Some(candles) => { (candle_table(candles, downsampled.derivation)) },
                    None => { (step_table(downsampled)) },
                }
                (silence_table(downsampled))
            }
        }
    }
}

/// Returns a sentence for the caption if not all of `count` rows are shown.
fn newest_of(count: usize) -> Markup {
    html! { @if count > ROWS_MAX { " Only the newest " (ROWS_MAX) " of " (count) " rows are shown." } }
}

fn candle_table(candles: &[CandleRow], derivation: Derivation) -> Markup {
    html! {
        table class="plain" {
            caption { "All candles, newest first. Candles without a rate are left out." (newest_of(candles.len())) }
            thead { tr {
                @for heading in ["From (UTC)", "Open", "High", "Low", "Close"] { th scope="col" { (heading) } }
            } }
            tbody {
                @for CandleRow { candle, complete, .. } in candles.iter().rev().take(ROWS_MAX) {
                    tr {
                        th scope="row" { (time_element(candle.bucket.start)) @if !complete { " so far" } }
                        @for point in [candle.open, candle.high, candle.low, candle.close] {
                            td { (candle_digits(point.rate, derivation)) }
                        }
                    }
                }
            }
        }
    }
}

fn step_table(downsampled: &DownsampledSeries) -> Markup {
    let value = |rate: &PairRate| FormattedRate::of(rate).value;
    html! {
        table class="plain" {
            caption {
                @if downsampled.is_exact { "All rates of the range, newest first." }
                @else { "Rates aggregated by time interval, newest first." }
                (newest_of(downsampled.steps.len()))
            }
            thead { tr {
                th scope="col" { "From (UTC)" }
                @if !downsampled.is_exact { th scope="col" { "Lowest" } th scope="col" { "Highest" } }
                th scope="col" { @if downsampled.is_exact { "Rate" } @else { "Last" } }
                th scope="col" { "Lower bound" }
                th scope="col" { "Upper bound" }
            } }
            tbody {
                @for step in downsampled.steps.iter().rev().take(ROWS_MAX) {
                    @let rate = FormattedRate::of(&step.last);
                    tr {
                        th scope="row" { (time_element(step.from)) }
                        @if !downsampled.is_exact {
                            td { (value(&step.lowest)) } td { (value(&step.highest)) }
                        }
                        td { (rate.value) } td { (rate.low) } td { (rate.high) }
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
                caption {
                    "Silences: " (silence_text(&downsampled.stale_limits_us)) ", newest first."
                }
                thead { tr { th scope="col" { "From (UTC)" } th scope="col" { "Until" } } }
                tbody {
                    @for silence in downsampled.silences.iter().rev().take(ROWS_MAX) {
                        tr { th scope="row" { (time_element(silence.from)) } td { (time_element(silence.until)) } }
                    }
                }
            }
        }
    }
}

/// Returns what a silence is. The legs of a cross may have different limits.
pub(super) fn silence_text(stale_limits_us: &[i64]) -> String {
    match stale_limits_us {
        [one, other] if one != other => {
            format!("a leg had no observation for over {} or {}", duration(*one), duration(*other))
        }
        [one, _] => format!("a leg had no observation for over {}", duration(*one)),
        single => {
            let limit = single.first().map_or(String::new(), |limit| duration(*limit));
            format!("no observation for over {limit}")
        }
    }
}
