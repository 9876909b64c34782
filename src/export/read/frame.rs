//! The columns of a row group as typed arrays.
//!
//! **Invariant**: each column is one array, so the index of a row is the index of its values.

use polars::prelude::Series;
use polars_arrow::array::{BooleanArray, PrimitiveArray, Utf8ViewArray};
use polars_arrow::types::NativeType;

use crate::export::schema::Column;

/// The columns of a row group, converted to the types of `columns`.
pub(super) struct Frame<'c> {
    columns: &'c [Column],
    values: Vec<Series>,
}

impl<'c> Frame<'c> {
    pub(super) fn new(columns: &'c [Column], values: Vec<Series>) -> Self {
        Self { columns, values }
    }

    fn array<A: Clone + 'static>(&self, column: Column) -> Option<A> {
        let at = self.columns.iter().position(|other| *other == column)?;
        let values = self.values.get(at)?.rechunk();
        values.chunks().first()?.as_any().downcast_ref::<A>().cloned()
    }

    /// A column of numbers; `None` if the frame has no such column of this type.
    pub(super) fn numbers<T: NativeType>(&self, column: Column) -> Option<PrimitiveArray<T>> {
        self.array(column)
    }

    pub(super) fn texts(&self, column: Column) -> Option<Utf8ViewArray> {
        self.array(column)
    }

    pub(super) fn flags(&self, column: Column) -> Option<BooleanArray> {
        self.array(column)
    }
}
