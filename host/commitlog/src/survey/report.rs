//! What a look at a log finds, for people and for programs.

use std::path::PathBuf;

use crate::LogPosition;

/// To which log a file belongs, as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// The shard.
    pub shard: u16,
    /// Size of a segment in bytes.
    pub segment_size: u64,
}

/// A range of the log in which no entry is whole, below a position that was durable: no torn tail, but damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// The segment file, which may be missing.
    pub file: PathBuf,
    /// Where in the file the range begins, in bytes.
    pub offset: u64,
    /// Bytes of the range. 0 where whole entries meet that do not follow one another.
    pub length: u64,
    /// First position of the range.
    pub from: LogPosition,
    /// First position after it: the next whole entry or segment, or the last position known durable.
    pub to: LogPosition,
    /// What does not hold at its beginning.
    pub reason: String,
    /// Entries in it whose header is sound and whose payload is not.
    pub headers: u64,
    /// Index of the last whole entry before it, if there is one.
    pub index_before: Option<u64>,
    /// Index of the first whole entry after it, if there is one.
    pub index_after: Option<u64>,
}

impl DamagedRange {
    /// How many entries were lost, as far as the indexes of those before and after tell.
    pub fn entries_lost(&self) -> Option<u64> {
        let (before, after) = (self.index_before?, self.index_after?);
        Some(after.saturating_sub(before).saturating_sub(1))
    }
}

impl std::fmt::Display for DamagedRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, offset, length, from, to, reason, .. } = self;
        write!(f, "{} at offset {offset}, {length} bytes (positions {from} to {to}): {reason}", file.display())
    }
}

/// A torn tail: nothing in it was ever acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// First position that was cut.
    pub at: LogPosition,
    /// Bytes from there to the last one that was not zero, later segments included. In a segment made of a used file,
    /// whose old bytes are not zero either, to the last one that belongs to a sound header.
    pub bytes: u64,
    /// Why the first cut entry does not count.
    pub reason: String,
}

/// One segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The file.
    pub file: PathBuf,
    /// First position that it covers.
    pub start: LogPosition,
    /// Its size in bytes.
    pub size: u64,
    /// Whether its header is sound.
    pub header_sound: bool,
    /// Entries found, marks included.
    pub entries: u64,
    /// Index of the first entry.
    pub first_index: Option<u64>,
    /// Index of the last entry.
    pub last_index: Option<u64>,
    /// Bytes from the beginning of the file to the end of the last entry, fillers included.
    pub used_bytes: u64,
    /// Bytes behind that which are prepared: allocated, and zero or of the file's earlier life.
    pub prepared_bytes: u64,
    /// Highest durable mark in any entry: everything below was durable when that entry was written.
    pub durable_mark: LogPosition,
}

/// What a look at a whole log found, judged as a start would judge it (ruling 17).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Which log it is.
    pub identity: LogIdentity,
    /// First position of the log.
    pub start: LogPosition,
    /// End of what counts.
    pub end: LogPosition,
    /// Everything below was durable, as the caller knows, and marks, where they prove anything.
    pub durable: LogPosition,
    /// Whole entries below `end`, marks included.
    pub entries: u64,
    /// What is damaged below `end`, by position. A start refuses such a log.
    pub damage: Vec<DamagedRange>,
    /// What lies behind the end: being written, if a node runs on the log; otherwise torn, and a start cuts it.
    pub tail: Option<Cut>,
    /// All files.
    pub segments: Vec<SegmentInfo>,
}

impl Verification {
    /// Whether nothing is damaged: a start accepts the log.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// How far a look at a log has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SurveyProgress {
    /// Bytes of segment files behind it, holes included.
    pub done_bytes: u64,
    /// Bytes of all segment files that were there at the beginning; more may come while a node runs.
    pub total_bytes: u64,
}
