//! Reads that must not block: within [`memory_only`], a read of the disk is refused instead of made.
//!
//! **Invariant**: code within [`memory_only`] never waits for the disk, whatever it calls.

use std::cell::Cell;

thread_local! {
    static IS_MEMORY_ONLY: Cell<bool> = const { Cell::new(false) };
}

/// Runs `read` on this thread without disk reads. A block that is not in memory is the error
/// [`NotInMemory`](super::StoreError::NotInMemory).
pub fn memory_only<T>(read: impl FnOnce() -> T) -> T {
    /// Ends the restriction, even if `read` panics.
    struct End(bool);

    impl Drop for End {
        fn drop(&mut self) {
            IS_MEMORY_ONLY.set(self.0);
        }
    }

    let _end = End(IS_MEMORY_ONLY.replace(true));
    read()
}

/// Returns true if this thread must not read the disk now.
pub(super) fn is_memory_only() -> bool {
    IS_MEMORY_ONLY.get()
}
