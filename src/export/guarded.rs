//! Reading of bytes that may be damaged, on which the libraries may panic.
//!
//! **Invariant**: a panic of such a reader is an error to its caller, and nothing is printed.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is caught below.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Panics of guarded threads are told of by their caller, all others as they were before.
static HOOK: Once = Once::new();

/// Turns a panic of `read` into an error.
pub(in crate::export) fn guarded<T, E: ToString>(read: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_GUARDED.get() {
                before(panic);
            }
        }));
    });
    let outer = IS_GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(read));
    IS_GUARDED.set(outer);
    match result {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("it does not decode".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error() {
        let told = |read: fn() -> Result<u8, String>| guarded(read);
        assert_eq!(told(|| Ok(1)), Ok(1));
        assert_eq!(told(|| Err("cut off".to_owned())), Err("cut off".to_owned()));
        assert_eq!(told(|| panic!("a page")), Err("it does not decode".to_owned()));
        assert!(!IS_GUARDED.get());
    }
}
