//! Reading of CSV files of ticks and of runs.

use proptest::prelude::*;

use super::*;
use crate::domain::{CurrencySet, Pair, Rate};

const HEADER: &str = "pair,source,observed_time,rate,reported_change_percent";

/// Returns each row as `line: rate change` or `line: error`.
fn read(file: &[u8]) -> Vec<String> {
    let mut reader = match TickCsv::new(file) {
        Ok(reader) => reader,
        Err(problem) => return vec![problem.to_string()],
    };
    let mut rows = Vec::new();
    while let Some(TickCsvRow { line, values }) = reader.next_row().unwrap() {
        rows.extend(described(line, values));
    }
    assert_eq!(reader.bytes(), file.len() as u64);
    for bytes in [1, 7, 40, 1_000] {
        assert_eq!(read_parts(file, bytes), rows, "parts of {bytes} bytes");
    }
    rows
}

fn described(line: u64, values: Result<TickCsvValues<'_>, TickCsvRowError>) -> Vec<String> {
    match values {
        Ok(values) => {
            let change = values.reported_change_percent.as_deref().unwrap_or_default();
            values.observed_times().map(|_| format!("{line}: {} {change}", values.rate)).collect()
        }
        Err(problem) => vec![format!("{line}: {problem}")],
    }
}

/// Reads the file in parts of about `bytes` bytes.
fn read_parts(file: &[u8], bytes: usize) -> Vec<String> {
    let mut reader = TickCsv::new(file).unwrap();
    let mut rows = Vec::new();
    while let Some(part) = reader.next_part(bytes, bytes + 5).unwrap() {
        rows.extend(reader.header().rows_of(&part).flat_map(|row| described(row.line, row.values)));
    }
    assert_eq!(reader.bytes(), file.len() as u64);
    rows
}

#[test]
fn malformed_row_gives_error_with_its_line_number() {
    let check = |body: &str, expect: &[&str]| {
        assert_eq!(read(format!("{HEADER}\n{body}").as_bytes()), expect, "{body}");
        assert_eq!(read(format!("\u{feff}{HEADER}\r\n{}", body.replace('\n', "\r\n")).as_bytes()), expect, "{body}");
    };
    let good = "KGS/USD,nbkr,2025-12-08,0.01144,-0";
    check(good, &["2: 0.01144 -0"]);
    check(&format!("{good}\n\n  \n{good}\n"), &["2: 0.01144 -0", "5: 0.01144 -0"]);
    check("KGS/USD,nbkr,2025-12-08T06:00:00+06:00,0.01144,", &["2: 0.01144 "]);
    check(&format!("a,b\n{good}"), &["2: the header has 5 fields, this row has 2", "3: 0.01144 -0"]);
    check(
        &format!("\"KGS/USD,nbkr,2025-12-08,1,\n{good}"),
        &["2: the quotation marks do not match; write each row on one line", "3: 0.01144 -0"],
    );
    check("\"KGS/USD\", nbkr ,2025-12-08,\"0.01144\",\"-0\"", &["2: 0.01144 -0"]);
    check(",nbkr,2025-12-08,1,", &["2: pair is empty"]);
    check("KGS/USD,nbkr,,1,", &["2: observed_time is empty"]);
    check("KGS/USD,nbkr,2025-12-08,,", &["2: rate is empty"]);
    check("KGS/USD,nbkr,2025-13-01,1,", &["2: observed_time: date '2025-13-01' is not in the calendar"]);
    // Rates are not validated here.
    check("kgs,NBKR,2025-12-08,1e3,x", &["2: 1e3 x"]);
    // Relative times are refused, because the meaning of a file must not depend on the time of reading.
    assert!(read(format!("{HEADER}\nKGS/USD,nbkr,-7d,1,").as_bytes())[0].contains("is not RFC 3339"));
}

#[test]
fn spelling_of_a_pair_is_canonical() {
    let check = |pair: &str, expect: &str| {
        let file = format!("{HEADER}\n{pair},nbkr,2025-12-08,0.01144,");
        let mut reader = TickCsv::new(file.as_bytes()).unwrap();
        assert_eq!(reader.next_row().unwrap().unwrap().values.unwrap().pair, expect, "{pair}");
    };
    for pair in ["KGS/USD", "kgs/usd", "KGS-USD", "KGSUSD"] {
        check(pair, "KGS/USD");
    }
    // Ingest refuses any other text.
    check("KGS_USD", "KGS_USD");
}

#[test]
fn run_gives_its_first_and_last_tick() {
    let header = RUN_NAMES.join(",");
    let check = |body: &str, expect: &[&str]| {
        assert_eq!(read(format!("{header}\n{body}").as_bytes()), expect, "{body}");
    };
    let run = |first: &str, last: &str, rate: &str, places: &str| {
        format!("KGS/USD,nbkr,{first},{last},2025-12-09T00:00:00Z,{rate},0.2849,{places},-0,0,true,7\n")
    };
    let (noon, later) = ("2025-12-08T12:00:00Z", "2025-12-08T14:00:00Z");
    check(&run(noon, later, "0.28490", "5"), &["2: 0.28490 -0", "2: 0.28490 -0"]);
    check(&format!("{}{}", run(noon, noon, "8100", "0"), run(later, later, "1", "0")), &["2: 8100 -0", "3: 1 -0"]);
    check(
        &run(later, noon, "1", "0"),
        &["2: last_observed_time 2025-12-08T12:00:00Z is before first_observed_time 2025-12-08T14:00:00Z"],
    );
    check(
        &run(noon, later, "0.2849", "5"),
        &["2: rate '0.2849' does not have 5 decimal places (published_places); keep the column rate as text"],
    );
    check(
        &run("x", later, "1", "0"),
        &[
            "2: first_observed_time: time 'x' is not RFC 3339; write it like 2025-12-08T00:00:00Z, or as a date like 2025-12-08",
        ],
    );
    let file = format!("{header}\n{}", run(noon, later, "1", "0"));
    let mut reader = TickCsv::new(file.as_bytes()).unwrap();
    let values = reader.next_row().unwrap().unwrap().values.unwrap();
    assert_eq!(values.observed_times().map(|time| time.to_string()).collect::<Vec<_>>(), [noon, later]);
}

#[test]
fn sample_file_has_only_valid_rows() {
    let mut reader = TickCsv::new(include_str!("../../../data/history-sample.csv").as_bytes()).unwrap();
    let (mut count, mut dollar) = (0, Vec::new());
    let served = CurrencySet::central_asia();
    while let Some(row) = reader.next_row().unwrap() {
        let row = row.values.unwrap();
        assert!(Pair::parse(&row.pair, &served).is_ok() && Rate::parse(&row.rate).is_ok(), "{row:?}");
        assert_eq!((&*row.source, &row.reported_change_percent), ("cbu", &None));
        count += 1;
        if row.pair == "USD/UZS" {
            dollar.push(row.rate.into_owned());
        }
    }
    assert_eq!(count, 120);
    // The devaluation of 2017, in sum per dollar.
    assert!(dollar.windows(2).any(|rates| rates == ["4210.35", "8100"]));
}

#[test]
fn overlong_and_non_utf8_lines_are_refused() {
    let mut file = format!("{HEADER}\n").into_bytes();
    file.extend(b"KGS/USD,\xff,2025-12-08,1,\n");
    file.extend(vec![b'x'; 1_000_000]);
    file.extend(b"\nKGS/USD,nbkr,2025-12-08,1,\n");
    file.extend(vec![b'y'; TICK_CSV_LINE_BYTES_MAX + 1]);
    let too_long = format!("the line is longer than {TICK_CSV_LINE_BYTES_MAX} bytes");
    let expect = ["2: the line is not UTF-8", &format!("3: {too_long}"), "4: 1 ", &format!("5: {too_long}")];
    assert_eq!(read(&file), expect);
}

#[test]
fn header_must_have_known_columns_once() {
    let check = |header: &str, expect: &str| assert!(read(header.as_bytes())[0].contains(expect), "{header}");
    check("", "the file is empty");
    check("pair,source,rate", "no column 'observed_time'; the columns are pair");
    check("pair,source,observed_time,rate,pair", "column 'pair' twice");
    check("pair,source,observed_time,rate,reported_change", "column 'reported_change' is not known");
    check("pair,source,first_observed_time,rate", "no column 'last_observed_time'");
    check("pair,source,first_observed_time,observed_time,rate", "column 'observed_time' is not known");
    check("rate,pair,observed_time,source\n1,KGS/USD,2025-12-08,nbkr", "2: 1 ");
}

#[test]
fn file_with_pair_column_is_csv() {
    let check = |head: &[u8], expect| assert_eq!(begins_as_tick_csv(head), expect);
    check(HEADER.as_bytes(), true);
    check("\u{feff}source,\"pair\"\r\nx".as_bytes(), true);
    check("• KZT/USD = 0.00196 -0%\npair,source".as_bytes(), false);
    check(b"\xff\xfe,pair", false);
    check(b"", false);
}

proptest! {
    #[test]
    fn fields_of_a_plain_line_are_its_parts_between_commas(line in "[a-z0-9 .\u{a0}\t,]{0,60}") {
        let fields = Fields::of(&line).unwrap();
        let expect = split(&line).unwrap();
        prop_assert_eq!(fields.count(), expect.len());
        for (at, field) in expect.iter().enumerate().take(RUN_NAMES.len()) {
            prop_assert_eq!(fields.get(at), Some(field.clone()));
        }
    }
}
