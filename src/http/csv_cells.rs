//! The cells of a row, filled with the fields of a message.
//!
//! **Invariant**: a value is written as in JSON, a text without quotes; what is absent leaves its cell as it is. A field that
//! goes nowhere is passed over, whatever is in it.

use std::fmt::{Display, Write as _};

use serde::ser::{Error, Impossible, Serialize, SerializeSeq, SerializeStruct, Serializer};

use thiserror::Error as ThisError;

/// Why a value has no cell.
#[derive(Debug, ThisError)]
pub(super) enum CellError {
    #[error("json in a cell: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Value(String),
}

/// Where a value goes.
pub(super) enum Part {
    /// Into this cell; the values of a list with commas between them.
    Cell(usize),
    /// Into this cell, as JSON.
    Json(usize),
    /// The fields of a message, each where it says.
    Inner(Vec<Field>),
    /// The first ones of a list, each where it says.
    Items(Vec<Part>),
}

/// A field of a message, by its name, and where it goes.
pub(super) struct Field {
    pub(super) name: String,
    pub(super) part: Part,
}

/// Fills cells with a value.
pub(super) struct Filler<'a> {
    part: &'a Part,
    cells: &'a mut [String],
}

impl<'a> Filler<'a> {
    /// Fills those of `cells` that `part` names.
    pub(super) const fn new(part: &'a Part, cells: &'a mut [String]) -> Self {
        Self { part, cells }
    }

    fn write(self, value: impl Display) -> Result<(), CellError> {
        match self.part {
            Part::Cell(at) => write!(self.cells[*at], "{value}").map_err(CellError::custom),
            Part::Json(_) | Part::Inner(_) | Part::Items(_) => Err(no_form()),
        }
    }
}

/// No message has such a value there.
fn no_form() -> CellError {
    CellError::custom("a value of this kind has no form in a cell")
}

impl Error for CellError {
    fn custom<T: Display>(problem: T) -> Self {
        Self::Value(problem.to_string())
    }
}

/// Methods for plain values.
macro_rules! plain {
    ($($method:ident: $kind:ty),*) => {
        $(fn $method(self, value: $kind) -> Result<(), CellError> {
            self.write(value)
        })*
    };
}

impl<'a> Serializer for Filler<'a> {
    type Ok = ();
    type Error = CellError;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Impossible<(), CellError>;
    type SerializeTupleStruct = Impossible<(), CellError>;
    type SerializeTupleVariant = Impossible<(), CellError>;
    type SerializeMap = Impossible<(), CellError>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Impossible<(), CellError>;

    plain!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_char: char,
        serialize_str: &str
    );

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
        Ok(Items { filler: self, count: 0 })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, CellError> {
        Ok(self)
    }

    // What follows is in no message of the calls.

    fn serialize_f32(self, _: f32) -> Result<(), CellError> {
        Err(no_form())
    }

    fn serialize_f64(self, _: f64) -> Result<(), CellError> {
        Err(no_form())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), CellError> {
        Err(no_form())
    }

    fn serialize_unit(self) -> Result<(), CellError> {
        Err(no_form())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), CellError> {
        Err(no_form())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, _: &T) -> Result<(), CellError> {
        Err(no_form())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), CellError> {
        Err(no_form())
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, CellError> {
        Err(no_form())
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeTupleStruct, CellError> {
        Err(no_form())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, CellError> {
        Err(no_form())
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, CellError> {
        Err(no_form())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, CellError> {
        Err(no_form())
    }
}

impl SerializeStruct for Filler<'_> {
    type Ok = ();
    type Error = CellError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), CellError> {
        let Part::Inner(fields) = self.part else { return Err(no_form()) };
        match fields.iter().find(|field| field.name == name).map(|field| &field.part) {
            None => Ok(()),
            Some(Part::Json(at)) => {
                let json = serde_json::to_string(value)?;
                self.cells[*at] = if json == "null" { String::new() } else { json };
                Ok(())
            }
            Some(part) => value.serialize(Filler::new(part, self.cells)),
        }
    }

    fn end(self) -> Result<(), CellError> {
        Ok(())
    }
}

/// Fills cells with the values of a list.
pub(super) struct Items<'a> {
    filler: Filler<'a>,
    count: usize,
}

impl SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = CellError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CellError> {
        let Filler { part, cells } = &mut self.filler;
        let part = match part {
            Part::Items(parts) => parts.get(self.count),
            Part::Cell(at) => {
                if self.count > 0 {
                    cells[*at].push(',');
                }
                Some(*part)
            }
            Part::Json(_) | Part::Inner(_) => return Err(no_form()),
        };
        self.count += 1;
        part.map_or(Ok(()), |part| value.serialize(Filler::new(part, cells)))
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
        passed_over: f64,
        inner: Inner,
        items: Vec<Inner>,
        json: Option<Inner>,
    }

    fn row(json: Option<Inner>) -> Row {
        let inner = Inner { low: u64::MAX, high: Some(true) };
        Row { texts: &["a", "b\"", ""], passed_over: 1.5, inner, items: vec![Inner { low: 7, high: None }], json }
    }

    fn field(name: &str, part: Part) -> Field {
        Field { name: name.to_owned(), part }
    }

    fn bounds(low: usize, high: usize) -> Part {
        Part::Inner(vec![field("low", Part::Cell(low)), field("high", Part::Cell(high))])
    }

    #[test]
    fn each_field_goes_where_it_is_sent() {
        let part = Part::Inner(vec![
            field("texts", Part::Cell(0)),
            field("inner", bounds(1, 2)),
            field("items", Part::Items(vec![bounds(3, 4), bounds(5, 6)])),
            field("json", Part::Json(7)),
        ]);
        let check = |row: &Row, expect: [&str; 8]| {
            let mut cells = vec![String::new(); 8];
            row.serialize(Filler::new(&part, &mut cells)).unwrap();
            assert_eq!(cells, expect);
        };
        check(&row(None), ["a,b\",", "18446744073709551615", "true", "7", "", "", "", ""]);
        let json = Inner { low: 0, high: None };
        let expect = ["a,b\",", "18446744073709551615", "true", "7", "", "", "", r#"{"low":0,"high":null}"#];
        check(&row(Some(json)), expect);
    }

    #[test]
    fn what_has_no_form_is_an_error() {
        let check = |name: &str, part: Part| {
            let part = Part::Inner(vec![field(name, part)]);
            let error = row(None).serialize(Filler::new(&part, &mut [String::new()])).unwrap_err();
            assert_eq!(error.to_string(), "a value of this kind has no form in a cell", "{name}");
        };
        check("passed_over", Part::Cell(0));
        check("texts", Part::Inner(Vec::new()));
        check("inner", Part::Cell(0));
    }
}
