//! Ticks that were held instead of stored, and what was decided of each.
//!
//! **Invariant**: a decision is made once and never taken back; a note fits one line.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use super::rate::Rate;
use super::series::SeriesKey;
use super::tick::PublishedValue;
use super::time::{Timestamp, truncate_for_display};

/// A tick that lay too far from the rate in force at its own place in time. It is durable and served by no read of rates
/// until it is released.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldTick {
    /// Counts from 1 over the whole store, in the order in which ticks were held; never used again.
    pub id: u64,
    /// The pair and who published it.
    pub series: Arc<SeriesKey>,
    /// When the source showed it.
    pub observed_time: Timestamp,
    /// What it showed.
    pub value: PublishedValue,
    /// The rate that it was compared with.
    pub rate_in_force: Rate,
    /// Recorded time of the commit that held it.
    pub held_time: Timestamp,
    /// What was decided, if anything.
    pub decision: Option<Decision>,
}

impl HeldTick {
    /// The tick as it was known at `known`; none if it was not held yet.
    #[must_use]
    pub fn as_known(&self, known: Timestamp) -> Option<Self> {
        if self.held_time > known {
            return None;
        }
        let decision = self.decision.clone().filter(|decision| decision.decided_time <= known);
        Some(Self { decision, ..self.clone() })
    }

    /// What was decided by `known`: none while it is held.
    pub fn verdict_at(&self, known: Timestamp) -> Option<Verdict> {
        self.decision.as_ref().filter(|decision| decision.decided_time <= known).map(|decision| decision.verdict)
    }

    /// Whether nothing has been decided yet.
    pub const fn is_held(&self) -> bool {
        self.decision.is_none()
    }
}

/// What was decided of a held tick.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Which way.
    pub verdict: Verdict,
    /// Recorded time of its commit.
    pub decided_time: Timestamp,
    /// Why, in the words of whoever decided.
    pub note: Option<Note>,
}

/// Which way it was decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It holds: from then on it is a tick like any other.
    Released,
    /// It never held: it stays listed and is not stored when it comes again.
    Discarded,
}

/// A remark of one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note(Arc<str>);

/// Why a text is no note.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoteError {
    /// Too long, or empty.
    #[error("note of {found} characters; write 1 to {max}", max = Note::CHARS_MAX)]
    Length {
        /// Characters given.
        found: usize,
    },
    /// More than one line, or what a terminal would act on.
    #[error("note '{0}' holds control characters; write one line of plain text")]
    Control(String),
}

impl Note {
    /// Most characters.
    pub const CHARS_MAX: usize = 200;

    /// Reads one line of text, not empty.
    ///
    /// # Errors
    /// Any [`NoteError`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let found = text.chars().count();
        if !(1..=Self::CHARS_MAX).contains(&found) {
            return Err(NoteError::Length { found });
        }
        if text.chars().any(char::is_control) {
            return Err(NoteError::Control(truncate_for_display(text)));
        }
        Ok(Self(text.into()))
    }

    /// As written.
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
    fn a_note_is_one_line() {
        let check = |text: &str, expect: Option<&str>| {
            let said = Note::parse(text).err().map(|error| error.to_string());
            assert_eq!(said.is_none(), expect.is_none(), "{said:?}");
            assert!(said.zip(expect).is_none_or(|(said, part)| said.contains(part)));
        };
        check("redenomination of 2027-01-01", None);
        check("сверено с банком", None);
        check(&"я".repeat(Note::CHARS_MAX), None);
        check(&"a".repeat(Note::CHARS_MAX + 1), Some("note of 201 characters; write 1 to 200"));
        check("", Some("note of 0 characters"));
        check("two\nlines", Some("control characters"));
        check("\u{1b}[31mred", Some("control characters"));
    }
}
