//! Selection of the stored series that answer for a pair.
//!
//! Candidates are the direct series of each source, the inverse of each, and one cross through USD. Each leg of the cross is
//! chosen by the same rule among the series of its currency against USD, and of USD against its currency. One request makes one
//! choice: both ends of a change and all rows of a list come from it.
//!
//! **Invariant**: a pair and its inverse come from the same series.

mod search;

use std::sync::Arc;

use search::{Search, SeriesLeg};

use super::as_of::AsOf;
use super::need::{Need, Times};
use super::{QueryError, Reader};
use crate::analysis::{Legs, Zone};
use crate::domain::{Currency, Pair, SeriesKey, Source, Timestamp};
use crate::store::SeriesView;

/// Maximum number of series that an error message lists.
const LISTED_SERIES_MAX: usize = 12;

/// How a rate is derived from published rates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Derivation {
    /// The rate is published for the requested pair.
    Direct,
    /// The rate is one divided by a published rate.
    Inverse,
    /// The rate is the product of two legs through USD. Each leg is a published rate, or one divided by a published
    /// rate.
    Cross,
}

/// The sources that a request names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NamedSources<'a> {
    /// The request names no source.
    Any,
    /// The request names one source for every leg.
    All(&'a Source),
    /// The request names the source of a single leg.
    Only(&'a Source),
    /// The request names the sources of both legs of a cross.
    Each(&'a Source, &'a Source),
}

impl<'a> NamedSources<'a> {
    fn new(source: Option<&'a Source>, leg_sources: &'a [Source]) -> Result<Self, QueryError> {
        if let Some((source, leg)) =
            source.and_then(|source| leg_sources.iter().find(|leg| *leg != source).map(|leg| (source, leg)))
        {
            let problem = format!("'{leg}' contradicts source '{source}'; give one of them");
            return Err(QueryError::invalid("leg_sources", problem));
        }
        match (source, leg_sources) {
            (None, []) => Ok(Self::Any),
            (Some(source), []) => Ok(Self::All(source)),
            (_, [only]) => Ok(Self::Only(only)),
            (_, [first, second]) => Ok(Self::Each(first, second)),
            (_, more) => {
                let problem = format!("{} sources are given; a cross has two legs", more.len());
                Err(QueryError::invalid("leg_sources", problem))
            }
        }
    }
}

/// A published series that answers a request for a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnsweringLeg {
    /// The series.
    pub series: SeriesKey,
    /// Whether its rate was stale at the end of the requested range, or now if that is earlier.
    pub is_stale: bool,
    /// Whether its source is archived, as known at the commit that was read.
    pub is_archived: bool,
}

/// A series and whether its rates are inverted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Leg<S> {
    pub(super) inverted: bool,
    pub(super) series: S,
}

/// The series that an answer is derived from.
pub(super) type Route = Legs<Leg<Arc<SeriesView>>>;

/// Returns how rates are derived from `legs`.
pub(super) fn derivation<S>(legs: &Legs<Leg<S>>) -> Derivation {
    match legs {
        Legs::One(Leg { inverted: false, .. }) => Derivation::Direct,
        Legs::One(Leg { inverted: true, .. }) => Derivation::Inverse,
        Legs::Two(..) => Derivation::Cross,
    }
}

/// Returns both currencies of a pair against USD, or `None` if one of them is USD.
fn against_usd(pair: Pair) -> Option<(Pair, Pair)> {
    Pair::new(pair.base(), Currency::USD).ok().zip(Pair::new(pair.quote(), Currency::USD).ok())
}

/// Returns the published pairs that a pair is derived from, of any source. The list is empty if the pair cannot be
/// derived.
pub(super) fn derived_from(keys: &[SeriesKey], pair: Pair) -> Vec<Pair> {
    let published = |pair: Pair| keys.iter().any(|key| key.pair == pair).then_some(pair);
    if let Some(inverse) = published(pair.inverse()) {
        return vec![inverse];
    }
    let leg = |pair: Pair| published(pair).or_else(|| published(pair.inverse()));
    let legs = against_usd(pair).and_then(|(base, quote)| leg(base).zip(leg(quote)));
    legs.map_or_else(Vec::new, |(base, quote)| vec![base, quote])
}

/// Lists the available series for an error message.
pub(super) fn list_available(keys: &[SeriesKey]) -> String {
    if keys.is_empty() {
        return "no series exists yet".to_owned();
    }
    let shown: Vec<String> = keys.iter().take(LISTED_SERIES_MAX).map(ToString::to_string).collect();
    let more = keys.len().saturating_sub(LISTED_SERIES_MAX);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("available: {}{more}", shown.join(", "))
}

fn unknown_series(pair: Pair, source: Option<&Source>, keys: &[SeriesKey]) -> QueryError {
    let (wanted_source, available) = (source.cloned(), list_available(keys));
    QueryError::UnknownSeries { pair, wanted_source, missing_legs: Vec::new(), available }
}

impl Reader {
    /// Returns the keys of the series for which `wanted` returns true and which exist at the commit of `as_of`. A read
    /// as known earlier must not see a series that was created later.
    pub(super) fn known_keys(&self, as_of: &AsOf, wanted: impl Fn(&SeriesKey) -> bool) -> Vec<SeriesKey> {
        let is_known = |series: &&Arc<SeriesView>| as_of.newest || series.is_known(as_of.known());
        self.view
            .series()
            .filter(|series| wanted(series.key()))
            .filter(is_known)
            .map(|series| series.key().clone())
            .collect()
    }

    /// Returns the series that answer for `pair`: those of the sources that the request names, else those that the rule
    /// of [`choose`] picks at the time of `need`.
    ///
    /// # Errors
    /// `UnknownSeries` if no series and no cross has the pair; `Ambiguous` if the sources are strict and several
    /// candidates exist; `InvalidArgument` if `leg_sources` does not fit `source` or the number of legs; `Store` if
    /// reading fails.
    pub(super) fn resolve(
        &self,
        as_of: &AsOf,
        pair: Pair,
        source: Option<&Source>,
        leg_sources: &[Source],
        need: &Need,
    ) -> Result<Route, QueryError> {
        let named = NamedSources::new(source, leg_sources)?;
        let is_strict = self.is_strict && named == NamedSources::Any;
        Search { reader: self, as_of, pair, need, is_strict }.find(named)
    }

    /// Returns the published series that the rule picks for `pair` or its inverse, without crosses. Several candidates are
    /// no error, even if the sources are strict.
    ///
    /// # Errors
    /// `Store` if reading fails.
    pub fn published_choice(&self, pair: Pair) -> Result<Option<SeriesKey>, QueryError> {
        let as_of = self.as_of(None)?;
        let need = Need::at(as_of.now);
        let search = Search { reader: self, as_of: &as_of, pair, need: &need, is_strict: false };
        Ok(search.single(pair, None, false)?.map(|(leg, _)| leg.series.key().clone()))
    }

    /// Returns the instants of `need` for the series that were chosen.
    pub(super) fn times(&self, route: &Route, need: &Need) -> Times {
        let mut times = route.iter().map(|leg| need.times(self.zone_of(leg)));
        let first = times.next().unwrap_or(Times { start: None, end: need.now() });
        times.fold(first, Times::earlier)
    }

    /// Returns the time zone of the days of an answer: `requested`, or else the zone of the source. For a cross, the zone
    /// of the leg whose day ends first.
    pub(super) fn zone(&self, route: &Route, requested: Option<Zone>, now: Timestamp) -> Zone {
        let day_end = |zone: &Zone| zone.day_end(Zone::UTC.local(now).date());
        requested.or_else(|| route.iter().map(|leg| self.zone_of(leg)).min_by_key(day_end)).unwrap_or(Zone::UTC)
    }

    /// Returns true if the source is archived, as known at the commit of `as_of`.
    pub(super) fn is_archived(&self, as_of: &AsOf, source: &Source) -> bool {
        self.view.archived().is_archived(source, as_of.known())
    }

    /// Describes the series that answer for a range.
    ///
    /// # Errors
    /// `Store` if reading fails.
    pub(super) fn answering_legs(
        &self,
        as_of: &AsOf,
        route: &Route,
        need: &Need,
    ) -> Result<Vec<AnsweringLeg>, QueryError> {
        let time = self.times(route, need).end;
        route.iter().map(|leg| self.answering_leg(as_of, &leg.series, time)).collect()
    }

    /// Describes a series that answers, at the time of the choice.
    ///
    /// # Errors
    /// `Store` if reading fails.
    pub(super) fn answering_leg(
        &self,
        as_of: &AsOf,
        series: &SeriesView,
        time: Timestamp,
    ) -> Result<AnsweringLeg, QueryError> {
        let run = series.run_at(time, as_of.known())?;
        let key = series.key();
        Ok(AnsweringLeg {
            is_stale: run.is_some_and(|run| time >= self.rules.stale_time(key, &run)),
            is_archived: self.is_archived(as_of, &key.source),
            series: key.clone(),
        })
    }

    fn zone_of(&self, leg: &SeriesLeg) -> Zone {
        self.zone_of_source(&leg.series.key().source, None)
    }

    /// Returns the series published for `pair` itself that answers.
    ///
    /// # Errors
    /// `UnknownSeries` if no series has the pair or its inverse; `OnlyInverse` if only the inverse is published;
    /// `Ambiguous` if the sources are strict and several have the pair; `Store` if reading fails.
    pub(super) fn resolve_published(
        &self,
        as_of: &AsOf,
        pair: Pair,
        source: Option<&Source>,
        need: &Need,
    ) -> Result<Arc<SeriesView>, QueryError> {
        let search = Search { reader: self, as_of, pair, need, is_strict: self.is_strict && source.is_none() };
        let direct = search.series(pair, source).map(|series| Leg { inverted: false, series }).collect();
        if let Some((leg, _)) = search.pick(direct, false, |leg| search.facts(leg))? {
            return Ok(leg.series);
        }
        if let Some(inverse) = search.series(pair.inverse(), source).next() {
            return Err(QueryError::OnlyInverse { pair, published: inverse.key().clone() });
        }
        Err(unknown_series(pair, source, &self.known_keys(as_of, |_| true)))
    }
}

#[cfg(test)]
mod tests;
