//! `ArchivedRecord`: an event of the log in an archive, its bytes as they were.

use bytes::Bytes;

use crate::codec::datum::record;

/// The schema of archive files, as JSON.
pub const SCHEMA: &str = include_str!("../avro/archived_record.avsc");

/// A header of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Its name; one may come twice.
    pub name: String,
    /// Its value.
    pub value: Bytes,
}

/// An event of the log as it stands in an archive. It is on no stream, and framed by the file that it is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArchivedRecord {
    /// Its place in the log partition that it was read from.
    pub offset: i64,
    /// Its intake time, microseconds since the Unix epoch: never less than that of the record before it.
    pub intake_time: i64,
    /// As it was appended.
    pub key: Option<Bytes>,
    /// As it was appended, with its framing.
    pub value: Option<Bytes>,
    /// As they were appended, in order.
    pub headers: Vec<Header>,
}

record!(Header { name, value });
record!(ArchivedRecord { offset, intake_time, key, value, headers });
