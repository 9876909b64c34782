//! Following publishers: a poll schedule, fetches and feed health for each source.
//!
//! Feeds are independent: each source has a [`Follower`] in its own task, so a slow or failing feed does not delay
//! others. The time of the next poll ([`poll_schedule`]) and the fetch targets of a poll ([`FollowedSource::targets`])
//! are pure functions of the time. Only [`fetch`] accesses the network. The ticks of a body go to the writer as a
//! batch, like ticks of a client.
//!
//! **Invariant**: a body that is not complete and valid is refused as a whole. A follower never changes a stored value.
//! A change of a feed's health is logged once, and a poll without a change is not logged.

mod address_policy;
mod content_coding;
pub mod fetch;
mod follower;
mod health;
pub mod poll_schedule;
mod source;
mod user_agent;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use crate::domain::Health;
use crate::domain::SeriesKey;
pub use address_policy::AddressPolicy;
pub use fetch::{FetchError, FetchLimits, Fetched, Fetcher, Validators};
pub use follower::{FollowContext, Follower};
pub use health::Outcome;
pub use poll_schedule::{Schedule, ScheduleError};
pub use source::{FeedUrl, FeedUrlError, FetchTarget, FollowedSource, FollowedSourceError};
pub use user_agent::{UserAgent, UserAgentError};

/// The followed sources, with their URLs and poll schedules.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FollowSettings {
    /// Followed sources, each once.
    pub sources: Vec<FollowedSource>,
    /// URLs that replace the publishers' own URLs, at most one for each source.
    pub urls: Vec<FeedUrl>,
    /// Schedules that replace the built-in ones, at most one for each source.
    pub schedules: Vec<(FollowedSource, Schedule)>,
    /// Stale limits of series that differ from the limit of their source, microseconds. The validity that a bank declares
    /// is compared with them.
    pub stale_limits_us: BTreeMap<SeriesKey, i64>,
    /// The `User-Agent` header of all requests.
    pub user_agent: UserAgent,
}

impl FollowSettings {
    /// Returns the base URL of a source, and the address policy of its fetches.
    pub fn endpoint(&self, source: FollowedSource) -> (&str, AddressPolicy) {
        match self.urls.iter().find(|url| url.source == source) {
            Some(url) => (&url.base_url, AddressPolicy::Any),
            None => (source.base_url(), AddressPolicy::Public),
        }
    }

    /// Returns the poll schedule of a source: the configured one, or else the built-in one.
    pub fn schedule(&self, source: FollowedSource) -> Schedule {
        let configured = self.schedules.iter().find(|(followed, _)| *followed == source);
        configured.map_or_else(|| Schedule::of(source), |(_, schedule)| *schedule)
    }
}

/// Starts a task for each source of `settings`. The tasks end when `stop` is cancelled or the returned set is dropped.
///
/// # Errors
/// Returns `FetchError::SetUp` if TLS cannot be set up. Then no source is followed.
pub fn start(
    settings: &FollowSettings,
    context: &FollowContext,
    stop: &CancellationToken,
) -> Result<JoinSet<()>, FetchError> {
    let stale_limits_us = Arc::new(settings.stale_limits_us.clone());
    let mut followers = Vec::new();
    for source in &settings.sources {
        let (base_url, address_policy) = settings.endpoint(*source);
        let fetcher = Fetcher::new(address_policy, FetchLimits::default(), &settings.user_agent)?;
        let follower =
            Follower::new(*source, base_url, fetcher, context.clone()).with_stale_limits(Arc::clone(&stale_limits_us));
        followers.push(follower.with_schedule(settings.schedule(*source)));
        tracing::info!("following {source} at {base_url}");
    }
    let mut tasks = JoinSet::new();
    for follower in followers {
        tasks.spawn(follower.run(stop.clone()));
    }
    Ok(tasks)
}
