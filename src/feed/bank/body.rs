//! Decoding of a body to text: size limit, encoding, and a check of the first characters.
//!
//! **Invariant**: a body is decoded completely or refused. Invalid bytes are never replaced by a replacement character.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use quick_xml::Reader;
use quick_xml::events::Event;

use super::error::BankError;
use crate::domain::truncate_for_display;

/// Longest body accepted, in bytes. The largest known table has 26 KB.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes at the start of a body within which its XML declaration must end.
const DECLARATION_BYTES_MAX: usize = 256;

/// Decodes a body to text and removes a byte order mark.
///
/// A byte order mark takes precedence over a declaration, because a declaration is often not updated when a file is
/// converted. A body that has neither is UTF-8. The HTTP headers are not used, because the servers of banks send the
/// encoding of their default configuration.
pub(super) fn decode(body: &[u8]) -> Result<Cow<'_, str>, BankError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(BankError::TooLarge { found_bytes: body.len(), max_bytes: BODY_BYTES_MAX });
    }
    let (encoding, bytes) = match Encoding::for_bom(body) {
        Some((encoding, bom_bytes)) => (encoding, body.get(bom_bytes..).unwrap_or_default()),
        None => (declared_encoding(body)?, body),
    };
    let text = encoding.decode_without_bom_handling_and_without_replacement(bytes);
    let text = text.ok_or(BankError::NotInEncoding { encoding: encoding.name() })?;
    if text.trim().is_empty() { Err(BankError::Empty) } else { Ok(text) }
}

/// Returns the encoding that the XML declaration names, or UTF-8 if there is no declaration.
fn declared_encoding(body: &[u8]) -> Result<&'static Encoding, BankError> {
    let head = body.get(..DECLARATION_BYTES_MAX).unwrap_or(body).trim_ascii_start();
    let end = head.windows(2).position(|bytes| bytes == b"?>").map_or(0, |at| at + 2);
    let Ok(declaration) = str::from_utf8(head.get(..end).unwrap_or_default()) else { return Ok(UTF_8) };
    let Ok(Event::Decl(declaration)) = Reader::from_str(declaration).read_event() else { return Ok(UTF_8) };
    let Some(Ok(label)) = declaration.encoding() else { return Ok(UTF_8) };
    let encoding = Encoding::for_label(label.as_bytes())
        .ok_or_else(|| BankError::UnknownEncoding(truncate_for_display(&label)))?;
    // The declaration was just parsed as ASCII, so the body is not UTF-16.
    if encoding == UTF_16LE || encoding == UTF_16BE {
        return Err(BankError::NotInEncoding { encoding: encoding.name() });
    }
    Ok(encoding)
}

/// Refuses a body that does not begin with the character `first`. Such a body is an error page with status 200, or an
/// error message in another format. Returns the text without leading white space.
pub(super) fn check_start<'a>(text: &'a str, first: char, expected: &'static str) -> Result<&'a str, BankError> {
    let text = text.trim_start();
    let begins_with = |tag: &str| text.get(..tag.len()).is_some_and(|head| head.eq_ignore_ascii_case(tag));
    if begins_with("<!doctype html") || begins_with("<html") {
        return Err(BankError::WebPage(truncate_for_display(text)));
    }
    if !text.starts_with(first) {
        return Err(BankError::NotThisFormat { expected, found: truncate_for_display(text) });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &[u8], expect: Result<&str, &str>) {
        match (decode(body), expect) {
            (Ok(text), Ok(expect)) => assert_eq!(text, expect),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (answer, _) => panic!("{answer:?}"),
        }
    }

    #[test]
    fn byte_order_mark_precedes_declaration_and_utf8_is_default() {
        let utf16 = |text: &str, mark: u16, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            std::iter::once(mark).chain(text.encode_utf16()).flat_map(bytes).collect()
        };
        check("<r>сом</r>".as_bytes(), Ok("<r>сом</r>"));
        check("\u{feff}<r>сом</r>".as_bytes(), Ok("<r>сом</r>"));
        check(&utf16("<r>сом</r>", 0xfeff, u16::to_le_bytes), Ok("<r>сом</r>"));
        check(&utf16("<r>сом</r>", 0xfeff, u16::to_be_bytes), Ok("<r>сом</r>"));
        // A file that was converted to UTF-8 without an update of its declaration.
        let outdated = "<?xml version=\"1.0\" encoding=\"windows-1251\"?><r>сом</r>";
        check(format!("\u{feff}{outdated}").as_bytes(), Ok(outdated));
        let mut cyrillic = b"\n<?xml version='1.0' encoding='Windows-1251'?><r>".to_vec();
        cyrillic.extend([0xf1, 0xee, 0xec]);
        check(&cyrillic, Ok("\n<?xml version='1.0' encoding='Windows-1251'?><r>сом"));
    }

    #[test]
    fn undecodable_body_is_refused() {
        check(b"", Err("is empty"));
        check(b" \r\n\t", Err("is empty"));
        check(b"\xef\xbb\xbf", Err("is empty"));
        check(&vec![b'<'; BODY_BYTES_MAX + 1], Err("1048577 bytes; at most 1048576"));
        check(b"<r>\xf1\xee\xec</r>", Err("not valid UTF-8, its declared or default encoding"));
        check(b"<?xml version='1.0' encoding='utf-8'?><r>\xf1\xee</r>", Err("not valid UTF-8"));
        check(&"<r>с".as_bytes()[..4], Err("not valid UTF-8"));
        check(b"<?xml version='1.0' encoding='utf-16'?><r/>", Err("not valid UTF-16LE"));
        check(b"<?xml version='1.0' encoding='koi-7'?><r/>", Err("the declared encoding 'koi-7' is not known"));
        check(b"\xff\xfe<", Err("not valid UTF-16LE"));
    }

    #[test]
    fn web_page_and_other_formats_are_refused() {
        let check = |text: &str, expect: &str| {
            let answer = check_start(text, '<', "XML").map_or_else(|error| error.to_string(), str::to_owned);
            assert!(answer.contains(expect), "{text}: {answer}");
        };
        check("\n <rates/>", "<rates/>");
        check("<!DOCTYPE HTML PUBLIC \"-//IETF//DTD HTML 2.0//EN\">", "answered with a web page");
        check("<HTML><head><title>502", "answered with a web page, '<HTML><head><title>502'");
        check("{\"code\":500,\"message\":\"no\"}", "'{\\\"code\\\":500,\\\"message\\\":\\\"no\\\"}' instead of XML");
        check("Service Unavailable", "'Service Unavailable' instead of XML");
    }
}
