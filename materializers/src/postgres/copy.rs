//! Rows in PostgreSQL's binary COPY format. Source: the PostgreSQL manual, COPY, "Binary Format".
//!
//! Written by hand because a load is a million rows of a dozen columns: a dynamic call and a type
//! look-up for each of them would cost more than the writing.

use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// 2000-01-01, where PostgreSQL counts from, in microseconds since the Unix epoch.
pub(crate) const POSTGRES_EPOCH: i64 = 946_684_800_000_000;
/// Bytes handed to the connection at a time.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: i16 = -1;
const TEXT_OID: i32 = 25;
const BYTEA_OID: i32 = 17;
const UUID_OID: i32 = 2950;
/// Families of `inet`: PostgreSQL's own numbers, whatever the platform.
const INET_V4: u8 = 2;
const INET_V6: u8 = 3;

/// Rows on their way to COPY.
pub(crate) struct CopyRows {
    bytes: BytesMut,
}

impl CopyRows {
    /// Begins a COPY.
    pub(crate) fn new() -> Self {
        let mut bytes = BytesMut::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4);
        bytes.put_slice(HEADER);
        Self { bytes }
    }

    /// What is to be sent now, if it is worth sending.
    pub(crate) fn full_chunk(&mut self) -> Option<Bytes> {
        (self.bytes.len() >= CHUNK_BYTES).then(|| self.bytes.split().freeze())
    }

    /// What is left, and the end.
    pub(crate) fn finish(mut self) -> Bytes {
        self.bytes.put_i16(TRAILER);
        self.bytes.freeze()
    }

    /// Begins a row of as many fields.
    pub(crate) fn row(&mut self, fields: usize) -> &mut Self {
        self.bytes.put_i16(fields as i16);
        self
    }

    /// A null.
    pub(crate) fn null(&mut self) -> &mut Self {
        self.bytes.put_i32(-1);
        self
    }

    /// A value, or a null.
    pub(crate) fn option<T>(
        &mut self,
        value: Option<T>,
        put: impl FnOnce(&mut Self, T) -> &mut Self,
    ) -> &mut Self {
        match value {
            Some(value) => put(self, value),
            None => self.null(),
        }
    }

    fn field(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.put_i32(bytes.len() as i32);
        self.bytes.put_slice(bytes);
        self
    }

    /// `text`. A NUL, which PostgreSQL cannot hold, becomes U+FFFD.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        if text.as_bytes().contains(&0) {
            return self.field(text.replace('\0', "\u{fffd}").as_bytes());
        }
        self.field(text.as_bytes())
    }

    /// `bytea`.
    pub(crate) fn bytea(&mut self, bytes: &[u8]) -> &mut Self {
        self.field(bytes)
    }

    /// `boolean`.
    pub(crate) fn boolean(&mut self, value: bool) -> &mut Self {
        self.field(&[u8::from(value)])
    }

    /// `integer`.
    pub(crate) fn integer(&mut self, value: i32) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    /// `bigint`.
    pub(crate) fn bigint(&mut self, value: i64) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    /// `uuid`.
    pub(crate) fn uuid(&mut self, value: Uuid) -> &mut Self {
        self.field(value.as_bytes())
    }

    /// `timestamptz`, of microseconds since the Unix epoch.
    pub(crate) fn time(&mut self, micros: i64) -> &mut Self {
        self.field(&micros.saturating_sub(POSTGRES_EPOCH).to_be_bytes())
    }

    /// `inet`, of one address.
    pub(crate) fn inet(&mut self, ip: IpAddr) -> &mut Self {
        match ip {
            IpAddr::V4(ip) => {
                self.bytes.put_i32(8);
                self.bytes.put_slice(&[INET_V4, 32, 0, 4]);
                self.bytes.put_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                self.bytes.put_i32(20);
                self.bytes.put_slice(&[INET_V6, 128, 0, 16]);
                self.bytes.put_slice(&ip.octets());
            }
        }
        self
    }

    /// `jsonb`, of its text. A NUL, escaped in JSON, which `jsonb` cannot hold, becomes U+FFFD.
    pub(crate) fn jsonb(&mut self, json: &str) -> &mut Self {
        let clean;
        let json = if json.contains("\\u0000") {
            clean = without_nul(json);
            &clean
        } else {
            json
        };
        self.bytes.put_i32(1 + json.len() as i32);
        self.bytes.put_u8(1);
        self.bytes.put_slice(json.as_bytes());
        self
    }

    /// `text[]`.
    pub(crate) fn texts<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a str>) -> &mut Self {
        self.array(TEXT_OID, texts, |rows, text| rows.text(text))
    }

    /// `bytea[]`.
    pub(crate) fn byteas<'a>(&mut self, values: impl ExactSizeIterator<Item = &'a [u8]>) -> &mut Self {
        self.array(BYTEA_OID, values, |rows, value| rows.bytea(value))
    }

    /// `uuid[]`.
    pub(crate) fn uuids(&mut self, values: impl ExactSizeIterator<Item = Uuid>) -> &mut Self {
        self.array(UUID_OID, values, |rows, value| rows.uuid(value))
    }

    fn array<T>(
        &mut self,
        oid: i32,
        values: impl ExactSizeIterator<Item = T>,
        put: impl for<'b> Fn(&'b mut Self, T) -> &'b mut Self,
    ) -> &mut Self {
        let at = self.bytes.len();
        self.bytes.put_i32(0);
        let count = values.len() as i32;
        self.bytes.put_i32(i32::from(count > 0));
        self.bytes.put_i32(0);
        self.bytes.put_i32(oid);
        if count > 0 {
            self.bytes.put_i32(count);
            self.bytes.put_i32(1);
        }
        for value in values {
            put(self, value);
        }
        let length = (self.bytes.len() - at - 4) as i32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
        self
    }
}

/// JSON text whose escaped NULs are replaced; an escaped backslash before `u0000` is none of them.
fn without_nul(json: &str) -> String {
    let mut clean = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        clean.push_str(before);
        let (escape, after) = match escape.strip_prefix("\\u0000") {
            Some(after) => ("\\ufffd", after),
            // What follows a backslash is ASCII in JSON.
            None => escape.split_at(escape.len().min(2)),
        };
        clean.push_str(escape);
        rest = after;
    }
    clean + rest
}

#[cfg(test)]
mod tests {
    use super::without_nul;

    #[test]
    fn only_escaped_nuls_are_replaced() {
        assert_eq!(
            without_nul(r#"{"a":"x\u0000y\\u0000\"\\\u0000"}"#),
            r#"{"a":"x\ufffdy\\u0000\"\\\ufffd"}"#
        );
    }
}
