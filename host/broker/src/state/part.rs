//! Parts: files that are written once and hold what only grows (`docs/snapshots.md` gives every byte).
//!
//! A snapshot names parts instead of repeating what is in them, and a state reads its queue indexes from their bytes,
//! which the node maps. Here a part is bytes; where they lie is the node's business.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::fault::{PartError, SnapshotError};
use super::index_entry::INDEX_ENTRY_LEN;
use super::pages::{PartHealth, SealedEntries};
use crate::record::codec::{DecodeError, Reader, Writer};
use crate::{QueueOffset, RecordPosition, TopicId};

const MAGIC: &[u8; 8] = b"VOUCHPRT";
/// Version 1 had no marks.
const VERSION: u32 = 2;
pub(super) const HEAD_LEN: usize = 40;
/// The checksum of head and table, which covers everything around it.
const CHECKSUM: Range<usize> = 12..16;
const ID: Range<usize> = 16..24;
const ROW_LEN: usize = 56;

/// Bytes of a mark of a topic.
pub(super) const MARK_LEN: usize = 16;
/// Bytes of an entry of a table of what happened lately.
pub(super) const RECENT_ENTRY_LEN: usize = 40;

/// The bytes of a part, which lie on the disk twice.
#[derive(Clone, Debug)]
pub struct Copies {
    /// What is read as long as it is whole.
    pub first: Bytes,
    /// What is read where the first one is damaged; empty if there is no other.
    pub second: Bytes,
}

impl From<Bytes> for Copies {
    fn from(first: Bytes) -> Self {
        Self { first, second: Bytes::new() }
    }
}

/// What the entries of a row belong to. Rows ascend in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Of {
    /// The index of a queue.
    Queue(TopicId, u32),
    /// Messages that were sent lately.
    Sent,
    /// Outcomes of ended transactions.
    Outcomes,
    /// How much a topic had received by then, and when that was: one entry.
    Mark(TopicId),
}

impl Of {
    fn entry_len(self) -> u64 {
        match self {
            Self::Queue(..) => INDEX_ENTRY_LEN as u64,
            Self::Sent | Self::Outcomes => RECENT_ENTRY_LEN as u64,
            Self::Mark(_) => MARK_LEN as u64,
        }
    }

    /// Kind, topic and queue as they are written.
    fn numbers(self) -> (u32, u32, u32) {
        match self {
            Self::Queue(topic, queue) => (1, topic.0, queue),
            Self::Sent => (2, 0, 0),
            Self::Outcomes => (3, 0, 0),
            Self::Mark(topic) => (4, topic.0, 0),
        }
    }

    fn from_numbers(numbers: (u32, u32, u32)) -> Result<Self, DecodeError> {
        match numbers {
            (1, topic, queue) => Ok(Self::Queue(TopicId(topic), queue)),
            (2, 0, 0) => Ok(Self::Sent),
            (3, 0, 0) => Ok(Self::Outcomes),
            (4, topic, 0) => Ok(Self::Mark(TopicId(topic))),
            (kind, ..) => Err(DecodeError::Value { field: "kind of row", value: kind.into() }),
        }
    }
}

/// A stretch of entries in a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) of: Of,
    /// Offset, or number, of the first entry.
    pub(super) first: u64,
    /// How many there are; never 0.
    pub(super) count: u64,
    /// Smallest log position among them; 0 where entries have none.
    pub(super) lowest: RecordPosition,
    /// Largest log position among them; 0 where entries have none.
    pub(super) highest: RecordPosition,
    pub(super) data: Range<usize>,
    pub(super) checksum: u32,
}

impl Row {
    /// Whether these bytes are what was written as its entries.
    pub(super) fn is_written(&self, entries: &[u8]) -> bool {
        entries.len() == self.data.len() && crc32c::crc32c(entries) == self.checksum
    }

    /// The offsets of its entries, if it is one of a queue.
    pub(super) fn offsets(&self) -> Range<QueueOffset> {
        QueueOffset(self.first)..QueueOffset(self.end())
    }

    /// The offset, or number, after the last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + self.count
    }

    fn write(&self, w: &mut Writer<'_>) {
        let (kind, topic, queue) = self.of.numbers();
        for number in [kind, topic, queue, self.checksum] {
            w.u32(number);
        }
        for number in [self.first, self.count, self.lowest.0, self.highest.0, self.data.start as u64] {
            w.u64(number);
        }
    }

    /// Reads a row whose entries must begin at `at`.
    fn read(r: &mut Reader<'_>, at: usize) -> Result<Self, DecodeError> {
        let of = Of::from_numbers((r.u32("kind of row")?, r.u32("topic")?, r.u32("queue")?))?;
        let checksum = r.u32("checksum of entries")?;
        let (first, count) = (r.u64("first entry")?, r.u64("number of entries")?);
        let (lowest, highest) = (RecordPosition(r.u64("lowest position")?), RecordPosition(r.u64("highest position")?));
        let start = r.u64("place of entries")?;
        if start != at as u64 {
            return Err(DecodeError::Value { field: "place of entries", value: start });
        }
        let impossible = DecodeError::Value { field: "number of entries", value: count };
        let len = count.checked_mul(of.entry_len()).and_then(|len| usize::try_from(len).ok());
        let end = len.and_then(|len| at.checked_add(len)).filter(|_| count > 0 && first.checked_add(count).is_some());
        let data = at..end.ok_or(impossible)?;
        Ok(Self { of, first, count, lowest, highest, data, checksum })
    }
}

/// A part whose head and table were checked; its entries are checked when they are read.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) id: u64,
    /// Over head and table, and so, by the rows' checksums, over everything: what a snapshot names it by.
    pub(super) checksum: u32,
    pub(super) rows: Vec<Row>,
    bytes: Bytes,
    /// The other copy, of which nothing was checked; empty if there is none.
    second: Bytes,
    /// Where it is noted what is found damaged later.
    pub(super) health: Arc<PartHealth>,
}

impl Part {
    /// Checks that these bytes are the part `id`, whole, with a table that is as it was written.
    pub(super) fn open(id: u64, copies: impl Into<Copies>) -> Result<Self, SnapshotError> {
        let Copies { first, second } = copies.into();
        let part = Self::parse(id, first).map_err(|why| why.of(id))?;
        Ok(Self { second, ..part })
    }

    fn parse(id: u64, bytes: Bytes) -> Result<Self, PartError> {
        let table_end = table_end(&bytes, bytes.len() as u64)?;
        let (checksum, rows) = read_table(id, &bytes[..table_end], bytes.len())?;
        Ok(Self { id, checksum, rows, bytes, second: Bytes::new(), health: Arc::default() })
    }

    /// Rows ascend, and their entries fill the rest of the part without a gap.
    fn table(bytes: &[u8], len: usize) -> Result<Vec<Row>, DecodeError> {
        let mut rows = Vec::with_capacity(bytes.len() / ROW_LEN);
        let (mut r, mut at, mut before) = (Reader(bytes), HEAD_LEN + bytes.len(), None);
        while !r.0.is_empty() {
            let row = Row::read(&mut r, at)?;
            if before >= Some(row.of) {
                return Err(DecodeError::Value { field: "kind of row", value: row.of.numbers().0.into() });
            }
            (at, before) = (row.data.end, Some(row.of));
            rows.push(row);
        }
        if at == len { Ok(rows) } else { Err(DecodeError::Short("entries")) }
    }

    /// The entries of a row of a queue, which are whole in the first copy.
    pub(super) fn sealed_entries(&self, row: &Row) -> SealedEntries {
        let (first, second) = self.copies_of(row);
        SealedEntries::new(first, second, self.health.clone())
    }

    /// The bytes of a row's entries in both copies, not checked; the second are none where that copy has not all of them.
    pub(super) fn copies_of(&self, row: &Row) -> (Bytes, Bytes) {
        let in_second = row.data.end <= self.second.len();
        let second = if in_second { self.second.slice(row.data.clone()) } else { Bytes::new() };
        (self.entries(row), second)
    }

    /// The bytes of a row's entries, not checked.
    pub(super) fn entries(&self, row: &Row) -> Bytes {
        self.bytes.slice(row.data.clone())
    }

    /// The bytes of a row's entries, which are as they were written.
    pub(super) fn checked_entries(&self, row: &Row) -> Result<Bytes, SnapshotError> {
        self.check_entries(row).map_err(|why| why.of(self.id))
    }

    /// The same, for a caller that names the part.
    pub(super) fn check_entries(&self, row: &Row) -> Result<Bytes, PartError> {
        let entries = self.entries(row);
        let (found, computed) = (row.checksum, crc32c::crc32c(&entries));
        if found == computed { Ok(entries) } else { Err(PartError::Checksum { what: "entries", found, computed }) }
    }

    /// Leaves out what was damaged since it was written.
    pub(super) fn leave_out_damaged_rows(&mut self) {
        let mut rows = std::mem::take(&mut self.rows);
        rows.retain(|row| self.check_entries(row).is_ok());
        self.rows = rows;
    }

    /// The row of this table.
    pub(super) fn row(&self, of: Of) -> Option<&Row> {
        self.rows.binary_search_by_key(&of, |row| row.of).ok().map(|at| &self.rows[at])
    }
}

/// Where the table ends in a part of so many bytes that begins with these.
pub(super) fn table_end(head: &[u8], len: u64) -> Result<usize, PartError> {
    let short = |_| PartError::Length { found: len, written: HEAD_LEN as u64 };
    let mut r = Reader(head);
    if r.take(8, "magic").map_err(short)? != MAGIC {
        return Err(PartError::Magic);
    }
    let version = r.u32("format").map_err(short)?;
    if !(1..=VERSION).contains(&version) {
        return Err(PartError::Version(version));
    }
    r.take(12, "checksum and part").map_err(short)?;
    let (rows, written) = (r.u64("rows").map_err(short)?, r.u64("length").map_err(short)?);
    let table_end = usize::try_from(rows).ok().and_then(|rows| rows.checked_mul(ROW_LEN)?.checked_add(HEAD_LEN));
    let table_end = table_end.filter(|end| written == len && *end as u64 <= len);
    table_end.ok_or(PartError::Length { found: len, written })
}

/// The checksum and the rows of the part `id`, of these bytes of head and table, and of `len` bytes in all.
pub(super) fn read_table(id: u64, bytes: &[u8], len: usize) -> Result<(u32, Vec<Row>), PartError> {
    let (found, computed) = (u32::from_le_bytes(array(&bytes[CHECKSUM])), table_checksum(bytes));
    if computed != found {
        return Err(PartError::Checksum { what: "table", found, computed });
    }
    let said = u64::from_le_bytes(array(&bytes[ID]));
    if said != id {
        return Err(PartError::Id(said));
    }
    let rows = Part::table(&bytes[HEAD_LEN..], len).map_err(PartError::Layout)?;
    Ok((found, rows))
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("a range of this length")
}

fn table_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CHECKSUM.start]), &bytes[CHECKSUM.end..])
}

/// Writes a part: entries go to their place at once, since millions of them are not copied twice.
pub(super) struct PartWriter {
    id: u64,
    rows: Vec<Row>,
    bytes: Vec<u8>,
}

impl PartWriter {
    /// A part of so many rows, with so many bytes of entries.
    pub(super) fn new(id: u64, rows: usize, entries_len: usize) -> Self {
        let table_end = HEAD_LEN + rows * ROW_LEN;
        let mut bytes = Vec::with_capacity(table_end + entries_len);
        bytes.resize(table_end, 0);
        Self { id, rows: Vec::with_capacity(rows), bytes }
    }

    /// Appends a row: `write` appends its entries and returns their lowest and highest position.
    pub(super) fn row(
        &mut self,
        of: Of,
        first: u64,
        count: u64,
        write: impl FnOnce(&mut Vec<u8>) -> (RecordPosition, RecordPosition),
    ) {
        let start = self.bytes.len();
        let (lowest, highest) = write(&mut self.bytes);
        let data = start..self.bytes.len();
        debug_assert_eq!(data.len() as u64, count * of.entry_len(), "entries of {of:?}");
        let checksum = crc32c::crc32c(&self.bytes[data.clone()]);
        self.rows.push(Row { of, first, count, lowest, highest, data, checksum });
    }

    /// The part, when all rows were appended.
    pub(super) fn finish(mut self) -> Part {
        let mut head = Vec::with_capacity(HEAD_LEN + self.rows.len() * ROW_LEN);
        head.extend_from_slice(MAGIC);
        let mut w = Writer(&mut head);
        w.u32(VERSION);
        w.u32(0);
        for number in [self.id, self.rows.len() as u64, self.bytes.len() as u64] {
            w.u64(number);
        }
        self.rows.iter().for_each(|row| row.write(&mut w));
        let checksum = table_checksum(&head);
        head[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
        self.bytes[..head.len()].copy_from_slice(&head);
        Part {
            id: self.id,
            checksum,
            rows: self.rows,
            bytes: self.bytes.into(),
            second: Bytes::new(),
            health: Arc::default(),
        }
    }
}

impl Part {
    /// All its bytes.
    pub(super) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }
}
