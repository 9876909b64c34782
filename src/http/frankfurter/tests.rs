//! Tests: paths and days of Frankfurter's requests.

use super::*;

#[test]
fn path_names_a_resource() {
    let day = |text: &str| Day::parse(text).unwrap();
    let check = |text: &str, expect: Option<Resource>| assert_eq!(Resource::parse(text), expect, "{text}");
    check("latest", Some(Resource::Latest));
    check("currencies", Some(Resource::Currencies));
    check("2025-12-08", Some(Resource::Day(day("2025-12-08"))));
    check("2025-12-01..2025-12-08", Some(Resource::Days(day("2025-12-01"), Some(day("2025-12-08")))));
    check("2025-12-01..", Some(Resource::Days(day("2025-12-01"), None)));
    for bad in [
        "",
        "..",
        "..2025-12-08",
        "2025-12-8",
        "2025-02-30",
        "2025-12-01...2025-12-08",
        "Latest",
        "2025-12-08T00:00:00Z",
    ] {
        check(bad, None);
    }
}

#[test]
fn day_is_in_utc() {
    let check = |time: &str, expect: &str| {
        assert_eq!(Day::of(Timestamp::parse_rfc3339(time).unwrap()).text(), expect);
    };
    check("2025-12-08T23:59:59.999999Z", "2025-12-08");
    check("2025-12-08T00:00:00Z", "2025-12-08");
    check("1969-12-31T23:00:00Z", "1969-12-31");
    assert_eq!(Day::parse("2025-12-31").unwrap().next().text(), "2026-01-01");
}

#[test]
fn rate_is_valid_for_its_stale_limit_rounded_up_to_whole_days() {
    let check = |limit_us: i64, expect: &str| {
        assert_eq!(Day::parse("2025-12-05").unwrap().valid_until(limit_us).text(), expect, "{limit_us}");
    };
    check(0, "2025-12-05");
    check(1, "2025-12-06");
    check(Timestamp::HOUR_US, "2025-12-06");
    check(Timestamp::DAY_US, "2025-12-06");
    check(Timestamp::DAY_US + 1, "2025-12-07");
    check(5 * Timestamp::DAY_US, "2025-12-10");
    assert!(Day::parse("2025-12-05").unwrap().valid_until(i64::MAX) > Day::parse("2026-12-05").unwrap());
}
