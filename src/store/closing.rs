//! The end of an open sled.

use crate::catch_panic::catch_panic;

/// The last handle on a sled, as long as whoever has another one has this too, and drops it later.
///
/// sled writes and syncs when it is closed, and panics if it cannot. What was made durable before is so still.
pub(crate) struct Closing(Option<sled::Db>);

impl Closing {
    pub(crate) fn new(db: sled::Db) -> Self {
        Self(Some(db))
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let db = self.0.take();
        if let Err(said) = catch_panic(move || drop(db)) {
            tracing::warn!("the store could not be closed in order: {said}");
        }
    }
}
