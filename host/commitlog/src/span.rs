//! What replicas send each other: the bytes of one index as they lie in the leader's log.
//!
//! An index owns all bytes behind the entry of the index before it. In front of its own entry these may be fillers, and
//! marks that repeat the index before it (earlier releases closed a log with one). They travel as headers: a mark has no
//! payload, and that of a filler is zeros.

mod check;
mod error;

use bytes::{BufMut, Bytes, BytesMut};

pub use self::error::SpanError;
use crate::format::{ENTRY_HEADER_LEN, EntryKind, Stored, StoredHeader, StoredKind, checksum_seed};
use crate::reader::Entry;
use crate::{Checkpoint, LogIdentity, LogPosition};

/// Most fillers and marks in front of an entry. A log of earlier releases has a mark for each stop, and records between
/// two of them.
pub(crate) const MAX_BEFORE: usize = 4096;

const HEADER: usize = ENTRY_HEADER_LEN as usize;

/// One entry with all that lies between it and the entry of the index before it, byte for byte.
/// [`crate::LogReader::span`] reads it, [`crate::Appender::append_span`] appends it to another replica's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntrySpan {
    /// Of the log that it was read from or decoded for.
    pub(crate) seed: u32,
    pub(crate) segment_size: u64,
    /// Fillers and marks in front of the entry.
    pub(crate) before: Vec<Stored>,
    pub(crate) entry: Stored,
    kind: EntryKind,
    payload: Bytes,
}

impl EntrySpan {
    /// `entry` is no filler, and all of it was verified.
    pub(crate) fn new(seed: u32, segment_size: u64, before: Vec<Stored>, entry: Stored, payload: Bytes) -> Self {
        let kind = match entry.header.kind {
            StoredKind::Entry(kind) => kind,
            StoredKind::Filler => EntryKind::Mark,
        };
        Self { seed, segment_size, before, entry, kind, payload }
    }

    /// Reads what [`Self::encode`] gave, for the log of this identity. The payload stays where it is. Whatever the bytes
    /// are, this gives an answer: header and payload are checked against their checksums, and each place against the one
    /// before it.
    ///
    /// # Errors
    /// [`SpanError`] says what does not hold.
    pub fn decode(bytes: Bytes, identity: &LogIdentity) -> Result<Self, SpanError> {
        let seed = checksum_seed(&identity.cluster_id, identity.shard);
        let mut before: Vec<Stored> = Vec::new();
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let head: &[u8; HEADER] = rest.first_chunk().ok_or(SpanError::Truncated { len: bytes.len() as u64 })?;
            let stored = check::header(seed, identity.segment_size, head, before.last())?;
            at += HEADER;
            match stored.header.kind {
                StoredKind::Filler => check::filler(seed, &stored)?,
                StoredKind::Entry(EntryKind::Mark) if at < bytes.len() => check::payload(seed, &stored, &[])?,
                StoredKind::Entry(_) => {
                    let payload = bytes.slice(at..);
                    check::length(&stored, payload.len())?;
                    check::payload(seed, &stored, &payload)?;
                    check::indexes(&before, &stored)?;
                    return Ok(Self::new(seed, identity.segment_size, before, stored, payload));
                }
            }
            if before.len() == MAX_BEFORE {
                return Err(SpanError::TooMany { max: MAX_BEFORE });
            }
            before.push(stored);
        }
    }

    /// The bytes to send, in two parts: headers, and the payload, which is not copied.
    pub fn parts(&self) -> [Bytes; 2] {
        let mut headers = BytesMut::with_capacity((self.before.len() + 1) * HEADER);
        for stored in self.before.iter().chain([&self.entry]) {
            headers.put_slice(&stored.bytes);
        }
        [headers.freeze(), self.payload.clone()]
    }

    /// The bytes to send, in one piece.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.encoded_len());
        self.parts().iter().for_each(|part| bytes.put_slice(part));
        bytes.freeze()
    }

    /// How many bytes it takes to send.
    pub fn encoded_len(&self) -> usize {
        (self.before.len() + 1) * HEADER + self.payload.len()
    }

    /// Where its first byte lies: behind the entry of the index before it, or where a segment's entries begin.
    pub fn begins(&self) -> LogPosition {
        LogPosition(self.first().position)
    }

    /// Checksum of what lies before its first byte; 0 at the beginning of the log.
    pub fn previous_checksum(&self) -> u32 {
        self.first().previous
    }

    /// Where the entry's header starts.
    pub fn position(&self) -> LogPosition {
        LogPosition(self.entry.header.position)
    }

    /// Where the payload's first byte lies.
    pub fn payload_position(&self) -> LogPosition {
        LogPosition(self.entry.header.position + ENTRY_HEADER_LEN)
    }

    /// First position after the entry.
    pub fn end(&self) -> LogPosition {
        LogPosition(self.entry.header.end())
    }

    /// Term of the leader that wrote the entry.
    pub fn term(&self) -> u64 {
        self.entry.header.term
    }

    /// Index of the entry, which all of the span belongs to.
    pub fn index(&self) -> u64 {
        self.entry.header.index
    }

    /// The leader's time, milliseconds since 1970.
    pub fn leader_time_ms(&self) -> u64 {
        self.entry.header.leader_time_ms
    }

    /// What the entry is.
    pub fn kind(&self) -> EntryKind {
        self.kind
    }

    /// The entry's payload.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Names the entry.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::new(&self.entry.header, self.entry.checksum)
    }

    /// The entry as a reader of the log finds it.
    pub fn entry(&self) -> Entry {
        Entry::new(&self.entry.header, self.kind, self.payload.clone())
    }

    fn first(&self) -> &StoredHeader {
        &self.before.first().unwrap_or(&self.entry).header
    }
}
