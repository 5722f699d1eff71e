//! A table of what happened lately: found by key, forgotten by age and by number.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::Millis;

/// Parts of the index. A part that grows moves its own slots only, so that no record waits for millions of them.
const PARTS: usize = 256;

/// What a [`Recent`] table remembers about a key.
pub(super) trait Happened {
    /// When it happened: what entered later has no earlier time.
    fn at(&self) -> Millis;
}

/// Entries in the order in which they came, 8 bytes and the value each, and an index of 5 to 10 bytes an entry.
///
/// A key that comes again hides its older entry, which keeps its place until it is old enough to go.
pub(super) struct Recent<V> {
    entries: VecDeque<(u64, V)>,
    /// Number of the entry at the front; numbers wrap, there are far fewer than 2^32 entries.
    first: u32,
    /// Numbers of the entries that are not hidden, by the hash of their key.
    index: Box<[HashTable<u32>]>,
    hasher: DefaultHashBuilder,
    max: usize,
    window_ms: u64,
}

impl<V: Happened + Copy> Recent<V> {
    /// Remembers at most `max` entries, for `window_ms` milliseconds.
    pub(super) fn new(max: usize, window_ms: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            index: (0..PARTS).map(|_| HashTable::new()).collect(),
            hasher: DefaultHashBuilder::default(),
            max,
            window_ms,
        }
    }

    /// The latest entry of this key, if it is remembered at `now`.
    pub(super) fn get(&self, key: u64, now: Millis) -> Option<&V> {
        self.latest(key).filter(|value| now.ms_since(value.at()) <= self.window_ms)
    }

    /// The latest entry of this key that was not dropped yet, however old.
    pub(super) fn latest(&self, key: u64) -> Option<&V> {
        let hash = self.hasher.hash_one(key);
        let number = self.index[part(hash)].find(hash, |number| self.entries[self.place(*number)].0 == key)?;
        Some(&self.entries[self.place(*number)].1)
    }

    /// Adds an entry, and drops those that are too old or too many.
    pub(super) fn put(&mut self, key: u64, value: V) {
        while let Some((_, oldest)) = self.entries.front() {
            if self.entries.len() < self.max && value.at().ms_since(oldest.at()) <= self.window_ms {
                break;
            }
            self.drop_first();
        }
        self.push(key, value);
    }

    fn push(&mut self, key: u64, value: V) {
        // Grown by doubling, but never beyond the bound: the ring passes through all memory that it holds.
        if self.entries.len() == self.entries.capacity() {
            let more = self.entries.len().clamp(16, 1 << 22).min(self.max.saturating_sub(self.entries.len()).max(1));
            self.entries.reserve_exact(more);
        }
        let number = self.first.wrapping_add(self.entries.len() as u32);
        self.entries.push_back((key, value));
        let (entries, first, hasher) = (&self.entries, self.first, &self.hasher);
        let key_of = |number: &u32| entries[number.wrapping_sub(first) as usize].0;
        let hash = hasher.hash_one(key);
        let slot = self.index[part(hash)].entry(hash, |number| key_of(number) == key, |n| hasher.hash_one(key_of(n)));
        slot.insert(number);
    }

    fn drop_first(&mut self) {
        let Some((key, _)) = self.entries.front() else { return };
        let (hash, first) = (self.hasher.hash_one(*key), self.first);
        if let Ok(slot) = self.index[part(hash)].find_entry(hash, |number| *number == first) {
            slot.remove();
        }
        self.entries.pop_front();
        self.first = self.first.wrapping_add(1);
    }

    fn place(&self, number: u32) -> usize {
        number.wrapping_sub(self.first) as usize
    }

    /// All entries, the oldest first; of a key that came again, the hidden ones too.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, &V)> + ExactSizeIterator {
        self.entries.iter().map(|(key, value)| (*key, value))
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Puts entries back in the order in which [`Recent::iter`] gave them; drops nothing.
    pub(super) fn restore(&mut self, key: u64, value: V) {
        self.push(key, value);
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct At(u64, u32);

    impl Happened for At {
        fn at(&self) -> Millis {
            Millis(self.0)
        }
    }

    #[test]
    fn an_entry_is_remembered_to_the_end_of_its_window_and_not_longer() {
        let mut recent = Recent::new(10, 100);
        recent.put(1, At(1000, 1));
        assert!(recent.get(1, Millis(1100)).is_some() && recent.get(1, Millis(1101)).is_none());
        recent.put(2, At(1100, 2));
        assert_eq!(recent.len(), 2);
        recent.put(3, At(1101, 3));
        assert_eq!(recent.iter().map(|(key, _)| key).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let mut recent = Recent::new(3, 100);
        (1..=4).for_each(|key| recent.put(key, At(7, key as u32)));
        assert_eq!(recent.len(), 3);
        assert!(recent.latest(1).is_none() && (2..=4).all(|key| recent.latest(key).is_some()));
        assert!(recent.entries.capacity() <= 16);
    }

    #[test]
    fn a_key_that_comes_again_is_found_by_its_latest_entry_when_the_first_goes() {
        let mut recent = Recent::new(2, 100);
        recent.put(1, At(5, 10));
        recent.put(1, At(5, 11));
        recent.put(2, At(5, 20));
        assert_eq!((recent.latest(1), recent.latest(2)), (Some(&At(5, 11)), Some(&At(5, 20))));
        recent.put(3, At(5, 30));
        assert_eq!(recent.latest(1), None);
    }

    proptest! {
        /// Against a plain list, with few keys so that they come again often.
        #[test]
        fn it_says_what_a_list_says(puts in proptest::collection::vec((0u64..40, 0u64..30), 1..400)) {
            let mut recent = Recent::new(50, 300);
            recent.first = u32::MAX - 60;
            let mut list: Vec<(u64, At)> = Vec::new();
            let mut now = 0;
            for (n, (key, pause)) in puts.into_iter().enumerate() {
                now += pause;
                let value = At(now, n as u32);
                recent.put(key, value);
                list.retain(|(_, old)| now - old.0 <= 300);
                if list.len() == 50 {
                    list.remove(0);
                }
                list.push((key, value));
                prop_assert!(recent.iter().eq(list.iter().map(|(key, value)| (*key, value))));
                for key in 0..40 {
                    let expected = list.iter().rev().find(|(k, _)| *k == key).map(|(_, value)| value);
                    prop_assert_eq!(recent.latest(key), expected);
                }
            }
        }
    }
}
