//! The small records that a checkpoint writes in addition to blocks: the meta record and the series records.
//!
//! **Invariant**: the meta record contains a digest of all index entries, series records, chunks of polls and held
//! ticks, so that a missing record is detected.

use serde::{Deserialize, Serialize};

use super::block::{pack_change, unpack_change};
use super::digest::Digest;
use super::error::StoreError;
use super::rules::{RulesRecord, decode_with_rules, encode_with_rules};
use super::series::{LastMove, Series, Totals};
use crate::domain::{Pair, PublishedValue, Rate, Run, SeriesKey, Source, Timestamp};
use crate::latest_quotes::{LatestQuote, RateState};

/// The meta record: the state of the store as of its last checkpoint.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) store_id: u64,
    pub(crate) sequence: u64,
    pub(crate) recorded_us: i64,
    pub(crate) last_ingest_us: Option<i64>,
    /// Checksum of the log frame of the newest commit that the checkpoint contains.
    pub(crate) chain: u32,
    /// The next free block id. A block with this id or a higher one was written by an interrupted checkpoint.
    pub(crate) next_block_id: u64,
    /// Digest of all index entries, series records, chunks of polls and held ticks.
    pub(crate) digest: Digest,
    /// The state rules of the stored quotes; `None` in a record of an earlier version.
    #[serde(skip)]
    pub(super) rules: Option<RulesRecord>,
}

impl Meta {
    /// Encodes the record.
    ///
    /// # Errors
    /// Returns `Io` if the record cannot be encoded.
    pub(super) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        encode_with_rules(self, self.rules.as_ref())
    }

    /// Decodes a stored record. Returns `None` if it is invalid.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let (meta, rules, _) = decode_with_rules::<Self>(payload)?;
        Some(Self { rules, ..meta })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct RunRecord {
    first_us: i64,
    last_us: i64,
    count: u64,
    mantissa: u128,
    places: u8,
    change: u64,
    recorded_us: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct QuoteRecord {
    run: RunRecord,
    state: u8,
    stale_us: i64,
    moved_us: Option<i64>,
    previous: Option<(u128, u8)>,
    changed_sequence: u64,
}

/// The record of a series, as of the last checkpoint that changed the series.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SeriesRecord {
    id: u32,
    base: String,
    quote_currency: String,
    source: String,
    collapse_window_us: i64,
    totals: Totals,
    newest: Option<RunRecord>,
    /// [`LastMove::since`].
    since_us: i64,
    /// [`LastMove::before`]: the time in microseconds, and mantissa and places of the rate.
    before: Option<(i64, u128, u8)>,
    quote: Option<QuoteRecord>,
}

impl RunRecord {
    fn new(run: &Run) -> Self {
        Self {
            first_us: run.first_observed_time.micros(),
            last_us: run.last_observed_time.micros(),
            count: run.observation_count,
            mantissa: run.value.rate.mantissa(),
            places: run.value.rate.places(),
            change: pack_change(run.value.reported_change),
            recorded_us: run.recorded_time.micros(),
        }
    }

    fn run(&self) -> Option<Run> {
        Some(Run {
            first_observed_time: Timestamp::from_micros(self.first_us),
            last_observed_time: Timestamp::from_micros(self.last_us),
            observation_count: self.count,
            value: PublishedValue {
                rate: rate((self.mantissa, self.places))?,
                reported_change: unpack_change(self.change).ok()?,
            },
            recorded_time: Timestamp::from_micros(self.recorded_us),
        })
    }
}

fn rate((mantissa, places): (u128, u8)) -> Option<Rate> {
    Rate::from_parts(mantissa, u32::from(places)).ok()
}

impl SeriesRecord {
    pub(crate) fn new(series: &Series) -> Self {
        let quote = series.quote.as_ref().map(|quote| QuoteRecord {
            run: RunRecord::new(&quote.run),
            state: match quote.state {
                RateState::Stale => 1,
                RateState::Pegged => 2,
                RateState::Moving => 3,
                RateState::Flat => 4,
            },
            stale_us: quote.stale_time.micros(),
            moved_us: quote.moved_time.map(Timestamp::micros),
            previous: quote.previous_rate.map(|rate| (rate.mantissa(), rate.places())),
            changed_sequence: quote.changed_sequence,
        });
        Self {
            id: series.id,
            base: series.key.pair.base().to_string(),
            quote_currency: series.key.pair.quote().to_string(),
            source: series.key.source.to_string(),
            collapse_window_us: series.collapse_window_us,
            totals: series.totals,
            newest: series.newest.as_ref().map(RunRecord::new),
            since_us: series.last_move.since.micros(),
            before: series.last_move.before.map(|(time, rate)| (time.micros(), rate.mantissa(), rate.places())),
            quote,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Decodes the series, without its segments. Returns `None` if the record is invalid.
    pub(crate) fn series(&self) -> Option<Series> {
        let key = series_key(&format!("{}/{}", self.base, self.quote_currency), &self.source)?;
        let quote = match &self.quote {
            None => None,
            Some(quote) => Some(LatestQuote {
                series: key.clone(),
                run: quote.run.run()?,
                state: match quote.state {
                    1 => RateState::Stale,
                    2 => RateState::Pegged,
                    3 => RateState::Moving,
                    4 => RateState::Flat,
                    _ => return None,
                },
                stale_time: Timestamp::from_micros(quote.stale_us),
                // Recovery sets this field from the decisions to archive sources.
                is_archived: false,
                moved_time: quote.moved_us.map(Timestamp::from_micros),
                previous_rate: match quote.previous {
                    Some(previous) => Some(rate(previous)?),
                    None => None,
                },
                changed_sequence: quote.changed_sequence,
            }),
        };
        let mut series = Series::new(self.id, key, self.collapse_window_us);
        series.totals = self.totals;
        series.newest = match &self.newest {
            Some(newest) => Some(newest.run()?),
            None => None,
        };
        series.last_move = LastMove {
            since: Timestamp::from_micros(self.since_us),
            before: match self.before {
                Some((time, mantissa, places)) => Some((Timestamp::from_micros(time), rate((mantissa, places))?)),
                None => None,
            },
        };
        series.quote = quote.map(Into::into);
        Some(series)
    }
}

/// Parses a stored series key. Every ISO currency is accepted; the settings decide which currencies are served.
pub(crate) fn series_key(pair: &str, source: &str) -> Option<SeriesKey> {
    Some(SeriesKey { pair: Pair::parse_iso(pair).ok()?, source: Source::parse(source).ok()? })
}
