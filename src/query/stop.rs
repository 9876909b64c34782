//! How a scan learns that nobody waits for it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::QueryError;

/// Whether the caller has gone. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Stops when the guard is dropped: kept by the caller for as long as it waits.
    pub fn on_drop(&self) -> StopGuard {
        StopGuard(self.clone())
    }

    /// Asked between pieces of a long scan.
    ///
    /// # Errors
    /// `Stopped` once the caller has gone.
    pub fn check(&self) -> Result<(), QueryError> {
        // Nothing else is handed over with the flag, so no ordering is needed.
        if self.0.load(Ordering::Relaxed) { Err(QueryError::Stopped) } else { Ok(()) }
    }
}

/// Stops the scan of its [`Stop`] when dropped.
#[derive(Debug)]
pub struct StopGuard(Stop);

impl Drop for StopGuard {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}
