//! Parser of a table in JSON: an array of objects with string values.
//!
//! **Invariant**: only strings are accepted as values. A JSON number is refused, because a program may have converted
//! the number to a float before it sent the body. A nominal is an exception if it is a whole number. A value of another type, or a repeated key, makes only its own entry
//! invalid.
//! Parsed values may be nested up to 128 levels deep, the limit of `serde_json`. Skipped values use no stack.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;

use super::body::check_start;
use super::error::BankError;
use super::table::{ENTRIES_MAX, Field, RawEntry, RawTable};

/// Parses the fields of a table. Its entries are objects with `Ccy`, `Nominal`, `Rate`, `Diff` and `Date`.
pub(super) fn read(text: &str) -> Result<RawTable, BankError> {
    let text = check_start(text, '[', "an array in JSON")?;
    let Entries(entries) = serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Eof => BankError::Truncated { within: "the array".to_owned() },
        Category::Syntax | Category::Data | Category::Io => malformed(text, &error),
    })?;
    Ok(RawTable { date: None, entries })
}

/// Converts an error of `serde_json`: its line (from 1) and column (bytes read of that line) become a byte offset.
fn malformed(text: &str, error: &serde_json::Error) -> BankError {
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let problem = error.to_string();
    let problem = problem.rsplit_once(" at line ").map_or(problem.as_str(), |(problem, _)| problem);
    BankError::Malformed { offset: before + error.column(), problem: problem.to_owned() }
}

struct Entries(Vec<RawEntry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;
        impl<'de> Visitor<'de> for Array {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                // One entry more than the limit is enough to detect that the table is too long.
                while entries.len() <= ENTRIES_MAX {
                    let Some(Entry(entry)) = array.next_element()? else { return Ok(Entries(entries)) };
                    entries.push(entry);
                }
                while array.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_seq(Array)
    }
}

struct Entry(RawEntry);

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Entry, A::Error> {
                let mut entry = RawEntry::default();
                while let Some(key) = object.next_key::<String>()? {
                    let field = match key.as_str() {
                        "Ccy" => &mut entry.code,
                        "Nominal" => &mut entry.nominal,
                        "Rate" => &mut entry.rate,
                        "Diff" => &mut entry.difference,
                        "Date" => &mut entry.date,
                        _ => {
                            object.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    field.add(match object.next_value()? {
                        Value::Text(text) => Field::text(&text),
                        Value::Whole(number) if key == "Nominal" => Field::text(&number.to_string()),
                        Value::Whole(_) | Value::Other(IgnoredAny) => Field::NotText,
                    });
                }
                Ok(Entry(entry))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Whole(u64),
    Other(IgnoredAny),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::truncate_for_display;

    #[test]
    fn field_must_be_one_string() {
        let check = |text: &str, expect: Field| {
            let table = read(&format!("[{{\"id\":[{{}}],\"Rate\":{text}}}]")).unwrap();
            assert_eq!(table.entries, [RawEntry { rate: expect, ..RawEntry::default() }], "{text}");
        };
        check("\" 12194.21 \"", Field::Text("12194.21".to_owned()));
        check("\"\\u0031\"", Field::Text("1".to_owned()));
        for bad in ["12194.21", "null", "true", "[\"1\"]", "{\"a\":1}", "\"1\",\"Rate\":\"1\""] {
            check(bad, Field::NotText);
        }
    }

    #[test]
    fn nominal_may_be_a_whole_number() {
        let check = |text: &str, expect: Field| {
            let table = read(&format!("[{{\"Nominal\":{text}}}]")).unwrap();
            assert_eq!(table.entries, [RawEntry { nominal: expect, ..RawEntry::default() }], "{text}");
        };
        check("\"10\"", Field::Text("10".to_owned()));
        check("10", Field::Text("10".to_owned()));
        for bad in ["1.0", "1e3", "-1", "null", "[1]"] {
            check(bad, Field::NotText);
        }
    }

    #[test]
    fn malformed_table_is_refused() {
        let check = |text: &str, expect: &str| {
            let answer = read(text).map_or_else(|error| error.to_string(), |table| table.entries.len().to_string());
            assert!(answer.contains(expect), "{}: {answer}", truncate_for_display(text));
        };
        check("[]", "0");
        check("[{\"Rate\":\"1", "ends within the array");
        check("{\"code\":500}", "instead of an array in JSON");
        check("<!DOCTYPE html><html>", "answered with a web page");
        check("<rates/>", "instead of an array in JSON");
        check("[[\"1\"]]", "malformed at byte 1 of its text: invalid type: sequence, expected an object");
        check("[\n{} 7]", "of its text: expected `,` or `]`");
        check("[\n7]", "of its text: invalid type: integer");
        check("[] []", "of its text: trailing characters");
        check(&format!("[{{\"Rate\":{}", "[".repeat(9_999)), "recursion limit exceeded");
        // Skipped values need no stack.
        check(&format!("[{{\"a\":{}", "[".repeat(9_999)), "ends within the array");
        check(&format!("[{{}}{}]", ",{}".repeat(9_999)), "1001");
    }
}
