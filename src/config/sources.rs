//! The settings of each source, combined from flags, the configuration file and built-in values.
//!
//! **Invariant**: a value for one source takes precedence over a value for all sources. Among values of the same kind,
//! a flag takes precedence over the file, and the file over the built-in value. A bank has built-in values of its own,
//! so its collapse window of seven days changes only if a flag or the file names the bank.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ConfigError;
use super::file::{FileFeed, FileSettings};
use super::value::{SourceDuration, subject};
use crate::analysis::Zone;
use crate::domain::{Currency, Pair, RatioThreshold, SeriesKey, Source, duration_us, format_duration};
use crate::follow::{FeedUrl, FollowSettings, FollowedSource};
use crate::ingest::QuarantineRules;
use crate::sources::{FeedSettings, Origin, Setting, SourceSettings, SourceTable};

/// The values of flags by source. The key `None` has the value for all sources without a value of their own.
#[derive(Debug, Default)]
pub(super) struct SourceFlags {
    /// The values of `--collapse-window`.
    pub(super) collapse_window: BTreeMap<Option<Source>, Duration>,
    /// The values of `--stale-limit`.
    pub(super) stale_limit: BTreeMap<Option<Source>, Duration>,
    /// The values of `--moving-window`.
    pub(super) moving_window: BTreeMap<Option<Source>, Duration>,
    /// The values of `--minimum-places`.
    pub(super) minimum_places: BTreeMap<Source, u8>,
    /// The values of `--quarantine-factor`. A factor of `None` holds no tick.
    pub(super) quarantine_factor: BTreeMap<Option<Source>, Option<RatioThreshold>>,
    /// The values of `--follow` and `--feed-url`. If no source is listed, the file determines the followed sources.
    pub(super) follow: FollowSettings,
}

/// Returns true for the central banks, which publish official rates once a working day.
fn is_bank(followed: Option<FollowedSource>) -> bool {
    followed.is_some_and(|followed| !followed.bank_feeds().is_empty())
}

/// All places where a duration can come from, except the table `[sources.NAME]` of the file.
struct DurationLevels<'a> {
    /// The values of the flag, by source.
    flags: &'a BTreeMap<Option<Source>, Duration>,
    /// The value in the table `[defaults]` of the file.
    file_default: Option<Setting<Duration>>,
    /// Returns the built-in value, in microseconds.
    built_in: fn(&SourceSettings) -> Setting<i64>,
}

impl DurationLevels<'_> {
    /// Returns the setting of all sources that have no value of their own.
    fn others(&self) -> Setting<i64> {
        let flag = self.flags.get(&None).copied().map(Setting::flag);
        let configured = flag.or(self.file_default).map(|setting| setting.map(duration_us));
        configured.unwrap_or_else(|| (self.built_in)(&SourceSettings::BUILT_IN))
    }

    /// Returns the setting of `source`. `file` is the setting in the table of the source in the file.
    fn of(&self, source: &Source, file: Option<Setting<Duration>>, is_bank: bool) -> Setting<i64> {
        let flag = self.flags.get(&Some(source.clone())).copied().map(Setting::flag);
        let configured = flag.or(file).map(|setting| setting.map(duration_us));
        let bank = is_bank.then(|| (self.built_in)(&SourceSettings::BUILT_IN_BANK));
        configured.or(bank).unwrap_or_else(|| self.others())
    }
}

/// Combines the settings of every source.
///
/// # Errors
/// Returns `ConfigError::Preference` if two sources have the same preference. A parsed file never has this error.
pub(super) fn table(flags: &SourceFlags, file: &FileSettings) -> Result<SourceTable, ConfigError> {
    let windows = DurationLevels {
        flags: &flags.collapse_window,
        file_default: file.defaults.collapse_window,
        built_in: |settings| settings.collapse_window_us,
    };
    let limits = DurationLevels {
        flags: &flags.stale_limit,
        file_default: file.defaults.stale_limit,
        built_in: |settings| settings.stale_limit_us,
    };
    let moving_windows = DurationLevels {
        flags: &flags.moving_window,
        file_default: file.defaults.moving_window,
        built_in: |settings| settings.moving_window_us,
    };
    let other_factor =
        factor(flags, None, file.defaults.quarantine_factor).unwrap_or(SourceSettings::BUILT_IN.quarantine_factor);
    let mut names: BTreeSet<Source> =
        FollowedSource::ALL.iter().filter_map(|followed| followed.source().ok()).collect();
    names.extend(flags.collapse_window.keys().chain(flags.stale_limit.keys()).flatten().cloned());
    names.extend(flags.moving_window.keys().flatten().cloned());
    names.extend(flags.quarantine_factor.keys().flatten().cloned());
    names.extend(flags.minimum_places.keys().chain(file.sources.keys()).cloned());
    let settings_by_source = names.into_iter().map(|source| {
        let in_file = file.sources.get(&source);
        let followed = FollowedSource::parse(source.as_str()).ok();
        let is_bank = is_bank(followed);
        let stale_limit_us = limits.of(&source, in_file.and_then(|settings| settings.stale_limit), is_bank);
        let no_pairs = BTreeMap::new();
        let pairs_in_file = in_file.map_or(&no_pairs, |settings| &settings.pair_stale_limits);
        let settings = SourceSettings {
            collapse_window_us: windows.of(&source, in_file.and_then(|settings| settings.collapse_window), is_bank),
            stale_limit_us,
            pair_stale_limits_us: pair_stale_limits_us(followed, pairs_in_file, stale_limit_us),
            moving_window_us: moving_windows.of(&source, in_file.and_then(|settings| settings.moving_window), is_bank),
            minimum_places: {
                let flag = flags.minimum_places.get(&source).copied().map(Setting::flag);
                flag.or(in_file.and_then(|settings| settings.minimum_places))
                    .unwrap_or(Setting::built_in(built_in_places(followed)))
            },
            quarantine_factor: factor(flags, Some(&source), in_file.and_then(|settings| settings.quarantine_factor))
                .unwrap_or(other_factor),
            preference: in_file.and_then(|settings| settings.preference),
            zone: in_file
                .and_then(|settings| settings.zone)
                .unwrap_or(Setting::built_in(followed.map_or(Zone::UTC, FollowedSource::zone))),
            feed: followed
                .map(|publisher| feed(publisher, &flags.follow, in_file.and_then(|settings| settings.feed.as_ref()))),
        };
        (source, settings)
    });
    let others = SourceSettings {
        collapse_window_us: windows.others(),
        stale_limit_us: limits.others(),
        moving_window_us: moving_windows.others(),
        quarantine_factor: other_factor,
        ..SourceSettings::BUILT_IN
    };
    Ok(SourceTable::new(others, settings_by_source.collect())?)
}

/// Returns the configured factor of `source`. `None` means all sources without a value of their own.
fn factor(
    flags: &SourceFlags,
    source: Option<&Source>,
    file: Option<Setting<Option<RatioThreshold>>>,
) -> Option<Setting<Option<RatioThreshold>>> {
    flags.quarantine_factor.get(&source.cloned()).copied().map(Setting::flag).or(file)
}

fn built_in_places(followed: Option<FollowedSource>) -> u8 {
    followed.and_then(|followed| followed.bank_feeds().first()).map_or(0, |feed| feed.minimum_places())
}

fn feed(publisher: FollowedSource, flags: &FollowSettings, file: Option<&FileFeed>) -> FeedSettings {
    let built_in = FileFeed::built_in(publisher);
    let file = file.unwrap_or(&built_in);
    let is_followed = if flags.sources.is_empty() {
        file.follow.unwrap_or(Setting::built_in(false))
    } else {
        Setting::flag(flags.sources.contains(&publisher))
    };
    let url = flags.urls.iter().find(|url| url.source == publisher).map(|url| Setting::flag(url.base_url.clone()));
    FeedSettings {
        is_followed,
        poll_interval_us: Setting { value: duration_us(file.schedule.poll_interval()), origin: file.pace_origin },
        publication_s: file.schedule.publication_s().map(|value| Setting { value, origin: file.publication_origin }),
        url: url.or(file.url.clone()).unwrap_or_else(|| Setting::built_in(publisher.base_url().to_owned())),
    }
}

/// Returns the followed publishers of `table`, with their URLs and poll schedules.
pub(super) fn follow_settings(table: &SourceTable, file: &FileSettings) -> FollowSettings {
    let mut settings = FollowSettings { stale_limits_us: series_stale_limits_us(table), ..FollowSettings::default() };
    for followed in FollowedSource::ALL {
        let Some((source, feed)) =
            followed.source().ok().and_then(|source| Some((source.clone(), table.of(&source).feed.as_ref()?)))
        else {
            continue;
        };
        if feed.is_followed.value {
            settings.sources.push(followed);
        }
        // The publisher's own URL must not be in the list of replacement URLs, because a replacement URL may have a
        // private address.
        if feed.url.value != followed.base_url() {
            settings.urls.push(FeedUrl { source: followed, base_url: feed.url.value.clone() });
        }
        if let Some(in_file) = file.sources.get(&source).and_then(|settings| settings.feed.as_ref()) {
            settings.schedules.push((followed, in_file.schedule));
        }
    }
    settings
}

/// Returns a duration of each named source, in microseconds.
pub(super) fn named_us(table: &SourceTable, setting: fn(&SourceSettings) -> Setting<i64>) -> BTreeMap<Source, i64> {
    table.named().map(|source| (source.clone(), setting(table.of(source)).value)).collect()
}

/// Returns the stale limit of each series that has its own, in microseconds.
pub(super) fn series_stale_limits_us(table: &SourceTable) -> BTreeMap<SeriesKey, i64> {
    let limits = table.named().flat_map(|source| {
        let of_pair =
            |(pair, limit): (&Pair, &Setting<i64>)| (SeriesKey { pair: *pair, source: source.clone() }, limit.value);
        table.of(source).pair_stale_limits_us.iter().map(of_pair)
    });
    limits.collect()
}

/// Returns the stale limits of single pairs of a source: those of the file, and the built-in ones of weekly tables. A
/// built-in limit is never shorter than `source_limit`.
fn pair_stale_limits_us(
    followed: Option<FollowedSource>,
    file: &BTreeMap<Pair, Setting<Duration>>,
    source_limit: Setting<i64>,
) -> BTreeMap<Pair, Setting<i64>> {
    let built_in = Setting::built_in(SourceSettings::WEEKLY_STALE_LIMIT_US);
    let weekly = if built_in.value > source_limit.value { built_in } else { source_limit };
    let feeds = followed.map_or(&[][..], FollowedSource::bank_feeds);
    let pairs = feeds.iter().flat_map(|feed| {
        let pair = |code: &&str| Pair::new(Currency::parse(code).ok()?, Currency::parse(feed.home()).ok()?).ok();
        feed.weekly_currencies().iter().filter_map(pair)
    });
    let mut limits: BTreeMap<Pair, Setting<i64>> = pairs.map(|pair| (pair, weekly)).collect();
    limits.extend(file.iter().map(|(pair, limit)| (*pair, limit.map(duration_us))));
    limits
}

/// Returns the configured minimum places. The built-in values are applied by the parsers of the banks' tables.
pub(super) fn minimum_places(table: &SourceTable) -> BTreeMap<Source, u8> {
    let places_by_source = table.named().map(|source| (source, table.of(source).minimum_places));
    let configured = places_by_source.filter(|(_, places)| places.origin != Origin::Default);
    configured.map(|(source, places)| (source.clone(), places.value)).collect()
}

/// Returns the quarantine rules of all sources.
pub(super) fn quarantine(table: &SourceTable) -> QuarantineRules {
    let named = table.named().map(|source| (source.clone(), table.of(source).quarantine_factor.value));
    QuarantineRules::new(table.others().quarantine_factor.value, named.collect())
}

/// Collects the values of `flag` by source.
///
/// # Errors
/// Returns `ConfigError::Twice` if a source, or the group of sources without a value of their own, has two values.
pub(super) fn unique_durations(
    flag: &'static str,
    values: Vec<SourceDuration>,
) -> Result<BTreeMap<Option<Source>, Duration>, ConfigError> {
    let mut seen: BTreeMap<Option<Source>, Duration> = BTreeMap::new();
    for SourceDuration { source, duration } in values {
        let subject = subject(source.as_ref());
        if let Some(first) = seen.insert(source, duration) {
            let text = |duration| format_duration(duration_us(duration));
            return Err(ConfigError::Twice { flag, subject, first: text(first), second: text(duration) });
        }
    }
    Ok(seen)
}

/// Collects the values of `--minimum-places` by source.
///
/// # Errors
/// Returns `ConfigError::Twice` if a source has two values.
pub(super) fn unique_places(values: Vec<(Source, u8)>) -> Result<BTreeMap<Source, u8>, ConfigError> {
    let mut places = BTreeMap::new();
    for (source, second) in values {
        if let Some(first) = places.insert(source.clone(), second) {
            return Err(ConfigError::Twice {
                flag: "--minimum-places",
                subject: format!("source {source}"),
                first: first.to_string(),
                second: second.to_string(),
            });
        }
    }
    Ok(places)
}
