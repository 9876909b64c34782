//! Bodies cut, mutated and swapped: no panic, and no quote that a whole body does not have.

use std::cell::Cell;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::feed::mutation::{mutated, mutations, runner};

#[test]
fn no_cut_gives_a_quote_that_the_whole_does_not_have() {
    for (feed, file, asked, _) in BODIES {
        let whole = body(file);
        let table = read(feed, asked, &whole).expect("a whole body");
        // All cuts of the small ones; of each 31st byte else, besides those of each 100th.
        let step = if whole.len() < 3_000 { 1 } else { 31 };
        for end in (0..whole.len()).filter(|end| end % step == 0 || end % 100 == 0) {
            match read(feed, asked, &whole[..end]) {
                // Only what stands behind the table was cut off.
                Ok(cut) => {
                    assert_eq!(cut, table, "{file} cut at {end}");
                    assert!(whole[end..].trim_ascii().is_empty(), "{file} cut at {end}");
                }
                Err(BankError::Empty | BankError::Truncated { .. } | BankError::NotInEncoding { .. }) => {}
                Err(error) => panic!("{file} cut at {end}: {error}"),
            }
        }
    }
}

/// What holds of every table, whatever it was read from.
fn check_table(table: &BankTable, feed: BankFeed, asked: &str, body: &[u8]) {
    let text = body::decode(body).expect("a table has a text");
    let mut pairs: Vec<_> = table.quotes.iter().map(|quote| quote.pair).collect();
    pairs.sort_unstable();
    pairs.dedup();
    assert_eq!(pairs.len(), table.quotes.len(), "a pair twice");
    assert!(table.quotes.len() + table.refused.len() + table.passed_over_count <= table.entry_count);
    for quote in &table.quotes {
        assert_eq!(quote.pair.quote().code(), feed.profile().home);
        assert_eq!(quote.observed_time, feed.zone().day_start(quote.date));
        assert!(!feed.is_by_date() || quote.date == day(asked), "{quote:?}");
        assert!(quote.rate.mantissa() > 0 && quote.rate.places() >= feed.minimum_places(), "{quote:?}");
        // References and escapes can write a digit in other ways.
        if !text.contains("&#") && !text.contains("\\u") && !text.contains("<!") {
            let digits = quote.rate.mantissa().to_string();
            let plain: String = text.chars().filter(|c| !matches!(c, '.' | ',')).collect();
            assert!(plain.contains(digits.trim_end_matches('0')), "{quote:?} is not in the body");
        }
    }
}

#[test]
fn mutated_bodies_give_sound_quotes_or_none() {
    for (feed, file, asked, _) in BODIES {
        let whole = body(file);
        let tables = Cell::new(0);
        let outcome = runner().run(&mutations(), |mutations| {
            let mutated = mutated(&whole, &mutations);
            // An answer of one bank read as another's, too.
            for other in BankFeed::ALL {
                if let Ok(table) = read(other, asked, &mutated) {
                    prop_assert!(other.source_name() == feed.source_name(), "{other:?} read {file}");
                    check_table(&table, other, asked, &mutated);
                    tables.set(tables.get() + 1);
                }
            }
            Ok(())
        });
        assert!(outcome.is_ok(), "{file}: {outcome:?}");
        // Or the mutations were so many that nothing was shown.
        assert!(tables.get() > 0, "{file}: every mutated body was refused");
    }
}

#[test]
fn any_bytes_are_refused() {
    let outcome = runner().run(&prop::collection::vec(any::<u8>(), 0..400), |bytes| {
        for feed in BankFeed::ALL {
            prop_assert!(read(feed, "2026-05-18", &bytes).is_err());
        }
        Ok(())
    });
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// Error pages with status 200, bodies of another kind, and 100 MB, for every feed.
#[test]
fn what_banks_and_their_proxies_send_instead() {
    let huge = vec![b' '; 100_000_000];
    let bodies: [(&[u8], &str); 10] = [
        (b"", "the body is empty"),
        (b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head></html>", "answered with a web page"),
        (b"\xef\xbb\xbf<html lang=\"ru\"><body>Maintenance", "answered with a web page"),
        (b"<div>Service Unavailable</div>", "was expected; check the URL"),
        (b"Forbidden", "the bank answered with 'Forbidden', and"),
        (
            b"{\"code\":500,\"message\":\"Invalid format date.\"}",
            "{\\\"code\\\":500,\\\"message\\\":\\\"Invalid format date",
        ),
        (b"\x1f\x8b\x08\x00", "not in UTF-8"),
        (b"\x00\x00\x00", "was expected; check the URL"),
        (b"null", "the bank answered with 'null', and"),
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

/// A table in every encoding that its declaration may name, with a mark and without.
#[test]
fn encodings_of_a_whole_table() {
    let (feed, file, asked, _) = BODIES[0];
    let text = String::from_utf8(body(file)).expect("ASCII");
    let expect = read(feed, asked, text.as_bytes()).expect("a table");
    let utf16: Vec<u8> = std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let same: [Vec<u8>; 6] = [
        text.replace("windows-1251", "utf-8").into_bytes(),
        text.replace("windows-1251", "KOI8-R").into_bytes(),
        text.replace(" encoding=\"windows-1251\"", "").into_bytes(),
        text.replace('\n', "\r\n").into_bytes(),
        format!("\u{feff}{text}").into_bytes(),
        utf16,
    ];
    for body in same {
        assert_eq!(read(feed, asked, &body).as_ref(), Ok(&expect));
    }
    let mut other = text.replace("windows-1251", "utf-8").into_bytes();
    other.splice(60..60, *b"<!-- \xf1\xee\xec -->");
    assert_eq!(read(feed, asked, &other), Err(BankError::NotInEncoding { encoding: "UTF-8" }));
}

/// As long as the limit lets a body be, of the kinds that cost a careless reader the square of their length or more.
#[test]
fn the_longest_bodies_take_a_moment() {
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
            // A square would take minutes; a loaded machine takes a few of a second.
            assert!(start.elapsed() < Duration::from_secs(20), "{feed:?}: {}", &body[..40]);
            assert!(!answer.is_ok_and(|table| !table.quotes.is_empty()));
        }
    }
}
