//! Avro's object container files: a header with schema and codec, then blocks of `count, size, compressed data, sync
//! marker`. Written and read by the block, so that a file of any size takes the memory of one.

use std::{collections::BTreeMap, marker::PhantomData};

use bytes::{Buf, Bytes, BytesMut};

use super::{
    DATUM_BYTES_MAX, DecodeError, Event,
    datum::{Datum, Reader},
    shape,
    writer::Writer,
};

/// What a container begins with.
pub const MAGIC: &[u8] = b"Obj\x01";
/// Bytes of a sync marker.
pub const SYNC_BYTES: usize = 16;
/// Data are compressed once they come to so many bytes.
const BLOCK_BYTES: usize = 1024 * 1024;
/// Largest block that is read, compressed or not, bytes: one that was nearly full, and the largest event.
const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest header that is read, bytes.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// What zstd calls a level: quick, and nearly as small as slower ones.
const LEVEL: i32 = 3;
/// Bytes that a count and a size take at most.
const COUNTS_BYTES_MAX: usize = 20;

/// Why a container cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContainerError {
    /// It is none, or one of other data.
    #[error("its header cannot be used: {0}")]
    Header(String),
    /// A block is not what was written.
    #[error("a block is damaged: {0}")]
    Block(String),
    /// It ends in the middle.
    #[error("it ends in the middle of a block")]
    Truncated,
}

impl From<DecodeError> for ContainerError {
    fn from(error: DecodeError) -> Self {
        Self::Block(error.to_string())
    }
}

/// How blocks are compressed.
#[derive(Clone, Copy, Debug)]
enum Codec {
    Null,
    Deflate,
    Zstandard,
}

impl Codec {
    /// The codec of that name; a header that has none means that nothing is compressed.
    fn named(name: &str) -> Result<Self, ContainerError> {
        match name {
            "" | "null" => Ok(Self::Null),
            "deflate" => Ok(Self::Deflate),
            "zstandard" => Ok(Self::Zstandard),
            other => {
                let why = format!("codec {other:?} is not read: write it with null, deflate or zstandard");
                Err(ContainerError::Header(why))
            }
        }
    }

    fn decompress(self, data: &[u8]) -> Result<Vec<u8>, ContainerError> {
        let damaged =
            |why: String| ContainerError::Block(format!("{why}, of at most {BLOCK_BYTES_MAX} bytes"));
        match self {
            Self::Null => Ok(data.to_vec()),
            Self::Deflate => miniz_oxide::inflate::decompress_to_vec_with_limit(data, BLOCK_BYTES_MAX)
                .map_err(|error| damaged(error.to_string())),
            Self::Zstandard => {
                zstd::bulk::decompress(data, BLOCK_BYTES_MAX).map_err(|error| damaged(error.to_string()))
            }
        }
    }
}

/// Makes a container, with codec `zstandard`.
pub struct ContainerWriter {
    schema: &'static str,
    sync: [u8; SYNC_BYTES],
    count: i64,
    block: Vec<u8>,
}

impl ContainerWriter {
    /// Of data of a schema, given as JSON, in a file whose blocks are told apart by `sync`.
    pub fn new(schema: &'static str, sync: [u8; SYNC_BYTES]) -> Self {
        Self { schema, sync, count: 0, block: Vec::new() }
    }

    /// What a file begins with.
    pub fn header(&self) -> Bytes {
        let mut header = MAGIC.to_vec();
        // A map of one block with two entries.
        2_i64.write(&mut header);
        for (name, value) in [("avro.codec", "zstandard"), ("avro.schema", self.schema)] {
            name.to_owned().write(&mut header);
            value.to_owned().write(&mut header);
        }
        0_i64.write(&mut header);
        header.extend_from_slice(&self.sync);
        header.into()
    }

    /// Takes a datum of the schema; a block where it is full.
    pub fn push(&mut self, datum: &impl Datum) -> std::io::Result<Option<Bytes>> {
        datum.write(&mut self.block);
        self.count += 1;
        if self.block.len() < BLOCK_BYTES { Ok(None) } else { self.block() }
    }

    /// What was taken since the last block, as one.
    pub fn block(&mut self) -> std::io::Result<Option<Bytes>> {
        if self.count == 0 {
            return Ok(None);
        }
        let compressed = zstd::bulk::compress(&self.block, LEVEL)?;
        let mut bytes = Vec::with_capacity(compressed.len() + COUNTS_BYTES_MAX + SYNC_BYTES);
        self.count.write(&mut bytes);
        (compressed.len() as i64).write(&mut bytes);
        bytes.extend_from_slice(&compressed);
        bytes.extend_from_slice(&self.sync);
        self.count = 0;
        self.block.clear();
        Ok(Some(bytes.into()))
    }
}

/// What stands before the blocks.
#[derive(Clone, Debug)]
struct Header {
    codec: Codec,
    schema: String,
    sync: [u8; SYNC_BYTES],
}

/// Data of one block, uncompressed.
#[derive(Clone, Debug)]
pub struct Block {
    count: usize,
    data: Vec<u8>,
}

impl Block {
    /// Its data, of a schema of this program.
    pub fn read<T: Datum>(&self) -> Result<Vec<T>, ContainerError> {
        let mut reader = Reader::new(&self.data);
        let mut read = Vec::new();
        for _ in 0..self.count {
            read.push(T::read(&mut reader)?);
        }
        reader.finish()?;
        Ok(read)
    }
}

/// Reads a container, whose bytes come in pieces.
#[derive(Default)]
pub struct Blocks {
    bytes: BytesMut,
    header: Option<Header>,
}

impl Blocks {
    /// More bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The schema of its data, as JSON; none before the first block was read.
    pub fn schema(&self) -> Option<&str> {
        self.header.as_ref().map(|header| &*header.schema)
    }

    /// The next block; none where more bytes are needed.
    pub fn next_block(&mut self) -> Result<Option<Block>, ContainerError> {
        if self.header.is_none() {
            self.header = self.read_header()?;
        }
        let Some(Header { codec, sync, .. }) = &self.header else {
            return Ok(None);
        };
        let mut reader = Reader::new(&self.bytes);
        let counts = reader.long().and_then(|count| Ok((count, reader.long()?)));
        let (count, size) = match counts {
            Ok(counts) => counts,
            Err(DecodeError::Truncated) if self.bytes.len() < COUNTS_BYTES_MAX => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let within = |size: &usize| *size <= BLOCK_BYTES_MAX;
        let out_of_bounds = || {
            let why = format!("{count} data in {size} bytes, and {BLOCK_BYTES_MAX} bytes are read at most");
            ContainerError::Block(why)
        };
        let size = usize::try_from(size).ok().filter(within).ok_or_else(out_of_bounds)?;
        if reader.left() < size + SYNC_BYTES {
            return Ok(None);
        }
        let compressed = reader.take(size)?;
        if reader.take(SYNC_BYTES)? != sync {
            return Err(ContainerError::Block("its marker is another".to_owned()));
        }
        let data = codec.decompress(compressed)?;
        // No datum takes nothing.
        let fits = |count: &usize| *count <= data.len();
        let count = usize::try_from(count).ok().filter(fits).ok_or_else(out_of_bounds)?;
        let left = reader.left();
        self.bytes.advance(self.bytes.len() - left);
        Ok(Some(Block { count, data }))
    }

    /// Refuses bytes that nothing was made of.
    pub fn finish(&self) -> Result<(), ContainerError> {
        if self.bytes.is_empty() && self.header.is_some() { Ok(()) } else { Err(ContainerError::Truncated) }
    }

    /// Reads the header, once it is there.
    fn read_header(&mut self) -> Result<Option<Header>, ContainerError> {
        let mut reader = Reader::new(&self.bytes);
        let read = header(&mut reader);
        let left = reader.left();
        match read {
            Ok((codec, schema, sync)) => {
                let codec = Codec::named(&codec)?;
                self.bytes.advance(self.bytes.len() - left);
                Ok(Some(Header { codec, schema, sync }))
            }
            Err(DecodeError::Truncated) if self.bytes.len() < HEADER_BYTES_MAX => Ok(None),
            Err(error) => Err(ContainerError::Header(error.to_string())),
        }
    }
}

/// Codec, schema and sync marker.
fn header(reader: &mut Reader<'_>) -> Result<(String, String, [u8; SYNC_BYTES]), DecodeError> {
    let magic = reader.take(MAGIC.len())?;
    if magic != MAGIC {
        return Err(DecodeError::Framing(magic[0]));
    }
    let mut meta = BTreeMap::<String, Bytes>::read(reader)?;
    let mut text = |name| {
        let value = meta.remove(name).unwrap_or_default();
        String::from_utf8(value.to_vec()).map_err(|_| DecodeError::Utf8)
    };
    let (codec, schema) = (text("avro.codec")?, text("avro.schema")?);
    let mut sync = [0; SYNC_BYTES];
    sync.copy_from_slice(reader.take(SYNC_BYTES)?);
    Ok((codec, schema, sync))
}

/// Reads the events of a container, whoever wrote it, by the schema in its header. Its bytes come in pieces.
pub struct ContainerDecoder<E> {
    blocks: Blocks,
    writer: Option<Writer>,
    event: PhantomData<fn() -> E>,
}

impl<E: Event> Default for ContainerDecoder<E> {
    fn default() -> Self {
        Self { blocks: Blocks::default(), writer: None, event: PhantomData }
    }
}

impl<E: Event> ContainerDecoder<E> {
    /// More bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.blocks.feed(bytes);
    }

    /// The events of the next block, each or why it is none; nothing where more bytes are needed.
    ///
    /// # Errors
    /// It is not known where one ends, and so not what is behind it.
    pub fn next_events(&mut self) -> Result<Option<Vec<Result<E, DecodeError>>>, ContainerError> {
        let Some(block) = self.blocks.next_block()? else {
            return Ok(None);
        };
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => Writer::parse::<E>(self.blocks.schema().unwrap_or_default())
                .map_err(|error| ContainerError::Header(error.to_string()))?,
        };
        let writer = &*self.writer.insert(writer);
        let (mut rest, mut events) = (&*block.data, Vec::new());
        for number in 1..=block.count {
            let (event, behind) = first::<E>(writer, rest)
                .map_err(|error| ContainerError::Block(format!("at its datum {number}, {error}")))?;
            events.push(event);
            rest = behind;
        }
        Reader::new(rest).finish()?;
        Ok(Some(events))
    }

    /// Refuses bytes that nothing was made of.
    pub fn finish(&self) -> Result<(), ContainerError> {
        self.blocks.finish()
    }
}

/// An event, or why it is none, and the bytes behind it.
type First<'a, E> = (Result<E, DecodeError>, &'a [u8]);

/// Reads the event that `data` begin with. The error: nobody knows where it ends.
fn first<'a, E: Event>(writer: &Writer, data: &'a [u8]) -> Result<First<'a, E>, DecodeError> {
    match writer {
        Writer::Ours => {
            let mut reader = Reader::new(data);
            let mut event = E::read(&mut reader)?;
            let (datum, behind) = data.split_at(data.len() - reader.left());
            event.complete(datum);
            Ok((Ok(event), behind))
        }
        Writer::Other { schemas } => {
            let left = shape::walk_one(&schemas.0, data, shape::VALUES_MAX, &mut ())?;
            let (datum, behind) = data.split_at(data.len() - left);
            if datum.len() > DATUM_BYTES_MAX {
                return Ok((Err(DecodeError::TooLarge(datum.len())), behind));
            }
            let event = writer.read::<E>(datum).map(|mut event| {
                event.complete(datum);
                event
            });
            Ok((event, behind))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archived_record::{ArchivedRecord, SCHEMA};

    fn record(offset: i64, value: Option<Vec<u8>>) -> ArchivedRecord {
        ArchivedRecord { offset, value: value.map(Bytes::from), ..ArchivedRecord::default() }
    }

    /// A file comes from a store in pieces that end anywhere.
    #[test]
    fn a_container_is_read_whatever_the_pieces_it_comes_in() {
        let records: Vec<_> = (0..50)
            .map(|offset| record(offset, (offset % 7 > 0).then(|| vec![offset as u8; 50_000])))
            .collect();
        let mut writer = ContainerWriter::new(SCHEMA, [7; SYNC_BYTES]);
        let mut file = writer.header().to_vec();
        for record in &records {
            file.extend(writer.push(record).unwrap().unwrap_or_default());
        }
        file.extend(writer.block().unwrap().unwrap_or_default());
        for piece in [1, 13, 4_096, file.len()] {
            let (mut blocks, mut read) = (Blocks::default(), Vec::new());
            for piece in file.chunks(piece) {
                blocks.feed(piece);
                while let Some(block) = blocks.next_block().unwrap() {
                    read.extend(block.read::<ArchivedRecord>().unwrap());
                }
            }
            blocks.finish().unwrap();
            assert!(read == records, "in pieces of {piece}");
        }
        let mut blocks = Blocks::default();
        blocks.feed(&file[..file.len() - 1]);
        while blocks.next_block().unwrap().is_some() {}
        assert_eq!(blocks.finish(), Err(ContainerError::Truncated));
    }
}
