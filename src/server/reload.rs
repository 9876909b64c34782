//! The task that reads changed files again: the tokens.
//!
//! The content is compared every two seconds, so it does not matter whether a file is written in place, replaced by a
//! rename, or reached through a symbolic link that changes, as in Kubernetes.
//!
//! **Invariant**: a file that cannot be used changes nothing.

use std::time::Duration;

use tokio::task;
use tokio::time::{MissedTickBehavior, interval};

use crate::access::Access;

/// Interval at which files are read. A revoked token is refused after this time at the latest.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// Reads changed files again until the future is dropped.
pub(super) async fn watch(access: Access) {
    let mut ticks = interval(RELOAD_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let access = access.clone();
        // A panic has been logged, and the next tick tries again.
        let _ = task::spawn_blocking(move || access.reload()).await;
    }
}
