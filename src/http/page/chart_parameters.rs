//! Chart parameters: the pair, source, range, direction and candles of a chart, parsed from its address.
//!
//! **Invariant**: every chart has one address that produces the same chart again. Parameters are validated before
//! anything is read from the store.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::analysis::{Buckets, Zone};
use crate::domain::{Interval, Pair, SeriesKey, Source, Span, SpanUnit, Timestamp};
use crate::query::QueryError;
use crate::sources::Preferences;

/// Maximum number of candles of a chart. More candles would touch each other.
pub(super) const CANDLES_MAX: u64 = 400;
/// Minimum number of candles for a suggested candle length. Fewer candles show no more than steps do.
const CANDLES_MIN: u64 = 3;

/// The query parameters of a chart's address.
#[derive(Default, Deserialize)]
pub(super) struct QueryFields {
    source: Option<String>,
    range: Option<String>,
    invert: Option<String>,
    candles: Option<String>,
}

/// A choice of the range of a chart.
pub(super) struct ChartRange {
    /// The name in the address.
    pub(super) name: &'static str,
    /// The text on the page.
    pub(super) text: &'static str,
    /// The length of the range up to now; none means the whole history.
    pub(super) window: Option<Span>,
    /// The default candle length for this range.
    pub(super) candles: Interval,
}

/// All ranges, in display order.
pub(super) const RANGES: [ChartRange; 5] = [
    ChartRange { name: "1d", text: "1 day", window: Some(Span::new(1, SpanUnit::Day)), candles: Interval::Hour },
    ChartRange { name: "7d", text: "7 days", window: Some(Span::new(7, SpanUnit::Day)), candles: Interval::FourHours },
    ChartRange { name: "30d", text: "30 days", window: Some(Span::new(30, SpanUnit::Day)), candles: Interval::Day },
    ChartRange { name: "1y", text: "1 year", window: Some(Span::new(1, SpanUnit::Year)), candles: Interval::Week },
    ChartRange { name: "all", text: "All", window: None, candles: Interval::Month },
];
/// Index of the default range.
const RANGE_DEFAULT: usize = 2;

/// A choice of the candle length.
pub(super) struct CandleLength {
    /// The text on the page.
    pub(super) text: &'static str,
    interval: Interval,
}

/// All candle lengths, in display order.
const CANDLE_LENGTHS: [CandleLength; 6] = [
    CandleLength { text: "15 minutes", interval: Interval::FifteenMinutes },
    CandleLength { text: "1 hour", interval: Interval::Hour },
    CandleLength { text: "4 hours", interval: Interval::FourHours },
    CandleLength { text: "1 day", interval: Interval::Day },
    CandleLength { text: "1 week", interval: Interval::Week },
    CandleLength { text: "1 month", interval: Interval::Month },
];

impl CandleLength {
    /// Returns the name in the address.
    pub(super) const fn name(&self) -> &'static str {
        self.interval.name()
    }

    /// Returns the buckets of candles of this length, in UTC.
    pub(super) fn buckets(&self) -> Buckets {
        Buckets { zone: Zone::UTC, interval: self.interval }
    }

    /// Returns the number of candles that overlap the range from `start` to `end`.
    fn count(&self, start: Timestamp, end: Timestamp) -> u64 {
        let buckets = self.buckets();
        buckets.count_between(buckets.at(start).start, end)
    }

    /// Returns true if the range has at most [`CANDLES_MAX`] candles, so that they do not touch each other.
    pub(super) fn is_legible(&self, start: Timestamp, end: Timestamp) -> bool {
        self.count(start, end) <= CANDLES_MAX
    }

    /// Returns this length and the other lengths that give a suitable number of candles for the range.
    pub(super) fn suitable(&self, start: Timestamp, end: Timestamp) -> impl Iterator<Item = &'static Self> {
        let is_suitable = move |length: &Self| length.is_legible(start, end) && length.count(start, end) >= CANDLES_MIN;
        CANDLE_LENGTHS.iter().filter(move |length| length.interval == self.interval || is_suitable(length))
    }
}

/// The validated parameters of a chart.
pub(super) struct ChartParameters {
    /// The pair in the address.
    pub(super) pair: Pair,
    /// Whether the chart shows the inverse of the pair.
    pub(super) invert: bool,
    pub(super) source: Source,
    pub(super) range: &'static ChartRange,
    /// The candle length; none means that the chart shows steps.
    pub(super) candles: Option<&'static CandleLength>,
    /// All sources that have the pair or its inverse.
    pub(super) sources: Vec<Source>,
}

impl ChartParameters {
    /// Returns the pair in the direction that the chart shows.
    pub(super) fn displayed_pair(&self) -> Pair {
        if self.invert { self.pair.inverse() } else { self.pair }
    }

    /// Returns the address of a chart of the same pair with other parameters.
    pub(super) fn link(&self, source: &Source, range: &str, invert: bool, candles: Option<&str>) -> String {
        let mut link = format!("/pair/{}/{}?source={source}&range={range}", self.pair.base(), self.pair.quote());
        if invert {
            link.push_str("&invert=1");
        }
        if let Some(candles) = candles {
            link.push_str("&candles=");
            link.push_str(candles);
        }
        link
    }
}

fn invalid_choice(field: &str, text: &str, choices: &str) -> QueryError {
    let escaped: String = text.chars().take(32).flat_map(char::escape_debug).collect();
    QueryError::invalid(field, format!("'{escaped}' is not one of {choices}"))
}

/// Returns the choice with the name `text`.
fn choose<'a, T>(field: &str, text: &str, choices: &'a [T], name: fn(&T) -> &str) -> Result<&'a T, QueryError> {
    let names = || choices.iter().map(name).collect::<Vec<_>>().join(", ");
    choices.iter().find(|choice| name(choice) == text).ok_or_else(|| invalid_choice(field, text, &names()))
}

/// Validates the parameters of an address. `keys` are the keys of all series.
///
/// If the address has no source, the function chooses one. The candidates are the sources that publish the pair or, if
/// there are none, the sources that publish its inverse, as for a rate request. The preferred candidate is chosen or,
/// without a preference, the first candidate.
///
/// # Errors
/// Returns `QueryError::InvalidArgument` if a parameter is invalid; `UnknownSeries` if the source does not have the
/// pair.
pub(super) fn chart_parameters(
    pair: Pair,
    fields: &QueryFields,
    keys: impl Iterator<Item = SeriesKey>,
    preferences: &Preferences,
) -> Result<ChartParameters, QueryError> {
    let matching = keys.filter(|key| key.pair == pair || key.pair == pair.inverse());
    let (direct, inverse): (Vec<SeriesKey>, Vec<SeriesKey>) = matching.partition(|key| key.pair == pair);
    let candidates = if direct.is_empty() { &inverse } else { &direct };
    let default = preferences.choose(candidates, |key| &key.source).or(candidates.first());
    let default = default.map(|key| key.source.clone());
    let mut sources: Vec<Source> = direct.into_iter().chain(inverse).map(|key| key.source).collect();
    let mut seen = BTreeSet::new();
    sources.retain(|source| seen.insert(source.clone()));
    let wanted = match fields.source.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => Some(Source::parse(text).map_err(|problem| QueryError::invalid("source", problem.to_string()))?),
        None => default,
    };
    let range = match fields.range.as_deref() {
        Some(text) => choose("range", text, &RANGES, |range| range.name)?,
        None => &RANGES[RANGE_DEFAULT],
    };
    let invert = match fields.invert.as_deref() {
        None | Some("0" | "false") => false,
        Some("1" | "true") => true,
        Some(text) => return Err(invalid_choice("invert", text, "1, 0")),
    };
    let candles = match fields.candles.as_deref() {
        None => None,
        Some(text) => Some(choose("candles", text, &CANDLE_LENGTHS, |length| length.name())?),
    };
    let Some(source) = wanted.filter(|source| sources.contains(source)) else {
        let wanted_source = fields.source.as_deref().and_then(|text| Source::parse(text).ok());
        let available = "see the latest rates for all series".to_owned();
        return Err(QueryError::UnknownSeries { pair, wanted_source, missing_legs: Vec::new(), available });
    };
    Ok(ChartParameters { pair, invert, source, range, candles, sources })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CurrencySet;

    fn key(pair: &str, source: &str) -> SeriesKey {
        SeriesKey {
            pair: Pair::parse(pair, &CurrencySet::central_asia()).unwrap(),
            source: Source::parse(source).unwrap(),
        }
    }

    #[test]
    fn address_is_validated_and_reproduced() {
        let series = [key("KGS/USD", "timesca"), key("KZT/USD", "nbk"), key("USD/KGS", "nbkr")];
        let check = |pair: &str, fields: [Option<&str>; 4], expect: &str| {
            let [source, range, invert, candles] = fields.map(|field| field.map(str::to_owned));
            let fields = QueryFields { source, range, invert, candles };
            let parsed =
                chart_parameters(key(pair, "x").pair, &fields, series.iter().cloned(), &Preferences::default());
            let link = parsed.map_or_else(
                |error| error.to_string(),
                |chart| {
                    chart.link(&chart.source, chart.range.name, chart.invert, chart.candles.map(CandleLength::name))
                },
            );
            assert!(link.contains(expect), "{link}");
        };
        check("KGS/USD", [None; 4], "/pair/KGS/USD?source=timesca&range=30d");
        // Another source publishes the inverse of the pair.
        check("KGS/USD", [Some("nbkr"), None, None, None], "/pair/KGS/USD?source=nbkr&range=30d");
        let all = [Some("timesca"), Some("all"), Some("1"), Some("1mo")];
        check("KGS/USD", all, "/pair/KGS/USD?source=timesca&range=all&invert=1&candles=1mo");
        check("KGS/USD", [None, Some("2d"), None, None], "range: '2d' is not one of 1d, 7d, 30d, 1y, all");
        check("KGS/USD", [None, None, Some("yes"), None], "invert: 'yes' is not one of 1, 0");
        check("KGS/USD", [None, None, None, Some("1s")], "candles: '1s' is not one of 15m, 1h, 4h, 1d, 1w, 1mo");
        check("KGS/USD", [Some("A"), None, None, None], "source: source 'A' is not a slug");
        check("KGS/USD", [Some("nbk"), None, None, None], "there is no series of KGS/USD from nbk");
        check("TMT/USD", [None; 4], "there is no series of TMT/USD");
        // Charts have no cross rates, although both currencies have a rate in USD.
        check("KGS/KZT", [None; 4], "there is no series of KGS/KZT");
    }

    #[test]
    fn default_source_is_direct_then_preferred_then_first() {
        let series = [("KGS/USD", "a"), ("KGS/USD", "b"), ("USD/KGS", "a"), ("USD/KGS", "c")];
        let check = |pair: &str, preferred: &[&str], expect: (&str, &[&str])| {
            let sources = preferred.iter().map(|name| Source::parse(name).unwrap());
            let preferences = Preferences::new(sources.zip(1..)).unwrap();
            let keys = series.iter().map(|(pair, source)| key(pair, source));
            let chart = chart_parameters(key(pair, "x").pair, &QueryFields::default(), keys, &preferences).unwrap();
            let sources: Vec<&str> = chart.sources.iter().map(Source::as_str).collect();
            assert_eq!((chart.source.as_str(), sources.as_slice()), expect, "{pair} {preferred:?}");
        };
        check("KGS/USD", &[], ("a", &["a", "b", "c"]));
        check("KGS/USD", &["b"], ("b", &["a", "b", "c"]));
        check("KGS/USD", &["c", "b"], ("b", &["a", "b", "c"]));
        check("USD/KGS", &["b"], ("a", &["a", "c", "b"]));
        check("USD/KGS", &["b", "c"], ("c", &["a", "c", "b"]));
    }

    #[test]
    fn suitable_candle_lengths_depend_on_range() {
        let check = |start: &str, current: &str, expect: &[&str]| {
            let [start, end] = [start, "2025-12-08T12:00:00Z"].map(|text| Timestamp::parse(text).unwrap());
            let current = choose("candles", current, &CANDLE_LENGTHS, |length| length.name()).unwrap();
            let names: Vec<&str> = current.suitable(start, end).map(CandleLength::name).collect();
            assert_eq!(names, expect);
        };
        check("2025-12-07T12:00:00Z", "15m", &["15m", "1h", "4h"]);
        check("2025-12-01T12:00:00Z", "1h", &["1h", "4h", "1d"]);
        check("2025-11-08T12:00:00Z", "4h", &["4h", "1d", "1w"]);
        check("2024-12-08T12:00:00Z", "1d", &["1d", "1w", "1mo"]);
        check("2005-12-08T12:00:00Z", "1mo", &["1mo"]);
        // The current length is always included.
        check("2025-12-08T12:00:00Z", "1mo", &["1mo"]);
    }
}
