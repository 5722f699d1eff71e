//! The index of one queue: queue offset → where the message's record lies.

use crate::TagHash;

/// One message of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Log position of the record that holds the body.
    pub position: u64,
    /// Hash of its tag.
    pub tag: TagHash,
}

/// Index of one queue. Behind a trait because it grows with the number of messages (architecture §6).
///
/// # To ensure correctness
///
/// Offsets are contiguous from 0 (I6): `append` returns the length before it, and every offset below `len` resolves.
pub trait QueueIndex: Send {
    /// Adds an entry and returns its queue offset.
    fn append(&mut self, entry: IndexEntry) -> u64;
    /// The entry at this offset.
    fn get(&self, offset: u64) -> Option<IndexEntry>;
    /// Number of entries, which is the next offset.
    fn len(&self) -> u64;
    /// Whether nothing was ever appended.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Keeps the index in memory: 16 bytes a message.
#[derive(Debug, Default)]
pub struct MemoryQueueIndex(Vec<IndexEntry>);

impl QueueIndex for MemoryQueueIndex {
    fn append(&mut self, entry: IndexEntry) -> u64 {
        self.0.push(entry);
        self.0.len() as u64 - 1
    }

    fn get(&self, offset: u64) -> Option<IndexEntry> {
        self.0.get(usize::try_from(offset).ok()?).copied()
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }
}
