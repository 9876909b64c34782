//! The controls of a chart, each a link with the address of another chart, and the links to its data.

use maud::{Markup, html};

use super::chart_data::ChartData;
use super::chart_parameters::{Address, CandleLength, RANGES, Until};
use crate::domain::Timestamp;
use crate::query::Derivation;

/// Returns a link of a group of choices. The current choice is marked, also for screen readers.
fn choice(link: &Address, text: &str, is_current: bool) -> Markup {
    html! { a class="choice" href=(link.link()) data-swap aria-current=[is_current.then_some("true")] { (text) } }
}

fn group(label: &str, choices: &Markup) -> Markup {
    html! { div class="group" {
        span class="name" aria-hidden="true" { (label) }
        div role="group" aria-label=(label) { (choices) }
    } }
}

/// Returns the controls of a chart.
pub(super) fn controls(data: &ChartData) -> Markup {
    let here = &data.address;
    let to = |change: &dyn Fn(&mut Address)| {
        let mut address = here.clone();
        change(&mut address);
        address
    };
    let ranges = html! {
        @for other in &RANGES {
            // Each range has its own default candle length.
            @let link = to(&|to| {
                to.range = other;
                to.candles = to.candles.map(|_| CandleLength::of(other.candles));
            });
            (choice(&link, other.text, other.name == here.range.name))
        }
    };
    let directions = html! {
        @for invert in [false, true] {
            @let shown = if invert { here.pair.inverse() } else { here.pair };
            @let text = format!("{} per {}", shown.quote(), shown.base());
            (choice(&to(&|to| to.invert = invert), &text, invert == here.invert))
        }
    };
    let length = here.candles.unwrap_or_else(|| CandleLength::of(here.range.candles));
    let kinds = html! {
        (choice(&to(&|to| to.candles = None), "Steps", here.candles.is_none()))
        (choice(&to(&|to| to.candles = Some(length)), "Candles", here.candles.is_some()))
    };
    let times = data.downsampled.range;
    let is_stale = data.rate.as_ref().is_some_and(|rate| rate.is_stale);
    html! {
        nav class="controls" aria-label="Chart" {
            (group("Range", &ranges))
            (group("Direction", &directions))
            (group("Chart type", &kinds))
            @if let Some(current) = here.candles {
                (group("Candle length", &html! {
                    @for length in current.suitable(times.start(), times.end()) {
                        (choice(&to(&|to| to.candles = Some(length)), length.text, length.name() == current.name()))
                    }
                }))
            }
            @if is_stale || here.until == Until::LastObservation {
                (group("Until", &html! {
                    @for (until, text) in [(Until::LastObservation, "Last observation"), (Until::Now, "Now")] {
                        (choice(&to(&|to| to.until = until), text, until == here.until))
                    }
                }))
            }
            @if data.choices.len() > 1 {
                (group("Source", &html! {
                    @for sources in &data.choices {
                        @let link = to(&|to| {
                            to.sources = sources.clone();
                            to.with = to.with.take().filter(|with| with != sources);
                        });
                        (choice(&link, &sources.label(), *sources == here.sources))
                    }
                }))
                (group("Compare with", &html! {
                    (choice(&to(&|to| to.with = None), "none", here.with.is_none()))
                    @for sources in data.choices.iter().filter(|sources| **sources != here.sources) {
                        (choice(&to(&|to| to.with = Some(sources.clone())), &sources.label(), here.with.as_ref() == Some(sources)))
                    }
                }))
            }
        }
    }
}

/// Returns a time with whole seconds, rounded up, as a parameter.
fn time_parameter(time: Timestamp) -> String {
    let rest_us = time.micros().rem_euclid(Timestamp::SECOND_US);
    let second = if rest_us == 0 { time } else { time.saturating_add_us(Timestamp::SECOND_US - rest_us) };
    second.to_chrono().format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Returns the link to the data of a chart as CSV, and the command that writes it as Parquet.
pub(super) fn downloads(data: &ChartData) -> Markup {
    let (downsampled, pair) = (&data.downsampled, data.pair);
    let (start, end) = (time_parameter(downsampled.range.start()), time_parameter(downsampled.range.end()));
    let times = format!("start_time={start}&end_time={end}&format=csv");
    // Derived rates have no history. A merged chart has more rates than one response.
    let published = downsampled.legs.first().filter(|_| downsampled.legs.len() == 1).map(|leg| &leg.series);
    let (link, text, shape) = match (published, data.address.candles) {
        (Some(series), None) if downsampled.is_exact => {
            let link = format!("/v1/history?pair={}&source={}&{times}", series.pair, series.source);
            let text = match downsampled.derivation {
                Derivation::Direct => "CSV of the rates".to_owned(),
                Derivation::Inverse | Derivation::Cross => format!("CSV of the published rates, {}", series.pair),
            };
            (link, text, String::new())
        }
        (_, length) => {
            let length = length.unwrap_or_else(|| CandleLength::of(data.address.range.candles));
            let name = if published.is_some() { "source" } else { "leg_sources" };
            let sources: Vec<&str> = downsampled.legs.iter().map(|leg| leg.series.source.as_str()).collect();
            let sources = format!("{name}={}", sources.join(","));
            let link = format!("/v1/candles?pair={pair}&{sources}&interval={}&{times}", length.name());
            let shape = format!(" --shape candles --interval {}", length.name());
            (link, format!("CSV of candles of {}", length.text), shape)
        }
    };
    let legs = downsampled.legs.iter().map(|leg| format!("--pair {} --source {}", leg.series.pair, leg.series.source));
    let legs = legs.collect::<Vec<_>>().join(" ");
    let command = format!("silkrate export rates.parquet {legs}{shape} --from {start} --to {end}");
    html! {
        p class="downloads" {
            a href=(link) { (text) }
            ". As Parquet"
            @if downsampled.derivation != Derivation::Direct { ", the published rates" }
            // A flag is not broken at its hyphens.
            ": " code { @for word in command.split(' ') { span { (word) } " " } }
        }
    }
}
