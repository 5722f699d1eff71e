//! From header to header: where entries lie, without reading what they carry.

use std::sync::Arc;

use super::{LogReader, View};
use crate::format::{ENTRY_HEADER_LEN, EntryKind, Stored, StoredKind, padded};
use crate::{Checkpoint, LogPosition, ReadError};

/// Where an entry lies and what its header says. The header's own checksum was verified, the payload was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeaderAt {
    /// Where its header starts.
    pub position: LogPosition,
    /// First position after it, padding included.
    pub end: LogPosition,
    /// Term of the leader that wrote it.
    pub term: u64,
    /// Index in the replicated log.
    pub index: u64,
    /// The leader's time, milliseconds since 1970.
    pub leader_time_ms: u64,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of its payload.
    pub payload_len: u32,
    /// The checksum of all of it, as its header states it.
    pub checksum: u32,
}

impl EntryHeaderAt {
    fn new(stored: &Stored, kind: EntryKind) -> Self {
        let header = &stored.header;
        Self {
            position: LogPosition(header.position),
            end: LogPosition(header.end()),
            term: header.term,
            index: header.index,
            leader_time_ms: header.leader_time_ms,
            kind,
            payload_len: header.payload_len,
            checksum: stored.checksum,
        }
    }

    /// Names the entry, for a cut behind it ([`crate::Appender::cut`]) or for a snapshot that ends with it.
    pub fn checkpoint(&self) -> Checkpoint {
        let Self { position, end, term, index, checksum, .. } = *self;
        Checkpoint { position, end, term, index, checksum }
    }
}

impl LogReader {
    /// The header of every entry from `position` on, marks included, until the end of the log at the time of each call.
    /// `position` is an entry's position or end, or a segment's start. Payloads are stepped over: they are neither read
    /// nor verified. After an error the iterator ends.
    pub fn headers_from(&self, position: LogPosition) -> EntryHeaders {
        EntryHeaders { view: self.view.clone(), position: position.0, failed: false }
    }
}

/// Iterator over the headers of entries; see [`LogReader::headers_from`].
pub struct EntryHeaders {
    view: Arc<View>,
    position: u64,
    failed: bool,
}

impl EntryHeaders {
    /// Goes behind the entry or filler at the next place; `None` at the end of the log.
    fn step(&mut self) -> Option<Result<Stored, ReadError>> {
        let position = self.view.next_entry(self.position)?;
        let stored = self.view.header(position).and_then(|stored| {
            // A length that leads out of the log would not be that of an entry.
            self.view.locate(position, ENTRY_HEADER_LEN + padded(stored.header.payload_len.into()))?;
            Ok(stored)
        });
        match &stored {
            Ok(stored) => self.position = stored.header.end(),
            Err(_) => self.failed = true,
        }
        Some(stored)
    }
}

impl Iterator for EntryHeaders {
    type Item = Result<EntryHeaderAt, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            match self.step()? {
                Ok(stored) => {
                    if let StoredKind::Entry(kind) = stored.header.kind {
                        return Some(Ok(EntryHeaderAt::new(&stored, kind)));
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}
