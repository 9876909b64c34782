//! Layout of a bank's XML: which elements and attributes hold the fields of a table.
//!
//! **Invariant**: the parser skips elements that the layout does not name, so that a bank may add elements. A named
//! element is valid only if it appears once and holds only text.

use super::body::check_start;
use super::error::BankError;
use super::table::{Field, RawEntry, RawTable};
use super::xml::{Element, parse};

/// The names of a bank's XML elements and attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub(super) root: &'static str,
    /// Path from the root to the element that contains the entries; empty if the root contains them.
    pub(super) containers: &'static [&'static str],
    pub(super) entry: &'static str,
    pub(super) code: Location,
    pub(super) nominal: &'static str,
    pub(super) rate: &'static str,
    pub(super) difference: Option<&'static str>,
    /// The number of days for which a rate is valid.
    pub(super) valid_for: Option<&'static str>,
    pub(super) date: DateLocation,
}

/// Location of a field: an attribute of an element, or a child element that holds text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Location {
    Attribute(&'static str),
    Child(&'static str),
}

/// Location of the date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DateLocation {
    /// A field of the root, for all entries.
    Root(Location),
    /// A child of each entry.
    Entry(&'static str),
}

impl Location {
    const fn name(self) -> &'static str {
        match self {
            Self::Attribute(name) | Self::Child(name) => name,
        }
    }

    fn field(self, element: &Element) -> Field {
        match self {
            Self::Attribute(name) => {
                let attribute = element.attributes.iter().find(|(key, _)| key == name);
                attribute.map_or(Field::Absent, |(_, value)| Field::text(value))
            }
            Self::Child(name) => child(element, name),
        }
    }
}

/// Returns the text of the only child with this name.
fn child(element: &Element, name: &str) -> Field {
    let mut field = Field::Absent;
    for child in element.children(name) {
        field.add(if child.children.is_empty() { Field::text(&child.text) } else { Field::NotText });
    }
    field
}

impl Layout {
    /// Parses the fields of a table.
    pub(super) fn read(&self, text: &str) -> Result<RawTable, BankError> {
        let root = parse(check_start(text, '<', "a table in XML")?, self.root)?;
        let mut containers = vec![&root];
        for name in self.containers {
            containers = containers.into_iter().flat_map(|container| container.children(name)).collect();
        }
        let entries = containers.into_iter().flat_map(|container| container.children(self.entry));
        let entries = entries.map(|entry| self.entry_fields(entry)).collect();
        let date = match self.date {
            DateLocation::Root(location) => Some((location.name(), location.field(&root))),
            DateLocation::Entry(_) => None,
        };
        Ok(RawTable { date, entries })
    }

    fn entry_fields(&self, entry: &Element) -> RawEntry {
        RawEntry {
            code: self.code.field(entry),
            nominal: child(entry, self.nominal),
            rate: child(entry, self.rate),
            difference: self.difference.map_or(Field::Absent, |name| child(entry, name)),
            valid_for: self.valid_for.map_or(Field::Absent, |name| child(entry, name)),
            date: match self.date {
                DateLocation::Root(_) => Field::Absent,
                DateLocation::Entry(name) => child(entry, name),
            },
        }
    }
}
