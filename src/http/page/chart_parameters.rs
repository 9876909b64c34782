//! The address of a chart: what of a pair is shown, and how.
//!
//! **Invariant**: every view has one address, which makes it again; what an address says is checked before anything is
//! read.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::analysis::{Buckets, Zone};
use crate::domain::{Interval, Pair, SeriesKey, Source, Span, SpanUnit, Timestamp};
use crate::query::QueryError;
use crate::sources::Preferences;

/// Candles of one chart; more would touch each other.
pub(super) const CANDLES_MAX: u64 = 400;
/// Fewer show nothing that steps would not; two are there wherever a range meets the turn of a month.
const CANDLES_MIN: u64 = 3;

/// What may follow the path.
#[derive(Default, Deserialize)]
pub(super) struct Fields {
    source: Option<String>,
    range: Option<String>,
    invert: Option<String>,
    candles: Option<String>,
}

/// How far back a chart goes, and which candles suit that.
pub(super) struct ChartRange {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    pub(super) window: Option<Span>,
    pub(super) candles: Interval,
}

pub(super) const SPANS: [ChartRange; 5] = [
    ChartRange { name: "1d", text: "1 day", window: Some(Span::new(1, SpanUnit::Day)), candles: Interval::Hour },
    ChartRange { name: "7d", text: "7 days", window: Some(Span::new(7, SpanUnit::Day)), candles: Interval::FourHours },
    ChartRange { name: "30d", text: "30 days", window: Some(Span::new(30, SpanUnit::Day)), candles: Interval::Day },
    ChartRange { name: "1y", text: "1 year", window: Some(Span::new(1, SpanUnit::Year)), candles: Interval::Week },
    ChartRange { name: "all", text: "All", window: None, candles: Interval::Month },
];
/// The span of an address that names none.
const SPAN_DEFAULT: usize = 2;

/// How long each candle is.
pub(super) struct Length {
    pub(super) text: &'static str,
    interval: Interval,
}

const LENGTHS: [Length; 6] = [
    Length { text: "15 minutes", interval: Interval::FifteenMinutes },
    Length { text: "1 hour", interval: Interval::Hour },
    Length { text: "4 hours", interval: Interval::FourHours },
    Length { text: "1 day", interval: Interval::Day },
    Length { text: "1 week", interval: Interval::Week },
    Length { text: "1 month", interval: Interval::Month },
];

impl Length {
    /// In the address.
    pub(super) const fn name(&self) -> &'static str {
        self.interval.name()
    }

    /// The candles of this length.
    pub(super) fn buckets(&self) -> Buckets {
        Buckets { zone: Zone::UTC, interval: self.interval }
    }

    /// How many of them there are from `start` to `end`, each counted in which a part of that lies.
    fn count(&self, start: Timestamp, end: Timestamp) -> u64 {
        let buckets = self.buckets();
        buckets.count_between(buckets.at(start).start, end)
    }

    /// Whether there are no more of them than can be told apart.
    pub(super) fn is_legible(&self, start: Timestamp, end: Timestamp) -> bool {
        self.count(start, end) <= CANDLES_MAX
    }

    /// Those that suit a range, and this one: of each other length there would be too many, or too few.
    pub(super) fn suiting(&self, start: Timestamp, end: Timestamp) -> impl Iterator<Item = &'static Self> {
        let suits = move |length: &Self| length.is_legible(start, end) && length.count(start, end) >= CANDLES_MIN;
        LENGTHS.iter().filter(move |length| length.interval == self.interval || suits(length))
    }
}

/// A view that was asked for, checked.
pub(super) struct View {
    /// As in the address.
    pub(super) pair: Pair,
    pub(super) invert: bool,
    pub(super) source: Source,
    pub(super) span: &'static ChartRange,
    pub(super) candles: Option<&'static Length>,
    /// Sources that have the pair, this one included.
    pub(super) sources: Vec<Source>,
}

impl View {
    /// The pair as it is shown.
    pub(super) fn shown(&self) -> Pair {
        if self.invert { self.pair.inverse() } else { self.pair }
    }

    /// The address of this view, changed as told.
    pub(super) fn link(&self, source: &Source, span: &str, invert: bool, candles: Option<&str>) -> String {
        let mut link = format!("/pair/{}/{}?source={source}&range={span}", self.pair.base(), self.pair.quote());
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

fn bad(field: &str, text: &str, remedy: &str) -> QueryError {
    let shown: String = text.chars().take(32).flat_map(char::escape_debug).collect();
    QueryError::invalid(field, format!("'{shown}' is none of {remedy}"))
}

/// One of `known` by its name, which `text` must be.
fn choose<'a, T>(field: &str, text: &str, known: &'a [T], name: fn(&T) -> &str) -> Result<&'a T, QueryError> {
    let names = || known.iter().map(name).collect::<Vec<_>>().join(", ");
    known.iter().find(|item| name(item) == text).ok_or_else(|| bad(field, text, &names()))
}

/// The view of `fields`; where none is named, of the source that a rate is of: one that publishes the pair itself goes
/// before those that publish its inverse, and of either the preferred one, else the first.
pub(super) fn view(
    pair: Pair,
    fields: &Fields,
    keys: impl Iterator<Item = SeriesKey>,
    preferences: &Preferences,
) -> Result<View, QueryError> {
    let concerned = keys.filter(|key| key.pair == pair || key.pair == pair.inverse());
    let (direct, inverse): (Vec<SeriesKey>, Vec<SeriesKey>) = concerned.partition(|key| key.pair == pair);
    let first_kind = if direct.is_empty() { &inverse } else { &direct };
    let chosen = preferences.choose(first_kind, |key| &key.source).or(first_kind.first());
    let chosen = chosen.map(|key| key.source.clone());
    let mut sources: Vec<Source> = direct.into_iter().chain(inverse).map(|key| key.source).collect();
    let mut seen = BTreeSet::new();
    sources.retain(|source| seen.insert(source.clone()));
    let wanted = match fields.source.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => Some(Source::parse(text).map_err(|problem| QueryError::invalid("source", problem.to_string()))?),
        None => chosen,
    };
    let span = match fields.range.as_deref() {
        Some(text) => choose("range", text, &SPANS, |span| span.name)?,
        None => &SPANS[SPAN_DEFAULT],
    };
    let invert = match fields.invert.as_deref() {
        None | Some("0" | "false") => false,
        Some("1" | "true") => true,
        Some(text) => return Err(bad("invert", text, "1, 0")),
    };
    let candles = match fields.candles.as_deref() {
        None => None,
        Some(text) => Some(choose("candles", text, &LENGTHS, |length| length.name())?),
    };
    let Some(source) = wanted.filter(|source| sources.contains(source)) else {
        let wanted_source = fields.source.as_deref().and_then(|text| Source::parse(text).ok());
        let there_are = "the latest rates list what there is".to_owned();
        return Err(QueryError::UnknownSeries { pair, wanted_source, missing_legs: Vec::new(), there_are });
    };
    Ok(View { pair, invert, source, span, candles, sources })
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
    fn an_address_is_checked_and_made_again() {
        let there = [key("KGS/USD", "timesca"), key("KZT/USD", "nbk"), key("USD/KGS", "nbkr")];
        let check = |pair: &str, fields: [Option<&str>; 4], expect: &str| {
            let [source, range, invert, candles] = fields.map(|field| field.map(str::to_owned));
            let fields = Fields { source, range, invert, candles };
            let link = view(key(pair, "x").pair, &fields, there.iter().cloned(), &Preferences::default()).map_or_else(
                |error| error.to_string(),
                |view| view.link(&view.source, view.span.name, view.invert, view.candles.map(Length::name)),
            );
            assert!(link.contains(expect), "{link}");
        };
        check("KGS/USD", [None; 4], "/pair/KGS/USD?source=timesca&range=30d");
        // Published the other way round by another source.
        check("KGS/USD", [Some("nbkr"), None, None, None], "/pair/KGS/USD?source=nbkr&range=30d");
        let all = [Some("timesca"), Some("all"), Some("1"), Some("1mo")];
        check("KGS/USD", all, "/pair/KGS/USD?source=timesca&range=all&invert=1&candles=1mo");
        check("KGS/USD", [None, Some("2d"), None, None], "range: '2d' is none of 1d, 7d, 30d, 1y, all");
        check("KGS/USD", [None, None, Some("yes"), None], "invert: 'yes' is none of 1, 0");
        check("KGS/USD", [None, None, None, Some("1s")], "candles: '1s' is none of 15m, 1h, 4h, 1d, 1w, 1mo");
        check("KGS/USD", [Some("A"), None, None, None], "source: source 'A' is not a slug");
        check("KGS/USD", [Some("nbk"), None, None, None], "there is no series of KGS/USD from nbk");
        check("TMT/USD", [None; 4], "there is no series of TMT/USD");
        // The dollar has both, and neither of them is a cross.
        check("KGS/KZT", [None; 4], "there is no series of KGS/KZT");
    }

    #[test]
    fn where_none_is_named_it_is_the_source_of_the_rate() {
        let there = [("KGS/USD", "a"), ("KGS/USD", "b"), ("USD/KGS", "a"), ("USD/KGS", "c")];
        let check = |pair: &str, preferred: &[&str], expect: (&str, &[&str])| {
            let sources = preferred.iter().map(|name| Source::parse(name).unwrap());
            let preferences = Preferences::new(sources.zip(1..)).unwrap();
            let keys = there.iter().map(|(pair, source)| key(pair, source));
            let view = view(key(pair, "x").pair, &Fields::default(), keys, &preferences).unwrap();
            let sources: Vec<&str> = view.sources.iter().map(Source::as_str).collect();
            assert_eq!((view.source.as_str(), sources.as_slice()), expect, "{pair} {preferred:?}");
        };
        check("KGS/USD", &[], ("a", &["a", "b", "c"]));
        check("KGS/USD", &["b"], ("b", &["a", "b", "c"]));
        check("KGS/USD", &["c", "b"], ("b", &["a", "b", "c"]));
        check("USD/KGS", &["b"], ("a", &["a", "c", "b"]));
        check("USD/KGS", &["b", "c"], ("c", &["a", "c", "b"]));
    }

    #[test]
    fn lengths_of_candles_suit_the_range() {
        let check = |start: &str, present: &str, expect: &[&str]| {
            let [start, end] = [start, "2025-12-08T12:00:00Z"].map(|text| Timestamp::parse(text).unwrap());
            let present = choose("candles", present, &LENGTHS, |length| length.name()).unwrap();
            let names: Vec<&str> = present.suiting(start, end).map(Length::name).collect();
            assert_eq!(names, expect);
        };
        check("2025-12-07T12:00:00Z", "15m", &["15m", "1h", "4h"]);
        check("2025-12-01T12:00:00Z", "1h", &["1h", "4h", "1d"]);
        check("2025-11-08T12:00:00Z", "4h", &["4h", "1d", "1w"]);
        check("2024-12-08T12:00:00Z", "1d", &["1d", "1w", "1mo"]);
        check("2005-12-08T12:00:00Z", "1mo", &["1mo"]);
        // What is shown is never left out.
        check("2025-12-08T12:00:00Z", "1mo", &["1mo"]);
    }
}
