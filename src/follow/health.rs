//! What polls say of a feed.
//!
//! **Invariant**: the health of a feed is that of its last poll; only a change of it is news.

use crate::domain::Health;

/// What a poll came to. Of several answers, the last in this order counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// Nothing that was not known.
    Unchanged,
    /// Ticks that were news.
    Taken,
    /// No rates for now.
    Silent,
    /// Read, and the writer could not take it: no fault of the feed.
    NotStored,
    /// As the health of that name.
    Refused,
    /// As the health of that name.
    Unreachable,
}

impl Outcome {
    /// Its name in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Taken => "taken",
            Self::Silent => "silent",
            Self::NotStored => "not_stored",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
        }
    }

    /// What it says of the feed; nothing where the fault is here.
    pub const fn health(self) -> Option<Health> {
        match self {
            Self::Unchanged | Self::Taken => Some(Health::Ok),
            Self::Silent => Some(Health::Silent),
            Self::NotStored => None,
            Self::Refused => Some(Health::Refused),
            Self::Unreachable => Some(Health::Unreachable),
        }
    }
}
