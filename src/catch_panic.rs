//! A `catch_unwind` wrapper for calls into libraries that panic on damaged input instead of returning an error: sled
//! and the file readers.
//!
//! **Invariant**: a panic inside [`catch_panic`] becomes an error with the panic's message, and nothing is printed.
//! Every other panic of the process reaches the hook that was installed before the hook of this module.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// True while this thread is inside [`catch_panic`].
    static IS_CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `call` and turns a panic into an error.
///
/// After a panic, the caller must not use any state that `call` was changing.
///
/// # Errors
/// Returns the message of the panic if `call` panics.
pub fn catch_panic<R>(call: impl FnOnce() -> R) -> Result<R, String> {
    silence_caught_panics();
    let outer = IS_CATCHING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    IS_CATCHING.set(outer);
    result.map_err(|payload| message(&*payload).to_owned())
}

/// Installs a panic hook, once. Inside [`catch_panic`] the hook prints nothing; elsewhere it calls the previous hook.
fn silence_caught_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_CATCHING.get() {
                previous(panic);
            }
        }));
    });
}

fn message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_becomes_error_with_its_message() {
        assert_eq!(catch_panic(|| 5), Ok(5));
        assert_eq!(catch_panic(|| panic!("a page is gone")), Err::<(), _>("a page is gone".to_owned()));
        let page = 7;
        assert_eq!(catch_panic(|| panic!("page {page} is gone")), Err::<(), _>("page 7 is gone".to_owned()));
        assert!(!IS_CATCHING.get());
    }
}
