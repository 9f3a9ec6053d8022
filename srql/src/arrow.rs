//! Rows as a stream of Arrow's record batches, which are written as rows come.

use std::{io, sync::Arc};

use arrow_array::{
    ArrayRef, RecordBatch,
    builder::{
        ArrayBuilder, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder,
        TimestampMicrosecondBuilder,
    },
};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::Value;
use serviceradar_schemas::time;

use crate::plan::{Column, Shape};

/// Rows of a batch, at most.
const BATCH_ROWS: usize = 1_024;
/// Bytes of the texts of a batch from which it has no more rows.
const BATCH_BYTES: usize = 1024 * 1024;
/// Times have no zone of their own.
const ZONE: &str = "UTC";

/// Writes rows in batches, one after the other.
pub(crate) struct Batches {
    schema: SchemaRef,
    columns: Vec<Array>,
    rows: usize,
    bytes: usize,
    writer: StreamWriter<Vec<u8>>,
}

/// The values of a column of a batch.
enum Array {
    Text(StringBuilder),
    Integer(Int64Builder),
    Number(Float64Builder),
    Bool(BooleanBuilder),
    Time(TimestampMicrosecondBuilder),
    Texts(ListBuilder<StringBuilder>),
    /// As text: Arrow has no type of it.
    Json(StringBuilder),
}

impl Batches {
    /// Of rows of these columns. The schema is written.
    pub(crate) fn new(columns: &[Column]) -> io::Result<Self> {
        let fields = columns.iter().map(|column| Field::new(&column.name, type_of(column.shape), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let writer = StreamWriter::try_new(Vec::new(), &schema).map_err(failed)?;
        let columns = columns.iter().map(|column| Array::new(column.shape)).collect();
        Ok(Self { schema, columns, rows: 0, bytes: 0, writer })
    }

    /// Takes a row; a batch that is full is written.
    pub(crate) fn row(&mut self, row: &[Value]) -> io::Result<()> {
        for (column, value) in self.columns.iter_mut().zip(row) {
            self.bytes += column.append(value);
        }
        self.rows += 1;
        if self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES { self.write() } else { Ok(()) }
    }

    /// Writes the rows that are left, and the end.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if self.rows > 0 {
            self.write()?;
        }
        self.writer.finish().map_err(failed)
    }

    /// What is written and was not taken.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self.writer.get_mut())
    }

    fn write(&mut self) -> io::Result<()> {
        (self.rows, self.bytes) = (0, 0);
        let columns = self.columns.iter_mut().map(Array::finish).collect();
        let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(failed)?;
        self.writer.write(&batch).map_err(failed)
    }
}

impl Array {
    fn new(shape: Shape) -> Self {
        match shape {
            Shape::Text => Array::Text(StringBuilder::new()),
            Shape::Integer => Array::Integer(Int64Builder::new()),
            Shape::Number => Array::Number(Float64Builder::new()),
            Shape::Bool => Array::Bool(BooleanBuilder::new()),
            Shape::Time => Array::Time(TimestampMicrosecondBuilder::new().with_timezone(ZONE)),
            Shape::Texts => Array::Texts(ListBuilder::new(StringBuilder::new())),
            Shape::Json => Array::Json(StringBuilder::new()),
        }
    }

    /// Returns the bytes of its texts.
    fn append(&mut self, value: &Value) -> usize {
        match self {
            Array::Text(texts) => {
                texts.append_option(value.as_str());
                value.as_str().map_or(0, str::len)
            }
            Array::Integer(numbers) => {
                numbers.append_option(value.as_i64());
                0
            }
            Array::Number(numbers) => {
                numbers.append_option(value.as_f64());
                0
            }
            Array::Bool(truths) => {
                truths.append_option(value.as_bool());
                0
            }
            Array::Time(times) => {
                times.append_option(value.as_str().and_then(time::parse));
                0
            }
            Array::Texts(lists) => {
                let texts = value.as_array().map(|texts| texts.iter().map(Value::as_str));
                lists.append_option(texts.clone());
                texts.into_iter().flatten().flatten().map(str::len).sum()
            }
            Array::Json(texts) => {
                let text = (!value.is_null()).then(|| value.to_string());
                texts.append_option(text.as_deref());
                text.map_or(0, |text| text.len())
            }
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Array::Text(column) | Array::Json(column) => ArrayBuilder::finish(column),
            Array::Integer(column) => ArrayBuilder::finish(column),
            Array::Number(column) => ArrayBuilder::finish(column),
            Array::Bool(column) => ArrayBuilder::finish(column),
            Array::Time(column) => ArrayBuilder::finish(column),
            Array::Texts(column) => ArrayBuilder::finish(column),
        }
    }
}

fn type_of(shape: Shape) -> DataType {
    match shape {
        Shape::Text | Shape::Json => DataType::Utf8,
        Shape::Integer => DataType::Int64,
        Shape::Number => DataType::Float64,
        Shape::Bool => DataType::Boolean,
        Shape::Time => DataType::Timestamp(TimeUnit::Microsecond, Some(ZONE.into())),
        Shape::Texts => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
    }
}

fn failed(error: ArrowError) -> io::Error {
    io::Error::other(error)
}
