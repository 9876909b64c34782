//! Lists that come in pages, written as they come.
//!
//! **Invariant**: nothing is written before the server has agreed to answer. The pages after the first see the same
//! commit: their token pins it.

use super::error::Problem;
use super::output::{Column, Sheet};
use super::{CliError, Session, note, stdout};

/// Rows of a table unless `--limit` says otherwise; JSON and CSV have no limit.
pub(super) const TABLE_ROWS_DEFAULT: u64 = 50;

/// A page as it came.
pub(super) struct Page<T> {
    /// A row ahead of the others, which no limit counts.
    pub(super) lead: Option<T>,
    /// Its rows, no more than asked for.
    pub(super) rows: Vec<T>,
    /// Of the next; empty on the last.
    pub(super) next_page_token: String,
}

impl<T> Page<T> {
    /// Of rows alone.
    pub(super) fn new(rows: impl IntoIterator<Item = T>, next_page_token: String) -> Self {
        Self { lead: None, rows: rows.into_iter().collect(), next_page_token }
    }
}

/// What was written.
pub(super) struct Listed {
    /// So many rows.
    pub(super) rows: u64,
    /// Whether there are more.
    pub(super) more: bool,
}

/// Writes what [`list_without`] does, with all columns.
///
/// # Errors
/// See there.
pub(super) async fn list<T>(
    session: &Session,
    columns: &'static [Column<T>],
    limit: u64,
    page_rows_max: u64,
    fetch: impl AsyncFnMut(i32, String) -> Result<Page<T>, CliError>,
) -> Result<Listed, CliError> {
    list_without(session, columns, &[], limit, page_rows_max, fetch).await
}

/// Writes at most `limit` rows, without the columns whose titles are hidden from a table. Rows are what `fetch` gets by
/// page size (at most `page_rows_max`) and token. What was written stays when a later page fails, and a JSON array left
/// open says so.
///
/// # Errors
/// Those of `fetch` and of standard output; `Protocol` where a page has more than was asked for.
pub(super) async fn list_without<T>(
    session: &Session,
    columns: &'static [Column<T>],
    hidden: &[&str],
    limit: u64,
    page_rows_max: u64,
    mut fetch: impl AsyncFnMut(i32, String) -> Result<Page<T>, CliError>,
) -> Result<Listed, CliError> {
    let page_size = |rows: u64| i32::try_from(page_rows_max.min(rows)).unwrap_or(i32::MAX);
    let mut page = fetch(page_size(limit), String::new()).await?;
    let mut sheet = Sheet::new(stdout(), session.style, columns)?;
    for title in hidden {
        sheet.hide(title);
    }
    let mut rows = 0;
    loop {
        if let Some(row) = &page.lead {
            sheet.row(row)?;
        }
        for row in &page.rows {
            if rows == limit {
                return Err(Problem::Protocol("more rows in a page than asked for").into());
            }
            sheet.row(row)?;
            rows += 1;
        }
        if page.next_page_token.is_empty() || rows == limit {
            sheet.finish()?;
            return Ok(Listed { rows, more: !page.next_page_token.is_empty() });
        }
        page = match fetch(page_size(limit - rows), page.next_page_token).await {
            Ok(page) => page,
            Err(error) => {
                sheet.abandon()?;
                return Err(error);
            }
        };
    }
}

/// Writes a list that comes whole.
///
/// # Errors
/// Those of standard output.
pub(super) fn write_all<'t, T: 't>(
    session: &Session,
    columns: &'static [Column<T>],
    rows: impl IntoIterator<Item = &'t T>,
) -> Result<(), CliError> {
    let mut sheet = Sheet::new(stdout(), session.style, columns)?;
    for row in rows {
        sheet.row(row)?;
    }
    Ok(sheet.finish()?)
}

/// How many rows a list shows, given `--limit` or not.
pub(super) fn limit(session: &Session, asked: Option<u64>) -> u64 {
    asked.unwrap_or(if session.is_table() { TABLE_ROWS_DEFAULT } else { u64::MAX })
}

/// Says what a table does not show: that there are more rows than `limit`, or `none` at all.
pub(super) fn note_rest(session: &Session, listed: &Listed, asked: Option<u64>, what: &str, none: &str) {
    if listed.more && asked.is_none() {
        note(&format!("the first {} {what}; there are more: --limit ROWS, or --from for later ones", listed.rows));
    } else if listed.rows == 0 && session.is_table() {
        note(none);
    }
}
