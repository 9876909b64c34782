//! Following publishers: when each is asked, what of, and what came of it.
//!
//! A source has a [`Follower`], and a task of its own that runs it: one that hangs or fails costs the others nothing.
//! When to ask next ([`plan`]) and what of ([`FollowedSource::targets`]) are pure functions of the time; only
//! [`fetch`] speaks to the network. What was read goes to the writer like any other batch.
//!
//! **Invariant**: nothing of a body that cannot be read whole goes in, and nothing here changes what is stored
//! already. A change of a feed's health is logged once, and a poll that changes nothing is not logged at all.

mod address_policy;
pub mod fetch;
mod follower;
mod health;
pub mod poll_schedule;
mod source;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use crate::domain::Health;
pub use address_policy::AddressPolicy;
pub use fetch::{FetchError, FetchLimits, Fetched, Fetcher, Validators};
pub use follower::{FollowContext, Follower};
pub use health::Outcome;
pub use poll_schedule::{Schedule, ScheduleError};
pub use source::{FeedUrl, FeedUrlError, FetchTarget, FollowedSource, FollowedSourceError};

/// Which sources are followed, and where.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FollowSettings {
    /// Each once.
    pub sources: Vec<FollowedSource>,
    /// URLs in place of publishers' own, at most one a source.
    pub urls: Vec<FeedUrl>,
    /// In place of what is built in, at most one a source.
    pub schedules: Vec<(FollowedSource, Schedule)>,
}

impl FollowSettings {
    /// Where a source is asked, and how far that may lead.
    pub fn place(&self, source: FollowedSource) -> (&str, AddressPolicy) {
        match self.urls.iter().find(|url| url.source == source) {
            Some(url) => (&url.base_url, AddressPolicy::Any),
            None => (source.base_url(), AddressPolicy::Public),
        }
    }

    /// How often a source is asked.
    pub fn schedule(&self, source: FollowedSource) -> Schedule {
        let own = self.schedules.iter().find(|(of, _)| *of == source);
        own.map_or_else(|| Schedule::of(source), |(_, schedule)| *schedule)
    }
}

/// Follows every source of `settings` until `stop` says so, or the tasks are dropped.
///
/// # Errors
/// `SetUp`, where TLS is not to be had: then no source is followed.
pub fn start(
    settings: &FollowSettings,
    context: &FollowContext,
    stop: &CancellationToken,
) -> Result<JoinSet<()>, FetchError> {
    let mut followers = Vec::new();
    for source in &settings.sources {
        let (base_url, address_policy) = settings.place(*source);
        let fetcher = Fetcher::new(address_policy, FetchLimits::default())?;
        let follower = Follower::new(*source, base_url, fetcher, context.clone());
        followers.push(follower.with_schedule(settings.schedule(*source)));
        tracing::info!("following {source} at {base_url}");
    }
    let mut tasks = JoinSet::new();
    for follower in followers {
        tasks.spawn(follower.run(stop.clone()));
    }
    Ok(tasks)
}
