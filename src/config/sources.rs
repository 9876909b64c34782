//! The settings of sources, put together from flags, the configuration file and what is built in.
//!
//! **Invariant**: what is said of a source goes before what is said of all others, and of either a flag before the file,
//! and that before what is built in. So the seven days of a bank's collapse window are changed only by who names the bank.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ConfigError;
use super::file::{FileFeed, FileSettings};
use super::value::{SourceDuration, subject};
use crate::domain::{RatioThreshold, Source, duration_us, whole_length};
use crate::follow::{FeedUrl, FollowSettings, FollowedSource};
use crate::ingest::QuarantineRules;
use crate::latest_quotes::StateRules;
use crate::sources::{FeedSettings, Origin, Setting, SourceSettings, SourceTable};

const MOVING_WINDOW_DEFAULT: Duration = Duration::from_hours(24);

/// What flags say of sources, each at most once.
#[derive(Debug, Default)]
pub(super) struct SourceFlags {
    /// Of one source, or of all others.
    pub(super) collapse_window: BTreeMap<Option<Source>, Duration>,
    pub(super) stale_limit: BTreeMap<Option<Source>, Duration>,
    pub(super) minimum_places: BTreeMap<Source, u8>,
    /// A factor of none holds nothing.
    pub(super) quarantine_factor: BTreeMap<Option<Source>, Option<RatioThreshold>>,
    /// Nothing where the file is to say what is followed.
    pub(super) follow: FollowSettings,
}

/// The banks of the five countries, whose official rates are published once a working day.
fn is_bank(followed: Option<FollowedSource>) -> bool {
    followed.is_some_and(|followed| !followed.bank_feeds().is_empty())
}

/// A length of time of one source.
struct Lengths<'a> {
    flags: &'a BTreeMap<Option<Source>, Duration>,
    file_others: Option<Setting<Duration>>,
    /// In microseconds.
    built_in: fn(&SourceSettings) -> Setting<i64>,
}

impl Lengths<'_> {
    fn others(&self) -> Setting<i64> {
        let flag = self.flags.get(&None).copied().map(Setting::flag);
        let said = flag.or(self.file_others).map(|said| said.map(duration_us));
        said.unwrap_or_else(|| (self.built_in)(&SourceSettings::BUILT_IN))
    }

    fn of(&self, source: &Source, file: Option<Setting<Duration>>, is_bank: bool) -> Setting<i64> {
        let flag = self.flags.get(&Some(source.clone())).copied().map(Setting::flag);
        let said = flag.or(file).map(|said| said.map(duration_us));
        let bank = is_bank.then(|| (self.built_in)(&SourceSettings::BUILT_IN_BANK));
        said.or(bank).unwrap_or_else(|| self.others())
    }
}

/// Puts together what is said of each source.
///
/// # Errors
/// `Preference`, which a file that was read does not come to.
pub(super) fn table(flags: &SourceFlags, file: &FileSettings) -> Result<SourceTable, ConfigError> {
    let windows = Lengths {
        flags: &flags.collapse_window,
        file_others: file.others.collapse_window,
        built_in: |settings| settings.collapse_window_us,
    };
    let limits = Lengths {
        flags: &flags.stale_limit,
        file_others: file.others.stale_limit,
        built_in: |settings| settings.stale_limit_us,
    };
    let other_factor =
        factor(flags, None, file.others.quarantine_factor).unwrap_or(SourceSettings::BUILT_IN.quarantine_factor);
    let mut names: BTreeSet<Source> =
        FollowedSource::ALL.iter().filter_map(|followed| followed.source().ok()).collect();
    names.extend(flags.collapse_window.keys().chain(flags.stale_limit.keys()).flatten().cloned());
    names.extend(flags.quarantine_factor.keys().flatten().cloned());
    names.extend(flags.minimum_places.keys().chain(file.sources.keys()).cloned());
    let of_each = names.into_iter().map(|source| {
        let said = file.sources.get(&source);
        let followed = FollowedSource::parse(source.as_str()).ok();
        let is_bank = is_bank(followed);
        let settings = SourceSettings {
            collapse_window_us: windows.of(&source, said.and_then(|said| said.collapse_window), is_bank),
            stale_limit_us: limits.of(&source, said.and_then(|said| said.stale_limit), is_bank),
            minimum_places: {
                let flag = flags.minimum_places.get(&source).copied().map(Setting::flag);
                flag.or(said.and_then(|said| said.minimum_places))
                    .unwrap_or(Setting::built_in(built_in_places(followed)))
            },
            quarantine_factor: factor(flags, Some(&source), said.and_then(|said| said.quarantine_factor))
                .unwrap_or(other_factor),
            preference: said.and_then(|said| said.preference),
            feed: followed.map(|followed| feed(followed, &flags.follow, said.and_then(|said| said.feed.as_ref()))),
        };
        (source, settings)
    });
    let others = SourceSettings {
        collapse_window_us: windows.others(),
        stale_limit_us: limits.others(),
        quarantine_factor: other_factor,
        ..SourceSettings::BUILT_IN
    };
    Ok(SourceTable::new(others, of_each.collect())?)
}

/// What is said of a source, or of all others.
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

fn feed(followed: FollowedSource, flags: &FollowSettings, file: Option<&FileFeed>) -> FeedSettings {
    let silent = FileFeed::silent(followed);
    let file = file.unwrap_or(&silent);
    let is_followed = if flags.sources.is_empty() {
        file.follow.unwrap_or(Setting::built_in(false))
    } else {
        Setting::flag(flags.sources.contains(&followed))
    };
    let url = flags.urls.iter().find(|url| url.source == followed).map(|url| Setting::flag(url.base_url.clone()));
    FeedSettings {
        is_followed,
        poll_interval_us: Setting { value: duration_us(file.schedule.poll_interval()), origin: file.pace },
        publication_s: file.schedule.publication_s().map(|value| Setting { value, origin: file.publication }),
        url: url.or(file.url.clone()).unwrap_or_else(|| Setting::built_in(followed.base_url().to_owned())),
    }
}

/// What is followed, where, and how often: as `table` has it.
pub(super) fn follow_settings(table: &SourceTable, file: &FileSettings) -> FollowSettings {
    let mut settings = FollowSettings::default();
    for followed in FollowedSource::ALL {
        let Some((source, feed)) =
            followed.source().ok().and_then(|source| Some((source.clone(), table.of(&source).feed.as_ref()?)))
        else {
            continue;
        };
        if feed.is_followed.value {
            settings.sources.push(followed);
        }
        // The publisher's own keeps to the public network, whoever repeats it.
        if feed.url.value != followed.base_url() {
            settings.urls.push(FeedUrl { source: followed, base_url: feed.url.value.clone() });
        }
        if let Some(said) = file.sources.get(&source).and_then(|said| said.feed.as_ref()) {
            settings.schedules.push((followed, said.schedule));
        }
    }
    settings
}

/// Collapse windows and stale limits of sources named, in microseconds.
pub(super) fn named_us(table: &SourceTable, setting: fn(&SourceSettings) -> Setting<i64>) -> BTreeMap<Source, i64> {
    table.named().map(|source| (source.clone(), setting(table.of(source)).value)).collect()
}

/// Places asked for; what is built in is the business of who reads a bank's tables.
pub(super) fn minimum_places(table: &SourceTable) -> BTreeMap<Source, u8> {
    let of_each = table.named().map(|source| (source, table.of(source).minimum_places));
    let asked = of_each.filter(|(_, places)| places.origin != Origin::Default);
    asked.map(|(source, places)| (source.clone(), places.value)).collect()
}

/// Which ticks of such sources are held.
pub(super) fn quarantine(table: &SourceTable) -> QuarantineRules {
    let named = table.named().map(|source| (source.clone(), table.of(source).quarantine_factor.value));
    QuarantineRules::new(table.others().quarantine_factor.value, named.collect())
}

/// The rules of states of such sources.
pub(super) fn state_rules(table: &SourceTable, moving_window: Duration) -> StateRules {
    StateRules {
        stale_limit_default_us: table.others().stale_limit_us.value,
        stale_limits_us: named_us(table, |settings| settings.stale_limit_us),
        moving_window_us: duration_us(moving_window),
    }
}

/// The rules of states that a server has unless it is told others.
pub fn default_state_rules() -> StateRules {
    let banks = FollowedSource::ALL.into_iter().filter(|followed| is_bank(Some(*followed)));
    let limit_us = SourceSettings::BUILT_IN_BANK.stale_limit_us.value;
    StateRules {
        stale_limit_default_us: SourceSettings::BUILT_IN.stale_limit_us.value,
        stale_limits_us: banks.filter_map(|bank| Some((bank.source().ok()?, limit_us))).collect(),
        moving_window_us: duration_us(MOVING_WINDOW_DEFAULT),
    }
}

/// What `flag` says of each source, and of all others.
pub(super) fn each_once(
    flag: &'static str,
    given: Vec<SourceDuration>,
) -> Result<BTreeMap<Option<Source>, Duration>, ConfigError> {
    let mut seen: BTreeMap<Option<Source>, Duration> = BTreeMap::new();
    for SourceDuration { source, duration } in given {
        let subject = subject(source.as_ref());
        if let Some(first) = seen.insert(source, duration) {
            let text = |duration| whole_length(duration_us(duration));
            return Err(ConfigError::Twice { flag, subject, first: text(first), second: text(duration) });
        }
    }
    Ok(seen)
}

/// The places of each source.
pub(super) fn places_once(given: Vec<(Source, u8)>) -> Result<BTreeMap<Source, u8>, ConfigError> {
    let mut places = BTreeMap::new();
    for (source, second) in given {
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
