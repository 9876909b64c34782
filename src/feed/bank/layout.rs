//! Where a bank's XML keeps what.
//!
//! **Invariant**: elements that a layout does not name are passed over, so that a bank may add some; one that it names
//! is read only if it is there once and holds nothing but text.

use super::body::check_start;
use super::error::BankError;
use super::table::{Field, RawEntry, RawTable};
use super::xml::{Element, parse};

/// The names of a bank's elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub(super) root: &'static str,
    /// From the root to the element that holds the entries; empty where the root does.
    pub(super) holders: &'static [&'static str],
    pub(super) entry: &'static str,
    pub(super) code: Place,
    pub(super) nominal: &'static str,
    pub(super) rate: &'static str,
    pub(super) difference: Option<&'static str>,
    pub(super) date: DatePlace,
}

/// An attribute, or a child that holds text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Attribute(&'static str),
    Child(&'static str),
}

/// Whose date it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DatePlace {
    /// The root's, for all entries.
    Root(Place),
    /// Each entry's own, a child.
    Entry(&'static str),
}

impl Place {
    const fn name(self) -> &'static str {
        match self {
            Self::Attribute(name) | Self::Child(name) => name,
        }
    }

    fn of(self, element: &Element) -> Field {
        match self {
            Self::Attribute(name) => {
                let attribute = element.attributes.iter().find(|(key, _)| key == name);
                attribute.map_or(Field::Absent, |(_, value)| Field::text(value))
            }
            Self::Child(name) => child(element, name),
        }
    }
}

/// The text of the one child of this name.
fn child(element: &Element, name: &str) -> Field {
    let mut field = Field::Absent;
    for child in element.children(name) {
        field.add(if child.children.is_empty() { Field::text(&child.text) } else { Field::NotText });
    }
    field
}

impl Layout {
    /// Reads the fields of a table.
    pub(super) fn read(&self, text: &str) -> Result<RawTable, BankError> {
        let root = parse(check_start(text, '<', "a table in XML")?, self.root)?;
        let mut holders = vec![&root];
        for name in self.holders {
            holders = holders.into_iter().flat_map(|holder| holder.children(name)).collect();
        }
        let entries = holders.into_iter().flat_map(|holder| holder.children(self.entry));
        let entries = entries.map(|entry| self.entry_fields(entry)).collect();
        let date = match self.date {
            DatePlace::Root(place) => Some((place.name(), place.of(&root))),
            DatePlace::Entry(_) => None,
        };
        Ok(RawTable { date, entries })
    }

    fn entry_fields(&self, entry: &Element) -> RawEntry {
        RawEntry {
            code: self.code.of(entry),
            nominal: child(entry, self.nominal),
            rate: child(entry, self.rate),
            difference: self.difference.map_or(Field::Absent, |name| child(entry, name)),
            date: match self.date {
                DatePlace::Root(_) => Field::Absent,
                DatePlace::Entry(name) => child(entry, name),
            },
        }
    }
}
