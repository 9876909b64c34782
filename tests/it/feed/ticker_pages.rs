//! The parser of the ticker page, with recorded pages and with misleading pages.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use silkrate::domain::{CurrencySet, Source, Tick, Timestamp};
use silkrate::feed::{PageError, QuoteError, TickerPage};

const TXT_SAMPLE: &str = include_str!("../../../data/times-of-central-asia-2025-12-08.txt");
const HTML_SAMPLE: &str = include_str!("../../../data/times-of-central-asia-2025-12-08.html");
const DATED: &str = "08 December 2025\n";

fn read_at(page: impl AsRef<[u8]>, time: Option<Timestamp>) -> Result<TickerPage, PageError> {
    TickerPage::read(page.as_ref(), &Source::parse("timesca").expect("a slug"), time, &CurrencySet::central_asia())
}

fn read(page: impl AsRef<[u8]>) -> Result<TickerPage, PageError> {
    read_at(page, None)
}

fn time(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).expect("RFC 3339")
}

/// Formats a tick like `KGS/USD 0.01144 0%`.
fn as_text(tick: &Tick) -> String {
    let change = tick.value.reported_change.map_or_else(String::new, |change| format!(" {change}%"));
    format!("{} {}{change}", tick.series.pair, tick.value.rate)
}

fn ticks(page: &TickerPage) -> Vec<String> {
    page.ticks.iter().map(as_text).collect()
}

fn refused(page: &TickerPage) -> Vec<String> {
    page.refused.iter().map(|quote| quote.reason.to_string()).collect()
}

const SEED_TICKS: [&str; 5] =
    ["KGS/USD 0.01144 0%", "KZT/USD 0.00196 -0%", "TJS/USD 0.10899 -0%", "UZS/USD 0.00008 -0%", "TMT/USD 0.28490 0%"];

#[test]
fn samples_give_five_ticks_of_forty_quotes() {
    let seed = fs::read_to_string("tests/data/ticker/seed-2025-12-08.txt").unwrap();
    for sample in [TXT_SAMPLE, HTML_SAMPLE, &seed] {
        let page = read(sample).unwrap();
        assert_eq!((page.quote_count, page.cycle_count), (40, 8));
        assert_eq!(ticks(&page), SEED_TICKS);
        assert_eq!(refused(&page), [""; 0]);
        assert_eq!(page.date.unwrap().to_string(), "2025-12-08");
        assert!(page.ticks.iter().all(|tick| tick.observed_time == time("2025-12-08T00:00:00Z")));
        assert!(page.ticks.iter().all(|tick| tick.series.source.as_str() == "timesca"));
    }
    assert_eq!(read(TXT_SAMPLE), read(HTML_SAMPLE));
}

#[test]
fn recorded_pages_give_the_ticks_of_the_table() {
    let folder = Path::new("tests/data/ticker");
    let mut states: HashMap<String, (String, Vec<String>)> = HashMap::new();
    let mut table = csv::Reader::from_path(folder.join("states.csv")).unwrap();
    for row in table.deserialize::<(String, String, String, String, String)>() {
        let (file, date, pair, rate, change) = row.unwrap();
        let state = states.entry(file).or_insert_with(|| (date, Vec::new()));
        state.1.push(format!("{pair} {rate} {change}"));
    }
    assert_eq!(states.len(), 38);
    for (file, (date, expect)) in &states {
        let bytes = fs::read(folder.join(file)).unwrap();
        let noon = time("2025-06-01T12:00:00Z");
        let given = read_at(&bytes, Some(noon)).unwrap();
        assert_eq!(&ticks(&given), expect, "{file}");
        assert_eq!(refused(&given), [""; 0], "{file}");
        assert_eq!(given.observed_time, noon, "{file}");
        assert_eq!(given.quote_count as usize, expect.len() * given.cycle_count as usize, "{file}");
        assert_eq!(given.cycle_count, if expect.len() == 4 { 8 } else { 11 }, "{file}");
        assert_eq!(given.date.map(|date| date.to_string()).unwrap_or_default(), *date, "{file}");
        match read(&bytes) {
            Err(error) => assert!(date.is_empty() && error == PageError::NoDate, "{file}: {error}"),
            Ok(page) => {
                assert_eq!(page.observed_time, time(&format!("{date}T00:00:00Z")), "{file}");
                assert_eq!(&ticks(&page), expect, "{file}");
            }
        }
    }
}

#[test]
fn invalid_pages_are_refused() {
    let check = |page: &[u8], expect: &str| {
        let error = read(page).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    let max = TickerPage::PAGE_BYTES_MAX;
    let quote = "KGS/USD = 0.01144 0%\n";
    check(b"", "has no quotes; a quote looks like 'KGS/USD = 0.01144 0%'");
    check(DATED.as_bytes(), "has no quotes");
    check(&vec![b' '; 10 * 1024 * 1024], "has 10485760 bytes; at most 4194304 are read");
    check(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "NUL byte at offset 8");
    check(b"abc\xff", "not UTF-8 at byte offset 3");
    check("ab\u{2022}".as_bytes().split_last().unwrap().1, "not UTF-8 at byte offset 2");
    check(quote.as_bytes(), "no line that holds only a date");
    let filled = [DATED, quote, &" ".repeat(max - DATED.len() - quote.len())].concat();
    assert_eq!(filled.len(), max);
    assert!(read(&filled).is_ok());
    check(format!("{filled} ").as_bytes(), "at most 4194304 are read");
}

#[test]
fn date_alone_on_a_line_is_the_date_of_the_page() {
    let check = |lines: &str, expect: &str| {
        let page = format!("{lines}\nKGS/USD = 0.01144 0%\n");
        let outcome = read(&page).map_or_else(|error| error.to_string(), |page| page.observed_time.to_string());
        assert!(outcome.contains(expect), "{lines}: {outcome}");
        let noon = time("2024-02-02T12:00:00Z");
        assert_eq!(read_at(&page, Some(noon)).unwrap().observed_time, noon, "{lines}");
    };
    check("08 December 2025", "2025-12-08T00:00:00Z");
    check("  8\u{a0}december  2025\t\r", "2025-12-08T00:00:00Z");
    check("08 December 2025\n08 December 2025\n8 December 2025", "2025-12-08T00:00:00Z");
    check("29 February 2024", "2024-02-29T00:00:00Z");
    check(
        "08 December 2025\n09 December 2025",
        "hold only a date, and their dates differ: 2025-12-08 and 2025-12-09; give the observed time",
    );
    check("31 February 2025", "'31 February 2025' is not a date of the calendar");
    check("29 February 2025\n08 December 2025", "'29 February 2025' is not a date");
    check("08 December 2025\n0 May 2025", "'0 May 2025' is not a date");
    check("01 January 0000", "is not a date");
    for prose in [
        "on 08 December 2025",
        "08 December 2025.",
        "008 December 2025",
        "08 Dezember 2025",
        "2025-12-08",
        "08 December 25",
    ] {
        check(prose, "no line that holds only a date");
    }
}

#[test]
fn repeated_cycles_give_one_tick_per_pair() {
    let check = |lines: &str, counts: (u32, u32), expect: &[&str], expect_refused: &[&str]| {
        let page = read(format!("{DATED}{lines}\nThe end.")).unwrap();
        assert_eq!((page.quote_count, page.cycle_count), counts, "{lines}");
        assert_eq!(ticks(&page), expect, "{lines}");
        let refused = refused(&page);
        assert_eq!(refused.len(), expect_refused.len(), "{lines}: {refused:?}");
        for (reason, expect) in refused.iter().zip(expect_refused) {
            assert!(reason.contains(expect), "{lines}: {reason}");
        }
    };
    let (kgs, kzt) = ("KGS/USD = 0.01144 0%\n", "KZT/USD = 0.00196 -0%\n");
    let (kgs_tick, kzt_tick) = ("KGS/USD 0.01144 0%", "KZT/USD 0.00196 -0%");
    check(kgs, (1, 1), &[kgs_tick], &[]);
    check(&[kzt, kgs, kzt, kgs].concat(), (4, 2), &[kzt_tick, kgs_tick], &[]);
    // An incomplete cycle, at the end of the page or within it, counts as a cycle.
    check(&[kgs, kzt, kgs, kzt, kgs].concat(), (5, 3), &[kgs_tick, kzt_tick], &[]);
    check(&[kgs, kgs, kzt, kgs, kzt].concat(), (5, 3), &[kgs_tick, kzt_tick], &[]);
    // Values are compared exactly: digits, the sign of zero, and the reported change.
    for other in ["0.01145 0%", "0.0114 0%", "0.01144 -0%", "0.01144 0.0%"] {
        let reason =
            format!("quotes KGS/USD as 0.01144 0% and as {other}; send the page with only one of these values");
        check(&format!("{kgs}{kzt}KGS/USD = {other}\n{kzt}"), (4, 2), &[kzt_tick], &[&reason]);
    }
    // An invalid quote is reported once per pair and field, and does not affect other quotes.
    let bad = "XXX/USD = 1.2 0%\nEUR/USD = 1.2 0%\nTJS/USD = 0.00000 0%\nTMT/USD = 3,5 0%\nUZS/USD = 1 0,5%\n";
    check(
        &[kgs, bad, kgs, bad].concat(),
        (2, 2),
        &[kgs_tick],
        &[
            "'XXX' is not in ISO 4217",
            "'EUR' is not served here",
            "TJS/USD: rate '0.00000' is zero",
            "TMT/USD: rate '3,5' is not a plain decimal",
            "UZS/USD: reported change '0,5' is not a plain decimal",
        ],
    );
    check(
        "KGS/KGS = 1 0%\nkgs/usd = 1 0%\nKGS/USD = -1 0%\nKZT/USD = 1 \u{2013}1%",
        (0, 0),
        &[],
        &[
            "'KGS/KGS' has the same currency twice",
            "three upper-case letters",
            "KGS/USD: rate '-1' is negative",
            "KZT/USD: reported change",
        ],
    );
    check(&format!("{kgs}KGS/USD = 0 0%\n"), (1, 1), &[kgs_tick], &["is zero"]);
    check("KGS/USD\u{a0}=\u{2009}0.01144 \u{2212}0%", (1, 1), &["KGS/USD 0.01144 -0%"], &[]);
    check("KGS/USD = 0.01144 +1.20%", (1, 1), &["KGS/USD 0.01144 1.20%"], &[]);
}

#[test]
fn truncated_quote_is_reported_and_not_guessed() {
    let whole = format!("{DATED}\u{2022} KGS/USD = 0.01144 0%\n  \u{2022} TJS/USD = 0.10899 -0%\n");
    for cut in ["TJS/USD = 0.10899 -0", "TJS/USD = 0.10899", "TJS/USD = 0.10", "TJS/USD =", "TJS/USD", "TJS/U", "TJ"] {
        for end in ["", "\n", " \r\n\r\n"] {
            let page = read(format!("{whole}  \u{2022} {cut}{end}")).unwrap();
            assert_eq!(ticks(&page), ["KGS/USD 0.01144 0%", "TJS/USD 0.10899 -0%"], "{cut}");
            assert_eq!((page.quote_count, page.cycle_count), (2, 1), "{cut}");
            let [quote] = page.refused.as_slice() else { panic!("{cut}: {page:?}") };
            assert_eq!(quote.reason, QuoteError::Truncated(cut.to_owned()));
            assert!(cut.starts_with(&quote.pair), "{}", quote.pair);
        }
    }
    let html = format!("<p>{DATED}<p>KGS/USD = 0.01144 0%<p>TJS/USD = <b>0.10899</b> <i cla");
    let page = read(html).unwrap();
    assert_eq!(ticks(&page), ["KGS/USD 0.01144 0%"]);
    assert_eq!(refused(&page), ["the page ends within the quote 'TJS/USD = 0.10899'; send the whole page"]);
}

#[test]
fn refusals_are_limited_but_all_are_counted() {
    let letters = || ('A'..='Z').collect::<Vec<char>>();
    let pairs = letters().into_iter().flat_map(|a| letters().into_iter().map(move |b| (a, b)));
    let page: String = pairs
        .take(26 * 26)
        .flat_map(|(a, b)| [format!("Q{a}{b}/USD = 1 0%\n"), format!("{a}{b}Q/XXX = 1 0%\n")])
        .collect();
    let page = read(format!("{DATED}{page}")).unwrap();
    assert_eq!((page.refused.len(), page.refused_count), (TickerPage::REFUSED_MAX, 26 * 26 * 2));
}

#[test]
fn deeply_nested_markup_is_read() {
    let nested = |tag: &str| format!("<{tag}>").repeat(100_000);
    let quote = format!("{DATED}<br>KGS/USD = 0.01144 0%<br>");
    for page in [
        format!("{}{quote}", nested("div")),
        format!("{}{quote}{}", nested("b"), nested("/b")),
        format!("{}{quote}", nested("svg")),
        format!("{}{quote}", nested("p a='<'")),
    ] {
        assert_eq!(ticks(&read(page).unwrap()), ["KGS/USD 0.01144 0%"]);
    }
}

/// Truncates `page` at every byte: every tick read from a part must also be in the complete page.
fn check_every_truncation(page: &str) {
    let given = Some(time("2025-12-08T00:00:00Z"));
    let whole = read_at(page, given).expect("a whole page");
    let first_tick = page.find('%').expect("a quote");
    for end in 0..page.len() {
        match read_at(&page.as_bytes()[..end], given) {
            Ok(piece) => {
                assert!(piece.ticks.iter().all(|tick| whole.ticks.contains(tick)), "cut at {end}: {piece:?}");
                assert!(
                    piece.quote_count <= whole.quote_count && piece.cycle_count <= whole.cycle_count,
                    "cut at {end}"
                );
                let is_cut_off = |reason: &QuoteError| matches!(reason, QuoteError::Truncated(_));
                assert!(piece.refused.iter().all(|quote| is_cut_off(&quote.reason)), "cut at {end}: {piece:?}");
            }
            Err(PageError::NoQuotes) => assert!(end <= first_tick || page.starts_with('<'), "cut at {end}"),
            Err(PageError::NotUtf8 { offset }) => assert!(!page.is_char_boundary(end) && offset < end),
            Err(other) => panic!("cut at {end}: {other}"),
        }
    }
}

#[test]
fn truncated_page_gives_no_new_ticks() {
    check_every_truncation(TXT_SAMPLE);
    check_every_truncation(HTML_SAMPLE);
    check_every_truncation("Rates: KGS/USD = 0.01144 -0.54% KZT/USD = 0.00196 0 % TJS/USD=0.10899 +1%, 5% more.");
}

fn value() -> impl Strategy<Value = (u32, i32)> {
    (1..99_999_u32, -999..999_i32)
}

/// Lines that resemble articles. They contain no quote, and no date alone on a line.
fn noise() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9 .,:;%/$()\u{2022}\u{a0}+-]{0,60}[.,:;]",
        "on [1-9] (May|December) 202[0-9], [0-9]{1,3},[0-9]{3} soms or [0-9]{1,2}% less",
        "KGS/USD [0-9]\\.[0-9]{2} [0-9]%!",
        "the (KGS/USD|UZS/USD) rate rose 0\\.0114 to [0-9.]{1,5} [0-9]%\\.",
        "(XKGS|A)/USD = 0\\.[0-9]{5} -?[0-9]%",
        // Not "nan" or "inf", which are refused rates.
        "(KZT/USD|USD) = [a-m]{3} 0\\.0114 0%",
        "[0-9] USD = [0-9]{2},[0-9]{3} UZS, [0-9]%",
        "[0-9]/[0-9] = [0-9]{2}%",
    ]
}

proptest! {
    #[test]
    fn arbitrary_bytes_cause_no_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..512),
        text in any::<String>(),
        soup in "[<>/=%. A-Z0-9\u{2022}\u{2212}\n&;-]{0,128}",
        quotes in "(\\PC|[A-Z]{3}/[A-Z]{3} ?= ?[0-9.,-]{1,6} -?[0-9]{0,3} ?%?\n?){0,6}",
    ) {
        for page in [bytes.as_slice(), text.as_bytes(), soup.as_bytes(), quotes.as_bytes()] {
            let _ = read(page);
            let _ = read_at(page, Some(Timestamp::from_micros(0)));
        }
    }

    #[test]
    fn text_around_cycles_changes_nothing(
        values in prop::collection::vec(value(), 5),
        cycles in 1..12_u32,
        before in prop::collection::vec(noise(), 0..8),
        within in prop::collection::vec(noise(), 0..4),
        after in prop::collection::vec(noise(), 1..8),
    ) {
        let codes = ["KGS", "KZT", "TJS", "UZS", "TMT"];
        let quote = |(code, (rate, change)): (&str, &(u32, i32))| {
            let sign = if *change < 0 { "-" } else { "" };
            let (whole, cents) = (change.unsigned_abs() / 100, change.unsigned_abs() % 100);
            (format!("{code}/USD"), format!("0.{rate:05}"), format!("{sign}{whole}.{cents:02}%"))
        };
        let quotes: Vec<_> = codes.into_iter().zip(&values).map(quote).collect();
        let marquee: Vec<String> = quotes.iter().map(|(pair, rate, change)| format!("  \u{2022} {pair} = {rate} {change}")).collect();
        let mut lines = before;
        for cycle in 0..cycles {
            lines.extend(marquee.iter().cloned());
            lines.extend(within.get(cycle as usize).cloned());
        }
        lines.push("8 December 2025".to_owned());
        lines.extend(after);
        let page = read(lines.join("\n")).unwrap();
        let expect: Vec<String> = quotes.iter().map(|(pair, rate, change)| format!("{pair} {rate} {change}")).collect();
        prop_assert_eq!(ticks(&page), expect);
        prop_assert_eq!((page.quote_count, page.cycle_count), (5 * cycles, cycles));
        prop_assert_eq!(page.observed_time, time("2025-12-08T00:00:00Z"));
        prop_assert_eq!(refused(&page), [""; 0]);
    }

    #[test]
    fn quote_is_read_with_any_markup_within(
        parts in prop::collection::vec(prop::sample::select(vec![
            " ", "\n", "<b>", "</b>", "<i class=\"=\">", "</span>", "<!-- 5% -->", "&nbsp;", "&thinsp;", "<td title='%'>",
        ]), 4..16),
    ) {
        // Three of the gaps may be empty; the gap between rate and change may not.
        let cut = parts.len() / 4;
        let gap = |index: usize| parts[index * cut..(index + 1) * cut].concat();
        let page = format!(
            "<p>{DATED}</p>{}KGS/USD{}={}0.01144{}<u>-0.54</u>%{}",
            gap(0), gap(1), gap(2), gap(3), parts.concat(),
        );
        prop_assert_eq!(ticks(&read(page).unwrap()), ["KGS/USD 0.01144 -0.54%"]);
    }
}
