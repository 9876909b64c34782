//! Parsing of recorded bodies of the banks, with every number checked, and refusal of invalid entries.

use std::collections::BTreeMap;
use std::fs;

use chrono::NaiveDate;

use super::*;
use crate::domain::{Currency, Source};

mod hostile;

/// Recorded bodies: feed, file in `tests/data/feeds`, requested day, number of entries.
pub(super) const BODIES: [(BankFeed, &str, &str, usize); 12] = [
    (BankFeed::NbkrDaily, "nbkr/daily-2026-05-23.xml", "2026-05-23", 5),
    (BankFeed::NbkrDaily, "nbkr/daily-2026-05-24.xml", "2026-05-24", 5),
    (BankFeed::NbkrWeekly, "nbkr/weekly-2026-05-23.xml", "2026-05-23", 40),
    (BankFeed::NbkByDate, "nbk/get_rates-2026-04-01.xml", "2026-04-01", 39),
    (BankFeed::NbkByDate, "nbk/get_rates-2026-04-02.xml", "2026-04-02", 39),
    (BankFeed::NbkNewest, "nbk/rates_all_2026-06-27_trimmed.xml", "2026-06-27", 3),
    (BankFeed::Nbt, "nbt/export-2026-05-18.xml", "2026-05-18", 36),
    (BankFeed::Nbt, "nbt/export-2026-05-19.xml", "2026-05-19", 36),
    (BankFeed::Cbu, "cbu/json-all-2026-04-01.json", "2026-04-01", 75),
    (BankFeed::Cbu, "cbu/json-all-2026-04-02.json", "2026-04-02", 75),
    (BankFeed::Cbt, "cbt/20052026.xml", "2026-05-20", 48),
    (BankFeed::Cbt, "cbt/21052026.xml", "2026-05-21", 48),
];

pub(super) fn day(text: &str) -> NaiveDate {
    text.parse().expect("a date")
}

pub(super) fn body(file: &str) -> Vec<u8> {
    fs::read(format!("tests/data/feeds/{file}")).expect("a recorded body")
}

pub(super) fn read(feed: BankFeed, asked: &str, body: &[u8]) -> Result<BankTable, BankError> {
    let served = CurrencySet::central_asia();
    BankRequest::new(feed, day(asked)).read(body, &BankRules { served: &served, minimum_places: None })
}

#[test]
fn weekly_table_has_the_listed_currencies_and_their_validity() {
    let text = String::from_utf8(body("nbkr/weekly-2026-05-23.xml")).unwrap();
    let mut codes: Vec<&str> = text.split("ISOCode=\"").skip(1).filter_map(|rest| rest.get(..3)).collect();
    codes.sort_unstable();
    assert_eq!(codes, BankFeed::NbkrWeekly.weekly_currencies());
    let table = read(BankFeed::NbkrWeekly, "2026-05-23", text.as_bytes()).unwrap();
    let quotes = table.quotes.iter();
    let valid: Vec<(String, Option<u16>)> = quotes.map(|quote| (quote.pair.to_string(), quote.valid_days)).collect();
    assert_eq!(valid, ["TJS/KGS", "UZS/KGS", "TMT/KGS"].map(|pair| (pair.to_owned(), Some(7))));
    // The built-in stale limit is longer than the validity.
    let days = crate::domain::Timestamp::DAY_US;
    assert!(crate::sources::SourceSettings::WEEKLY_STALE_LIMIT_US > 7 * days);
    let daily = read(BankFeed::NbkrDaily, "2026-05-23", &body("nbkr/daily-2026-05-23.xml")).unwrap();
    assert!(daily.quotes.iter().all(|quote| quote.valid_days.is_none()));
    // A validity that is not a number is ignored, because it is optional.
    let other = text.replace("<ValidFor>7<", "<ValidFor>a week<");
    let table = read(BankFeed::NbkrWeekly, "2026-05-23", other.as_bytes()).unwrap();
    assert!(table.quotes.len() == 3 && table.quotes.iter().all(|quote| quote.valid_days.is_none()));
}

/// Formats a quote as `USD/KGS 2026-05-23 87.4500`, followed by the difference if there is one.
fn quote_text(quote: &BankQuote) -> String {
    let difference = quote.difference.map_or_else(String::new, |difference| format!(" {difference}"));
    format!("{} {} {}{difference}", quote.pair, quote.date, quote.rate)
}

fn quotes(table: &BankTable) -> Vec<String> {
    table.quotes.iter().map(quote_text).collect()
}

fn refused(table: &BankTable) -> Vec<String> {
    table.refused.iter().map(ToString::to_string).collect()
}

#[test]
fn recorded_tables_give_quotes_of_served_currencies() {
    let check = |file: &str, expect: &[&str]| {
        let (feed, _, asked, entries) = BODIES.into_iter().find(|(_, name, ..)| *name == file).unwrap();
        let table = read(feed, asked, &body(file)).unwrap();
        assert_eq!(quotes(&table), expect, "{file}");
        assert_eq!((table.entry_count, table.skipped_count), (entries, entries - expect.len()), "{file}");
        assert_eq!((refused(&table), table.unreadable_difference_count), (vec![], 0), "{file}");
    };
    check("nbkr/daily-2026-05-23.xml", &["USD/KGS 2026-05-23 87.4500", "KZT/KGS 2026-05-23 0.1859"]);
    check(
        "nbkr/weekly-2026-05-23.xml",
        &["TJS/KGS 2026-05-23 9.4148", "UZS/KGS 2026-05-23 0.0073", "TMT/KGS 2026-05-23 24.9857"],
    );
    check(
        "nbk/get_rates-2026-04-01.xml",
        &[
            "USD/KZT 2026-04-01 478.77 -2.77",
            "KGS/KZT 2026-04-01 5.47 -0.04",
            "TJS/KZT 2026-04-01 50.19 -0.50",
            "UZS/KZT 2026-04-01 0.0393 -0.0002",
        ],
    );
    check("nbk/rates_all_2026-06-27_trimmed.xml", &["USD/KZT 2026-06-27 486.47 1.07"]);
    check(
        "nbt/export-2026-05-18.xml",
        &[
            "USD/TJS 2026-05-18 9.3450",
            "UZS/TJS 2026-05-18 0.000780",
            "KGS/TJS 2026-05-18 0.10686",
            "KZT/TJS 2026-05-18 0.01971",
            "TMT/TJS 2026-05-18 2.6700",
        ],
    );
    check(
        "cbu/json-all-2026-04-01.json",
        &[
            "USD/UZS 2026-04-01 12194.21 -16.5",
            "KGS/UZS 2026-04-01 139.40 -0.19",
            "KZT/UZS 2026-04-01 25.53 0.14",
            "TJS/UZS 2026-04-01 1272.88 -1.06",
            "TMT/UZS 2026-04-01 4037.68 108.25",
        ],
    );
    check(
        "cbt/21052026.xml",
        &[
            "USD/TMT 2026-05-21 3.5000",
            "KZT/TMT 2026-05-21 0.007426",
            "KGS/TMT 2026-05-21 0.040023",
            "UZS/TMT 2026-05-21 0.0002900",
            "TJS/TMT 2026-05-21 0.3788",
        ],
    );
}

/// `quotes.csv` was made from the same bodies by an independent program with a decimal type and other parsers.
#[test]
fn parsed_rates_equal_those_of_an_independent_program() {
    let csv = String::from_utf8(body("quotes.csv")).unwrap();
    let mut expected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut codes = CurrencySet::central_asia();
    for line in csv.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let code = Currency::parse(&fields[1][..3]);
        if let Ok(code) = code {
            codes = codes.with([code]);
            expected.entry(fields[0]).or_default().push(fields[1..].join(" ").trim_end().to_owned());
        }
    }
    let mut count = 0;
    for (feed, file, asked, entries) in BODIES {
        let rules = BankRules { served: &codes, minimum_places: None };
        let table = BankRequest::new(feed, day(asked)).read(&body(file), &rules).unwrap();
        assert_eq!(quotes(&table), expected[file], "{file}");
        assert_eq!(refused(&table), Vec::<String>::new(), "{file}");
        assert_eq!(table.quotes.len() + table.skipped_count, entries, "{file}");
        count += table.quotes.len();
    }
    // One row of the CSV has a currency that ISO 4217 has withdrawn.
    assert_eq!((count, csv.lines().count() - 1), (448, 449));
}

#[test]
fn url_is_base_and_path_of_the_feed() {
    let check = |feed: BankFeed, expect: &str| {
        let request = BankRequest::new(feed, day("2026-04-01"));
        assert_eq!(request.url(feed.base_url()), expect);
        let path = expect.strip_prefix(feed.base_url()).unwrap();
        assert_eq!(request.url("http://127.0.0.1:8080/x/"), format!("http://127.0.0.1:8080/x{path}"));
        assert_eq!(request.date(), feed.is_by_date().then_some(day("2026-04-01")));
    };
    check(BankFeed::NbkrDaily, "https://www.nbkr.kg/XML/daily.xml");
    check(BankFeed::NbkrWeekly, "https://www.nbkr.kg/XML/weekly.xml");
    check(BankFeed::NbkByDate, "https://nationalbank.kz/rss/get_rates.cfm?fdate=01.04.2026");
    check(BankFeed::NbkNewest, "https://nationalbank.kz/rss/rates_all.xml");
    check(BankFeed::Nbt, "https://www.nbt.tj/en/kurs/export_xml.php?date=2026-04-01&export=xmlout");
    check(BankFeed::Cbu, "https://cbu.uz/en/arkhiv-kursov-valyut/json/all/2026-04-01/");
    check(BankFeed::Cbt, "https://cbt.tm/kurs/2026/01042026.xml");
}

#[test]
fn feed_properties_are_valid() {
    for feed in BankFeed::ALL {
        assert!(Source::parse(feed.source_name()).is_ok(), "{feed:?}");
        assert!(CurrencySet::central_asia().parse(feed.profile().home).is_ok(), "{feed:?}");
        assert!(!feed.base_url().ends_with('/') && feed.base_url().starts_with("https://"), "{feed:?}");
        assert!([',', '.'].contains(&feed.profile().decimal_mark), "{feed:?}");
    }
}

#[test]
fn observed_time_is_start_of_day_in_the_banks_zone() {
    let check = |feed: BankFeed, date: &str, expect: &str| {
        assert_eq!(feed.zone().day_start(day(date)).to_string(), expect, "{feed:?} on {date}");
    };
    check(BankFeed::NbkrDaily, "2026-05-23", "2026-05-22T18:00:00Z");
    check(BankFeed::NbkByDate, "2024-02-29", "2024-02-28T18:00:00Z");
    check(BankFeed::NbkByDate, "2024-03-02", "2024-03-01T19:00:00Z");
    check(BankFeed::Nbt, "2026-05-18", "2026-05-17T19:00:00Z");
    check(BankFeed::Cbu, "2017-09-05", "2017-09-04T19:00:00Z");
    check(BankFeed::Cbt, "2026-05-20", "2026-05-19T19:00:00Z");

    let table = read(BankFeed::NbkrDaily, "2026-05-23", &body("nbkr/daily-2026-05-23.xml")).unwrap();
    let source = Source::parse("nbkr").unwrap();
    let ticks: Vec<String> = table
        .ticks(&source)
        .map(|tick| {
            format!("{} {} {} {:?}", tick.series, tick.observed_time, tick.value.rate, tick.value.reported_change)
        })
        .collect();
    assert_eq!(
        ticks,
        ["USD/KGS from nbkr 2026-05-22T18:00:00Z 87.4500 None", "KZT/KGS from nbkr 2026-05-22T18:00:00Z 0.1859 None"]
    );
}

#[test]
fn table_of_another_day_is_refused() {
    for (feed, file, asked, _) in BODIES {
        let other = day(asked).succ_opt().unwrap();
        let answer = BankRequest::new(feed, other)
            .read(&body(file), &BankRules { served: &CurrencySet::central_asia(), minimum_places: None });
        match answer {
            Ok(table) => {
                assert!(!feed.is_by_date(), "{file}");
                assert!(table.quotes.iter().all(|quote| quote.date == day(asked)), "{file}");
            }
            Err(error) => assert_eq!(error, BankError::OtherDate { asked: other, found: day(asked) }, "{file}"),
        }
    }
}

/// Asserts the quotes and refusals of a table with the given date and entries.
#[track_caller]
fn check_entries(feed: BankFeed, date: &str, entries: &str, expect: &[&str]) {
    let text = match feed {
        BankFeed::NbkrDaily | BankFeed::NbkrWeekly => {
            format!("<CurrencyRates Date=\"{date}\">{entries}</CurrencyRates>")
        }
        BankFeed::NbkByDate => format!("<rates><date>{date}</date>{entries}</rates>"),
        BankFeed::NbkNewest => format!("<rss><channel>{entries}</channel></rss>"),
        BankFeed::Nbt => format!("<ValCurs Date=\"{date}\">{entries}</ValCurs>"),
        BankFeed::Cbu => format!("[{entries}]"),
        BankFeed::Cbt => format!("<cbt_currency_rate><date>{date}</date>{entries}</cbt_currency_rate>"),
    };
    let answer = match read(feed, "2026-05-18", text.as_bytes()) {
        Ok(table) => [quotes(&table), refused(&table)].concat(),
        Err(error) => vec![error.to_string()],
    };
    assert_eq!(answer, expect, "{text}");
}

fn nbt(code: &str, nominal: &str, value: &str) -> String {
    format!("<Valute><CharCode>{code}</CharCode><Nominal>{nominal}</Nominal><Value>{value}</Value></Valute>")
}

#[test]
fn invalid_entry_does_not_affect_others() {
    let check = |bad: &str, expect: &str| {
        let entries = format!("{}{bad}{}", nbt("USD", "1", "9.3450"), nbt("KZT", "10", "0.1971"));
        let good = ["USD/TJS 2026-05-18 9.3450", "KZT/TJS 2026-05-18 0.01971"];
        let expect: Vec<&str> = good.into_iter().chain((!expect.is_empty()).then_some(expect)).collect();
        check_entries(BankFeed::Nbt, "2026-05-18", &entries, &expect);
    };
    check(&nbt("UZS", "100", "0"), "UZS: rate '0' is zero; a rate is positive");
    check(&nbt("UZS", "100", "-0.0780"), "UZS: rate '-0.0780' is negative; a rate is positive");
    check(
        &nbt("UZS", "100", "0,0780"),
        "UZS: rate '0,0780' is not written with the decimal mark '.' that this bank uses",
    );
    check(
        &nbt("UZS", "100", "1.234.5"),
        "UZS: rate '1.234.5' is not a plain decimal; write digits with at most one point, like 0.01144",
    );
    check(
        &nbt("UZS", "100", "1 234.5"),
        "UZS: rate '1 234.5' is not a plain decimal; write digits with at most one point, like 0.01144",
    );
    check(&nbt("UZS", "100", ""), "UZS: the rate is missing");
    check(&nbt("UZS", "100", "<b>1</b>2"), "UZS: the rate appears more than once, or is not plain text");
    check(
        &nbt("UZS", "100</Nominal><Nominal>10", "0.0780"),
        "UZS: the nominal appears more than once, or is not plain text",
    );
    check(&nbt("UZS", "50", "0.0780"), "UZS: nominal '50' is not one of 1, 10, 100 and so on up to 1,000,000,000");
    check(
        &nbt("UZS", "100", "0.12345678901234567"),
        "UZS: rate with mantissa 12345678901234567 and 19 decimal places has too many digits; at most 18 decimal places, 20 digits before the point and 28 digits in total are allowed",
    );
    check(
        &nbt("uzs", "100", "0.0780"),
        "uzs: currency 'uzs' is not a code of three upper-case letters; write one like KGS",
    );
    check(&nbt("TJS", "1", "1.0000"), "TJS: pair 'TJS/TJS' has the same currency twice");
    check("<Valute/>", ": the currency code is missing");
    // Entries for currencies that are not served or not in ISO 4217 are skipped without validation.
    check(&nbt("EUR", "x", "y"), "");
    check(&nbt("QQQ", "x", "y"), "");
    check("<Note>1</Note>", "");
}

#[test]
fn repeated_currency_must_have_equal_entries() {
    let check = |entries: [&str; 2], expect: &[&str]| {
        check_entries(BankFeed::Nbt, "2026-05-18", &entries.concat(), expect);
    };
    let usd = nbt("USD", "1", "9.3450");
    check([&usd, &usd], &["USD/TJS 2026-05-18 9.3450"]);
    check([&usd, &nbt("USD", "10", "93.450")], &["USD/TJS 2026-05-18 9.3450"]);
    check(
        [&usd, &nbt("USD", "10", "93.45")],
        &["USD: the table has different entries for USD/TJS: 9.3450 for 2026-05-18, 9.345 for 2026-05-18"],
    );
    check(
        [&usd, &nbt("USD", "1", "9.3451")],
        &["USD: the table has different entries for USD/TJS: 9.3450 for 2026-05-18, 9.3451 for 2026-05-18"],
    );
    check(
        [&nbt("USD", "1", "x"), &usd],
        &[
            "USD: the table has different entries for USD/TJS: rate 'x' is not a plain decimal; write digits with at most one point, like 0.01144, 9.3450 for 2026-05-18",
        ],
    );
}

#[test]
fn repeated_rate_with_another_difference_is_accepted_without_difference() {
    let usd = |rate: &str, difference: &str| {
        format!(
            r#"{{"id":1,"Code":"840","Ccy":"USD","Nominal":"1","Rate":"{rate}","Diff":"{difference}","Date":"01.04.2026"}}"#
        )
    };
    let table = |entries: [String; 2]| {
        let body = format!("[{}]", entries.join(","));
        let table = read(BankFeed::Cbu, "2026-04-01", body.as_bytes()).unwrap();
        (quotes(&table).join(" "), refused(&table).len())
    };
    let accepted = ("USD/UZS 2026-04-01 12194.21".to_owned(), 0);
    assert_eq!(table([usd("12194.21", "-16.5"), usd("12194.21", "3")]), accepted);
    assert_eq!(table([usd("12194.21", "-16.5"), usd("12194.22", "-16.5")]).1, 1);
}

#[test]
fn table_date_must_be_the_requested_date() {
    let usd = nbt("USD", "1", "9.3450");
    let check = |date: &str, expect: &str| check_entries(BankFeed::Nbt, date, &usd, &[expect]);
    check("2026-05-18", "USD/TJS 2026-05-18 9.3450");
    check(
        "2026-05-19",
        "the table is for 2026-05-19 instead of 2026-05-18: the bank has no table for the requested day",
    );
    check("18.05.2026", "the table's date '18.05.2026' is not valid in the date format of this bank");
    check(
        "",
        "field 'Date' of the table is empty, missing or repeated, so the date is unknown; report the table to the bank",
    );
    let twice = "<date>18.05.2026</date><item/>";
    check_entries(
        BankFeed::NbkByDate,
        "18.05.2026",
        twice,
        &[
            "field 'date' of the table is empty, missing or repeated, so the date is unknown; report the table to the bank",
        ],
    );
}

/// Applies to feeds where each entry has its own date.
#[test]
fn entry_of_another_day_does_not_affect_others() {
    let cbu = |code: &str, date: &str| {
        format!("{{\"Ccy\":\"{code}\",\"Nominal\":\"1\",\"Rate\":\"12.50\",\"Diff\":\"-0.1\",\"Date\":\"{date}\"}}")
    };
    let check = |entries: [String; 2], expect: &[&str]| {
        check_entries(BankFeed::Cbu, "", &entries.join(","), expect);
    };
    let usd = cbu("USD", "18.05.2026");
    let other = "the table is for 2026-05-12 instead of 2026-05-18: the bank has no table for the requested day";
    check([usd.clone(), cbu("EUR", "12.05.2026")], &["USD/UZS 2026-05-18 12.50 -0.1"]);
    check(
        [usd.clone(), cbu("KGS", "12.05.2026")],
        &["USD/UZS 2026-05-18 12.50 -0.1", "KGS: its date is 2026-05-12 instead of the requested 2026-05-18"],
    );
    check([cbu("USD", "12.05.2026"), cbu("KGS", "12.05.2026")], &[other]);
    check(
        [usd, cbu("KGS", "32.05.2026")],
        &["USD/UZS 2026-05-18 12.50 -0.1", "KGS: date '32.05.2026' is not valid in the date format of this bank"],
    );
    let item =
        "<item><title>USD</title><pubDate>26.06.03</pubDate><description>151</description><quant>1</quant></item>";
    check_entries(BankFeed::NbkNewest, "", item, &["USD/KZT 2003-06-26 151.00"]);
}

#[test]
fn dropped_zeros_are_restored_and_decimal_mark_is_checked() {
    let nbkr = |value: &str| format!("<Currency ISOCode='USD'><Nominal>1</Nominal><Value>{value}</Value></Currency>");
    let check = |value: &str, expect: &str| check_entries(BankFeed::NbkrDaily, "18.05.2026", &nbkr(value), &[expect]);
    check(" 87,4500\n", "USD/KGS 2026-05-18 87.4500");
    check("87", "USD/KGS 2026-05-18 87");
    check("87.4500", "USD: rate '87.4500' is not written with the decimal mark ',' that this bank uses");
    check("1.087,45", "USD: rate '1.087,45' is not written with the decimal mark ',' that this bank uses");

    let cbt = |multiplier: &str, rate: &str| {
        format!("<rate code='UZS'><multiplier>{multiplier}</multiplier><rate_tmt>{rate}</rate_tmt></rate>")
    };
    let check = |entry: String, expect: &str| check_entries(BankFeed::Cbt, "18.05.2026", &entry, &[expect]);
    check(cbt("1", "3.5"), "UZS/TMT 2026-05-18 3.5000");
    check(cbt("1", "3"), "UZS/TMT 2026-05-18 3.0000");
    check(cbt("1000", "0.29"), "UZS/TMT 2026-05-18 0.0002900");
    check(cbt("1000", "0.29135"), "UZS/TMT 2026-05-18 0.00029135");

    let rules = BankRules { served: &CurrencySet::central_asia(), minimum_places: Some(3) };
    let table = BankRequest::new(BankFeed::NbkByDate, day("2026-04-01")).read(&body(BODIES[3].1), &rules).unwrap();
    assert_eq!(quotes(&table)[0], "USD/KZT 2026-04-01 478.770 -2.77");
}

#[test]
fn quote_with_invalid_difference_is_accepted() {
    let check = |change: &str, expect: &str, unreadable: usize| {
        let text = format!(
            "<rates><date>18.05.2026</date><item><title>UZS</title><description>3.9</description><quant>100</quant>\
             {change}</item></rates>"
        );
        let table = read(BankFeed::NbkByDate, "2026-05-18", text.as_bytes()).unwrap();
        assert_eq!(
            (quotes(&table), table.unreadable_difference_count),
            (vec![expect.to_owned()], unreadable),
            "{change}"
        );
    };
    check("<change>+0.20</change>", "UZS/KZT 2026-05-18 0.0390 0.0020", 0);
    check("<change></change>", "UZS/KZT 2026-05-18 0.0390", 0);
    check("", "UZS/KZT 2026-05-18 0.0390", 0);
    check("<change>n/a</change>", "UZS/KZT 2026-05-18 0.0390", 1);
    check("<change>1</change><change>1</change>", "UZS/KZT 2026-05-18 0.0390", 1);
}

#[test]
fn table_without_served_home_currency_has_no_quotes() {
    let served = CurrencySet::new(vec![Currency::USD]);
    let rules = BankRules { served: &served, minimum_places: None };
    let (feed, file, asked, entries) = BODIES[0];
    let table = BankRequest::new(feed, day(asked)).read(&body(file), &rules).unwrap();
    assert_eq!((table.quotes.len(), table.skipped_count), (0, entries));
}
