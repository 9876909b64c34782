//! Output of lists that the server returns in pages.
//!
//! **Invariant**: nothing is written before the first page has arrived. All pages come from the same commit, because
//! the page token identifies the commit.

use std::io::{self, BufWriter, Stdout};

use clap::Args;

use super::error::Problem;
use super::output::{Column, RowWriter};
use super::text::clean;
use super::{CliError, Outcome, Session, note, stdout};

/// The maximum number of rows of a table without `--limit`. JSON and CSV have no maximum.
pub(super) const TABLE_ROWS_DEFAULT: u64 = 50;

/// The minimum width of a terminal, in characters, for all columns of a wide table.
pub(super) const WIDE_CHARS_MIN: u16 = 100;

/// Returns true if a wide table omits its less important columns.
pub(super) fn is_narrow(session: &Session) -> bool {
    session.is_table() && session.style.width.is_some_and(|width| width < WIDE_CHARS_MIN)
}

/// A page of rows from the server.
pub(super) struct Page<T> {
    /// A row before the others, such as the baseline. Limits do not count it.
    pub(super) lead: Option<T>,
    /// The rows, at most as many as requested.
    pub(super) rows: Vec<T>,
    /// The token of the next page; empty on the last page.
    pub(super) next_page_token: String,
}

impl<T> Page<T> {
    /// Creates a page without a lead row.
    pub(super) fn new(rows: impl IntoIterator<Item = T>, next_page_token: String) -> Self {
        Self { lead: None, rows: rows.into_iter().collect(), next_page_token }
    }
}

/// The order of the rows of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Args)]
pub(super) struct OrderArgs {
    /// Show the newest rows first
    #[arg(long, alias = "descending", conflicts_with = "asc")]
    desc: bool,
    /// Show the oldest rows first; without --from, --limit otherwise keeps the newest ones
    #[arg(long)]
    asc: bool,
}

/// The rows of a list to write: how many, which ones, and in which order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Selection {
    limit: u64,
    /// Whether the server returns the newest rows first.
    pub(super) descending: bool,
    /// Whether to write the newest rows in order of time, although the server returns the newest rows first.
    reverses: bool,
}

impl OrderArgs {
    /// Returns the rows to write. `requested` is the value of `--limit`, `has_start` says whether `--from` is given.
    /// Without `--from`, `--asc` and `--desc`, a limit keeps the newest rows, in order of time.
    pub(super) fn selection(self, session: &Session, requested: Option<u64>, has_start: bool) -> Selection {
        let limit = limit(session, requested);
        // Without a limit, all rows are written as they arrive.
        let reverses = !has_start && !self.asc && !self.desc && limit != u64::MAX;
        Selection { limit, descending: self.desc || reverses, reverses }
    }
}

impl Selection {
    /// Returns true if all rows are written, oldest first.
    pub(super) fn is_all_ascending(self) -> bool {
        !self.descending && self.limit == u64::MAX
    }
}

/// The result of writing a list.
pub(super) struct Listed {
    /// The number of rows written.
    pub(super) rows: u64,
    /// True if the server has more rows than were written.
    pub(super) more: bool,
}

/// Writes the rows of a selection. A table omits the columns with the titles `hidden`. `fetch` requests a page in the
/// order that the selection asks of the server: its arguments are the page size (at most `page_rows_max`) and the page
/// token. If a later page fails, the earlier rows may already be written, and JSON gets no closing bracket.
///
/// # Errors
/// Returns the errors of `fetch` and of standard output; `Protocol` if a page has more rows than requested.
pub(super) async fn list<T>(
    session: &Session,
    columns: &'static [Column<T>],
    hidden: &[&str],
    selection: Selection,
    page_rows_max: u64,
    fetch: impl AsyncFnMut(i32, String) -> Result<Page<T>, CliError>,
) -> Result<Listed, CliError> {
    if selection.reverses {
        list_reversed(session, columns, hidden, selection.limit, page_rows_max, fetch).await
    } else {
        list_as_it_arrives(session, columns, hidden, selection.limit, page_rows_max, fetch).await
    }
}

async fn list_as_it_arrives<T>(
    session: &Session,
    columns: &'static [Column<T>],
    hidden: &[&str],
    limit: u64,
    page_rows_max: u64,
    mut fetch: impl AsyncFnMut(i32, String) -> Result<Page<T>, CliError>,
) -> Result<Listed, CliError> {
    let page_size = |rows: u64| i32::try_from(page_rows_max.min(rows)).unwrap_or(i32::MAX);
    let mut page = fetch(page_size(limit), String::new()).await?;
    let mut writer = row_writer(session, columns, hidden)?;
    let mut rows = 0;
    loop {
        if let Some(row) = &page.lead {
            writer.row(row)?;
        }
        for row in &page.rows {
            if rows == limit {
                return Err(Problem::Protocol("a page has more rows than requested").into());
            }
            writer.row(row)?;
            rows += 1;
        }
        if page.next_page_token.is_empty() || rows == limit {
            writer.finish()?;
            return Ok(Listed { rows, more: !page.next_page_token.is_empty() });
        }
        page = match fetch(page_size(limit - rows), page.next_page_token).await {
            Ok(page) => page,
            Err(error) => {
                writer.abandon()?;
                return Err(error);
            }
        };
    }
}

/// Writes the first `limit` rows in reverse order.
async fn list_reversed<T>(
    session: &Session,
    columns: &'static [Column<T>],
    hidden: &[&str],
    limit: u64,
    page_rows_max: u64,
    mut fetch: impl AsyncFnMut(i32, String) -> Result<Page<T>, CliError>,
) -> Result<Listed, CliError> {
    let (mut newest, mut token) = (Vec::new(), String::new());
    let count = |rows: &Vec<T>| u64::try_from(rows.len()).unwrap_or(u64::MAX);
    loop {
        let page_size = i32::try_from(page_rows_max.min(limit - count(&newest))).unwrap_or(i32::MAX);
        let page = match fetch(page_size, token).await {
            Ok(page) => page,
            Err(error) if newest.is_empty() => return Err(error),
            Err(error) => {
                let mut writer = row_writer(session, columns, hidden)?;
                newest.iter().rev().try_for_each(|row| writer.row(row))?;
                writer.abandon()?;
                return Err(error);
            }
        };
        newest.extend(page.rows);
        token = page.next_page_token;
        if count(&newest) > limit {
            return Err(Problem::Protocol("a page has more rows than requested").into());
        }
        if token.is_empty() || count(&newest) == limit {
            break;
        }
    }
    write_rows(session, columns, hidden, newest.iter().rev())?;
    Ok(Listed { rows: count(&newest), more: !token.is_empty() })
}

/// Reports each of the `requested` names that no row of a list has. The other rows are written all the same.
pub(super) fn report_missing(what: &str, requested: &[String], exists: impl Fn(&str) -> bool) -> Outcome {
    let missing: Vec<&String> = requested.iter().filter(|name| !exists(name)).collect();
    for name in &missing {
        note(&format!("error: there is no {what} {}; 'silkrate series' lists the series", clean(name)));
    }
    if missing.is_empty() { Outcome::Done } else { Outcome::Failed }
}

/// Writes a list that the server returned in one response.
///
/// # Errors
/// Returns the I/O error of standard output.
pub(super) fn write_all<'t, T: 't>(
    session: &Session,
    columns: &'static [Column<T>],
    rows: impl IntoIterator<Item = &'t T>,
) -> Result<(), CliError> {
    write_rows(session, columns, &[], rows)
}

fn write_rows<'t, T: 't>(
    session: &Session,
    columns: &'static [Column<T>],
    hidden: &[&str],
    rows: impl IntoIterator<Item = &'t T>,
) -> Result<(), CliError> {
    let mut writer = row_writer(session, columns, hidden)?;
    for row in rows {
        writer.row(row)?;
    }
    Ok(writer.finish()?)
}

/// Creates a writer to standard output. A table omits the columns with the titles `hidden`.
fn row_writer<T>(
    session: &Session,
    columns: &'static [Column<T>],
    hidden: &[&str],
) -> io::Result<RowWriter<BufWriter<Stdout>, T>> {
    let mut writer = RowWriter::new(stdout(), session.style, columns)?;
    for title in hidden {
        writer.hide(title);
    }
    Ok(writer)
}

/// Returns the maximum number of rows of a list: `requested`, the value of `--limit`, or the default of the format.
fn limit(session: &Session, requested: Option<u64>) -> u64 {
    requested.unwrap_or(if session.is_table() { TABLE_ROWS_DEFAULT } else { u64::MAX })
}

/// Writes a note if the default limit cut the list off. Writes the note `empty_note` if a table has no rows. `what` is
/// the plural noun of the rows; `requested` is the value of `--limit`.
pub(super) fn note_rest(
    session: &Session,
    (listed, selection): (&Listed, Selection),
    requested: Option<u64>,
    what: &str,
    empty_note: &str,
) {
    if listed.more && requested.is_none() {
        let which = if selection.descending { "newest" } else { "first" };
        let rows = listed.rows;
        note(&format!("showing the {which} {rows} {what}; use --limit ROWS for more, or --from for others"));
    } else if listed.rows == 0 && session.is_table() {
        note(empty_note);
    }
}
