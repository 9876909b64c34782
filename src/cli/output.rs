//! Output of rows as a table, JSON or CSV.
//!
//! **Invariant**: rows are written as they arrive; at most [`TABLE_CHUNK_ROWS`] are buffered. This module never writes
//! colours or cursor movements.

mod lines;

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::value::{FormattedValue, Value};
use crate::domain::Timestamp;

pub(super) use lines::LineWriter;

/// The number of rows whose values decide the widths of the columns. Later rows of a table use the same widths.
pub(super) const TABLE_CHUNK_ROWS: usize = 500;
/// The number of spaces between two columns.
const GAP_CHARS: usize = 2;

/// The format of answers: tables for people, with relative ages beside times; JSON as one object or an array of
/// objects, with decimals as strings and absent values as null; CSV with a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
    Csv,
}

/// A column: its names, the formats that show it, and the function that returns its value for a row of type `T`.
pub(super) struct Column<T> {
    field: &'static str,
    title: &'static str,
    formats: &'static [Format],
    value: fn(&T) -> Value,
}

impl<T> Column<T> {
    /// A column of all formats. `field`, the name in the proto, is the JSON key and CSV header; `title` heads the table
    /// column.
    pub(super) const fn new(field: &'static str, title: &'static str, value: fn(&T) -> Value) -> Self {
        Self { field, title, formats: &[Format::Table, Format::Json, Format::Csv], value }
    }

    /// A column of JSON and CSV.
    pub(super) const fn data(field: &'static str, value: fn(&T) -> Value) -> Self {
        Self { field, title: "", formats: &[Format::Json, Format::Csv], value }
    }

    /// A column of JSON only, for nested values.
    pub(super) const fn json(field: &'static str, value: fn(&T) -> Value) -> Self {
        Self { field, title: "", formats: &[Format::Json], value }
    }

    /// A column of CSV only, for one part of a value that is a nested object in JSON.
    pub(super) const fn csv(field: &'static str, value: fn(&T) -> Value) -> Self {
        Self { field, title: "", formats: &[Format::Csv], value }
    }

    /// A column of tables only.
    pub(super) const fn table(title: &'static str, value: fn(&T) -> Value) -> Self {
        Self { field: "", title, formats: &[Format::Table], value }
    }
}

/// Converts a row to the record that JSON writes as an object.
pub(super) fn record<T>(columns: &[Column<T>], row: &T) -> Value {
    let columns = columns.iter().filter(|column| column.formats.contains(&Format::Json));
    Value::Record(columns.map(|column| (column.field, (column.value)(row))).collect())
}

/// How to format an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// The format: table, JSON or CSV.
    pub(super) format: Format,
    /// The time from which relative ages count.
    pub(super) now: Timestamp,
    /// The width of the terminal in characters; absent in a pipe, where lines have no maximum length.
    pub(super) width: Option<u16>,
}

impl Style {
    /// Creates the style for standard output, with the width of its terminal.
    pub(super) fn for_stdout(format: Format, now: Timestamp) -> Self {
        Self { format, now, width: Table::new().width() }
    }
}

/// A writer of rows in the chosen format.
pub(super) struct RowWriter<W: Write, T: 'static> {
    columns: Vec<&'static Column<T>>,
    style: Style,
    body: Body<W>,
}

enum Body<W: Write> {
    Table { out: W, pending: Vec<Vec<FormattedValue>>, layout: Option<Layout> },
    Json { out: W, has_rows: bool },
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write, T> RowWriter<W, T> {
    /// Creates a writer, and writes the opening bracket of JSON or the header of CSV.
    ///
    /// # Errors
    /// Returns the I/O error of `out`.
    pub(super) fn new(mut out: W, style: Style, columns: &'static [Column<T>]) -> io::Result<Self> {
        let columns: Vec<_> = columns.iter().filter(|column| column.formats.contains(&style.format)).collect();
        let body = match style.format {
            Format::Table => Body::Table { out, pending: Vec::new(), layout: None },
            Format::Json => {
                out.write_all(b"[")?;
                Body::Json { out, has_rows: false }
            }
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(out);
                csv.write_record(columns.iter().map(|column| column.field)).map_err(csv_to_io)?;
                Body::Csv(Box::new(csv))
            }
        };
        Ok(Self { columns, style, body })
    }

    /// Writes a row. A table buffers up to [`TABLE_CHUNK_ROWS`] rows.
    ///
    /// # Errors
    /// Returns the I/O error of `out`.
    pub(super) fn row(&mut self, row: &T) -> io::Result<()> {
        let values = self.columns.iter().map(|column| (column.value)(row));
        match &mut self.body {
            Body::Table { pending, .. } => {
                pending.push(values.map(|value| value.to_formatted(self.style.now)).collect());
                if pending.len() >= TABLE_CHUNK_ROWS { self.flush_table() } else { Ok(()) }
            }
            Body::Json { out, has_rows } => {
                let object = Value::Record(self.columns.iter().map(|column| column.field).zip(values).collect());
                out.write_all(if *has_rows { b",\n " } else { b"\n " })?;
                *has_rows = true;
                Ok(serde_json::to_writer(out, &object)?)
            }
            Body::Csv(csv) => {
                let values: Vec<String> = values.map(|value| value.to_csv()).collect::<Result<_, _>>()?;
                csv.write_record(values).map_err(csv_to_io)
            }
        }
    }

    /// Removes the table column with this title. Must be called before the first row.
    pub(super) fn hide(&mut self, title: &str) {
        self.columns.retain(|column| column.title != title);
    }

    /// Writes the buffered rows after an error. JSON gets no closing bracket, so that a reader detects missing rows.
    ///
    /// # Errors
    /// Returns the I/O error of `out`.
    pub(super) fn abandon(mut self) -> io::Result<()> {
        self.flush_table()?;
        match self.body {
            Body::Table { mut out, .. } | Body::Json { mut out, .. } => out.flush(),
            Body::Csv(mut csv) => csv.flush(),
        }
    }

    /// Writes the buffered rows and the end of the format. A table without rows writes nothing.
    ///
    /// # Errors
    /// Returns the I/O error of `out`.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush_table()?;
        match self.body {
            Body::Table { mut out, .. } => out.flush(),
            Body::Json { mut out, has_rows } => {
                out.write_all(if has_rows { b"\n]\n" } else { b"]\n" })?;
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
            Layout::Lines(widths) => lines(first.then_some(&titles), &rows, widths, |value| value.line.clone()),
            Layout::Folded(widths) => lines(first.then_some(&titles), &rows, widths, |value| value.folded.clone()),
            Layout::Blocks => {
                let blocks: Vec<String> = rows.iter().map(|row| block(&titles, row, self.style.width)).collect();
                format!("{}{}", if first { "" } else { "\n" }, blocks.join("\n\n"))
            }
        };
        writeln!(out, "{text}")
    }
}

/// Writes the header of CSV.
///
/// # Errors
/// Returns the I/O error of `out`.
pub(super) fn write_csv_header<T>(out: impl Write, columns: &[Column<T>]) -> io::Result<()> {
    let columns = columns.iter().filter(|column| column.formats.contains(&Format::Csv));
    let mut csv = csv::Writer::from_writer(out);
    csv.write_record(columns.map(|column| column.field)).map_err(csv_to_io)?;
    csv.flush()
}

/// Writes a single answer instead of a list: one object in JSON, one row in CSV, one line per field in a table.
///
/// # Errors
/// Returns the I/O error of `out`.
pub(super) fn write_one<T>(
    mut out: impl Write,
    style: Style,
    columns: &'static [Column<T>],
    row: &T,
) -> io::Result<()> {
    match style.format {
        Format::Table => {
            let columns = columns.iter().filter(|column| column.formats.contains(&Format::Table));
            let (titles, values): (Vec<&str>, Vec<FormattedValue>) =
                columns.map(|column| (column.title, (column.value)(row).to_formatted(style.now))).unzip();
            writeln!(out, "{}", block(&titles, &values, style.width))?;
        }
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &record(columns, row))?;
            writeln!(out)?;
        }
        Format::Csv => {
            let mut writer = RowWriter::new(&mut out, style, columns)?;
            writer.row(row)?;
            writer.finish()?;
        }
    }
    out.flush()
}

/// The layout of a table, chosen by the width of the terminal. Words are not broken: values that do not fit side by
/// side are stacked.
#[derive(Debug, PartialEq, Eq)]
enum Layout {
    /// One line per row. Holds the minimum widths of the columns.
    Lines(Vec<usize>),
    /// Several lines per row: a time has its date, its time of day and its age on three lines.
    Folded(Vec<usize>),
    /// One block of lines per row, with one line per field.
    Blocks,
}

impl Layout {
    fn choose(titles: &[&str], rows: &[Vec<FormattedValue>], width: Option<u16>) -> Self {
        let flat = widths(titles, rows, |value| value.line.chars().count());
        let Some(width) = width.map(usize::from) else { return Self::Lines(flat) };
        let fits =
            |widths: &[usize]| widths.iter().sum::<usize>() + GAP_CHARS * widths.len().saturating_sub(1) <= width;
        if fits(&flat) {
            return Self::Lines(flat);
        }
        let folded =
            widths(titles, rows, |value| value.folded.lines().map(|line| line.chars().count()).max().unwrap_or(0));
        if fits(&folded) { Self::Folded(folded) } else { Self::Blocks }
    }
}

/// Returns the width of each column: the larger of its title and its widest value.
fn widths(titles: &[&str], rows: &[Vec<FormattedValue>], of: impl Fn(&FormattedValue) -> usize) -> Vec<usize> {
    let widest = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(&of).max().unwrap_or_default();
    titles.iter().enumerate().map(|(at, title)| widest(at).max(title.chars().count())).collect()
}

/// Formats rows as lines of aligned columns. Without titles, the lines continue a table whose columns have `widths`.
fn lines(
    titles: Option<&Vec<&str>>,
    rows: &[Vec<FormattedValue>],
    widths: &[usize],
    text: impl Fn(&FormattedValue) -> String,
) -> String {
    let mut table = bare_table();
    let right: Vec<bool> =
        (0..widths.len()).map(|at| rows.iter().any(|row| row.get(at).is_some_and(|value| value.align_right))).collect();
    let align = |text: String, right: bool| {
        comfy_table::Cell::new_owned(text).set_alignment(if right { CellAlignment::Right } else { CellAlignment::Left })
    };
    if let Some(titles) = titles {
        table.set_header(titles.iter().zip(&right).map(|(title, right)| align((*title).to_owned(), *right)));
    }
    for (number, row) in rows.iter().enumerate() {
        table.add_row(row.iter().zip(widths).zip(&right).map(|((value, width), right)| match (text(value), number) {
            (text, 0) if *right => align(format!("{text:>width$}"), true),
            (text, 0) if !text.contains('\n') => align(format!("{text:<width$}"), false),
            (text, _) => align(text, *right),
        }));
    }
    render(&mut table)
}

/// Formats a row as a block with one line per field, wrapped to `width`.
fn block(titles: &[&str], row: &[FormattedValue], width: Option<u16>) -> String {
    let mut table = bare_table();
    let mut room = usize::MAX;
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        let titles_width = titles.iter().map(|title| title.chars().count()).max().unwrap_or_default();
        room = usize::from(width).saturating_sub(titles_width + GAP_CHARS);
    }
    for (title, value) in titles.iter().zip(row) {
        let text = if value.line.chars().count() <= room { &value.line } else { &value.stacked };
        table.add_row([(*title).to_owned(), text.clone()]);
    }
    render(&mut table)
}

fn bare_table() -> Table {
    let mut table = Table::new();
    // Only `Style` depends on the terminal, so that the same style gives the same table on a terminal and in a pipe.
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

/// Converts a CSV error to an I/O error of the same kind.
pub(super) fn csv_to_io(error: csv::Error) -> io::Error {
    if !error.is_io_error() {
        return error.into();
    }
    // The `From` conversion loses the error kind, which is needed to detect a closed pipe.
    if let csv::ErrorKind::Io(error) = error.into_kind() { error } else { io::ErrorKind::Other.into() }
}

/// Formats `rows` as a table for a terminal of `width` characters, without the columns with the titles `hidden`.
#[cfg(test)]
pub(super) fn table<T>(columns: &'static [Column<T>], hidden: &[&str], width: u16, rows: &[T]) -> String {
    let mut out = Vec::new();
    let style = Style { format: Format::Table, now: Timestamp::from_micros(0), width: Some(width) };
    let mut writer = RowWriter::new(&mut out, style, columns).unwrap();
    for title in hidden {
        writer.hide(title);
    }
    for row in rows {
        writer.row(row).unwrap();
    }
    writer.finish().unwrap();
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
        let mut writer = RowWriter::new(&mut out, style(format, width), COLUMNS).unwrap();
        for row in rows {
            writer.row(row).unwrap();
        }
        writer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    const ROWS: &[Quote] = &[Quote("KGS/USD", "0.01144", Some(0)), Quote("UZS/USD", "12", None)];

    #[test]
    fn rows_are_written_in_every_format() {
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
    fn table_fits_terminal_without_breaking_words() {
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
        // The terminal is narrower than a time, so the time must be broken.
        check(
            24,
            "pair   KGS/USD\nrate   0.01144\nmoved  1970-01-01T00:00:\n       00Z\n       3 d ago\nnote   \\u{1b}[31m\n",
        );
    }

    #[test]
    fn long_table_keeps_column_widths_and_has_one_header() {
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
    fn single_answer_is_written_as_one_object() {
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
    fn write_error_keeps_its_kind() {
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
