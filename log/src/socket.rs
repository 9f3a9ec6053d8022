//! The log store over a unix socket: one process holds the log, others of the machine reach it.
//!
//! [`serve`] offers any store at a path, for the user of the process alone (mode 0600);
//! [`SocketLog`] is a store that passes every call on. Refusals cross as they are. Where the holder
//! is away, calls say [`LogError::Unavailable`](crate::LogError::Unavailable), and connect anew
//! each time.

mod client;
mod server;
mod wire;

pub use client::SocketLog;
pub use server::{ServeError, serve};

use crate::store::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, EVENT_HEADERS_MAX};

/// Framing of one event on the wire, bytes at most: tags, lengths, offset and append time.
const EVENT_FRAMING_BYTES: usize = 48;
/// Framing of one header, bytes at most: three tags and lengths.
const HEADER_FRAMING_BYTES: usize = 16;
/// Largest message: a batch at every limit at once, so that what passes them never fails here.
const MESSAGE_BYTES_MAX: usize =
    BATCH_BYTES_MAX + BATCH_EVENTS_MAX * (EVENT_FRAMING_BYTES + EVENT_HEADERS_MAX * HEADER_FRAMING_BYTES);
