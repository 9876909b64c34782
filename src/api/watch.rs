//! The call `WatchLatestRates`: which message a watcher gets for each commit.
//!
//! **Invariants**: the rates that a client has after a message equal the response of `GetLatestRates` at the sequence
//! of the message. A commit that changes nothing for the watcher sends nothing. A watcher stores no quotes.

use std::time::Duration;

use super::convert::length_us;
use super::error::ServiceError;
use crate::domain::Timestamp;
use crate::latest_quotes::LatestQuotes;
use crate::proto::convert::timestamp;
use crate::proto::v1;
use crate::query::{QueryError, SeriesFilter};

/// The heartbeat interval if the request does not set one.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(30);
/// The shortest heartbeat interval of a request, seconds.
const HEARTBEAT_MIN_S: u64 = 1;
/// The longest heartbeat interval of a request, seconds. Proxies close connections that are silent for longer.
const HEARTBEAT_MAX_S: u64 = 180;

/// Returns the heartbeat interval: a watch sends a heartbeat if it sent no message for this time.
///
/// # Errors
/// Returns `InvalidArgument` for the field `heartbeat_interval` outside 1 to 180 s, both inclusive.
pub(super) fn heartbeat_interval(requested: Option<prost_types::Duration>) -> Result<Duration, ServiceError> {
    const FIELD: &str = "heartbeat_interval";
    let Some(requested_us) = length_us(FIELD, requested)? else { return Ok(HEARTBEAT_DEFAULT) };
    let requested = Duration::from_micros(requested_us.unsigned_abs());
    if !(Duration::from_secs(HEARTBEAT_MIN_S)..=Duration::from_secs(HEARTBEAT_MAX_S)).contains(&requested) {
        let problem = format!("{requested:?} is out of range; choose {HEARTBEAT_MIN_S} s to {HEARTBEAT_MAX_S} s");
        return Err(QueryError::invalid(FIELD, problem).into());
    }
    Ok(requested)
}

/// The next message of a watch: its kind, and the commit after which its rates changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchStep {
    /// Snapshot or changes. A message of either kind can have no rates.
    pub kind: v1::WatchKind,
    /// The message has the rates that changed after this commit; zero means all rates.
    pub since_sequence: u64,
}

/// The state of a watch: the newest commit that the watcher has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watcher {
    sequence: u64,
    recorded_time: Timestamp,
    last_ingest_time: Option<Timestamp>,
}

impl Watcher {
    /// Starts a watch and returns its first message, for a client that saw the commit `since_sequence`. The first
    /// message is a snapshot if `since_sequence` is zero, or above the sequence of `latest_quotes`.
    pub fn begin(latest_quotes: &LatestQuotes, since_sequence: u64) -> (Self, WatchStep) {
        let step = if since_sequence == 0 || since_sequence > latest_quotes.sequence {
            WatchStep { kind: v1::WatchKind::Snapshot, since_sequence: 0 }
        } else {
            WatchStep { kind: v1::WatchKind::Changes, since_sequence }
        };
        (Self::at(latest_quotes), step)
    }

    /// Returns the next message, or `None` if the watcher has seen the commit of `latest_quotes`. The commit counts as
    /// seen afterwards.
    pub fn next(&mut self, latest_quotes: &LatestQuotes) -> Option<WatchStep> {
        if latest_quotes.sequence <= self.sequence {
            return None;
        }
        // The sequence of an empty store is zero. In a step, zero means that the client has seen no commit, so the step
        // is a snapshot.
        let kind = if self.sequence == 0 { v1::WatchKind::Snapshot } else { v1::WatchKind::Changes };
        let step = WatchStep { kind, since_sequence: self.sequence };
        *self = Self::at(latest_quotes);
        Some(step)
    }

    fn at(latest_quotes: &LatestQuotes) -> Self {
        Self {
            sequence: latest_quotes.sequence,
            recorded_time: latest_quotes.recorded_time,
            last_ingest_time: latest_quotes.last_ingest_time,
        }
    }

    /// Returns a message of `kind` without rates, for the commit that was seen last.
    pub fn message(&self, kind: v1::WatchKind, now: Timestamp) -> v1::WatchLatestRatesResponse {
        v1::WatchLatestRatesResponse {
            rates: Vec::new(),
            sequence: self.sequence,
            recorded_time: Some(timestamp(self.recorded_time)),
            server_time: Some(timestamp(now)),
            last_ingest_time: self.last_ingest_time.map(timestamp),
            kind: kind.into(),
        }
    }
}

/// A validated request to watch the latest rates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchRequest {
    /// The series to watch.
    pub filter: SeriesFilter,
    /// The last sequence that the client saw; zero if none.
    pub since_sequence: u64,
    /// The watch sends a heartbeat if it sent no message for this time.
    pub heartbeat_interval: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeat_interval_is_1_to_180_seconds() {
        let check = |requested: Option<(i64, i32)>, expect: Result<Duration, &str>| {
            let requested = requested.map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
            match (heartbeat_interval(requested), expect) {
                (Ok(found), Ok(expect)) => assert_eq!(found, expect),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{requested:?}: {found:?}"),
            }
        };
        check(None, Ok(Duration::from_secs(30)));
        check(Some((1, 0)), Ok(Duration::from_secs(1)));
        check(Some((1, 500_000_000)), Ok(Duration::from_millis(1_500)));
        check(Some((180, 0)), Ok(Duration::from_mins(3)));
        check(Some((180, 1_000)), Err("heartbeat_interval: 180.000001s is out of range; choose 1 s to 180 s"));
        check(Some((0, 999_999_999)), Err("choose 1 s to 180 s"));
        check(Some((0, 0)), Err("choose 1 s to 180 s"));
        check(Some((-1, 0)), Err("heartbeat_interval: is negative: -1 s"));
        check(Some((i64::MAX, 0)), Err("heartbeat_interval: "));
    }

    #[test]
    fn watcher_continues_after_the_sequence_it_saw() {
        let latest_quotes = |sequence| LatestQuotes { sequence, ..LatestQuotes::default() };
        let step = |kind, since_sequence| WatchStep { kind, since_sequence };
        let (snapshot, changes) = (v1::WatchKind::Snapshot, v1::WatchKind::Changes);
        let begin = |sequence, since| Watcher::begin(&latest_quotes(sequence), since).1;
        assert_eq!(begin(7, 0), step(snapshot, 0));
        assert_eq!(begin(7, 5), step(changes, 5));
        assert_eq!(begin(7, 7), step(changes, 7));
        // The sequence comes from another store, or the store was restored from a backup: a snapshot.
        assert_eq!(begin(7, 8), step(snapshot, 0));
        let (mut watcher, _) = Watcher::begin(&latest_quotes(7), 0);
        // The fan-out task may still send a commit that is older than the first message of the watch.
        assert_eq!(watcher.next(&latest_quotes(6)), None);
        assert_eq!(watcher.next(&latest_quotes(7)), None);
        assert_eq!(watcher.next(&latest_quotes(10)), Some(step(changes, 7)));
        assert_eq!(watcher.next(&latest_quotes(11)), Some(step(changes, 10)));
        let (mut watcher, _) = Watcher::begin(&latest_quotes(0), 0);
        assert_eq!(watcher.next(&latest_quotes(1)), Some(step(snapshot, 0)));
        assert_eq!(watcher.message(v1::WatchKind::Heartbeat, Timestamp::default()).sequence, 1);
    }
}
