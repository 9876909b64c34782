//! Names of the objects of backups.
//!
//! | name | object |
//! |---|---|
//! | `manifests/SEQUENCE-STORE.json` | a manifest |
//! | `records/STORE/SEQUENCE-HASH.zst` | the records of a backup |
//! | `packs/STORE/FIRST-END-HASH.pack` | blocks with ids from FIRST up to, not including, END |
//! | `log/STORE/FIRST-LAST-HASH.log` | the frames of the commits FIRST to LAST |
//!
//! STORE is the store id, 16 hexadecimal digits. Numbers have 20 digits, so names sort by number. HASH is the beginning of
//! the SHA-256 of the content: writing an object again writes the same bytes.
//!
//! **Invariant**: only a name of this form is parsed, and only such names are written.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::domain::Timestamp;

/// Digits of a hash in a name.
const HASH_DIGITS: usize = 16;
const NUMBER_DIGITS: usize = 20;

/// The random id of a store. It is displayed as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StoreId(pub u64);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for StoreId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_id = text.len() == HASH_DIGITS && text.bytes().all(is_hex);
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_id);
        number.map(Self).ok_or("a store id has 16 hexadecimal digits; silkrate backup list shows it")
    }
}

impl Serialize for StoreId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StoreId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// An object in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) modified: Timestamp,
}

/// The name of an object, parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ObjectName<'a> {
    Manifest { sequence: u64, store: StoreId },
    Records,
    Pack,
    Log { first: u64, last: u64, store: StoreId, hash: &'a str },
}

/// The folders of all objects.
pub(super) const MANIFESTS: &str = "manifests";
pub(super) const RECORDS: &str = "records";
pub(super) const PACKS: &str = "packs";
pub(super) const LOG: &str = "log";

pub(super) fn manifest(sequence: u64, store: StoreId) -> String {
    format!("{MANIFESTS}/{sequence:020}-{store}.json")
}

pub(super) fn records(sequence: u64, store: StoreId, sha256: &str) -> String {
    format!("{RECORDS}/{store}/{sequence:020}-{}.zst", short(sha256))
}

pub(super) fn pack(first: u64, end: u64, store: StoreId, sha256: &str) -> String {
    format!("{PACKS}/{store}/{first:020}-{end:020}-{}.pack", short(sha256))
}

pub(super) fn log(first: u64, last: u64, store: StoreId, sha256: &str) -> String {
    format!("{LOG}/{store}/{first:020}-{last:020}-{}.log", short(sha256))
}

/// The part of a hash that names contain.
pub(super) fn short(sha256: &str) -> &str {
    sha256.get(..HASH_DIGITS).unwrap_or(sha256)
}

/// Parses the name of an object; `None` if no backup writes such a name.
pub(super) fn parse(name: &str) -> Option<ObjectName<'_>> {
    let mut parts = name.split('/');
    let folder = parts.next()?;
    if folder == MANIFESTS {
        let (sequence, store) = parts.next()?.strip_suffix(".json")?.split_once('-')?;
        let name = ObjectName::Manifest { sequence: number(sequence)?, store: store.parse().ok()? };
        return parts.next().is_none().then_some(name);
    }
    let store: StoreId = parts.next()?.parse().ok()?;
    let (stem, ending) = parts.next()?.rsplit_once('.')?;
    let mut fields = stem.split('-');
    let first = number(fields.next()?)?;
    let last = if folder == RECORDS { first } else { number(fields.next()?)? };
    let hash = fields.next().filter(|hash| hash.len() == HASH_DIGITS && hash.bytes().all(is_hex))?;
    if fields.next().is_some() || parts.next().is_some() {
        return None;
    }
    match (folder, ending) {
        (RECORDS, "zst") => Some(ObjectName::Records),
        (PACKS, "pack") => Some(ObjectName::Pack),
        (LOG, "log") => Some(ObjectName::Log { first, last, store, hash }),
        _ => None,
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

fn number(text: &str) -> Option<u64> {
    (text.len() == NUMBER_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_backups_are_parsed() {
        let (store, hash) = (StoreId(0xab), "0123456789abcdef0123");
        let short = "0123456789abcdef";
        assert_eq!(parse(&manifest(7, store)), Some(ObjectName::Manifest { sequence: 7, store }));
        assert_eq!(parse(&records(7, store, hash)), Some(ObjectName::Records));
        assert_eq!(parse(&pack(7, 9, store, hash)), Some(ObjectName::Pack));
        assert_eq!(parse(&log(7, 9, store, hash)), Some(ObjectName::Log { first: 7, last: 9, store, hash: short }));
        for other in [
            "",
            "manifests/7-00000000000000ab.json",
            "manifests/00000000000000000007-00000000000000ab.json/x",
            "manifests/00000000000000000007-00000000000000AB.json",
            "manifests/00000000000000000007-00000000000000ab.txt",
            "packs/00000000000000ab/00000000000000000007-00000000000000000009-0123456789abcdef.zst",
            "packs/00000000000000ab/00000000000000000007-0123456789abcdef.pack",
            "records/00000000000000ab/00000000000000000007-0123456789abcdef-1.zst",
            "log/x/00000000000000000007-00000000000000000009-0123456789abcdef.log",
            "notes.txt",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
