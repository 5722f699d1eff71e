//! Entries of a queue that lie in a part, and are read from there for years.
//!
//! A part is whole when it is taken over; what the disk loses later shows only when somebody reads it. So each page of
//! entries has a checksum in memory, made while the part was known to be whole, and is compared with it when it is read. A
//! part lies on the disk twice: a page that is damaged in one copy is read from the other, at once, for a state machine
//! must never see anything but what the log said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use bytes::Bytes;

use super::index_entry::{INDEX_ENTRY_LEN, IndexEntry};

/// Entries that have a checksum together: 4 bytes of memory for so many messages, and a page is verified in a tenth of a
/// microsecond.
const PAGE_ENTRIES: usize = 64;
const PAGE_LEN: usize = PAGE_ENTRIES * INDEX_ENTRY_LEN;

/// A copy has damage, and the other one says what was there.
const DAMAGED: u8 = 1;
/// Both copies are damaged in one page: something is gone.
const LOST: u8 = 2;

/// What was found of a part while it was read.
#[derive(Debug, Default)]
pub(super) struct PartHealth {
    found: AtomicU8,
    /// The worst that was found of any part of the state.
    worst: Arc<AtomicU8>,
}

impl PartHealth {
    fn found(&self, what: u8) {
        self.found.fetch_max(what, Ordering::Relaxed);
        self.worst.fetch_max(what, Ordering::Relaxed);
    }
}

/// What was found of the parts that a state reads from.
#[derive(Debug, Default)]
pub(super) struct PartsHealth {
    worst: Arc<AtomicU8>,
    parts: BTreeMap<u64, Arc<PartHealth>>,
}

impl PartsHealth {
    /// That of one part, known from now on.
    pub(super) fn of(&mut self, part: u64) -> Arc<PartHealth> {
        let new = || Arc::new(PartHealth { found: AtomicU8::default(), worst: self.worst.clone() });
        self.parts.entry(part).or_insert_with(new).clone()
    }

    /// Forgets the parts that are not among these.
    pub(super) fn retain(&mut self, is_needed: impl Fn(u64) -> bool) {
        self.parts.retain(|part, _| is_needed(*part));
    }

    /// Parts in which damage was met since they were taken over or read again. Nearly always there are none, and then one
    /// number says so, without a look at each part.
    pub(super) fn damaged(&self) -> Vec<u64> {
        self.at_least(DAMAGED)
    }

    /// Parts of which something was wanted that no copy has.
    pub(super) fn lost(&self) -> Vec<u64> {
        self.at_least(LOST)
    }

    fn at_least(&self, what: u8) -> Vec<u64> {
        if self.worst.load(Ordering::Relaxed) < what {
            return Vec::new();
        }
        let found = self.parts.iter().filter(|(_, health)| health.found.load(Ordering::Relaxed) >= what);
        found.map(|(part, _)| *part).collect()
    }

    /// A part was read again from copies that are whole.
    pub(super) fn mended(&self, part: u64) {
        if let Some(health) = self.parts.get(&part) {
            health.found.store(0, Ordering::Relaxed);
        }
        let worst = self.parts.values().map(|health| health.found.load(Ordering::Relaxed)).max();
        self.worst.store(worst.unwrap_or(0), Ordering::Relaxed);
    }
}

/// The entries of a row, in both copies of its part.
#[derive(Debug)]
pub(super) struct SealedEntries {
    first: Bytes,
    /// As long, or empty where there is no second copy.
    second: Bytes,
    checksums: Box<[u32]>,
    /// The page that was last read and found whole in the first copy, plus one; 0 for none. A scan verifies each page once,
    /// and not for every entry.
    read_last: AtomicUsize,
    health: Arc<PartHealth>,
}

impl SealedEntries {
    /// `first` is whole; `second`, which need not be, is another copy of it.
    pub(super) fn new(first: Bytes, second: Bytes, health: Arc<PartHealth>) -> Self {
        let checksums = first.chunks(PAGE_LEN).map(crc32c::crc32c).collect();
        Self { first, second, checksums, read_last: AtomicUsize::new(0), health }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.first.len() / INDEX_ENTRY_LEN
    }

    /// Reads the same entries from other bytes, of the same length.
    pub(super) fn read_from(&mut self, first: Bytes, second: Bytes) {
        debug_assert_eq!(first.len(), self.first.len(), "copies of one row");
        (self.first, self.second) = (first, second);
        *self.read_last.get_mut() = 0;
    }

    /// The entry at a place; `None` beyond the last, and where no copy has it, which is noted.
    pub(super) fn get(&self, at: usize) -> Option<IndexEntry> {
        let bytes = self.page(at / PAGE_ENTRIES)?;
        bytes.as_chunks().0.get(at % PAGE_ENTRIES).map(|entry| IndexEntry::from_bytes(*entry))
    }

    /// The bytes of the entry at a place, which are neither read nor verified here; `None` beyond the last.
    pub(super) fn bytes(&self, at: usize) -> Option<Bytes> {
        let from = at.checked_mul(INDEX_ENTRY_LEN)?;
        (from + INDEX_ENTRY_LEN <= self.first.len()).then(|| self.first.slice(from..from + INDEX_ENTRY_LEN))
    }

    /// Entries from a place on; `None` for each that no copy has.
    pub(super) fn iter_from(&self, at: usize) -> impl Iterator<Item = Option<IndexEntry>> + '_ {
        let first = at / PAGE_ENTRIES;
        (first..self.checksums.len()).flat_map(move |page| {
            let from = if page == first { at % PAGE_ENTRIES } else { 0 };
            let to = (self.len() - page * PAGE_ENTRIES).min(PAGE_ENTRIES);
            let entries = self.page(page).map(|bytes| bytes.as_chunks().0);
            (from..to).map(move |at| Some(IndexEntry::from_bytes(*entries?.get(at)?)))
        })
    }

    /// The bytes of a page, as they were written.
    fn page(&self, page: usize) -> Option<&[u8]> {
        let expected = *self.checksums.get(page)?;
        let range = page * PAGE_LEN..self.first.len().min((page + 1) * PAGE_LEN);
        let first = &self.first[range.clone()];
        if self.read_last.load(Ordering::Relaxed) == page + 1 {
            return Some(first);
        }
        if crc32c::crc32c(first) == expected {
            self.read_last.store(page + 1, Ordering::Relaxed);
            return Some(first);
        }
        let second = self.second.get(range).filter(|second| crc32c::crc32c(second) == expected);
        self.health.found(if second.is_some() { DAMAGED } else { LOST });
        second
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RecordPosition, TagHash};

    fn entry(n: u64) -> IndexEntry {
        IndexEntry { position: RecordPosition(n * 100), tag: TagHash(n) }
    }

    fn bytes(count: u64) -> Vec<u8> {
        (0..count).flat_map(|n| entry(n).to_bytes()).collect()
    }

    #[test]
    fn a_page_that_is_damaged_is_read_from_the_other_copy_and_only_what_no_copy_has_is_lost() {
        let whole = bytes(200);
        let mut health = PartsHealth::default();
        let mut sealed = SealedEntries::new(whole.clone().into(), whole.clone().into(), health.of(7));
        let all = |sealed: &SealedEntries| sealed.iter_from(0).collect::<Vec<_>>();
        let expected: Vec<_> = (0..200).map(|n| Some(entry(n))).collect();
        assert_eq!((all(&sealed), sealed.len(), health.damaged()), (expected.clone(), 200, vec![]));
        // The second page of one copy, the third and the last of the other.
        let damaged = |places: &[usize]| {
            let mut bytes = whole.clone();
            places.iter().for_each(|at| bytes[*at] ^= 1);
            Bytes::from(bytes)
        };
        sealed.read_from(damaged(&[64 * 16]), damaged(&[128 * 16, 199 * 16 + 15]));
        assert_eq!((all(&sealed), health.damaged(), health.lost()), (expected.clone(), vec![7], vec![]));
        assert_eq!((sealed.get(63), sealed.get(64), sealed.get(200)), (expected[63], expected[64], None));
        // A page of both.
        sealed.read_from(damaged(&[127 * 16]), damaged(&[64 * 16]));
        let lost = all(&sealed);
        assert_eq!((&lost[..64], &lost[128..]), (&expected[..64], &expected[128..]));
        assert!(lost[64..128].iter().all(Option::is_none) && sealed.get(100).is_none());
        assert_eq!((health.damaged(), health.lost()), (vec![7], vec![7]));
        // A copy that is cut short has what is left of it.
        sealed.read_from(damaged(&[127 * 16]), Bytes::from(whole[..64 * 16].to_vec()));
        assert_eq!((sealed.get(127), sealed.iter_from(128).count()), (None, 72));
        sealed.read_from(whole.clone().into(), Bytes::new());
        health.mended(7);
        assert_eq!((all(&sealed), health.damaged(), health.lost()), (expected, vec![], vec![]));
    }
}
