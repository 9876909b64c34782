//! Faults of publishers in a month: for each source a pseudo-random schedule of faults, one after the other.
//!
//! A fault and its Retry-After end while the bank still serves the table, so that a correct follower misses no table.
//! If a faulty body has rates, the rates are wrong, so that a test detects a follower that stores them.

use std::collections::BTreeMap;

use silkrate::domain::Timestamp;
use silkrate::follow::FollowedSource;

use super::{Simulation, pseudo_random};
use crate::publisher::Reply;

const HOUR_US: i64 = 3_600 * Timestamp::SECOND_US;
/// The shortest and the longest duration of a fault. Both are longer than the longest poll interval of a bank and
/// shorter than the time for which a bank serves a table.
const FAULT_US_MIN: i64 = 3 * HOUR_US / 2;
const FAULT_US_MAX: i64 = 6 * HOUR_US;
/// The shortest and the longest pause between two faults. Both are longer than [`RETRY_AFTER`] plus jitter.
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
    ByteOrderMark,
    /// A body above the size limit.
    Long,
    /// A redirect to another server.
    OtherServer,
    /// A redirect to a private address.
    PrivateAddress,
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
        Fault::ByteOrderMark,
        Fault::Long,
        Fault::OtherServer,
        Fault::PrivateAddress,
        Fault::Refused,
        Fault::NoTmt,
    ];
}

/// The faults of all sources. The key is the source and the start time, the value is the end time and the fault.
pub(crate) struct FaultSchedule(BTreeMap<(FollowedSource, Timestamp), (Timestamp, Fault)>);

impl FaultSchedule {
    /// Creates a schedule from six hours after `begin` to twelve hours before `end`.
    pub(crate) fn new(seed: u64, begin: Timestamp, end: Timestamp) -> Self {
        let mut faults = BTreeMap::new();
        for source in FollowedSource::ALL {
            let mut drawn = (seed..).map(|count| i64::try_from(pseudo_random(source.name(), count)).unwrap());
            let mut draw = |below: i64| drawn.next().unwrap() % below;
            let mut from = begin.saturating_add_us(6 * HOUR_US);
            // The faults follow each other in the order of `Fault::ALL`, from a random first fault, so that each fault
            // occurs. `Hang` takes real time, so `Hang` occurs once and is short.
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
        matches!(self, Self::ByteOrderMark | Self::NoTmt)
    }

    /// Returns the faulty reply of `source` to a path; `elsewhere` is the URL of another server.
    pub(crate) fn reply(self, source: FollowedSource, path: &str, simulation: &Simulation, elsewhere: &str) -> Reply {
        let good = simulation.reply(source, path);
        // A missing table cannot be faulty. A short reply that reports a missing table cannot be faulty either.
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
            // A correct follower reads the quotes of a truncated ticker page, so this fault breaks the connection.
            Self::Short if source == FollowedSource::Timesca => table(Reply::Cut),
            Self::Short => table(|body| Reply::Body(body[..body.len() - 9].to_vec())),
            Self::WebPage => Reply::Body(b"<!DOCTYPE html><html><title>502 Bad Gateway, 3.5%</title></html>".to_vec()),
            Self::Utf16 => table(|body| {
                let text = String::from_utf8(body).unwrap();
                Reply::Body(text.encode_utf16().flat_map(u16::to_le_bytes).collect())
            }),
            // NBKR declares windows-1251, in which no byte is invalid. So the faulty body is empty.
            Self::BadByte if source == FollowedSource::Nbkr => Reply::Body(Vec::new()),
            Self::BadByte => table(|mut body| {
                // A byte within a name, so that only the encoding is wrong.
                let name = body.iter().position(|byte| !byte.is_ascii()).unwrap();
                body[name] = 0xF1;
                Reply::Body(body)
            }),
            Self::ByteOrderMark => {
                let Reply::Body(body) = good else { return good };
                Reply::Body([b"\xEF\xBB\xBF".as_slice(), &body].concat())
            }
            Self::Long => table(Reply::Long),
            Self::OtherServer => Reply::Redirect(format!("{elsewhere}{path}")),
            Self::PrivateAddress => Reply::Redirect(format!("http://10.0.0.1{path}")),
            Self::NoTmt if source == FollowedSource::Timesca => Reply::Body(simulation.ticker_without_tmt()),
            Self::NoTmt => good,
        }
    }
}
