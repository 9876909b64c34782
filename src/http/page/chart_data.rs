//! The data of a chart and of the page around it, read from one commit.
//!
//! **Invariant**: the rule of choice is applied once. All parts of the page are read from the series that it picked.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::chart_parameters::{
    Address, CANDLES_MAX, CandleLength, ChartParameters, ChartRange, RANGE_ALL, RANGE_DEFAULT, Sources, Until,
};
use super::grouping::{Freshness, freshness};
use crate::domain::{Currency, Pair, ScanOrder, SeriesKey, Source, Span, Timestamp};
use crate::latest_quotes::LatestQuote;
use crate::query::{
    BucketsRequest, CandleRow, CandlesRequest, ChangeRequest, ChangeStart, DOWNSAMPLE_ITEMS_MAX, DownsampleRequest,
    DownsampledSeries, Moment, QueryError, Range, RateAnswer, RateRequest, Reader, RunsRequest, SeriesFilter,
    SeriesRequest, WindowChange,
};

/// The number of time columns of a chart: no screen shows more.
const COLUMNS: u32 = 480;
/// A chart up to the last observation ends later by this part of its range, so that the last rate is visible.
const TAIL_DIVISOR: i64 = 24;
/// The shortest time that a chart shows after the last observation.
const TAIL_MIN_US: i64 = Timestamp::HOUR_US;

/// The data of a page.
pub(super) struct ChartData {
    /// The parameters with the sources, the range and the end that were chosen.
    pub(super) address: Address,
    /// The pair in the direction that the chart shows.
    pub(super) pair: Pair,
    pub(super) downsampled: DownsampledSeries,
    /// The second line.
    pub(super) other: Option<(Sources, DownsampledSeries)>,
    pub(super) candles: Option<Vec<CandleRow>>,
    /// The rate in force; none if no rate is in force yet.
    pub(super) rate: Option<RateAnswer>,
    /// The latest quote of the only leg.
    pub(super) quote: Option<Arc<LatestQuote>>,
    /// The change over the range of the chart.
    pub(super) change: WindowChange,
    /// The last observation before a silence, if the last move of the quote happened during the silence.
    pub(super) silent_before_move: Option<Timestamp>,
    /// The sources that have the rate of the pair, in the direction of the address.
    pub(super) choices: Vec<Sources>,
    /// Other pairs of the currency of the page, most of them crosses.
    pub(super) crosses: Vec<Pair>,
    /// How recent the rates of all pairs together are.
    pub(super) freshness: Freshness,
    /// The published series of both lines, each with the time at which its run in force at the start of the range began.
    pub(super) published: Vec<(SeriesKey, Timestamp)>,
}

/// The sources of a request: one for all legs, or one for each leg.
#[derive(Clone)]
struct Selection {
    source: Option<Source>,
    leg_sources: Vec<Source>,
}

impl Selection {
    /// Selects the sources of an address. `sources` follow the direction of `pair`.
    fn new(reader: &Reader, pair: Pair, sources: Option<&Sources>) -> Self {
        let is_published = |source: &Source| {
            let keys = reader.latest_quotes().quotes.iter().map(|quote| &quote.series);
            keys.filter(|key| key.source == *source).any(|key| key.pair == pair || key.pair == pair.inverse())
        };
        match sources.map(Sources::as_slice) {
            None => Self { source: None, leg_sources: Vec::new() },
            // The named source does not publish the pair, but perhaps both legs of a cross.
            Some([source]) if !is_published(source) => Self { source: Some(source.clone()), leg_sources: Vec::new() },
            Some(sources) => Self { source: None, leg_sources: sources.to_vec() },
        }
    }

    fn rate(&self, pair: Pair) -> RateRequest {
        RateRequest {
            pair,
            source: self.source.clone(),
            leg_sources: self.leg_sources.clone(),
            time: None,
            zone: None,
            max_age_us: None,
            known_time: None,
        }
    }

    fn downsample(&self, pair: Pair, window: Option<Span>, end: Option<Timestamp>) -> DownsampleRequest {
        DownsampleRequest {
            pair,
            source: self.source.clone(),
            leg_sources: self.leg_sources.clone(),
            window,
            end,
            columns: COLUMNS,
            items_max: DOWNSAMPLE_ITEMS_MAX,
        }
    }

    /// Reads the rate in force. If the server is strict and the request names no source, the rule of choice picks one
    /// anyway, because the page always names its source.
    fn read_rate(&mut self, reader: &Reader, pair: Pair) -> Result<Option<RateAnswer>, QueryError> {
        let mut read = reader.rate(&self.rate(pair));
        if matches!(read, Err(QueryError::Ambiguous { .. }))
            && let Some(key) = reader.published_choice(pair)?
        {
            self.leg_sources = vec![key.source];
            read = reader.rate(&self.rate(pair));
        }
        match read {
            Ok(answer) => {
                *self = Self { source: None, leg_sources: leg_sources(&answer.body) };
                Ok(Some(answer.body))
            }
            Err(QueryError::NoQuoteYet { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn leg_sources(rate: &RateAnswer) -> Vec<Source> {
    rate.legs.iter().map(|(series, _)| series.source.clone()).collect()
}

/// Returns sources in the other direction: the legs of a cross are exchanged.
fn directed(sources: &Sources, invert: bool) -> Sources {
    let legs = sources.as_slice();
    if invert { Sources::of_legs(legs.iter().rev()) } else { Sources::of_legs(legs.iter()) }
}

/// Returns the first and the last observation of a rate: the time from which all legs have a rate, and the newest
/// observation of a leg.
fn data_span(reader: &Reader, rate: &RateAnswer) -> Result<Option<(Timestamp, Timestamp)>, QueryError> {
    let mut first = None;
    for (key, _) in &rate.legs {
        let filter = SeriesFilter { pairs: vec![key.pair], sources: vec![key.source.clone()] };
        let series = reader.series(&SeriesRequest { filter, known_time: None })?.body;
        first = first.max(series.first().map(|info| info.totals.first_observed_time));
    }
    let last = rate.legs.iter().map(|(_, run)| run.last_observed_time).max();
    Ok(first.zip(last))
}

/// Returns the range and the end of a chart. The chart of a stale rate ends at its last observation unless the address
/// says otherwise. It shows the whole history if no rate of any pair is fresh, or if the history is shorter than the
/// default range.
fn range_and_end(
    reader: &Reader,
    chart: &ChartParameters,
    rate: Option<&RateAnswer>,
    freshness: Freshness,
) -> Result<(&'static ChartRange, Until, Option<Timestamp>), QueryError> {
    let is_stale = rate.is_some_and(|rate| rate.is_stale);
    let until = match chart.until {
        Some(until) => until,
        None if is_stale && chart.range.is_none() => Until::LastObservation,
        None => Until::Now,
    };
    let span = match rate {
        Some(rate) if until == Until::LastObservation => data_span(reader, rate)?,
        Some(_) | None => None,
    };
    let Some((first, last)) = span else { return Ok((chart.range.unwrap_or(RANGE_DEFAULT), Until::Now, None)) };
    let default_start = RANGE_DEFAULT.window.and_then(|window| window.before(last));
    let is_short = default_start.is_some_and(|start| first > start);
    let is_whole = is_short || freshness != Freshness::Fresh;
    let range = chart.range.unwrap_or(if is_whole { RANGE_ALL } else { RANGE_DEFAULT });
    let start = range.window.and_then(|window| window.before(last)).unwrap_or(first).min(last);
    let tail_us = (last.micros_since(start) / TAIL_DIVISOR).max(TAIL_MIN_US);
    Ok((range, until, Some(last.saturating_add_us(tail_us))))
}

/// Reads the candles of a chart.
fn read_candles(
    reader: &Reader,
    selection: &Selection,
    pair: Pair,
    length: &CandleLength,
    times: Range,
) -> Result<Vec<CandleRow>, QueryError> {
    let (start, end) = (times.start(), times.end());
    if !length.is_legible(start, end) {
        let name = length.name();
        let problem = format!("'{name}' gives more than {CANDLES_MAX} candles for this range; choose longer candles");
        return Err(QueryError::invalid("candles", problem));
    }
    let buckets = length.buckets();
    let range = Range::new(Some(buckets.at(start).start), Some(end.saturating_add_us(1)))?;
    let list = BucketsRequest {
        pair,
        source: selection.source.clone(),
        leg_sources: selection.leg_sources.clone(),
        range: range.into(),
        zone: Some(buckets.zone),
        known_time: None,
        order: ScanOrder::Ascending,
        after: None,
        limit: usize::try_from(CANDLES_MAX).unwrap_or(usize::MAX),
    };
    let interval = buckets.interval;
    let request = CandlesRequest { list, interval, fill: false, count_observations: false, find_bounds: false };
    Ok(reader.candles(&request)?.body.rows)
}

/// Returns the change of the rate over the range of a chart.
fn read_change(
    reader: &Reader,
    selection: &Selection,
    pair: Pair,
    (start, end): (Timestamp, Option<Timestamp>),
) -> Result<WindowChange, QueryError> {
    let request = ChangeRequest {
        pair,
        source: selection.source.clone(),
        leg_sources: selection.leg_sources.clone(),
        start: ChangeStart::Time(Moment::At(start)),
        end_time: end.map(Moment::At),
        zone: None,
        known_time: None,
    };
    let change = reader.change(&request)?.body;
    Ok(match (change.start, change.percent) {
        _ if change.end.as_ref().is_some_and(|end| end.is_stale) => WindowChange::NotObserved,
        (Some(start), _) if start.is_stale => {
            WindowChange::SilentAtStart { since: start.time.saturating_add_us(-start.age_us) }
        }
        (Some(_), Some(percent)) => WindowChange::Change(percent),
        _ => WindowChange::NoQuoteYet,
    })
}

/// Returns the sources that have the rate of a pair: those that publish the pair, those that publish its inverse, and
/// the sources of the legs of its cross.
fn choices(reader: &Reader, pair: Pair) -> Result<Vec<Sources>, QueryError> {
    let quotes = &reader.latest_quotes().quotes;
    let mut found: Vec<Sources> = Vec::new();
    for wanted in [pair, pair.inverse()] {
        for quote in quotes.iter().filter(|quote| quote.series.pair == wanted) {
            let sources = Sources::of_legs(std::iter::once(&quote.series.source));
            if !found.contains(&sources) {
                found.push(sources);
            }
        }
    }
    let against_usd = [pair.base(), pair.quote()].map(|currency| Pair::new(currency, Currency::USD).ok());
    if let [Some(base), Some(quote)] = against_usd
        && let Some(base) = reader.published_choice(base)?
        && let Some(quote) = reader.published_choice(quote)?
    {
        found.push(Sources::of_legs([&base.source, &quote.source].into_iter()));
    }
    Ok(found)
}

/// Returns the pairs of a currency with USD and with all other currencies that have a rate against USD.
fn crosses(reader: &Reader, pair: Pair) -> Vec<Pair> {
    let currency = if pair.base() == Currency::USD { pair.quote() } else { pair.base() };
    let keys = reader.latest_quotes().quotes.iter().map(|quote| quote.series.pair);
    let mut others: BTreeSet<Currency> = keys
        .filter(|pair| pair.base() == Currency::USD || pair.quote() == Currency::USD)
        .flat_map(|pair| [pair.base(), pair.quote()])
        .collect();
    if !others.contains(&currency) {
        others.clear();
    }
    let pairs = others.into_iter().filter_map(|other| Pair::new(currency, other).ok());
    pairs.filter(|other| *other != pair && *other != pair.inverse()).collect()
}

/// Reads the data of a page.
///
/// # Errors
/// `UnknownSeries` if no series has the pair; `InvalidArgument` if the sources do not fit the legs or there are too many
/// candles; the errors of the reads.
pub(super) fn read(reader: &Reader, chart: &ChartParameters) -> Result<ChartData, QueryError> {
    let pair = chart.displayed_pair();
    let wanted = chart.sources.as_ref().map(|sources| directed(sources, chart.invert));
    let mut selection = Selection::new(reader, pair, wanted.as_ref());
    let rate = selection.read_rate(reader, pair)?;
    let freshness = freshness(|| reader.latest_quotes().quotes.iter().map(|quote| &**quote));
    let (range, until, end) = range_and_end(reader, chart, rate.as_ref(), freshness)?;
    let downsampled = reader.downsample(&selection.downsample(pair, range.window, end))?.body;
    let sources = Sources::of_legs(downsampled.legs.iter().map(|leg| &leg.series.source));
    let other = match &chart.with {
        None => None,
        Some(with) => {
            let directed = directed(with, chart.invert);
            let selection = Selection::new(reader, pair, Some(&directed));
            let other = reader.downsample(&selection.downsample(pair, range.window, end))?.body;
            // Both lines have the same time axis, which the first line determines.
            let other = if range.window.is_none() { cut(other, downsampled.range) } else { other };
            Some((with.clone(), other))
        }
    };
    let candles = match chart.candles {
        None => None,
        Some(length) => Some(read_candles(reader, &selection, pair, length, downsampled.range)?),
    };
    let quote = match downsampled.legs.as_slice() {
        [leg] => reader.latest_quotes().quotes.iter().find(|quote| quote.series == leg.series).cloned(),
        _ => None,
    };
    let start = downsampled.range.start();
    let change = match (&quote, &rate) {
        (_, None) => WindowChange::NoQuoteYet,
        (Some(quote), Some(_)) if until == Until::Now => {
            reader.change_since(quote, start, quote.series.pair != pair)?
        }
        (_, Some(rate)) => {
            let last = rate.legs.iter().map(|(_, run)| run.last_observed_time).min();
            read_change(reader, &selection, pair, (start, last.filter(|_| until != Until::Now)))?
        }
    };
    let silent_before_move = match &quote {
        Some(quote) => reader.silent_before_move(quote)?,
        None => None,
    };
    let address = Address {
        pair: chart.pair,
        sources: directed(&sources, chart.invert),
        with: chart.with.clone(),
        range,
        until,
        invert: chart.invert,
        candles: chart.candles,
    };
    let choices = choices(reader, chart.pair)?;
    let crosses = crosses(reader, pair);
    let published = published(reader, std::iter::once(&downsampled).chain(other.as_ref().map(|(_, other)| other)))?;
    Ok(ChartData {
        address,
        pair,
        downsampled,
        other,
        candles,
        rate,
        quote,
        change,
        silent_before_move,
        choices,
        crosses,
        freshness,
        published,
    })
}

/// Returns the published series of lines, each with the time at which its run in force at the start of its range began.
fn published<'a>(
    reader: &Reader,
    lines: impl Iterator<Item = &'a DownsampledSeries>,
) -> Result<Vec<(SeriesKey, Timestamp)>, QueryError> {
    let mut found: Vec<(SeriesKey, Timestamp)> = Vec::new();
    for (leg, start) in lines.flat_map(|line| line.legs.iter().map(|leg| (leg, line.range.start()))) {
        if found.iter().any(|(series, _)| *series == leg.series) {
            continue;
        }
        let request = RunsRequest {
            pair: leg.series.pair,
            source: Some(leg.series.source.clone()),
            range: Range::new(Some(start), Some(start))?.into(),
            zone: None,
            order: ScanOrder::Ascending,
            include_baseline: true,
            known_time: None,
            after: None,
            limit: 1,
        };
        let baseline = reader.runs(&request)?.body.baseline;
        found.push((leg.series.clone(), baseline.map_or(start, |run| run.first_observed_time)));
    }
    Ok(found)
}

/// Returns a series with the range of another series. Steps before the range are merged into its first step.
fn cut(mut series: DownsampledSeries, range: Range) -> DownsampledSeries {
    let before = series.steps.iter().filter(|step| step.from < range.start()).count();
    if before > 0 {
        series.steps.drain(..before - 1);
        if let Some(first) = series.steps.first_mut() {
            first.from = range.start();
            (first.lowest, first.highest) = (first.last, first.last);
        }
    }
    series.silences.retain(|silence| silence.until > range.start());
    for silence in &mut series.silences {
        silence.from = silence.from.max(range.start());
    }
    series.range = range;
    series
}
