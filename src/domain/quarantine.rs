//! Held ticks: ticks in quarantine instead of in their series, and the decision on each.
//!
//! **Invariant**: a decision is final. A note is one line of text.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::rate::Rate;
use super::series::SeriesKey;
use super::text::is_unprintable;
use super::tick::PublishedValue;
use super::time::{Timestamp, truncate_for_display};

/// A tick in quarantine, because its rate was too far from the rate in force at its observed time. It is stored durably
/// and excluded from all reads of rates until it is released.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldTick {
    /// Number of the held tick. Numbers count from 1 over the whole store, in the order in which ticks were held. A
    /// number is never reused.
    pub id: u64,
    /// The series of the tick.
    pub series: Arc<SeriesKey>,
    /// The time at which the source showed the value.
    pub observed_time: Timestamp,
    /// The value that the source showed.
    pub value: PublishedValue,
    /// The rate in force with which the tick was compared.
    pub rate_in_force: Rate,
    /// The recorded time of the commit that put the tick into quarantine.
    pub held_time: Timestamp,
    /// The decision; `None` if the tick is still held.
    pub decision: Option<Decision>,
}

impl HeldTick {
    /// Returns the held tick as known at `known_time`. A decision that was made later is left out. Returns `None` if
    /// the tick was not in quarantine yet.
    #[must_use]
    pub fn as_known(&self, known_time: Timestamp) -> Option<Self> {
        if self.held_time > known_time {
            return None;
        }
        let decision = self.decision.clone().filter(|decision| decision.decided_time <= known_time);
        Some(Self { decision, ..self.clone() })
    }

    /// Returns the verdict as known at `known_time`; `None` if the tick was still held.
    pub fn verdict_at(&self, known_time: Timestamp) -> Option<Verdict> {
        self.decision.as_ref().filter(|decision| decision.decided_time <= known_time).map(|decision| decision.verdict)
    }

    /// Returns true if there is no decision yet.
    pub const fn is_held(&self) -> bool {
        self.decision.is_none()
    }
}

/// The decision of an operator on a held tick.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Whether the tick was released or discarded.
    pub verdict: Verdict,
    /// The recorded time of the commit of the decision.
    pub decided_time: Timestamp,
    /// The reason that the operator wrote, if any.
    pub note: Option<Note>,
}

/// The two outcomes of a decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The rate is correct. The tick is stored in its series, like any other tick.
    Released,
    /// The rate is wrong. The tick stays listed, and the same tick is not stored when it is received again.
    Discarded,
}

/// A note on a decision: one line of text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note(Arc<str>);

/// Why a text is not a valid note.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoteError {
    /// The text is empty or too long.
    #[error("note has {found} characters; write 1 to {max}", max = Note::CHARS_MAX)]
    Length {
        /// The number of characters of the text.
        found: usize,
    },
    /// The text has control characters, such as a line break or a terminal escape sequence, or invisible characters, such
    /// as those that change the reading direction.
    #[error("note '{0}' contains control characters or invisible characters; write one line of plain text")]
    Control(String),
}

impl Note {
    /// Largest number of characters.
    pub const CHARS_MAX: usize = 200;

    /// Parses a note of one to [`Self::CHARS_MAX`] characters.
    ///
    /// # Errors
    /// `Length` if the text is empty or too long; `Control` if it has control characters.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let found = text.chars().count();
        if !(1..=Self::CHARS_MAX).contains(&found) {
            return Err(NoteError::Length { found });
        }
        if text.chars().any(is_unprintable) {
            return Err(NoteError::Control(truncate_for_display(text)));
        }
        Ok(Self(text.into()))
    }

    /// Returns the text of the note.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn note_is_one_line_of_at_most_200_characters() {
        let check = |text: &str, expect: Option<&str>| {
            let error = Note::parse(text).err().map(|error| error.to_string());
            assert_eq!(error.is_none(), expect.is_none(), "{error:?}");
            assert!(error.zip(expect).is_none_or(|(error, part)| error.contains(part)));
        };
        check("redenomination of 2027-01-01", None);
        check("сверено с банком", None);
        check(&"я".repeat(Note::CHARS_MAX), None);
        check(&"a".repeat(Note::CHARS_MAX + 1), Some("note has 201 characters; write 1 to 200"));
        check("", Some("note has 0 characters"));
        check("two\nlines", Some("control characters"));
        check("\u{1b}[31mred", Some("control characters"));
        for hidden in ['\u{ad}', '\u{200b}', '\u{200e}', '\u{2028}', '\u{202e}', '\u{2066}', '\u{feff}'] {
            check(&format!("a{hidden}b"), Some("invisible characters"));
        }
    }
}
