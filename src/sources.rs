//! The settings of each source, where each comes from, and which source is preferred.
//!
//! **Invariant**: no two sources have one preference, so that whoever chooses among sources chooses one. Settings do not
//! change while a server runs.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::domain::{RatioThreshold, Source, Timestamp};

/// Where the value of a setting comes from; of what the file says, by line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Origin {
    /// Built in.
    Default,
    /// The configuration file.
    File {
        /// Counted from 1.
        line: usize,
    },
    /// A flag of `serve`, or its variable.
    Flag,
}

/// A value, and where it comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Setting<T> {
    /// What holds.
    pub value: T,
    /// Who says so.
    pub origin: Origin,
}

impl<T> Setting<T> {
    /// What holds where nobody says otherwise.
    pub const fn built_in(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }

    /// What a flag says.
    pub const fn flag(value: T) -> Self {
        Self { value, origin: Origin::Flag }
    }

    /// The same origin of a value made of this one.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Setting<U> {
        Setting { value: make(self.value), origin: self.origin }
    }
}

/// How one source is treated. Lengths of time in microseconds.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct SourceSettings {
    /// The longest gap that a run may bridge, inclusive.
    pub collapse_window_us: Setting<i64>,
    /// After how long without confirmation a rate is stale.
    pub stale_limit_us: Setting<i64>,
    /// Decimal places to which rates are padded; what is built in holds for the bank's own tables alone.
    pub minimum_places: Setting<u8>,
    /// Rates so many times apart from the rate in force, or more, are held; none holds nothing.
    pub quarantine_factor: Setting<Option<RatioThreshold>>,
    /// Its place among sources of one pair, 1 being the first; none is behind all others.
    pub preference: Option<Setting<u32>>,
    /// What following it means; none of a source that cannot be followed.
    pub feed: Option<FeedSettings>,
}

impl SourceSettings {
    /// Of a source that is not known here.
    pub const BUILT_IN: Self = Self {
        collapse_window_us: Setting::built_in(Timestamp::HOUR_US),
        stale_limit_us: Setting::built_in(Timestamp::HOUR_US),
        minimum_places: Setting::built_in(0),
        quarantine_factor: Setting::built_in(Some(RatioThreshold::DEFAULT)),
        preference: None,
        feed: None,
    };
    /// Of the bank of a country, whose official rates are published once a working day and kept over holidays.
    pub const BUILT_IN_BANK: Self = Self {
        collapse_window_us: Setting::built_in(7 * Timestamp::DAY_US),
        stale_limit_us: Setting::built_in(5 * Timestamp::DAY_US),
        ..Self::BUILT_IN
    };
}

/// How a publisher is followed.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct FeedSettings {
    /// Whether it is.
    pub is_followed: Setting<bool>,
    /// Time between two polls, away from the publication.
    pub poll_interval_us: Setting<i64>,
    /// Seconds into the publisher's local day, from when on the next table is looked for more often; none of one that
    /// publishes all day.
    pub publication_s: Option<Setting<u32>>,
    /// Where it is asked; never with a password in it.
    pub url: Setting<String>,
}

/// The settings of all sources.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct SourceTable {
    others: SourceSettings,
    sources: BTreeMap<Source, SourceSettings>,
    preferences: Preferences,
}

impl Default for SourceTable {
    /// Of no source in particular, with what is built in.
    fn default() -> Self {
        Self { others: SourceSettings::BUILT_IN, sources: BTreeMap::new(), preferences: Preferences::default() }
    }
}

impl SourceTable {
    /// Of the sources in `sources`, and of all `others`, which have no preference.
    ///
    /// # Errors
    /// [`SharedPreference`].
    pub fn new(others: SourceSettings, sources: BTreeMap<Source, SourceSettings>) -> Result<Self, SharedPreference> {
        let given = sources.iter().filter_map(|(source, settings)| Some((source.clone(), settings.preference?.value)));
        let preferences = Preferences::new(given)?;
        Ok(Self { others: SourceSettings { preference: None, ..others }, sources, preferences })
    }

    /// Of `source`.
    pub fn of(&self, source: &Source) -> &SourceSettings {
        self.sources.get(source).unwrap_or(&self.others)
    }

    /// Of those that are not named.
    pub fn others(&self) -> &SourceSettings {
        &self.others
    }

    /// Sources that have settings of their own, by name.
    pub fn named(&self) -> impl Iterator<Item = &Source> {
        self.sources.keys()
    }

    /// Which of them go before others.
    pub fn preferences(&self) -> &Preferences {
        &self.preferences
    }
}

/// Two sources in one place.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{first} and {second} both have preference {preference}; give each a number of its own, 1 being the first")]
pub struct SharedPreference {
    /// By name.
    pub first: Source,
    /// By name.
    pub second: Source,
    /// What both have.
    pub preference: u32,
}

/// Which source answers where several have a pair and a caller names none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Preferences(BTreeMap<Source, u32>);

impl Preferences {
    /// Each source with its place, 1 being the first.
    ///
    /// # Errors
    /// [`SharedPreference`].
    pub fn new(given: impl IntoIterator<Item = (Source, u32)>) -> Result<Self, SharedPreference> {
        let mut taken: BTreeMap<u32, Source> = BTreeMap::new();
        let mut places = BTreeMap::new();
        for (source, preference) in given {
            if let Some(first) = taken.insert(preference, source.clone()) {
                return Err(SharedPreference { first, second: source, preference });
            }
            places.insert(source, preference);
        }
        Ok(Self(places))
    }

    /// Each source with its place, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Source, u32)> {
        self.0.iter().map(|(source, place)| (source, *place))
    }

    /// The place of `source`, lower being preferred; none goes behind all.
    pub fn place(&self, source: &Source) -> Option<u32> {
        self.0.get(source).copied()
    }

    /// The most preferred of all.
    pub fn first(&self) -> Option<&Source> {
        self.choose(self.0.keys(), |source| *source)
    }

    /// The one of `among` whose source is preferred; none where none of them has a preference.
    pub fn choose<T>(&self, among: impl IntoIterator<Item = T>, source: impl Fn(&T) -> &Source) -> Option<T> {
        let placed = among.into_iter().filter_map(|one| Some((self.place(source(&one))?, one)));
        placed.min_by_key(|(place, _)| *place).map(|(_, one)| one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str) -> Source {
        Source::parse(name).unwrap()
    }

    fn preferences(given: &[(&str, u32)]) -> Result<Preferences, SharedPreference> {
        Preferences::new(given.iter().map(|(name, place)| (source(name), *place)))
    }

    #[test]
    fn the_lowest_number_goes_first_and_none_goes_last() {
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
    fn one_place_is_of_one_source() {
        assert_eq!(
            preferences(&[("a", 1), ("b", 2), ("c", 1)]).unwrap_err().to_string(),
            "a and c both have preference 1; give each a number of its own, 1 being the first"
        );
    }
}
