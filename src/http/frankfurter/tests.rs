//! Tests: paths and days of Frankfurter's requests.

use super::*;

#[test]
fn path_names_a_resource() {
    let day = |text: &str| parse_date(text).unwrap();
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
