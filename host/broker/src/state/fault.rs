//! What can be wrong with what was written of a state, and what a state goes without for it.
//!
//! Snapshots and parts name each other, so do their errors: they stand here together, below both.

use std::io;
use std::ops::Range;

use crate::record::codec::DecodeError;
use crate::{QueueOffset, TopicId};

/// Why a snapshot, or a part, cannot be used. Start from an older snapshot, or from the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not a snapshot.
    #[error("the file is not a snapshot of Vouch")]
    Magic,
    /// The position that it covers is damaged.
    #[error("the head of the snapshot is damaged: its checksum is {found:08x}, its bytes give {computed:08x}")]
    Position {
        /// As written.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// A section is damaged.
    #[error("section {section} of the snapshot is damaged: {why}")]
    Section {
        /// Number of the section.
        section: u16,
        /// What is wrong.
        why: DecodeError,
    },
    /// A section that this version does not read, or that is missing.
    #[error(
        "the snapshot has section {found} version {version} where section {expected} was expected; it was written by another version of Vouch"
    )]
    Unexpected {
        /// Found.
        found: u16,
        /// Its version.
        version: u8,
        /// Expected.
        expected: u16,
    },
    /// A section that says what a log of this feature level cannot: no version writes that.
    #[error(
        "the snapshot has section {section} version {version}, which needs feature level {needs}, and its log has level {level}"
    )]
    Level {
        /// Number of the section.
        section: u16,
        /// Its version.
        version: u8,
        /// The level from which on it is written.
        needs: u32,
        /// That of the log.
        level: u32,
    },
    /// A part that it names, or that is to be taken over, cannot be used.
    #[error("part {part} of the snapshot cannot be used: {why}")]
    Part {
        /// Its id.
        part: u64,
        /// What is wrong.
        why: PartError,
    },
    /// Something follows the last section.
    #[error("the snapshot goes on after its last section: {0}")]
    Trailing(DecodeError),
    /// The file ends early.
    #[error("the snapshot is cut off: {0}")]
    Short(DecodeError),
}

/// Why a part cannot be used. What names it must be given up: take an older snapshot, or the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// It is not there, or could not be read.
    #[error("it cannot be read: {why}")]
    Io {
        /// What the caller met.
        kind: io::ErrorKind,
        /// The number that the system gave it, if it was the system.
        errno: Option<i32>,
        /// Its words.
        why: String,
    },
    /// Not a part.
    #[error("the file is not a part of a snapshot of Vouch")]
    Magic,
    /// A layout that this version does not read.
    #[error("its format is {0}, which was written by another version of Vouch")]
    Version(u32),
    /// Another part lies where this one should.
    #[error("the file says that it is part {0}")]
    Id(u64),
    /// Cut off, or longer than it was.
    #[error("it has {found} bytes and was written with {written}")]
    Length {
        /// Bytes that are there.
        found: u64,
        /// Bytes that its head tells.
        written: u64,
    },
    /// Head, table or entries are damaged.
    #[error("the checksum of its {what} is {found:08x}, its bytes give {computed:08x}")]
    Checksum {
        /// What is damaged.
        what: &'static str,
        /// As written.
        found: u32,
        /// As computed.
        computed: u32,
    },
    /// Under this id lies a part with other contents than the snapshot names.
    #[error("its checksum is {found:08x}; the snapshot names a part with {named:08x}")]
    Other {
        /// Checksum in the snapshot.
        named: u32,
        /// Checksum of the part.
        found: u32,
    },
    /// The table says what no version writes.
    #[error("its table cannot be: {0}")]
    Layout(DecodeError),
    /// It holds other entries than the state has next, or another stretch of them.
    #[error("it does not fit the state: {0}")]
    Misfit(&'static str),
}

impl PartError {
    pub(super) fn io(error: &io::Error) -> Self {
        Self::Io { kind: error.kind(), errno: error.raw_os_error(), why: error.to_string() }
    }

    /// The same with the part's id.
    pub(super) fn of(self, part: u64) -> SnapshotError {
        SnapshotError::Part { part, why: self }
    }
}

/// Neighbouring messages of a queue of which nobody knows any more where in the log they lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueGap {
    /// The topic.
    pub topic: TopicId,
    /// The queue.
    pub queue: u32,
    /// From the first to behind the last.
    pub offsets: Range<QueueOffset>,
}

/// What a state does without that was read without some of its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Messages, ascending by topic, queue and offset.
    pub queues: Vec<QueueGap>,
    /// Messages that were remembered for resends, and are no longer.
    pub sent: u64,
    /// Outcomes of ended transactions that were remembered, and are no longer.
    pub outcomes: u64,
}
