//! The layout of the watch screen: from the state of a watch to lines of coloured text.
//!
//! **Invariants**: nothing here does I/O. No line is wider than the screen, and there are never more lines than the
//! screen has rows. A colour never carries information that the text does not carry.

use std::time::Instant;

use crossterm::style::Color;

use super::state::{ConnectionState, Row, WatchState, time};
use super::trend::scaled;
use crate::cli::text::clean;
use crate::cli::value::Value;
use crate::domain::{Rate, Timestamp, duration_us, format_rounded_duration};
use crate::proto::v1::RateState;

/// The minimum width of the trend.
const TREND_CHARS_MIN: usize = 5;
/// The maximum width of the trend.
const TREND_CHARS_MAX: usize = 32;
/// On narrower screens, columns are separated by one space instead of two.
const NARROW_CHARS: usize = 60;
/// The minimum width of the source if the sources differ.
const SOURCE_CHARS_MIN: usize = 6;
/// The number of lines that are not rates: connection, titles and keys.
const FRAME_ROWS: usize = 3;

/// The meaning of a span of text. The meaning determines the colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tint {
    /// Ordinary text.
    Plain,
    /// Text of less importance, such as titles.
    Faint,
    /// A rising rate, a moving rate or a live connection.
    Good,
    /// A falling rate, a stale rate or a lost connection.
    Bad,
    /// A trend or a pegged rate.
    Neutral,
}

impl Tint {
    /// Returns a colour of the terminal's palette, readable on light and dark backgrounds; `None` for plain text.
    pub(super) fn colour(self) -> Option<Color> {
        match self {
            Self::Plain => None,
            Self::Faint => Some(Color::DarkGrey),
            Self::Good => Some(Color::Green),
            Self::Bad => Some(Color::Red),
            Self::Neutral => Some(Color::Blue),
        }
    }
}

/// A part of a line with one tint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Span {
    pub(super) text: String,
    pub(super) tint: Tint,
}

impl Span {
    fn new(text: impl Into<String>, tint: Tint) -> Self {
        Self { text: text.into(), tint }
    }
}

pub(super) type Line = Vec<Span>;

/// A column of the table.
struct Column {
    title: &'static str,
    /// The order in which columns are dropped on a narrow screen, highest first; 0 for columns that always stay. The source
    /// stays, because it distinguishes the rows of a pair.
    drop_order: u8,
    align_right: bool,
    value: fn(&RowContext<'_>, &Row) -> Span,
}

/// The data that the columns use, in addition to a row, to format the values of the row.
struct RowContext<'a> {
    state: &'a WatchState,
    /// The server's time; `None` before the first message.
    now: Option<Timestamp>,
    trend_chars: usize,
}

const COLUMNS: [Column; 7] = [
    Column {
        title: "pair",
        drop_order: 0,
        align_right: false,
        value: |_, row| plain(row.run().map_or("", |run| &run.pair)),
    },
    Column {
        title: "source",
        drop_order: 0,
        align_right: false,
        value: |_, row| plain(row.run().map_or("", |run| &run.source)),
    },
    Column { title: "rate", drop_order: 0, align_right: true, value: rate },
    Column {
        title: TREND_TITLE,
        drop_order: 3,
        align_right: false,
        value: |context, row| Span::new(row.trend.blocks(context.trend_chars), Tint::Neutral),
    },
    Column { title: "state", drop_order: 0, align_right: false, value: rate_state },
    Column { title: "last move", drop_order: 4, align_right: false, value: last_move },
    Column { title: "seen", drop_order: 1, align_right: true, value: last_observed },
];
const TREND_TITLE: &str = "trend";
const SOURCE_TITLE: &str = "source";

fn plain(text: &str) -> Span {
    Span::new(clean(text), Tint::Plain)
}

fn rate(_: &RowContext<'_>, row: &Row) -> Span {
    plain(row.run().map_or("", |run| &run.rate))
}

/// Formats the state of a rate. While the connection is lost, the state is unknown: an old state would look current.
fn rate_state(context: &RowContext<'_>, row: &Row) -> Span {
    if matches!(context.state.connection, ConnectionState::Lost { .. }) {
        return Span::new("unknown", Tint::Bad);
    }
    let state = row.rate.state();
    let tint = match state {
        RateState::Stale => Tint::Bad,
        RateState::Pegged => Tint::Neutral,
        RateState::Moving => Tint::Good,
        RateState::Flat | RateState::Unspecified => Tint::Plain,
    };
    Span::new(Value::state(state).to_csv().unwrap_or_default(), tint)
}

/// Formats the last move of a rate: the direction, the previous rate and the time since the move.
fn last_move(context: &RowContext<'_>, row: &Row) -> Span {
    let Some(moved) = time(row.rate.moved_time.as_ref()) else { return Span::new("never", Tint::Faint) };
    let previous = row.rate.previous_rate.as_deref().unwrap_or_default();
    let rates = (Rate::parse(previous), Rate::parse(row.run().map_or("", |run| &run.rate)));
    let (arrow, tint) = match rates {
        (Ok(before), Ok(now)) if scaled(before) < scaled(now) => ("▲", Tint::Good),
        (Ok(_), Ok(_)) => ("▼", Tint::Bad),
        (Ok(_) | Err(_), _) => ("", Tint::Plain),
    };
    let ago = context.now.map_or(String::new(), |now| format!(" {}", ago(&age(now, moved))));
    Span::new(format!("{arrow} from {}{ago}", clean(previous)), tint)
}

/// Formats the time since the last observation.
fn last_observed(context: &RowContext<'_>, row: &Row) -> Span {
    let last = time(row.run().and_then(|run| run.last_observed_time.as_ref()));
    let text = last.zip(context.now).map_or("-".to_owned(), |(last, now)| age(now, last));
    let is_stale = row.rate.state() == RateState::Stale;
    Span::new(text, if is_stale { Tint::Bad } else { Tint::Faint })
}

/// Formats the time since `then` in one unit; `now` if it is under a second or if `then` is in the future.
fn age(now: Timestamp, then: Timestamp) -> String {
    match now.micros_since(then) {
        past if past >= Timestamp::SECOND_US => format_rounded_duration(past),
        _ => "now".to_owned(),
    }
}

/// Lays out the screen at the local time `at`. `scroll` is the index of the first visible row. If too few rows follow
/// to fill the screen, a smaller index is used.
pub(super) fn frame(state: &WatchState, at: Instant, width: usize, height: usize, scroll: usize) -> Vec<Line> {
    let now = state.now(at);
    let rows: Vec<&Row> = state.rows.values().collect();
    let visible = height.saturating_sub(FRAME_ROWS).max(1);
    let first = scroll.min(rows.len().saturating_sub(visible));
    let mut lines = vec![connection_line(state, now, at)];
    lines.extend(table(state, now, &rows, first..(first + visible).min(rows.len()), width));
    lines.push(key_line(rows.len(), first, visible));
    lines.truncate(height);
    lines.into_iter().map(|line| truncate_for_display(line, width)).collect()
}

/// Formats the state of the connection, and the age of the last ingest.
fn connection_line(state: &WatchState, now: Option<Timestamp>, at: Instant) -> Line {
    let ingest = match state.last_ingest.zip(now) {
        Some((last, now)) => format!("last ingest {}", ago(&age(now, last))),
        None => "nothing ingested yet".to_owned(),
    };
    let seconds = |from: Instant, to: Instant| format_rounded_duration(duration_us(to.saturating_duration_since(from)));
    match &state.connection {
        ConnectionState::Waiting => vec![Span::new("connected, waiting for rates", Tint::Faint)],
        ConnectionState::Lost { since, problem, retry_at } => {
            let text = format!(
                "CONNECTION LOST for {}, retry in {}: {}",
                seconds(*since, at),
                seconds(at, *retry_at),
                clean(problem)
            );
            vec![Span::new(text, Tint::Bad)]
        }
        ConnectionState::Live => {
            let all_stale =
                !state.rows.is_empty() && state.rows.values().all(|row| row.rate.state() == RateState::Stale);
            if all_stale {
                return vec![Span::new(format!("ALL RATES ARE STALE: {ingest}; the feeds may be dead"), Tint::Bad)];
            }
            vec![Span::new("live", Tint::Good), Span::new(format!("  {ingest}"), Tint::Plain)]
        }
    }
}

fn ago(age: &str) -> String {
    if age == "now" { "now".to_owned() } else { format!("{age} ago") }
}

/// Formats the keys and, if not all rows are visible, the range of visible rows.
fn key_line(rows: usize, first: usize, visible: usize) -> Line {
    let text = if rows > visible {
        format!("q quits; rows {} to {} of {rows}, arrow keys scroll", first + 1, (first + visible).min(rows))
    } else {
        "q quits".to_owned()
    };
    vec![Span::new(text, Tint::Faint)]
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

/// Formats the titles and the rows in `visible`. Drops columns until the others fit, and gives the spare width to the
/// trend.
fn table(
    state: &WatchState,
    now: Option<Timestamp>,
    rows: &[&Row],
    visible: std::ops::Range<usize>,
    width: usize,
) -> Vec<Line> {
    if rows.is_empty() {
        return vec![vec![Span::new("no rate yet; waiting for the first one", Tint::Faint)]];
    }
    let mut context = RowContext { state, now, trend_chars: TREND_CHARS_MIN };
    let one_source = rows.iter().all(|row| row.run().map(|run| &run.source) == rows[0].run().map(|run| &run.source));
    let gap = if width < NARROW_CHARS { 1 } else { 2 };
    // Widths cover all rows, also invisible ones, so that columns do not move while scrolling.
    let mut columns: Vec<(&Column, usize)> = COLUMNS
        .iter()
        .filter(|column| column.title != SOURCE_TITLE || !one_source || width >= NARROW_CHARS)
        .map(|column| {
            let widest = rows.iter().map(|row| chars(&(column.value)(&context, row).text)).max().unwrap_or(0);
            let minimum = if column.title == TREND_TITLE { TREND_CHARS_MIN } else { chars(column.title) };
            (column, widest.max(minimum))
        })
        .collect();
    let used = |columns: &[(&Column, usize)]| columns.iter().map(|(_, chars)| chars + gap).sum::<usize>() - gap;
    while used(&columns) > width {
        let Some(dropped) = (0..columns.len()).max_by_key(|index| columns[*index].0.drop_order) else { break };
        if columns[dropped].0.drop_order == 0 {
            break;
        }
        columns.remove(dropped);
    }
    let excess = used(&columns).saturating_sub(width);
    if let Some((_, chars)) = columns.iter_mut().find(|(column, _)| column.title == SOURCE_TITLE) {
        *chars = chars.saturating_sub(excess).max(SOURCE_CHARS_MIN);
    }
    let spare = width.saturating_sub(used(&columns));
    if let Some((_, chars)) = columns.iter_mut().find(|(column, _)| column.title == TREND_TITLE) {
        *chars = (*chars + spare).min(TREND_CHARS_MAX);
        context.trend_chars = *chars;
    }
    let titles =
        columns.iter().map(|(column, chars)| pad(Span::new(column.title, Tint::Faint), *chars, column.align_right));
    let mut lines = vec![join(titles, gap)];
    lines.extend(rows[visible].iter().map(|row| {
        let cell = |(column, chars): &(&Column, usize)| {
            let span = (column.value)(&context, row);
            let text = if column.title == SOURCE_TITLE { shorten(span.text, *chars) } else { span.text };
            pad(Span { text, ..span }, *chars, column.align_right)
        };
        join(columns.iter().map(cell), gap)
    }));
    lines
}

/// Shortens a text to `width` characters. Keeps the end too, which often distinguishes names: `timesca-mir…-2`.
fn shorten(text: String, width: usize) -> String {
    let count = chars(&text);
    if count <= width {
        return text;
    }
    let tail = width.saturating_sub(1) / 3;
    let head: String = text.chars().take(width.saturating_sub(tail + 1)).collect();
    let tail: String = text.chars().skip(count - tail).collect();
    format!("{head}…{tail}")
}

/// Pads a span with spaces to `width`.
fn pad(span: Span, width: usize, align_right: bool) -> Span {
    let spaces = " ".repeat(width.saturating_sub(chars(&span.text)));
    let text = if align_right { spaces + &span.text } else { span.text + &spaces };
    Span { text, ..span }
}

/// Joins spans to a line, with `gap` spaces between them.
fn join(spans: impl Iterator<Item = Span>, gap: usize) -> Line {
    let mut line = Line::new();
    for span in spans {
        if !line.is_empty() {
            line.push(Span::new(" ".repeat(gap), Tint::Plain));
        }
        line.push(span);
    }
    line
}

/// Truncates a line to `width` characters.
fn truncate_for_display(line: Line, width: usize) -> Line {
    let mut left = width;
    let fits = line.into_iter().map(|span| {
        let text: String = span.text.chars().take(left).collect();
        left -= chars(&text);
        Span { text, ..span }
    });
    fits.filter(|span| !span.text.is_empty()).collect()
}

#[cfg(test)]
mod tests;
