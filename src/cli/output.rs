//! Rows to a table, JSON or CSV: the one place that decides how an answer looks.
//!
//! **Invariant**: rows are written as they come; no more than [`TABLE_CHUNK_ROWS`] are held. Nothing here writes a
//! colour or a cursor movement, on a terminal or in a pipe.

mod lines;

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::value::{FormattedValue, Value};
use crate::domain::Timestamp;

pub(super) use lines::LineSheet;

/// Rows of a table that are laid out together; later ones keep to the columns of the first.
pub(super) const TABLE_CHUNK_ROWS: usize = 500;
/// Blanks between two columns.
const GAP_CHARS: usize = 2;

/// How answers are written: tables for people, with ages beside times; JSON as an array of objects or one object, in
/// which decimals are strings and an absent value is null; CSV with a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
    Csv,
}

/// A column of rows made of `T`.
pub(super) struct Column<T> {
    field: &'static str,
    title: &'static str,
    formats: &'static [Format],
    cell: fn(&T) -> Value,
}

impl<T> Column<T> {
    /// In every format: `field` (the name in the proto) heads it for machines, `title` for people.
    pub(super) const fn new(field: &'static str, title: &'static str, cell: fn(&T) -> Value) -> Self {
        Self { field, title, formats: &[Format::Table, Format::Json, Format::Csv], cell }
    }

    /// For machines only.
    pub(super) const fn data(field: &'static str, cell: fn(&T) -> Value) -> Self {
        Self { field, title: "", formats: &[Format::Json, Format::Csv], cell }
    }

    /// In JSON only: what has parts.
    pub(super) const fn json(field: &'static str, cell: fn(&T) -> Value) -> Self {
        Self { field, title: "", formats: &[Format::Json], cell }
    }

    /// In CSV only: what JSON nests.
    pub(super) const fn csv(field: &'static str, cell: fn(&T) -> Value) -> Self {
        Self { field, title: "", formats: &[Format::Csv], cell }
    }

    /// In tables only.
    pub(super) const fn table(title: &'static str, cell: fn(&T) -> Value) -> Self {
        Self { field: "", title, formats: &[Format::Table], cell }
    }
}

/// The object that `row` is in JSON.
pub(super) fn record<T>(columns: &[Column<T>], row: &T) -> Value {
    let columns = columns.iter().filter(|column| column.formats.contains(&Format::Json));
    Value::Record(columns.map(|column| (column.field, (column.cell)(row))).collect())
}

/// Where rows go, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Table, JSON or CSV.
    pub(super) format: Format,
    /// What ages count from.
    pub(super) now: Timestamp,
    /// Characters in a line of the terminal; none in a pipe, where lines may be as long as they like.
    pub(super) width: Option<u16>,
}

impl Style {
    /// For standard output as it is.
    pub(super) fn for_stdout(format: Format, now: Timestamp) -> Self {
        Self { format, now, width: Table::new().width() }
    }
}

/// Writes rows one after the other.
pub(super) struct Sheet<W: Write, T: 'static> {
    columns: Vec<&'static Column<T>>,
    style: Style,
    body: Body<W>,
}

enum Body<W: Write> {
    Table { out: W, pending: Vec<Vec<FormattedValue>>, layout: Option<Layout> },
    Json { out: W, any: bool },
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write, T> Sheet<W, T> {
    /// Begins; what a format puts before its rows is written at once.
    ///
    /// # Errors
    /// As `out` has them.
    pub(super) fn new(mut out: W, style: Style, columns: &'static [Column<T>]) -> io::Result<Self> {
        let columns: Vec<_> = columns.iter().filter(|column| column.formats.contains(&style.format)).collect();
        let body = match style.format {
            Format::Table => Body::Table { out, pending: Vec::new(), layout: None },
            Format::Json => {
                out.write_all(b"[")?;
                Body::Json { out, any: false }
            }
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(out);
                csv.write_record(columns.iter().map(|column| column.field)).map_err(csv_to_io)?;
                Body::Csv(Box::new(csv))
            }
        };
        Ok(Self { columns, style, body })
    }

    /// One more row.
    ///
    /// # Errors
    /// As `out` has them.
    pub(super) fn row(&mut self, row: &T) -> io::Result<()> {
        let cells = self.columns.iter().map(|column| (column.cell)(row));
        match &mut self.body {
            Body::Table { pending, .. } => {
                pending.push(cells.map(|cell| cell.to_shown(self.style.now)).collect());
                if pending.len() >= TABLE_CHUNK_ROWS { self.flush_table() } else { Ok(()) }
            }
            Body::Json { out, any } => {
                let object = Value::Record(self.columns.iter().map(|column| column.field).zip(cells).collect());
                out.write_all(if *any { b",\n " } else { b"\n " })?;
                *any = true;
                Ok(serde_json::to_writer(out, &object)?)
            }
            Body::Csv(csv) => {
                let cells: Vec<String> = cells.map(|cell| cell.to_csv()).collect::<Result<_, _>>()?;
                csv.write_record(cells).map_err(csv_to_io)
            }
        }
    }

    /// Leaves out of tables the column headed `title`.
    pub(super) fn hide(&mut self, title: &str) {
        self.columns.retain(|column| column.title != title);
    }

    /// Writes the rows still held and no end: what follows is missing, and a JSON array left open says so.
    ///
    /// # Errors
    /// As `out` has them.
    pub(super) fn abandon(mut self) -> io::Result<()> {
        self.flush_table()?;
        match self.body {
            Body::Table { mut out, .. } | Body::Json { mut out, .. } => out.flush(),
            Body::Csv(mut csv) => csv.flush(),
        }
    }

    /// Writes what is still held. A table without rows writes nothing.
    ///
    /// # Errors
    /// As `out` has them.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush_table()?;
        match self.body {
            Body::Table { mut out, .. } => out.flush(),
            Body::Json { mut out, any } => {
                out.write_all(if any { b"\n]\n" } else { b"]\n" })?;
                out.flush()
            }
            Body::Csv(mut csv) => csv.flush(),
        }
    }

    fn flush_table(&mut self) -> io::Result<()> {
        let Body::Table { out, pending, layout } = &mut self.body else { return Ok(()) };
        if pending.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(pending);
        let titles: Vec<&str> = self.columns.iter().map(|column| column.title).collect();
        let first = layout.is_none();
        let layout = layout.get_or_insert_with(|| Layout::choose(&titles, &rows, self.style.width));
        let text = match layout {
            Layout::Lines(widths) => lines(first.then_some(&titles), &rows, widths, |cell| cell.line.clone()),
            Layout::Folded(widths) => lines(first.then_some(&titles), &rows, widths, |cell| cell.folded.clone()),
            Layout::Blocks => {
                let blocks: Vec<String> = rows.iter().map(|row| block(&titles, row, self.style.width)).collect();
                format!("{}{}", if first { "" } else { "\n" }, blocks.join("\n\n"))
            }
        };
        writeln!(out, "{text}")
    }
}

/// One answer rather than a list: an object in JSON, one row in CSV, a line for each field in a table.
///
/// # Errors
/// As `out` has them.
pub(super) fn write_one<T>(
    mut out: impl Write,
    style: Style,
    columns: &'static [Column<T>],
    row: &T,
) -> io::Result<()> {
    match style.format {
        Format::Table => {
            let columns = columns.iter().filter(|column| column.formats.contains(&Format::Table));
            let (titles, cells): (Vec<&str>, Vec<FormattedValue>) =
                columns.map(|column| (column.title, (column.cell)(row).to_shown(style.now))).unzip();
            writeln!(out, "{}", block(&titles, &cells, style.width))?;
        }
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &record(columns, row))?;
            writeln!(out)?;
        }
        Format::Csv => {
            let mut sheet = Sheet::new(&mut out, style, columns)?;
            sheet.row(row)?;
            sheet.finish()?;
        }
    }
    out.flush()
}

/// How a table fits its terminal. Words are never broken: what does not fit side by side goes one below the other.
#[derive(Debug, PartialEq, Eq)]
enum Layout {
    /// A row a line, columns at least so wide.
    Lines(Vec<usize>),
    /// A row a few lines: a time takes one for its date, one for its clock, one for its age.
    Folded(Vec<usize>),
    /// A block a row, a line for each field.
    Blocks,
}

impl Layout {
    fn choose(titles: &[&str], rows: &[Vec<FormattedValue>], width: Option<u16>) -> Self {
        let flat = widths(titles, rows, |cell| cell.line.chars().count());
        let Some(width) = width.map(usize::from) else { return Self::Lines(flat) };
        let fits =
            |widths: &[usize]| widths.iter().sum::<usize>() + GAP_CHARS * widths.len().saturating_sub(1) <= width;
        if fits(&flat) {
            return Self::Lines(flat);
        }
        let folded =
            widths(titles, rows, |cell| cell.folded.lines().map(|line| line.chars().count()).max().unwrap_or_default());
        if fits(&folded) { Self::Folded(folded) } else { Self::Blocks }
    }
}

fn widths(titles: &[&str], rows: &[Vec<FormattedValue>], of: impl Fn(&FormattedValue) -> usize) -> Vec<usize> {
    let widest = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(&of).max().unwrap_or_default();
    titles.iter().enumerate().map(|(at, title)| widest(at).max(title.chars().count())).collect()
}

/// Rows in columns. Without titles they continue a table whose columns had `widths`.
fn lines(
    titles: Option<&Vec<&str>>,
    rows: &[Vec<FormattedValue>],
    widths: &[usize],
    text: impl Fn(&FormattedValue) -> String,
) -> String {
    let mut table = bare_table();
    let right: Vec<bool> =
        (0..widths.len()).map(|at| rows.iter().any(|row| row.get(at).is_some_and(|c| c.right))).collect();
    let align = |text: String, right: bool| {
        comfy_table::Cell::new_owned(text).set_alignment(if right { CellAlignment::Right } else { CellAlignment::Left })
    };
    if let Some(titles) = titles {
        table.set_header(titles.iter().zip(&right).map(|(title, right)| align((*title).to_owned(), *right)));
    }
    for (number, row) in rows.iter().enumerate() {
        table.add_row(row.iter().zip(widths).zip(&right).map(|((cell, width), right)| match (text(cell), number) {
            (text, 0) if *right => align(format!("{text:>width$}"), true),
            (text, 0) if !text.contains('\n') => align(format!("{text:<width$}"), false),
            (text, _) => align(text, *right),
        }));
    }
    render(&mut table)
}

/// A row as a line for each field, wrapped to the width.
fn block(titles: &[&str], row: &[FormattedValue], width: Option<u16>) -> String {
    let mut table = bare_table();
    let mut room = usize::MAX;
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        let titles_width = titles.iter().map(|title| title.chars().count()).max().unwrap_or_default();
        room = usize::from(width).saturating_sub(titles_width + GAP_CHARS);
    }
    for (title, cell) in titles.iter().zip(row) {
        let text = if cell.line.chars().count() <= room { &cell.line } else { &cell.stacked };
        table.add_row([(*title).to_owned(), text.clone()]);
    }
    render(&mut table)
}

fn bare_table() -> Table {
    let mut table = Table::new();
    // What a terminal can do is decided by `Style` alone, so that a table looks the same wherever it goes.
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
    table
}

fn render(table: &mut Table) -> String {
    let gap = u16::try_from(GAP_CHARS).unwrap_or(1);
    let last = table.column_count().saturating_sub(1);
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if at == last { 0 } else { gap }));
    }
    table.trim_fmt()
}

fn csv_to_io(error: csv::Error) -> io::Error {
    if !error.is_io_error() {
        return error.into();
    }
    // The plain conversion forgets the kind, by which a closed pipe is known.
    if let csv::ErrorKind::Io(error) = error.into_kind() { error } else { io::ErrorKind::Other.into() }
}

/// The table of `rows` on a terminal of that width, without the columns headed `hidden`.
#[cfg(test)]
pub(super) fn table<T>(columns: &'static [Column<T>], hidden: &[&str], width: u16, rows: &[T]) -> String {
    let mut out = Vec::new();
    let style = Style { format: Format::Table, now: Timestamp::from_micros(0), width: Some(width) };
    let mut sheet = Sheet::new(&mut out, style, columns).unwrap();
    for title in hidden {
        sheet.hide(title);
    }
    for row in rows {
        sheet.row(row).unwrap();
    }
    sheet.finish().unwrap();
    String::from_utf8(out).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Quote(&'static str, &'static str, Option<i64>);

    const COLUMNS: &[Column<Quote>] = &[
        Column::new("pair", "pair", |row| Value::text(row.0)),
        Column::new("rate", "rate", |row| Value::decimal(row.1)),
        Column::new("moved_time", "moved", |row| {
            row.2.map_or(Value::Absent, |day| Value::Time(Timestamp::from_micros(day * Timestamp::DAY_US)))
        }),
        Column::data("sequence", |_| Value::Count(7)),
        Column::json("legs", |_| Value::List(vec![Value::text("a")])),
        Column::csv("leg", |_| Value::text("a,\"b")),
        Column::table("note", |_| Value::text("\u{1b}[31m")),
    ];

    fn style(format: Format, width: Option<u16>) -> Style {
        Style { format, now: Timestamp::from_micros(3 * Timestamp::DAY_US), width }
    }

    fn write(format: Format, width: Option<u16>, rows: &[Quote]) -> String {
        let mut out = Vec::new();
        let mut sheet = Sheet::new(&mut out, style(format, width), COLUMNS).unwrap();
        for row in rows {
            sheet.row(row).unwrap();
        }
        sheet.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    const ROWS: &[Quote] = &[Quote("KGS/USD", "0.01144", Some(0)), Quote("UZS/USD", "12", None)];

    #[test]
    fn rows_in_every_format() {
        let check = |format, rows, expect: &str| assert_eq!(write(format, None, rows), expect, "{format:?}");
        check(
            Format::Table,
            ROWS,
            "pair        rate  moved                           note\n\
             KGS/USD  0.01144  1970-01-01T00:00:00Z (3 d ago)  \\u{1b}[31m\n\
             UZS/USD       12  -                               \\u{1b}[31m\n",
        );
        check(
            Format::Json,
            ROWS,
            "[\n \
             {\"pair\":\"KGS/USD\",\"rate\":\"0.01144\",\"moved_time\":\"1970-01-01T00:00:00Z\",\"sequence\":7,\"legs\":[\"a\"]},\n \
             {\"pair\":\"UZS/USD\",\"rate\":\"12\",\"moved_time\":null,\"sequence\":7,\"legs\":[\"a\"]}\n]\n",
        );
        check(
            Format::Csv,
            ROWS,
            "pair,rate,moved_time,sequence,leg\n\
             KGS/USD,0.01144,1970-01-01T00:00:00Z,7,\"a,\"\"b\"\n\
             UZS/USD,12,,7,\"a,\"\"b\"\n",
        );
        check(Format::Table, &[], "");
        check(Format::Json, &[], "[]\n");
        check(Format::Csv, &[], "pair,rate,moved_time,sequence,leg\n");
    }

    #[test]
    fn a_table_fits_its_terminal_without_breaking_a_word() {
        let check = |width, expect: &str| {
            let table = write(Format::Table, Some(width), &ROWS[..1]);
            assert_eq!(table, expect, "{width}");
            let widest = table.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= usize::from(width), "{widest} in {width}");
        };
        check(
            40,
            "pair        rate  moved       note\n\
             KGS/USD  0.01144  1970-01-01  \\u{1b}[31m\n                  \
                               00:00:00Z\n                  \
                               3 d ago\n",
        );
        check(
            39,
            "pair   KGS/USD\n\
             rate   0.01144\n\
             moved  1970-01-01T00:00:00Z (3 d ago)\n\
             note   \\u{1b}[31m\n",
        );
        check(27, "pair   KGS/USD\nrate   0.01144\nmoved  1970-01-01T00:00:00Z\n       3 d ago\nnote   \\u{1b}[31m\n");
        // Narrower than a time: now it must break.
        check(
            24,
            "pair   KGS/USD\nrate   0.01144\nmoved  1970-01-01T00:00:\n       00Z\n       3 d ago\nnote   \\u{1b}[31m\n",
        );
    }

    #[test]
    fn a_long_table_keeps_its_columns_and_titles_itself_once() {
        let rows: Vec<Quote> = (0..TABLE_CHUNK_ROWS + 3).map(|_| Quote("KGS/USD", "0.01144", None)).collect();
        let mut rows = rows;
        rows[0] = Quote("KGS/USD", "100000.01144", Some(0));
        let table = write(Format::Table, None, &rows);
        assert_eq!(table.lines().count(), rows.len() + 1);
        assert_eq!(table.matches("pair").count(), 1);
        let columns = |line: &str| (line.find("0.01144").unwrap(), line.find("\\u{1b}"));
        let (first, last) = (table.lines().nth(2).unwrap(), table.lines().last().unwrap());
        assert_eq!(columns(first), columns(last));
    }

    #[test]
    fn one_answer_is_one_object() {
        let check = |format, width, expect: &str| {
            let mut out = Vec::new();
            write_one(&mut out, style(format, width), COLUMNS, &ROWS[1]).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expect);
        };
        check(Format::Table, None, "pair   UZS/USD\nrate   12\nmoved  -\nnote   \\u{1b}[31m\n");
        check(Format::Csv, None, "pair,rate,moved_time,sequence,leg\nUZS/USD,12,,7,\"a,\"\"b\"\n");
        let json = "{\n  \"pair\": \"UZS/USD\",\n  \"rate\": \"12\",\n  \"moved_time\": null,\n  \"sequence\": 7,\n  \"legs\": [\n    \"a\"\n  ]\n}\n";
        check(Format::Json, None, json);
    }

    #[test]
    fn a_closed_pipe_is_told_from_a_full_disk() {
        struct Fails(io::ErrorKind);
        impl Write for Fails {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for format in [Format::Table, Format::Json, Format::Csv] {
            for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::StorageFull] {
                let error = write_one(Fails(kind), style(format, None), COLUMNS, &ROWS[0]).unwrap_err();
                assert_eq!(error.kind(), kind, "{format:?}");
            }
        }
    }
}
