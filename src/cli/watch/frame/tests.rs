//! Tests of the screen layout: columns, widths, connection states and scrolling.

use std::time::{Duration, Instant};

use super::*;
use crate::cli::watch::connection::WatchEvent;
use crate::proto::convert::timestamp;
use crate::proto::v1::{LatestRate, Run, WatchKind, WatchLatestRatesResponse};

fn now() -> Timestamp {
    Timestamp::from_micros(1_765_195_200 * Timestamp::SECOND_US)
}

fn before(seconds: i64) -> prost_types::Timestamp {
    timestamp(now().saturating_add_us(-seconds * Timestamp::SECOND_US))
}

fn quote(pair: &str, source: &str, rate: &str, previous: Option<&str>, state: RateState, seen_s: i64) -> LatestRate {
    LatestRate {
        run: Some(Run {
            pair: pair.to_owned(),
            source: source.to_owned(),
            rate: rate.to_owned(),
            last_observed_time: Some(before(seen_s)),
            ..Run::default()
        }),
        state: state.into(),
        moved_time: previous.map(|_| before(7_200)),
        previous_rate: previous.map(str::to_owned),
        ..LatestRate::default()
    }
}

fn snapshot(rates: Vec<LatestRate>) -> WatchEvent {
    WatchEvent::Message(WatchLatestRatesResponse {
        rates,
        sequence: 7,
        server_time: Some(timestamp(now())),
        last_ingest_time: Some(before(5)),
        kind: WatchKind::Snapshot.into(),
        ..WatchLatestRatesResponse::default()
    })
}

fn four_quotes() -> Vec<LatestRate> {
    vec![
        quote("KGS/USD", "timesca", "0.01145", Some("0.01144"), RateState::Moving, 5),
        quote("KZT/USD", "timesca", "0.00196", Some("0.00197"), RateState::Flat, 5),
        quote("TMT/USD", "timesca", "0.28490", None, RateState::Pegged, 5),
        quote("UZS/USD", "timesca", "0.00008", None, RateState::Stale, 90_000),
    ]
}

/// Returns the text of the lines, without colours and trailing spaces.
fn text(lines: &[Line]) -> Vec<String> {
    let line = |line: &Line| line.iter().map(|span| span.text.as_str()).collect::<String>().trim_end().to_owned();
    lines.iter().map(line).collect()
}

/// Returns the state after `events`, which all happen at `at`.
fn state_after(events: Vec<WatchEvent>, at: Instant) -> WatchState {
    let mut state = WatchState::new(false);
    for event in events {
        state.apply(event, at);
    }
    state
}

#[test]
fn wide_screen_has_all_columns() {
    let at = Instant::now();
    let shown = text(&frame(&state_after(vec![snapshot(four_quotes())], at), at, 100, 24, 0));
    assert_eq!(
        shown,
        [
            "live  last ingest 5 s ago",
            "pair     source      rate  trend                             state   last move               seen",
            "KGS/USD  timesca  0.01145  ▁█                                MOVING  ▲ from 0.01144 2 h ago   5 s",
            "KZT/USD  timesca  0.00196  █▁                                FLAT    ▼ from 0.00197 2 h ago   5 s",
            "TMT/USD  timesca  0.28490  ▄                                 PEGGED  never                    5 s",
            "UZS/USD  timesca  0.00008  ▄                                 STALE   never                   25 h",
            "q quits",
        ]
    );
}

#[test]
fn move_under_a_second_ago_is_now() {
    let at = Instant::now();
    let mut rate = quote("USD/KGS", "nbkr", "87.45", Some("87.30"), RateState::Moving, 0);
    rate.moved_time = Some(before(0));
    let shown = text(&frame(&state_after(vec![snapshot(vec![rate])], at), at, 100, 24, 0));
    assert!(shown[2].contains("▲ from 87.30 now  "), "{}", shown[2]);
}

#[test]
fn screen_of_40_columns_drops_optional_columns() {
    let at = Instant::now();
    let shown = text(&frame(&state_after(vec![snapshot(four_quotes())], at), at, 40, 24, 0));
    assert_eq!(
        shown,
        [
            "live  last ingest 5 s ago",
            "pair       rate trend        state  seen",
            "KGS/USD 0.01145 ▁█           MOVING  5 s",
            "KZT/USD 0.00196 █▁           FLAT    5 s",
            "TMT/USD 0.28490 ▄            PEGGED  5 s",
            "UZS/USD 0.00008 ▄            STALE  25 h",
            "q quits",
        ]
    );
}

#[test]
fn rows_of_several_sources_stay_distinguishable_on_40_columns() {
    let at = Instant::now();
    let sources = ["timesca", "timesca-mirror-of-the-ticker-1", "timesca-mirror-of-the-ticker-2"];
    let rates = sources.map(|source| quote("KGS/USD", source, "0.01144", None, RateState::Moving, 10));
    let shown = text(&frame(&state_after(vec![snapshot(rates.to_vec())], at), at, 40, 24, 0));
    let rows: Vec<&String> = shown.iter().filter(|line| line.contains("KGS/USD")).collect();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.contains("0.01144") && row.contains("MOVING") && chars(row) <= 40), "{rows:?}");
    assert!(rows[0].contains("timesca ") && rows[1].contains("…") && rows[1] != rows[2], "{rows:?}");
}

#[test]
fn lines_never_exceed_screen_size() {
    let at = Instant::now();
    let lost = WatchEvent::Lost { problem: "connection refused".repeat(9), retry_in: Duration::from_secs(3) };
    let mut rates = four_quotes();
    rates.push(quote(
        "KGS/USD",
        "a-source-of-thirty-two-characters",
        "12345678901234567890.12",
        None,
        RateState::Flat,
        1,
    ));
    for events in [vec![], vec![snapshot(rates.clone())], vec![snapshot(rates), lost]] {
        let state = state_after(events, at);
        for (width, height) in [(0, 0), (1, 1), (10, 2), (40, 4), (59, 5), (60, 6), (300, 100)] {
            for scroll in [0, 1, 100] {
                let lines = frame(&state, at, width, height, scroll);
                assert!(lines.len() <= height);
                assert!(text(&lines).iter().all(|line| chars(line) <= width), "{width}");
            }
        }
    }
}

#[test]
fn lost_connection_dead_feed_and_unchanged_rate_look_different() {
    let at = Instant::now();
    let shown_after = |events: Vec<WatchEvent>, seconds: u64| {
        let state = state_after(events, at);
        text(&frame(&state, at + Duration::from_secs(seconds), 100, 24, 0))
    };
    let lost = || WatchEvent::Lost { problem: "connection refused".to_owned(), retry_in: Duration::from_secs(3) };
    let quiet = shown_after(vec![snapshot(four_quotes())], 60);
    assert_eq!(quiet[0], "live  last ingest 1 min ago");
    assert!(quiet[3].contains("FLAT") && quiet[3].ends_with("1 min"), "ages keep counting: {}", quiet[3]);
    let dead = vec![quote("KGS/USD", "timesca", "0.01145", None, RateState::Stale, 9_000)];
    assert_eq!(
        shown_after(vec![snapshot(dead)], 0)[0],
        "ALL RATES ARE STALE: last ingest 5 s ago; the feeds may be dead"
    );
    let shown = shown_after(vec![snapshot(four_quotes()), lost()], 2);
    assert_eq!(shown[0], "CONNECTION LOST for 2 s, retry in 1 s: connection refused");
    assert!(shown[2..6].iter().all(|row| row.contains("unknown")), "{shown:?}");
    // After a second failed attempt, the connection is still lost since the first failure.
    assert!(shown_after(vec![snapshot(four_quotes()), lost(), lost()], 2)[0].starts_with("CONNECTION LOST for 2 s,"));
    assert_eq!(
        shown_after(vec![snapshot(four_quotes()), lost(), snapshot(four_quotes())], 0)[0],
        "live  last ingest 5 s ago"
    );
    assert_eq!(
        shown_after(vec![], 0),
        ["connected, waiting for rates", "no rate yet; waiting for the first one", "q quits"]
    );
}

#[test]
fn scrolling_shows_other_rows() {
    let at = Instant::now();
    let state = state_after(vec![snapshot(four_quotes())], at);
    let pairs = |scroll| {
        let lines = text(&frame(&state, at, 100, 5, scroll));
        (
            lines[2..lines.len() - 1].iter().map(|line| line[..7].to_owned()).collect::<Vec<_>>(),
            lines[lines.len() - 1].clone(),
        )
    };
    let key_line = |from: usize, to: usize| format!("q quits; rows {from} to {to} of 4, arrow keys scroll");
    assert_eq!(pairs(0), (vec!["KGS/USD".to_owned(), "KZT/USD".to_owned()], key_line(1, 2)));
    assert_eq!(pairs(1), (vec!["KZT/USD".to_owned(), "TMT/USD".to_owned()], key_line(2, 3)));
    assert_eq!(pairs(9), (vec!["TMT/USD".to_owned(), "UZS/USD".to_owned()], key_line(3, 4)));
}

#[test]
fn control_characters_of_server_are_escaped() {
    let at = Instant::now();
    let evil = quote("KGS\u{1b}[2J", "a\nb", "1\u{7}", Some("2\u{1b}"), RateState::Flat, 5);
    let lost = WatchEvent::Lost { problem: "\u{1b}[31m".to_owned(), retry_in: Duration::ZERO };
    for line in text(&frame(&state_after(vec![snapshot(vec![evil]), lost], at), at, 200, 24, 0)) {
        assert!(!line.chars().any(char::is_control), "{line}");
    }
}
