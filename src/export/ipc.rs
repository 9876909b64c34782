//! Writes data frames as an Arrow stream, and decodes the bytes of an Arrow stream into record batches as they arrive.
//!
//! **Invariant**: the decoder buffers the dictionaries and at most one message. The metadata and the body of a message
//! have at most [`MESSAGE_BYTES_MAX`] each.

use std::io::{Cursor, Write};
use std::sync::Arc;

use polars::prelude::{ArrayRef, DataFrame, PolarsError, PolarsResult};
use polars_arrow::datatypes::ArrowSchemaRef;
use polars_arrow::io::ipc::read::common::{read_dictionary, read_record_batch};
use polars_arrow::io::ipc::read::{Dictionaries, StreamMetadata, read_stream_metadata};
use polars_arrow::io::ipc::write::{StreamWriter, WriteOptions};
use polars_arrow::record_batch::RecordBatchT;
use polars_arrow_format::ipc::planus::ReadAsRoot as _;
use polars_arrow_format::ipc::{MessageHeaderRef, MessageRef};
use thiserror::Error;

use super::decode_untrusted;
use super::parquet_file::arrow_array;
use super::schema::{Column, arrow_metadata, arrow_schema};

/// A record batch: one Arrow array per column.
pub(super) type Batch = RecordBatchT<ArrayRef>;

/// Maximum size of the metadata and of the body of a message. A batch of 16,384 rows takes about 2 MiB.
const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The continuation marker at the start of a message.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// The continuation marker and the length of the message's metadata, little-endian, 4 bytes each.
const PREFIX_BYTES: usize = 8;

/// An Arrow stream that is being written.
pub(super) struct IpcStream<W: Write> {
    writer: StreamWriter<W>,
    columns: &'static [Column],
    schema: ArrowSchemaRef,
}

impl<W: Write> IpcStream<W> {
    /// Begins a stream and writes its schema with `metadata`.
    ///
    /// # Errors
    /// Returns an error if the output fails.
    pub(super) fn new(out: W, columns: &'static [Column], metadata: &[(String, String)]) -> PolarsResult<Self> {
        let schema = Arc::new(arrow_schema(columns));
        let mut writer = StreamWriter::new(out, WriteOptions { compression: None });
        writer.set_custom_schema_metadata(Arc::new(arrow_metadata(metadata)));
        writer.start(&schema, None)?;
        Ok(Self { writer, columns, schema })
    }

    /// Writes a frame as a record batch, preceded by its new dictionaries.
    ///
    /// # Errors
    /// Returns an error if the output fails or if a column has another type than the schema.
    pub(super) fn write(&mut self, frame: &DataFrame) -> PolarsResult<()> {
        let arrays = frame.columns().iter().zip(self.columns).map(|(values, column)| arrow_array(values, column));
        let arrays = arrays.collect::<PolarsResult<Vec<_>>>()?;
        self.writer.write(&RecordBatchT::try_new(frame.height(), Arc::clone(&self.schema), arrays)?, None)
    }

    /// Writes the end marker of the stream.
    ///
    /// # Errors
    /// Returns an error if the output fails.
    pub(super) fn end(mut self) -> PolarsResult<()> {
        self.writer.finish()
    }
}

/// Why bytes are not a valid Arrow stream.
#[derive(Debug, Error)]
pub enum IpcError {
    /// The Arrow library cannot decode the bytes.
    #[error(transparent)]
    Polars(#[from] PolarsError),
    /// A message is malformed.
    #[error("a message of the stream is malformed: {0}")]
    Message(String),
    /// A message is longer than any message that silkrate writes.
    #[error("a message of the stream has {0} bytes; the limit is {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    /// The bytes end before the end marker of the stream.
    #[error("the stream has no end marker")]
    NoEnd,
}

impl IpcError {
    fn message(problem: &impl ToString) -> Self {
        Self::Message(problem.to_string())
    }
}

/// Decodes the bytes of an Arrow stream, in pieces of any length.
#[derive(Default)]
pub(super) struct IpcDecoder {
    /// Bytes of the incomplete message.
    bytes: Vec<u8>,
    metadata: Option<StreamMetadata>,
    dictionaries: Dictionaries,
    scratch: Vec<u8>,
    is_over: bool,
}

impl IpcDecoder {
    /// Decodes the next bytes and calls `on_batch` for each batch that they complete.
    ///
    /// # Errors
    /// Any [`IpcError`] except `NoEnd`; any error of `on_batch`.
    pub(super) fn push<E: From<IpcError>>(
        &mut self,
        bytes: &[u8],
        mut on_batch: impl FnMut(&Self, Batch) -> Result<(), E>,
    ) -> Result<(), E> {
        self.bytes.extend_from_slice(bytes);
        let mut all = std::mem::take(&mut self.bytes);
        let mut rest = all.as_slice();
        while let Some((message, after)) = split(rest)? {
            if let Some(batch) = self.decode(&message)? {
                on_batch(self, batch)?;
            }
            rest = after;
        }
        let read = all.len() - rest.len();
        all.drain(..read);
        self.bytes = all;
        Ok(())
    }

    /// The columns and metadata of the stream; `None` before they have arrived.
    pub(super) fn metadata(&self) -> Option<&StreamMetadata> {
        self.metadata.as_ref()
    }

    /// Checks that the stream is complete after the last bytes.
    ///
    /// # Errors
    /// `NoEnd` if the end marker is missing or if the last message is incomplete.
    pub(super) fn finish(&self) -> Result<(), IpcError> {
        if self.is_over && self.bytes.is_empty() { Ok(()) } else { Err(IpcError::NoEnd) }
    }

    fn decode(&mut self, message: &Message<'_>) -> Result<Option<Batch>, IpcError> {
        if self.is_over {
            return Err(IpcError::Message("it follows the end of the stream".to_owned()));
        }
        if message.metadata.is_empty() {
            self.is_over = true;
            return Ok(None);
        }
        // The bytes come from the network, and the library may panic on damaged bytes.
        decode_untrusted(|| self.decode_message(message)).map_err(IpcError::Message)
    }

    #[allow(clippy::default_trait_access, reason = "the type is of a crate that is not a dependency of this one")]
    fn decode_message(&mut self, message: &Message<'_>) -> Result<Option<Batch>, IpcError> {
        let Some(metadata) = &self.metadata else {
            self.metadata = Some(read_stream_metadata(&mut Cursor::new(message.prefixed))?);
            return Ok(None);
        };
        let header = parsed(message.metadata)?.header().map_err(|problem| IpcError::message(&problem))?;
        let (schema, fields) = (&metadata.schema, &metadata.ipc_schema);
        let mut body = Cursor::new(message.body);
        match header {
            Some(MessageHeaderRef::DictionaryBatch(batch)) => {
                let (dictionaries, scratch) = (&mut self.dictionaries, &mut self.scratch);
                let checked = Default::default();
                read_dictionary(batch, schema, fields, dictionaries, &mut body, 0, scratch, checked)?;
                Ok(None)
            }
            Some(MessageHeaderRef::RecordBatch(batch)) => Ok(Some(read_record_batch(
                batch,
                schema,
                fields,
                None,
                None,
                &self.dictionaries,
                metadata.version,
                &mut body,
                0,
                &mut self.scratch,
                Default::default(),
            )?)),
            Some(MessageHeaderRef::Schema(_) | MessageHeaderRef::Tensor(_) | MessageHeaderRef::SparseTensor(_))
            | None => Err(IpcError::Message("it is neither a batch nor a dictionary".to_owned())),
        }
    }
}

/// A complete message.
struct Message<'b> {
    /// The prefix of [`PREFIX_BYTES`] and the metadata.
    prefixed: &'b [u8],
    metadata: &'b [u8],
    body: &'b [u8],
}

/// Splits off the first message; `None` if it is not complete yet. The end marker of the stream is an empty message.
fn split(bytes: &[u8]) -> Result<Option<(Message<'_>, &[u8])>, IpcError> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let (continuation, length) = prefix.split_at(4);
    if continuation != CONTINUATION {
        return Err(IpcError::Message("it does not start with a continuation marker".to_owned()));
    }
    let length = length.try_into().map_or(-1, i32::from_le_bytes);
    let length = usize::try_from(length).map_err(|_| IpcError::Message(format!("its length is {length}")))?;
    if length == 0 {
        return Ok(Some((Message { prefixed: &[], metadata: &[], body: &[] }, rest)));
    }
    check_length(length)?;
    let Some((metadata, rest)) = rest.split_at_checked(length) else { return Ok(None) };
    let body_length = parsed(metadata)?.body_length().map_err(|problem| IpcError::message(&problem))?;
    let body_length = usize::try_from(body_length).map_err(|problem| IpcError::message(&problem))?;
    check_length(body_length)?;
    let Some((body, rest)) = rest.split_at_checked(body_length) else { return Ok(None) };
    Ok(Some((Message { prefixed: &bytes[..PREFIX_BYTES + length], metadata, body }, rest)))
}

fn parsed(metadata: &[u8]) -> Result<MessageRef<'_>, IpcError> {
    MessageRef::read_as_root(metadata).map_err(|problem| IpcError::message(&problem))
}

fn check_length(bytes: usize) -> Result<(), IpcError> {
    if bytes > MESSAGE_BYTES_MAX { Err(IpcError::TooLong(bytes)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use polars::prelude::{IntoColumn as _, NamedFrom as _, Series};

    use super::*;
    use crate::export::schema::{COLLAPSE_WINDOW, SEQUENCE};

    const COLUMNS: &[Column] = &[SEQUENCE, COLLAPSE_WINDOW];

    fn stream(batches: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut stream = IpcStream::new(&mut bytes, COLUMNS, &[("key".to_owned(), "value".to_owned())]).unwrap();
        for rows in batches {
            let (height, numbers) = (usize::try_from(*rows).unwrap(), 0..*rows);
            let counts = Series::new(SEQUENCE.name.into(), numbers.clone().collect::<Vec<_>>()).into_column();
            let micros = numbers.map(u64::cast_signed).collect::<Vec<_>>();
            let micros = Series::new(COLLAPSE_WINDOW.name.into(), micros).into_column();
            stream.write(&DataFrame::new(height, vec![counts, micros]).unwrap()).unwrap();
        }
        stream.end().unwrap();
        bytes
    }

    #[allow(clippy::default_trait_access, reason = "the type is of a crate that is not a dependency of this one")]
    fn decode(pieces: &mut dyn Iterator<Item = &[u8]>) -> Result<Vec<usize>, IpcError> {
        let (mut decoder, mut rows) = (IpcDecoder::default(), Vec::new());
        for piece in pieces {
            decoder.push(piece, |_, batch| {
                rows.push(batch.height());
                Ok::<_, IpcError>(())
            })?;
        }
        decoder.finish()?;
        assert_eq!(decoder.metadata().map(|stream| stream.schema.len()), Some(2));
        Ok(rows)
    }

    #[test]
    fn stream_decodes_in_pieces_of_any_length() {
        let bytes = stream(&[3, 1, 500]);
        for length in [1, 2, 7, 64, 1_000, bytes.len()] {
            assert_eq!(decode(&mut bytes.chunks(length)).unwrap(), [3, 1, 500], "{length}");
        }
        let empty = stream(&[]);
        assert_eq!(decode(&mut std::iter::once(empty.as_slice())).unwrap(), [0_usize; 0]);
    }

    #[test]
    fn truncated_stream_has_no_end_marker() {
        let bytes = stream(&[3]);
        for length in 0..bytes.len() {
            let error = decode(&mut std::iter::once(&bytes[..length])).unwrap_err();
            assert!(matches!(error, IpcError::NoEnd), "{length}: {error}");
        }
    }

    #[test]
    fn bytes_of_another_format_are_an_error() {
        let check = |bytes: &[u8], expect: &str| {
            let error = decode(&mut std::iter::once(bytes)).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(b"PAR1PAR1PAR1", "it does not start with a continuation marker");
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "its length is -1");
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], "the limit is 268435456");
        let mut after = stream(&[1]);
        after.extend(stream(&[1]));
        check(&after, "it follows the end");
    }
}
