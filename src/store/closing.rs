//! Closing of an open sled database.

use crate::catch_panic::catch_panic;

/// The handle that closes a sled database when it is dropped.
///
/// Every owner of another sled handle must also hold this handle, and must drop the other handle first. sled writes and
/// syncs when its last handle is dropped, and panics if the write or sync fails. Data that was durable before stays
/// durable.
pub(crate) struct Closing(Option<sled::Db>);

impl Closing {
    pub(crate) fn new(db: sled::Db) -> Self {
        Self(Some(db))
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let db = self.0.take();
        if let Err(panic) = catch_panic(move || drop(db)) {
            tracing::warn!("sled panicked while it closed the store: {panic}");
        }
    }
}
