//! `WatchLatestRates`: what a watcher is told of one latest quotes after the other.
//!
//! **Invariants**: what a watcher holds after a message is what `GetLatestRates` would answer at the message's sequence;
//! a latest quotes that holds nothing new for it sends nothing; a watcher keeps no latest quotes.

use std::time::Duration;

use super::convert::length_us;
use super::error::ServiceError;
use crate::domain::Timestamp;
use crate::latest_quotes::LatestQuotes;
use crate::proto::convert::timestamp;
use crate::proto::v1;
use crate::query::{QueryError, SeriesFilter};

/// The longest silence unless another is asked for.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(30);
/// The shortest that may be asked for, seconds.
const HEARTBEAT_MIN_S: u64 = 1;
/// The longest that may be asked for, seconds: what lies between drops a connection that is silent for long.
const HEARTBEAT_MAX_S: u64 = 180;

/// The silence after which a heartbeat is sent.
///
/// # Errors
/// `InvalidArgument` naming `heartbeat_interval`, outside 1 to 180 s.
pub(super) fn heartbeat_interval(asked: Option<prost_types::Duration>) -> Result<Duration, ServiceError> {
    const FIELD: &str = "heartbeat_interval";
    let Some(asked_us) = length_us(FIELD, asked)? else { return Ok(HEARTBEAT_DEFAULT) };
    let asked = Duration::from_micros(asked_us.unsigned_abs());
    if !(Duration::from_secs(HEARTBEAT_MIN_S)..=Duration::from_secs(HEARTBEAT_MAX_S)).contains(&asked) {
        let problem = format!("of {asked:?} is out of range; choose {HEARTBEAT_MIN_S} s to {HEARTBEAT_MAX_S} s");
        return Err(QueryError::invalid(FIELD, problem).into());
    }
    Ok(asked)
}

/// What comes next: a message of this kind, with the rates that changed after `since_sequence` (zero: all).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchStep {
    /// Snapshot or changes; whether there are any is for the rates to say.
    pub kind: v1::WatchKind,
    /// See above.
    pub since_sequence: u64,
}

/// How far a watcher has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watcher {
    sequence: u64,
    recorded_time: Timestamp,
    last_ingest_time: Option<Timestamp>,
}

impl Watcher {
    /// The first message, for a caller that saw `since_sequence`; zero, or one above the latest quotes's, begins anew.
    pub fn begin(latest_quotes: &LatestQuotes, since_sequence: u64) -> (Self, WatchStep) {
        let step = if since_sequence == 0 || since_sequence > latest_quotes.sequence {
            WatchStep { kind: v1::WatchKind::Snapshot, since_sequence: 0 }
        } else {
            WatchStep { kind: v1::WatchKind::Changes, since_sequence }
        };
        (Self::at(latest_quotes), step)
    }

    /// What `latest_quotes` may have that was not seen yet; none of a latest quotes that was. It counts as seen from here on.
    pub fn next(&mut self, latest_quotes: &LatestQuotes) -> Option<WatchStep> {
        if latest_quotes.sequence <= self.sequence {
            return None;
        }
        // A watcher of an empty store has seen all of it at sequence zero, which stands for nothing seen elsewhere.
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

    /// A message of `kind` without its rates, at what was seen last.
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

/// What is watched: which series, and from where on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchQuestion {
    /// Which series.
    pub filter: SeriesFilter,
    /// What the caller saw last.
    pub since_sequence: u64,
    /// The longest silence.
    pub heartbeat_interval: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_come_every_1_to_180_seconds() {
        let check = |asked: Option<(i64, i32)>, expect: Result<Duration, &str>| {
            let asked = asked.map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
            match (heartbeat_interval(asked), expect) {
                (Ok(found), Ok(expect)) => assert_eq!(found, expect),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{asked:?}: {found:?}"),
            }
        };
        check(None, Ok(Duration::from_secs(30)));
        check(Some((1, 0)), Ok(Duration::from_secs(1)));
        check(Some((1, 500_000_000)), Ok(Duration::from_millis(1_500)));
        check(Some((180, 0)), Ok(Duration::from_mins(3)));
        check(Some((180, 1_000)), Err("heartbeat_interval: of 180.000001s is out of range; choose 1 s to 180 s"));
        check(Some((0, 999_999_999)), Err("choose 1 s to 180 s"));
        check(Some((0, 0)), Err("choose 1 s to 180 s"));
        check(Some((-1, 0)), Err("heartbeat_interval: of -1 s"));
        check(Some((i64::MAX, 0)), Err("heartbeat_interval: "));
    }

    #[test]
    fn a_watcher_goes_on_from_what_it_saw() {
        let latest_quotes = |sequence| LatestQuotes { sequence, ..LatestQuotes::default() };
        let step = |kind, since_sequence| WatchStep { kind, since_sequence };
        let (snapshot, changes) = (v1::WatchKind::Snapshot, v1::WatchKind::Changes);
        let begin = |sequence, since| Watcher::begin(&latest_quotes(sequence), since).1;
        assert_eq!(begin(7, 0), step(snapshot, 0));
        assert_eq!(begin(7, 5), step(changes, 5));
        assert_eq!(begin(7, 7), step(changes, 7));
        // Of another store, or of one that was put back: everything.
        assert_eq!(begin(7, 8), step(snapshot, 0));
        let (mut watcher, _) = Watcher::begin(&latest_quotes(7), 0);
        // The fan-out may be a moment behind what the watcher began with.
        assert_eq!(watcher.next(&latest_quotes(6)), None);
        assert_eq!(watcher.next(&latest_quotes(7)), None);
        assert_eq!(watcher.next(&latest_quotes(10)), Some(step(changes, 7)));
        assert_eq!(watcher.next(&latest_quotes(11)), Some(step(changes, 10)));
        let (mut watcher, _) = Watcher::begin(&latest_quotes(0), 0);
        assert_eq!(watcher.next(&latest_quotes(1)), Some(step(snapshot, 0)));
        assert_eq!(watcher.message(v1::WatchKind::Heartbeat, Timestamp::default()).sequence, 1);
    }
}
