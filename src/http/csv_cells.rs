//! A serde serializer that writes the fields of a message into the cells of a CSV row.
//!
//! **Invariant**: a value has the same text as in JSON, but a string has no quotation marks around it, and a formula gets an
//! apostrophe. An absent value
//! leaves its cell unchanged. A field without a target is skipped, whatever its type.

use std::fmt::{Display, Write as _};

use serde::ser::{Error, Impossible, Serialize, SerializeSeq, SerializeStruct, Serializer};

use thiserror::Error as ThisError;

use crate::domain::without_formula;

/// The reason why a value cannot be written to a cell.
#[derive(Debug, ThisError)]
pub(super) enum CellError {
    #[error("cannot write JSON to a cell: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Value(String),
}

/// The cell or cells that a value is written to.
pub(super) enum Target {
    /// One cell, by index. The values of a list are separated by commas.
    Cell(usize),
    /// One cell, by index, as JSON.
    Json(usize),
    /// The targets of a message's fields.
    Inner(Vec<Field>),
    /// The targets of the first elements of a list. Further elements are skipped.
    Items(Vec<Target>),
}

/// A field of a message and its target.
pub(super) struct Field {
    pub(super) name: String,
    pub(super) target: Target,
}

/// Writes a value into cells.
pub(super) struct CellWriter<'a> {
    target: &'a Target,
    cells: &'a mut [String],
}

impl<'a> CellWriter<'a> {
    /// Creates a writer for the cells that `target` names.
    pub(super) const fn new(target: &'a Target, cells: &'a mut [String]) -> Self {
        Self { target, cells }
    }

    fn write(self, value: impl Display) -> Result<(), CellError> {
        match self.target {
            Target::Cell(at) => write!(self.cells[*at], "{value}").map_err(CellError::custom),
            Target::Json(_) | Target::Inner(_) | Target::Items(_) => Err(unsupported_value()),
        }
    }
}

/// Returns the error for a value of a type that the target cannot take. No response message has such a value.
fn unsupported_value() -> CellError {
    CellError::custom("a value of this type cannot be written to a cell")
}

impl Error for CellError {
    fn custom<T: Display>(problem: T) -> Self {
        Self::Value(problem.to_string())
    }
}

/// Implements the methods for scalar values.
macro_rules! scalars {
    ($($method:ident: $kind:ty),*) => {
        $(fn $method(self, value: $kind) -> Result<(), CellError> {
            self.write(value)
        })*
    };
}

impl<'a> Serializer for CellWriter<'a> {
    type Ok = ();
    type Error = CellError;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Impossible<(), CellError>;
    type SerializeTupleStruct = Impossible<(), CellError>;
    type SerializeTupleVariant = Impossible<(), CellError>;
    type SerializeMap = Impossible<(), CellError>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Impossible<(), CellError>;

    scalars!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_char: char
    );

    fn serialize_str(self, text: &str) -> Result<(), CellError> {
        self.write(without_formula(text))
    }

    fn serialize_none(self) -> Result<(), CellError> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CellError> {
        value.serialize(self)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), CellError> {
        self.write(variant)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, CellError> {
        Ok(Items { writer: self, count: 0 })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, CellError> {
        Ok(self)
    }

    // No response message has values of the following types.

    fn serialize_f32(self, _: f32) -> Result<(), CellError> {
        Err(unsupported_value())
    }

    fn serialize_f64(self, _: f64) -> Result<(), CellError> {
        Err(unsupported_value())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), CellError> {
        Err(unsupported_value())
    }

    fn serialize_unit(self) -> Result<(), CellError> {
        Err(unsupported_value())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CellError> {
        Err(unsupported_value())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, _: &T) -> Result<(), CellError> {
        Err(unsupported_value())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), CellError> {
        Err(unsupported_value())
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, CellError> {
        Err(unsupported_value())
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, CellError> {
        Err(unsupported_value())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, CellError> {
        Err(unsupported_value())
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, CellError> {
        Err(unsupported_value())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, CellError> {
        Err(unsupported_value())
    }
}

impl SerializeStruct for CellWriter<'_> {
    type Ok = ();
    type Error = CellError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), CellError> {
        let Target::Inner(fields) = self.target else { return Err(unsupported_value()) };
        match fields.iter().find(|field| field.name == name).map(|field| &field.target) {
            None => Ok(()),
            Some(Target::Json(at)) => {
                let json = serde_json::to_string(value)?;
                self.cells[*at] = if json == "null" { String::new() } else { json };
                Ok(())
            }
            Some(target) => value.serialize(CellWriter::new(target, self.cells)),
        }
    }

    fn end(self) -> Result<(), CellError> {
        Ok(())
    }
}

/// Writes the elements of a list into cells.
pub(super) struct Items<'a> {
    writer: CellWriter<'a>,
    count: usize,
}

impl SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = CellError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CellError> {
        let CellWriter { target, cells } = &mut self.writer;
        let target = match target {
            Target::Items(targets) => targets.get(self.count),
            Target::Cell(at) => {
                if self.count > 0 {
                    cells[*at].push(',');
                }
                Some(*target)
            }
            Target::Json(_) | Target::Inner(_) => return Err(unsupported_value()),
        };
        self.count += 1;
        target.map_or(Ok(()), |target| value.serialize(CellWriter::new(target, cells)))
    }

    fn end(self) -> Result<(), CellError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Serialize)]
    struct Inner {
        low: u64,
        high: Option<bool>,
    }

    #[derive(serde::Serialize)]
    struct Row {
        texts: &'static [&'static str],
        skipped: f64,
        inner: Inner,
        items: Vec<Inner>,
        json: Option<Inner>,
    }

    fn row(json: Option<Inner>) -> Row {
        let inner = Inner { low: u64::MAX, high: Some(true) };
        Row { texts: &["a", "b\"", ""], skipped: 1.5, inner, items: vec![Inner { low: 7, high: None }], json }
    }

    fn field(name: &str, target: Target) -> Field {
        Field { name: name.to_owned(), target }
    }

    fn bounds(low: usize, high: usize) -> Target {
        Target::Inner(vec![field("low", Target::Cell(low)), field("high", Target::Cell(high))])
    }

    #[test]
    fn field_is_written_to_its_target() {
        let target = Target::Inner(vec![
            field("texts", Target::Cell(0)),
            field("inner", bounds(1, 2)),
            field("items", Target::Items(vec![bounds(3, 4), bounds(5, 6)])),
            field("json", Target::Json(7)),
        ]);
        let check = |row: &Row, expect: [&str; 8]| {
            let mut cells = vec![String::new(); 8];
            row.serialize(CellWriter::new(&target, &mut cells)).unwrap();
            assert_eq!(cells, expect);
        };
        check(&row(None), ["a,b\",", "18446744073709551615", "true", "7", "", "", "", ""]);
        let json = Inner { low: 0, high: None };
        let expect = ["a,b\",", "18446744073709551615", "true", "7", "", "", "", r#"{"low":0,"high":null}"#];
        check(&row(Some(json)), expect);
    }

    #[test]
    fn value_of_unsupported_type_is_an_error() {
        let check = |name: &str, target: Target| {
            let target = Target::Inner(vec![field(name, target)]);
            let error = row(None).serialize(CellWriter::new(&target, &mut [String::new()])).unwrap_err();
            assert_eq!(error.to_string(), "a value of this type cannot be written to a cell", "{name}");
        };
        check("skipped", Target::Cell(0));
        check("texts", Target::Inner(Vec::new()));
        check("inner", Target::Cell(0));
    }
}
