//! Faults of publishers in a month: for each source a pseudo-random schedule of faults, one after the other.
//!
//! No fault, including its Retry-After, lasts as long as a bank serves a table, so that a correct follower misses
//! none. A faulty body with rates has wrong rates.

use std::collections::BTreeMap;

use silkrate::domain::Timestamp;
use silkrate::follow::FollowedSource;

use super::{Simulation, pseudo_random};
use crate::publisher::Reply;

const HOUR_US: i64 = 3_600 * Timestamp::SECOND_US;
/// How long a fault lasts: longer than the longest poll interval of a bank, shorter than a table is served.
const FAULT_US_MIN: i64 = 3 * HOUR_US / 2;
const FAULT_US_MAX: i64 = 6 * HOUR_US;
/// How long there is no fault between two: longer than [`RETRY_AFTER`] plus jitter.
const PAUSE_US_MIN: i64 = 3 * HOUR_US;
const PAUSE_US_MAX: i64 = 9 * HOUR_US;
/// The longest body that is not a table.
const NO_TABLE_BYTES_MAX: usize = 100;
const RETRY_AFTER: &str = "Retry-After: 5400\r\n";

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    /// Status 503 with a Retry-After.
    Error,
    /// Status 429 with a Retry-After.
    TooMany,
    /// Status 403.
    Forbidden,
    /// The response stops after its headers.
    Hang,
    /// The connection breaks within the body.
    Cut,
    /// A truncated body with a matching length.
    Short,
    /// A web page in place of a table; for the ticker, a page without quotes.
    WebPage,
    /// UTF-16 without a declaration.
    Utf16,
    /// A byte that is not valid UTF-8.
    BadByte,
    /// A byte order mark, which is harmless.
    Mark,
    /// A body above the size limit.
    Long,
    /// A redirect to another server.
    Elsewhere,
    /// A redirect to a private address.
    Inside,
    /// The connection is refused.
    Refused,
    /// A ticker page without one pair.
    NoTmt,
}

impl Fault {
    pub(crate) const ALL: [Self; 15] = [
        Fault::Error,
        Fault::TooMany,
        Fault::Forbidden,
        Fault::Hang,
        Fault::Cut,
        Fault::Short,
        Fault::WebPage,
        Fault::Utf16,
        Fault::BadByte,
        Fault::Mark,
        Fault::Long,
        Fault::Elsewhere,
        Fault::Inside,
        Fault::Refused,
        Fault::NoTmt,
    ];
}

/// The faults of every source: by source and start time, the end time and the fault.
pub(crate) struct FaultSchedule(BTreeMap<(FollowedSource, Timestamp), (Timestamp, Fault)>);

impl FaultSchedule {
    /// Creates a schedule from six hours after `begin` to twelve hours before `end`.
    pub(crate) fn new(seed: u64, begin: Timestamp, end: Timestamp) -> Self {
        let mut faults = BTreeMap::new();
        for source in FollowedSource::ALL {
            let mut drawn = (seed..).map(|count| i64::try_from(pseudo_random(source.name(), count)).unwrap());
            let mut draw = |below: i64| drawn.next().unwrap() % below;
            let mut from = begin.saturating_add_us(6 * HOUR_US);
            // The kinds follow each other in order from a random one, so that each occurs. `Hang` costs real time, so
            // it occurs once and is short.
            let first = usize::try_from(draw(15)).unwrap();
            let kinds = Fault::ALL.into_iter().cycle().skip(first).enumerate();
            for (_, fault) in kinds.filter(|(at, fault)| *fault != Fault::Hang || *at < Fault::ALL.len()) {
                let longer_us = if fault == Fault::Hang { 0 } else { draw(FAULT_US_MAX - FAULT_US_MIN) };
                let until = from.saturating_add_us(FAULT_US_MIN + longer_us);
                if until.saturating_add_us(12 * HOUR_US) > end {
                    break;
                }
                faults.insert((source, from), (until, fault));
                from = until.saturating_add_us(PAUSE_US_MIN + draw(PAUSE_US_MAX - PAUSE_US_MIN));
            }
        }
        Self(faults)
    }

    /// Returns the fault of `source` at `time`.
    pub(crate) fn at(&self, source: FollowedSource, time: Timestamp) -> Option<Fault> {
        let (_, (until, fault)) = self.0.range((source, Timestamp::MIN)..=(source, time)).next_back()?;
        (time < *until).then_some(*fault)
    }
}

impl Fault {
    /// Returns true if the follower reads the reply completely despite the fault.
    pub(crate) const fn is_harmless(self) -> bool {
        matches!(self, Self::Mark | Self::NoTmt)
    }

    /// Returns the faulty reply of `source` to a path; `elsewhere` is the URL of another server.
    pub(crate) fn reply(self, source: FollowedSource, path: &str, simulation: &Simulation, elsewhere: &str) -> Reply {
        let good = simulation.reply(source, path);
        // An absent table cannot be faulty, and neither can a short reply that reports its absence.
        let table = |damage: fn(Vec<u8>) -> Reply| {
            let Reply::Body(body) = simulation.with_wrong_rates().reply(source, path) else { return good.clone() };
            if body.len() > NO_TABLE_BYTES_MAX { damage(body) } else { good.clone() }
        };
        match self {
            Self::Error => Reply::Status("503 Service Unavailable", RETRY_AFTER),
            Self::TooMany => Reply::Status("429 Too Many Requests", RETRY_AFTER),
            Self::Forbidden => Reply::Status("403 Forbidden", ""),
            // The listener is closed for `Refused`, so this reply is not used.
            Self::Hang | Self::Refused => Reply::Hang,
            Self::Cut => table(Reply::Cut),
            // The rest of a truncated ticker page would be read, which is correct behaviour.
            Self::Short if source == FollowedSource::Timesca => table(Reply::Cut),
            Self::Short => table(|body| Reply::Body(body[..body.len() - 9].to_vec())),
            Self::WebPage => Reply::Body(b"<!DOCTYPE html><html><title>502 Bad Gateway, 3.5%</title></html>".to_vec()),
            Self::Utf16 => table(|body| {
                let text = String::from_utf8(body).unwrap();
                Reply::Body(text.encode_utf16().flat_map(u16::to_le_bytes).collect())
            }),
            // A body that declares windows-1251 may have any byte.
            Self::BadByte if source == FollowedSource::Nbkr => Reply::Body(Vec::new()),
            Self::BadByte => table(|mut body| {
                // A byte within a name, so that only the encoding is wrong.
                let name = body.iter().position(|byte| !byte.is_ascii()).unwrap();
                body[name] = 0xF1;
                Reply::Body(body)
            }),
            Self::Mark => {
                let Reply::Body(body) = good else { return good };
                Reply::Body([b"\xEF\xBB\xBF".as_slice(), &body].concat())
            }
            Self::Long => table(Reply::Long),
            Self::Elsewhere => Reply::Redirect(format!("{elsewhere}{path}")),
            Self::Inside => Reply::Redirect(format!("http://10.0.0.1{path}")),
            Self::NoTmt if source == FollowedSource::Timesca => Reply::Body(simulation.ticker_without_tmt()),
            Self::NoTmt => good,
        }
    }
}
