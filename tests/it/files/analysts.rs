//! Exports read with `DuckDB`, pyarrow, pandas and polars. The tests also run each code block of `docs/ANALYSTS.md`,
//! the page that explains exports to analysts.
//!
//! The packages are installed once from `PyPI` into `target/analysts-venv`, in the versions of
//! `analysts-requirements.txt`. Without Python or `PyPI` the tests report that they are skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use silkrate::proto::v1;

use crate::skipped::skipped;
use crate::support::{TestServer, tick};
use crate::venv;

const REQUIREMENTS: &str = include_str!("../../analysts-requirements.txt");
const PAGE: &str = include_str!("../../../docs/ANALYSTS.md");
const MONTH_S: i64 = 30 * 24 * 3_600;

/// Returns a Python with the packages. If there is none, reports that the test is skipped and returns `None`.
fn python_or_skip() -> Option<PathBuf> {
    let skip =
        |why| skipped(&format!("there is no Python with the packages of tests/analysts-requirements.txt: {why}"));
    venv::python("analysts-venv", REQUIREMENTS).map_err(skip).ok()
}

/// Runs a Python script in `directory`. The assertions of the script are the test.
async fn check(directory: &Path, script: &str) {
    let Some(python) = python_or_skip() else { return };
    let mut command = Command::new(python);
    command.current_dir(directory).args(["-c", script]).env("TZ", "Asia/Bishkek");
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(ran.status.success(), "{}\n{}", script, String::from_utf8_lossy(&ran.stderr));
}

async fn export(server: &TestServer, directory: &Path, line: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
    command.arg("export").args(line.split(' ')).current_dir(directory);
    command.env("SILKRATE_ENDPOINT", server.addr.to_string());
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// Starts a server with six runs of three series. Among them are the rate with the most digits, a rate with one
/// significant digit, and a fall that rounded to zero.
async fn start() -> TestServer {
    let server = TestServer::start(&["--quarantine-factor", "none"]).await;
    let fall =
        |seconds, rate| v1::Tick { reported_change_percent: Some("-0".to_owned()), ..tick("UZS/USD", seconds, rate) };
    server
        .store(&[
            tick("KGS/USD", -MONTH_S, "0.01143"),
            tick("KGS/USD", -7_200, "0.01144"),
            tick("KGS/USD", -3_600, "12345678901234567890.12345678"),
            v1::Tick { source: "nbkr".to_owned(), ..tick("KGS/USD", -3_600, "0.0114") },
            fall(-3_600, "0.00008"),
            fall(-60, "0.00009"),
        ])
        .await;
    server
}

const COMMON: &str = r#"
from decimal import Decimal as D
from datetime import datetime as T, timezone
import duckdb, pandas as pd, polars as pl, pyarrow as pa, pyarrow.parquet as pq, pyarrow.dataset as ds
WIDEST = D("12345678901234567890.123456780000000000")
RATES = [D("0.0114"), D("0.01143"), D("0.01144"), WIDEST, D("0.00008"), D("0.00009")]
FIRST = T(2025, 12, 8, 11, 59, tzinfo=timezone.utc)  # of the last row
"#;

#[tokio::test]
async fn duckdb_reads_exact_decimals_and_utc() {
    let (server, directory) = (start().await, tempfile::tempdir().unwrap());
    export(&server, directory.path(), "runs.parquet").await;
    export(&server, directory.path(), "daily.parquet --shape daily").await;
    let script = r#"
types = dict(duckdb.sql("select column_name, column_type from (describe from 'runs.parquet')").fetchall())
assert types["rate"] == "DECIMAL(38,18)", types
assert types["reported_change_percent"] == "DECIMAL(24,12)", types
assert types["first_observed_time"] == "TIMESTAMP WITH TIME ZONE", types
assert types["published_places"] == "UTINYINT" and types["observation_count"] == "UBIGINT", types
assert types["pair"] == "VARCHAR" and types["rate_double"] == "DOUBLE", types
rows = duckdb.sql("select pair, source, rate, reported_change_percent, reported_change_negative from 'runs.parquet'").fetchall()
assert [row[2] for row in rows] == RATES, rows
assert rows[0][:2] == ("KGS/USD", "nbkr") and rows[0][3:] == (None, None), rows
assert rows[5][3:] == (D(0), True), rows
[[micros]] = duckdb.sql("select epoch_us(max(first_observed_time)) from 'runs.parquet'").fetchall()
assert micros == int(FIRST.timestamp()) * 1_000_000
metadata = dict(duckdb.sql("select key::varchar, value::varchar from parquet_kv_metadata('runs.parquet')").fetchall())
assert metadata["silkrate.sequence"] == "1" and metadata["silkrate.recorded_time"] == "2025-12-08T12:00:00Z", metadata
[[low, high]] = duckdb.sql("select stats_min_value, stats_max_value from parquet_metadata('runs.parquet') where path_in_schema = 'pair'").fetchall()
assert (low, high) == ("KGS/USD", "UZS/USD")
days = duckdb.sql("select typeof(date), count(*) from 'daily.parquet' where source = 'timesca' and pair = 'KGS/USD' group by all").fetchall()
assert days == [("DATE", 31)], days
"#;
    check(directory.path(), &format!("{COMMON}{script}")).await;
}

#[tokio::test]
async fn pyarrow_pandas_and_polars_read_exact_decimals_and_utc() {
    let (server, directory) = (start().await, tempfile::tempdir().unwrap());
    for target in ["runs.parquet", "runs.arrows", "runs.csv"] {
        export(&server, directory.path(), target).await;
    }
    let script = r#"
table = pq.read_table("runs.parquet")
assert table.schema.field("rate").type == pa.decimal128(38, 18)
assert table.schema.field("first_observed_time").type == pa.timestamp("us", tz="UTC")
assert table.schema.field("pair").type == pa.dictionary(pa.uint32(), pa.string()), table.schema
assert table.schema.metadata[b"silkrate.schema_version"] == b"2"
assert table["rate"].to_pylist() == RATES
assert pq.ParquetFile("runs.parquet").metadata.num_rows == 6
stream = pa.ipc.open_stream("runs.arrows").read_all()
assert stream.schema.field("pair").type == pa.dictionary(pa.uint32(), pa.large_string()), stream.schema
assert stream.schema.metadata == table.schema.metadata | {b"silkrate.filter": stream.schema.metadata[b"silkrate.filter"]}
assert stream.cast(table.schema).equals(table), (stream.schema, table.schema)

frame = pd.read_parquet("runs.parquet")
assert list(frame["rate"]) == RATES
assert str(frame["first_observed_time"].dt.tz) == "UTC" and frame["first_observed_time"].iloc[-1] == FIRST
assert frame["pair"].dtype == "category"

for frame in (pl.read_parquet("runs.parquet"), pl.read_ipc_stream("runs.arrows")):
    assert frame.schema["rate"] == pl.Decimal(38, 18), frame.schema
    assert frame.schema["last_observed_time"] == pl.Datetime("us", "UTC"), frame.schema
    assert frame["rate"].to_list() == RATES
    assert frame["last_observed_time"].to_list()[-1] == FIRST
    assert frame["reported_change_negative"].to_list() == [None] * 4 + [True] * 2

text = pd.read_csv("runs.csv", dtype=str, keep_default_na=False)
assert list(text["rate"])[3:5] == ["12345678901234567890.12345678", "0.00008"]
assert list(text["reported_change_percent"]) == [""] * 4 + ["-0"] * 2
assert text["first_observed_time"].iloc[-1] == "2025-12-08T11:59:00Z"
"#;
    check(directory.path(), &format!("{COMMON}{script}")).await;
}

#[tokio::test]
async fn hive_partitions_are_read_as_one_table() {
    let (server, directory) = (start().await, tempfile::tempdir().unwrap());
    export(&server, directory.path(), "parts --partition pair,month").await;
    export(&server, directory.path(), "days --shape daily --partition pair,month").await;
    assert_eq!(fs::read_dir(directory.path().join("parts")).unwrap().count(), 2);
    let script = r#"
expect = [("KGS/USD", "2025-11", 1), ("KGS/USD", "2025-12", 3), ("UZS/USD", "2025-12", 2)]
counted = duckdb.sql("select pair, month, count(*) from 'parts/**/*.parquet' group by all order by all").fetchall()
assert counted == expect, counted
assert duckdb.sql("select rate from 'parts/**/*.parquet' where pair = 'KGS/USD' order by 1 desc").limit(1).fetchall() == [(WIDEST,)]
for place in ("parts", "parts/**/*.parquet"):
    counted = pl.scan_parquet(place, hive_partitioning=True).group_by("pair", "month").len().sort("pair", "month").collect()
    assert counted.rows() == expect, counted
table = ds.dataset("parts", partitioning="hive").to_table()
assert table.num_rows == 6 and set(table["pair"].to_pylist()) == {"KGS/USD", "UZS/USD"}
frame = pd.read_parquet("parts")
assert len(frame) == 6 and set(frame["pair"]) == {"KGS/USD", "UZS/USD"}
months = duckdb.sql("select month, count(*) from 'days/**/*.parquet' where source = 'timesca' and pair = 'KGS/USD' group by all order by all").fetchall()
assert months == [("2025-11", 23), ("2025-12", 8)], months
"#;
    check(directory.path(), &format!("{COMMON}{script}")).await;
}

/// A script finds the columns even if the export has no rows.
#[tokio::test]
async fn hive_partitions_without_rows_have_columns() {
    let (server, directory) = (start().await, tempfile::tempdir().unwrap());
    export(&server, directory.path(), "parts --partition pair,month --from 2026-01-01").await;
    let script = r#"
assert duckdb.sql("select pair, month, rate from 'parts/**/*.parquet' where pair = 'KGS/USD' and month >= '2025-01'").fetchall() == []
assert duckdb.sql("select sum(rate), count(*) from 'parts/**/*.parquet'").fetchall() == [(None, 0)]
assert pl.scan_parquet("parts/**/*.parquet", hive_partitioning=True).select("pair", "month", "rate").collect().rows() == []
assert {"pair", "month", "rate"} <= set(ds.dataset("parts", partitioning="hive").to_table().column_names)
assert len(pd.read_parquet("parts")) == 0
"#;
    check(directory.path(), &format!("{COMMON}{script}")).await;
}

/// Each tool rewrites an export with its default settings. The result can be imported and contains no new tick.
#[tokio::test]
async fn exports_rewritten_by_other_tools_can_be_imported() {
    let (server, directory) = (start().await, tempfile::tempdir().unwrap());
    export(&server, directory.path(), "runs.parquet").await;
    export(&server, directory.path(), "plain.parquet --pair KGS/USD").await;
    let script = r#"
for name in ("runs", "plain"):
    pq.write_table(pq.read_table(f"{name}.parquet"), f"{name}-pyarrow.parquet")
    pq.write_table(pq.read_table(f"{name}.parquet"), f"{name}-v1.parquet", version="1.0", compression="gzip")
    pd.read_parquet(f"{name}.parquet").to_parquet(f"{name}-pandas.parquet")
    pl.read_parquet(f"{name}.parquet").write_parquet(f"{name}-polars.parquet")
    duckdb.sql(f"copy (from '{name}.parquet') to '{name}-duckdb.parquet' (format parquet)")
frame = pd.read_parquet("runs.parquet")
frame["first_observed_time"] = frame["first_observed_time"].astype("datetime64[ns, UTC]")
frame.to_parquet("runs-ns.parquet")
"#;
    check(directory.path(), &format!("{COMMON}{script}")).await;
    let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let written: Vec<_> = names.filter(|name| name.contains('-')).collect();
    assert!(written.len() == 11 || python_or_skip().is_none(), "{written:?}");
    for name in written {
        let mut command = Command::new(env!("CARGO_BIN_EXE_silkrate"));
        command.args(["import", &name, "--output", "json"]).current_dir(directory.path());
        command.env("SILKRATE_ENDPOINT", server.addr.to_string());
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(ran.status.success(), "{name}: {}", String::from_utf8_lossy(&ran.stderr));
        let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
        let known = if name.starts_with("runs") { 6 } else { 4 };
        assert_eq!((&report[0]["known_count"], &report[0]["new_run_count"]), (&known.into(), &0.into()), "{name}");
    }
}

/// A code block of the page, and its expected output.
#[derive(PartialEq, Eq, Debug)]
struct Block {
    line: usize,
    language: String,
    code: String,
    output: String,
}

/// Returns the code blocks of a page. A `text` block is the output of the code block before it. A code block without a
/// `text` block after it prints nothing.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let body: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let text = body.iter().flat_map(|line| [line, "\n"]).collect();
        match (language, blocks.last_mut()) {
            ("text", Some(before)) if before.output.is_empty() => before.output = text,
            ("sh" | "python", _) => {
                blocks.push(Block { line: at + 1, language: language.to_owned(), code: text, output: String::new() });
            }
            _ => panic!("line {}: a block of '{language}' is neither code to run nor output", at + 1),
        }
    }
    blocks
}

/// Returns true if a text equals the expected one, in which `…` stands for anything within a line.
fn is_as_expected(found: &str, expect: &str) -> bool {
    let is_like = |found: &str, expect: &str| match expect.split_once('…') {
        None => found == expect,
        Some((before, after)) => {
            found.len() >= before.len() + after.len() && found.starts_with(before) && found.ends_with(after)
        }
    };
    // Tables may have blanks at the ends of lines and an empty last line, which editors remove.
    let lines = |text: &str| text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    let (found, expect) = (lines(found), lines(expect));
    found.len() == expect.len() && found.iter().zip(&expect).all(|(found, expect)| is_like(found, expect))
}

#[test]
fn blocks_of_a_page_are_found_with_their_output() {
    let block = |line, language: &str, code: &str, output: &str| Block {
        line,
        language: language.to_owned(),
        code: code.to_owned(),
        output: output.to_owned(),
    };
    let page = "a `b`\n\n```sh\nls\n\nls\n```\nso:\n```text\na\n```\n```python\n1\n```\n";
    assert_eq!(blocks(page), [block(3, "sh", "ls\n\nls\n", "a\n"), block(12, "python", "1\n", "")]);
    let check = |found: &str, expect: &str, fits: bool| assert_eq!(is_as_expected(found, expect), fits, "{found}");
    check("a  \nb\n", "a\nb\n", true);
    check("a\n", "a\nb\n", false);
    check("a 17 b\n", "a … b\n", true);
    check("a b\n", "a … b\n", false);
    check("a\n\n", "a\n", true);
    check("", "a\n", false);
}

#[tokio::test]
async fn code_blocks_of_the_page_for_analysts_print_their_output() {
    let Some(python) = python_or_skip() else { return };
    let server = TestServer::start(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    std::os::unix::fs::symlink(data, directory.path().join("data")).unwrap();
    let programs = [Path::new(env!("CARGO_BIN_EXE_silkrate")).parent().unwrap(), python.parent().unwrap()];
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let path = programs.into_iter().map(Path::to_owned).chain(std::env::split_paths(&inherited));
    let path = std::env::join_paths(path).unwrap();
    let mut wrong = Vec::new();
    for Block { line, language, code, output } in blocks(PAGE) {
        let mut command = if language == "sh" { Command::new("bash") } else { Command::new(&python) };
        if language == "sh" {
            command.args(["-e", "-u"]);
        }
        command.args(["-c", &code]).current_dir(directory.path()).env("PATH", &path).env("TZ", "Asia/Bishkek");
        command.env("SILKRATE_ENDPOINT", server.addr.to_string()).env("PYTHONUTF8", "1");
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let (found, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        if !ran.status.success() || !stderr.is_empty() || !is_as_expected(&found, &output) {
            wrong.push(format!("the block at line {line} gave, with {}:\n{found}{stderr}", ran.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
