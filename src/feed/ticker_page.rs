//! The ticker page: a marquee of quotes, printed in several cycles between articles.
//!
//! **Invariant**: a pair gives at most one tick. The page prints the value of that tick completely, and all cycles of
//! the page agree on the value. Every quote without a tick is reported with its reason.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use chrono::{NaiveDate, NaiveTime};
use thiserror::Error;

use super::html_text::{html_text, is_html};
use super::quote_scan::{RawQuote, is_space, quotes, truncated_quote};
use crate::domain::{
    CurrencySet, Pair, PairError, PublishedValue, Rate, RateError, ReportedChange, ReportedChangeError, SeriesKey,
    Source, Tick, Timestamp, truncate_for_display,
};

/// The quotes of a ticker page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TickerPage {
    /// Valid quotes in all cycles. Quotes with an invalid field are not counted.
    pub quote_count: u32,
    /// Cycles of the marquee: how often the page quotes its most frequent pair. A cycle counts even if a pair is
    /// missing in the cycle, or if the page ends inside the cycle.
    pub cycle_count: u32,
    /// The date of the page: the date on the lines that hold only a date. `None` if there is no such line, or if the
    /// dates on these lines differ or do not exist.
    pub date: Option<NaiveDate>,
    /// Observed time of every tick: the caller's time, or else the start of `date` in UTC.
    pub observed_time: Timestamp,
    /// One tick for each accepted pair, in order of first appearance.
    pub ticks: Vec<Tick>,
    /// Quotes without a tick, one for each pair and invalid field, in order of appearance; ambiguous pairs come last.
    /// At most [`TickerPage::REFUSED_MAX`] entries.
    pub refused: Vec<RefusedQuote>,
    /// Number of refused quotes, including those beyond the limit of `refused`.
    pub refused_count: u32,
}

/// A quote without a tick. Its pair may still have a tick from other cycles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedQuote {
    /// The pair as written on the page. For a truncated quote, it is only the part of the pair that the page has.
    pub pair: String,
    /// Why the quote was refused. The error text names the field, the value and the remedy.
    pub reason: QuoteError,
}

/// Why a quote has no tick.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum QuoteError {
    /// The page quotes the pair with different values.
    #[error("the page quotes {pair} as {first} and as {second}; send the page with only one of these values")]
    Ambiguous {
        /// The pair with different values.
        pair: Pair,
        /// Rate and reported change of the first quote.
        first: String,
        /// Rate and reported change of the first quote that differs from `first`.
        second: String,
    },
    /// The page ends inside the quote.
    #[error("the page ends within the quote '{0}'; send the whole page")]
    Truncated(String),
    /// The pair is invalid, or one of its currencies is not served.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// The rate is invalid.
    #[error("{pair}: {problem}")]
    Rate {
        /// The quoted pair.
        pair: Pair,
        /// Why the rate is invalid.
        problem: RateError,
    },
    /// The reported change is invalid.
    #[error("{pair}: {problem}")]
    ReportedChange {
        /// The quoted pair.
        pair: Pair,
        /// Why the reported change is invalid.
        problem: ReportedChangeError,
    },
}

/// Why a whole page is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PageError {
    /// The page is larger than the limit.
    #[error("the page has {found_bytes} bytes; at most {max_bytes} are read, so send only the part with the ticker")]
    TooLarge {
        /// Size of the page, in bytes.
        found_bytes: usize,
        /// Largest size allowed, in bytes.
        max_bytes: usize,
    },
    /// The page has a NUL byte: it is an image, an archive, or text in UTF-16.
    #[error("the page is binary, with a NUL byte at offset {offset}; send text or HTML in UTF-8")]
    Binary {
        /// Byte offset of the NUL byte, from 0.
        offset: usize,
    },
    /// The page is not in UTF-8, or ends inside a character.
    #[error("the page is not UTF-8 at byte offset {offset}; convert the page to UTF-8, or send the whole page")]
    NotUtf8 {
        /// Byte offset of the first invalid byte, from 0.
        offset: usize,
    },
    /// The page has no quotes, valid or refused.
    #[error("the page has no quotes; a quote looks like 'KGS/USD = 0.01144 0%'")]
    NoQuotes,
    /// The page has no date, and the caller gives no time.
    #[error("the page has no line that holds only a date, like '08 December 2025'; give the observed time")]
    NoDate,
    /// The page has lines that hold only a date, and their dates differ.
    #[error(
        "the page has lines that hold only a date, and their dates differ: {first} and {second}; give the observed time"
    )]
    DatesDiffer {
        /// The first date.
        first: NaiveDate,
        /// The first date that differs from `first`.
        second: NaiveDate,
    },
    /// A date line holds a date that does not exist.
    #[error("the page's date line '{0}' is not a date of the calendar; give the observed time")]
    BadDate(String),
}

impl TickerPage {
    /// Largest page accepted, in bytes.
    pub const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
    /// Maximum number of entries in [`TickerPage::refused`]; [`TickerPage::refused_count`] counts all refused quotes.
    pub const REFUSED_MAX: usize = 1_000;

    /// Parses a page of text or HTML in UTF-8.
    ///
    /// The ticks belong to `source`. Their observed time is `observed_time` or, if `observed_time` is absent, the
    /// start of the page's [`date`](Self::date) in UTC. If `observed_time` is given, the dates of the page are not
    /// validated. Only pairs of `served` currencies give ticks.
    ///
    /// # Errors
    /// Returns a [`PageError`] if the page as a whole is refused. Single invalid quotes are in
    /// [`TickerPage::refused`] instead.
    pub fn read(
        page: &[u8],
        source: &Source,
        observed_time: Option<Timestamp>,
        served: &CurrencySet,
    ) -> Result<Self, PageError> {
        let page = page_text(page)?;
        let text = if is_html(page) { Cow::Owned(html_text(page)) } else { Cow::Borrowed(page) };
        read_text(&text, source, observed_time, served)
    }
}

/// Decodes the page as UTF-8 and removes a byte order mark.
fn page_text(page: &[u8]) -> Result<&str, PageError> {
    let max_bytes = TickerPage::PAGE_BYTES_MAX;
    if page.len() > max_bytes {
        return Err(PageError::TooLarge { found_bytes: page.len(), max_bytes });
    }
    if let Some(offset) = page.iter().position(|byte| *byte == 0) {
        return Err(PageError::Binary { offset });
    }
    let text = str::from_utf8(page).map_err(|error| PageError::NotUtf8 { offset: error.valid_up_to() })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn read_text(
    text: &str,
    source: &Source,
    observed_time: Option<Timestamp>,
    served: &CurrencySet,
) -> Result<TickerPage, PageError> {
    let mut marquee = Marquee::default();
    let mut dates = DateLines::default();
    // The last line that is not blank, and whether the line before it has quotes.
    let (mut last_line, mut in_marquee, mut had_quotes) = ("", false, false);
    let lines = text.split(is_line_end).map(|line| line.trim_matches(is_space)).filter(|line| !line.is_empty());
    for line in lines {
        in_marquee = had_quotes;
        had_quotes = false;
        for quote in quotes(line) {
            had_quotes = true;
            marquee.add(&quote, served);
        }
        dates.add(line);
        last_line = line;
    }
    if let Some(truncated) = truncated_quote(last_line, in_marquee) {
        let pair = truncated.split('=').next().unwrap_or(truncated).trim_end_matches(is_space);
        marquee.refuse(pair, QuoteError::Truncated(truncate_for_display(truncated)));
    }
    if marquee.quote_count == 0 && marquee.refused.is_empty() {
        return Err(PageError::NoQuotes);
    }
    let (date, observed_time) = match observed_time {
        Some(time) => (dates.single_date().ok(), time),
        None => dates.single_date().map(|date| (Some(date), day_start(date)))?,
    };
    Ok(marquee.finish(source, date, observed_time))
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The quotes read so far.
#[derive(Default)]
struct Marquee {
    quote_count: u32,
    /// Quoted pairs, in order of first appearance.
    pairs: Vec<QuotedPair>,
    /// Position of each pair in `pairs`.
    index: HashMap<Pair, usize>,
    refused: Vec<RefusedQuote>,
    refused_count: u32,
    /// Pairs and fields in `refused`, so that a refused quote that each cycle repeats is reported once.
    seen_refusals: HashSet<(String, RefusedField)>,
}

struct QuotedPair {
    pair: Pair,
    value: PublishedValue,
    /// The first value that differs from `value`.
    differing: Option<PublishedValue>,
    count: u32,
}

/// The field for which a quote was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum RefusedField {
    Pair,
    Rate,
    ReportedChange,
    /// No single field: the quote is truncated or ambiguous.
    WholeQuote,
}

impl Marquee {
    fn add(&mut self, quote: &RawQuote<'_>, served: &CurrencySet) {
        match parse_quote(quote, served) {
            Ok((pair, value)) => {
                self.quote_count += 1;
                let index = *self.index.entry(pair).or_insert(self.pairs.len());
                match self.pairs.get_mut(index) {
                    None => self.pairs.push(QuotedPair { pair, value, differing: None, count: 1 }),
                    Some(quoted) => {
                        quoted.count += 1;
                        if quoted.value != value {
                            quoted.differing.get_or_insert(value);
                        }
                    }
                }
            }
            Err(reason) => self.refuse(&format!("{}/{}", quote.base, quote.quote), reason),
        }
    }

    fn refuse(&mut self, pair: &str, reason: QuoteError) {
        let field = match &reason {
            QuoteError::Pair(_) => RefusedField::Pair,
            QuoteError::Rate { .. } => RefusedField::Rate,
            QuoteError::ReportedChange { .. } => RefusedField::ReportedChange,
            QuoteError::Truncated(_) | QuoteError::Ambiguous { .. } => RefusedField::WholeQuote,
        };
        if self.seen_refusals.insert((pair.to_owned(), field)) {
            self.push_refused(pair, reason);
        }
    }

    fn push_refused(&mut self, pair: &str, reason: QuoteError) {
        self.refused_count += 1;
        if self.refused.len() < TickerPage::REFUSED_MAX {
            self.refused.push(RefusedQuote { pair: pair.to_owned(), reason });
        }
    }

    fn finish(mut self, source: &Source, date: Option<NaiveDate>, observed_time: Timestamp) -> TickerPage {
        let mut ticks = Vec::with_capacity(self.pairs.len());
        let cycle_count = self.pairs.iter().map(|quoted| quoted.count).max().unwrap_or(0);
        for QuotedPair { pair, value, differing, .. } in std::mem::take(&mut self.pairs) {
            match differing {
                None => {
                    let series = SeriesKey { pair, source: source.clone() };
                    ticks.push(Tick { series, observed_time, value });
                }
                Some(second) => {
                    let reason = QuoteError::Ambiguous { pair, first: value_text(value), second: value_text(second) };
                    self.push_refused(&pair.to_string(), reason);
                }
            }
        }
        TickerPage {
            quote_count: self.quote_count,
            cycle_count,
            date,
            observed_time,
            ticks,
            refused: self.refused,
            refused_count: self.refused_count,
        }
    }
}

fn value_text(value: PublishedValue) -> String {
    value.reported_change.map_or_else(|| value.rate.to_string(), |change| format!("{} {change}%", value.rate))
}

fn parse_quote(quote: &RawQuote<'_>, served: &CurrencySet) -> Result<(Pair, PublishedValue), QuoteError> {
    // U+2212, the typographic minus sign, is the only accepted variant of a character in a number.
    let ascii_minus = |text: &str| text.replace('\u{2212}', "-");
    let pair = Pair::parse(&format!("{}/{}", quote.base, quote.quote), served)?;
    let rate = Rate::parse(&ascii_minus(quote.rate)).map_err(|problem| QuoteError::Rate { pair, problem })?;
    let change = ReportedChange::parse(&ascii_minus(quote.change))
        .map_err(|problem| QuoteError::ReportedChange { pair, problem })?;
    Ok((pair, PublishedValue { rate, reported_change: Some(change) }))
}

/// The lines that hold only a date.
#[derive(Default)]
struct DateLines {
    first: Option<NaiveDate>,
    problem: Option<PageError>,
}

impl DateLines {
    fn add(&mut self, line: &str) {
        let problem = match (date_line(line), self.first) {
            (Some(Err(problem)), _) => problem,
            (Some(Ok(second)), Some(first)) if first != second => PageError::DatesDiffer { first, second },
            (Some(Ok(date)), _) => {
                self.first = Some(date);
                return;
            }
            (None, _) => return,
        };
        self.problem.get_or_insert(problem);
    }

    /// Returns the date, if all date lines are valid and hold the same date.
    fn single_date(self) -> Result<NaiveDate, PageError> {
        match (self.problem, self.first) {
            (Some(problem), _) => Err(problem),
            (None, Some(date)) => Ok(date),
            (None, None) => Err(PageError::NoDate),
        }
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Parses a line like `08 December 2025`. Returns `None` if the line does not have this form.
fn date_line(line: &str) -> Option<Result<NaiveDate, PageError>> {
    let mut words = line.split(is_space).filter(|word| !word.is_empty());
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let number = |word: &str, digits: std::ops::RangeInclusive<usize>| -> Option<u32> {
        (digits.contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_digit())).then(|| word.parse().ok())?
    };
    let (day, year) = (number(day, 1..=2)?, number(year, 4..=4)?);
    let month = (1..).zip(MONTHS).find(|(_, name)| name.eq_ignore_ascii_case(month))?.0;
    if words.next().is_some() {
        return None;
    }
    // chrono has a year 0, but a timestamp begins with year 1.
    let date = i32::try_from(year).ok().filter(|year| *year > 0);
    let date = date.and_then(|year| NaiveDate::from_ymd_opt(year, month, day));
    Some(date.ok_or_else(|| PageError::BadDate(truncate_for_display(line))))
}

fn day_start(date: NaiveDate) -> Timestamp {
    date.and_time(NaiveTime::MIN).and_utc().into()
}

#[cfg(test)]
mod tests;
