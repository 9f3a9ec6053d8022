//! The block: consecutive events of one batch, as bytes in the table.
//!
//! ```text
//! check        u32, little-endian   CRC-32C of the place and of all that follows
//! append time  i64, little-endian   microseconds since the Unix epoch
//! events       u32, little-endian   how many
//! then of each event: key, value    0, or length + 1, and so many bytes
//!                     headers       how many, and of each: length and bytes of name and of value
//! ```
//!
//! Lengths and the number of headers are LEB128. The place (topic, log partition, first offset) is
//! the row's key; it is in the check so that a block cannot be taken for another.

use bytes::{Buf, BufMut, Bytes};
use crc::{CRC_32_ISCSI, Crc, Table};

use crate::store::{Event, NewEvent};

/// Bytes after which a block takes no more events: with the row's framing below the 64 KiB that
/// the storage gives such a value, and little enough for a small read from the middle of a batch.
const BLOCK_BYTES: usize = 60 * 1024;
const HEAD_BYTES: usize = 4 + 8 + 4;
const CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// Where a block is: topic id, log partition, offset of its first event.
pub(super) type Place = (u32, u32, u64);

/// Encodes events from `place` on, and hands over each block with its place.
pub(super) fn encode<E>(
    mut place: Place,
    append_time: i64,
    events: &[NewEvent],
    mut put: impl FnMut(Place, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut block = Vec::with_capacity(BLOCK_BYTES + HEAD_BYTES);
    let mut rest = events;
    while !rest.is_empty() {
        block.clear();
        block.put_bytes(0, HEAD_BYTES);
        let mut count: u32 = 0;
        while let Some((event, others)) = rest.split_first() {
            if count > 0 && block.len() + event.bytes() > BLOCK_BYTES {
                break;
            }
            put_event(&mut block, event);
            count += 1;
            rest = others;
        }
        block[4..12].copy_from_slice(&append_time.to_le_bytes());
        block[12..16].copy_from_slice(&count.to_le_bytes());
        let check = check(place, &block[4..]);
        block[..4].copy_from_slice(&check.to_le_bytes());
        put(place, &block)?;
        place.2 += u64::from(count);
    }
    Ok(())
}

/// The offset after a block's last event; `None` where the block is damaged.
pub(super) fn end(place: Place, block: &[u8]) -> Option<u64> {
    let count = block.get(12..HEAD_BYTES)?.try_into().ok().map(u32::from_le_bytes)?;
    place.2.checked_add(u64::from(count))
}

/// The events of a block; `None` where it is damaged. They share one copy of its bytes.
pub(super) fn decode(place: Place, block: &[u8]) -> Option<Vec<Event>> {
    let (head, body) = block.split_at_checked(4)?;
    if check(place, body) != u32::from_le_bytes(head.try_into().ok()?) {
        return None;
    }
    let mut body = Bytes::copy_from_slice(body);
    let append_time = body.try_get_i64_le().ok()?;
    let count = u64::from(body.try_get_u32_le().ok()?);
    let end = place.2.checked_add(count)?;
    let events: Option<Vec<Event>> =
        (place.2..end).map(|offset| take_event(&mut body, offset, append_time)).collect();
    events.filter(|_| body.is_empty())
}

fn check(place: Place, body: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(&place.0.to_le_bytes());
    digest.update(&place.1.to_le_bytes());
    digest.update(&place.2.to_le_bytes());
    digest.update(body);
    digest.finalize()
}

fn put_event(block: &mut Vec<u8>, event: &NewEvent) {
    put_optional(block, event.key.as_ref());
    put_optional(block, event.value.as_ref());
    put_length(block, event.headers.len());
    for (name, value) in &event.headers {
        put_length(block, name.len());
        block.extend_from_slice(name.as_bytes());
        put_length(block, value.len());
        block.extend_from_slice(value);
    }
}

fn put_optional(block: &mut Vec<u8>, bytes: Option<&Bytes>) {
    put_length(block, bytes.map_or(0, |bytes| bytes.len() + 1));
    block.extend_from_slice(bytes.map_or(&[], |bytes| bytes));
}

fn put_length(block: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        block.push(length as u8 | 0x80);
        length >>= 7;
    }
    block.push(length as u8);
}

fn take_event(body: &mut Bytes, offset: u64, append_time: i64) -> Option<Event> {
    let key = take_optional(body)?;
    let value = take_optional(body)?;
    let headers = take_length(body)?;
    let headers: Option<Vec<(String, Bytes)>> = (0..headers).map(|_| take_header(body)).collect();
    Some(Event { offset, append_time, key, value, headers: headers? })
}

fn take_header(body: &mut Bytes) -> Option<(String, Bytes)> {
    let length = take_length(body)?;
    let name = String::from_utf8(take(body, length)?.to_vec()).ok()?;
    let length = take_length(body)?;
    Some((name, take(body, length)?))
}

fn take_optional(body: &mut Bytes) -> Option<Option<Bytes>> {
    match take_length(body)?.checked_sub(1) {
        Some(length) => take(body, length).map(Some),
        None => Some(None),
    }
}

fn take_length(body: &mut Bytes) -> Option<usize> {
    let mut length = 0;
    for shift in (0..u32::BITS).step_by(7) {
        let byte = body.try_get_u8().ok()?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(length);
        }
    }
    None
}

fn take(body: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= body.len()).then(|| body.split_to(length))
}
