//! Truncated and mutated bodies, and bodies of another bank: the parser does not panic and invents no quotes.

use std::cell::Cell;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::feed::mutation::{mutated, mutations, runner};

#[test]
fn truncated_body_gives_no_table() {
    for (feed, file, asked, _) in BODIES {
        let whole = body(file);
        let table = read(feed, asked, &whole).expect("a complete body");
        // Small bodies are truncated at every byte, others at every 31st and every 100th byte.
        let step = if whole.len() < 3_000 { 1 } else { 31 };
        for end in (0..whole.len()).filter(|end| end % step == 0 || end % 100 == 0) {
            match read(feed, asked, &whole[..end]) {
                // Only white space after the table is missing.
                Ok(truncated) => {
                    assert_eq!(truncated, table, "{file} truncated at {end}");
                    assert!(whole[end..].trim_ascii().is_empty(), "{file} truncated at {end}");
                }
                Err(BankError::Empty | BankError::Truncated { .. } | BankError::NotInEncoding { .. }) => {}
                Err(error) => panic!("{file} truncated at {end}: {error}"),
            }
        }
    }
}

/// Asserts the invariants of an accepted table.
fn check_table(table: &BankTable, feed: BankFeed, asked: &str, body: &[u8]) {
    let text = body::decode(body).expect("an accepted table is text");
    let mut pairs: Vec<_> = table.quotes.iter().map(|quote| quote.pair).collect();
    pairs.sort_unstable();
    pairs.dedup();
    assert_eq!(pairs.len(), table.quotes.len(), "a pair has two quotes");
    assert!(table.quotes.len() + table.refused.len() + table.skipped_count <= table.entry_count);
    for quote in &table.quotes {
        assert_eq!(quote.pair.quote().code(), feed.profile().home);
        assert_eq!(quote.observed_time, feed.zone().day_start(quote.date));
        assert!(!feed.is_by_date() || quote.date == day(asked), "{quote:?}");
        assert!(quote.rate.mantissa() > 0 && quote.rate.places() >= feed.minimum_places(), "{quote:?}");
        // Character references and escapes can encode digits.
        if !text.contains("&#") && !text.contains("\\u") && !text.contains("<!") {
            let digits = quote.rate.mantissa().to_string();
            let plain: String = text.chars().filter(|c| !matches!(c, '.' | ',')).collect();
            assert!(plain.contains(digits.trim_end_matches('0')), "{quote:?} is not in the body");
        }
    }
}

#[test]
fn mutated_body_gives_only_digits_of_the_body() {
    for (feed, file, asked, _) in BODIES {
        let whole = body(file);
        let tables = Cell::new(0);
        let outcome = runner().run(&mutations(), |mutations| {
            let mutated = mutated(&whole, &mutations);
            // The body of one bank is also parsed as a table of every other bank.
            for other in BankFeed::ALL {
                if let Ok(table) = read(other, asked, &mutated) {
                    prop_assert!(other.source_name() == feed.source_name(), "{other:?} accepted {file}");
                    check_table(&table, other, asked, &mutated);
                    tables.set(tables.get() + 1);
                }
            }
            Ok(())
        });
        assert!(outcome.is_ok(), "{file}: {outcome:?}");
        // If every mutated body were refused, the test would check nothing.
        assert!(tables.get() > 0, "{file}: every mutated body was refused");
    }
}

#[test]
fn random_bytes_are_refused() {
    let outcome = runner().run(&prop::collection::vec(any::<u8>(), 0..400), |bytes| {
        for feed in BankFeed::ALL {
            prop_assert!(read(feed, "2026-05-18", &bytes).is_err());
        }
        Ok(())
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// Error pages with status 200, bodies in other formats, and a body of 100 MB. Each is parsed for every feed.
#[test]
fn body_in_another_format_is_refused() {
    let huge = vec![b' '; 100_000_000];
    let bodies: [(&[u8], &str); 10] = [
        (b"", "the body is empty"),
        (b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head></html>", "answered with a web page"),
        (b"\xef\xbb\xbf<html lang=\"ru\"><body>Maintenance", "answered with a web page"),
        (b"<div>Service Unavailable</div>", " instead of "),
        (b"Forbidden", "the bank answered with 'Forbidden' instead of"),
        (
            b"{\"code\":500,\"message\":\"Invalid format date.\"}",
            "{\\\"code\\\":500,\\\"message\\\":\\\"Invalid format date",
        ),
        (b"\x1f\x8b\x08\x00", "not valid UTF-8"),
        (b"\x00\x00\x00", " instead of "),
        (b"null", "the bank answered with 'null' instead of"),
        (&huge, "the body has 100000000 bytes; at most 1048576 are read"),
    ];
    for (body, expect) in bodies {
        for feed in BankFeed::ALL {
            let error = read(feed, "2026-05-18", body).expect_err("no table").to_string();
            assert!(error.contains(expect), "{feed:?}: {error}");
        }
    }
    let nbk = body("nbk/get_rates_bad_or_missing_fdate_error_body.json");
    let error = read(BankFeed::NbkByDate, "2026-05-18", &nbk).expect_err("an error body").to_string();
    assert!(error.starts_with("the bank answered with '{\\\"code\\\":500"), "{error}");
}

/// Encodings with and without a declaration, and with and without a byte order mark.
#[test]
fn encoding_does_not_change_the_table() {
    let (feed, file, asked, _) = BODIES[0];
    let text = String::from_utf8(body(file)).expect("ASCII");
    let expect = read(feed, asked, text.as_bytes()).expect("a table");
    let utf16: Vec<u8> = std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let encoded: [Vec<u8>; 6] = [
        text.replace("windows-1251", "utf-8").into_bytes(),
        text.replace("windows-1251", "KOI8-R").into_bytes(),
        text.replace(" encoding=\"windows-1251\"", "").into_bytes(),
        text.replace('\n', "\r\n").into_bytes(),
        format!("\u{feff}{text}").into_bytes(),
        utf16,
    ];
    for body in encoded {
        assert_eq!(read(feed, asked, &body).as_ref(), Ok(&expect));
    }
    let mut other = text.replace("windows-1251", "utf-8").into_bytes();
    other.splice(60..60, *b"<!-- \xf1\xee\xec -->");
    assert_eq!(read(feed, asked, &other), Err(BankError::NotInEncoding { encoding: "UTF-8" }));
}

/// The bodies have nearly the largest allowed length, and cause quadratic time or more in a naive parser.
#[test]
fn longest_hostile_bodies_take_linear_time() {
    let size = body::BODY_BYTES_MAX - 200;
    let fill = |head: &str, unit: &str, tail: &str| format!("{head}{}{tail}", unit.repeat(size / unit.len()));
    let bodies = [
        fill("<rates>", "<item>", ""),
        fill("<rates>", "<item/>", "</rates>"),
        fill("<rates ", "a='1' ", "/>"),
        fill("<rates><date>", "1", "</date><item/></rates>"),
        fill("<rates><date>", "<!---->", "</date><item/></rates>"),
        fill("<rates><date>", "&#49;", "</date><item/></rates>"),
        fill("<rates><date>", "<![CDATA[", "</date><item/></rates>"),
        fill("<rates>", "<", ""),
        fill("<rates>", "&", ""),
        fill("<!DOCTYPE rates [", "<!ENTITY a 'b'>", "]><rates/>"),
        fill("[", "[", ""),
        fill("[", "{},", "{}]"),
        fill("[{\"Rate\":\"", "1", "\"}]"),
        fill("[{", "\"Rate\":\"1\",", "\"Rate\":\"1\"}]"),
    ];
    for body in bodies {
        for feed in [BankFeed::NbkByDate, BankFeed::Cbu] {
            let start = Instant::now();
            let answer = read(feed, "2026-05-18", body.as_bytes());
            // Quadratic time would be minutes. Linear time is well below a second, or a few seconds on a loaded
            // machine.
            assert!(start.elapsed() < Duration::from_secs(20), "{feed:?}: {}", &body[..40]);
            assert!(!answer.is_ok_and(|table| !table.quotes.is_empty()));
        }
    }
}
