//! The index of one queue: queue offset → where the message's record lies.

use std::collections::BTreeMap;
use std::ops::Range;

use super::fault::{PartError, SnapshotError};
use super::index_entry::{EntryAt, INDEX_ENTRY_LEN, IndexEntry, entries};
use super::pages::SealedEntries;
use super::part::{Part, PartWriter, Row};
use super::snapshot::Unreadable;
use crate::record::codec::{DecodeError, Reader, Writer};
use crate::{QueueOffset, RecordPosition};

/// The lowest of some places; the log's start if one of them is not known.
fn lowest(places: impl Iterator<Item = (QueueOffset, Option<RecordPosition>)>) -> Option<RecordPosition> {
    places.map(|(_, position)| position.unwrap_or(RecordPosition::START)).min()
}

/// A stretch of entries that lies in a part.
#[derive(Debug)]
struct Run {
    first: QueueOffset,
    part: u64,
    /// Smallest position among its entries: a committed half is older than its neighbours.
    lowest: RecordPosition,
    entries: SealedEntries,
}

impl Run {
    fn end(&self) -> QueueOffset {
        self.first.plus(self.entries.len() as u64)
    }
}

/// The index of one queue: runs that lie in parts, and a tail of 16 bytes a message in memory.
///
/// # To ensure correctness
///
/// Offsets are contiguous (I6): `append` returns the end before it, and every offset from `start` below `end`
/// resolves. Runs follow each other without a gap up to the tail; the first begins at or below `start`. Only a state that was
/// read without parts that are lost has gaps, and nothing is appended to that.
#[derive(Debug, Default)]
pub(super) struct QueueIndex {
    start: QueueOffset,
    runs: Vec<Run>,
    /// Offset of the first entry in memory.
    tail_first: QueueOffset,
    tail: Vec<IndexEntry>,
    /// Offsets of messages whose records were carried to another place of the log, with that place. Few: parts keep
    /// saying where a record lay when they were sealed.
    moved: BTreeMap<QueueOffset, RecordPosition>,
}

impl QueueIndex {
    /// Adds an entry and returns its queue offset.
    ///
    /// # Panics
    /// If the queue begins behind its end: the offset was handed out before, and its message would never be received. Where a
    /// queue begins is clamped when it moves, and a snapshot that says otherwise is refused.
    pub(super) fn append(&mut self, entry: IndexEntry) -> QueueOffset {
        let offset = self.end();
        assert!(self.start <= offset, "a queue that begins at {} goes on at {offset}", self.start);
        self.tail.push(entry);
        offset
    }

    /// The entry at this offset; `None` below [`QueueIndex::start`] and from [`QueueIndex::end`] on.
    pub(super) fn get(&self, offset: QueueOffset) -> Option<IndexEntry> {
        let entry = self.first_place(offset)?;
        // The common case costs one comparison.
        let moved = if self.moved.is_empty() { None } else { self.moved.get(&offset) };
        Some(moved.map_or(entry, |place| IndexEntry { position: *place, ..entry }))
    }

    /// The record of the message at this offset lies there now.
    pub(super) fn carry(&mut self, offset: QueueOffset, place: RecordPosition) {
        if (self.start..self.end()).contains(&offset) {
            self.moved.insert(offset, place);
        }
    }

    /// The entry as it was appended.
    fn first_place(&self, offset: QueueOffset) -> Option<IndexEntry> {
        if offset >= self.tail_first {
            return self.tail.get(usize::try_from(offset.since(self.tail_first)).ok()?).copied();
        }
        if offset < self.start {
            return None;
        }
        let run = self.runs.partition_point(|run| run.first <= offset).checked_sub(1)?;
        let run = &self.runs[run];
        run.entries.get(offset.since(run.first) as usize)
    }

    /// Where the place of the message at this offset is to be had; reads nothing that may lie on a disk.
    pub(super) fn entry_at(&self, offset: QueueOffset) -> Option<EntryAt> {
        if let Some(place) = self.moved.get(&offset) {
            return Some(EntryAt::Log(*place));
        }
        if offset >= self.tail_first {
            return self.first_place(offset).map(|entry| EntryAt::Log(entry.position));
        }
        let run =
            self.runs.partition_point(|run| run.first <= offset).checked_sub(1).filter(|_| offset >= self.start)?;
        let run = &self.runs[run];
        run.entries.bytes(offset.since(run.first) as usize).map(|bytes| EntryAt::Part(run.part, bytes))
    }

    /// First offset that is still there.
    pub(super) fn start(&self) -> QueueOffset {
        self.start
    }

    /// The next offset: how many entries there ever were.
    pub(super) fn end(&self) -> QueueOffset {
        self.tail_first.plus(self.tail.len() as u64)
    }

    /// The smallest log position among the entries at or above an offset; `None` if there are none. Looks at one run
    /// and the tail, and at runs with entries that were carried; of the other runs the minimum is known. Where an entry
    /// cannot be read it may lie anywhere: at the log's start.
    pub(super) fn lowest_position_from(&self, offset: QueueOffset) -> Option<RecordPosition> {
        let offset = offset.max(self.start);
        let lowest_of = |run: &Run| {
            let known = run.first >= offset && self.moved.range(run.first..run.end()).next().is_none();
            if known { Some(run.lowest) } else { lowest(self.places(offset.max(run.first)..run.end())) }
        };
        let first = self.runs.partition_point(|run| run.end() <= offset);
        let in_runs = self.runs[first..].iter().filter_map(lowest_of).min();
        let in_tail = lowest(self.places(offset.max(self.tail_first)..self.end()));
        in_runs.into_iter().chain(in_tail).min()
    }

    /// Messages that were carried, from an offset on: their offsets and places.
    pub(super) fn carried_from(&self, offset: QueueOffset) -> impl Iterator<Item = (QueueOffset, RecordPosition)> {
        self.moved.range(offset..).map(|(offset, place)| (*offset, *place))
    }

    /// Offsets in this range, which does not go beyond one run or the tail, with where their records lie; `None` where no
    /// copy of a part says it.
    fn places(&self, offsets: Range<QueueOffset>) -> impl Iterator<Item = (QueueOffset, Option<RecordPosition>)> + '_ {
        let Range { start, end } = offsets;
        let len = end.saturating_since(start) as usize;
        let run =
            self.runs.partition_point(|run| run.first <= start).checked_sub(1).filter(|_| start < self.tail_first);
        let in_run = run.into_iter().flat_map(move |run| {
            let run = &self.runs[run];
            run.entries.iter_from(start.since(run.first) as usize)
        });
        let in_tail = self.tail.iter().copied().map(Some).skip(start.saturating_since(self.tail_first) as usize);
        let in_tail = in_tail.take(if run.is_none() { len } else { 0 });
        let moved = |offset| if self.moved.is_empty() { None } else { self.moved.get(&offset).copied() };
        let places = QueueOffset::each(start..end).zip(in_run.take(len).chain(in_tail));
        places.map(move |(n, entry)| (n, moved(n).or(entry.map(|entry| entry.position))))
    }

    /// Offsets from `from` on whose records lie in a stretch of the log, with their places. Looks at no more than `room`
    /// entries, takes them from it, and says at which offset to go on.
    pub(super) fn offsets_in(
        &self,
        stretch: &Range<RecordPosition>,
        from: QueueOffset,
        room: &mut usize,
    ) -> (Vec<(QueueOffset, RecordPosition)>, Option<QueueOffset>) {
        let below = |run: &&Run| run.lowest < stretch.end || self.moved.range(run.first..run.end()).next().is_some();
        let from = from.max(self.start);
        let first = self.runs.partition_point(|run| run.end() <= from);
        let runs = self.runs[first..].iter().filter(below).map(|run| run.first.max(from)..run.end());
        let mut found = Vec::new();
        for Range { start, end } in runs.chain(std::iter::once(self.tail_first.max(from)..self.end())) {
            let stop = end.min(QueueOffset(start.0.saturating_add(*room as u64)));
            *room -= stop.saturating_since(start) as usize;
            let places = self.places(start..stop).filter_map(|(offset, position)| Some((offset, position?)));
            found.extend(places.filter(|(_, position)| stretch.contains(position)));
            if stop < end {
                return (found, Some(stop));
            }
        }
        (found, None)
    }

    /// Lets the queue begin at this offset, or at its end if that is lower; never earlier than it does. Runs that lie below
    /// go, and the queue no longer needs their parts.
    pub(super) fn drop_below(&mut self, start: QueueOffset) {
        self.start = start.clamp(self.start, self.end());
        self.runs.drain(..self.runs.partition_point(|run| run.end() <= self.start));
        if self.start > self.tail_first {
            self.tail.drain(..self.start.since(self.tail_first) as usize);
            self.tail_first = self.start;
        }
        self.moved = self.moved.split_off(&self.start);
    }

    /// Offset after the last entry that lies in this part or one before it; [`QueueIndex::start`] or less if none does.
    pub(super) fn end_of_part(&self, part: u64) -> QueueOffset {
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
        out.row(of, self.tail_first.0, self.tail.len() as u64, |bytes| {
            let (mut lowest, mut highest) = (RecordPosition::BEYOND, RecordPosition::START);
            for entry in &self.tail {
                (lowest, highest) = (lowest.min(entry.position), highest.max(entry.position));
                bytes.extend_from_slice(&entry.to_bytes());
            }
            (lowest, highest)
        });
    }

    /// Whether a row says what the first entries in memory say. What is no longer there is not compared.
    pub(super) fn fits(&self, row: &Row, bytes: &[u8]) -> Result<(), PartError> {
        let Range { start: first, end } = row.offsets();
        if end <= self.start {
            return Ok(());
        }
        let follows = first == self.tail_first || (self.runs.is_empty() && first <= self.tail_first);
        if !follows || end > self.end() {
            return Err(PartError::Misfit("its entries of a queue are not those that follow"));
        }
        let gone = self.tail_first.since(first) as usize;
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
        let end = row.offsets().end;
        if end > self.start {
            self.tail = self.tail.split_off(end.since(self.tail_first) as usize);
            self.tail_first = end;
            self.push_run(part, row, part.sealed_entries(row));
        }
    }

    fn push_run(&mut self, part: &Part, row: &Row, entries: SealedEntries) {
        self.runs.push(Run { first: row.offsets().start, part: part.id, lowest: row.lowest, entries });
    }

    /// Takes a row of a part that the snapshot names; parts come in the order in which they were written. `whole`: none
    /// is missing.
    pub(super) fn attach(&mut self, part: &Part, row: &Row, whole: bool) -> Result<(), SnapshotError> {
        let Range { start: first, end } = row.offsets();
        if end <= self.start {
            return Ok(());
        }
        let next = self.runs.last().map(Run::end);
        let follows = match whole {
            true => next.map_or(first <= self.start, |next| next == first),
            false => next.is_none_or(|next| next <= first),
        };
        if !follows || end > self.tail_first {
            return Err(PartError::Misfit("its entries of a queue are not those that follow").of(part.id));
        }
        part.check_entries(row).map_err(|why| why.of(part.id))?;
        self.push_run(part, row, part.sealed_entries(row));
        Ok(())
    }

    /// Reads its entries in this part from other bytes of it from now on; does nothing if it has none there.
    pub(super) fn read_from(&mut self, part: &Part, row: &Row) {
        let at = self.runs.partition_point(|run| run.part < part.id);
        if let Some(run) = self.runs.get_mut(at).filter(|run| run.part == part.id) {
            let (first, second) = part.copies_of(row);
            run.entries.read_from(first, second);
        }
    }

    /// Offsets that are still there and are read from this part.
    pub(super) fn stretch_of(&self, part: u64) -> Option<Range<QueueOffset>> {
        let run = self.runs.get(self.runs.partition_point(|run| run.part < part)).filter(|run| run.part == part)?;
        Some(run.first.max(self.start)..run.end())
    }

    /// Offsets that lie in no part and not in memory: of a state that was read without parts that are lost.
    pub(super) fn gaps(&self) -> Vec<Range<QueueOffset>> {
        let mut next = self.start;
        let mut gaps = Vec::new();
        for run in &self.runs {
            gaps.extend((next < run.first).then_some(next..run.first));
            next = next.max(run.end());
        }
        gaps.extend((next < self.tail_first).then_some(next..self.tail_first));
        gaps
    }

    /// Whether the runs reach the tail, as the snapshot said.
    pub(super) fn check_attached(&self) -> Result<(), DecodeError> {
        let end = self.runs.last().map_or(self.start, Run::end);
        let next = self.tail_first;
        if end == next { Ok(()) } else { Err(DecodeError::Value { field: "end of what is in parts", value: next.0 }) }
    }

    /// Writes bounds, and the entries that are in no part.
    pub(super) fn write(&self, w: &mut Writer<'_>) {
        let Self { start, runs: _, tail_first, tail, moved } = self;
        w.varint(start.0);
        w.varint(tail_first.0);
        w.varint(tail.len() as u64);
        tail.iter().for_each(|entry| w.0.extend_from_slice(&entry.to_bytes()));
        w.varint(moved.len() as u64);
        for (offset, place) in moved {
            w.varint(offset.0);
            w.u64(place.0);
        }
    }

    /// Reads what follows in version 3 of the section.
    pub(super) fn read_moved(&mut self, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        for (offset, place) in
            r.list("carried messages", |r| Ok((QueueOffset(r.varint("offset")?), RecordPosition(r.u64("place")?))))?
        {
            let ascends = self.moved.last_key_value().is_none_or(|(before, _)| *before < offset);
            if !ascends || !(self.start..self.end()).contains(&offset) {
                return Err(DecodeError::Value { field: "the offset of a carried message", value: offset.0 });
            }
            self.moved.insert(offset, place);
        }
        Ok(())
    }

    /// Reads what [`QueueIndex::write`] wrote; the runs come with [`QueueIndex::attach`].
    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, Unreadable> {
        let start = QueueOffset(r.varint("start of a queue")?);
        let tail_first = QueueOffset(r.varint("end of what is in parts")?);
        let index = Self { start, tail_first, ..Self::read_v1(r)? };
        let fits = tail_first.0.checked_add(index.tail.len() as u64).is_some() && start <= tail_first;
        if fits { Ok(index) } else { Err(DecodeError::Value { field: "start of a queue", value: start.0 }.into()) }
    }

    /// Reads an index as version 1 of the section had it: all entries.
    pub(super) fn read_v1(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = r.fixed(INDEX_ENTRY_LEN, "queue length")?;
        Ok(Self { tail: entries(bytes).collect(), ..Self::default() })
    }

    /// The same index with everything in memory.
    #[cfg(test)]
    pub(super) fn unseal(&mut self) {
        let tail = QueueOffset::each(self.start..self.end())
            .map(|offset| self.first_place(offset).expect("offsets are contiguous"))
            .collect();
        let moved = std::mem::take(&mut self.moved);
        *self = Self { start: self.start, runs: Vec::new(), tail_first: self.start, tail, moved };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "a queue that begins at 5 goes on at 0")]
    fn an_offset_below_the_start_is_never_handed_out() {
        let mut queue = QueueIndex { start: QueueOffset(5), ..QueueIndex::default() };
        queue.append(IndexEntry::UNKNOWN);
    }
}
