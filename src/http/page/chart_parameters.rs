//! Chart parameters: the pair, sources, range, direction and candles of a chart, parsed from its address.
//!
//! **Invariant**: every chart has one address that produces the same chart again. Parameters are validated before
//! anything is read from the store.

use serde::Deserialize;

use crate::analysis::{Buckets, Zone};
use crate::domain::{Interval, Pair, Source, Span, SpanUnit, Timestamp};
use crate::query::QueryError;

/// Maximum number of candles of a chart. More candles would touch each other.
pub(super) const CANDLES_MAX: u64 = 400;
/// Minimum number of candles for a suggested candle length. Fewer candles show no more than steps do.
const CANDLES_MIN: u64 = 3;

/// The query parameters of a chart's address.
#[derive(Default, Deserialize)]
pub(super) struct QueryFields {
    source: Option<String>,
    with: Option<String>,
    range: Option<String>,
    until: Option<String>,
    invert: Option<String>,
    candles: Option<String>,
}

/// The sources of the legs of a rate: one source for all legs, or two sources for the legs of a cross.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Sources(Vec<Source>);

impl Sources {
    /// Creates the sources of the legs of a rate that was read.
    pub(super) fn of_legs<'a>(legs: impl Iterator<Item = &'a Source>) -> Self {
        Self(legs.cloned().collect())
    }

    /// Parses a source, or two sources separated by a comma.
    fn parse(field: &str, text: &str) -> Result<Self, QueryError> {
        let source =
            |name: &str| Source::parse(name).map_err(|problem| QueryError::invalid(field, problem.to_string()));
        let sources: Vec<Source> = text.split(',').map(source).collect::<Result<_, _>>()?;
        if sources.len() > 2 {
            let problem = format!("{} sources are given; a cross has two legs", sources.len());
            return Err(QueryError::invalid(field, problem));
        }
        Ok(Self(sources))
    }

    pub(super) fn as_slice(&self) -> &[Source] {
        &self.0
    }

    /// Returns the text in an address.
    pub(super) fn text(&self) -> String {
        self.0.iter().map(Source::as_str).collect::<Vec<_>>().join(",")
    }

    /// Returns the text on the page.
    pub(super) fn label(&self) -> String {
        match self.0.as_slice() {
            [first, second] if first == second => format!("{first}, through USD"),
            [first, second] => format!("{first} and {second}, through USD"),
            single => single.iter().map(Source::as_str).collect(),
        }
    }
}

/// The end of the range of a chart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Until {
    /// The current time.
    Now,
    /// Shortly after the last observation.
    LastObservation,
}

impl Until {
    /// Returns the name in the address.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::LastObservation => "last",
        }
    }
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
/// The default range.
pub(super) const RANGE_DEFAULT: &ChartRange = &RANGES[2];
/// The range of the whole history.
pub(super) const RANGE_ALL: &ChartRange = &RANGES[4];

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

    /// Returns the choice of an interval. The default lengths of all ranges are choices.
    pub(super) fn of(interval: Interval) -> &'static Self {
        CANDLE_LENGTHS.iter().find(|length| length.interval == interval).unwrap_or(&CANDLE_LENGTHS[0])
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
    /// The sources; none means that the rule of choice picks them.
    pub(super) sources: Option<Sources>,
    /// The sources of a second line.
    pub(super) with: Option<Sources>,
    /// The range; none means a range that suits the data.
    pub(super) range: Option<&'static ChartRange>,
    /// The end of the range; none means now, or the last observation of a stale rate if there is no range either.
    pub(super) until: Option<Until>,
    /// The candle length; none means that the chart shows steps.
    pub(super) candles: Option<&'static CandleLength>,
}

impl ChartParameters {
    /// Returns the pair in the direction that the chart shows.
    pub(super) fn displayed_pair(&self) -> Pair {
        if self.invert { self.pair.inverse() } else { self.pair }
    }
}

/// The parameters of a chart that was read, which give the same chart again.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) pair: Pair,
    pub(super) sources: Sources,
    pub(super) with: Option<Sources>,
    pub(super) range: &'static ChartRange,
    pub(super) until: Until,
    pub(super) invert: bool,
    pub(super) candles: Option<&'static CandleLength>,
}

impl Address {
    /// Returns the address as a link.
    pub(super) fn link(&self) -> String {
        let (base, quote) = (self.pair.base(), self.pair.quote());
        // The sources of a cross follow the direction of the address.
        let mut link = format!("/pair/{base}/{quote}?source={}", self.sources.text());
        if let Some(with) = &self.with {
            link.push_str("&with=");
            link.push_str(&with.text());
        }
        link.push_str("&range=");
        link.push_str(self.range.name);
        if self.until != Until::Now {
            link.push_str("&until=");
            link.push_str(self.until.name());
        }
        if self.invert {
            link.push_str("&invert=1");
        }
        if let Some(candles) = self.candles {
            link.push_str("&candles=");
            link.push_str(candles.name());
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

/// Validates the parameters of an address.
///
/// # Errors
/// Returns `QueryError::InvalidArgument` if a parameter is invalid.
pub(super) fn chart_parameters(pair: Pair, fields: &QueryFields) -> Result<ChartParameters, QueryError> {
    let sources = |name: &str, text: Option<&str>| {
        text.filter(|text| !text.is_empty()).map(|text| Sources::parse(name, text)).transpose()
    };
    let range = match fields.range.as_deref() {
        Some(text) => Some(choose("range", text, &RANGES, |range| range.name)?),
        None => None,
    };
    let until = match fields.until.as_deref() {
        None => None,
        Some(text) => Some(*choose("until", text, &[Until::Now, Until::LastObservation], |until| until.name())?),
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
    Ok(ChartParameters {
        pair,
        invert,
        sources: sources("source", fields.source.as_deref())?,
        with: sources("with", fields.with.as_deref())?,
        range,
        until,
        candles,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::CurrencySet;

    #[test]
    fn address_is_validated_and_reproduced() {
        let check = |fields: [Option<&str>; 6], expect: &str| {
            let [source, with, range, until, invert, candles] = fields.map(|field| field.map(str::to_owned));
            let fields = QueryFields { source, with, range, until, invert, candles };
            let pair = Pair::parse("KGS/KZT", &CurrencySet::central_asia()).unwrap();
            let link = chart_parameters(pair, &fields).map_or_else(
                |error| error.to_string(),
                |chart| {
                    let address = Address {
                        pair,
                        sources: chart.sources.unwrap_or(Sources(Vec::new())),
                        with: chart.with,
                        range: chart.range.unwrap_or(RANGE_DEFAULT),
                        until: chart.until.unwrap_or(Until::Now),
                        invert: chart.invert,
                        candles: chart.candles,
                    };
                    address.link()
                },
            );
            assert!(link.contains(expect), "{link}");
        };
        check([None; 6], "/pair/KGS/KZT?source=&range=30d");
        check([Some("nbkr"), None, None, None, None, None], "/pair/KGS/KZT?source=nbkr&range=30d");
        check(
            [Some("timesca,nbk"), Some("nbkr"), Some("all"), Some("last"), Some("1"), Some("1mo")],
            "/pair/KGS/KZT?source=timesca,nbk&with=nbkr&range=all&until=last&invert=1&candles=1mo",
        );
        check([None, None, Some("2d"), None, None, None], "range: '2d' is not one of 1d, 7d, 30d, 1y, all");
        check([None, None, None, Some("ever"), None, None], "until: 'ever' is not one of now, last");
        check([None, None, None, None, Some("yes"), None], "invert: 'yes' is not one of 1, 0");
        check([None, None, None, None, None, Some("1s")], "candles: '1s' is not one of 15m, 1h, 4h, 1d, 1w, 1mo");
        check([Some("A"), None, None, None, None, None], "source: source 'A' is not a slug");
        check([None, Some("a,B"), None, None, None, None], "with: source 'B' is not a slug");
        check([Some("a,b,c"), None, None, None, None, None], "source: 3 sources are given; a cross has two legs");
    }

    #[test]
    fn sources_are_named_on_the_page() {
        let check = |text: &str, expect: &str| assert_eq!(Sources::parse("source", text).unwrap().label(), expect);
        check("nbkr", "nbkr");
        check("timesca,nbk", "timesca and nbk, through USD");
        check("timesca,timesca", "timesca, through USD");
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
