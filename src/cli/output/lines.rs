//! Rows that are written as they come, each on a line of its own: for what has no end.
//!
//! **Invariant**: whoever reads a pipe has every row as soon as it is flushed, whole.

use std::io::{self, Write};

use super::{Column, Format, csv_to_io};
use crate::cli::text::clean;
use crate::cli::value::Value;

/// Between two cells of a line for people.
const BLANKS: &str = "  ";

/// Writes a line a row: words for people, an object of JSON, or a row of CSV under a header.
pub(in crate::cli) struct LineSheet<W: Write, T: 'static> {
    lead: &'static [&'static str],
    columns: Vec<&'static Column<T>>,
    body: Body<W>,
}

enum Body<W: Write> {
    Table(W),
    Json(W),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write, T> LineSheet<W, T> {
    /// Rows of cells named `lead` and of `columns` after them.
    ///
    /// # Errors
    /// As `out` has them.
    pub(in crate::cli) fn new(
        out: W,
        format: Format,
        lead: &'static [&'static str],
        columns: &'static [Column<T>],
    ) -> io::Result<Self> {
        let columns: Vec<_> = columns.iter().filter(|column| column.formats.contains(&format)).collect();
        let body = match format {
            Format::Table => Body::Table(out),
            Format::Json => Body::Json(out),
            Format::Csv => {
                let mut csv = csv::Writer::from_writer(out);
                let header = lead.iter().copied().chain(columns.iter().map(|column| column.field));
                csv.write_record(header).map_err(csv_to_io)?;
                csv.flush()?;
                Body::Csv(Box::new(csv))
            }
        };
        Ok(Self { lead, columns, body })
    }

    /// One more line; `lead` are the cells before those of `row`. People are spared what only machines look at: of
    /// those cells they get the first.
    ///
    /// # Errors
    /// As `out` has them.
    pub(in crate::cli) fn row(&mut self, lead: &[Value], row: &T) -> io::Result<()> {
        let cells = self.columns.iter().map(|column| (column.cell)(row));
        match &mut self.body {
            Body::Table(out) => {
                let mut words = Vec::with_capacity(1 + self.columns.len());
                for cell in lead.iter().take(1).cloned().chain(cells) {
                    let text = cell.to_csv()?;
                    words.push(if text.is_empty() { "-".to_owned() } else { clean(&text).into_owned() });
                }
                writeln!(out, "{}", words.join(BLANKS))
            }
            Body::Json(out) => {
                let names = self.lead.iter().copied().chain(self.columns.iter().map(|column| column.field));
                let object = Value::Record(names.zip(lead.iter().cloned().chain(cells)).collect());
                serde_json::to_writer(&mut *out, &object)?;
                writeln!(out)
            }
            Body::Csv(csv) => {
                let cells = lead.iter().cloned().chain(cells);
                let cells: Vec<String> = cells.map(|cell| cell.to_csv()).collect::<Result<_, _>>()?;
                csv.write_record(cells).map_err(csv_to_io)
            }
        }
    }

    /// Hands over what was written.
    ///
    /// # Errors
    /// As `out` has them.
    pub(in crate::cli) fn flush(&mut self) -> io::Result<()> {
        match &mut self.body {
            Body::Table(out) | Body::Json(out) => out.flush(),
            Body::Csv(csv) => csv.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column<&str>] =
        &[Column::new("rate", "rate", |row| Value::decimal(row)), Column::data("note", |_| Value::text("a,b"))];

    fn written(format: Format) -> String {
        let mut out = Vec::new();
        let mut sheet = LineSheet::new(&mut out, format, &["sequence", "kind"], COLUMNS).unwrap();
        for rate in ["0.28490", ""] {
            sheet.row(&[Value::Count(7), Value::text("CHANGES")], &rate).unwrap();
        }
        sheet.flush().unwrap();
        drop(sheet);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_row_is_a_line() {
        assert_eq!(written(Format::Table), "7  0.28490\n7  -\n");
        assert_eq!(
            written(Format::Json),
            "{\"sequence\":7,\"kind\":\"CHANGES\",\"rate\":\"0.28490\",\"note\":\"a,b\"}\n\
             {\"sequence\":7,\"kind\":\"CHANGES\",\"rate\":null,\"note\":\"a,b\"}\n"
        );
        assert_eq!(written(Format::Csv), "sequence,kind,rate,note\n7,CHANGES,0.28490,\"a,b\"\n7,CHANGES,,\"a,b\"\n");
    }
}
