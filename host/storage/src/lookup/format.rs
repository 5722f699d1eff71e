//! What is in a lookup file (`docs/lookup-index.md` gives every byte).

use std::cmp::Reverse;

use vouch_broker::{QueueOffset, RecordPosition, TopicId};
use xxhash_rust::xxh3::Xxh3;

use super::section::{Item, Section, u32_at, u64_at};

/// Messages of a queue whose times share a sample.
pub const SAMPLE_EVERY: u64 = 64;

/// What a message is looked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term<'a> {
    /// Its client id.
    Id(&'a str),
    /// One of its keys.
    Key(&'a str),
}

impl Term<'_> {
    /// The hash under which messages of a topic with this term are filed. Different terms may share one: whoever finds
    /// something by it looks at the message.
    pub fn hash(self, topic: TopicId) -> u64 {
        let (kind, text) = match self {
            Self::Id(text) => (1, text),
            Self::Key(text) => (2, text),
        };
        let mut hash = Xxh3::new();
        hash.update(&[kind]);
        hash.update(&topic.0.to_le_bytes());
        hash.update(text.as_bytes());
        hash.digest()
    }
}

/// Says that a message has a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Posting {
    /// [`Term::hash`].
    pub(crate) hash: u64,
    /// Log position of the message.
    pub(crate) position: RecordPosition,
    /// Number of the row that holds it.
    pub(crate) row: u32,
    /// Its offset after the row's first.
    pub(crate) index: u32,
}

impl Posting {
    /// The order in a run: what belongs to one hash lies together, newest first.
    pub(super) fn order(&self) -> impl Ord + use<> {
        (self.hash, Reverse(self.position), self.row, self.index)
    }
}

impl Item for Posting {
    const LEN: usize = 24;

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hash.to_le_bytes());
        out.extend_from_slice(&self.position.0.to_le_bytes());
        out.extend_from_slice(&self.row.to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Self {
        Self {
            hash: u64_at(bytes, 0),
            position: RecordPosition(u64_at(bytes, 8)),
            row: u32_at(bytes, 16),
            index: u32_at(bytes, 20),
        }
    }
}

/// A stretch of a queue that the file covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueStretch {
    /// The topic.
    pub topic: TopicId,
    /// The queue.
    pub queue: u32,
    /// Queue offset of its first message.
    pub first: QueueOffset,
    /// Messages in it.
    pub count: u64,
    /// Number of its first sample.
    pub(super) sample: u64,
}

impl QueueStretch {
    /// The offset after its last message.
    pub fn end(&self) -> QueueOffset {
        self.first.plus(self.count)
    }

    /// How many samples it has.
    pub(super) fn samples(&self) -> u64 {
        self.count.div_ceil(SAMPLE_EVERY)
    }
}

impl Item for QueueStretch {
    const LEN: usize = 32;

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.topic.0.to_le_bytes());
        out.extend_from_slice(&self.queue.to_le_bytes());
        for number in [self.first.0, self.count, self.sample] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn read(bytes: &[u8]) -> Self {
        Self {
            topic: TopicId(u32_at(bytes, 0)),
            queue: u32_at(bytes, 4),
            first: QueueOffset(u64_at(bytes, 8)),
            count: u64_at(bytes, 16),
            sample: u64_at(bytes, 24),
        }
    }
}

/// The latest time, in milliseconds since 1970, among the messages of a row up to and including a group of
/// [`SAMPLE_EVERY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample(pub(super) u64);

impl Item for Sample {
    const LEN: usize = 8;

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Self {
        Self(u64_at(bytes, 0))
    }
}

/// Where a run lies: postings in their order.
impl Item for Section<Posting> {
    const LEN: usize = 16;

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first_page.to_le_bytes());
        out.extend_from_slice(&self.items.to_le_bytes());
    }

    fn read(bytes: &[u8]) -> Self {
        Self::new(u64_at(bytes, 0), u64_at(bytes, 8))
    }
}
