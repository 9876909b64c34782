//! What protects a server: access control, TLS and the audit log, with their background tasks.
//!
//! **Invariant**: both listeners share one access control and one certificate.

use std::path::Path;
use std::sync::Arc;

use tokio::task;

use super::ServeError;
use super::reload::{self, Reloaded};
use crate::access::Access;
use crate::audit::Audit;
use crate::clock::Clock;
use crate::config::Config;
use crate::metrics::AccessMetrics;
use crate::tls::Acceptor;

/// The protection of a running server. Dropping it stops its tasks.
pub(super) struct Security {
    pub(super) access: Access,
    pub(super) acceptor: Acceptor,
    pub(super) audit: Option<Audit>,
    pub(super) metrics: AccessMetrics,
    /// The scheme of addresses: `http` or `https`.
    pub(super) scheme: &'static str,
    _tasks: Vec<AbortOnDrop>,
}

impl Security {
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
        let mut tasks = vec![AbortOnDrop(task::spawn(reload::watch(reloaded)))];
        tasks.extend(audit.clone().map(|audit| AbortOnDrop(task::spawn(audit.sync_regularly()))));
        Ok(Self { access, acceptor, audit, metrics, scheme, _tasks: tasks })
    }

    /// Waits for the last lines of the audit log.
    pub(super) async fn finish(self) {
        if let Some(audit) = &self.audit {
            audit.finish().await;
        }
    }
}

fn open_audit(path: &Path, clock: &Arc<dyn Clock>, metrics: &AccessMetrics) -> Result<Audit, ServeError> {
    Audit::open(path, Arc::clone(clock), metrics.clone())
        .map_err(|problem| ServeError::Audit { path: path.to_owned(), problem })
}

/// A task that is aborted when its handle is dropped.
pub(super) struct AbortOnDrop(pub(super) task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
