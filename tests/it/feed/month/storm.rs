//! What goes wrong in a month: for each source a plan of faults that follow each other, a seed's and nobody else's.
//!
//! No fault and the patience that it asks for lasts as long as a bank shows a table, so that a follower that does as it
//! should misses none. Whatever table a faulty body has is of the false world.

use std::collections::BTreeMap;

use silkrate::domain::Timestamp;
use silkrate::follow::FollowedSource;

use super::{World, pseudo_random};
use crate::publisher::Reply;

const HOUR_US: i64 = 3_600 * Timestamp::SECOND_US;
/// How long a fault lasts: longer than the longest pace of a bank, and less than a table is shown.
const FAULT_US_MIN: i64 = 3 * HOUR_US / 2;
const FAULT_US_MAX: i64 = 6 * HOUR_US;
/// How long it is calm between two: longer than a wait of [`RETRY_AFTER`] and its jitter.
const CALM_US_MIN: i64 = 3 * HOUR_US;
const CALM_US_MAX: i64 = 9 * HOUR_US;
/// Longest body that is no table.
const WORDS_BYTES_MAX: usize = 100;
const RETRY_AFTER: &str = "Retry-After: 5400\r\n";

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Fault {
    /// 503, and when to come back.
    Error,
    /// 429, and when to come back.
    TooMany,
    /// 403.
    Forbidden,
    /// The headers, and then nothing.
    Hang,
    /// A body that breaks off.
    Cut,
    /// A body that ends too early and says that it is whole.
    Short,
    /// A web page in place of a table, and of the ticker one without quotes.
    WebPage,
    /// UTF-16 that nothing declares.
    Utf16,
    /// A byte that no UTF-8 has.
    BadByte,
    /// A mark at the beginning, which harms nobody.
    Mark,
    /// More than is read.
    Long,
    /// To another server.
    Elsewhere,
    /// To an address of a network of its own.
    Inside,
    /// Nobody listens.
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

/// The faults of every source, by when they begin, and when they end.
pub(crate) struct Storm(BTreeMap<(FollowedSource, Timestamp), (Timestamp, Fault)>);

impl Storm {
    /// From six hours after `begin` to twelve before `end`.
    pub(crate) fn new(seed: u64, begin: Timestamp, end: Timestamp) -> Self {
        let mut faults = BTreeMap::new();
        for source in FollowedSource::ALL {
            let mut drawn = (seed..).map(|count| i64::try_from(pseudo_random(source.name(), count)).unwrap());
            let mut draw = |below: i64| drawn.next().unwrap() % below;
            let mut from = begin.saturating_add_us(6 * HOUR_US);
            // Each kind in turn, from one that is drawn, so that none is left out. The one that costs real time comes
            // once, and is short.
            let first = usize::try_from(draw(15)).unwrap();
            let kinds = Fault::ALL.into_iter().cycle().skip(first).enumerate();
            for (_, fault) in kinds.filter(|(at, fault)| *fault != Fault::Hang || *at < Fault::ALL.len()) {
                let longer_us = if fault == Fault::Hang { 0 } else { draw(FAULT_US_MAX - FAULT_US_MIN) };
                let until = from.saturating_add_us(FAULT_US_MIN + longer_us);
                if until.saturating_add_us(12 * HOUR_US) > end {
                    break;
                }
                faults.insert((source, from), (until, fault));
                from = until.saturating_add_us(CALM_US_MIN + draw(CALM_US_MAX - CALM_US_MIN));
            }
        }
        Self(faults)
    }

    /// What is wrong with `source` at `time`.
    pub(crate) fn at(&self, source: FollowedSource, time: Timestamp) -> Option<Fault> {
        let (_, (until, fault)) = self.0.range((source, Timestamp::MIN)..=(source, time)).next_back()?;
        (time < *until).then_some(*fault)
    }
}

impl Fault {
    /// Whether all that is there to be read is read all the same.
    pub(crate) const fn is_harmless(self) -> bool {
        matches!(self, Self::Mark | Self::NoTmt)
    }

    /// What `source` answers a path with in place of what `world` has; `elsewhere` is another server.
    pub(crate) fn answer(self, source: FollowedSource, path: &str, world: &World, elsewhere: &str) -> Reply {
        let good = world.answer(source, path);
        // What is not there cannot be spoilt, nor what says so in a few words.
        let table = |spoil: fn(Vec<u8>) -> Reply| {
            let Reply::Body(body) = world.false_one().answer(source, path) else { return good.clone() };
            if body.len() > WORDS_BYTES_MAX { spoil(body) } else { good.clone() }
        };
        match self {
            Self::Error => Reply::Status("503 Service Unavailable", RETRY_AFTER),
            Self::TooMany => Reply::Status("429 Too Many Requests", RETRY_AFTER),
            Self::Forbidden => Reply::Status("403 Forbidden", ""),
            // Nobody listens, so that nobody answers.
            Self::Hang | Self::Refused => Reply::Hang,
            Self::Cut => table(Reply::Cut),
            // What is left of a ticker page is read, as it should be.
            Self::Short if source == FollowedSource::Timesca => table(Reply::Cut),
            Self::Short => table(|body| Reply::Body(body[..body.len() - 9].to_vec())),
            Self::WebPage => Reply::Body(b"<!DOCTYPE html><html><title>502 Bad Gateway, 3.5%</title></html>".to_vec()),
            Self::Utf16 => table(|body| {
                let text = String::from_utf8(body).unwrap();
                Reply::Body(text.encode_utf16().flat_map(u16::to_le_bytes).collect())
            }),
            // What declares windows-1251 may have any byte.
            Self::BadByte if source == FollowedSource::Nbkr => Reply::Body(Vec::new()),
            Self::BadByte => table(|mut body| {
                // In a name, so that nothing but the encoding is wrong.
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
            Self::NoTmt if source == FollowedSource::Timesca => Reply::Body(world.ticker_without_tmt()),
            Self::NoTmt => good,
        }
    }
}
