//! One picture of a watch: lines of tinted text for a screen of so many columns and rows.
//!
//! **Invariants**: pure. No line is longer than the screen, and there are no more lines than rows. What a colour says, a
//! word says too.

use std::time::Instant;

use crossterm::style::Color;

use super::state::{Held, Line as Connection, Row, time};
use super::trend::number;
use crate::cli::text::{clean, length};
use crate::cli::value::Value;
use crate::domain::{Rate, Timestamp, duration_us};
use crate::proto::v1::RateState;

/// Columns that the trend has at least, and at most.
const TREND_CHARS_MIN: usize = 5;
const TREND_CHARS_MAX: usize = 32;
/// Below this many columns, one blank parts two of them instead of two.
const NARROW_CHARS: usize = 60;
/// Rows for what is not a rate: connection, titles, keys.
const FRAME_ROWS: usize = 3;

/// What a piece of text is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tint {
    Plain,
    Faint,
    Good,
    Bad,
    Calm,
}

impl Tint {
    /// One of the terminal's own, so that it can be read on light and dark; none for plain text.
    pub(super) fn colour(self) -> Option<Color> {
        match self {
            Self::Plain => None,
            Self::Faint => Some(Color::DarkGrey),
            Self::Good => Some(Color::Green),
            Self::Bad => Some(Color::Red),
            Self::Calm => Some(Color::Blue),
        }
    }
}

/// A piece of a line.
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

/// A column: what heads it, how a row fills it, and whether it gives way on a narrow screen (the highest first).
struct Column {
    title: &'static str,
    gives_way: u8,
    right: bool,
    cell: fn(&View<'_>, &Row) -> Span,
}

/// What cells are made from.
struct View<'a> {
    held: &'a Held,
    now: Option<Timestamp>,
    trend_chars: usize,
}

const COLUMNS: [Column; 7] = [
    Column { title: "pair", gives_way: 0, right: false, cell: |_, row| plain(row.run().map_or("", |run| &run.pair)) },
    Column {
        title: "source",
        gives_way: 2,
        right: false,
        cell: |_, row| plain(row.run().map_or("", |run| &run.source)),
    },
    Column { title: "rate", gives_way: 0, right: true, cell: rate },
    Column {
        title: TREND_TITLE,
        gives_way: 3,
        right: false,
        cell: |view, row| Span::new(row.trend.blocks(view.trend_chars), Tint::Calm),
    },
    Column { title: "state", gives_way: 0, right: false, cell: state },
    Column { title: "last move", gives_way: 4, right: false, cell: moved },
    Column { title: "seen", gives_way: 1, right: true, cell: seen },
];
const TREND_TITLE: &str = "trend";
const SOURCE_TITLE: &str = "source";

fn plain(text: &str) -> Span {
    Span::new(clean(text), Tint::Plain)
}

fn rate(_: &View<'_>, row: &Row) -> Span {
    plain(row.run().map_or("", |run| &run.rate))
}

/// While the connection is lost nobody knows: what was known would look like news.
fn state(view: &View<'_>, row: &Row) -> Span {
    if matches!(view.held.line, Connection::Lost { .. }) {
        return Span::new("unknown", Tint::Bad);
    }
    let state = row.rate.state();
    let tint = match state {
        RateState::Stale => Tint::Bad,
        RateState::Pegged => Tint::Calm,
        RateState::Moving => Tint::Good,
        RateState::Flat | RateState::Unspecified => Tint::Plain,
    };
    Span::new(Value::state(state).to_csv().unwrap_or_default(), tint)
}

fn moved(view: &View<'_>, row: &Row) -> Span {
    let Some(moved) = time(row.rate.moved_time.as_ref()) else { return Span::new("never", Tint::Faint) };
    let previous = row.rate.previous_rate.as_deref().unwrap_or_default();
    let rates = (Rate::parse(previous), Rate::parse(row.run().map_or("", |run| &run.rate)));
    let (arrow, tint) = match rates {
        (Ok(before), Ok(now)) if number(before) < number(now) => ("▲", Tint::Good),
        (Ok(_), Ok(_)) => ("▼", Tint::Bad),
        (Ok(_) | Err(_), _) => ("", Tint::Plain),
    };
    let ago = view.now.map_or(String::new(), |now| format!(" {}", ago(&age(now, moved))));
    Span::new(format!("{arrow} from {}{ago}", clean(previous)), tint)
}

fn seen(view: &View<'_>, row: &Row) -> Span {
    let last = time(row.run().and_then(|run| run.last_observed_time.as_ref()));
    let text = last.zip(view.now).map_or("-".to_owned(), |(last, now)| age(now, last));
    let is_stale = row.rate.state() == RateState::Stale;
    Span::new(text, if is_stale { Tint::Bad } else { Tint::Faint })
}

/// How long ago, in one unit; what lies a moment ahead of the server's clock is now.
fn age(now: Timestamp, then: Timestamp) -> String {
    match now.micros_since(then) {
        past if past >= Timestamp::SECOND_US => length(past),
        _ => "now".to_owned(),
    }
}

/// The picture of what is held at `at`, from the row `scroll` on.
pub(super) fn frame(held: &Held, at: Instant, width: usize, height: usize, scroll: usize) -> Vec<Line> {
    let now = held.now(at);
    let rows: Vec<&Row> = held.rows.values().collect();
    let room = height.saturating_sub(FRAME_ROWS).max(1);
    let first = scroll.min(rows.len().saturating_sub(room));
    let mut lines = vec![head(held, now, at)];
    lines.extend(table(held, now, &rows, first..(first + room).min(rows.len()), width));
    lines.push(foot(rows.len(), first, room));
    lines.truncate(height);
    lines.into_iter().map(|line| truncate_for_display(line, width)).collect()
}

/// Whether news come, and whether anything comes in at all.
fn head(held: &Held, now: Option<Timestamp>, at: Instant) -> Line {
    let ingest = match held.last_ingest.zip(now) {
        Some((last, now)) => format!("last ingest {}", ago(&age(now, last))),
        None => "nothing ingested yet".to_owned(),
    };
    let seconds = |from: Instant, to: Instant| length(duration_us(to.saturating_duration_since(from)));
    match &held.line {
        Connection::Waiting => vec![Span::new("connected, waiting for rates", Tint::Faint)],
        Connection::Lost { since, problem, retry_at } => {
            let text = format!(
                "CONNECTION LOST {}, again in {}: {}",
                seconds(*since, at),
                seconds(at, *retry_at),
                clean(problem)
            );
            vec![Span::new(text, Tint::Bad)]
        }
        Connection::Live => {
            let is_dead = !held.rows.is_empty() && held.rows.values().all(|row| row.rate.state() == RateState::Stale);
            if is_dead {
                return vec![Span::new(format!("NO FEED IS ALIVE: {ingest}, all rates are stale"), Tint::Bad)];
            }
            vec![Span::new("live", Tint::Good), Span::new(format!("  {ingest}"), Tint::Plain)]
        }
    }
}

fn ago(age: &str) -> String {
    if age == "now" { "now".to_owned() } else { format!("{age} ago") }
}

fn foot(rows: usize, first: usize, room: usize) -> Line {
    let text = if rows > room {
        format!("q quits; rows {} to {} of {rows}, arrows show others", first + 1, (first + room).min(rows))
    } else {
        "q quits".to_owned()
    };
    vec![Span::new(text, Tint::Faint)]
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

/// Titles and rows. Columns give way until the others have room; the trend takes what is left.
fn table(held: &Held, now: Option<Timestamp>, rows: &[&Row], shown: std::ops::Range<usize>, width: usize) -> Vec<Line> {
    if rows.is_empty() {
        return vec![vec![Span::new("no rates yet", Tint::Faint)]];
    }
    let mut view = View { held, now, trend_chars: TREND_CHARS_MIN };
    let one_source = rows.iter().all(|row| row.run().map(|run| &run.source) == rows[0].run().map(|run| &run.source));
    let gap = if width < NARROW_CHARS { 1 } else { 2 };
    // Of all rows, so that columns do not jump while one scrolls.
    let mut columns: Vec<(&Column, usize)> = COLUMNS
        .iter()
        .filter(|column| column.title != SOURCE_TITLE || !one_source || width >= NARROW_CHARS)
        .map(|column| {
            let cells = rows.iter().map(|row| chars(&(column.cell)(&view, row).text)).max().unwrap_or(0);
            let least = if column.title == TREND_TITLE { TREND_CHARS_MIN } else { chars(column.title) };
            (column, cells.max(least))
        })
        .collect();
    let used = |columns: &[(&Column, usize)]| columns.iter().map(|(_, chars)| chars + gap).sum::<usize>() - gap;
    while used(&columns) > width {
        let Some(loser) = (0..columns.len()).max_by_key(|index| columns[*index].0.gives_way) else { break };
        if columns[loser].0.gives_way == 0 {
            break;
        }
        columns.remove(loser);
    }
    let spare = width.saturating_sub(used(&columns));
    if let Some((_, chars)) = columns.iter_mut().find(|(column, _)| column.title == TREND_TITLE) {
        *chars = (*chars + spare).min(TREND_CHARS_MAX);
        view.trend_chars = *chars;
    }
    let titles = columns.iter().map(|(column, chars)| pad(Span::new(column.title, Tint::Faint), *chars, column.right));
    let mut lines = vec![join(titles, gap)];
    lines.extend(rows[shown].iter().map(|row| {
        join(columns.iter().map(|(column, chars)| pad((column.cell)(&view, row), *chars, column.right)), gap)
    }));
    lines
}

fn pad(span: Span, width: usize, right: bool) -> Span {
    let blanks = " ".repeat(width.saturating_sub(chars(&span.text)));
    let text = if right { blanks + &span.text } else { span.text + &blanks };
    Span { text, ..span }
}

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

/// The line as far as the screen has room for it.
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
