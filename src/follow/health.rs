//! Outcome of a poll, and the health of the feed after this outcome.
//!
//! **Invariant**: the health of a feed is the health of its last poll. Only a change of health is logged.

use crate::domain::Health;

/// Outcome of a poll or of one fetch of a poll. The outcomes are in order of precedence, the lowest first. If a poll
/// has several fetches, the outcome with the highest precedence is the outcome of the poll.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// Nothing new: the response has only known ticks, or the table of tomorrow is not available yet.
    Unchanged,
    /// The response has new ticks, and they are stored.
    Taken,
    /// The publisher answered, but has no rates at the moment.
    Silent,
    /// The response is valid, but the writer did not store it. The feed is not at fault.
    NotStored,
    /// The publisher refused the request, or silkrate refused the response or at least one of its quotes.
    Refused,
    /// The publisher was not reached, did not answer completely in time, or answered with a server error.
    Unreachable,
}

impl Outcome {
    /// Returns the value of the label `outcome` in metrics.
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

    /// The health of the feed after this outcome; `None` if the fault is on this server.
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
