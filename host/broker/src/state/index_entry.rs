//! One message as a queue's index knows it, and its bytes in a part.

use bytes::Bytes;

use crate::{RecordPosition, TagHash};

/// Bytes of an entry of a queue's index.
pub(super) const INDEX_ENTRY_LEN: usize = 16;

/// One message of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Log position of the record that holds the body.
    pub position: RecordPosition,
    /// Hash of its tag.
    pub tag: TagHash,
}

impl IndexEntry {
    /// Of a message whose entry is lost with its part: no log reaches so far. Only where nothing is written.
    pub(super) const UNKNOWN: Self = Self { position: RecordPosition::BEYOND, tag: TagHash(0) };

    pub(super) fn to_bytes(self) -> [u8; INDEX_ENTRY_LEN] {
        let mut bytes = [0; INDEX_ENTRY_LEN];
        bytes[..8].copy_from_slice(&self.position.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.tag.0.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; INDEX_ENTRY_LEN]) -> Self {
        // Two words of the value rather than two slices of the bytes: nothing here can fail.
        let both = u128::from_le_bytes(bytes);
        Self { position: RecordPosition(both as u64), tag: TagHash((both >> 64) as u64) }
    }
}

/// Where the place of a message in the log is to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryAt {
    /// It lies at this position.
    Log(RecordPosition),
    /// A part says it: the part's id (later parts have higher ones), and the entry's bytes, which nobody has read yet.
    Part(u64, Bytes),
}

impl EntryAt {
    /// The message's log position. May read from the disk, and does not verify what it reads: for what is shown, and not
    /// for what is decided.
    pub fn position(&self) -> Option<RecordPosition> {
        match self {
            Self::Log(position) => Some(*position),
            Self::Part(_, bytes) => bytes.first_chunk().map(|bytes| IndexEntry::from_bytes(*bytes).position),
        }
    }
}

/// The entries that these bytes are.
pub(super) fn entries(bytes: &[u8]) -> impl Iterator<Item = IndexEntry> + '_ {
    bytes.as_chunks::<INDEX_ENTRY_LEN>().0.iter().map(|entry| IndexEntry::from_bytes(*entry))
}
