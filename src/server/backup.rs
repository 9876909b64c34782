//! The task that makes the backups of `[backup]`.

use std::sync::Arc;

use tokio::task::{self, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::backup::{BackupError, Schedule};
use crate::clock::Clock;
use crate::config::Config;
use crate::ingest::Ingest;
use crate::metrics::BackupMetrics;

/// Starts the backups, if they are configured. They end when `draining` is cancelled.
pub(super) fn start(
    config: &Config,
    ingest: &Ingest,
    clock: &Arc<dyn Clock>,
    metrics: BackupMetrics,
    draining: &CancellationToken,
) -> Result<Option<JoinHandle<()>>, BackupError> {
    let Some(settings) = config.backup().cloned() else { return Ok(None) };
    tracing::info!("backing up to {} every {} s", settings.to, settings.every.as_secs());
    let schedule = Schedule::new(settings, ingest.clone(), Arc::clone(clock), metrics)?;
    Ok(Some(task::spawn(schedule.run(draining.clone()))))
}

/// Waits until a backup in progress has been given up and the last commits are archived.
pub(super) async fn finish(backing_up: Option<JoinHandle<()>>, draining: &CancellationToken) {
    draining.cancel();
    if let Some(task) = backing_up
        && task.await.is_err()
    {
        tracing::warn!("the task of the backups failed with a panic; see the log for its message");
    }
}
