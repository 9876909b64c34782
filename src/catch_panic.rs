//! Calls into libraries that panic on some damage where they might return an error: sled, and the readers of files.
//!
//! **Invariant**: such a panic ends here, as an error that says what the panic said, and prints nothing;
//! every other panic of the process is reported as it would be without this.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside [`catch_panic`].
    static IS_CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `call`.
///
/// What `call` changed half-way must not be used after a panic.
///
/// # Errors
/// What a panic of `call` said.
pub fn catch_panic<R>(call: impl FnOnce() -> R) -> Result<R, String> {
    quieten();
    let outer = IS_CATCHING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    IS_CATCHING.set(outer);
    result.map_err(|said| message(&*said).to_owned())
}

/// Keeps panics that will be caught from being printed as if the process were about to end.
fn quieten() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let otherwise = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_CATCHING.get() {
                otherwise(panic);
            }
        }));
    });
}

fn message(said: &(dyn Any + Send)) -> &str {
    said.downcast_ref::<&str>()
        .copied()
        .or_else(|| said.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it gave no reason")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_what_it_said() {
        assert_eq!(catch_panic(|| 5), Ok(5));
        assert_eq!(catch_panic(|| panic!("a page is gone")), Err::<(), _>("a page is gone".to_owned()));
        let page = 7;
        assert_eq!(catch_panic(|| panic!("page {page} is gone")), Err::<(), _>("page 7 is gone".to_owned()));
        assert!(!IS_CATCHING.get());
    }
}
