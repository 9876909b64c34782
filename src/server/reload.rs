//! The task that reads changed files again: the tokens, and the certificates of TLS.
//!
//! The content is compared every two seconds, so it does not matter whether a file is written in place, replaced by a
//! rename, or reached through a symbolic link that changes, as in Kubernetes. SIGHUP, which would otherwise end the
//! process, makes the task read the files at once.
//!
//! **Invariant**: a file that cannot be used changes nothing.

use std::future::pending;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task;
use tokio::time::{MissedTickBehavior, interval};

use crate::access::Access;
use crate::metrics::AccessMetrics;
use crate::tls::Tls;

/// Interval at which files are read. A revoked token is refused after this time at the latest.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// What is read again.
#[derive(Clone)]
pub(super) struct Reloaded {
    pub(super) access: Access,
    pub(super) tls: Option<Tls>,
    pub(super) metrics: AccessMetrics,
}

impl Reloaded {
    fn reload(&self) {
        self.access.reload();
        if let Some(tls) = &self.tls {
            tls.reload(&self.metrics);
        }
    }
}

/// Reads changed files again until the future is dropped.
pub(super) async fn watch(reloaded: Reloaded) {
    let mut ticks = interval(RELOAD_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hangups = signal(SignalKind::hangup())
        .inspect_err(|error| tracing::warn!(%error, "cannot wait for SIGHUP; changed files are still read"))
        .ok();
    loop {
        let hangup = async {
            match &mut hangups {
                Some(hangups) => hangups.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = ticks.tick() => {}
            _ = hangup => tracing::info!("SIGHUP: reading changed files"),
        }
        let reloaded = reloaded.clone();
        // A panic has been logged, and the next tick tries again.
        let _ = task::spawn_blocking(move || reloaded.reload()).await;
    }
}
