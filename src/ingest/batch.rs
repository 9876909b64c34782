//! Checking ticks one by one and grouping the good ones by series.
//!
//! **Invariant**: every tick pushed ends in exactly one place, a group or a refusal, under the index
//! it was pushed with; groups keep the order given. Nothing stored is looked at here: whether an
//! instant is known, conflicting or ambiguous is judged by the writer alone.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::domain::{
    CurrencyError, CurrencySet, Pair, PairError, PublishedValue, Rate, RateError, ReportedChange, ReportedChangeError,
    SeriesKey, Source, Tick, Timestamp, TimestampError, whole_length,
};

use super::{Batch, BatchTick, ConflictPolicy, QuarantineRules, Refusal, RefusalReason, SeriesTicks};

/// Most refusals of a batch that carry a message, and most held ticks that carry the rate in force, in the order of the
/// batch. Later ones cost no text.
pub const NAMED_REFUSALS_MAX: usize = 1_000;

/// What a server asks of every tick.
#[derive(Clone, Debug)]
pub struct TickRules {
    /// The currencies taken in.
    pub currencies: CurrencySet,
    /// How far ahead of now an observed time may lie, inclusive. Banks do date tomorrow.
    pub future_limit_us: i64,
    /// Places to which the rates of sources that drop trailing zeros are padded, so that `179.5`
    /// and `179.50` compare equal and their bounds do not lie.
    pub minimum_places: BTreeMap<Source, u8>,
    /// Which ticks are held instead of stored.
    pub quarantine: QuarantineRules,
}

impl TickRules {
    /// Unless configured otherwise, times up to two days ahead are taken.
    pub const FUTURE_LIMIT_DEFAULT_US: i64 = 48 * Timestamp::HOUR_US;

    fn minimum_places_of(&self, source: &Source) -> u8 {
        self.minimum_places.get(source).copied().unwrap_or(0)
    }
}

impl Default for TickRules {
    fn default() -> Self {
        Self {
            currencies: CurrencySet::central_asia(),
            future_limit_us: Self::FUTURE_LIMIT_DEFAULT_US,
            minimum_places: BTreeMap::new(),
            quarantine: QuarantineRules::default(),
        }
    }
}

/// An observed time as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObservedTime {
    /// None was given.
    Absent,
    /// Seconds since 1970 and nanoseconds of the second, as a protobuf timestamp has them.
    Parts {
        /// Since 1970-01-01T00:00:00Z.
        seconds: i64,
        /// Of the second.
        nanos: i32,
    },
    /// Whole microseconds already.
    At(Timestamp),
}

/// A tick as text, as it comes in a message.
#[derive(Clone, Copy, Debug)]
pub struct TickText<'a> {
    /// `KGS/USD`.
    pub pair: &'a str,
    /// A source slug.
    pub source: &'a str,
    /// When the source showed it.
    pub observed_time: ObservedTime,
    /// A plain positive decimal.
    pub rate: &'a str,
    /// A decimal with an optional sign, without the percent sign.
    pub reported_change: Option<&'a str>,
}

/// A series of the batch being built; see [`BatchBuilder::series`].
#[derive(Clone, Copy, Debug)]
pub struct SeriesSlot {
    group: usize,
    minimum_places: u8,
}

/// Why a tick is refused, before it has an index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    reason: RefusalReason,
    message: String,
}

impl Problem {
    fn new(reason: RefusalReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Collects the ticks of one request into a [`Batch`].
pub struct BatchBuilder<'a> {
    rules: &'a TickRules,
    now: Timestamp,
    latest_allowed: Timestamp,
    groups: Vec<SeriesTicks>,
    /// Sources met so far, by text: a position in `source_list`.
    sources: HashMap<Box<str>, usize>,
    source_list: Vec<(Source, u8)>,
    slots: HashMap<(Pair, usize), SeriesSlot>,
    /// Pair and source of the tick before. Most batches hold one series or a few in turn; the texts
    /// are compared before anything is parsed, and their buffers are used again.
    last_pair: String,
    last_source: String,
    last_slot: Option<SeriesSlot>,
    refusals: Vec<Refusal>,
}

impl<'a> BatchBuilder<'a> {
    /// An empty batch, to be judged at `now`.
    pub fn new(now: Timestamp, rules: &'a TickRules) -> Self {
        Self {
            rules,
            now,
            latest_allowed: now.saturating_add_us(rules.future_limit_us),
            groups: Vec::new(),
            sources: HashMap::new(),
            source_list: Vec::new(),
            slots: HashMap::new(),
            last_pair: String::new(),
            last_source: String::new(),
            last_slot: None,
            refusals: Vec::new(),
        }
    }

    /// Checks a tick of text and takes it in, or refuses it with the first thing wrong: series,
    /// time, rate, reported change.
    pub fn push_text(&mut self, index: u32, tick: TickText<'_>) {
        let checked = self.series(tick.pair, tick.source).and_then(|slot| {
            let observed_time = self.observed_time(tick.observed_time)?;
            let rate = Rate::parse(tick.rate).map_err(|error| rate_problem(&error))?;
            let reported_change =
                tick.reported_change.map(ReportedChange::parse).transpose().map_err(|error| change_problem(&error))?;
            Ok((slot, observed_time, PublishedValue { rate, reported_change }))
        });
        self.settle(index, checked);
    }

    /// Takes in a tick made of checked values: its currencies, time and padding are still those of
    /// the rules.
    pub fn push(&mut self, index: u32, tick: &Tick) {
        let checked = self
            .known_pair(tick.series.pair)
            .and_then(|pair| Ok((self.slot(pair, tick.series.source.as_str())?, self.in_time(tick.observed_time)?)))
            .map(|(slot, observed_time)| (slot, observed_time, tick.value));
        self.settle(index, checked);
    }

    /// Takes in a decoded tick of a series found by [`Self::series`].
    pub fn push_value(&mut self, index: u32, slot: SeriesSlot, observed_time: Timestamp, value: PublishedValue) {
        let checked = self.in_time(observed_time).map(|observed_time| (slot, observed_time, value));
        self.settle(index, checked);
    }

    /// The place of a series in this batch.
    ///
    /// # Errors
    /// The problem of the pair or of the source, with which every tick of it is to be
    /// [refused](Self::refuse_all).
    pub fn series(&mut self, pair: &str, source: &str) -> Result<SeriesSlot, Problem> {
        if let Some(slot) = self.last_slot
            && self.last_pair == pair
            && self.last_source == source
        {
            return Ok(slot);
        }
        let parsed = Pair::parse(pair, &self.rules.currencies).map_err(|error| pair_problem(&error))?;
        let slot = self.slot(parsed, source)?;
        self.last_pair.clear();
        self.last_pair.push_str(pair);
        self.last_source.clear();
        self.last_source.push_str(source);
        self.last_slot = Some(slot);
        Ok(slot)
    }

    /// Refuses ticks for one and the same problem.
    pub fn refuse_all(&mut self, indices: impl IntoIterator<Item = u32>, problem: &Problem) {
        for index in indices {
            self.refuse(index, problem.reason, &problem.message);
        }
    }

    /// Refuses a tick for something found elsewhere, such as a page whose cycles disagree.
    pub fn refuse(&mut self, index: u32, reason: RefusalReason, message: &dyn fmt::Display) {
        let named = self.refusals.len() < NAMED_REFUSALS_MAX;
        let message = if named { message.to_string() } else { String::new() };
        self.refusals.push(Refusal { index, reason, message, stored: None });
    }

    /// The batch: groups in the order in which their series came, none empty; refusals in the order pushed.
    pub fn finish(mut self, conflict_policy: ConflictPolicy, validate_only: bool) -> Batch {
        // A series all of whose ticks were refused must not come into being.
        self.groups.retain(|group| !group.ticks.is_empty());
        Batch { groups: self.groups, refusals: self.refusals, conflict_policy, validate_only }
    }

    fn settle(&mut self, index: u32, checked: Result<(SeriesSlot, Timestamp, PublishedValue), Problem>) {
        let padded = checked.and_then(|(slot, observed_time, value)| {
            let rate = padded(value.rate, slot.minimum_places)?;
            Ok((slot, BatchTick { index, observed_time, value: PublishedValue { rate, ..value } }))
        });
        match padded {
            Ok((slot, tick)) => match self.groups.get_mut(slot.group) {
                Some(group) => group.ticks.push(tick),
                // A slot of another builder; refusing keeps the counts whole.
                None => self.refuse(index, RefusalReason::InvalidPair, &"the series is not of this batch"),
            },
            Err(problem) => self.refuse(index, problem.reason, &problem.message),
        }
    }

    fn slot(&mut self, pair: Pair, source: &str) -> Result<SeriesSlot, Problem> {
        let source_position = self.source_position(source)?;
        if let Some(slot) = self.slots.get(&(pair, source_position)) {
            return Ok(*slot);
        }
        let (source, minimum_places) = &self.source_list[source_position];
        let slot = SeriesSlot { group: self.groups.len(), minimum_places: *minimum_places };
        self.groups.push(SeriesTicks {
            series: SeriesKey { pair, source: source.clone() },
            ticks: Vec::new(),
            quarantine_factor: self.rules.quarantine.factor_of(source),
        });
        self.slots.insert((pair, source_position), slot);
        Ok(slot)
    }

    fn source_position(&mut self, text: &str) -> Result<usize, Problem> {
        if let Some(position) = self.sources.get(text) {
            return Ok(*position);
        }
        let source =
            Source::parse(text).map_err(|error| Problem::new(RefusalReason::InvalidSource, error.to_string()))?;
        let minimum_places = self.rules.minimum_places_of(&source);
        self.source_list.push((source, minimum_places));
        let position = self.source_list.len() - 1;
        self.sources.insert(text.into(), position);
        Ok(position)
    }

    fn known_pair(&self, pair: Pair) -> Result<Pair, Problem> {
        let served = |code: &str| self.rules.currencies.parse(code);
        for code in [pair.base(), pair.quote()] {
            served(code.code())
                .map_err(|problem| pair_problem(&PairError::Currency { text: pair.to_string(), problem }))?;
        }
        Ok(pair)
    }

    fn observed_time(&self, given: ObservedTime) -> Result<Timestamp, Problem> {
        match given {
            ObservedTime::At(time) => self.in_time(time),
            ObservedTime::Parts { seconds, nanos } => {
                self.in_time(Timestamp::from_parts_exact(seconds, nanos).map_err(|error| time_problem(&error))?)
            }
            ObservedTime::Absent => Err(Problem::new(
                RefusalReason::InvalidTime,
                "observed_time is absent; give the time at which the source showed the rate",
            )),
        }
    }

    fn in_time(&self, time: Timestamp) -> Result<Timestamp, Problem> {
        if time < Timestamp::OLDEST_OBSERVED {
            return Err(Problem::new(
                RefusalReason::TimeTooOld,
                format!("observed_time {time} is before {}; check its unit and its zone", Timestamp::OLDEST_OBSERVED),
            ));
        }
        if time > self.latest_allowed {
            return Err(Problem::new(
                RefusalReason::TimeTooFarAhead,
                format!(
                    "observed_time {time} is more than {} ahead of {}; check its unit and its zone, or raise --future-limit",
                    whole_length(self.rules.future_limit_us),
                    self.now
                ),
            ));
        }
        Ok(time)
    }
}

/// With zeros added up to `minimum_places`.
fn padded(rate: Rate, minimum_places: u8) -> Result<Rate, Problem> {
    // Nearly every rate.
    if rate.places() >= minimum_places {
        return Ok(rate);
    }
    rate.padded(minimum_places).map_err(|_| {
        Problem::new(
            RefusalReason::InvalidRate,
            format!(
                "rate '{rate}' padded to the {minimum_places} places of its source has more than {} digits; lower --minimum-places",
                Rate::DIGITS_MAX
            ),
        )
    })
}

fn pair_problem(error: &PairError) -> Problem {
    let (reason, remedy) = match error {
        PairError::Same(_) => (RefusalReason::InvalidPair, "; name two different ones, like KGS/USD"),
        PairError::Malformed(_) | PairError::Currency { problem: CurrencyError::Malformed(_), .. } => {
            (RefusalReason::InvalidPair, "")
        }
        PairError::Currency { problem: CurrencyError::NotIso(_), .. } => {
            (RefusalReason::UnknownCurrency, "; use its ISO code, like KGS/USD")
        }
        PairError::Currency { problem: CurrencyError::NotServed { .. }, .. } => {
            (RefusalReason::UnknownCurrency, "; the server's --currency adds others")
        }
    };
    Problem::new(reason, format!("{error}{remedy}"))
}

fn rate_problem(error: &RateError) -> Problem {
    Problem::new(RefusalReason::InvalidRate, error.to_string())
}

fn change_problem(error: &ReportedChangeError) -> Problem {
    Problem::new(RefusalReason::InvalidReportedChange, error.to_string())
}

fn time_problem(error: &TimestampError) -> Problem {
    Problem::new(RefusalReason::InvalidTime, format!("observed_time: {error}"))
}

#[cfg(test)]
mod tests;
