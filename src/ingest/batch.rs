//! Validation of ticks, and grouping of valid ticks by series.
//!
//! **Invariant**: every tick becomes either an entry of a group or a refusal, with its index in the request. A group
//! keeps the order of the request. Validation does not read the store: only the writer decides whether the instant of a
//! tick is known, in conflict or ambiguous.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::domain::{
    CurrencyError, CurrencySet, Pair, PairError, PublishedValue, Rate, RateError, ReportedChange, ReportedChangeError,
    SeriesKey, Source, Tick, Timestamp, TimestampError, format_duration,
};

use super::{Batch, BatchTick, ConflictPolicy, QuarantineRules, Refusal, RefusalReason, SeriesTicks};

/// Maximum number of refusals for which a response has a message, and maximum number of held ticks for which it has the
/// rate in force. The first refusals get a message, and the first held ticks get the rate. The limit bounds the size of
/// a response.
pub const NAMED_REFUSALS_MAX: usize = 1_000;

/// Rules for the validation of ticks.
#[derive(Clone, Debug)]
pub struct TickRules {
    /// The served currencies.
    pub currencies: CurrencySet,
    /// Maximum time by which an observed time may be ahead of the present time, inclusive, in microseconds. The limit
    /// is not zero, because banks publish the rates of the next day.
    pub future_limit_us: i64,
    /// Decimal places to which rates are padded, for sources that drop trailing zeros. With padding `179.5` and
    /// `179.50` are equal, and the bounds of both are correct.
    pub minimum_places: BTreeMap<Source, u8>,
    /// Ratio thresholds beyond which ticks are held.
    pub quarantine: QuarantineRules,
}

impl TickRules {
    /// Default of `future_limit_us`: two days.
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

/// The observed time of a tick before validation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObservedTime {
    /// The request has no observed time.
    Absent,
    /// The fields of a protobuf timestamp.
    Parts {
        /// Seconds since 1970-01-01T00:00:00Z.
        seconds: i64,
        /// Nanoseconds within the second.
        nanos: i32,
    },
    /// A timestamp in whole microseconds.
    At(Timestamp),
}

/// A tick with text fields, as in a message.
#[derive(Clone, Copy, Debug)]
pub struct TickText<'a> {
    /// The pair, like `KGS/USD`.
    pub pair: &'a str,
    /// The slug of the source.
    pub source: &'a str,
    /// When the source showed the rate.
    pub observed_time: ObservedTime,
    /// The rate, a positive decimal without an exponent.
    pub rate: &'a str,
    /// The reported change: a decimal with an optional sign, without the percent sign.
    pub reported_change: Option<&'a str>,
}

/// A series of a batch under construction; see [`BatchBuilder::series`].
#[derive(Clone, Copy, Debug)]
pub struct SeriesSlot {
    /// Position in the groups of the batch.
    group: usize,
    minimum_places: u8,
}

/// Why a tick is refused, without the index of the tick.
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

/// Builds a [`Batch`] from the ticks of one request.
pub struct BatchBuilder<'a> {
    rules: &'a TickRules,
    now: Timestamp,
    latest_allowed: Timestamp,
    groups: Vec<SeriesTicks>,
    /// Position in `source_list` of each source so far, by slug.
    sources: HashMap<Box<str>, usize>,
    /// Sources so far, with their minimum places.
    source_list: Vec<(Source, u8)>,
    /// Series so far, by pair and position of the source.
    slots: HashMap<(Pair, usize), SeriesSlot>,
    /// Pair and source of the previous tick, as text. Fast path: most batches have only one series, or the ticks of
    /// each series in sequence, so equal texts need no parsing. The buffers are reused.
    last_pair: String,
    last_source: String,
    last_slot: Option<SeriesSlot>,
    refusals: Vec<Refusal>,
}

impl<'a> BatchBuilder<'a> {
    /// Makes an empty batch. Observed times are validated against `now`.
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

    /// Validates a tick with text fields, and adds it. If several fields are invalid, the refusal is for the first
    /// invalid field, in this order: series, observed time, rate, reported change.
    pub fn push_text(&mut self, index: u32, tick: TickText<'_>) {
        let validated = self.series(tick.pair, tick.source).and_then(|slot| {
            let observed_time = self.observed_time(tick.observed_time)?;
            let rate = Rate::parse(tick.rate).map_err(|error| rate_problem(&error))?;
            let reported_change =
                tick.reported_change.map(ReportedChange::parse).transpose().map_err(|error| change_problem(&error))?;
            Ok((slot, observed_time, PublishedValue { rate, reported_change }))
        });
        self.add(index, validated);
    }

    /// Adds a tick with parsed fields. The rules for currencies, observed times and padding still apply.
    pub fn push(&mut self, index: u32, tick: &Tick) {
        let validated = self
            .check_served(tick.series.pair)
            .and_then(|pair| Ok((self.slot(pair, tick.series.source.as_str())?, self.check_time(tick.observed_time)?)))
            .map(|(slot, observed_time)| (slot, observed_time, tick.value));
        self.add(index, validated);
    }

    /// Adds a decoded tick of a series that [`Self::series`] returned.
    pub fn push_value(&mut self, index: u32, slot: SeriesSlot, observed_time: Timestamp, value: PublishedValue) {
        let validated = self.check_time(observed_time).map(|observed_time| (slot, observed_time, value));
        self.add(index, validated);
    }

    /// Returns the slot of a series in this batch, and adds the series if it is new.
    ///
    /// # Errors
    /// Returns a [`Problem`] if the pair or the source is invalid. The caller must pass this problem to
    /// [`Self::refuse_all`] for every tick of the series.
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

    /// Refuses several ticks for the same problem.
    pub fn refuse_all(&mut self, indices: impl IntoIterator<Item = u32>, problem: &Problem) {
        for index in indices {
            self.refuse(index, problem.reason, &problem.message);
        }
    }

    /// Refuses a tick for a problem that the caller found, such as an ambiguous quote of a page.
    pub fn refuse(&mut self, index: u32, reason: RefusalReason, message: &dyn fmt::Display) {
        let named = self.refusals.len() < NAMED_REFUSALS_MAX;
        let message = if named { message.to_string() } else { String::new() };
        self.refusals.push(Refusal { index, reason, message, stored: None });
    }

    /// Returns the batch. Groups are in the order of the first tick of their series and are not empty. Refusals are in
    /// the order in which they were added.
    pub fn finish(mut self, conflict_policy: ConflictPolicy, validate_only: bool) -> Batch {
        // A series without a valid tick must not be created.
        self.groups.retain(|group| !group.ticks.is_empty());
        Batch { groups: self.groups, refusals: self.refusals, conflict_policy, validate_only, caller: None }
    }

    fn add(&mut self, index: u32, validated: Result<(SeriesSlot, Timestamp, PublishedValue), Problem>) {
        let padded = validated.and_then(|(slot, observed_time, value)| {
            let rate = pad(value.rate, slot.minimum_places)?;
            Ok((slot, BatchTick { index, observed_time, value: PublishedValue { rate, ..value } }))
        });
        match padded {
            Ok((slot, tick)) => match self.groups.get_mut(slot.group) {
                Some(group) => group.ticks.push(tick),
                // The slot is from another builder. A refusal keeps the counts complete.
                None => self.refuse(index, RefusalReason::InvalidPair, &"the series belongs to another batch"),
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
            quarantine_threshold: self.rules.quarantine.threshold_of(source),
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

    fn check_served(&self, pair: Pair) -> Result<Pair, Problem> {
        let served = |code: &str| self.rules.currencies.parse(code);
        for code in [pair.base(), pair.quote()] {
            served(code.code())
                .map_err(|problem| pair_problem(&PairError::Currency { text: pair.to_string(), problem }))?;
        }
        Ok(pair)
    }

    fn observed_time(&self, given: ObservedTime) -> Result<Timestamp, Problem> {
        match given {
            ObservedTime::At(time) => self.check_time(time),
            ObservedTime::Parts { seconds, nanos } => {
                self.check_time(Timestamp::from_parts_exact(seconds, nanos).map_err(|error| time_problem(&error))?)
            }
            ObservedTime::Absent => Err(Problem::new(
                RefusalReason::InvalidTime,
                "observed_time is missing; give the time at which the source showed the rate",
            )),
        }
    }

    fn check_time(&self, time: Timestamp) -> Result<Timestamp, Problem> {
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
                    format_duration(self.rules.future_limit_us),
                    self.now
                ),
            ));
        }
        Ok(time)
    }
}

/// Adds zeros to a rate up to `minimum_places`.
fn pad(rate: Rate, minimum_places: u8) -> Result<Rate, Problem> {
    // Fast path for nearly every rate.
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
        PairError::Same(_) => (RefusalReason::InvalidPair, "; use two different currencies, like KGS/USD"),
        PairError::Malformed(_) | PairError::Currency { problem: CurrencyError::Malformed(_), .. } => {
            (RefusalReason::InvalidPair, "")
        }
        PairError::Currency { problem: CurrencyError::NotIso(_), .. } => {
            (RefusalReason::UnknownCurrency, "; use its ISO code, like KGS/USD")
        }
        PairError::Currency { problem: CurrencyError::NotServed { .. }, .. } => {
            (RefusalReason::UnknownCurrency, "; add it with the server's --currency")
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
