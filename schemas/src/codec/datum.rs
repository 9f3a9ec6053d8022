//! Avro's binary encoding of Rust types, by the schema that follows from their fields in order.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::DecodeError;
use crate::Text;

/// Items that are made room for before the first is read: a count is only a promise.
const RESERVED_ITEMS_MAX: usize = 256;

/// A type with one Avro encoding.
pub trait Datum: Sized {
    /// Appends the encoding.
    fn write(&self, bytes: &mut Vec<u8>);
    /// Reads one; the reader stands behind it afterwards.
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// Bytes that are still to be read.
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.bytes.len()
    }

    /// Refuses bytes that nothing has read.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            left => Err(DecodeError::LeftOver(left)),
        }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// A zigzag integer of variable length.
    #[inline]
    pub fn long(&mut self) -> Result<i64, DecodeError> {
        let mut value = 0u64;
        for (index, &byte) in self.bytes.iter().enumerate() {
            // The tenth byte has room for one bit.
            if index == 9 && byte > 1 {
                return Err(DecodeError::Integer);
            }
            value |= u64::from(byte & 0x7F) << (7 * index);
            if byte < 0x80 {
                self.bytes = &self.bytes[index + 1..];
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(DecodeError::Truncated)
    }

    /// A length: not negative, and no more than there are bytes left, since nothing takes none.
    pub fn length(&mut self) -> Result<usize, DecodeError> {
        let length = self.long()?;
        let bytes = usize::try_from(length).map_err(|_| DecodeError::Length(length))?;
        if bytes > self.left() {
            return Err(DecodeError::Truncated);
        }
        Ok(bytes)
    }

    /// Bytes with their length before them.
    pub fn sized(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.length()?;
        self.take(length)
    }

    /// Text.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.sized()?).map_err(|_| DecodeError::Utf8)
    }

    /// The blocks of an array or map: `block` reads so many items, which take a byte each at least.
    /// A count below zero is followed by the block's size in bytes, which must be true.
    pub fn blocks(
        &mut self,
        mut block: impl FnMut(&mut Self, usize) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            let size = if count < 0 { Some(self.length()?) } else { None };
            let items = usize::try_from(count.unsigned_abs()).map_err(|_| DecodeError::Integer)?;
            let before = self.left();
            if items > size.unwrap_or(before) {
                return Err(DecodeError::Truncated);
            }
            block(self, items)?;
            let read = before - self.left();
            if read < items || size.is_some_and(|size| size != read) {
                return Err(DecodeError::Length(count));
            }
        }
    }
}

/// Appends a zigzag integer of variable length.
#[inline]
fn write_long(value: i64, bytes: &mut Vec<u8>) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        bytes.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    bytes.push(zigzag as u8);
}

fn write_text(text: &str, bytes: &mut Vec<u8>) {
    write_long(text.len() as i64, bytes);
    bytes.extend_from_slice(text.as_bytes());
}

impl Datum for i64 {
    fn write(&self, bytes: &mut Vec<u8>) {
        write_long(*self, bytes);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.long()
    }
}

impl Datum for i32 {
    fn write(&self, bytes: &mut Vec<u8>) {
        write_long(i64::from(*self), bytes);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        i32::try_from(reader.long()?).map_err(|_| DecodeError::Integer)
    }
}

impl Datum for bool {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(*self));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(DecodeError::Boolean),
        }
    }
}

impl Datum for String {
    fn write(&self, bytes: &mut Vec<u8>) {
        write_text(self, bytes);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.text().map(str::to_owned)
    }
}

impl Datum for Text {
    fn write(&self, bytes: &mut Vec<u8>) {
        write_text(self, bytes);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.text().map(Text::from)
    }
}

impl Datum for Bytes {
    fn write(&self, bytes: &mut Vec<u8>) {
        write_long(self.len() as i64, bytes);
        bytes.extend_from_slice(self);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.sized().map(Bytes::copy_from_slice)
    }
}

/// A union of null and a type, null first.
impl<T: Datum> Datum for Option<T> {
    fn write(&self, bytes: &mut Vec<u8>) {
        write_long(i64::from(self.is_some()), bytes);
        if let Some(value) = self {
            value.write(bytes);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.long()? {
            0 => Ok(None),
            1 => T::read(reader).map(Some),
            branch => Err(DecodeError::Branch(branch)),
        }
    }
}

impl<T: Datum> Datum for Vec<T> {
    fn write(&self, bytes: &mut Vec<u8>) {
        if !self.is_empty() {
            write_long(self.len() as i64, bytes);
            for item in self {
                item.write(bytes);
            }
        }
        write_long(0, bytes);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut items = Vec::new();
        reader.blocks(|reader, count| {
            items.reserve(count.min(RESERVED_ITEMS_MAX));
            for _ in 0..count {
                items.push(T::read(reader)?);
            }
            Ok(())
        })?;
        Ok(items)
    }
}

/// Of a key that comes twice, the last counts.
impl<K: Datum + Ord, T: Datum> Datum for BTreeMap<K, T> {
    fn write(&self, bytes: &mut Vec<u8>) {
        if !self.is_empty() {
            write_long(self.len() as i64, bytes);
            for (key, value) in self {
                key.write(bytes);
                value.write(bytes);
            }
        }
        write_long(0, bytes);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut entries = Vec::new();
        reader.blocks(|reader, count| {
            entries.reserve(count.min(RESERVED_ITEMS_MAX));
            for _ in 0..count {
                entries.push((K::read(reader)?, T::read(reader)?));
            }
            Ok(())
        })?;
        Ok(entries.into_iter().collect())
    }
}

/// A record: its fields in the order of its schema.
macro_rules! record {
    ($type:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::codec::datum::Datum for $type {
            fn write(&self, bytes: &mut Vec<u8>) {
                let Self { $($field),+ } = self;
                $($crate::codec::datum::Datum::write($field, bytes);)+
            }

            fn read(
                reader: &mut $crate::codec::datum::Reader<'_>,
            ) -> Result<Self, $crate::codec::DecodeError> {
                $(let $field = $crate::codec::datum::Datum::read(reader)?;)+
                Ok(Self { $($field),+ })
            }
        }
    };
}

/// An enum: its symbols in the order of its schema.
macro_rules! symbols {
    ($type:ident { $($index:literal $symbol:ident),+ $(,)? }) => {
        impl $crate::codec::datum::Datum for $type {
            fn write(&self, bytes: &mut Vec<u8>) {
                let index: i64 = match self { $(Self::$symbol => $index),+ };
                $crate::codec::datum::Datum::write(&index, bytes);
            }

            fn read(
                reader: &mut $crate::codec::datum::Reader<'_>,
            ) -> Result<Self, $crate::codec::DecodeError> {
                match reader.long()? {
                    $($index => Ok(Self::$symbol),)+
                    index => Err($crate::codec::DecodeError::Symbol { name: stringify!($type).to_owned(), index }),
                }
            }
        }
    };
}

pub(crate) use {record, symbols};
