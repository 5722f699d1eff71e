//! A table of what happened lately: found by key, forgotten by age and by number.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::hash::BuildHasher;

use bytes::Bytes;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::fault::PartError;
use super::leaps::{Leaps, Now};
use super::part::{Of, Part, PartWriter, RECENT_ENTRY_LEN, Row};
use super::snapshot::{SectionSource, Unreadable};
use crate::record::codec::{DecodeError, Reader, Writer};
use crate::{Millis, RecordPosition};

/// Parts of the index. A part that grows moves its own slots only, so that no record waits for millions of them.
const PARTS: usize = 256;

/// Entries that are indexed at a time when a table is read back: 32 MiB of keys and places.
const STRETCH: usize = 1 << 21;

/// An entry as snapshots and parts hold it.
pub(super) type EntryBytes = [u8; RECENT_ENTRY_LEN];

/// What a [`Recent`] table remembers about a key.
///
/// # To ensure correctness
///
/// `from_bytes(to_bytes(key, value))` is key and value; one value has one encoding.
pub(super) trait Happened: Copy {
    /// Whose entries these are in a part.
    const OF: Of;

    /// When it happened: what entered later has no earlier time.
    fn at(&self) -> Millis;
    /// Writes key and value.
    fn to_bytes(self, key: u64) -> EntryBytes;
    /// Reads key and value; fails on what no version writes.
    fn from_bytes(bytes: &EntryBytes) -> Result<(u64, Self), DecodeError>;
}

/// A stretch of entries that a part holds too; it begins where the one before ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sealed {
    part: u64,
    /// Number after its last entry.
    end: u64,
}

/// Entries in the order in which they came, 8 bytes and the value each, and an index of 5 to 10 bytes an entry.
///
/// A key that comes again hides its older entry, which keeps its place until it is old enough to go. All entries stay in
/// memory, those in parts too: they go soon, and a resend must not wait for a disk.
pub(super) struct Recent<V> {
    entries: VecDeque<(u64, V)>,
    /// Number of the entry at the front. Entries are numbered from the beginning of the log, so that two states that
    /// read it speak of the same ones.
    first: u64,
    /// Stretches that lie in parts, oldest first. The first one may begin below `first`; all end above it.
    sealed: VecDeque<Sealed>,
    /// Entries that were to be read and are lost with their part, and with those the ones before them.
    lost: u64,
    /// Numbers of the entries that are not hidden, by the hash of their key. Their low bits, which are enough: there are
    /// far fewer than 2^32 entries.
    index: Box<[HashTable<u32>]>,
    hasher: DefaultHashBuilder,
    max: usize,
    window_ms: u64,
}

impl<V: Happened> Recent<V> {
    /// Remembers at most `max` entries, for `window_ms` milliseconds.
    pub(super) fn new(max: usize, window_ms: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            sealed: VecDeque::new(),
            lost: 0,
            index: (0..PARTS).map(|_| HashTable::new()).collect(),
            hasher: DefaultHashBuilder::default(),
            max,
            window_ms,
        }
    }

    /// The latest entry of this key, if it is remembered at `now`.
    pub(super) fn get(&self, key: u64, now: Now<'_>) -> Option<&V> {
        self.latest(key).filter(|value| now.age_ms(value.at()) <= self.window_ms)
    }

    /// The latest entry of this key that was not dropped yet, however old.
    pub(super) fn latest(&self, key: u64) -> Option<&V> {
        let hash = self.hasher.hash_one(key);
        let number = self.index[part(hash)].find(hash, |number| self.entries[self.place(*number)].0 == key)?;
        Some(&self.entries[self.place(*number)].1)
    }

    /// Entries that came after the latest one of this key; all of them if it is forgotten, for then it is older.
    pub(super) fn iter_after(&self, key: u64) -> impl Iterator<Item = (u64, &V)> {
        let hash = self.hasher.hash_one(key);
        let found = self.index[part(hash)].find(hash, |number| self.entries[self.place(*number)].0 == key);
        let from = found.map_or(0, |number| self.place(*number) + 1);
        self.entries.range(from..).map(|(key, value)| (*key, value))
    }

    /// Adds an entry, and drops those that are too old or too many.
    pub(super) fn put(&mut self, key: u64, value: V, leaps: &Leaps) {
        let now = Now::new(value.at(), leaps);
        while let Some((_, oldest)) = self.entries.front() {
            if self.entries.len() < self.max && now.age_ms(oldest.at()) <= self.window_ms {
                break;
            }
            self.drop_first();
        }
        // Grown by doubling, but never beyond the bound: the ring passes through all memory that it holds.
        if self.entries.len() == self.entries.capacity() {
            let more = self.entries.len().clamp(16, 1 << 22).min(self.max.saturating_sub(self.entries.len()).max(1));
            self.entries.reserve_exact(more);
        }
        self.entries.push_back((key, value));
        self.index_entry(key, self.entries.len() - 1);
    }

    /// Makes the entry at this place, which has this key, the one that is found by it.
    fn index_entry(&mut self, key: u64, place: usize) {
        let (entries, first, hasher) = (&self.entries, self.first as u32, &self.hasher);
        let key_of = |number: &u32| entries[number.wrapping_sub(first) as usize].0;
        let hash = hasher.hash_one(key);
        let slot = self.index[part(hash)].entry(hash, |number| key_of(number) == key, |n| hasher.hash_one(key_of(n)));
        slot.insert(first.wrapping_add(place as u32));
    }

    fn drop_first(&mut self) {
        let Some((key, _)) = self.entries.front() else { return };
        let (hash, first) = (self.hasher.hash_one(*key), self.first as u32);
        if let Ok(slot) = self.index[part(hash)].find_entry(hash, |number| *number == first) {
            slot.remove();
        }
        self.entries.pop_front();
        self.first += 1;
        self.sealed.pop_front_if(|sealed| sealed.end <= self.first);
    }

    fn place(&self, number: u32) -> usize {
        number.wrapping_sub(self.first as u32) as usize
    }

    /// All entries, the oldest first; of a key that came again, the hidden ones too.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &V)> + ExactSizeIterator {
        self.entries.iter().map(|(key, value)| (*key, value))
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Puts entries into an empty table in the order in which [`Recent::iter`] gave them; drops nothing. Room for
    /// `count` is made at once: growing step by step would move all entries and slots again and again.
    pub(super) fn restore<E>(
        &mut self,
        count: usize,
        entries: impl IntoIterator<Item = Result<(u64, V), E>>,
    ) -> Result<(), E> {
        self.entries.reserve_exact(count);
        for entry in entries {
            self.entries.push_back(entry?);
        }
        self.index_all();
        Ok(())
    }

    /// Indexes all entries anew. Part by part, for a stretch of entries at a time: a part fits the processor's cache, where
    /// slots in the order of the entries would each wait for memory.
    fn index_all(&mut self) {
        let mut counts = [0; PARTS];
        for (key, _) in &self.entries {
            counts[part(self.hasher.hash_one(key))] += 1;
        }
        self.index = counts.iter().map(|count| HashTable::with_capacity(*count)).collect();
        let mut sorted = vec![(0, 0); self.entries.len().min(STRETCH)];
        for from in (0..self.entries.len()).step_by(STRETCH) {
            let places = from..self.entries.len().min(from + STRETCH);
            let part_of = |key| part(self.hasher.hash_one(key));
            let mut next = [0; PARTS];
            self.entries.range(places.clone()).for_each(|(key, _)| next[part_of(key)] += 1);
            let mut sum = 0;
            for next in &mut next {
                (*next, sum) = (sum, sum + *next);
            }
            for ((key, _), place) in self.entries.range(places.clone()).zip(places.clone()) {
                let next = &mut next[part_of(key)];
                sorted[*next] = (*key, place);
                *next += 1;
            }
            sorted[..places.len()].iter().for_each(|(key, place)| self.index_entry(*key, *place));
        }
    }
}

/// What of a table lies in parts, and how a table lies in a snapshot.
impl<V: Happened> Recent<V> {
    /// Parts that hold entries that are remembered.
    pub(super) fn parts(&self) -> impl Iterator<Item = u64> {
        self.sealed.iter().map(|sealed| sealed.part)
    }

    /// Number of the first entry that is in no part.
    fn unsealed_from(&self) -> u64 {
        self.sealed.back().map_or(self.first, |sealed| sealed.end)
    }

    /// How many entries are in no part.
    pub(super) fn unsealed(&self) -> usize {
        self.entries.len() - (self.unsealed_from() - self.first) as usize
    }

    fn unsealed_bytes(&self) -> impl Iterator<Item = EntryBytes> {
        self.entries.range(self.entries.len() - self.unsealed()..).map(|(key, value)| value.to_bytes(*key))
    }

    /// Writes what is in no part as a row, if there is something.
    pub(super) fn write_row(&self, out: &mut PartWriter) {
        if self.unsealed() > 0 {
            out.row(V::OF, self.unsealed_from(), self.unsealed() as u64, |bytes| {
                self.unsealed_bytes().for_each(|entry| bytes.extend_from_slice(&entry));
                (RecordPosition::START, RecordPosition::START)
            });
        }
    }

    /// Whether a row says what the first entries that are in no part say. What was dropped is not compared.
    pub(super) fn fits(&self, row: &Row, bytes: &[u8]) -> Result<(), PartError> {
        if row.end() <= self.first {
            return Ok(());
        }
        let from = self.unsealed_from();
        let follows = row.first == from || (self.sealed.is_empty() && row.first <= from);
        if !follows || row.end() > self.first + self.entries.len() as u64 {
            return Err(PartError::Misfit("its entries of what happened lately are not those that follow"));
        }
        let bytes = &bytes.as_chunks::<RECENT_ENTRY_LEN>().0[(from - row.first) as usize..];
        if self.unsealed_bytes().zip(bytes).all(|(ours, theirs)| ours == *theirs) {
            Ok(())
        } else {
            Err(PartError::Misfit("an entry of what happened lately differs"))
        }
    }

    /// Notes that a row, which fits, holds its entries.
    pub(super) fn seal(&mut self, part: u64, row: &Row) {
        if row.end() > self.first {
            self.sealed.push_back(Sealed { part, end: row.end() });
        }
    }

    /// The same table, as if nothing were in parts.
    #[cfg(test)]
    pub(super) fn unseal(&mut self) {
        self.sealed.clear();
    }

    /// Writes numbers, and the entries that are in no part.
    pub(super) fn write(&self, w: &mut Writer<'_>) {
        let Self { entries: _, first, sealed: _, lost: _, index: _, hasher: _, max: _, window_ms: _ } = self;
        w.u64(*first);
        w.u64(self.unsealed_from());
        w.varint(self.unsealed() as u64);
        w.0.reserve(self.unsealed() * RECENT_ENTRY_LEN);
        self.unsealed_bytes().for_each(|entry| w.0.extend_from_slice(&entry));
    }

    /// Reads what [`Recent::write`] wrote into an empty table, with the entries that lie in parts.
    pub(super) fn read(&mut self, r: &mut Reader<'_>, source: &SectionSource<'_>) -> Result<(), Unreadable> {
        self.first = r.u64("number of the first entry")?;
        let unsealed_from = r.u64("number of the first entry in no part")?;
        let mut stretches = Vec::new();
        let mut next = self.first;
        for part in source.parts {
            let Some(row) = part.row(V::OF).filter(|row| row.end() > self.first) else { continue };
            if !source.whole && row.first > next {
                self.lose(row.first, &mut stretches);
                next = row.first;
            }
            if row.first != next && !(self.sealed.is_empty() && row.first <= next) {
                return Err(misfit(part).into());
            }
            stretches.push((part.checked_entries(row)?, (next - row.first) as usize));
            next = row.end();
            self.sealed.push_back(Sealed { part: part.id, end: next });
        }
        if !source.whole && next < unsealed_from {
            self.lose(unsealed_from, &mut stretches);
            next = unsealed_from;
        }
        if next != unsealed_from {
            let (field, value) = ("number of the first entry in no part", unsealed_from);
            return Err(DecodeError::Value { field, value }.into());
        }
        let inline = r.fixed(RECENT_ENTRY_LEN, "entries of what happened lately")?;
        let in_parts = stretches.iter().map(|(bytes, from)| &bytes.as_chunks().0[*from..]);
        let all = in_parts.chain([inline.as_chunks().0]);
        let count = all.clone().map(<[EntryBytes]>::len).sum();
        if u32::try_from(count).is_err() || self.first.checked_add(count as u64).is_none() {
            return Err(DecodeError::Value { field: "entries of what happened lately", value: count as u64 }.into());
        }
        Ok(self.restore(count, all.flatten().map(V::from_bytes))?)
    }

    /// Goes without everything before this entry: numbers have no gaps.
    fn lose(&mut self, first: u64, stretches: &mut Vec<(Bytes, usize)>) {
        self.lost += first - self.first;
        self.first = first;
        self.sealed.clear();
        stretches.clear();
    }

    /// How many entries are lost, of a table that was read without all of its parts.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }
}

fn misfit(part: &Part) -> super::SnapshotError {
    PartError::Misfit("its entries of what happened lately are not those that follow").of(part.id)
}

/// The part of the index for a hash: bits that the part itself uses for neither its slots nor its tags.
fn part(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

impl<V> std::fmt::Debug for Recent<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recent").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}
