//! The ticker page: one marquee of quotes, printed in many rounds amid articles.
//!
//! **Invariant**: a pair gives at most one tick, with a value that the page prints whole and on
//! which all its rounds agree; every quote that gives none is named with its reason.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use chrono::{NaiveDate, NaiveTime};
use thiserror::Error;

use super::html_text::{html_text, is_html};
use super::quote_scan::{RawQuote, cut_off, is_space, quotes};
use crate::domain::{
    CurrencySet, Pair, PairError, PublishedValue, Rate, RateError, ReportedChange, ReportedChangeError, SeriesKey,
    Source, Tick, Timestamp, truncate_for_display,
};

/// What a ticker page says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TickerPage {
    /// Quotes read whole, over all rounds; those refused for a bad member are not among them.
    pub quote_count: u32,
    /// Rounds of the marquee: how often the pair quoted most often is quoted. So a round counts
    /// from its first quote on, whether a later one leaves a pair out or the page breaks it off.
    pub cycle_count: u32,
    /// The date that stands alone on a line, if it is one date.
    pub date: Option<NaiveDate>,
    /// The time of every tick: the caller's, or else the start of `date`, UTC.
    pub observed_time: Timestamp,
    /// One a pair, in order of first appearance.
    pub ticks: Vec<Tick>,
    /// Quotes that gave no tick, one for each pair and kind of reason, in order of appearance,
    /// ambiguous pairs after them; at most [`TickerPage::REFUSED_MAX`].
    pub refused: Vec<RefusedQuote>,
    /// How many there would be without that limit.
    pub refused_count: u32,
}

/// A quote that gave no tick. Its pair may have one from the other rounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedQuote {
    /// As written; of a quote that is cut off, what is left of it.
    pub pair: String,
    /// Why; its text names field, value and remedy.
    pub reason: QuoteError,
}

/// Why a quote gave no tick.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum QuoteError {
    /// The page quotes the pair with two values.
    #[error("the page quotes {pair} as {first} and as {second}; send it with one of them")]
    Ambiguous {
        /// The pair.
        pair: Pair,
        /// Rate and change, as first quoted.
        first: String,
        /// The first quote that differs.
        second: String,
    },
    /// The page ends before the quote does.
    #[error("the page ends within the quote '{0}'; send the whole page")]
    Truncated(String),
    /// Bad pair, or a currency that is not served.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// Bad rate.
    #[error("{pair}: {problem}")]
    Rate {
        /// Whose.
        pair: Pair,
        /// What is wrong.
        problem: RateError,
    },
    /// Bad percentage.
    #[error("{pair}: {problem}")]
    ReportedChange {
        /// Whose.
        pair: Pair,
        /// What is wrong.
        problem: ReportedChangeError,
    },
}

/// Why bytes are no ticker page that can be taken in.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PageError {
    /// Over the limit.
    #[error("the page has {found_bytes} bytes; at most {max_bytes} are read, so send only the part with the ticker")]
    TooLarge {
        /// As sent.
        found_bytes: usize,
        /// Allowed.
        max_bytes: usize,
    },
    /// A NUL byte: an image, an archive, or text in UTF-16.
    #[error("the page is binary, with a NUL byte at offset {offset}; send text or HTML in UTF-8")]
    Binary {
        /// Of the byte, from 0.
        offset: usize,
    },
    /// Text of another encoding, or cut within a character.
    #[error("the page is not UTF-8 at byte offset {offset}; convert it, or send it whole")]
    NotUtf8 {
        /// Of the first bad byte, from 0.
        offset: usize,
    },
    /// Nothing to read, or nothing to date.
    #[error("the page has no quotes; a quote looks like 'KGS/USD = 0.01144 0%'")]
    NoQuotes,
    /// Undated, and the caller gives no time.
    #[error("the page has no line that holds only a date, like '08 December 2025'; give the observed time")]
    NoDate,
    /// Two dates on lines of their own.
    #[error("the page has lines that hold only a date, {first} and {second}, and they differ; give the observed time")]
    DatesDiffer {
        /// The first.
        first: NaiveDate,
        /// The first that differs.
        second: NaiveDate,
    },
    /// A date line that is in no calendar.
    #[error("the page's date line '{0}' is no date of the calendar; give the observed time")]
    BadDate(String),
}

impl TickerPage {
    /// Largest page read.
    pub const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
    /// Most refused quotes named; all are counted.
    pub const REFUSED_MAX: usize = 1_000;

    /// Reads a page of text or HTML in UTF-8. Ticks are from `source` at `observed_time`, or else
    /// at the start (UTC) of the date that stands alone on a line of the page; with a time given,
    /// the page's dates are not judged. Only pairs of `served` currencies give ticks.
    ///
    /// # Errors
    /// Any [`PageError`]: the page as a whole cannot be taken in. Single bad quotes are in
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

/// The page as text, without a byte order mark.
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
    // The last line that is not blank, and whether quotes stand on the one before it.
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
    if let Some(rest) = cut_off(last_line, in_marquee) {
        let pair = rest.split('=').next().unwrap_or(rest).trim_end_matches(is_space);
        marquee.refuse(pair, QuoteError::Truncated(truncate_for_display(rest)));
    }
    if marquee.quote_count == 0 && marquee.refused.is_empty() {
        return Err(PageError::NoQuotes);
    }
    let (date, observed_time) = match observed_time {
        Some(time) => (dates.only().ok(), time),
        None => dates.only().map(|date| (Some(date), day_start(date)))?,
    };
    Ok(marquee.finish(source, date, observed_time))
}

fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What was quoted so far.
#[derive(Default)]
struct Marquee {
    quote_count: u32,
    /// In order of first appearance.
    pairs: Vec<QuotedPair>,
    /// Where in `pairs`.
    index: HashMap<Pair, usize>,
    refused: Vec<RefusedQuote>,
    refused_count: u32,
    /// The refused ones by pair and field, which a marquee repeats as often as good ones.
    known_refusals: HashSet<(String, Field)>,
}

struct QuotedPair {
    pair: Pair,
    value: PublishedValue,
    /// The first value that differs from `value`.
    other: Option<PublishedValue>,
    count: u32,
}

/// What of a quote was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Field {
    Pair,
    Rate,
    ReportedChange,
    End,
}

impl Marquee {
    fn add(&mut self, quote: &RawQuote<'_>, served: &CurrencySet) {
        match parse(quote, served) {
            Ok((pair, value)) => {
                self.quote_count += 1;
                let index = *self.index.entry(pair).or_insert(self.pairs.len());
                match self.pairs.get_mut(index) {
                    None => self.pairs.push(QuotedPair { pair, value, other: None, count: 1 }),
                    Some(known) => {
                        known.count += 1;
                        if known.value != value {
                            known.other.get_or_insert(value);
                        }
                    }
                }
            }
            Err(reason) => self.refuse(&format!("{}/{}", quote.base, quote.quote), reason),
        }
    }

    fn refuse(&mut self, pair: &str, reason: QuoteError) {
        let field = match &reason {
            QuoteError::Pair(_) => Field::Pair,
            QuoteError::Rate { .. } => Field::Rate,
            QuoteError::ReportedChange { .. } => Field::ReportedChange,
            QuoteError::Truncated(_) | QuoteError::Ambiguous { .. } => Field::End,
        };
        if self.known_refusals.insert((pair.to_owned(), field)) {
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
        for QuotedPair { pair, value, other, .. } in std::mem::take(&mut self.pairs) {
            match other {
                None => {
                    let series = SeriesKey { pair, source: source.clone() };
                    ticks.push(Tick { series, observed_time, value });
                }
                Some(other) => {
                    let reason = QuoteError::Ambiguous { pair, first: as_quoted(value), second: as_quoted(other) };
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

fn as_quoted(value: PublishedValue) -> String {
    value.reported_change.map_or_else(|| value.rate.to_string(), |change| format!("{} {change}%", value.rate))
}

fn parse(quote: &RawQuote<'_>, served: &CurrencySet) -> Result<(Pair, PublishedValue), QuoteError> {
    // The minus sign proper is the only character of a number that is written in two ways.
    let plain = |text: &str| text.replace('\u{2212}', "-");
    let pair = Pair::parse(&format!("{}/{}", quote.base, quote.quote), served)?;
    let rate = Rate::parse(&plain(quote.rate)).map_err(|problem| QuoteError::Rate { pair, problem })?;
    let change =
        ReportedChange::parse(&plain(quote.change)).map_err(|problem| QuoteError::ReportedChange { pair, problem })?;
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

    /// The date, if there is one and no other.
    fn only(self) -> Result<NaiveDate, PageError> {
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

/// The date of a line like `08 December 2025`; none if the line is anything else.
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
    // Years before 1 have no timestamp; chrono has a year 0.
    let date = i32::try_from(year).ok().filter(|year| *year > 0);
    let date = date.and_then(|year| NaiveDate::from_ymd_opt(year, month, day));
    Some(date.ok_or_else(|| PageError::BadDate(truncate_for_display(line))))
}

fn day_start(date: NaiveDate) -> Timestamp {
    date.and_time(NaiveTime::MIN).and_utc().into()
}

#[cfg(test)]
mod tests;
