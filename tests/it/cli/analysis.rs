//! The commands `convert`, `changes`, `compare` and `candles` with a server of canned responses.

use serde_json::{Value, json};

use crate::cli::canned::Mock;
use crate::cli::command::assert_contains;

#[test]
fn analysis_tables_have_the_expected_cells() {
    let mock = Mock::start();
    let check = |line: &str, parts: &[&str], stderr: &str| {
        let ran = mock.run(line);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), stderr), "{line}");
        assert_contains(line, &ran.stdout, parts);
    };
    check(
        "convert 100 KGS/KZT",
        &[
            "converted  1.14400",
            "low        1.143500",
            "KGS/USD 0.01144 by timesca, 3 observations, last 2025-12-08T00:00:00Z; KZT/USD 0.00196 by timesca",
            "2 h; leg ages differ by 2 d",
        ],
        "",
    );
    check(
        "changes KGS/USD",
        &["cannot tell  age", "0.01144  0.01146  0.174825  0.087374  0.262353  no           2 h"],
        "from KGS/USD by timesca; days of Asia/Bishkek\n",
    );
    // Periods are shown as local dates, months and years.
    let period = |name: &str, expect: &str| {
        let ran = mock.run(&format!("changes KGS/USD --period {name} --asc"));
        let shown = ran.stdout.lines().nth(1).and_then(|line| line.split_whitespace().nth(1)).map(str::to_owned);
        assert_eq!((shown.as_deref(), ran.code), (Some(expect), Some(0)), "{name}: {}", ran.stdout);
    };
    period("ytd", "2025-12-08");
    period("day", "2025-12-08");
    period("month", "2025-12");
    period("year", "2025");
    check(
        "compare --pair KGS/USD --sources timesca,nbkr",
        &[
            "KGS/USD: first timesca as published, second nbkr as published\n",
            "2025-12-08  0.01144  0.01143  -0.0874  -0.1748  0.0001  no      -            2 h",
            "2025-12-09  0.01144  0.01146   0.1748   0.0874  0.2624  begins  timesca 3 d  2 h",
            "Apart on 1 of 2 days. On 1 of these days timesca lags nbkr. Largest difference: 0.1748 % on 2025-12-09. \
             Apart since 2025-12-09; timesca lags nbkr by 3 days.\n",
        ],
        "",
    );
    let note = "from KGS/USD by timesca; days of UTC\n";
    check("candles KGS/USD", &["average", "0.01144  0.01146  0.01143  0.01145  0.0114466666666667      3  -"], note);
    check("candles KGS/USD --limit 1", &["2025-12-08T00:00:00Z"], note);
    // Candles shorter than a day have no days.
    check("candles KGS/USD --interval 1h --limit 1", &["2025-12-08T00:00:00Z"], "from KGS/USD by timesca\n");
}

#[test]
fn analysis_json_has_the_fields_of_the_messages() {
    let mock = Mock::start();
    let check = |line: &str, at: &str, expect: Value| mock.check_json(line, at, &expect);
    check("convert 100 KGS/KZT", "/converted_amount", json!("1.14400"));
    check("convert 100 KGS/KZT", "/rate/derivation", json!("CROSS"));
    check("convert 100 KGS/KZT", "/rate/leg_age_difference", json!("172800s"));
    check("convert 100 KGS/KZT", "/rate/legs/1/pair", json!("KZT/USD"));
    check("changes KGS/USD", "/0/start_missing_reason", json!("NO_QUOTE_YET"));
    check("changes KGS/USD", "/1/percent_change_high", json!("0.262353"));
    check("changes KGS/USD", "/1/start/rate", json!("0.01144"));
    check("candles KGS/USD --observations", "/1/observation_count", json!(8));
    check("candles KGS/USD", "/0/observation_count", json!(null));
    check("candles KGS/USD", "/1/complete", json!(false));
    check("candles KGS/USD", "/1/open_bounds/high", json!("0.011445"));
}

#[test]
fn analysis_csv_has_the_expected_columns() {
    let mock = Mock::start();
    let check = |line: &str, expect: &str| mock.check_csv(line, expect);
    check(
        "candles KGS/USD --limit 1",
        "pair,derivation,start_time,start_date,end_time,complete,filled,open,open_time,high,high_time,low,low_time,close,close_time,average,\
         move_count,open_low,open_high,high_low,high_high,low_low,low_high,close_low,close_high,average_low,average_high,\
         leg_age_difference,time_zone,legs,stale,archived,observation_count\n\
         KGS/USD,DIRECT,2025-12-08T00:00:00Z,,2025-12-09T00:00:00Z,true,false,0.01144,2025-12-08T00:00:00Z,0.01146,\
         2025-12-08T00:00:00Z,0.01143,2025-12-08T00:00:00Z,0.01145,2025-12-08T00:00:00Z,0.0114466666666667,3,\
         0.011435,0.011445,,,,,,,,,,UTC,\"[{\"\"pair\"\":\"\"KGS/USD\"\",\"\"source\"\":\"\"timesca\"\",\"\"stale\"\":false,\"\"archived\"\":false}]\",false,false,\n",
    );
    check(
        "convert 100 KGS/KZT",
        "pair,amount,converted_amount,converted_amount_low,converted_amount_high,rate,derivation,legs,age,time,date,time_zone,stale,archived,sequence,recorded_time\n\
         KGS/KZT,100,1.14400,1.143500,1.144500,5.83673469387755,CROSS,\"[{\"\"pair\"\":\"\"KGS/USD\"\",\"\"source\"\":\"\"timesca\"\",\"\"rate\"\":\"\"0.01144\"\",\"\"reported_change_percent\"\":\"\"-0\"\",\"\"first_observed_time\"\":\"\"2025-12-08T00:00:00Z\"\",\"\"last_observed_time\"\":\"\"2025-12-08T00:00:00Z\"\",\"\"observation_count\"\":3,\"\"recorded_time\"\":\"\"2025-12-09T00:00:00Z\"\"},{\"\"pair\"\":\"\"KZT/USD\"\",\"\"source\"\":\"\"timesca\"\",\"\"rate\"\":\"\"0.00196\"\",\"\"reported_change_percent\"\":\"\"-0\"\",\"\"first_observed_time\"\":\"\"2025-12-06T00:00:00Z\"\",\"\"last_observed_time\"\":\"\"2025-12-06T00:00:00Z\"\",\"\"observation_count\"\":3,\"\"recorded_time\"\":\"\"2025-12-07T00:00:00Z\"\"}]\",7200s,2025-12-08T00:00:00Z,,,false,false,7,2025-12-09T00:00:00Z\n",
    );
}

#[test]
fn analysis_arguments_reach_the_server() {
    let mock = Mock::start();
    let check = |line: &str, parts: &[&str]| {
        assert_eq!(mock.run(line).code, Some(0), "{line}");
        assert_contains(line, &mock.requests().join("\n"), parts);
    };
    check("convert 99.90 KGS/KZT --max-age 2d", &["amount: \"99.90\"", "seconds: 172800"]);
    check(
        "changes KGS/KZT --period ytd --time-zone Asia/Bishkek --decimal-places 2 --leg-source nbkr --leg-source nbk",
        &[
            "period: YearToDate",
            "time_zone: \"Asia/Bishkek\"",
            "decimal_places: Some(2)",
            "[\"nbkr\", \"nbk\"]",
            "page_token: \"2\"",
        ],
    );
    check(
        "compare --pair KGS/USD --sources timesca --sources nbkr --time-zone Asia/Bishkek",
        &[
            "sources: [\"timesca\", \"nbkr\"]",
            "last_days: Some(30)",
            "time_zone: \"Asia/Bishkek\"",
            "decimal_places: Some(4)",
            "page_token: \"2\"",
        ],
    );
    check(
        "compare --pair KGS/USD --sources timesca,nbkr --to 2025-12-08 --decimal-places 1 --limit 1",
        &["last_days: None", "end_date: \"2025-12-08\"", "decimal_places: Some(1)", "page_size: 1"],
    );
    check(
        "candles KGS/USD --interval 15m --fill --limit 3",
        &["interval: FifteenMinutes", "fill_empty: true", "page_size: 3", "page_size: 2", "page_token: \"2\""],
    );
}

#[test]
fn rows_before_a_damaged_page_are_printed_and_the_exit_status_is_1() {
    let mock = Mock::start();
    for line in ["candles UZS/USD", "candles UZS/USD --output csv", "candles UZS/USD --output json"] {
        let ran = mock.run(line);
        assert_eq!((ran.code, ran.stdout.lines().count()), (Some(1), 2), "{line}");
        assert_contains(line, &ran.stderr, &["stored data is damaged: a block cannot be read"]);
        assert!(!ran.stdout.trim_end().ends_with(']'), "{line}: the array looks complete");
    }
    // Nothing is printed if the server refuses the first request.
    for line in ["candles TMT/USD", "changes TMT/USD", "convert 1 TMT/USD", "compare --pair TMT/USD --sources a,b"] {
        let ran = mock.run(line);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{line}");
        assert_contains(line, &ran.stderr, &["reason: NO_QUOTE_YET"]);
    }
}
