//! The `verify` command: reads a whole store and reports damage.

use std::path::PathBuf;

use clap::Args;

use super::output::{Column, write_one};
use super::text::clean;
use super::value::Value;
use super::{CliError, Outcome, Session, note, stdout};
use crate::store::{VerifyReport, verify};

const EXAMPLES: &str = "\
Examples:
  silkrate verify
  silkrate verify --db /var/lib/silkrate --output json

Verifies the checksum of every block and the consistency of the runs, their
counts and their order. The data in the store does not change. Stop the server
first: only one process can have a store open. The exit status is 1 if there are
problems.";

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArgs {
    /// Directory of the store to check
    #[arg(long, value_name = "DIR", env = "SILKRATE_DB", default_value = "silkrate-data")]
    db: PathBuf,
}

const COLUMNS: &[Column<VerifyReport>] = &[
    Column::new("sequence", "sequence", |report| Value::Count(report.sequence)),
    Column::new("series_count", "series", |report| Value::Count(report.series_count)),
    Column::new("run_count", "runs", |report| Value::Count(report.run_count)),
    Column::new("observation_count", "observations", |report| Value::Count(report.observation_count)),
    Column::new("revision_count", "revisions", |report| Value::Count(report.revision_count)),
    Column::new("poll_span_count", "poll spans", |report| Value::Count(report.poll_span_count)),
    Column::new("quarantined_count", "held ticks", |report| Value::Count(report.quarantined_count)),
    Column::new("block_count", "blocks", |report| Value::Count(report.block_count)),
    Column::table("problems", |report| Value::Count(u64::try_from(report.problems.len()).unwrap_or(u64::MAX))),
    Column::data("problems", |report| {
        Value::List(report.problems.iter().map(|problem| Value::text(problem)).collect())
    }),
];

fn outcome(report: &VerifyReport) -> Outcome {
    if report.problems.is_empty() { Outcome::Done } else { Outcome::Failed }
}

pub(super) async fn run(args: VerifyArgs, session: &Session) -> Result<Outcome, CliError> {
    let report = tokio::task::spawn_blocking(move || verify(&args.db)).await??;
    write_one(stdout(), session.style, COLUMNS, &report)?;
    if session.is_table() {
        for problem in &report.problems {
            note(&format!("problem: {}", clean(problem)));
        }
    }
    Ok(outcome(&report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Format, Style};
    use crate::domain::Timestamp;

    #[test]
    fn table_counts_problems_and_json_and_csv_list_them() {
        let check = |problems: &[&str], format, parts: &[&str], expect| {
            let problems = problems.iter().map(|problem| (*problem).to_owned()).collect();
            let report = VerifyReport { sequence: 9, run_count: 3, problems, ..VerifyReport::default() };
            let mut out = Vec::new();
            let style = Style { format, now: Timestamp::default(), width: None };
            write_one(&mut out, style, COLUMNS, &report).unwrap();
            let text = String::from_utf8(out).unwrap();
            for part in parts {
                assert!(text.contains(part), "{text}");
            }
            assert_eq!(outcome(&report), expect);
        };
        check(&[], Format::Table, &["runs          3\n", "problems      0\n"], Outcome::Done);
        check(&["block 7: bad CRC"], Format::Table, &["problems      1\n"], Outcome::Failed);
        check(&[], Format::Json, &["\"run_count\": 3,", "\"problems\": []"], Outcome::Done);
        check(
            &["block 7: bad CRC"],
            Format::Csv,
            &[",problems\n9,", "\"[\"\"block 7: bad CRC\"\"]\""],
            Outcome::Failed,
        );
    }
}
