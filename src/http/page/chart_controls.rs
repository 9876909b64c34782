//! The controls of a chart, each a link with the address of another chart.

use maud::{Markup, html};

use super::chart_data::ChartData;
use super::chart_parameters::{Address, CandleLength, RANGES, Until};

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
