//! Walking from an error to what caused it.

use std::error::Error;
use std::iter::successors;

/// An error and its causes, outermost first.
pub fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    successors(Some(error), |error: &&'e (dyn Error + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn causes_come_after_what_they_caused() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);

        let error = Outer(io::Error::other("inner"));
        assert_eq!(causes(&error).map(ToString::to_string).collect::<Vec<_>>(), ["outer", "inner"]);
    }
}
