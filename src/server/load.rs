//! Ingest of the ticker pages and CSV files of ticks that `--load` names, at start.
//!
//! **Invariant**: an invalid file never prevents the server from starting. The log reports the file, and the server
//! skips it. If a file has invalid quotes or rows, the valid ones are still ingested.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;
use tokio::task;

use crate::audit::{Audit, submit_own};
use crate::clock::Clock;
use crate::config::Load;
use crate::domain::Timestamp;
use crate::feed::{PageError, TickCsv, TickCsvError, TickCsvRow, TickerPage, begins_as_tick_csv};
use crate::ingest::batch::{BatchBuilder, ObservedTime, TickRules, TickText};
use crate::ingest::{Batch, ConflictPolicy, Ingest, IngestError, IngestReport, PageBatch, Summary, advise_time};

/// Maximum number of refusals of one file that are logged one by one. The log counts the others.
const LOGGED_REFUSALS_MAX: usize = 20;

/// Checks that a file can be opened and is not a directory. A pipe such as `/dev/stdin` is not read.
pub(super) fn check_readable(file: &Path) -> io::Result<()> {
    let is_directory = File::open(file)?.metadata()?.is_dir();
    if is_directory { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(()) }
}

/// The reason why a file was skipped.
#[derive(Debug, Error)]
enum LoadError {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Page(#[from] PageError),
    #[error("{0}")]
    Ingest(#[from] IngestError),
    #[error("{0}")]
    Csv(#[from] TickCsvError),
    #[error("over {} MiB; send a large CSV file with 'silkrate ingest'", TickerPage::PAGE_BYTES_MAX / (1024 * 1024))]
    CsvTooLarge,
    #[error("the parser panicked; see the log for its message")]
    Panicked,
}

/// Ingests the files in the given order and logs the outcome of each file.
pub(super) async fn load_files(
    ingest: &Ingest,
    load: &Load,
    clock: &Arc<dyn Clock>,
    rules: &Arc<TickRules>,
    audit: Option<&Audit>,
) {
    for file in &load.files {
        let name = file.display().to_string().escape_debug().to_string();
        match load_file(ingest, load, file, clock, rules, audit).await {
            Ok((content, report)) => log_loaded(&name, &content, &report),
            Err(error @ LoadError::Page(PageError::NoDate | PageError::DatesDiffer { .. } | PageError::BadDate(_))) => {
                tracing::warn!("{name} skipped: {error} with --load-time");
            }
            Err(error) => tracing::warn!("{name} skipped: {error}"),
        }
    }
}

/// What was read from a file.
enum Content {
    Page(TickerPage),
    Rows { count: u32, malformed: Vec<String> },
}

async fn load_file(
    ingest: &Ingest,
    load: &Load,
    file: &Path,
    clock: &Arc<dyn Clock>,
    rules: &Arc<TickRules>,
    audit: Option<&Audit>,
) -> Result<(Content, IngestReport), LoadError> {
    let (file, source, observed_time) = (file.to_owned(), load.source.clone(), load.observed_time);
    let (now, rules) = (clock.now(), Arc::clone(rules));
    let read = move || {
        let bytes = read_limited(&file)?;
        if begins_as_tick_csv(&bytes) {
            return csv_batch(&bytes, now, &rules);
        }
        let page = TickerPage::read(&bytes, &source, observed_time, &rules.currencies)?;
        let PageBatch { batch, page } = PageBatch::new(page, ConflictPolicy::Refuse, false, now, &rules);
        Ok((batch, Content::Page(page)))
    };
    let (batch, content) = task::spawn_blocking(read).await.map_err(|_| LoadError::Panicked)??;
    let mut report = submit_own(audit, ingest, "load", batch).await?;
    if observed_time.is_none() && matches!(content, Content::Page(_)) {
        advise_time(&mut report.refusals, "pass --load-time");
    }
    Ok((content, report))
}

/// Returns the ticks of a CSV file as a batch.
fn csv_batch(bytes: &[u8], now: Timestamp, rules: &TickRules) -> Result<(Batch, Content), LoadError> {
    if bytes.len() > TickerPage::PAGE_BYTES_MAX {
        return Err(LoadError::CsvTooLarge);
    }
    let mut rows = TickCsv::new(bytes)?;
    let mut builder = BatchBuilder::new(now, rules);
    let (mut count, mut malformed) = (0, Vec::new());
    while let Some(TickCsvRow { line, values }) = rows.next_row()? {
        match values {
            Ok(values) => {
                for observed_time in values.observed_times() {
                    let tick = TickText {
                        pair: &values.pair,
                        source: &values.source,
                        observed_time: ObservedTime::At(observed_time),
                        rate: &values.rate,
                        reported_change: values.reported_change_percent.as_deref(),
                    };
                    builder.push_text(count, tick);
                    count += 1;
                }
            }
            Err(problem) => {
                malformed.push(format!("line {line}: {problem}"));
                count += 1;
            }
        }
    }
    Ok((builder.finish(ConflictPolicy::Refuse, false), Content::Rows { count, malformed }))
}

/// Reads at most one byte more than the limit, which is enough to detect a file that is too large, such as `/dev/zero`.
fn read_limited(file: &Path) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(TickerPage::PAGE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    File::open(file)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn log_loaded(name: &str, content: &Content, report: &IngestReport) {
    let read = match content {
        Content::Page(page) => {
            let ticks = u32::try_from(page.ticks.len()).unwrap_or(u32::MAX);
            let (quotes, cycles) = (counted(page.quote_count, "quote"), counted(page.cycle_count, "cycle"));
            format!("{quotes}, {cycles}, {}", counted(ticks, "tick"))
        }
        Content::Rows { count, .. } => counted(*count, "row"),
    };
    tracing::info!("{name}: read {read}: {}", outcome(report.summary));
    let malformed = if let Content::Rows { malformed, .. } = content { malformed.as_slice() } else { &[] };
    let refusals = malformed.iter().chain(report.refusals.iter().map(|refusal| &refusal.message));
    for message in refusals.clone().take(LOGGED_REFUSALS_MAX) {
        tracing::warn!("{name}: refused: {message}");
    }
    let unlogged = refusals.count().saturating_sub(LOGGED_REFUSALS_MAX);
    if unlogged > 0 {
        tracing::warn!("{name}: {unlogged} more refused");
    }
}

/// Returns a summary of the outcome of a file's ticks: `5 new runs`, or `3 known, 2 refused`.
fn outcome(summary: Summary) -> String {
    let parts = [
        (summary.new_run_count, if summary.new_run_count == 1 { "new run" } else { "new runs" }),
        (summary.collapsed_count, "joined a run"),
        (summary.known_count, "known"),
        (summary.revised_count, "revised"),
        (summary.refused_count, "refused"),
        (summary.quarantined_count, "held"),
    ];
    let texts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
}

fn counted(count: u32, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_omits_zero_counts() {
        let check = |summary: Summary, expect: &str| assert_eq!(outcome(summary), expect);
        check(Summary { new_run_count: 5, ..Summary::default() }, "5 new runs");
        check(Summary { new_run_count: 1, refused_count: 2, ..Summary::default() }, "1 new run, 2 refused");
        check(Summary { known_count: 4, quarantined_count: 1, ..Summary::default() }, "4 known, 1 held");
        check(Summary { known_count: 3, collapsed_count: 2, ..Summary::default() }, "2 joined a run, 3 known");
        check(Summary::default(), "nothing");
        assert_eq!((counted(1, "cycle"), counted(40, "quote")), ("1 cycle".to_owned(), "40 quotes".to_owned()));
    }

    #[test]
    fn csv_rows_become_ticks_and_malformed_rows_are_named() {
        let rules = TickRules::default();
        let csv = b"pair,source,observed_time,rate\nKGS/USD,timesca,2024-09-08,0.01180\nKGS/USD\nKGS/USD,timesca,2024-09-08,x\n";
        let now = Timestamp::parse("2025-12-08").unwrap();
        let (batch, content) = csv_batch(csv, now, &rules).unwrap();
        let Content::Rows { count, malformed } = content else { panic!("not rows") };
        assert_eq!((count, batch.groups.len(), batch.refusals.len()), (3, 1, 1));
        assert_eq!(malformed, ["line 3: the header has 4 fields, this row has 1"]);
        assert!(matches!(csv_batch(b"pair,colour\n", now, &rules), Err(LoadError::Csv(_))));
    }

    #[test]
    fn reading_stops_one_byte_beyond_limit() {
        let bytes = read_limited(Path::new("/dev/zero")).unwrap();
        assert_eq!(bytes.len(), TickerPage::PAGE_BYTES_MAX + 1);
    }
}
