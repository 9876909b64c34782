//! The links to the data of a chart as CSV, and the commands that write it as Parquet.
//!
//! **Invariant**: the data covers the range of the chart, with the rate in force at its start, for each line of the chart.
//! If the data has another direction or another form than the chart, the text says so.

use maud::{Markup, html};

use super::chart_data::ChartData;
use super::chart_parameters::{CandleLength, Sources};
use crate::domain::{SeriesKey, Timestamp};
use crate::query::{Derivation, DownsampledSeries};

/// A link with its text.
struct Download {
    link: String,
    text: String,
}

/// Returns the last whole second at or before a time.
fn whole_second(time: Timestamp) -> Timestamp {
    time.saturating_add_us(-time.micros().rem_euclid(Timestamp::SECOND_US))
}

/// Returns a time with whole seconds, rounded down, as a parameter.
fn time_parameter(time: Timestamp) -> String {
    whole_second(time).to_chrono().format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Returns the end of the range of a chart as a parameter. The end of a chart is inclusive, the parameter is not.
fn end_parameter(line: &DownsampledSeries) -> String {
    time_parameter(line.range.end().saturating_add_us(Timestamp::SECOND_US))
}

/// Returns the link to a line as CSV. `candles` is the length of the candles that the chart shows instead of the line.
fn csv(data: &ChartData, line: &DownsampledSeries, candles: Option<&'static CandleLength>) -> Download {
    let end = end_parameter(line);
    let sources = Sources::of_legs(line.legs.iter().map(|leg| &leg.series.source));
    let of = if data.other.is_some() { format!(" of {}", sources.label()) } else { String::new() };
    // Derived rates have no history. A merged line has more rates than one response.
    match (line.legs.as_slice(), candles) {
        ([leg], None) if line.is_exact => {
            let (pair, source) = (leg.series.pair, &leg.series.source);
            let start = time_parameter(line.range.start());
            let link = format!(
                "/v1/history?pair={pair}&source={source}&start_time={start}&end_time={end}&include_baseline=true&format=csv"
            );
            let text = match line.derivation {
                Derivation::Direct => format!("CSV of the rates{of}"),
                Derivation::Inverse | Derivation::Cross => format!("CSV of the rates{of} as published, {pair}"),
            };
            Download { link, text }
        }
        (legs, _) => {
            let length = candles.unwrap_or_else(|| CandleLength::of(data.address.range.candles));
            let name = if legs.len() == 1 { "source" } else { "leg_sources" };
            let (sources, interval) = (sources.text(), length.name());
            // The first candle begins before the range.
            let start = time_parameter(length.buckets().at(line.range.start()).start);
            let link = format!(
                "/v1/candles?pair={}&{name}={sources}&interval={interval}&time_zone=UTC&start_time={start}&end_time={end}&format=csv",
                data.pair
            );
            Download { link, text: format!("CSV of candles of {}{of}", length.text) }
        }
    }
}

/// Returns the command that writes a published series as Parquet. Its first run began at `run_start`.
fn command(
    data: &ChartData,
    (series, run_start): &(SeriesKey, Timestamp),
    candles: Option<&'static CandleLength>,
) -> String {
    let SeriesKey { pair, source } = series;
    let file = match data.published.len() {
        1 => "rates".to_owned(),
        _ => format!("{}-{}-{source}", pair.base(), pair.quote()),
    };
    let (start, shape) = match candles {
        Some(length) => (
            length.buckets().at(data.downsampled.range.start()).start,
            format!(" --shape candles --interval {} --time-zone UTC", length.name()),
        ),
        None => (*run_start, String::new()),
    };
    let (start, end) = (time_parameter(start), end_parameter(&data.downsampled));
    format!("silkrate export {file}.parquet --pair {pair} --source {source}{shape} --from {start} --to {end}")
}

/// Returns the links to the lines of a chart as CSV, and the commands that write their published rates as Parquet.
pub(super) fn downloads(data: &ChartData) -> Markup {
    let candles = data.address.candles;
    let main = csv(data, &data.downsampled, candles);
    let other = data.other.as_ref().map(|(_, other)| csv(data, other, None));
    let lines = [Some(&data.downsampled), data.other.as_ref().map(|(_, other)| other)].into_iter().flatten();
    let derivations: Vec<Derivation> = lines.map(|line| line.derivation).collect();
    // Exported candles are candles of a published series, and only the first line is shown as candles.
    let of_main = |series: &SeriesKey| matches!(data.downsampled.legs.as_slice(), [leg] if leg.series == *series);
    html! {
        p class="downloads" {
            @for Download { link, text } in std::iter::once(&main).chain(&other) { a href=(link) { (text) } ". " }
            "As Parquet"
            @if derivations.contains(&Derivation::Cross) { ", the published rates of the legs" }
            @else if derivations.contains(&Derivation::Inverse) { ", as published" }
            ":"
            @for published in &data.published {
                @let command = command(data, published, candles.filter(|_| of_main(&published.0)));
                // A flag is not broken at its hyphens.
                " " code { @for word in command.split(' ') { span { (word) } " " } }
            }
        }
    }
}
