//! What protects a server: access control, TLS and the audit log, with their background tasks.
//!
//! **Invariant**: both listeners share one access control and one certificate.

use std::path::Path;
use std::sync::Arc;

use tokio::task;
use tokio::time::{MissedTickBehavior, interval};

use super::ServeError;
use super::reload::{self, Reloaded};
use crate::access::Access;
use crate::audit::{AUDIT_SYNC_INTERVAL, Audit};
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::AccessMetrics;
use crate::tls::Acceptor;

/// The protection of a running server. Dropping it stops its tasks.
pub(super) struct Guard {
    pub(super) access: Access,
    pub(super) acceptor: Acceptor,
    pub(super) audit: Option<Audit>,
    pub(super) metrics: AccessMetrics,
    /// The scheme of addresses: `http` or `https`.
    pub(super) scheme: &'static str,
    _tasks: [AbortOnDrop; 2],
}

impl Guard {
    /// Opens the audit log, and starts to read changed files again and to sync the audit log.
    pub(super) fn start(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self, ServeError> {
        let metrics = AccessMetrics::default();
        let access = Access::new(config.access().clone(), Arc::clone(clock), metrics.clone());
        let tls = config.tls().cloned();
        if let Some(tls) = &tls {
            metrics.set_certificate_expiry(tls.not_after_s());
        }
        let scheme = if tls.is_some() { "https" } else { "http" };
        let audit = config.audit_log().map(|path| open_audit(path, clock, &metrics)).transpose()?;
        let acceptor = Acceptor::new(tls.clone(), metrics.clone());
        let reloaded = Reloaded { access: access.clone(), tls, metrics: metrics.clone() };
        let tasks = [task::spawn(reload::watch(reloaded)), task::spawn(sync_audit(audit.clone()))];
        Ok(Self { access, acceptor, audit, metrics, scheme, _tasks: tasks.map(AbortOnDrop) })
    }

    /// Syncs the audit log. Blocks the thread.
    pub(super) fn sync(self) {
        if let Some(audit) = &self.audit {
            audit.sync();
        }
    }
}

fn open_audit(path: &Path, clock: &Arc<dyn Clock>, metrics: &AccessMetrics) -> Result<Audit, ServeError> {
    Audit::open(path, Arc::clone(clock), metrics.clone())
        .map_err(|problem| ServeError::Audit { path: path.to_owned(), problem })
}

/// Syncs the audit log at its interval until the future is dropped.
async fn sync_audit(audit: Option<Audit>) {
    let Some(audit) = audit else { return };
    let mut ticks = interval(AUDIT_SYNC_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let audit = audit.clone();
        // A panic has been logged, and the next tick tries again.
        let _ = task::spawn_blocking(move || audit.sync()).await;
    }
}

/// A task that is aborted when its handle is dropped.
pub(super) struct AbortOnDrop(pub(super) task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
