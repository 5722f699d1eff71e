//! The index of one queue: queue offset → where the message's record lies.

use bytes::Bytes;

use super::part::{INDEX_ENTRY_LEN, Part, PartError, PartWriter, Row};
use super::snapshot::{SnapshotError, Unreadable};
use crate::TagHash;
use crate::record::codec::{DecodeError, Reader, Writer};

/// One message of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexEntry {
    /// Log position of the record that holds the body.
    pub position: u64,
    /// Hash of its tag.
    pub tag: TagHash,
}

impl IndexEntry {
    fn to_bytes(self) -> [u8; INDEX_ENTRY_LEN] {
        let mut bytes = [0; INDEX_ENTRY_LEN];
        bytes[..8].copy_from_slice(&self.position.to_le_bytes());
        bytes[8..].copy_from_slice(&self.tag.0.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; INDEX_ENTRY_LEN]) -> Self {
        // Two words of the value rather than two slices of the bytes: nothing here can fail.
        let both = u128::from_le_bytes(bytes);
        Self { position: both as u64, tag: TagHash((both >> 64) as u64) }
    }
}

pub(super) fn entries(bytes: &[u8]) -> impl Iterator<Item = IndexEntry> + '_ {
    bytes.as_chunks::<INDEX_ENTRY_LEN>().0.iter().map(|entry| IndexEntry::from_bytes(*entry))
}

/// A stretch of entries that lies in a part.
#[derive(Debug)]
struct Run {
    first: u64,
    part: u64,
    /// Smallest position among its entries: a committed half is older than its neighbours.
    lowest: u64,
    entries: Bytes,
}

impl Run {
    fn end(&self) -> u64 {
        self.first + (self.entries.len() / INDEX_ENTRY_LEN) as u64
    }

    /// Its entries from this offset on, which is one of its own.
    fn from(&self, offset: u64) -> &[u8] {
        &self.entries[(offset - self.first) as usize * INDEX_ENTRY_LEN..]
    }
}

/// The index of one queue: runs that lie in parts, and a tail of 16 bytes a message in memory.
///
/// # To ensure correctness
///
/// Offsets are contiguous (I6): `append` returns the length before it, and every offset from `start` below `len`
/// resolves. Runs follow each other without a gap up to the tail; the first begins at or below `start`.
#[derive(Debug, Default)]
pub(super) struct QueueIndex {
    start: u64,
    runs: Vec<Run>,
    /// Offset of the first entry in memory.
    tail_first: u64,
    tail: Vec<IndexEntry>,
}

impl QueueIndex {
    /// Adds an entry and returns its queue offset.
    pub(super) fn append(&mut self, entry: IndexEntry) -> u64 {
        self.tail.push(entry);
        self.len() - 1
    }

    /// The entry at this offset; `None` below [`QueueIndex::start`] and from [`QueueIndex::len`] on.
    pub(super) fn get(&self, offset: u64) -> Option<IndexEntry> {
        if offset >= self.tail_first {
            return self.tail.get(usize::try_from(offset - self.tail_first).ok()?).copied();
        }
        if offset < self.start {
            return None;
        }
        let run = self.runs.partition_point(|run| run.first <= offset).checked_sub(1)?;
        let entry = self.runs[run].from(offset).first_chunk()?;
        Some(IndexEntry::from_bytes(*entry))
    }

    /// First offset that is still there.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// The next offset: how many entries there ever were.
    pub(super) fn len(&self) -> u64 {
        self.tail_first + self.tail.len() as u64
    }

    /// The smallest log position among the entries at or above an offset; `None` if there are none. Looks at one run
    /// and the tail; of the other runs the minimum is known.
    pub(super) fn lowest_position_from(&self, offset: u64) -> Option<u64> {
        let offset = offset.max(self.start);
        let lowest_of = |run: &Run| {
            let whole = run.first >= offset;
            if whole { Some(run.lowest) } else { entries(run.from(offset)).map(|entry| entry.position).min() }
        };
        let first = self.runs.partition_point(|run| run.end() <= offset);
        let in_runs = self.runs[first..].iter().filter_map(lowest_of).min();
        let skip = usize::try_from(offset.saturating_sub(self.tail_first)).unwrap_or(usize::MAX);
        let in_tail = self.tail.iter().skip(skip).map(|entry| entry.position).min();
        in_runs.into_iter().chain(in_tail).min()
    }

    /// Forgets what lies below this offset, at most everything. Runs below it leave their parts to others.
    pub(super) fn drop_below(&mut self, start: u64) {
        self.start = start.clamp(self.start, self.len());
        self.runs.drain(..self.runs.partition_point(|run| run.end() <= self.start));
        if self.start > self.tail_first {
            self.tail.drain(..(self.start - self.tail_first) as usize);
            self.tail_first = self.start;
        }
    }

    /// Offset after the last entry that lies in this part or one before it; [`QueueIndex::start`] or less if none does.
    pub(super) fn end_of_part(&self, part: u64) -> u64 {
        let runs = self.runs.partition_point(|run| run.part <= part);
        runs.checked_sub(1).map_or(self.start, |last| self.runs[last].end())
    }

    /// Parts that it reads from.
    pub(super) fn parts(&self) -> impl Iterator<Item = u64> {
        self.runs.iter().map(|run| run.part)
    }

    /// How many entries are in no part.
    pub(super) fn unsealed(&self) -> usize {
        self.tail.len()
    }

    /// Writes what is in no part as a row.
    pub(super) fn write_row(&self, of: super::part::Of, out: &mut PartWriter) {
        out.row(of, self.tail_first, self.tail.len() as u64, |bytes| {
            let (mut lowest, mut highest) = (u64::MAX, 0);
            for entry in &self.tail {
                (lowest, highest) = (lowest.min(entry.position), highest.max(entry.position));
                bytes.extend_from_slice(&entry.to_bytes());
            }
            (lowest, highest)
        });
    }

    /// Whether a row says what the first entries in memory say. What is no longer there is not compared.
    pub(super) fn fits(&self, row: &Row, bytes: &[u8]) -> Result<(), PartError> {
        if row.end() <= self.start {
            return Ok(());
        }
        let follows = row.first == self.tail_first || (self.runs.is_empty() && row.first <= self.tail_first);
        if !follows || row.end() > self.len() {
            return Err(PartError::Misfit("its entries of a queue are not those that follow"));
        }
        let gone = (self.tail_first - row.first) as usize;
        let equal = bytes.as_chunks().0[gone..].iter().zip(&self.tail).all(|(bytes, entry)| *bytes == entry.to_bytes());
        let positions = || entries(bytes).map(|entry| entry.position);
        let bounds = (positions().min(), positions().max());
        if equal && bounds == (Some(row.lowest), Some(row.highest)) {
            Ok(())
        } else {
            Err(PartError::Misfit("an entry of a queue differs"))
        }
    }

    /// Reads the entries of a row, which fits, from the part, and gives their memory back.
    pub(super) fn seal(&mut self, part: &Part, row: &Row) {
        if row.end() > self.start {
            self.tail = self.tail.split_off((row.end() - self.tail_first) as usize);
            self.tail_first = row.end();
            self.push_run(part.id, row, part.entries(row));
        }
    }

    fn push_run(&mut self, part: u64, row: &Row, entries: Bytes) {
        self.runs.push(Run { first: row.first, part, lowest: row.lowest, entries });
    }

    /// Takes a row of a part that the snapshot names; parts come in the order in which they were written.
    pub(super) fn attach(&mut self, part: &Part, row: &Row) -> Result<(), SnapshotError> {
        if row.end() <= self.start {
            return Ok(());
        }
        let follows = self.runs.last().map_or(row.first <= self.start, |run| run.end() == row.first);
        if !follows || row.end() > self.tail_first {
            return Err(PartError::Misfit("its entries of a queue are not those that follow").of(part.id));
        }
        self.push_run(part.id, row, part.checked_entries(row)?);
        Ok(())
    }

    /// Whether the runs reach the tail, as the snapshot said.
    pub(super) fn check_attached(&self) -> Result<(), DecodeError> {
        let end = self.runs.last().map_or(self.start, Run::end);
        let value = self.tail_first;
        if end == value { Ok(()) } else { Err(DecodeError::Value { field: "end of what is in parts", value }) }
    }

    /// Writes bounds, and the entries that are in no part.
    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.varint(self.start);
        w.varint(self.tail_first);
        w.varint(self.tail.len() as u64);
        self.tail.iter().for_each(|entry| w.0.extend_from_slice(&entry.to_bytes()));
    }

    /// Reads what [`QueueIndex::write`] wrote; the runs come with [`QueueIndex::attach`].
    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, Unreadable> {
        let (start, tail_first) = (r.varint("start of a queue")?, r.varint("end of what is in parts")?);
        let index = Self { start, tail_first, ..Self::read_v1(r)? };
        let fits = tail_first.checked_add(index.tail.len() as u64).is_some() && start <= tail_first;
        if fits { Ok(index) } else { Err(DecodeError::Value { field: "start of a queue", value: start }.into()) }
    }

    /// Reads an index as version 1 of the section had it: all entries.
    pub(super) fn read_v1(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = r.fixed(INDEX_ENTRY_LEN, "queue length")?;
        Ok(Self { tail: entries(bytes).collect(), ..Self::default() })
    }

    /// The same index with everything in memory.
    #[cfg(test)]
    pub(super) fn unseal(&mut self) {
        let tail = (self.start..self.len()).map(|offset| self.get(offset).expect("offsets are contiguous")).collect();
        *self = Self { start: self.start, runs: Vec::new(), tail_first: self.start, tail };
    }
}
