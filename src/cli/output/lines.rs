//! Output of an endless sequence of rows, one line per row.
//!
//! **Invariant**: after a flush, the reader of a pipe has received every row, as a complete line.

use std::io::{self, Write};

use super::{Column, Format, csv_to_io};
use crate::cli::text::clean;
use crate::cli::value::Value;

/// The separator between two values of a table line.
const SEPARATOR: &str = "  ";

/// A writer of one line per row: plain values (table format), a JSON object, or a CSV record below a header.
pub(in crate::cli) struct LineWriter<W: Write, T: 'static> {
    lead: &'static [&'static str],
    columns: Vec<&'static Column<T>>,
    body: Body<W>,
}

enum Body<W: Write> {
    Table(W),
    Json(W),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write, T> LineWriter<W, T> {
    /// Creates a writer of rows with the leading values named `lead`, followed by `columns`.
    ///
    /// # Errors
    /// Returns the I/O error of `out`.
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

    /// Writes a line: the values `lead`, then those of `row`. The table format writes only the first of `lead`, because
    /// the others are for programs.
    ///
    /// # Errors
    /// Returns the I/O error of `out`.
    pub(in crate::cli) fn row(&mut self, lead: &[Value], row: &T) -> io::Result<()> {
        let values = self.columns.iter().map(|column| (column.value)(row));
        match &mut self.body {
            Body::Table(out) => {
                let mut texts = Vec::with_capacity(1 + self.columns.len());
                for value in lead.iter().take(1).cloned().chain(values) {
                    let text = value.to_csv()?;
                    texts.push(if text.is_empty() { "-".to_owned() } else { clean(&text).into_owned() });
                }
                writeln!(out, "{}", texts.join(SEPARATOR))
            }
            Body::Json(out) => {
                let names = self.lead.iter().copied().chain(self.columns.iter().map(|column| column.field));
                let object = Value::Record(names.zip(lead.iter().cloned().chain(values)).collect());
                serde_json::to_writer(&mut *out, &object)?;
                writeln!(out)
            }
            Body::Csv(csv) => {
                let values = lead.iter().cloned().chain(values);
                let values: Vec<String> = values.map(|value| value.to_csv()).collect::<Result<_, _>>()?;
                csv.write_record(values).map_err(csv_to_io)
            }
        }
    }

    /// Flushes the written rows to `out`.
    ///
    /// # Errors
    /// Returns the I/O error of `out`.
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
        let mut writer = LineWriter::new(&mut out, format, &["sequence", "kind"], COLUMNS).unwrap();
        for rate in ["0.28490", ""] {
            writer.row(&[Value::Count(7), Value::text("CHANGES")], &rate).unwrap();
        }
        writer.flush().unwrap();
        drop(writer);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_row_is_written_as_one_line() {
        assert_eq!(written(Format::Table), "7  0.28490\n7  -\n");
        assert_eq!(
            written(Format::Json),
            "{\"sequence\":7,\"kind\":\"CHANGES\",\"rate\":\"0.28490\",\"note\":\"a,b\"}\n\
             {\"sequence\":7,\"kind\":\"CHANGES\",\"rate\":null,\"note\":\"a,b\"}\n"
        );
        assert_eq!(written(Format::Csv), "sequence,kind,rate,note\n7,CHANGES,0.28490,\"a,b\"\n7,CHANGES,,\"a,b\"\n");
    }
}
