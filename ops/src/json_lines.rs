//! Files of events in JSON, one a line.

use std::{
    fmt::Display,
    io::{self, Read},
    path::Path,
};

use serde::de::DeserializeOwned;
use serviceradar_schemas::json::{self, JsonError};

/// Longest line that is read, bytes: as long as an event may be, with room for what JSON adds.
const LINE_BYTES_MAX: usize = 8 << 20;
/// Bytes of lines that are read at a time.
const PIECE_BYTES: u64 = 2 << 20;
/// Refused events that are told one by one.
const REFUSED_TOLD: u64 = 20;

/// A file in pieces of whole lines.
pub(crate) struct Pieces<R> {
    file: R,
    /// What was read behind the end of the last whole line.
    rest: Vec<u8>,
}

impl<R: Read> Pieces<R> {
    /// From where it stands.
    pub(crate) fn of(file: R) -> Self {
        Self { file, rest: Vec::new() }
    }
}

impl<R: Read> Iterator for Pieces<R> {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut text = std::mem::take(&mut self.rest);
        text.reserve(PIECE_BYTES as usize + 1);
        loop {
            match self.file.by_ref().take(PIECE_BYTES).read_to_end(&mut text) {
                Err(error) => return Some(Err(error)),
                Ok(0) => return (!text.is_empty()).then_some(Ok(text)),
                Ok(read) => {
                    let new = text.len() - read;
                    if let Some(end) = text[new..].iter().rposition(|byte| *byte == b'\n') {
                        self.rest = text.split_off(new + end + 1);
                        return Some(Ok(text));
                    }
                    // No line is longer: whoever reads it says so.
                    if text.len() > LINE_BYTES_MAX {
                        return Some(Ok(text));
                    }
                }
            }
        }
    }
}

/// The lines of a piece, blank ones too.
pub(crate) fn lines(piece: &[u8]) -> impl Iterator<Item = &[u8]> {
    piece.split_inclusive(|byte| *byte == b'\n')
}

/// Why a line is no event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// What is behind it in its piece may be a part of it.
    #[error("longer than {LINE_BYTES_MAX} bytes: one event is one line")]
    TooLong,
    /// It is no event in JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// The event of a line; none where it is blank.
pub(crate) fn event<E: DeserializeOwned>(line: &[u8]) -> Option<Result<E, LineError>> {
    if line.len() > LINE_BYTES_MAX {
        return Some(Err(LineError::TooLong));
    }
    (!line.trim_ascii().is_empty()).then(|| json::read(line).map_err(LineError::from))
}

/// Where an event is in its file, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// On a line.
    Line(usize),
    /// A record of a container.
    Record(usize),
}

/// Events that the pipeline would put among the dead letters: how many.
#[derive(Debug, Default)]
pub(crate) struct Refused(pub(crate) u64);

impl Refused {
    /// One more, which is told as long as there are few.
    pub(crate) fn tell(&mut self, file: &Path, at: At, why: &dyn Display) {
        self.0 += 1;
        if self.0 > REFUSED_TOLD {
            return;
        }
        let file = file.display();
        match at {
            At::Line(line) => tracing::warn!(%file, line, %why, "refused, as the pipeline would"),
            At::Record(record) => tracing::warn!(%file, record, %why, "refused, as the pipeline would"),
        }
    }

    /// Says how many there were, where not all were told.
    pub(crate) fn tell_all(&self) {
        if self.0 > REFUSED_TOLD {
            tracing::warn!(events = self.0, "refused in all");
        }
    }
}
