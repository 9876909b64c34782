//! The calls about sources. `ListSources`: the settings of each source, their origins, and the statistics of its series and polls.
//!
//! **Invariant**: the response contains the settings in effect and no secret. The configuration refuses URLs with a
//! password.

use std::collections::{BTreeMap, BTreeSet};

use super::convert::{each, optional_note, source};
use super::error::ServiceError;
use super::rate_request::FILTER_ENTRIES_MAX;
use super::rates::{Rates, ReadTask};
use crate::domain::{CurrencySet, Health, Pair, Source};
use crate::ingest::ArchiveRequest;
use crate::proto::convert::{duration, timestamp};
use crate::proto::v1;
use crate::query::{Answer, QueryError, Reader, SourceStatistics};
use crate::sources::{Origin, Setting, SourceSettings, SourceTable};

impl Rates {
    /// Returns the task that lists the sources.
    ///
    /// # Errors
    /// Returns `InvalidArgument` if the request is invalid.
    pub fn list_sources(
        &self,
        request: &v1::ListSourcesRequest,
    ) -> Result<impl ReadTask<v1::ListSourcesResponse> + use<>, ServiceError> {
        let read = |field: &str, text: &str| {
            source(field, text)?
                .ok_or_else(|| QueryError::invalid(field, "is empty; name a source like nbkr".to_owned()))
        };
        let wanted = each("sources", &request.sources, FILTER_ENTRIES_MAX, read)?;
        let table = self.source_table();
        let served = self.currencies().clone();
        Ok(move |reader: &Reader| Ok(response(&table, &wanted, &reader.source_statistics()?, &served)))
    }
}

/// Validates a request to archive or unarchive a source.
///
/// # Errors
/// Returns `InvalidField` if the source or the note is invalid.
pub fn archive_request(name: &str, note: &str, is_archived: bool) -> Result<ArchiveRequest, ServiceError> {
    let source = source("source", name)?
        .ok_or_else(|| QueryError::invalid("source", "is empty; name a source like nbkr".to_owned()))?;
    Ok(ArchiveRequest { source, is_archived, note: optional_note(note)? })
}

fn response(
    table: &SourceTable,
    wanted: &[Source],
    answer: &Answer<BTreeMap<Source, SourceStatistics>>,
    served: &CurrencySet,
) -> v1::ListSourcesResponse {
    let names: BTreeSet<&Source> = table.named().chain(answer.body.keys()).collect();
    let listed = names.into_iter().filter(|source| wanted.is_empty() || wanted.contains(source));
    let source_statistics = |source: &Source| answer.body.get(source).cloned().unwrap_or_default();
    v1::ListSourcesResponse {
        sources: listed.map(|source| info(source, table.of(source), source_statistics(source), served)).collect(),
        sequence: answer.commit.sequence,
        recorded_time: Some(timestamp(answer.commit.recorded_time)),
    }
}

fn origin<T>(setting: &Setting<T>) -> i32 {
    match setting.origin {
        Origin::Default => v1::SettingOrigin::Default,
        Origin::File { .. } => v1::SettingOrigin::File,
        Origin::Flag => v1::SettingOrigin::Flag,
    }
    .into()
}

/// Returns the origin of a setting, or unspecified if the setting does not exist.
fn origin_or_none<T>(setting: Option<&Setting<T>>) -> i32 {
    setting.map_or(v1::SettingOrigin::Unspecified.into(), origin)
}

fn info(
    source: &Source,
    settings: &SourceSettings,
    source_statistics: SourceStatistics,
    served: &CurrencySet,
) -> v1::SourceInfo {
    let archive = source_statistics.archive;
    let is_served =
        |pair: &Pair| [pair.base(), pair.quote()].iter().all(|currency| served.iter().any(|other| other == *currency));
    let limits = settings.pair_stale_limits_us.iter().filter(|(pair, _)| is_served(pair));
    let limit = |(pair, limit): (&Pair, &Setting<i64>)| v1::PairStaleLimit {
        pair: pair.to_string(),
        stale_limit: Some(duration(limit.value)),
        stale_limit_origin: origin(limit),
    };
    let pair_stale_limits = limits.map(limit).collect();
    let feed = settings.feed.as_ref();
    let publication = feed.and_then(|feed| feed.publication_s.as_ref());
    let (poll_interval, url) = (feed.map(|feed| &feed.poll_interval_us), feed.map(|feed| &feed.url));
    let time_of_day = |seconds: u32| format!("{:02}:{:02}", seconds / 3_600, seconds / 60 % 60);
    v1::SourceInfo {
        source: source.to_string(),
        followed: feed.is_some_and(|feed| feed.is_followed.value),
        followed_origin: origin_or_none(feed.map(|feed| &feed.is_followed)),
        series_count: source_statistics.series_count,
        last_observed_time: source_statistics.last_observed_time.map(timestamp),
        last_recorded_time: source_statistics.last_recorded_time.map(timestamp),
        collapse_window: Some(duration(settings.collapse_window_us.value)),
        collapse_window_origin: origin(&settings.collapse_window_us),
        stale_limit: Some(duration(settings.stale_limit_us.value)),
        stale_limit_origin: origin(&settings.stale_limit_us),
        moving_window: Some(duration(settings.moving_window_us.value)),
        moving_window_origin: origin(&settings.moving_window_us),
        preference: settings.preference.map(|preference| preference.value),
        preference_origin: origin_or_none(settings.preference.as_ref()),
        minimum_places: settings.minimum_places.value.into(),
        minimum_places_origin: origin(&settings.minimum_places),
        pace: poll_interval.map(|interval| duration(interval.value)),
        pace_origin: origin_or_none(poll_interval),
        publication: publication.map(|publication| time_of_day(publication.value)),
        publication_origin: origin_or_none(publication),
        url: url.map(|url| url.value.clone()),
        url_origin: origin_or_none(url),
        last_poll_health: source_statistics
            .polls
            .map_or(v1::FeedHealth::Unspecified, |polls| health(polls.health))
            .into(),
        last_poll_time: source_statistics.polls.map(|polls| timestamp(polls.last_poll_time)),
        health_since_time: source_statistics.polls.map(|polls| timestamp(polls.first_poll_time)),
        quarantine_factor: settings.quarantine_factor.value.map(|factor| factor.to_string()),
        quarantine_factor_origin: origin(&settings.quarantine_factor),
        time_zone: settings.zone.value.to_string(),
        time_zone_origin: origin(&settings.zone),
        pair_stale_limits,
        archived: archive.as_ref().is_some_and(|decision| decision.is_archived),
        archived_changed_time: archive.as_ref().map(|decision| timestamp(decision.recorded_time)),
        archived_note: archive.and_then(|decision| decision.note).map(|note| note.as_str().to_owned()),
    }
}

const fn health(health: Health) -> v1::FeedHealth {
    match health {
        Health::Ok => v1::FeedHealth::Ok,
        Health::Silent => v1::FeedHealth::Silent,
        Health::Refused => v1::FeedHealth::Refused,
        Health::Unreachable => v1::FeedHealth::Unreachable,
    }
}
