//! Avro's object container files of `ArchivedRecord`, with codec `zstandard`: a header, then blocks of
//! `count, size, compressed records, sync marker`. Written and read by the block, so that a file of any size takes the
//! memory of one.

use bytes::{Buf, Bytes, BytesMut};
use serviceradar_schemas::{
    archived_record::{ArchivedRecord, SCHEMA},
    codec::{
        DecodeError,
        datum::{Datum, Reader},
    },
};

/// Records are compressed once they come to so many bytes.
const BLOCK_BYTES: usize = 1024 * 1024;
/// Largest block that is read, compressed or not, bytes: one that was nearly full, and the largest event.
const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest header that is read, bytes.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// What zstd calls a level: quick, and nearly as small as slower ones.
const LEVEL: i32 = 3;
const MAGIC: &[u8] = b"Obj\x01";
const CODEC: &str = "zstandard";
/// Bytes of a sync marker.
const SYNC: usize = 16;
/// Bytes that a count and a size take at most.
const COUNTS_BYTES_MAX: usize = 20;

/// Why a container cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ContainerError {
    /// It is no container of archived records.
    #[error("it is no archive file: {0}")]
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

/// Makes a container.
pub(crate) struct Writer {
    sync: [u8; SYNC],
    records: i64,
    block: Vec<u8>,
}

impl Writer {
    /// Of a file whose blocks are told apart by `sync`.
    pub(crate) fn new(sync: [u8; SYNC]) -> Self {
        Self { sync, records: 0, block: Vec::new() }
    }

    /// What a file begins with.
    pub(crate) fn header(&self) -> Bytes {
        let mut header = MAGIC.to_vec();
        // A map of one block with two entries.
        2_i64.write(&mut header);
        for (name, value) in [("avro.codec", CODEC), ("avro.schema", SCHEMA)] {
            name.to_owned().write(&mut header);
            value.to_owned().write(&mut header);
        }
        0_i64.write(&mut header);
        header.extend_from_slice(&self.sync);
        header.into()
    }

    /// Takes a record; a block where it is full.
    pub(crate) fn push(&mut self, record: &ArchivedRecord) -> std::io::Result<Option<Bytes>> {
        record.write(&mut self.block);
        self.records += 1;
        if self.block.len() < BLOCK_BYTES { Ok(None) } else { self.block() }
    }

    /// What was taken since the last block, as one.
    pub(crate) fn block(&mut self) -> std::io::Result<Option<Bytes>> {
        if self.records == 0 {
            return Ok(None);
        }
        let compressed = zstd::bulk::compress(&self.block, LEVEL)?;
        let mut bytes = Vec::with_capacity(compressed.len() + COUNTS_BYTES_MAX + SYNC);
        self.records.write(&mut bytes);
        (compressed.len() as i64).write(&mut bytes);
        bytes.extend_from_slice(&compressed);
        bytes.extend_from_slice(&self.sync);
        self.records = 0;
        self.block.clear();
        Ok(Some(bytes.into()))
    }
}

/// Reads a container, whose bytes come in pieces.
#[derive(Default)]
pub(crate) struct Blocks {
    bytes: BytesMut,
    sync: Option<[u8; SYNC]>,
}

impl Blocks {
    /// More bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The records of the next block; none where more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<ArchivedRecord>>, ContainerError> {
        if self.sync.is_none() {
            self.sync = self.header()?;
        }
        let Some(sync) = self.sync else {
            return Ok(None);
        };
        let mut reader = Reader::new(&self.bytes);
        let counts = reader.long().and_then(|count| Ok((count, reader.long()?)));
        let (count, size) = match counts {
            Ok(counts) => counts,
            Err(DecodeError::Truncated) if self.bytes.len() < COUNTS_BYTES_MAX => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let out_of_bounds = || ContainerError::Block(format!("{count} records in {size} bytes"));
        let size =
            usize::try_from(size).ok().filter(|size| *size <= BLOCK_BYTES_MAX).ok_or_else(out_of_bounds)?;
        let count = usize::try_from(count)
            .ok()
            .filter(|count| *count <= BLOCK_BYTES_MAX)
            .ok_or_else(out_of_bounds)?;
        if reader.left() < size + SYNC {
            return Ok(None);
        }
        let compressed = reader.take(size)?;
        if reader.take(SYNC)? != sync {
            return Err(ContainerError::Block("its marker is another".to_owned()));
        }
        let block = zstd::bulk::decompress(compressed, BLOCK_BYTES_MAX);
        let block = block.map_err(|error| ContainerError::Block(error.to_string()))?;
        let left = reader.left();
        self.bytes.advance(self.bytes.len() - left);
        let mut reader = Reader::new(&block);
        let mut records = Vec::new();
        for _ in 0..count {
            records.push(ArchivedRecord::read(&mut reader)?);
        }
        reader.finish()?;
        Ok(Some(records))
    }

    /// Refuses bytes that nothing was made of.
    pub(crate) fn finish(&self) -> Result<(), ContainerError> {
        if self.bytes.is_empty() && self.sync.is_some() { Ok(()) } else { Err(ContainerError::Truncated) }
    }

    /// Reads the header, once it is there.
    fn header(&mut self) -> Result<Option<[u8; SYNC]>, ContainerError> {
        let mut reader = Reader::new(&self.bytes);
        let read = read_header(&mut reader);
        let left = reader.left();
        match read {
            Ok((codec, schema, _)) if codec != CODEC || schema != SCHEMA => {
                Err(ContainerError::Header("its records are of another kind".to_owned()))
            }
            Ok((_, _, sync)) => {
                self.bytes.advance(self.bytes.len() - left);
                Ok(Some(sync))
            }
            Err(DecodeError::Truncated) if self.bytes.len() < HEADER_BYTES_MAX => Ok(None),
            Err(error) => Err(ContainerError::Header(error.to_string())),
        }
    }
}

/// Codec, schema and sync marker.
fn read_header(reader: &mut Reader<'_>) -> Result<(String, String, [u8; SYNC]), DecodeError> {
    let magic = reader.take(MAGIC.len())?;
    if magic != MAGIC {
        return Err(DecodeError::Framing(magic[0]));
    }
    let mut meta = std::collections::BTreeMap::<String, Bytes>::read(reader)?;
    let mut text = |name| {
        let value = meta.remove(name).unwrap_or_default();
        String::from_utf8(value.to_vec()).map_err(|_| DecodeError::Utf8)
    };
    let (codec, schema) = (text("avro.codec")?, text("avro.schema")?);
    let mut sync = [0; SYNC];
    sync.copy_from_slice(reader.take(SYNC)?);
    Ok((codec, schema, sync))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn record(offset: i64, value: Option<Vec<u8>>) -> ArchivedRecord {
        ArchivedRecord { offset, value: value.map(Bytes::from), ..ArchivedRecord::default() }
    }

    /// A file comes from a store in pieces that end anywhere.
    #[test]
    fn a_container_is_read_whatever_the_pieces_it_comes_in() {
        let records: Vec<_> = (0..50)
            .map(|offset| record(offset, (offset % 7 > 0).then(|| vec![offset as u8; 50_000])))
            .collect();
        let mut writer = Writer::new([7; SYNC]);
        let mut file = writer.header().to_vec();
        for record in &records {
            file.extend(writer.push(record).unwrap().unwrap_or_default());
        }
        file.extend(writer.block().unwrap().unwrap_or_default());
        for piece in [1, 13, 4_096, file.len()] {
            let (mut blocks, mut read) = (Blocks::default(), Vec::new());
            for piece in file.chunks(piece) {
                blocks.feed(piece);
                while let Some(block) = blocks.next().unwrap() {
                    read.extend(block);
                }
            }
            blocks.finish().unwrap();
            assert!(read == records, "in pieces of {piece}");
        }
        let mut blocks = Blocks::default();
        blocks.feed(&file[..file.len() - 1]);
        while blocks.next().unwrap().is_some() {}
        assert_eq!(blocks.finish(), Err(ContainerError::Truncated));
    }
}
