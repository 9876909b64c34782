//! Validation of a parsed table: conversion of its entries to quotes.
//!
//! **Invariant**: each entry has exactly one result: it gives a quote, is refused, is skipped and counted, or is
//! ignored because an earlier entry gave an equal quote. A quote has only the digits that the bank sent, and the
//! trailing zeros that the bank is known to drop.

use std::collections::HashMap;

use chrono::{Datelike as _, NaiveDate};

use super::error::{BankError, BankQuoteError, RefusedBankQuote};
use super::{BankFeed, BankRequest, BankRules};
use crate::domain::{
    Currency, CurrencyError, CurrencySet, Pair, PublishedValue, Rate, RateDifference, SeriesKey, Source, Tick,
    Timestamp, truncate_for_display,
};

/// Maximum number of entries of a table. The largest known table has 75.
pub(super) const ENTRIES_MAX: usize = 1_000;
/// Maximum number of zeros in a nominal: the largest nominal is 10 to this power.
const NOMINAL_ZEROS_MAX: u8 = 9;

/// The quotes of a bank's table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BankTable {
    /// The feed to which the table belongs.
    pub feed: BankFeed,
    /// One quote for each accepted currency, in order of first appearance.
    pub quotes: Vec<BankQuote>,
    /// Entries of served currencies without a quote, and entries with an invalid currency code, in table order.
    pub refused: Vec<RefusedBankQuote>,
    /// Number of entries in the table.
    pub entry_count: usize,
    /// Number of entries for currencies that are not served, or that are not (or no longer) in ISO 4217.
    pub skipped_count: usize,
    /// Number of quotes with an invalid difference. The difference is optional, so such a quote is still accepted.
    pub unreadable_difference_count: usize,
}

/// A bank's rate for one unit of a currency.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BankQuote {
    /// The foreign currency and the bank's home currency, like `USD/KGS`.
    pub pair: Pair,
    /// The day for which the rate applies, in the bank's calendar.
    pub date: NaiveDate,
    /// The first instant of `date` in the bank's zone.
    pub observed_time: Timestamp,
    /// The rate for one unit of the base currency.
    pub rate: Rate,
    /// The difference from the previous rate for one unit, in units of the quote currency; not a percentage.
    pub difference: Option<RateDifference>,
    /// The number of days from `date` for which the bank declares the rate valid; `None` if it declares none, or not a
    /// whole number.
    pub valid_days: Option<u16>,
}

impl BankQuote {
    /// Returns true if both quotes have the same rate, digit for digit, for the same day.
    fn has_rate_of(&self, other: &Self) -> bool {
        self.date == other.date && self.rate == other.rate
    }
}

impl BankTable {
    /// Returns the quotes as ticks of `source`. The ticks have no reported change, because banks publish a difference
    /// and not a percentage.
    pub fn ticks(&self, source: &Source) -> impl Iterator<Item = Tick> {
        self.quotes.iter().map(move |quote| Tick {
            series: SeriesKey { pair: quote.pair, source: source.clone() },
            observed_time: quote.observed_time,
            value: PublishedValue { rate: quote.rate, reported_change: None },
        })
    }
}

/// The content of a field of an entry.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Field {
    #[default]
    Absent,
    /// Text without white space around it.
    Text(String),
    /// The field appears more than once, or contains something other than text.
    NotText,
}

impl Field {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.trim().to_owned())
    }

    /// Adds an occurrence of the field. A second occurrence makes the field invalid.
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

/// An entry before validation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct RawEntry {
    pub(super) code: Field,
    pub(super) nominal: Field,
    pub(super) rate: Field,
    pub(super) difference: Field,
    pub(super) valid_for: Field,
    /// Date of the entry, in feeds where each entry has its own date.
    pub(super) date: Field,
}

/// A table before validation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct RawTable {
    /// Name and content of the date field of the table; none in feeds where each entry has its own date.
    pub(super) date: Option<(&'static str, Field)>,
    pub(super) entries: Vec<RawEntry>,
}

/// Date format of a bank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DateFormat {
    /// `2026-05-18`.
    YearFirst,
    /// `18.05.2026`.
    DayFirst,
    /// `18.05.2026`, or `18.05.26`. Two-digit years 93 to 99 mean 1993 to 1999, because the tenge was introduced in
    /// 1993. Two-digit years 00 to 92 mean 2000 to 2092.
    DayFirstShort,
}

impl DateFormat {
    fn parse(self, text: &str) -> Option<NaiveDate> {
        let separator = if self == Self::YearFirst { '-' } else { '.' };
        let parts: Vec<&str> = text.splitn(4, separator).collect();
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
        // chrono has a year 0, but a timestamp begins with year 1.
        (date.year() > 0).then_some(date)
    }
}

/// Validates a table: first that its date is the requested one, then each entry.
pub(super) fn validate(raw: &RawTable, request: BankRequest, rules: &BankRules<'_>) -> Result<BankTable, BankError> {
    if raw.entries.is_empty() {
        return Err(BankError::NoEntries);
    }
    if raw.entries.len() > ENTRIES_MAX {
        return Err(BankError::TooMuch { what: "entries", max: ENTRIES_MAX });
    }
    let date = raw.date.as_ref().map(|(name, field)| table_date(name, field, request)).transpose()?;
    let mut collector = Collector::new(request, rules, date);
    for entry in &raw.entries {
        collector.add(entry);
    }
    collector.finish(raw.entries.len())
}

fn table_date(name: &'static str, field: &Field, request: BankRequest) -> Result<NaiveDate, BankError> {
    let text = field.required(name).map_err(|_| BankError::NoDate(name))?;
    let found =
        request.feed.profile().date_format.parse(text).ok_or_else(|| BankError::BadDate(truncate_for_display(text)))?;
    match request.date() {
        Some(asked) if asked != found => Err(BankError::OtherDate { asked, found }),
        _ => Ok(found),
    }
}

/// Collects the results of entries.
struct Collector<'a> {
    request: BankRequest,
    rules: &'a BankRules<'a>,
    /// Date of the table; none if each entry has its own date.
    date: Option<NaiveDate>,
    /// Currency codes and their results, in order of first appearance.
    results: Vec<(String, Result<BankQuote, BankQuoteError>)>,
    /// Position of each valid currency in `results`.
    index: HashMap<Currency, usize>,
    skipped_count: usize,
    unreadable_difference_count: usize,
}

impl<'a> Collector<'a> {
    fn new(request: BankRequest, rules: &'a BankRules<'a>, date: Option<NaiveDate>) -> Self {
        Self {
            request,
            rules,
            date,
            results: Vec::new(),
            index: HashMap::new(),
            skipped_count: 0,
            unreadable_difference_count: 0,
        }
    }

    fn add(&mut self, entry: &RawEntry) {
        let code = entry.code.required("the currency code");
        let pair = match code.and_then(|code| served_pair(code, self.request.feed, self.rules.served)) {
            Ok(Some(pair)) => pair,
            Ok(None) => {
                self.skipped_count += 1;
                return;
            }
            Err(reason) => {
                let code = if let Field::Text(code) = &entry.code { truncate_for_display(code) } else { String::new() };
                self.results.push((code, Err(reason)));
                return;
            }
        };
        let quote = self.quote(pair, entry);
        match self.index.get(&pair.base()).and_then(|at| self.results.get_mut(*at)) {
            None => {
                self.index.insert(pair.base(), self.results.len());
                self.results.push((pair.base().to_string(), quote));
            }
            Some((_, first)) if *first == quote => {}
            // The same rate with another printed difference, or for another nominal: the rate is certain.
            Some((_, Ok(first))) if quote.as_ref().is_ok_and(|second| first.has_rate_of(second)) => {
                first.difference = None;
            }
            Some((_, first)) => {
                let (first_text, second) = (result_text(first), result_text(&quote));
                let ambiguous = BankQuoteError::Ambiguous { pair, first: first_text, second };
                // If more than two entries differ, the error names the first two.
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
        let decimal_mark = profile.decimal_mark;
        let other_mark = if decimal_mark == ',' { '.' } else { ',' };
        if text.contains(other_mark) {
            return Err(BankQuoteError::DecimalMark { text: truncate_for_display(text), decimal_mark });
        }
        let minimum_places = self.rules.minimum_places.unwrap_or(profile.minimum_places);
        let rate = Rate::parse(&text.replace(decimal_mark, "."))?.padded(minimum_places)?.per_unit_of(zeros)?;
        let difference = match &entry.difference {
            Field::Text(text) if !text.is_empty() => {
                let parsed = RateDifference::parse(text).and_then(|difference| difference.per_unit_of(zeros));
                self.unreadable_difference_count += usize::from(parsed.is_err());
                parsed.ok()
            }
            Field::Text(_) | Field::Absent => None,
            Field::NotText => {
                self.unreadable_difference_count += 1;
                None
            }
        };
        let valid_days = if let Field::Text(text) = &entry.valid_for { text.parse().ok() } else { None };
        Ok(BankQuote { pair, date, observed_time: profile.zone.day_start(date), rate, difference, valid_days })
    }

    fn finish(self, entry_count: usize) -> Result<BankTable, BankError> {
        let (mut quotes, mut refused, mut other_date) = (Vec::new(), Vec::new(), None);
        for (code, result) in self.results {
            match result {
                Ok(quote) => quotes.push(quote),
                Err(reason) => {
                    if let BankQuoteError::OtherDate { asked, found } = reason {
                        other_date.get_or_insert(BankError::OtherDate { asked, found });
                    }
                    refused.push(RefusedBankQuote { code, reason });
                }
            }
        }
        // In a feed where each entry has its own date, the whole table is refused if no entry has the requested date.
        if let (true, Some(error)) = (quotes.is_empty(), other_date) {
            return Err(error);
        }
        Ok(BankTable {
            feed: self.request.feed,
            quotes,
            refused,
            entry_count,
            skipped_count: self.skipped_count,
            unreadable_difference_count: self.unreadable_difference_count,
        })
    }
}

fn result_text(quote: &Result<BankQuote, BankQuoteError>) -> String {
    match quote {
        Ok(quote) => format!("{} for {}", quote.rate, quote.date),
        Err(problem) => problem.to_string(),
    }
}

/// Returns the pair of a currency code and the home currency, or `None` if one of the two is not served.
fn served_pair(code: &str, feed: BankFeed, served: &CurrencySet) -> Result<Option<Pair>, BankQuoteError> {
    let base = match served.parse(code) {
        Ok(base) => base,
        Err(CurrencyError::NotIso(_) | CurrencyError::NotServed { .. }) => return Ok(None),
        Err(problem @ CurrencyError::Malformed(_)) => return Err(problem.into()),
    };
    // Without the home currency no pair of this bank is served.
    let Ok(home) = served.parse(feed.profile().home) else { return Ok(None) };
    Ok(Some(Pair::new(base, home)?))
}

fn entry_date(entry: &RawEntry, request: BankRequest) -> Result<NaiveDate, BankQuoteError> {
    let text = entry.date.required("the date")?;
    let date_format = request.feed.profile().date_format;
    let found = date_format.parse(text).ok_or_else(|| BankQuoteError::BadDate(truncate_for_display(text)))?;
    match request.date() {
        Some(asked) if asked != found => Err(BankQuoteError::OtherDate { asked, found }),
        _ => Ok(found),
    }
}

/// Returns the number of zeros after the digit 1 of a nominal.
fn nominal_zeros(text: &str) -> Result<u8, BankQuoteError> {
    let zeros = text.strip_prefix('1').filter(|zeros| zeros.bytes().all(|byte| byte == b'0'));
    let zeros = zeros.and_then(|zeros| u8::try_from(zeros.len()).ok()).filter(|zeros| *zeros <= NOMINAL_ZEROS_MAX);
    zeros.ok_or_else(|| BankQuoteError::Nominal(truncate_for_display(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_must_have_the_banks_format() {
        let check = |date_format: DateFormat, text: &str, expect: Option<&str>| {
            assert_eq!(date_format.parse(text).map(|date| date.to_string()).as_deref(), expect, "{text}");
        };
        check(DateFormat::YearFirst, "2026-05-18", Some("2026-05-18"));
        check(DateFormat::YearFirst, "18.05.2026", None);
        check(DateFormat::YearFirst, "18-05-2026", None);
        check(DateFormat::DayFirst, "18.05.2026", Some("2026-05-18"));
        check(DateFormat::DayFirst, "18.05.26", None);
        check(DateFormat::DayFirst, "2026-05-18", None);
        check(DateFormat::DayFirstShort, "18.05.2026", Some("2026-05-18"));
        check(DateFormat::DayFirstShort, "18.05.26", Some("2026-05-18"));
        check(DateFormat::DayFirstShort, "15.11.93", Some("1993-11-15"));
        check(DateFormat::DayFirstShort, "15.11.92", Some("2092-11-15"));
        for bad in ["", "18.05", "18.05.2026.1", "31.02.2026", "8.5.2026", "18.05.0000", "+8.05.2026", "18.05.2026 10"]
        {
            check(DateFormat::DayFirst, bad, None);
        }
    }

    #[test]
    fn nominal_is_a_power_of_ten() {
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
