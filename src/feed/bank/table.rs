//! From the fields of a table's entries to quotes.
//!
//! **Invariant**: an entry ends in exactly one place: a quote, a refusal, the count of those passed over, or the quote
//! that it repeats. A quote has the digits that the bank sent and no others but the zeros that it is known to drop.

use std::collections::HashMap;

use chrono::{Datelike as _, NaiveDate};

use super::error::{BankError, BankQuoteError, RefusedBankQuote};
use super::{BankFeed, BankRequest, BankRules};
use crate::domain::{
    Currency, CurrencyError, CurrencySet, Pair, PublishedValue, Rate, RateDifference, SeriesKey, Source, Tick,
    Timestamp, truncate_for_display,
};

/// Most entries of a table; the largest seen has 75.
pub(super) const ENTRIES_MAX: usize = 1_000;
/// The largest nominal is 10 to this power.
const NOMINAL_ZEROS_MAX: u8 = 9;

/// What a bank's table says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BankTable {
    /// Which it is.
    pub feed: BankFeed,
    /// One a currency, in order of first appearance.
    pub quotes: Vec<BankQuote>,
    /// Entries of served currencies that gave no quote, and those whose code is none, in order.
    pub refused: Vec<RefusedBankQuote>,
    /// All entries.
    pub entry_count: usize,
    /// Entries of currencies that are not served, or that ISO 4217 does not know (any more).
    pub passed_over_count: usize,
    /// Quotes whose difference is there and cannot be read. It is beside the rate, and does not cost it.
    pub unread_difference_count: usize,
}

/// A rate for one unit, as a bank sets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BankQuote {
    /// The foreign currency in the bank's own: `USD/KGS`.
    pub pair: Pair,
    /// The day that the rate is for, by the bank's calendar.
    pub date: NaiveDate,
    /// The first instant of that day in the bank's zone.
    pub observed_time: Timestamp,
    /// For one unit of the base.
    pub rate: Rate,
    /// From the rate before, for one unit, in units of the quote; not a percentage.
    pub difference: Option<RateDifference>,
}

impl BankTable {
    /// The quotes as ticks of `source`. They have no reported change: what a bank prints beside its rate is a
    /// difference.
    pub fn ticks(&self, source: &Source) -> impl Iterator<Item = Tick> {
        self.quotes.iter().map(move |quote| Tick {
            series: SeriesKey { pair: quote.pair, source: source.clone() },
            observed_time: quote.observed_time,
            value: PublishedValue { rate: quote.rate, reported_change: None },
        })
    }
}

/// What an entry has in a field.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Field {
    #[default]
    Absent,
    /// Blanks around it left out.
    Text(String),
    /// There twice, or something else than a text.
    NotText,
}

impl Field {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.trim().to_owned())
    }

    /// Another occurrence of the same field.
    pub(super) fn add(&mut self, other: Self) {
        *self = if *self == Self::Absent { other } else { Self::NotText };
    }

    fn required(&self, name: &'static str) -> Result<&str, BankQuoteError> {
        match self {
            Self::Text(text) if !text.is_empty() => Ok(text),
            Self::Text(_) | Self::Absent => Err(BankQuoteError::Missing(name)),
            Self::NotText => Err(BankQuoteError::NotText(name)),
        }
    }
}

/// An entry, unjudged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct RawEntry {
    pub(super) code: Field,
    pub(super) nominal: Field,
    pub(super) rate: Field,
    pub(super) difference: Field,
    /// Where each entry has its own.
    pub(super) date: Field,
}

/// A table, unjudged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct RawTable {
    /// Of all entries, and what it is called; none where each has its own.
    pub(super) date: Option<(&'static str, Field)>,
    pub(super) entries: Vec<RawEntry>,
}

/// How a bank writes a date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DateForm {
    /// `2026-05-18`.
    YearFirst,
    /// `18.05.2026`.
    DayFirst,
    /// `18.05.2026`, or `18.05.26`; from 93, when the tenge came, of the last century.
    DayFirstShort,
}

impl DateForm {
    fn parse(self, text: &str) -> Option<NaiveDate> {
        let mark = if self == Self::YearFirst { '-' } else { '.' };
        let parts: Vec<&str> = text.splitn(4, mark).collect();
        let (day, month, year) = match (self, parts.as_slice()) {
            (Self::YearFirst, [year, month, day]) | (_, [day, month, year]) => (*day, *month, *year),
            _ => return None,
        };
        let number = |text: &str, digits: usize| -> Option<u32> {
            (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
        };
        let year = match number(year, 2).filter(|_| self == Self::DayFirstShort) {
            Some(short) => short + if short >= 93 { 1_900 } else { 2_000 },
            None => number(year, 4)?,
        };
        let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, number(month, 2)?, number(day, 2)?)?;
        // The year before 1 has no timestamp.
        (date.year() > 0).then_some(date)
    }
}

/// Judges a table: first whether it is the one asked for, then entry by entry.
pub(super) fn judge(raw: &RawTable, request: BankRequest, rules: &BankRules<'_>) -> Result<BankTable, BankError> {
    if raw.entries.is_empty() {
        return Err(BankError::NoEntries);
    }
    if raw.entries.len() > ENTRIES_MAX {
        return Err(BankError::TooMuch { what: "entries", max: ENTRIES_MAX });
    }
    let date = raw.date.as_ref().map(|(name, field)| table_date(name, field, request)).transpose()?;
    let mut collected = Collected::new(request, rules, date);
    for entry in &raw.entries {
        collected.add(entry);
    }
    collected.finish(raw.entries.len())
}

fn table_date(name: &'static str, field: &Field, request: BankRequest) -> Result<NaiveDate, BankError> {
    let text = field.required(name).map_err(|_| BankError::NoDate(name))?;
    let found =
        request.feed.profile().dates.parse(text).ok_or_else(|| BankError::BadDate(truncate_for_display(text)))?;
    match request.date() {
        Some(asked) if asked != found => Err(BankError::OtherDate { asked, found }),
        _ => Ok(found),
    }
}

/// What became of the entries so far.
struct Collected<'a> {
    request: BankRequest,
    rules: &'a BankRules<'a>,
    /// Of the table as a whole.
    date: Option<NaiveDate>,
    /// In order of first appearance.
    found: Vec<(String, Result<BankQuote, BankQuoteError>)>,
    /// Where in `found`.
    index: HashMap<Currency, usize>,
    passed_over_count: usize,
    unread_difference_count: usize,
}

impl<'a> Collected<'a> {
    fn new(request: BankRequest, rules: &'a BankRules<'a>, date: Option<NaiveDate>) -> Self {
        Self {
            request,
            rules,
            date,
            found: Vec::new(),
            index: HashMap::new(),
            passed_over_count: 0,
            unread_difference_count: 0,
        }
    }

    fn add(&mut self, entry: &RawEntry) {
        let code = entry.code.required("the currency's code");
        let pair = match code.and_then(|code| served_pair(code, self.request.feed, self.rules.served)) {
            Ok(Some(pair)) => pair,
            Ok(None) => {
                self.passed_over_count += 1;
                return;
            }
            Err(reason) => {
                let code = if let Field::Text(code) = &entry.code { truncate_for_display(code) } else { String::new() };
                self.found.push((code, Err(reason)));
                return;
            }
        };
        let quote = self.quote(pair, entry);
        match self.index.get(&pair.base()).and_then(|at| self.found.get_mut(*at)) {
            None => {
                self.index.insert(pair.base(), self.found.len());
                self.found.push((pair.base().to_string(), quote));
            }
            Some((_, first)) if *first == quote => {}
            Some((_, first)) => {
                let ambiguous = BankQuoteError::Ambiguous { pair, first: shown(first), second: shown(&quote) };
                // Of three, the first two are named.
                if !matches!(first, Err(BankQuoteError::Ambiguous { .. })) {
                    *first = Err(ambiguous);
                }
            }
        }
    }

    fn quote(&mut self, pair: Pair, entry: &RawEntry) -> Result<BankQuote, BankQuoteError> {
        let profile = self.request.feed.profile();
        let date = match self.date {
            Some(date) => date,
            None => entry_date(entry, self.request)?,
        };
        let zeros = nominal_zeros(entry.nominal.required("the nominal")?)?;
        let text = entry.rate.required("the rate")?;
        let other_mark = if profile.mark == ',' { '.' } else { ',' };
        if text.contains(other_mark) {
            return Err(BankQuoteError::Mark { text: truncate_for_display(text), mark: profile.mark });
        }
        let minimum_places = self.rules.minimum_places.unwrap_or(profile.minimum_places);
        let rate = Rate::parse(&text.replace(profile.mark, "."))?.padded(minimum_places)?.per_unit_of(zeros)?;
        let difference = match &entry.difference {
            Field::Text(text) if !text.is_empty() => {
                let read = RateDifference::parse(text).and_then(|difference| difference.per_unit_of(zeros));
                self.unread_difference_count += usize::from(read.is_err());
                read.ok()
            }
            Field::Text(_) | Field::Absent => None,
            Field::NotText => {
                self.unread_difference_count += 1;
                None
            }
        };
        Ok(BankQuote { pair, date, observed_time: profile.zone.day_start(date), rate, difference })
    }

    fn finish(self, entry_count: usize) -> Result<BankTable, BankError> {
        let (mut quotes, mut refused, mut other_date) = (Vec::new(), Vec::new(), None);
        for (code, found) in self.found {
            match found {
                Ok(quote) => quotes.push(quote),
                Err(reason) => {
                    if let BankQuoteError::OtherDate { asked, found } = reason {
                        other_date.get_or_insert(BankError::OtherDate { asked, found });
                    }
                    refused.push(RefusedBankQuote { code, reason });
                }
            }
        }
        // Where each entry has its date, it is the table that is another day's if none is of the day asked for.
        if let (true, Some(error)) = (quotes.is_empty(), other_date) {
            return Err(error);
        }
        Ok(BankTable {
            feed: self.request.feed,
            quotes,
            refused,
            entry_count,
            passed_over_count: self.passed_over_count,
            unread_difference_count: self.unread_difference_count,
        })
    }
}

fn shown(quote: &Result<BankQuote, BankQuoteError>) -> String {
    match quote {
        Ok(quote) => format!("{} for {}", quote.rate, quote.date),
        Err(problem) => problem.to_string(),
    }
}

/// The pair of a code, if it is one of served currencies.
fn served_pair(code: &str, feed: BankFeed, served: &CurrencySet) -> Result<Option<Pair>, BankQuoteError> {
    let base = match served.parse(code) {
        Ok(base) => base,
        Err(CurrencyError::NotIso(_) | CurrencyError::NotServed { .. }) => return Ok(None),
        Err(problem @ CurrencyError::Malformed(_)) => return Err(problem.into()),
    };
    // Whoever does not serve the bank's own currency has nothing from it.
    let Ok(home) = served.parse(feed.profile().home) else { return Ok(None) };
    Ok(Some(Pair::new(base, home)?))
}

fn entry_date(entry: &RawEntry, request: BankRequest) -> Result<NaiveDate, BankQuoteError> {
    let text = entry.date.required("the date")?;
    let dates = request.feed.profile().dates;
    let found = dates.parse(text).ok_or_else(|| BankQuoteError::BadDate(truncate_for_display(text)))?;
    match request.date() {
        Some(asked) if asked != found => Err(BankQuoteError::OtherDate { asked, found }),
        _ => Ok(found),
    }
}

/// How many zeros follow the one.
fn nominal_zeros(text: &str) -> Result<u8, BankQuoteError> {
    let zeros = text.strip_prefix('1').filter(|zeros| zeros.bytes().all(|byte| byte == b'0'));
    let zeros = zeros.and_then(|zeros| u8::try_from(zeros.len()).ok()).filter(|zeros| *zeros <= NOMINAL_ZEROS_MAX);
    zeros.ok_or_else(|| BankQuoteError::Nominal(truncate_for_display(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_of_one_form() {
        let check = |form: DateForm, text: &str, expect: Option<&str>| {
            assert_eq!(form.parse(text).map(|date| date.to_string()).as_deref(), expect, "{text}");
        };
        check(DateForm::YearFirst, "2026-05-18", Some("2026-05-18"));
        check(DateForm::YearFirst, "18.05.2026", None);
        check(DateForm::YearFirst, "18-05-2026", None);
        check(DateForm::DayFirst, "18.05.2026", Some("2026-05-18"));
        check(DateForm::DayFirst, "18.05.26", None);
        check(DateForm::DayFirst, "2026-05-18", None);
        check(DateForm::DayFirstShort, "18.05.2026", Some("2026-05-18"));
        check(DateForm::DayFirstShort, "18.05.26", Some("2026-05-18"));
        check(DateForm::DayFirstShort, "15.11.93", Some("1993-11-15"));
        check(DateForm::DayFirstShort, "15.11.92", Some("2092-11-15"));
        for bad in ["", "18.05", "18.05.2026.1", "31.02.2026", "8.5.2026", "18.05.0000", "+8.05.2026", "18.05.2026 10"]
        {
            check(DateForm::DayFirst, bad, None);
        }
    }

    #[test]
    fn a_nominal_is_a_shift_of_the_point() {
        let check = |text: &str, expect: Option<u8>| assert_eq!(nominal_zeros(text).ok(), expect, "{text}");
        check("1", Some(0));
        check("10000", Some(4));
        check("1000000000", Some(9));
        for bad in ["", "0", "01", "5", "11", "100.0", "1 000", "1000,0", "-1", "10000000000", "1e3", &"0".repeat(999)]
        {
            check(bad, None);
        }
    }
}
