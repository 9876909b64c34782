//! The chain of causes of an error.

use std::error::Error;
use std::iter::successors;

/// Returns the error and its causes, outermost first.
pub fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    successors(Some(error), |error: &&'e (dyn Error + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn causes_start_with_outermost_error() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);

        let error = Outer(io::Error::other("inner"));
        assert_eq!(causes(&error).map(ToString::to_string).collect::<Vec<_>>(), ["outer", "inner"]);
    }
}
