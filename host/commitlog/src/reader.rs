//! Reading: ranges of the mapped segments, and entries one after the other; without a copy where the bytes will never
//! change ([`crate::settled`]), as copies above that.

mod headers;
mod spans;
mod view;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

pub use self::headers::{EntryHeaderAt, EntryHeaders};
use self::view::Segments;
pub(crate) use self::view::View;
use crate::disk::bytes_of;
use crate::format::{ENTRY_HEADER_LEN, EntryKind, StoredHeader, StoredKind};
use crate::{Checkpoint, LogPosition, ReadError};

/// One entry as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its header starts.
    pub position: LogPosition,
    /// Where the payload's first byte lies: [`Self::position`] plus the header.
    pub payload_position: LogPosition,
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
    /// The bytes that were appended. They never change, whatever becomes of the log.
    pub payload: Bytes,
}

impl Entry {
    pub(crate) fn new(header: &StoredHeader, kind: EntryKind, payload: Bytes) -> Self {
        Self {
            position: LogPosition(header.position),
            payload_position: LogPosition(header.position + ENTRY_HEADER_LEN),
            end: LogPosition(header.end()),
            term: header.term,
            index: header.index,
            leader_time_ms: header.leader_time_ms,
            kind,
            payload,
        }
    }
}

/// Reads what was appended, durable or not. Cheap to clone; every thread may have one.
///
/// Bytes handed out never change. Those that were durable share the mapped segment and keep it alive. They are the page
/// cache itself: a sector that the disk cannot read any more ends the process with a signal, as with any mapped file;
/// whoever must not risk that reads a copy of the log. What may still be cut off is handed out as a copy (ruling 28).
#[derive(Clone)]
pub struct LogReader {
    view: Arc<View>,
}

impl LogReader {
    pub(crate) fn new(view: Arc<View>) -> Self {
        Self { view }
    }

    /// The same log without what lies before this position. For a log that is only read: the new reader would not see it
    /// grow.
    pub(crate) fn without_before(&self, position: LogPosition) -> Self {
        let View { segment_size, seed, .. } = *self.view;
        let segments = self.view.segments.read().unwrap_or_else(PoisonError::into_inner);
        let (start, mappings) = (segments.start, segments.mappings.clone());
        let behind = self.view.damage.iter().filter(|(_, to)| *to > position.0).copied();
        let damage = std::iter::once((start, position.0)).chain(behind).collect();
        let appended = AtomicU64::new(self.view.appended());
        Self::new(Arc::new(View {
            segment_size,
            seed,
            appended,
            settled: self.view.settled.clone(),
            segments: RwLock::new(Segments { start, mappings }),
            damage,
        }))
    }

    /// First position that the segments cover.
    pub fn start(&self) -> LogPosition {
        LogPosition(self.view.start())
    }

    /// First position that is not appended yet.
    pub fn end(&self) -> LogPosition {
        LogPosition(self.view.appended())
    }

    /// What lies below never changes, and is handed out without a copy.
    pub fn settled(&self) -> LogPosition {
        LogPosition(self.view.settled().position())
    }

    /// The `len` bytes from `position` on, without a copy if they are durable, and without a check against the checksum (that
    /// covers whole entries: see [`Self::entries_from`]).
    ///
    /// # Errors
    /// The range is not inside the appended entries of one segment.
    pub fn read(&self, position: LogPosition, len: usize) -> Result<Bytes, ReadError> {
        match self.view.locate(position.0, len as u64) {
            Ok((mapping, offset)) => Ok(bytes_of(mapping, &self.view.settled, position.0, offset, len)),
            // An empty payload may lie at the very end of a segment.
            Err(ReadError::OutsideEntries { .. }) if len == 0 => Ok(Bytes::new()),
            Err(error) => Err(error),
        }
    }

    /// The entry that starts at `position`, verified.
    ///
    /// # Errors
    /// No sound entry starts there.
    pub fn entry_at(&self, position: LogPosition) -> Result<Entry, ReadError> {
        match self.view.entry(position.0)? {
            (Some(entry), _) => Ok(entry),
            (None, _) => Err(ReadError::OutsideEntries { position, len: 0 }),
        }
    }

    /// What to store with a snapshot whose last entry is the one that starts at `position`. The entry is read and
    /// verified; [`crate::Appended::checkpoint`] and [`crate::Recovery::checkpoint`] cost nothing.
    ///
    /// # Errors
    /// No sound entry starts there.
    pub fn checkpoint_at(&self, position: LogPosition) -> Result<Checkpoint, ReadError> {
        match self.view.stored(position.0)? {
            (stored, _) if stored.header.kind != StoredKind::Filler => {
                Ok(Checkpoint::new(&stored.header, stored.checksum))
            }
            _ => Err(ReadError::OutsideEntries { position, len: 0 }),
        }
    }

    /// Every entry from `position` on, marks included, each verified, until the end of the log at the time of each
    /// call. `position` is an entry's position or end, or a segment's start. After an error the iterator ends.
    pub fn entries_from(&self, position: LogPosition) -> Entries {
        Entries { view: self.view.clone(), position: position.0, failed: false }
    }
}

/// Iterator over entries; see [`LogReader::entries_from`].
pub struct Entries {
    view: Arc<View>,
    position: u64,
    failed: bool,
}

impl Entries {
    /// Where the next entry will be looked for. An iterator that has reached the end goes on when the log has grown.
    pub fn position(&self) -> LogPosition {
        LogPosition(self.position)
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            self.position = self.view.next_entry(self.position)?;
            match self.view.entry(self.position) {
                Ok((entry, end)) => {
                    self.position = end;
                    if let Some(entry) = entry {
                        return Some(Ok(entry));
                    }
                }
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
