//! The settings of each source, the origin of each setting, and the preferences among sources.
//!
//! **Invariant**: no two sources have the same preference, so a choice by preference has one result. Settings do not
//! change while a server runs.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::analysis::Zone;
use crate::domain::{Pair, RatioThreshold, Source, Timestamp};

/// The origin of the value of a setting.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Origin {
    /// The built-in value.
    Default,
    /// The configuration file.
    File {
        /// The line of the value, counted from 1.
        line: usize,
    },
    /// A flag of `serve`, or its environment variable.
    Flag,
}

/// The value of a setting, and its origin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Setting<T> {
    /// The value in effect.
    pub value: T,
    /// Where the value comes from.
    pub origin: Origin,
}

impl<T> Setting<T> {
    /// Makes a setting with the built-in value.
    pub const fn built_in(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }

    /// Makes a setting with the value of a flag.
    pub const fn flag(value: T) -> Self {
        Self { value, origin: Origin::Flag }
    }

    /// Converts the value and keeps the origin.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Setting<U> {
        Setting { value: convert(self.value), origin: self.origin }
    }
}

/// The settings of one source. Durations are in microseconds.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct SourceSettings {
    /// The longest gap between two observations of one run, inclusive.
    pub collapse_window_us: Setting<i64>,
    /// The time from the last confirmation of a rate until the rate becomes stale.
    pub stale_limit_us: Setting<i64>,
    /// The stale limits of single pairs, which precede `stale_limit_us`.
    pub pair_stale_limits_us: BTreeMap<Pair, Setting<i64>>,
    /// The time after a move during which a rate is moving.
    pub moving_window_us: Setting<i64>,
    /// The number of decimal places to which rates are padded. The built-in value of a bank applies only to tables that
    /// the server reads from the bank.
    pub minimum_places: Setting<u8>,
    /// The smallest ratio at which a tick is held: its rate divided by the rate in force, or the reverse. `None` if no
    /// tick is held.
    pub quarantine_factor: Setting<Option<RatioThreshold>>,
    /// The rank among the sources of a pair, where 1 is the most preferred. A source without a rank comes last.
    pub preference: Option<Setting<u32>>,
    /// The time zone of the days of the source.
    pub zone: Setting<Zone>,
    /// How the source is polled; `None` for a source that cannot be followed.
    pub feed: Option<FeedSettings>,
}

impl SourceSettings {
    /// Built-in settings of a source that is not a bank.
    pub const BUILT_IN: Self = Self {
        collapse_window_us: Setting::built_in(Timestamp::HOUR_US),
        stale_limit_us: Setting::built_in(Timestamp::HOUR_US),
        pair_stale_limits_us: BTreeMap::new(),
        moving_window_us: Setting::built_in(Timestamp::DAY_US),
        minimum_places: Setting::built_in(0),
        quarantine_factor: Setting::built_in(Some(RatioThreshold::DEFAULT)),
        preference: None,
        zone: Setting::built_in(Zone::UTC),
        feed: None,
    };
    /// Built-in stale limit of the rates that a bank publishes once a week: their validity of seven days, and two days
    /// for a late table.
    pub const WEEKLY_STALE_LIMIT_US: i64 = 9 * Timestamp::DAY_US;

    /// Built-in settings of a central bank. It publishes official rates once a working day, and they stay valid over
    /// holidays.
    pub const BUILT_IN_BANK: Self = Self {
        collapse_window_us: Setting::built_in(7 * Timestamp::DAY_US),
        stale_limit_us: Setting::built_in(5 * Timestamp::DAY_US),
        // From a move on Friday to the next table on Monday evening, and a day of holiday.
        moving_window_us: Setting::built_in(4 * Timestamp::DAY_US),
        pair_stale_limits_us: BTreeMap::new(),
        minimum_places: Setting::built_in(0),
        quarantine_factor: Setting::built_in(Some(RatioThreshold::DEFAULT)),
        preference: None,
        zone: Setting::built_in(Zone::UTC),
        feed: None,
    };
}

/// The settings of a publisher that the server can follow.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct FeedSettings {
    /// Whether the server polls the publisher.
    pub is_followed: Setting<bool>,
    /// The time between two polls outside the publication hours, in microseconds.
    pub poll_interval_us: Setting<i64>,
    /// The publication hour, in seconds since midnight of the publisher's local time. Polls are more frequent around
    /// it. `None` for a publisher that publishes all day.
    pub publication_s: Option<Setting<u32>>,
    /// The base URL of the polls. It never contains a password.
    pub url: Setting<String>,
}

/// The settings of all sources.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct SourceTable {
    others: SourceSettings,
    sources: BTreeMap<Source, SourceSettings>,
    preferences: Preferences,
    is_strict: bool,
}

impl Default for SourceTable {
    /// Makes a table without named sources, in which every source has the built-in settings.
    fn default() -> Self {
        Self {
            others: SourceSettings::BUILT_IN,
            sources: BTreeMap::new(),
            preferences: Preferences::default(),
            is_strict: false,
        }
    }
}

impl SourceTable {
    /// Makes a table with the settings of each source in `sources`, and the settings `others` of all other sources. The
    /// other sources never have a preference.
    ///
    /// # Errors
    /// Returns [`SharedPreference`] if two sources have the same preference.
    pub fn new(others: SourceSettings, sources: BTreeMap<Source, SourceSettings>) -> Result<Self, SharedPreference> {
        let given = sources.iter().filter_map(|(source, settings)| Some((source.clone(), settings.preference?.value)));
        let preferences = Preferences::new(given)?;
        Ok(Self { others: SourceSettings { preference: None, ..others }, sources, preferences, is_strict: false })
    }

    /// Sets whether a request that names no source fails if several candidates can answer.
    #[must_use]
    pub fn with_strict(self, is_strict: bool) -> Self {
        Self { is_strict, ..self }
    }

    /// Returns true if a request that names no source fails if several candidates can answer.
    pub fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// Returns true if the source is built in, followed or named in the configuration.
    pub fn is_configured(&self, source: &Source) -> bool {
        self.sources.contains_key(source)
    }

    /// Returns the settings of `source`.
    pub fn of(&self, source: &Source) -> &SourceSettings {
        self.sources.get(source).unwrap_or(&self.others)
    }

    /// Returns the settings of every source without its own settings.
    pub fn others(&self) -> &SourceSettings {
        &self.others
    }

    /// Iterates over the sources with their own settings, sorted by name.
    pub fn named(&self) -> impl Iterator<Item = &Source> {
        self.sources.keys()
    }

    /// Returns the preferences of all sources.
    pub fn preferences(&self) -> &Preferences {
        &self.preferences
    }
}

/// The error for two sources with the same preference.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error(
    "sources {first} and {second} both have preference {preference}; give each source its own number, 1 for the most \
     preferred"
)]
pub struct SharedPreference {
    /// The source that was given first.
    pub first: Source,
    /// The source that was given second.
    pub second: Source,
    /// The preference of both sources.
    pub preference: u32,
}

/// The ranks of sources. If several sources have a pair and a request names none of them, the source with the lowest
/// rank answers.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Preferences(BTreeMap<Source, u32>);

impl Preferences {
    /// Makes preferences of sources and their ranks, where 1 is the most preferred.
    ///
    /// # Errors
    /// Returns [`SharedPreference`] if two sources have the same rank.
    pub fn new(given: impl IntoIterator<Item = (Source, u32)>) -> Result<Self, SharedPreference> {
        let mut taken: BTreeMap<u32, Source> = BTreeMap::new();
        let mut ranks = BTreeMap::new();
        for (source, preference) in given {
            if let Some(first) = taken.insert(preference, source.clone()) {
                return Err(SharedPreference { first, second: source, preference });
            }
            ranks.insert(source, preference);
        }
        Ok(Self(ranks))
    }

    /// Iterates over the sources that have a rank, each with its rank, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Source, u32)> {
        self.0.iter().map(|(source, rank)| (source, *rank))
    }

    /// Returns the rank of `source`, where a lower rank is preferred; `None` if the source has no rank and comes last.
    pub fn rank(&self, source: &Source) -> Option<u32> {
        self.0.get(source).copied()
    }

    /// Returns the most preferred source of all; `None` if no source has a rank.
    pub fn first(&self) -> Option<&Source> {
        self.choose(self.0.keys(), |source| *source)
    }

    /// Returns the item with the most preferred source; `None` if no item has a source with a rank.
    pub fn choose<T>(&self, among: impl IntoIterator<Item = T>, source: impl Fn(&T) -> &Source) -> Option<T> {
        let ranked = among.into_iter().filter_map(|item| Some((self.rank(source(&item))?, item)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, item)| item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str) -> Source {
        Source::parse(name).unwrap()
    }

    fn preferences(given: &[(&str, u32)]) -> Result<Preferences, SharedPreference> {
        Preferences::new(given.iter().map(|(name, rank)| (source(name), *rank)))
    }

    #[test]
    fn source_with_the_lowest_rank_is_chosen() {
        let check = |given: &[(&str, u32)], among: &[&str], expect: Option<&str>| {
            let among: Vec<Source> = among.iter().map(|name| source(name)).collect();
            let chosen = preferences(given).unwrap().choose(among, |source| source);
            assert_eq!(chosen.as_ref().map(Source::as_str), expect, "{given:?}");
        };
        check(&[], &["a", "b"], None);
        check(&[("c", 1)], &["a", "b"], None);
        check(&[("b", 7)], &["a", "b"], Some("b"));
        check(&[("a", 2), ("b", 1)], &["a", "b"], Some("b"));
        check(&[("a", 2), ("b", 1)], &["a"], Some("a"));
        assert_eq!(preferences(&[("a", 2), ("b", 1)]).unwrap().first(), Some(&source("b")));
    }

    #[test]
    fn two_sources_with_the_same_rank_are_refused() {
        assert_eq!(
            preferences(&[("a", 1), ("b", 2), ("c", 1)]).unwrap_err().to_string(),
            "sources a and c both have preference 1; give each source its own number, 1 for the most preferred"
        );
    }
}
